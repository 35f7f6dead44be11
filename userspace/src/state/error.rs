//! Why the state can't be used.

use std::{io, path::PathBuf};

/// Why the state can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process has the folder.
    #[error(
        "the state folder {} is used by another tokenblock; stop that one, or give another with --state-dir",
        .0.display()
    )]
    Locked(PathBuf),
    /// The folder can't be used.
    #[error(
        "the state folder {}: {error}; is it full or read-only? give another with --state-dir",
        folder.display()
    )]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file in it can't be read, made or written.
    #[error("{}: {error}; is the state folder's disk full or read-only?", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The database is damaged.
    #[error(
        "{} is damaged ({what}); restore it from a backup, or move it away to start without the entries that \
         were added at run time",
        path.display()
    )]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// It is another file than the one that was opened, or none.
    #[error(
        "{} was removed or replaced while it is in use, so that nothing more can be kept; put it back, or save what is in \
         force with `tokenblock deny export --added` and start tokenblock again",
        .0.display()
    )]
    Gone(PathBuf),
    /// A later version wrote it.
    #[error(
        "{} has the format {found}, this tokenblock reads up to {known}; run the version that wrote it, or a \
         later one",
        path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The latest that is known.
        known: u64,
    },
    /// Its digests are of another installation key.
    #[error(
        "{} was written under another installation key, so none of its entries would be found; restore the \
         file `key` beside it, or move the database away",
        .0.display()
    )]
    OtherKey(PathBuf),
}
