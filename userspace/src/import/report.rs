//! The formats of reports, and what is wrong with a report.

use clap::ValueEnum;

use super::{
    Finding, dotenv, ggshield, github, gitlab, gitleaks, har, kingfisher, postman, sarif,
    trufflehog,
};

/// A format that findings are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, strum::Display)]
#[strum(serialize_all = "kebab-case")]
pub enum Format {
    /// `gitleaks --report-format json`
    GitleaksJson,
    /// `gitleaks --report-format csv`
    GitleaksCsv,
    /// `gitleaks --report-format sarif`
    GitleaksSarif,
    /// `trufflehog --json`
    Trufflehog,
    /// Secret scanning alerts of GitHub's REST API
    Github,
    /// Secret detection report of GitLab
    Gitlab,
    /// `ggshield secret scan --json --show-secrets`
    Ggshield,
    /// `kingfisher scan --format json`, or `jsonl`
    Kingfisher,
    /// Postman collection or environment
    Postman,
    /// HTTP archive of a browser or a proxy
    Har,
    /// `.env` file
    Env,
}

/// Why a report can't be read. Shows nothing of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// It looks like none of the formats.
    #[error("is no report of a known kind; say which it is with --format")]
    Unknown,
    /// Bytes that are no text.
    #[error("is not UTF-8")]
    NotUtf8,
    /// It isn't JSON.
    #[error("line {line}, column {column}: no JSON")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// It ends too early.
    #[error("ends in the middle of a value; is the file whole?")]
    Cut,
    /// It is JSON of another shape.
    #[error(
        "line {line}, column {column}: not as {format} writes it: a field is missing or of another kind"
    )]
    Shape {
        /// What it was read as.
        format: Format,
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// A row of a table that can't be read.
    #[error("line {line}: not as {format} writes it: too few or too many fields, or an open quote")]
    Row {
        /// What it was read as.
        format: Format,
        /// Counted from 1.
        line: u64,
    },
    /// A column of a table is missing.
    #[error("line 1: the table has no column {0}")]
    Column(&'static str),
    /// A line of a `.env` file that assigns nothing.
    #[error("line {line}: neither NAME=VALUE nor a comment, or an open quote")]
    Assignment {
        /// Counted from 1.
        line: usize,
    },
    /// SARIF whose snippets may be more than the secret.
    #[error(
        "a SARIF report of another tool than gitleaks, which doesn't say what exactly the secret is; import \
         the tool's own JSON"
    )]
    OtherSarif,
}

/// The findings of a report.
///
/// # Errors
/// Where any part of it is malformed.
pub fn findings(format: Format, report: &[u8]) -> Result<Vec<Finding>, ReportError> {
    match format {
        Format::GitleaksJson => gitleaks::json(report),
        Format::GitleaksCsv => gitleaks::csv(report),
        Format::GitleaksSarif => sarif::findings(report),
        Format::Trufflehog => trufflehog::findings(report),
        Format::Github => github::findings(report),
        Format::Gitlab => gitlab::findings(report),
        Format::Ggshield => ggshield::findings(report),
        Format::Kingfisher => kingfisher::findings(report),
        Format::Postman => postman::findings(report),
        Format::Har => har::findings(report),
        Format::Env => dotenv::findings(report),
    }
}
