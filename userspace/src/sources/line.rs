//! The grammar of one line of a denylist file: a token, attributes after it.

use std::time::SystemTime;

use jiff::{Span, Timestamp, tz::TimeZone};
use tokenblock_ebpf::digest::Domain;

use super::{
    Reading,
    claims::{self, is_claims},
};
use crate::denylist::{
    Action, Claims, Conditions, Entry, Expires, HashedRecord, Malformed, Skipped, TokenId,
    Unlistable, identify,
};

/// How the lines of a file are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grammar {
    /// `TOKEN [ATTRIBUTE=VALUE]...`, `#` before a comment.
    Entries,
    /// The whole line is a token, with or without its scheme: the format of Wallarm's API Firewall.
    Wallarm,
}

/// Why a line is refused, and with it the file. Says nothing of the line's text: that may be a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// The line is longer than 64 KiB.
    #[error("longer than 64 KiB; is this a list with one token a line?")]
    TooLong,
    /// Bytes that are no text.
    #[error("not UTF-8; is this a text file?")]
    NotUtf8,
    /// The token can't be one.
    #[error(transparent)]
    Token(#[from] Malformed),
    /// A hash that isn't one.
    #[error("sha256: takes 64 hexadecimal digits (of a token that reads so, put quotes around it)")]
    Hash,
    /// A kind that isn't one.
    #[error("kind= takes exact (the whole token) or jws (the first two segments of a JWT)")]
    Kind,
    /// A kind without a hash.
    #[error("kind= belongs to sha256: entries; of a token it is told from the token itself")]
    KindOfToken,
    /// A claim that isn't one.
    #[error(
        "jwt: takes kid=, jti=, sub= or iss= and a value, for instance jwt:sub=alice or jwt:iss=\"a b\""
    )]
    Claim,
    /// A time before which nothing is issued.
    #[error("before= takes a time such as 2027-01-31T12:00:00Z")]
    Before,
    /// Such a time without claims.
    #[error(
        "before= belongs to jwt: entries; without a condition such as jwt:sub=alice it would be all tokens"
    )]
    BeforeOfToken,
    /// What follows the token isn't `name=value`, or the name is unknown.
    #[error(
        "what follows the token is no attribute{}; known are expires=, action=, reason=, source=, kind= and before= (a \
         scheme such as Bearer is left out, a comment stands on a line of its own)",
        .nearest.map(|name| format!("; did you mean {name}=?")).unwrap_or_default()
    )]
    UnknownAttribute {
        /// A known name that is spelt alike.
        nearest: Option<&'static str>,
    },
    /// An attribute given twice.
    #[error("{0}= is given twice")]
    Twice(&'static str),
    /// An attribute without a value.
    #[error("{0}= has no value")]
    NoValue(&'static str),
    /// A quote without its twin.
    #[error("the value of {0}= has a quote too few or too many; write {0}=\"some text\"")]
    Quotes(&'static str),
    /// A control character in a value.
    #[error("a control character in the value of {0}=")]
    Control(&'static str),
    /// A time that isn't one.
    #[error("expires= takes a time such as 2027-01-31T12:00:00Z or a duration such as 90d or 12h")]
    Expires,
    /// An action that isn't one.
    #[error("action= takes block or alert")]
    Action,
}

/// What a line gives.
#[derive(Debug)]
pub(super) enum Line<'a> {
    Entry(Entry<'a>),
    Hashed(HashedRecord, Said<'a>),
    /// What JWTs claim; the entry is that of the conditions.
    Claims(Entry<'a>, Claims),
    Skipped(Skipped),
    Blank,
}

/// What is said of an entry for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said<'a> {
    /// Why it is listed.
    pub(crate) reason: Option<&'a str>,
    /// Where it was found.
    pub(crate) source: Option<&'a str>,
}

/// Reads one line; durations count from `written`.
pub(super) fn parse<'a>(
    grammar: Grammar,
    reading: Reading<'_>,
    written: SystemTime,
    line: &'a [u8],
) -> Result<Line<'a>, LineError> {
    let line = std::str::from_utf8(line).map_err(|_not_utf8| LineError::NotUtf8)?;
    let line = line.trim_ascii();
    if line.is_empty() {
        return Ok(Line::Blank);
    }
    let (token, attributes) = match grammar {
        Grammar::Entries if line.starts_with('#') => return Ok(Line::Blank),
        Grammar::Entries if is_claims(line) => return of_claims(reading, written, line),
        Grammar::Entries => {
            let (token, rest) = split_at_white(line);
            (token, attributes(rest, written)?)
        }
        Grammar::Wallarm => match without_scheme(line) {
            Some(token) => (token, Attributes::default()),
            None => return Ok(Line::Skipped(Skipped::SeveralWords)),
        },
    };
    if attributes.before.is_some() {
        return Err(LineError::BeforeOfToken);
    }
    if grammar == Grammar::Entries && is_hash(token) {
        let record = HashedRecord {
            id: hash(token).ok_or(LineError::Hash)?,
            domain: attributes.kind,
            action: attributes.action.unwrap_or_default(),
            expires: attributes.expires.unwrap_or(Expires::NEVER),
        };
        let Attributes { reason, source, .. } = attributes;
        return Ok(Line::Hashed(record, Said { reason, source }));
    }
    if attributes.kind.is_some() {
        return Err(LineError::KindOfToken);
    }
    match identify(reading.key, reading.min_token_length, token) {
        Ok(identity) => Ok(Line::Entry(Entry {
            identity,
            action: attributes.action.unwrap_or_default(),
            expires: reading.expires(&identity, token, attributes.expires),
            reason: attributes.reason,
            source: attributes.source,
        })),
        Err(Unlistable::Skipped(why)) => Ok(Line::Skipped(why)),
        Err(Unlistable::Malformed(why)) => Err(why.into()),
    }
}

fn of_claims<'a>(
    reading: Reading<'_>,
    written: SystemTime,
    line: &'a str,
) -> Result<Line<'a>, LineError> {
    let (values, rest) = claims::conditions(line)?;
    let attributes = attributes(rest, written)?;
    if attributes.kind.is_some() {
        return Err(LineError::KindOfToken);
    }
    let identity = Conditions::identity(reading.key, &values, attributes.before);
    let claims = Claims {
        conditions: Conditions::new(reading.key, &values, attributes.before),
        digest: identity.digest,
    };
    let entry = Entry {
        identity,
        action: attributes.action.unwrap_or_default(),
        expires: attributes.expires.unwrap_or(Expires::NEVER),
        reason: attributes.reason,
        source: attributes.source,
    };
    Ok(Line::Claims(entry, claims))
}

/// The id that a token's place holds as `sha256:HEX`.
pub(super) fn hash(token: &str) -> Option<TokenId> {
    let digits = token.get(PREFIX.len()..)?.as_bytes();
    let (pairs, rest) = digits.as_chunks::<2>();
    let mut id = [0; 32];
    if !rest.is_empty() || pairs.len() != id.len() {
        return None;
    }
    for (byte, [high, low]) in id.iter_mut().zip(pairs) {
        let digit = |c: u8| char::from(c).to_digit(16);
        *byte = u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?;
    }
    Some(TokenId(id))
}

const PREFIX: &str = "sha256:";

/// Whether a token's place holds `sha256:`.
pub(super) fn is_hash(token: &str) -> bool {
    token
        .get(..PREFIX.len())
        .is_some_and(|prefix| prefix.eq_ignore_ascii_case(PREFIX))
}

/// `Bearer X` gives `X`, one word gives itself, more than two words give nothing.
fn without_scheme(line: &str) -> Option<&str> {
    let (first, rest) = split_at_white(line);
    if rest.is_empty() {
        return Some(first);
    }
    let (token, rest) = split_at_white(rest);
    rest.is_empty().then_some(token)
}

/// The text up to the first blank or tab, and what follows the white space.
pub(super) fn split_at_white(text: &str) -> (&str, &str) {
    match memchr::memchr2(b' ', b'\t', text.as_bytes()).and_then(|at| text.split_at_checked(at)) {
        Some((word, rest)) => (word, rest.trim_start_matches([' ', '\t'])),
        None => (text, ""),
    }
}

#[derive(Default)]
struct Attributes<'a> {
    expires: Option<Expires>,
    action: Option<Action>,
    reason: Option<&'a str>,
    source: Option<&'a str>,
    kind: Option<Domain>,
    /// In seconds since 1970.
    before: Option<u64>,
}

const NAMES: [&str; 6] = ["expires", "action", "reason", "source", "kind", "before"];

fn attributes(mut rest: &str, written: SystemTime) -> Result<Attributes<'_>, LineError> {
    let mut attributes = Attributes::default();
    while !rest.is_empty() {
        let (name, value);
        (name, value, rest) = attribute(rest)?;
        let first = match name {
            "expires" => attributes
                .expires
                .replace(expires(value, written)?)
                .is_none(),
            "action" => attributes.action.replace(action(value)?).is_none(),
            "kind" => attributes.kind.replace(kind(value)?).is_none(),
            "before" => attributes.before.replace(before(value)?).is_none(),
            "reason" => attributes.reason.replace(value).is_none(),
            _ => attributes.source.replace(value).is_none(),
        };
        if !first {
            return Err(LineError::Twice(name));
        }
    }
    Ok(attributes)
}

/// One `name=value` or `name="value"`: the name, the value, and what follows.
fn attribute(text: &str) -> Result<(&'static str, &str, &str), LineError> {
    let (name, value) = text.split_once('=').ok_or_else(|| unknown(text))?;
    let name = NAMES
        .into_iter()
        .find(|known| *known == name)
        .ok_or_else(|| unknown(name))?;
    let (value, rest) = match value.strip_prefix('"') {
        Some(quoted) => {
            let (value, rest) = quoted.split_once('"').ok_or(LineError::Quotes(name))?;
            if !(rest.is_empty() || rest.starts_with([' ', '\t'])) {
                return Err(LineError::Quotes(name));
            }
            (value, rest.trim_start_matches([' ', '\t']))
        }
        None => split_at_white(value),
    };
    if value.is_empty() {
        return Err(LineError::NoValue(name));
    }
    if value.contains('"') {
        return Err(LineError::Quotes(name));
    }
    if value.chars().any(char::is_control) {
        return Err(LineError::Control(name));
    }
    Ok((name, value, rest))
}

/// Names only what we know, since the text may be a token.
fn unknown(name: &str) -> LineError {
    let name = name.to_ascii_lowercase();
    let nearest = NAMES
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(known, &name), known))
        .filter(|(distance, _)| *distance <= 2)
        .min()
        .map(|(_, known)| known);
    LineError::UnknownAttribute { nearest }
}

fn before(value: &str) -> Result<u64, LineError> {
    let time: Timestamp = value.parse().map_err(|_no_time| LineError::Before)?;
    u64::try_from(time.as_second()).map_err(|_before_1970| LineError::Before)
}

fn kind(value: &str) -> Result<Domain, LineError> {
    match value {
        "exact" => Ok(Domain::Exact),
        "jws" => Ok(Domain::Jws),
        _ => Err(LineError::Kind),
    }
}

fn action(value: &str) -> Result<Action, LineError> {
    match value {
        "block" => Ok(Action::Block),
        "alert" => Ok(Action::Alert),
        _ => Err(LineError::Action),
    }
}

/// An instant (RFC 3339) or a duration after `written`.
pub(crate) fn expires(value: &str, written: SystemTime) -> Result<Expires, LineError> {
    if let Ok(instant) = value.parse::<Timestamp>() {
        return Ok(Expires::at(instant.into()));
    }
    let after = || -> Result<Timestamp, jiff::Error> {
        let span: Span = value.parse()?;
        let written = Timestamp::try_from(written)?.to_zoned(TimeZone::UTC);
        Ok(written.checked_add(span)?.timestamp())
    };
    match after() {
        Ok(instant) if SystemTime::from(instant) > written => Ok(Expires::at(instant.into())),
        _ => Err(LineError::Expires),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;
    use tokenblock_ebpf::digest::InstallationKey;

    use super::*;
    use crate::sources::{write_hash, write_token};

    const READING: Reading<'_> = Reading {
        key: &InstallationKey([5; 16]),
        min_token_length: 8,
        jwt_expiry: None,
    };

    fn written() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000)
    }

    fn entries(line: &str) -> Result<Line<'_>, LineError> {
        parse(Grammar::Entries, READING, written(), line.as_bytes())
    }

    fn entry(line: &str) -> Entry<'_> {
        match entries(line) {
            Ok(Line::Entry(entry)) => entry,
            other => panic!("{line:?}: {other:?}"),
        }
    }

    fn refused(line: &str) -> LineError {
        entries(line).expect_err(line)
    }

    #[test]
    fn a_token_with_all_attributes() {
        let plain = entry("  tok#en-0123456789\r");
        assert_eq!(
            (plain.action, plain.expires),
            (Action::Block, Expires::NEVER)
        );
        let full = entry(
            "tok#en-0123456789 \t expires=1970-01-12T14:46:40+01:00 action=alert reason=\"in a public repo\" \
             source=gitleaks",
        );
        assert_eq!(full.identity, plain.identity);
        assert_eq!(full.action, Action::Alert);
        assert_eq!(full.expires, Expires::at(written()));
        assert_eq!(
            (full.reason, full.source),
            (Some("in a public repo"), Some("gitleaks"))
        );
    }

    #[test]
    fn durations_count_from_the_time_of_writing() {
        for (text, seconds) in [
            ("90d", 90 * 86_400),
            ("12h", 43_200),
            ("1d12h", 129_600),
            ("30s", 30),
        ] {
            let line = format!("0123456789 expires={text}");
            let expected = Expires::at(written() + Duration::from_secs(seconds));
            assert_eq!(entry(&line).expires, expected, "{text}");
        }
    }

    #[test]
    fn blank_lines_and_comments_are_no_entries() {
        for line in ["", "   ", "\t\r", "# comment", "  #comment with \u{7f}"] {
            assert!(matches!(entries(line), Ok(Line::Blank)), "{line:?}");
        }
        assert!(matches!(
            entries("short"),
            Ok(Line::Skipped(Skipped::TooShort { minimum: 8 }))
        ));
    }

    #[test]
    fn each_malformed_line_says_what_is_wrong() {
        let unknown = |nearest| LineError::UnknownAttribute { nearest };
        for (line, why) in [
            ("0123456789 # comment", unknown(None)),
            ("Bearer 0123456789", unknown(None)),
            ("Bearer dXNlcjpwYXNzd29yZA==", unknown(None)),
            ("0123456789 expire=90d", unknown(Some("expires"))),
            ("0123456789 Action=block", unknown(Some("action"))),
            ("0123456789 action=drop", LineError::Action),
            ("0123456789 action=", LineError::NoValue("action")),
            ("0123456789 reason=\"\"", LineError::NoValue("reason")),
            ("0123456789 reason=\"open", LineError::Quotes("reason")),
            ("0123456789 reason=\"a\"b", LineError::Quotes("reason")),
            ("0123456789 source=a\"b", LineError::Quotes("source")),
            ("0123456789 reason=a\u{1b}b", LineError::Control("reason")),
            ("0123456789 source=a source=b", LineError::Twice("source")),
            ("0123456789 expires=tomorrow", LineError::Expires),
            ("0123456789 expires=2027-01-31", LineError::Expires),
            ("0123456789 expires=-90d", LineError::Expires),
            ("0123456789 expires=\"90d ago\"", LineError::Expires),
            ("0123456789 expires=0s", LineError::Expires),
            ("0123456789 expires=99999999999d", LineError::Expires),
            ("0123456789\0", LineError::Token(Malformed::Control)),
            ("\"0123456789\",", LineError::Token(Malformed::Quote)),
            ("SHA256:00", LineError::Hash),
            ("0123456789 kind=jws", LineError::KindOfToken),
            ("0123456789 kind=jwt", LineError::Kind),
        ] {
            assert_eq!(refused(line), why, "{line:?}");
            let text = why.to_string();
            assert!(
                !text.contains("0123456789") && !text.contains("dXNl"),
                "{text}"
            );
        }
        let latin1 = parse(Grammar::Entries, READING, written(), b"caf\xe9-0123456789");
        assert_eq!(latin1.expect_err("no UTF-8"), LineError::NotUtf8);
        assert!(
            unknown(Some("action"))
                .to_string()
                .contains("did you mean action=?")
        );
    }

    #[test]
    fn a_hash_stands_in_the_place_of_its_token() {
        let hex = "0123456789abcdefABCDEF00112233445566778899aabbccddeeff0102030405";
        let hashed = |line: &str| match entries(line) {
            Ok(Line::Hashed(record, _)) => record,
            other => panic!("{line}: {other:?}"),
        };
        let plain = hashed(&format!("sha256:{hex}"));
        assert_eq!(plain.id.to_string(), hex.to_lowercase());
        assert_eq!((plain.domain, plain.action), (None, Action::Block));
        let full = hashed(&format!(
            "SHA256:{hex} kind=jws action=alert expires=30s reason=x"
        ));
        assert_eq!((full.id, full.domain), (plain.id, Some(Domain::Jws)));
        assert_eq!(full.action, Action::Alert);
        assert_eq!(
            full.expires,
            Expires::at(written() + Duration::from_secs(30))
        );
        for line in [
            format!("sha256:{hex}00"),
            format!("sha256:{}", hex.trim_start_matches('0')),
            format!("sha256:{}", hex.replace('1', "g")),
        ] {
            assert_eq!(refused(&line), LineError::Hash, "{line}");
        }
        // In quotes it is a token.
        assert_eq!(
            entry(&format!("\"sha256:{hex}\"")).identity.domain,
            Domain::Exact
        );
    }

    #[test]
    fn wallarm_lines_are_tokens_whole() {
        let wallarm = |line: &'static str| {
            parse(Grammar::Wallarm, READING, written(), line.as_bytes()).unwrap()
        };
        for line in [
            "0123456789",
            " Bearer 0123456789 \r",
            "bearer \t0123456789",
            "\"0123456789\"",
        ] {
            match wallarm(line) {
                Line::Entry(found) => assert_eq!(found.identity, entry("0123456789").identity),
                other @ (Line::Hashed(..) | Line::Claims(..) | Line::Skipped(_) | Line::Blank) => {
                    panic!("{line:?}: {other:?}")
                }
            }
        }
        assert!(matches!(wallarm("#0123456789"), Line::Entry(_)));
        assert!(matches!(wallarm("sha256:0123456789"), Line::Entry(_)));
        assert!(matches!(
            wallarm("# of the old list"),
            Line::Skipped(Skipped::SeveralWords)
        ));
        assert!(matches!(wallarm("  \t"), Line::Blank));
    }

    proptest! {
        /// What is written is read back, whatever the token and its attributes are.
        #[test]
        fn a_written_line_reads_as_what_was_written(
            token in "(#|SHA256:)?[!#-~]{12,80}", reason in proptest::option::of(any::<String>()), source in "[a-z ]{0,9}",
        ) {
            let identity = identify(READING.key, READING.min_token_length, &token);
            prop_assume!(identity.is_ok());
            let mut list = String::new();
            write_token(&mut list, &token, reason.as_deref(), Some(&source));
            prop_assert_eq!(list.matches('\n').count(), 1);
            let mut hashes = String::new();
            let Ok(known) = identity else { unreachable!() };
            write_hash(&mut hashes, &known, reason.as_deref(), Some(&source));
            match entries(hashes.trim_end_matches('\n')) {
                Ok(Line::Hashed(record, _)) => {
                    prop_assert_eq!((record.id, record.domain), (known.id, Some(known.domain)));
                }
                other => prop_assert!(false, "{other:?}"),
            }
            let read = entry(list.trim_end_matches('\n'));
            prop_assert_eq!(Ok(read.identity), identity);
            prop_assert_eq!(read.source.unwrap_or_default(), source.trim());
            if let Some(reason) = reason.filter(|text| !text.contains(|c: char| c == '"' || c.is_control()) && text.len() < 500) {
                prop_assert_eq!(read.reason.unwrap_or_default(), reason.trim());
            }
        }

        #[test]
        fn any_bytes_are_answered(line: Vec<u8>) {
            for grammar in [Grammar::Entries, Grammar::Wallarm] {
                if let Ok(Line::Entry(_)) = parse(grammar, READING, written(), &line) {
                    prop_assert!(line.len() >= 8);
                }
            }
        }
    }
}
