//! Other spellings of what a request bears, that some applications take for the same. What is rare is made plain here
//! and judged once more; the scanner, which both tiers share, knows the rest.

use base64::{
    Engine as _,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use memchr::memchr_iter;
use serde_json::Value;

/// Most parts of one WebSocket protocol that are judged.
const MAX_PARTS: usize = 16;

/// The value with a blank for all white space that readers of text know besides those of HTTP: of UTF-8, and in bytes that
/// are none, of Latin-1.
pub(super) fn with_plain_spaces(value: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(value.len());
    for chunk in value.utf8_chunks() {
        for part in chunk.valid().split_inclusive(char::is_whitespace) {
            let word = part.trim_end_matches(char::is_whitespace);
            plain.extend_from_slice(word.as_bytes());
            if word.len() < part.len() {
                plain.push(b' ');
            }
        }
        let is_white = |byte: &u8| matches!(byte, 0x85 | 0xa0);
        let bytes = chunk.invalid().iter();
        plain.extend(bytes.map(|byte| if is_white(byte) { b' ' } else { *byte }));
    }
    plain
}

/// `Basic` credentials as decoders read them that pass over what is not in their alphabet: those of Python, PHP and Ruby.
/// To others `-` and `_` are the last two letters of theirs. `None` where all read the same.
pub(super) fn credentials(value: &[u8]) -> Option<Vec<u8>> {
    // Few values come further.
    if !matches!(value.first(), Some(b'b' | b'B' | b' ')) {
        return None;
    }
    let value = value.trim_ascii();
    let (scheme, rest) = value.split_at_checked(5)?;
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
    if !scheme.eq_ignore_ascii_case(b"basic") || rest.trim_ascii().iter().all(is_letter) {
        return None;
    }
    let letters = rest.iter().filter(|byte| is_letter(byte));
    Some(b"Basic ".iter().chain(letters).copied().collect())
}

/// The cookies that are strings of JSON (`j:"..."`), as Express's cookie-parser reads them, each as a cookie of its own.
pub(super) fn json_cookies(cookies: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let begins = |at: usize| matches!(cookies.get(at + 1), Some(b'j' | b'"' | b'%' | b' ' | b'\t'));
    let may_be = memchr_iter(b'=', cookies).any(begins);
    let some = cookies
        .split(|byte| *byte == b';')
        .take_while(move |_| may_be);
    some.filter_map(|cookie| {
        let equals = cookie.iter().position(|byte| *byte == b'=')?;
        let (name, value) = cookie.split_at_checked(equals + 1)?;
        let value = value.trim_ascii();
        let unquoted = value.strip_prefix(b"\"").unwrap_or(value);
        let value = unquoted.strip_suffix(b"\"").filter(|_| unquoted != value);
        let value = unescaped(value.unwrap_or(unquoted));
        let text: String = serde_json::from_slice(value.strip_prefix(b"j:")?).ok()?;
        let mut plain = name.trim_ascii().to_vec();
        escape(&mut plain, text.as_bytes());
        Some(plain)
    })
}

/// The query with a blank for all white space of its values; `None` where there is none but that of ASCII.
pub(super) fn query(query: &[u8]) -> Option<Vec<u8>> {
    let digit = |at: usize| query.get(at + 1);
    let is_high = |at| matches!(digit(at), Some(b'8'..=b'9' | b'a'..=b'f' | b'A'..=b'F'));
    if query.is_ascii() && !memchr_iter(b'%', query).any(is_high) {
        return None;
    }
    let mut plain = Vec::with_capacity(query.len());
    for parameter in query.split(|byte| matches!(byte, b'&' | b';')) {
        let equals = parameter.iter().position(|byte| *byte == b'=');
        let (name, value) = parameter.split_at(equals.map_or(parameter.len(), |at| at + 1));
        plain.extend_from_slice(name);
        escape(&mut plain, &with_plain_spaces(&unescaped(value)));
        plain.push(b'&');
    }
    Some(plain)
}

/// What one protocol that a WebSocket client offers may say of a token: browsers set no other field, so tokens travel
/// behind a word for what they are (`openai-insecure-api-key.`), in base64 (`base64url.bearer.authorization.k8s.io.`), or in
/// JSON in base64 (`header-` of AWS's push service).
pub(super) fn protocol(protocol: &[u8]) -> Vec<Vec<u8>> {
    let protocol = unescaped(protocol.trim_ascii());
    let separators = protocol.iter().enumerate();
    let starts = separators
        .filter(|(_, byte)| b".-_:=".contains(byte))
        .map(|(at, _)| at + 1)
        .take(MAX_PARTS);
    let mut found = Vec::new();
    for part in std::iter::once(0)
        .chain(starts)
        .filter_map(|at| protocol.get(at..))
    {
        found.push(part.to_vec());
        for decoded in decoded(part) {
            if let Ok(json @ (Value::Object(_) | Value::Array(_))) =
                serde_json::from_slice(&decoded)
            {
                strings(&json, &mut found);
            }
            found.push(decoded);
        }
    }
    found
}

/// What text in base64 says, in either alphabet.
fn decoded(text: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engines = [URL_SAFE, STANDARD].map(|alphabet| GeneralPurpose::new(&alphabet, config));
    engines
        .into_iter()
        .filter_map(move |engine| engine.decode(text).ok())
}

/// All texts in it.
fn strings(json: &Value, found: &mut Vec<Vec<u8>>) {
    match json {
        Value::String(text) => found.push(text.clone().into_bytes()),
        Value::Array(values) => values.iter().for_each(|value| strings(value, found)),
        Value::Object(fields) => fields.values().for_each(|value| strings(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Percent-decoded; what is no escape stands as it is.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        let escape = match behind {
            [high, low, ..] if *first == b'%' => digit(high).zip(digit(low)),
            _ => None,
        };
        let byte = escape.and_then(|(high, low)| u8::try_from(high << 4 | low).ok());
        plain.push(byte.unwrap_or(*first));
        rest = behind
            .get(if byte.is_some() { 2 } else { 0 }..)
            .unwrap_or_default();
    }
    plain
}

/// Adds the text, each byte of it escaped that is no letter or digit.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text {
        if byte.is_ascii_alphanumeric() {
            out.push(*byte);
        } else {
            let digit = |value: u8| DIGITS.get(usize::from(value)).copied();
            out.push(b'%');
            out.extend(digit(byte >> 4).into_iter().chain(digit(byte & 15)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_made_plain_where_decoders_differ() {
        let plain =
            |value: &str| credentials(value.as_bytes()).map(|v| String::from_utf8(v).unwrap());
        assert_eq!(plain("Basic dXNlcjpwYXNz"), None);
        assert_eq!(plain("Basic dXNlcjpwYXNzPz8="), None);
        assert_eq!(plain("Bearer a-b_c"), None);
        assert_eq!(plain("Bas"), None);
        let all = Some("Basic dXNlcjpwYXNz".to_owned());
        for value in [
            "basic dXNl-cjpwYXNz",
            "BASIC\tdXNl cjpw\tYXNz ",
            "Basic:_dXNlcjpwYXNz",
        ] {
            assert_eq!(plain(value), all, "{value}");
        }
    }

    #[test]
    fn json_is_read_where_a_cookie_says_so() {
        let plain = |cookies: &str| -> Vec<String> {
            let found = json_cookies(cookies.as_bytes());
            found
                .map(|cookie| String::from_utf8(cookie).unwrap())
                .collect()
        };
        let found = vec!["session=tok%2Den".to_owned()];
        for cookies in [
            r#"a=b; session=j:"tok-en"; c"#,
            "session=j%3A%22tok%2den%22",
            "session=%6a%3a%22tok%2den%22",
            r#"session=j:"t\u006fk-en""#,
            r#"session="j:%22tok-en%22""#,
        ] {
            assert_eq!(plain(cookies), found, "{cookies}");
        }
        for cookies in [
            "session=tok-en",
            r#"session=j:{"a":1}"#,
            "j",
            "session=j:tok",
            "=",
            "",
        ] {
            assert_eq!(plain(cookies), Vec::<String>::new(), "{cookies}");
        }
    }

    #[test]
    fn blanks_of_other_alphabets_are_blanks_in_a_query() {
        let plain = |text: &str| query(text.as_bytes()).map(|v| String::from_utf8(v).unwrap());
        assert_eq!(plain("a=b&c=%20%2e"), None);
        assert_eq!(plain("a=%C2%A0b;c%"), Some("a=%20b&c%&".to_owned()));
        assert_eq!(
            plain("a=\u{3000}b&=%e2%80%83"),
            Some("a=%20b&=%20&".to_owned())
        );
        assert_eq!(plain("a=%e4"), Some("a=%E4&".to_owned()));
    }
}
