//! What a client got.

use std::io::{Error, ErrorKind};

/// The end of an exchange, as the client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A complete response.
    Response {
        /// The status code.
        status: u16,
        /// The head, up to and without the empty line.
        head: String,
        /// The body.
        body: Vec<u8>,
    },
    /// Nothing complete within the time limit; the bytes that came.
    Silence(Vec<u8>),
    /// The server closed the connection; the bytes that came before.
    Closed(Vec<u8>),
    /// The connection was reset.
    Reset,
}

impl Answer {
    /// The status code of a response.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Response { status, .. } => Some(*status),
            Self::Silence(_) | Self::Closed(_) | Self::Reset => None,
        }
    }

    pub(super) fn of_error(error: &Error, bytes: Vec<u8>) -> Self {
        let kind = error.kind();
        if matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut) {
            Self::Silence(bytes)
        } else if kind == ErrorKind::UnexpectedEof {
            Self::Closed(bytes)
        } else {
            Self::Reset
        }
    }
}

/// The final response at the start of `bytes`, once all of it is there. Interim responses are skipped.
pub(super) fn parse(bytes: &[u8]) -> Option<Answer> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(head)) = response.parse(bytes) else {
        return None;
    };
    let status = response.code?;
    let (front, rest) = bytes.split_at(head);
    if status < 200 {
        return parse(rest);
    }
    let length = response
        .headers
        .iter()
        .find(|field| field.name.eq_ignore_ascii_case("content-length"))
        .and_then(|field| str::from_utf8(field.value).ok()?.parse().ok())
        .unwrap_or(0);
    Some(Answer::Response {
        status,
        head: String::from_utf8_lossy(front).trim_end().to_owned(),
        body: rest.get(..length)?.to_vec(),
    })
}
