//! Where entries come from: denylist files, read line by line and watched for changes.
//!
//! `watch -> folder -> file -> gzip -> lines -> line -> denylist`

mod file;
mod folder;
mod gzip;
mod line;
mod lines;
mod upload;
mod watch;
mod write;

pub use file::{FileError, Records, SkippedLine, Source, Summary, read};
pub(crate) use gzip::expanded;
pub(crate) use line::expires;
pub use line::{Grammar, LineError};
pub(crate) use upload::{Uploaded, upload};
pub use watch::{Change, Watch};
pub(crate) use write::writable;
pub use write::{write_hash, write_token};

use tokenblock_ebpf::digest::InstallationKey;

/// What the text of an entry is read with.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    /// For the digests.
    pub key: &'a InstallationKey,
    /// Entries shorter than this many bytes are skipped.
    pub min_token_length: u64,
}
