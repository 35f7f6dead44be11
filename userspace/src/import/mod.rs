//! What finders of leaked secrets report, as entries for the denylist.
//!
//! `report -> detect -> one module a format -> guard -> plan -> list`

mod credential;
mod detect;
mod dotenv;
mod finding;
mod ggshield;
mod github;
mod gitlab;
mod gitleaks;
mod guard;
mod har;
mod json;
mod kingfisher;
mod plan;
mod postman;
mod report;
mod run;
mod sarif;
mod trufflehog;

pub use detect::{Detected, detect};
pub use finding::{Finding, Secret};
pub use guard::{Unfit, fit, guard};
pub use plan::{Addition, Plan, Refusal};
pub use report::{Format, ReportError, findings};
pub use run::{ImportArgs, ImportError, run};
pub(crate) use run::{list, read};
