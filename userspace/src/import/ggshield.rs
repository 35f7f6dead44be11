//! ggshield: a tree of scans.

use serde::Deserialize;

use super::{Finding, Format, ReportError, Secret, credential::is_name_of_one, finding::at, json};

#[derive(Deserialize)]
struct Scan {
    #[serde(default)]
    entities_with_incidents: Vec<Entity>,
    #[serde(default)]
    scans: Vec<Scan>,
}

#[derive(Deserialize)]
struct Entity {
    filename: Option<String>,
    incidents: Vec<Incident>,
}

#[derive(Deserialize)]
struct Incident {
    #[serde(rename = "type")]
    detector: Option<String>,
    occurrences: Vec<Occurrence>,
}

#[derive(Deserialize)]
struct Occurrence {
    /// Censored, but with `--show-secrets`.
    r#match: Secret,
    /// Which part of the credential it is.
    r#type: Option<String>,
    line_start: Option<u64>,
}

pub(super) fn findings(report: &[u8]) -> Result<Vec<Finding>, ReportError> {
    let mut scans: Vec<Scan> = json::values(Format::Ggshield, report)?;
    let mut findings = Vec::new();
    while let Some(scan) = scans.pop() {
        scans.extend(scan.scans);
        for entity in scan.entities_with_incidents {
            for incident in entity.incidents {
                findings.extend(of_incident(incident, entity.filename.as_ref()));
            }
        }
    }
    Ok(findings)
}

/// A host or a user's name is part of some incidents, but no secret.
fn of_incident(incident: Incident, file: Option<&String>) -> impl Iterator<Item = Finding> {
    let secret = |found: &Occurrence| found.r#type.as_deref().is_none_or(is_name_of_one);
    incident
        .occurrences
        .into_iter()
        .filter(secret)
        .map(move |found| {
            Finding::new("ggshield", Some(found.r#match))
                .rule([incident.detector.clone()])
                .place([at(file.cloned(), found.line_start)])
        })
}
