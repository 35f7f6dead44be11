//! The body of a request: bounded in size and time, and wiped, since it holds tokens.

use std::{mem, time::Duration};

use http_body_util::BodyExt as _;
use hyper::body::{Body, Incoming};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};
use zeroize::{Zeroize as _, Zeroizing};

/// Longest body in bytes: a hundred thousand long tokens.
pub(super) const LONGEST: usize = 64 << 20;
/// Longest list in bytes: ten million long tokens.
const LONGEST_LIST: u64 = 8 << 30;
/// Bytes of lines that are worked on at once, and what they have room in as they come.
const CHUNK: usize = 1 << 20;
const ROOM: usize = CHUNK + (1 << 20);
/// Longest time for a body to arrive, or for the next part of a list.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a body is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the body is longer than {LONGEST} bytes; send it in parts")]
    TooLong,
    #[error("the list is longer than {LONGEST_LIST} bytes; send it in parts")]
    ListTooLong,
    #[error("a line of the list is longer than {CHUNK} bytes")]
    LongLine,
    #[error("the body did not arrive within {} seconds", PATIENCE.as_secs())]
    TooSlow,
    #[error("the body ended early")]
    Broken,
    /// Malformed, or something unknown in it.
    #[error("{0}")]
    Malformed(String),
}

/// Reads and parses a JSON body.
pub(super) async fn json<T: DeserializeOwned>(body: Incoming) -> Result<T, BodyError> {
    parse(&read(body).await?)
}

/// Parses the text of a JSON body.
pub(super) fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, BodyError> {
    serde_json::from_slice(text).map_err(|error| BodyError::Malformed(harmless(&error)))
}

/// Reads a body whole.
pub(super) async fn read(mut body: Incoming) -> Result<Zeroizing<Vec<u8>>, BodyError> {
    let until = Instant::now() + PATIENCE;
    // As long as it is said to be, so that it isn't moved as it grows.
    let said = usize::try_from(body.size_hint().upper().unwrap_or(0)).unwrap_or(usize::MAX);
    if said > LONGEST {
        return Err(BodyError::TooLong);
    }
    let mut text = Zeroizing::new(Vec::with_capacity(said));
    while next(&mut body, until, &mut text).await? {
        if text.len() > LONGEST {
            return Err(BodyError::TooLong);
        }
    }
    Ok(text)
}

/// Appends what comes next of a body; says whether anything did.
async fn next(
    body: &mut Incoming,
    until: Instant,
    text: &mut Zeroizing<Vec<u8>>,
) -> Result<bool, BodyError> {
    loop {
        let frame = match timeout_at(until, body.frame()).await {
            Err(_elapsed) => return Err(BodyError::TooSlow),
            Ok(None) => return Ok(false),
            Ok(Some(frame)) => frame.map_err(|_broken| BodyError::Broken)?,
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        text.extend_from_slice(&data);
        // Where the connection's buffer is shared it is wiped by its next use only.
        if let Ok(mut data) = data.try_into_mut() {
            data.zeroize();
        }
        return Ok(true);
    }
}

/// A body of lines that is worked on while it comes.
pub(super) struct Lines {
    body: Incoming,
    /// What has come and not been given, and the most that fits without being moved.
    rest: Zeroizing<Vec<u8>>,
    /// Lines that were given.
    given: u64,
    bytes: u64,
}

/// Whole lines, one behind the other.
pub(super) struct Chunk {
    pub(super) text: Zeroizing<Vec<u8>>,
    /// The number of the first, counted from 1.
    pub(super) first: u64,
}

impl Lines {
    pub(super) fn new(body: Incoming) -> Self {
        Self {
            body,
            rest: Zeroizing::new(Vec::with_capacity(ROOM)),
            given: 0,
            bytes: 0,
        }
    }

    /// The next lines; `None` where there are no more.
    pub(super) async fn next(&mut self) -> Result<Option<Chunk>, BodyError> {
        loop {
            let held = self.rest.len();
            let until = Instant::now() + PATIENCE;
            let more = next(&mut self.body, until, &mut self.rest).await?;
            self.bytes += (self.rest.len() - held) as u64;
            if self.bytes > LONGEST_LIST {
                return Err(BodyError::ListTooLong);
            }
            if !more {
                let last = mem::replace(&mut self.rest, Zeroizing::new(Vec::new()));
                return Ok((!last.is_empty()).then(|| self.chunk(last)));
            }
            if self.rest.len() < CHUNK {
                continue;
            }
            let end = memchr::memrchr(b'\n', &self.rest).map_or(0, |at| at + 1);
            if end == 0 {
                // No line is as long as that.
                return Err(BodyError::LongLine);
            }
            let mut next = Zeroizing::new(Vec::with_capacity(ROOM));
            next.extend_from_slice(self.rest.get(end..).unwrap_or_default());
            let mut text = mem::replace(&mut self.rest, next);
            text.truncate(end);
            return Ok(Some(self.chunk(text)));
        }
    }

    fn chunk(&mut self, text: Zeroizing<Vec<u8>>) -> Chunk {
        let first = self.given + 1;
        self.given += memchr::memchr_iter(b'\n', &text).count() as u64;
        Chunk { text, first }
    }
}

/// What is wrong and where, without any text of the body: that may be a token.
///
/// What serde says is the kind, what it found, then `, expected`, what was expected and where.
fn harmless(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let ours = ["missing field", "duplicate field"];
    if !error.is_data() || ours.iter().any(|start| message.starts_with(start)) {
        return message;
    }
    let kinds = [
        "unknown field",
        "unknown variant",
        "invalid type",
        "invalid value",
        "invalid length",
    ];
    let kind = kinds.iter().find(|kind| message.starts_with(**kind));
    let kind = kind.unwrap_or(&"not what belongs here");
    match message.rsplit_once(", expected ") {
        Some((_, expected)) => format!("{kind}, expected {expected}"),
        None => format!("{kind} at line {} column {}", error.line(), error.column()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::AddRequest;

    fn refused(text: &str) -> String {
        let result = serde_json::from_str::<AddRequest>(text);
        harmless(&result.err().expect("refused"))
    }

    #[test]
    fn messages_say_what_and_where_and_nothing_of_the_body() {
        for (text, what, place) in [
            (
                r#"{"entries": "SECRET"}"#,
                "invalid type, expected",
                "column",
            ),
            (
                r#"{"entries": [{"token": 5}]}"#,
                "invalid type, expected",
                "line 1 column 24",
            ),
            (
                r#"{"entries": [{"SECRET": "x"}]}"#,
                "unknown field, expected one of `token`",
                "line 1",
            ),
            (
                "{\"entries\": [\n{\"token\": \"x\", \"action\": \"SECRET, expected SECRET\"}]}",
                "unknown variant, expected `block` or `alert`",
                "line 2",
            ),
            (r#"{"entries": [{}]}"#, "missing field `token`", "line 1"),
            (
                r#"{"entries": [SECRET"#,
                "expected value",
                "line 1 column 14",
            ),
            (
                r#"{"entries": [], "entries": []}"#,
                "duplicate field",
                "line 1",
            ),
        ] {
            let message = refused(text);
            assert!(message.starts_with(what), "{message}");
            assert!(message.contains(place), "{message}");
            assert!(!message.contains("SECRET"), "{message}");
        }
    }
}
