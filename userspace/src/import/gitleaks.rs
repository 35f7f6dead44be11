//! gitleaks: JSON and CSV reports. (Its SARIF: `sarif`.)

use serde::Deserialize;

use super::{Finding, Format, ReportError, Secret, finding::at, json};

const TOOL: &str = "gitleaks";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    secret: Secret,
    #[serde(rename = "RuleID")]
    rule_id: String,
    file: Option<String>,
    start_line: Option<u64>,
    link: Option<String>,
}

impl From<Row> for Finding {
    fn from(row: Row) -> Self {
        Self::new(TOOL, Some(row.secret))
            .rule([Some(row.rule_id)])
            .place([row.link, at(row.file, row.start_line)])
    }
}

/// An array of findings.
pub(super) fn json(report: &[u8]) -> Result<Vec<Finding>, ReportError> {
    let reports: Vec<Vec<Row>> = json::values(Format::GitleaksJson, report)?;
    Ok(reports.into_iter().flatten().map(Finding::from).collect())
}

/// A table; the columns are known by their names.
pub(super) fn csv(report: &[u8]) -> Result<Vec<Finding>, ReportError> {
    let row = |line| ReportError::Row {
        format: Format::GitleaksCsv,
        line,
    };
    let mut reader = csv::Reader::from_reader(report);
    let header = reader.headers().map_err(|_no_text| row(1))?;
    for name in ["Secret", "RuleID"] {
        if !header.iter().any(|column| column == name) {
            return Err(ReportError::Column(name));
        }
    }
    reader
        .deserialize::<Row>()
        // The text of the error may quote a field.
        .map(|read| match read {
            Ok(finding) => Ok(finding.into()),
            Err(error) => Err(row(error.position().map_or(1, csv::Position::line))),
        })
        .collect()
}
