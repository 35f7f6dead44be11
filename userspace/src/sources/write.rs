//! Writes lines of a denylist file, as `line` reads them.

use std::borrow::Cow;

use tokenblock_ebpf::digest::Domain;

use super::line::is_hash;
use crate::denylist::Identity;

/// Longest value of an attribute in bytes.
const LONGEST: usize = 512;

/// Appends the line of a token. What can't stand in an attribute's value is replaced in it.
pub fn write_token(list: &mut String, token: &str, reason: Option<&str>, source: Option<&str>) {
    let token = token.trim();
    // So that it reads neither as a comment nor as a hash; quotes around a token don't count.
    if token.starts_with('#') || is_hash(token) {
        list.extend(["\"", token, "\""]);
    } else {
        list.push_str(token);
    }
    attribute(list, "reason", reason);
    attribute(list, "source", source);
    list.push('\n');
}

/// Appends the line of a token's SHA-256, from which the token can't be told.
pub fn write_hash(
    list: &mut String,
    identity: &Identity,
    reason: Option<&str>,
    source: Option<&str>,
) {
    let kind = match identity.domain {
        Domain::Exact => "exact",
        Domain::Jws => "jws",
    };
    list.extend(["sha256:", &identity.id.to_string(), " kind=", kind]);
    attribute(list, "reason", reason);
    attribute(list, "source", source);
    list.push('\n');
}

fn attribute(list: &mut String, name: &str, value: Option<&str>) {
    let value = value.map(writable).unwrap_or_default();
    if !value.trim().is_empty() {
        list.extend([" ", name, "=\"", value.trim(), "\""]);
    }
}

/// The value as far as the grammar can hold it.
pub(crate) fn writable(value: &str) -> Cow<'_, str> {
    let end = value.floor_char_boundary(LONGEST);
    let value = value.get(..end).unwrap_or_default();
    if !value.contains(|c: char| c == '"' || c.is_control()) {
        return Cow::Borrowed(value);
    }
    let written = value.chars().map(|c| match c {
        '"' => '\'',
        c if c.is_control() => ' ',
        c => c,
    });
    Cow::Owned(written.collect())
}
