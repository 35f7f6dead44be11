//! `tokenblock detach`: takes away what outlived its process.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use clap::Args;
use tracing::{info, warn};

use super::folder;
use crate::exit::{Exit, Failure};

/// The arguments of `tokenblock detach`.
#[derive(Args, Debug)]
pub struct DetachArgs {
    /// The folder in which `tokenblock run` has kept its programs
    #[arg(long, value_name = "DIR", env = "TOKENBLOCK_PIN_DIR")]
    pin_dir: PathBuf,
}

/// Ends the enforcement that a `tokenblock run` with the same `--pin-dir` has left.
///
/// # Errors
/// [`super::PinDirError::Locked`] where that still runs, or why something can't be taken away.
pub fn detach(args: &DetachArgs) -> Result<Exit, Failure> {
    let links = folder::clear(&args.pin_dir).map_err(Failure::from)?;
    let _printed = match links {
        0 => writeln!(io::stdout(), "nothing was attached"),
        links => writeln!(io::stdout(), "detached: {links} links"),
    };
    Ok(Exit::Ok)
}

/// Detaches what was kept for a kernel tier, where there is to be none any more. That it can't be is a warning in the log.
pub fn detach_unwanted(folder: &Path) {
    match folder::clear(folder) {
        Ok(0) => {}
        Ok(links) => info!(
            links,
            "there is no kernel tier any more: its programs are detached"
        ),
        Err(error) => warn!(
            error = &error as &dyn std::error::Error,
            "what was kept for a kernel tier stays attached"
        ),
    }
}

/// Logs that programs go on to enforce, where they do.
pub fn say_what_stays(folder: &Path) {
    if folder::is_used(folder) {
        info!(
            pin_dir = %folder.display(),
            "the programs stay attached and go on to block; `tokenblock detach` ends that"
        );
    }
}
