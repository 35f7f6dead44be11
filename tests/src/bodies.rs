//! Bodies of requests that inspectors read differently, none with a listed token; and their framing.

use crate::{certificate::Certificate, fixtures::binary};

/// A kind of body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Few line ends.
    Binary,
    /// Lines of words.
    Text,
    /// Lines of values.
    Json,
    /// Lines of a name, a colon and a value, some of which begin as a location does.
    Settings,
    /// Lines of a log, with requests and queries.
    Log,
    /// Requests with header lines of locations.
    Headers,
    /// One line of words.
    Line,
}

/// All of them.
pub const ALL: [Body; 7] = [
    Body::Binary,
    Body::Text,
    Body::Json,
    Body::Settings,
    Body::Log,
    Body::Headers,
    Body::Line,
];

impl Body {
    /// `len` bytes of it.
    #[must_use]
    pub fn bytes(self, len: usize) -> Vec<u8> {
        let repeated = match self {
            Self::Binary => return binary(len),
            Self::Text => {
                "And so it went on, line by line, and no line of it said: Authorization\n"
            }
            Self::Json => "{\"id\": 100000, \"name\": \"item\", \"tags\": [\"a\", \"b\"]},\r\n",
            Self::Settings => {
                "Author: someone\nAccess: all\nContent: none\nCosts: 7\nX-Axis: 1\nPrice: 4\n"
            }
            Self::Log => {
                "GET /a/b?page=7&q=a%20b 200\n2026-11-22 GET /?c=d\nSee http://h/?access_tokens=1&api_keys=2 there\n"
            }
            Self::Headers => {
                "POST /b?api_key=not-a-listed-one HTTP/1.1\r\nAuthorization: Bearer not-a-listed-one-either\r\n\
                 Content-Length: 5\r\nCookie: session=nor-this-one; a=b\r\n\r\nhello\r\n"
            }
            Self::Line => {
                "lorem ipsum dolor sit amet? consectetur=adipiscing, elit sed do eiusmod "
            }
        };
        repeated.bytes().cycle().take(len).collect()
    }
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// By `Content-Length`.
    Declared,
    /// In chunks of 4 KiB (RFC 9112 section 7.1).
    Chunked,
}

impl Framing {
    /// A request with this body.
    #[must_use]
    pub fn request(self, body: &[u8]) -> Vec<u8> {
        let head = |line: &str| {
            format!(
                "POST / HTTP/1.1\r\nHost: {}\r\n{line}\r\n\r\n",
                Certificate::HOST
            )
            .into_bytes()
        };
        if self == Self::Declared {
            return [&head(&format!("Content-Length: {}", body.len())), body].concat();
        }
        let mut bytes = head("Transfer-Encoding: chunked");
        for chunk in body.chunks(4096) {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        bytes
    }
}
