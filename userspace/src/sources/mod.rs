//! Where entries come from: denylist files, read line by line and watched for changes.
//!
//! `watch -> folder -> file -> gzip -> blocks -> lines -> line -> denylist`

mod blocks;
mod claims;
mod file;
mod folder;
mod gzip;
mod line;
mod lines;
mod upload;
mod visit;
mod watch;
mod write;

pub use file::{FileError, Records, SkippedLine, Source, Summary, read};
pub(crate) use gzip::expanded;
pub use line::{Grammar, LineError};
pub(crate) use line::{Said, expires};
pub(crate) use upload::{Uploaded, claims, hashed, upload};
pub(crate) use visit::{Found, visit};
pub use watch::{Change, Watch};
pub(crate) use write::writable;
pub use write::{write_hash, write_token};

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokenblock_ebpf::digest::{Domain, InstallationKey};

use crate::denylist::{Expires, Identity, jwt};

/// The length from which on entries count, in bytes, as everyone has it who reads some; it may change at run time.
#[derive(Clone, Debug)]
pub struct MinLength(Arc<AtomicU64>);

impl MinLength {
    /// The length.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Makes it another, for whatever is read from now on.
    pub fn set(&self, length: u64) {
        self.0.store(length, Relaxed);
    }
}

impl From<u64> for MinLength {
    fn from(length: u64) -> Self {
        Self(Arc::new(AtomicU64::new(length)))
    }
}

/// What the text of an entry is read with.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    /// For the digests.
    pub key: &'a InstallationKey,
    /// Entries shorter than this many bytes are skipped.
    pub min_token_length: u64,
    /// How long after its `exp` a JWT leaves the list, where the list doesn't say when; `None` where it stays.
    pub jwt_expiry: Option<Duration>,
}

impl Reading<'_> {
    /// When an entry leaves: as the list says, else as the token itself does.
    #[must_use]
    pub fn expires(&self, identity: &Identity, token: &str, said: Option<Expires>) -> Expires {
        let of_token = || match (self.jwt_expiry, identity.domain) {
            (Some(margin), Domain::Jws) => jwt::ends(token, margin),
            (Some(_), Domain::Exact) | (None, _) => None,
        };
        said.or_else(of_token).unwrap_or(Expires::NEVER)
    }
}
