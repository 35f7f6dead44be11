//! Lines of a denylist that come by the control API, with the text of their tokens, which the guards want to see.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{
    Grammar, LineError, Reading,
    claims::is_claims,
    line::{Line, Said, hash, is_hash, parse, split_at_white},
};
use crate::denylist::{Action, Claims, Entry, Expires, HashedRecord, Identity, Skipped, TokenId};

/// What a line gives.
#[derive(Debug)]
pub(crate) enum Uploaded<'a> {
    /// An entry, and its token as it stands.
    Entry(Entry<'a>, &'a str),
    /// An entry that names claims of JWTs.
    Claims(Entry<'a>, Claims),
    /// An entry that is known by its SHA-256 alone.
    Hashed(HashedRecord, Said<'a>),
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
        Line::Claims(entry, claims) => Uploaded::Claims(entry, claims),
        Line::Hashed(record, said) => Uploaded::Hashed(record, said),
        Line::Skipped(why) => Uploaded::Skipped(why),
        Line::Blank => Uploaded::Blank,
    })
}

/// What stands in the place of a token where it begins with `jwt:`, and is nothing but conditions.
pub(crate) fn claims(
    reading: Reading<'_>,
    text: &str,
) -> Option<Result<(Identity, Claims), LineError>> {
    let text = text.trim_ascii();
    if !is_claims(text) {
        return None;
    }
    Some(
        match parse(Grammar::Entries, reading, UNIX_EPOCH, text.as_bytes()) {
            Ok(Line::Claims(entry, claims)) if is_bare(&entry) => Ok((entry.identity, claims)),
            Ok(_) => Err(LineError::Claim),
            Err(error) => Err(error),
        },
    )
}

/// What stands in the place of a token where it begins with `sha256:`.
pub(crate) fn hashed(text: &str) -> Option<Result<TokenId, LineError>> {
    let text = text.trim_ascii();
    is_hash(text).then(|| hash(text).ok_or(LineError::Hash))
}

/// Whether nothing is said of an entry but what it is.
fn is_bare(entry: &Entry<'_>) -> bool {
    let said = entry.reason.or(entry.source).is_some();
    !said && entry.expires == Expires::NEVER && entry.action == Action::default()
}
