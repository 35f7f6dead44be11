//! JSON documents, one after the other, with errors that show nothing of their text.

use serde::de::DeserializeOwned;
use serde_json::{Deserializer, error::Category};

use super::{Format, ReportError};

/// The values of a file: one document, or one a line.
pub(super) fn values<T: DeserializeOwned>(
    format: Format,
    report: &[u8],
) -> Result<Vec<T>, ReportError> {
    Deserializer::from_slice(report)
        .into_iter()
        .map(|value| value.map_err(|error| explain(&error, format)))
        .collect()
}

/// The text of the error is left out: it may quote a value.
fn explain(error: &serde_json::Error, format: Format) -> ReportError {
    let (line, column) = (error.line(), error.column());
    match error.classify() {
        Category::Data => ReportError::Shape {
            format,
            line,
            column,
        },
        Category::Eof => ReportError::Cut,
        Category::Syntax | Category::Io => ReportError::Syntax { line, column },
    }
}

/// As [`explain`], where the format isn't known yet.
pub(super) fn syntax(error: &serde_json::Error) -> ReportError {
    match error.classify() {
        Category::Eof => ReportError::Cut,
        Category::Data | Category::Syntax | Category::Io => ReportError::Syntax {
            line: error.line(),
            column: error.column(),
        },
    }
}
