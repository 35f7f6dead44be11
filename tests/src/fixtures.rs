//! The one table: requests, and the verdict that every floor and both tiers must give on them.

mod table;
mod tokens;

pub use table::{all, binary};
pub use tokens::{
    DOTTED, OPAQUE, TOKENS, Token, digests, hashed, hashed_list_file, list_file, listed,
};

use tokenblock_ebpf::location::LocationKind;

/// The configured locations, in the order of their ids. Fixtures use other names for what must pass.
pub const LOCATIONS: &[(LocationKind, &str)] = &[
    (LocationKind::Header, "Authorization"),
    (LocationKind::Header, "X-API-Key"),
    (LocationKind::Cookie, "session"),
    (LocationKind::Cookie, "test"),
    (LocationKind::Query, "access_token"),
    (LocationKind::Query, "api_key"),
];

/// Shortest candidate that is looked up, in bytes: the product's default.
pub const MIN_TOKEN_LENGTH: u64 = 8;

/// The verdict on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It bears `token` at the location with this id (index into [`LOCATIONS`]).
    Block {
        /// Index into [`LOCATIONS`].
        location: usize,
        /// The listed token.
        token: Token,
    },
    /// It bears no listed token at a configured location.
    Pass,
}

/// Who can take the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As RFC 9110 and RFC 9112 write it: every HTTP parser takes it.
    Strict,
    /// Only some servers take it (bare LF, obs-fold ...); strict parsers answer 400.
    Raw,
}

/// One request with its verdict.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// Unique name.
    pub name: &'static str,
    /// The request method.
    pub method: &'static str,
    /// The request target, as it is sent.
    pub target: String,
    /// Header lines without their line ends; `Host` and `Content-Length` are added by [`Fixture::bytes`].
    pub lines: Vec<Vec<u8>>,
    /// The body.
    pub body: Vec<u8>,
    /// What ends a line.
    pub line_end: &'static str,
    /// The verdict.
    pub expected: Expected,
    /// Who can take it.
    pub form: Form,
}

impl Fixture {
    fn new(name: &'static str, expected: Expected) -> Self {
        Self {
            name,
            method: "GET",
            target: "/".to_owned(),
            lines: Vec::new(),
            body: Vec::new(),
            line_end: "\r\n",
            expected,
            form: Form::Strict,
        }
    }

    /// A request that must be blocked for `token` at `location`, a name out of [`LOCATIONS`].
    #[expect(clippy::panic, reason = "a table with a typing error is no table")]
    fn blocked(name: &'static str, location: &str, token: Token) -> Self {
        let location = LOCATIONS
            .iter()
            .position(|(_, known)| *known == location)
            .unwrap_or_else(|| panic!("{name}: {location} is not configured"));
        Self::new(name, Expected::Block { location, token })
    }

    /// A request that must pass.
    fn passed(name: &'static str) -> Self {
        Self::new(name, Expected::Pass)
    }

    fn line(mut self, line: impl AsRef<[u8]>) -> Self {
        self.lines.push(line.as_ref().to_vec());
        self
    }

    fn target(mut self, target: impl Into<String>) -> Self {
        self.target = target.into();
        self
    }

    fn post(mut self, content_type: &str, body: impl AsRef<[u8]>) -> Self {
        self.method = "POST";
        self.body = body.as_ref().to_vec();
        self.line(format!("Content-Type: {content_type}"))
    }

    fn line_end(mut self, line_end: &'static str) -> Self {
        self.line_end = line_end;
        self.raw()
    }

    fn raw(mut self) -> Self {
        self.form = Form::Raw;
        self
    }

    /// The whole request as it is sent to `host`.
    #[must_use]
    pub fn bytes(&self, host: &str) -> Vec<u8> {
        let end = self.line_end;
        let mut bytes = format!(
            "{} {} HTTP/1.1{end}Host: {host}{end}",
            self.method, self.target
        )
        .into_bytes();
        for line in &self.lines {
            bytes.extend_from_slice(line);
            bytes.extend_from_slice(self.line_end.as_bytes());
        }
        if !self.body.is_empty() {
            let length = format!("Content-Length: {}{}", self.body.len(), self.line_end);
            bytes.extend_from_slice(length.as_bytes());
        }
        bytes.extend_from_slice(self.line_end.as_bytes());
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Whether the request must be blocked.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        matches!(self.expected, Expected::Block { .. })
    }
}
