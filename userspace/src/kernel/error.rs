//! Why the kernel tier can't work.

use std::io;

use aya::{EbpfError, maps::MapError, programs::ProgramError};
use thiserror::Error;

/// Why the kernel tier can't start or go on.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The binary was built without the programs.
    #[error("this binary was built without the kernel programs: build it with `cargo xtask build`")]
    NoObject,
    /// The programs are not those that this binary expects.
    #[error("the kernel programs lack `{what}`: build both sides with `cargo xtask build`")]
    BadObject {
        /// The map or program that is missing.
        what: &'static str,
    },
    /// The process may not use BPF.
    #[error(
        "no permission to load BPF programs: run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    )]
    Permission {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The verifier refused a program.
    #[error(
        "the kernel refused the programs; they need Linux 5.17 (bpf_loop) or later, this is {release}: {log}"
    )]
    Refused {
        /// Release of the running kernel.
        release: String,
        /// The last lines of the verifier's log.
        log: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Any other failure of the loader.
    #[error("can't load the kernel programs")]
    Load(#[source] EbpfError),
    /// Any other failure with a program.
    #[error("can't use a kernel program")]
    Program(#[source] ProgramError),
    /// A map operation failed.
    #[error("a BPF map operation failed")]
    Map(#[from] MapError),
}

impl KernelError {
    pub(super) fn from_load(error: EbpfError) -> Self {
        Self::Load(error)
    }

    pub(super) fn from_program(error: ProgramError) -> Self {
        match error {
            ProgramError::LoadError {
                io_error,
                verifier_log,
            } => {
                if io_error.kind() == io::ErrorKind::PermissionDenied
                    && verifier_log.to_string().is_empty()
                {
                    return Self::Permission { source: io_error };
                }
                Self::Refused {
                    release: String::new(),
                    log: verifier_log.to_string(),
                    source: io_error,
                }
            }
            other => Self::Program(other),
        }
    }
}
