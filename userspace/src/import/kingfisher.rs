//! kingfisher: JSON, one report or several, or one finding a line.

use serde::Deserialize;

use super::{Finding, Format, ReportError, Secret, finding::at, json};

/// What stands on its own in a file.
#[derive(Deserialize)]
#[serde(untagged)]
enum Document {
    Record(Record),
    Report {
        findings: Vec<Record>,
    },
    Records(Vec<Item>),
    /// What it says of the scan, and of what the credentials reach.
    Other(Other),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Record(Record),
    /// As older versions group them.
    Group {
        matches: Vec<Record>,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Other {
    AccessMap(serde::de::IgnoredAny),
    Audit(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct Record {
    rule: Rule,
    finding: Found,
}

#[derive(Deserialize)]
struct Rule {
    id: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Found {
    snippet: Secret,
    path: Option<String>,
    line: Option<u64>,
}

impl From<Record> for Finding {
    fn from(record: Record) -> Self {
        Self::new("kingfisher", Some(record.finding.snippet))
            .rule([record.rule.id, record.rule.name])
            .place([at(record.finding.path, record.finding.line)])
    }
}

pub(super) fn findings(report: &[u8]) -> Result<Vec<Finding>, ReportError> {
    let documents: Vec<Document> = json::values(Format::Kingfisher, report)?;
    let records = documents.into_iter().flat_map(|document| match document {
        Document::Record(record) => vec![record],
        Document::Report { findings } => findings,
        Document::Records(items) => items.into_iter().flat_map(of_item).collect(),
        Document::Other(Other::AccessMap(_) | Other::Audit(_)) => Vec::new(),
    });
    Ok(records.map(Finding::from).collect())
}

fn of_item(item: Item) -> Vec<Record> {
    match item {
        Item::Record(record) => vec![record],
        Item::Group { matches } => matches,
    }
}
