//! `cargo xtask run`: builds, then starts the product, or shows it at work.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    build::{BINARY_VARIABLE, Built, Profile},
    exec,
    packages::{self, CURL, IP},
    targets, workspace,
};

/// Arguments of the task.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Arguments of `tokenblock run`; none starts the demonstration.
    #[arg(last = true)]
    args: Vec<OsString>,
}

/// Builds the product and becomes it, or its demonstration.
///
/// # Errors
/// Where it can't be built or started.
pub(crate) fn task(args: &Args) -> Result<()> {
    let built = Built::new(Profile::Release)?;
    let mut command = if args.args.is_empty() {
        packages::ensure(&[IP, CURL])?;
        demonstration(&built)
    } else {
        product(&built, &args.args)
    };
    // In place of this process, so that signals and the exit code are its own.
    let error = command.exec();
    Err(error).with_context(|| format!("could not start `{}`", exec::line(&command)))
}

fn product(built: &Built, args: &[OsString]) -> Command {
    let mut command = exec::as_root(&built.binary);
    command.arg("run").args(args);
    command
}

/// An example of the tests' package, since it is made of their harness. Built like the product, whose
/// dependencies it shares.
fn demonstration(built: &Built) -> Command {
    let mut cargo = Command::new(workspace::cargo());
    cargo
        .current_dir(workspace::root())
        .args(["run", "--quiet", "--release", "--package", targets::PACKAGE])
        .args(["--example", "demo"])
        .env(BINARY_VARIABLE, &built.binary);
    exec::run_built_as_root(&mut cargo);
    cargo
}
