//! How the process ends: one code for each kind of failure, as sysexits.h numbers them.

use std::{fmt::Write as _, process::ExitCode};

/// Why the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It was told to.
    Ok = 0,
    /// A wrong flag, environment setting, or combination of them.
    Usage = 64,
    /// A malformed line in a denylist file, or a certificate or key that can't be used.
    Data = 65,
    /// A file that is missing or can't be read.
    NoInput = 66,
    /// The kernel lacks a feature, or an interface is missing.
    Unavailable = 69,
    /// A defect of this program.
    Internal = 70,
    /// The system refused something: a port in use, no more memory or descriptors.
    Os = 71,
    /// A privilege is missing.
    NoPermission = 77,
    /// A wrong configuration file.
    Config = 78,
}

/// A failure that ends the process: what went wrong, with its causes, and the code to end with.
#[derive(Debug)]
pub struct Failure {
    /// The code.
    pub exit: Exit,
    /// What is shown.
    pub error: anyhow::Error,
}

impl Failure {
    /// Ends the process with this code for this reason.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit,
            error: error.into(),
        }
    }
}

impl Exit {
    const MEANINGS: [(Self, &'static str); 9] = [
        (Self::Ok, "ended by SIGINT or SIGTERM"),
        (Self::Usage, "a flag or an environment setting is wrong"),
        (
            Self::Data,
            "a denylist, a certificate or a key is malformed",
        ),
        (Self::NoInput, "a file is missing or can't be read"),
        (
            Self::Unavailable,
            "an interface or a feature of the kernel is missing",
        ),
        (Self::Internal, "a defect of tokenblock"),
        (
            Self::Os,
            "the system refused something, for instance a port in use",
        ),
        (Self::NoPermission, "a privilege is missing"),
        (Self::Config, "the configuration file is wrong"),
    ];

    /// The codes and their meanings, for `--help`.
    #[must_use]
    pub fn help() -> String {
        let mut help = String::from("Exit codes:");
        for (exit, meaning) in Self::MEANINGS {
            // Writing to a string can't fail.
            let _infallible = write!(help, "\n  {:>2}  {meaning}", exit as u8);
        }
        help
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
