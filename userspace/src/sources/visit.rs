//! Goes through a file again for what was not kept of it: where an entry stands, why it is listed, where it was found.

use std::ops::ControlFlow;

use super::{
    FileError, LineError, Reading, Source,
    file::{failed, open, unmarked},
    line::{Line, Said, parse},
    lines::{Lines, LinesError},
};
use crate::denylist::{Claims, Entry, HashedRecord};

/// An entry where it stands.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    /// Of a token, or of claims of JWTs.
    Token(Entry<'a>, Option<Claims>),
    /// Known by its SHA-256 alone.
    Hashed(HashedRecord, Said<'a>),
}

/// Shows each entry of a file with the number of its line, until there is no need for more.
///
/// # Errors
/// Where any line before that is malformed or the file can't be read.
pub(crate) fn visit(
    source: &Source,
    reading: Reading<'_>,
    visitor: &mut dyn FnMut(u64, Found<'_>) -> ControlFlow<()>,
) -> Result<(), FileError> {
    let (file, written) = open(&source.path)?;
    let mut lines = Lines::new(file);
    let refused = |number, error| FileError::Line {
        path: source.path.clone(),
        number,
        error,
    };
    loop {
        let (number, text) = match lines.next() {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(()),
            Err(LinesError::TooLong(number)) => return Err(refused(number, LineError::TooLong)),
            Err(LinesError::Io(error)) => return Err(failed(&source.path, error)),
        };
        let text = unmarked(number, text);
        let line = parse(source.grammar, reading, written, text);
        let found = match line.map_err(|error| refused(number, error))? {
            Line::Entry(entry) => Found::Token(entry, None),
            Line::Claims(entry, claims) => Found::Token(entry, Some(claims)),
            Line::Hashed(record, said) => Found::Hashed(record, said),
            Line::Skipped(_) | Line::Blank => continue,
        };
        if visitor(number, found).is_break() {
            return Ok(());
        }
    }
}
