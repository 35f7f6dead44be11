//! Lines of a denylist that come by the control API, with the text of their tokens, which the guards want to see.

use std::time::SystemTime;

use super::{
    Grammar, LineError, Reading,
    line::{Line, parse, split_at_white},
};
use crate::denylist::{Entry, Skipped};

/// What a line gives.
#[derive(Debug)]
pub(crate) enum Uploaded<'a> {
    /// An entry, and its token as it stands.
    Entry(Entry<'a>, &'a str),
    /// An entry that is known by its SHA-256 alone.
    Hashed,
    /// It is left out.
    Skipped(Skipped),
    /// Blank, or a comment.
    Blank,
}

/// Reads one line; durations count from `now`.
///
/// # Errors
/// Where it is malformed.
pub(crate) fn upload<'a>(
    reading: Reading<'_>,
    now: SystemTime,
    line: &'a [u8],
) -> Result<Uploaded<'a>, LineError> {
    Ok(match parse(Grammar::Entries, reading, now, line)? {
        Line::Entry(entry) => {
            let text = str::from_utf8(line).map_err(|_not_utf8| LineError::NotUtf8)?;
            Uploaded::Entry(entry, split_at_white(text.trim_ascii()).0)
        }
        Line::Hashed(_) => Uploaded::Hashed,
        Line::Skipped(why) => Uploaded::Skipped(why),
        Line::Blank => Uploaded::Blank,
    })
}
