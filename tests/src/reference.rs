//! The grammar once more, written to be obviously right: it holds whole lines in memory, splits them and
//! decodes them, where the scanner keeps a state from byte to byte. Shares nothing with it but the digest.

mod value;

use tokenblock_ebpf::{
    digest::{Domain, InstallationKey, TokenDigest},
    location::{LocationId, LocationKind},
    rules::MAX_NAME,
};

use value::Reader;

/// What to look for; the plain form of the scanner's rules.
#[derive(Clone, Debug)]
pub struct Config {
    /// Key of the digests.
    pub key: [u8; 16],
    /// Candidates shorter than this many bytes are not looked up; at least 1.
    pub min_len: usize,
    /// Kinds and names; a location's id is its index.
    pub locations: Vec<(LocationKind, String)>,
}

/// What is looked up once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where it stands.
    pub location: LocationId,
    /// As what it is digested.
    pub domain: Domain,
    /// The canonical form.
    pub text: Vec<u8>,
}

impl Candidate {
    /// The digest that is asked for.
    #[must_use]
    pub fn digest(&self, config: &Config) -> TokenDigest {
        TokenDigest::of(&InstallationKey(config.key), self.domain, &self.text)
    }
}

/// A byte and where it stands in the input.
type Char = (usize, u8);

/// What a scanner of this stream looks up, in order. What the end of the stream leaves open is not looked up.
#[must_use]
pub fn stream(config: &Config, bytes: &[u8]) -> Vec<Candidate> {
    let mut reader = Reader::new(config);
    read_lines(config, &mut reader, &split_lines(bytes));
    reader.into_candidates()
}

/// What is looked up in the value of a header field called `name`.
#[must_use]
pub fn header(config: &Config, name: &[u8], value: &[u8]) -> Vec<Candidate> {
    let mut reader = Reader::new(config);
    read_header(config, &mut reader, name, &ended(value));
    reader.into_candidates()
}

/// What is looked up in a query.
#[must_use]
pub fn query(config: &Config, query: &[u8]) -> Vec<Candidate> {
    let mut reader = Reader::new(config);
    read_query(config, &mut reader, &ended(query), false);
    reader.into_candidates()
}

/// The characters of a complete text, with a line end behind.
fn ended(text: &[u8]) -> Vec<Char> {
    text.iter().copied().chain([b'\n']).enumerate().collect()
}

impl Config {
    /// The location with this name: names are equal up to case and up to which separators stand in them.
    fn find(&self, kind: LocationKind, name: &[u8]) -> Option<LocationId> {
        if name.len() > MAX_NAME {
            return None;
        }
        let found = self
            .locations
            .iter()
            .position(|(k, n)| *k == kind && fold(n.as_bytes()) == fold(name))?;
        LocationId::try_from(found).ok()
    }
}

/// Letters in lower case; all that stands outside of `0`..=`z` then, parity aside, as `-`.
fn fold(name: &[u8]) -> Vec<u8> {
    let fold_byte = |byte: &u8| {
        let lower = byte | 0x20;
        if (b'0'..=b'z').contains(&(lower & 0x7f)) {
            lower
        } else {
            b'-'
        }
    };
    name.iter().map(fold_byte).collect()
}

fn is_line_end(byte: u8) -> bool {
    byte == b'\r' || byte == b'\n'
}

fn is_white(byte: u8) -> bool {
    byte <= b' '
}

/// Lines with the CR or LF that ended them; the LF of a CR LF is left out.
fn split_lines(bytes: &[u8]) -> Vec<Vec<Char>> {
    let mut lines = vec![Vec::new()];
    let mut before = 0;
    for (at, byte) in bytes.iter().copied().enumerate() {
        if byte == b'\n' && before == b'\r' {
            before = byte;
            continue;
        }
        before = byte;
        if let Some(line) = lines.last_mut() {
            line.push((at, byte));
        }
        if is_line_end(byte) {
            lines.push(Vec::new());
        }
    }
    lines
}

/// Header fields and request lines. A folded line (RFC 9112 section 5.2) continues a value that is read to its line's end;
/// any other is read by itself, as some servers do.
fn read_lines(config: &Config, reader: &mut Reader<'_>, lines: &[Vec<Char>]) {
    let mut rest = lines;
    while let Some((line, behind)) = rest.split_first() {
        let is_folded = |line: &&Vec<Char>| matches!(line.first(), Some((_, b' ' | b'\t')));
        let folded = behind.iter().take_while(is_folded).count();
        let (folded, _) = behind.split_at(folded);
        let joined: Vec<Char> = line
            .iter()
            .chain(folded.iter().flatten())
            .copied()
            .collect();
        let read = read_line(config, reader, line, &joined);
        let begins_before = |line: &&Vec<Char>| line.first().is_some_and(|(at, _)| *at < read);
        let taken = folded.iter().take_while(begins_before).count();
        rest = behind.split_at(taken).1;
    }
}

/// A header field, a request line, or neither; `joined` are the line and the folded ones behind it. Gives the index behind
/// what was read of them.
fn read_line(config: &Config, reader: &mut Reader<'_>, line: &[Char], joined: &[Char]) -> usize {
    let is_blank = |(_, byte): &&Char| is_white(*byte) && !is_line_end(*byte);
    let front = line.iter().take_while(is_blank).count();
    let stands = &line[front..];
    // Bytes beyond ASCII behind others may be white space to who takes a line for text.
    let others = stands.iter().take_while(|(_, b)| !b.is_ascii()).count();
    let ends = |(_, byte): &Char| *byte == b':' || is_white(*byte) || !byte.is_ascii();
    let Some(end) = stands[others..].iter().position(ends) else {
        return 0;
    };
    let end = others + end;
    let (name, rest) = stands.split_at(end);
    let name: Vec<u8> = name.iter().map(|(_, byte)| *byte).collect();
    if name.is_empty() {
        return 0;
    }
    match rest.split_first() {
        Some(((_, b':'), _)) if name.len() > MAX_NAME => 0,
        Some(((_, b':'), _)) => {
            let value = &joined[front + end + 1..];
            read_header(config, reader, &name, value)
        }
        Some(((_, 0x80..), behind)) => {
            // It may be part of the method as well.
            read_either(config, reader, behind);
            0
        }
        Some(((_, byte), behind)) if !is_line_end(*byte) && is_header(config, &name) => {
            // Some servers take white space in front of the colon.
            let white = behind.iter().take_while(is_blank).count();
            if let Some((at, b':')) = behind.get(white) {
                let value = joined.iter().position(|(place, _)| place == at);
                let value = value.map_or(&[][..], |colon| &joined[colon + 1..]);
                return read_header(config, reader, &name, value);
            }
            read_target(config, reader, &behind[white..]);
            0
        }
        Some(((_, byte), target)) if !is_line_end(*byte) => {
            read_target(config, reader, target);
            0
        }
        _ => 0,
    }
}

/// Whether values of a header with this name are read.
fn is_header(config: &Config, name: &[u8]) -> bool {
    fold(name) == b"cookie" || config.find(LocationKind::Header, name).is_some()
}

/// Gives the index behind what was read.
fn read_header(config: &Config, reader: &mut Reader<'_>, name: &[u8], value: &[Char]) -> usize {
    if fold(name) == b"cookie" {
        read_cookies(config, reader, value);
        usize::MAX
    } else if let Some(location) = config.find(LocationKind::Header, name) {
        reader.header_value(location, value)
    } else {
        0
    }
}

/// A request target, or the rest of a method and a target behind it.
fn read_either(config: &Config, reader: &mut Reader<'_>, rest: &[Char]) {
    let front = rest
        .iter()
        .take_while(|(_, b)| matches!(b, b' ' | b'\t'))
        .count();
    let word = &rest[front..];
    let stop = word
        .iter()
        .position(|(_, byte)| *byte == b'?' || is_white(*byte));
    match stop.map(|stop| word.split_at(stop)) {
        Some((_, [(_, b'?'), query @ ..])) => read_query(config, reader, query, false),
        Some((_, [(_, byte), target @ ..])) if !is_line_end(*byte) => {
            read_target(config, reader, target);
        }
        _ => {}
    }
}

/// The rest of a request line behind its method.
fn read_target(config: &Config, reader: &mut Reader<'_>, rest: &[Char]) {
    let mut rest = rest;
    while let Some(((_, b' ' | b'\t'), behind)) = rest.split_first() {
        rest = behind;
    }
    let begin: Vec<u8> = rest.iter().take(4).map(|(_, byte)| byte | 0x20).collect();
    let is_path = rest.first().is_some_and(|(_, byte)| *byte == b'/') || begin == b"http";
    let ends = |byte| ends_target(is_path, byte);
    let stop = rest
        .iter()
        .position(|(_, byte)| *byte == b'?' || ends(*byte));
    let Some((_, [(_, b'?'), query @ ..])) = stop.map(|stop| rest.split_at(stop)) else {
        return;
    };
    read_query(config, reader, query, is_path);
}

/// Behind what is a target by its beginning some servers take white space for a part of it.
fn ends_target(is_path: bool, byte: u8) -> bool {
    is_line_end(byte) || is_white(byte) && !is_path
}

/// `name=value` between `&` or `;`, up to white space or, in a path, the line's end; values keep the character that ended them.
fn read_query(config: &Config, reader: &mut Reader<'_>, query: &[Char], is_path: bool) {
    let mut rest = query;
    loop {
        let ends = |byte| matches!(byte, b'&' | b';') || ends_target(is_path, byte);
        let end = rest.iter().position(|(_, byte)| ends(*byte));
        let parameter = &rest[..end.map_or(rest.len(), |end| end + 1)];
        let word = parameter
            .iter()
            .position(|(_, byte)| is_white(*byte))
            .map_or(parameter, |white| &parameter[..=white]);
        if let Some(equals) = word.iter().position(|(_, byte)| *byte == b'=')
            && let Some(location) = find_parameter(config, &word[..equals])
        {
            reader.query_value(location, &word[equals + 1..]);
        }
        match end.map(|end| rest.split_at(end + 1)) {
            Some(([.., (_, b'&' | b';')], behind)) => rest = behind,
            _ => return,
        }
    }
}

/// The location that a parameter name means: percent-decoded, without spaces, `?` and `[` in front; failing that, what
/// stands before a bracket (arrays of PHP and of Node's qs) or a zero (PHP).
fn find_parameter(config: &Config, name: &[Char]) -> Option<LocationId> {
    let decoded = decode_name(name);
    let front = decoded
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'+' | b'?' | b'['))
        .count();
    let name = &decoded[front..];
    let brackets =
        (0..name.len()).filter(|at| matches!(name[*at], 0 | b'[' | b']') && *at <= MAX_NAME);
    config.find(LocationKind::Query, name).or_else(|| {
        brackets
            .into_iter()
            .find_map(|at| config.find(LocationKind::Query, &name[..at]))
    })
}

/// Percent-decodes; a `%` that begins no escape is left out with the digit behind it.
fn decode_name(name: &[Char]) -> Vec<u8> {
    let digit = |at: usize| {
        name.get(at)
            .and_then(|(_, byte)| char::from(*byte).to_digit(16))
    };
    let mut decoded = Vec::new();
    let mut at = 0;
    while let Some((_, byte)) = name.get(at) {
        at += 1;
        if *byte != b'%' {
            decoded.push(*byte);
            continue;
        }
        match (digit(at), digit(at + 1)) {
            (Some(high), Some(low)) => {
                decoded.extend(u8::try_from(high << 4 | low));
                at += 2;
            }
            (Some(_), None) => at += 1,
            _ => {}
        }
    }
    decoded
}

/// `name=value` between `;`, `,` or white space, with white space around the `=`.
fn read_cookies(config: &Config, reader: &mut Reader<'_>, cookies: &[Char]) {
    let separates = |byte: u8| byte == b';' || byte == b',' || is_white(byte);
    let mut rest = cookies;
    loop {
        let skipped = rest.iter().take_while(|(_, byte)| separates(*byte)).count();
        rest = &rest[skipped..];
        let Some(end) = rest
            .iter()
            .position(|(_, byte)| *byte == b'=' || separates(*byte))
        else {
            return;
        };
        let (name, behind) = rest.split_at(end);
        let white = behind
            .iter()
            .take_while(|(_, byte)| is_white(*byte))
            .count();
        rest = &behind[white..];
        let Some(((_, b'='), value)) = rest.split_first() else {
            continue;
        };
        let name: Vec<u8> = name.iter().map(|(_, byte)| *byte).collect();
        rest = if let Some(location) = config.find(LocationKind::Cookie, &name) {
            reader.cookie_value(location, value)
        } else {
            let skipped = value
                .iter()
                .take_while(|(_, byte)| !separates(*byte))
                .count();
            &value[skipped..]
        };
    }
}
