//! The workspace's test and bench targets, as cargo knows them.

use anyhow::{Context as _, Result};
use cargo_metadata::{MetadataCommand, TargetKind};

use crate::workspace;

/// The package that holds the whole-host tests and the benches.
pub(crate) const PACKAGE: &str = "tokenblock-tests";

/// Names of that package's targets of this kind, sorted.
///
/// # Errors
/// Where cargo can't read the workspace.
pub(crate) fn names(kind: &TargetKind) -> Result<Vec<String>> {
    let metadata = MetadataCommand::new()
        .cargo_path(workspace::cargo())
        .current_dir(workspace::root())
        .no_deps()
        .exec()
        .context("reading the workspace")?;
    let mut names: Vec<_> = metadata
        .packages
        .iter()
        .filter(|package| package.name == PACKAGE)
        .flat_map(|package| &package.targets)
        .filter(|target| target.kind.contains(kind))
        .map(|target| target.name.clone())
        .collect();
    names.sort();
    Ok(names)
}
