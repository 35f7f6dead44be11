//! Files that are read again when they change.
//!
//! Looking beats being told: it needs no watch on folders that are swapped under it, and a look costs a few
//! microseconds.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

/// How often files are looked at.
pub(crate) const EVERY: Duration = Duration::from_millis(500);

/// What tells a file from its successor; `None` where there is none.
pub(crate) type Look = Option<(SystemTime, u64, u64)>;

/// How the file looks now.
pub(crate) fn look_at(path: &Path) -> Look {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.ino(), metadata.len()))
}
