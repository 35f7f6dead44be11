//! gitleaks: SARIF 2.1.0 reports, whose snippets are the secrets.

use serde::Deserialize;

use super::{Finding, Format, ReportError, Secret, finding::at, json};

#[derive(Deserialize)]
struct Log {
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    tool: Tool,
    // Null where the tool failed.
    results: Option<Vec<Outcome>>,
}

#[derive(Deserialize)]
struct Tool {
    driver: Driver,
}

#[derive(Deserialize)]
struct Driver {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    rule_id: Option<String>,
    #[serde(default)]
    locations: Vec<Location>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    physical_location: PhysicalLocation,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PhysicalLocation {
    artifact_location: Option<ArtifactLocation>,
    region: Option<Region>,
}

#[derive(Deserialize)]
struct ArtifactLocation {
    uri: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Region {
    start_line: Option<u64>,
    snippet: Option<Snippet>,
}

#[derive(Deserialize)]
struct Snippet {
    text: Option<Secret>,
}

pub(super) fn findings(report: &[u8]) -> Result<Vec<Finding>, ReportError> {
    let logs: Vec<Log> = json::values(Format::GitleaksSarif, report)?;
    let mut findings = Vec::new();
    for run in logs.into_iter().flat_map(|log| log.runs) {
        if !run.tool.driver.name.eq_ignore_ascii_case("gitleaks") {
            return Err(ReportError::OtherSarif);
        }
        for outcome in run.results.into_iter().flatten() {
            for location in outcome.locations {
                findings.push(finding(outcome.rule_id.clone(), location.physical_location));
            }
        }
    }
    Ok(findings)
}

fn finding(rule: Option<String>, location: PhysicalLocation) -> Finding {
    let (line, snippet) = match location.region {
        Some(region) => (region.start_line, region.snippet),
        None => (None, None),
    };
    let file = location.artifact_location.and_then(|artifact| artifact.uri);
    Finding::new("gitleaks", snippet.and_then(|snippet| snippet.text))
        .rule([rule])
        .place([at(file, line)])
}
