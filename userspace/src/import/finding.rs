//! One secret, as a finder reports it.

use std::{fmt, ops::Deref};

use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

/// The text of a secret; wiped when it is dropped, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

/// What a report says of one secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The secret; `None` where the report doesn't hold it.
    pub secret: Option<Secret>,
    /// Who found it.
    pub tool: &'static str,
    /// The finder's name for what it is; empty where unknown.
    pub rule: String,
    /// File and line, or a URL; empty where unknown.
    pub place: String,
    /// Whether somebody has said that it is no secret.
    pub dismissed: bool,
}

impl Finding {
    /// A finding of `tool` of which nothing else is known.
    #[must_use]
    pub fn new(tool: &'static str, secret: Option<Secret>) -> Self {
        Self {
            secret,
            tool,
            rule: String::new(),
            place: String::new(),
            dismissed: false,
        }
    }

    /// With the first of these that is known as its rule.
    #[must_use]
    pub(super) fn rule(mut self, names: impl IntoIterator<Item = Option<String>>) -> Self {
        self.rule = first(names);
        self
    }

    /// With the first of these that is known as its place.
    #[must_use]
    pub(super) fn place(mut self, places: impl IntoIterator<Item = Option<String>>) -> Self {
        self.place = first(places);
        self
    }
}

fn first(texts: impl IntoIterator<Item = Option<String>>) -> String {
    let mut known = texts.into_iter().flatten().filter(|text| !text.is_empty());
    known.next().unwrap_or_default()
}

/// `file:line`, or `file` where the line isn't known.
pub(super) fn at(file: Option<String>, line: Option<u64>) -> Option<String> {
    match (file?, line) {
        (file, Some(line)) if !file.is_empty() => Some(format!("{file}:{line}")),
        (file, _) => Some(file),
    }
}

impl Secret {
    /// Takes the text over.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl Deref for Secret {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}
