//! GitLab: the report of its secret detection.

use serde::Deserialize;

use super::{Finding, Format, ReportError, Secret, finding::at, json};

#[derive(Deserialize)]
struct Report {
    vulnerabilities: Vec<Vulnerability>,
}

#[derive(Deserialize)]
struct Vulnerability {
    /// Where the report has a place for secrets, this is it.
    raw_source_code_extract: Option<Secret>,
    #[serde(default)]
    identifiers: Vec<Identifier>,
    location: Option<Location>,
}

#[derive(Deserialize)]
struct Identifier {
    value: Option<String>,
}

#[derive(Deserialize)]
struct Location {
    file: Option<String>,
    start_line: Option<u64>,
}

impl From<Vulnerability> for Finding {
    fn from(found: Vulnerability) -> Self {
        let rules = found.identifiers.into_iter().map(|rule| rule.value);
        let place = found
            .location
            .and_then(|place| at(place.file, place.start_line));
        Self::new("gitlab", found.raw_source_code_extract)
            .rule(rules)
            .place([place])
    }
}

pub(super) fn findings(report: &[u8]) -> Result<Vec<Finding>, ReportError> {
    let reports: Vec<Report> = json::values(Format::Gitlab, report)?;
    let found = reports
        .into_iter()
        .flat_map(|report| report.vulnerabilities);
    Ok(found.map(Finding::from).collect())
}
