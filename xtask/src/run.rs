//! `cargo xtask run`: builds, then starts the product, or shows it at work.

use std::{env, ffi::OsString, os::unix::process::CommandExt as _};

use anyhow::{Context as _, Result};

use crate::{
    build::{Built, Profile},
    demo, exec,
    packages::{self, CURL, IP},
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
/// Where it can't be built or started, or the demonstration fails.
pub(crate) fn task(args: &Args) -> Result<()> {
    let built = Built::new(Profile::Release)?;
    let mut command = if args.args.is_empty() {
        packages::ensure(&[IP, CURL])?;
        let arguments = demo::Args::new(built.binary);
        if exec::is_root() {
            return demo::task(&arguments);
        }
        let mut command = exec::as_root(env::current_exe().context("finding this program")?);
        command.args(arguments.command_line());
        command
    } else {
        let mut command = exec::as_root(built.binary);
        command.arg("run").args(&args.args);
        command
    };
    // In place of this process, so that signals and the exit code are its own.
    let error = command.exec();
    Err(error).with_context(|| format!("could not start `{}`", exec::line(&command)))
}
