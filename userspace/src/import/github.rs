//! GitHub: secret scanning alerts, as the REST API lists them.

use serde::Deserialize;

use super::{Finding, Format, ReportError, Secret, json};

#[derive(Deserialize)]
struct Alert {
    /// Left out where the request asked for that.
    secret: Option<Secret>,
    secret_type: String,
    html_url: Option<String>,
    resolution: Option<String>,
}

impl From<Alert> for Finding {
    fn from(alert: Alert) -> Self {
        let dismissed = alert.resolution.as_deref() == Some("false_positive");
        let finding = Self::new("github", alert.secret)
            .rule([Some(alert.secret_type)])
            .place([alert.html_url]);
        Self {
            dismissed,
            ..finding
        }
    }
}

pub(super) fn findings(report: &[u8]) -> Result<Vec<Finding>, ReportError> {
    // One array a page.
    let pages: Vec<Vec<Alert>> = json::values(Format::Github, report)?;
    Ok(pages.into_iter().flatten().map(Finding::from).collect())
}
