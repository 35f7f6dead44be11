//! trufflehog: one JSON object a line.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Finding, Format, ReportError, Secret, credential::is_name_of_one, finding::at, json};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    raw: Secret,
    detector_name: Option<String>,
    /// The parts of a credential that has several; `Raw` is then but one of them.
    #[serde(default)]
    secret_parts: Option<BTreeMap<String, Secret>>,
    #[serde(default)]
    source_metadata: Option<Metadata>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    /// By the kind of source.
    data: Option<BTreeMap<String, Place>>,
}

#[derive(Deserialize)]
struct Place {
    link: Option<String>,
    file: Option<String>,
    line: Option<u64>,
}

pub(super) fn findings(report: &[u8]) -> Result<Vec<Finding>, ReportError> {
    let lines: Vec<Line> = json::values(Format::Trufflehog, report)?;
    Ok(lines.into_iter().flat_map(of_line).collect())
}

fn of_line(line: Line) -> Vec<Finding> {
    let metadata = line.source_metadata.and_then(|metadata| metadata.data);
    let place = metadata
        .into_iter()
        .flatten()
        .next()
        .map(|(_, place)| place);
    let (url, file) = match place {
        Some(place) => (place.link, at(place.file, place.line)),
        None => (None, None),
    };
    let parts = line.secret_parts.unwrap_or_default();
    let secrets = parts
        .into_iter()
        .filter_map(|(name, secret)| is_name_of_one(&name).then_some(secret));
    [line.raw]
        .into_iter()
        .chain(secrets)
        .map(|secret| {
            Finding::new("trufflehog", Some(secret))
                .rule([line.detector_name.clone()])
                .place([url.clone(), file.clone()])
        })
        .collect()
}
