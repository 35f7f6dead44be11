//! Tells the format of a report from its contents.

use std::{collections::BTreeSet, fmt};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Format, ReportError, dotenv, json};

/// What a report is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detected {
    /// A report in this format.
    Report(Format),
    /// Nothing at all, or an empty array: what several finders write when they found nothing.
    Nothing,
}

/// Looks at the beginning of a report.
///
/// # Errors
/// Where it is malformed, or looks like nothing that is known.
pub fn detect(report: &[u8]) -> Result<Detected, ReportError> {
    match report.trim_ascii_start().first() {
        None => Ok(Detected::Nothing),
        Some(b'{' | b'[') => of_json(report),
        Some(_) => of_text(report).map(Detected::Report),
    }
}

fn of_text(report: &[u8]) -> Result<Format, ReportError> {
    let text = std::str::from_utf8(report).map_err(|_not_utf8| ReportError::NotUtf8)?;
    let header = text.lines().next().unwrap_or_default();
    let columns: Vec<_> = header.split(',').collect();
    if columns.contains(&"RuleID") && columns.contains(&"Secret") {
        return Ok(Format::GitleaksCsv);
    }
    match dotenv::assignments(text) {
        Ok(assignments) if !assignments.is_empty() => Ok(Format::Env),
        _ => Err(ReportError::Unknown),
    }
}

fn of_json(report: &[u8]) -> Result<Detected, ReportError> {
    let mut paths = Paths::default();
    let seed = Level {
        paths: &mut paths,
        prefix: "",
        depth: 0,
    };
    let mut document = serde_json::Deserializer::from_slice(report);
    seed.deserialize(&mut document)
        .map_err(|error| json::syntax(&error))?;
    match paths.format() {
        Some(format) => Ok(Detected::Report(format)),
        None if paths.empty_array => Ok(Detected::Nothing),
        None => Err(ReportError::Unknown),
    }
}

/// The names of members on the two topmost levels, `outer.inner`; `[].` stands for the first element of an array.
#[derive(Default)]
struct Paths {
    names: BTreeSet<String>,
    empty_array: bool,
}

impl Paths {
    /// Of the first format whose members are there.
    fn format(&self) -> Option<Format> {
        const SIGNS: [(Format, &[&str]); 19] = [
            (Format::GitleaksJson, &["[].RuleID", "[].Secret"]),
            (Format::Github, &["[].secret_type"]),
            (Format::Trufflehog, &["DetectorName", "Raw"]),
            (Format::Trufflehog, &["DetectorType", "Raw"]),
            (Format::Har, &["log.entries"]),
            (Format::GitleaksSarif, &["runs", "version"]),
            (Format::Gitlab, &["vulnerabilities"]),
            (Format::Ggshield, &["entities_with_incidents"]),
            (Format::Ggshield, &["scans"]),
            (Format::Ggshield, &["total_incidents"]),
            (Format::Kingfisher, &["findings"]),
            (Format::Kingfisher, &["rule", "finding"]),
            (Format::Kingfisher, &["[].rule", "[].finding"]),
            (Format::Kingfisher, &["[].matches"]),
            (Format::Postman, &["info", "item"]),
            (Format::Postman, &["collection.info", "collection.item"]),
            (Format::Postman, &["values", "name"]),
            (Format::Postman, &["values", "_postman_variable_scope"]),
            (Format::Postman, &["environment.values"]),
        ];
        let is_there = |name: &&str| self.names.contains(*name);
        SIGNS
            .into_iter()
            .find(|(_, signs)| signs.iter().all(is_there))
            .map(|(format, _)| format)
    }
}

/// Reads the names of one level, and ignores values.
struct Level<'a> {
    paths: &'a mut Paths,
    prefix: &'a str,
    depth: u8,
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.depth > 1 {
            return deserializer.deserialize_ignored_any(IgnoredAny).map(drop);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            let path = format!("{}{name}", self.prefix);
            let prefix = format!("{path}.");
            self.paths.names.insert(path);
            map.next_value_seed(Level {
                paths: self.paths,
                prefix: &prefix,
                depth: self.depth + 1,
            })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let prefix = format!("{}[].", self.prefix);
        let first = elements.next_element_seed(Level {
            paths: self.paths,
            prefix: &prefix,
            depth: self.depth + 1,
        })?;
        self.paths.empty_array |= first.is_none() && self.depth == 0;
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}
