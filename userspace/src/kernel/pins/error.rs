//! Why what outlives the process can't be kept, or taken over.

use std::{io, path::PathBuf};

use aya::programs::links::LinkError;
use thiserror::Error;

/// Why the folder of `--pin-dir` can't be used.
#[derive(Debug, Error)]
pub enum PinDirError {
    /// It is on another kind of file system.
    #[error(
        "--pin-dir {} is on no BPF file system: `mount -t bpf bpf /sys/fs/bpf`, and give a folder there",
        .0.display()
    )]
    NotBpf(PathBuf),
    /// Another process has it.
    #[error(
        "another tokenblock keeps its programs in {}: end it, or give each a --pin-dir of its own",
        .0.display()
    )]
    Locked(PathBuf),
    /// It holds something that this version has not made.
    #[error(
        "{} was not made by this version of tokenblock: give --pin-dir a folder of its own, or take that away (the \
         version that made it does so by `tokenblock detach`)",
        .0.display()
    )]
    Foreign(PathBuf),
    /// Programs are kept there that are attached in another network namespace.
    #[error(
        "{} holds programs of another network namespace: give each a --pin-dir of its own, or end those by \
         `tokenblock detach --pin-dir {}`",
        found.display(),
        root.display()
    )]
    OtherNetns {
        /// What was found.
        found: PathBuf,
        /// The folder.
        root: PathBuf,
    },
    /// A link that is kept there can't be opened.
    #[error(
        "the link {} can't be used: take away what was made in its place, or end all that is kept there by `tokenblock detach`",
        path.display()
    )]
    Link {
        /// Where it is kept.
        path: PathBuf,
        /// Why.
        #[source]
        source: LinkError,
    },
    /// The system refused something.
    #[error("can't {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl PinDirError {
    /// Trying `what` with `path` failed.
    pub(super) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}
