//! From a value to what is looked up.

use tokenblock_ebpf::{digest::Domain, location::LocationId};

use super::{Candidate, Char, Config, is_white};

/// Most words of a header value that are candidates.
const MAX_WORDS: usize = 8;

/// Look-ups that become known at the same byte are asked in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Part of the value as it stands.
    Part,
    /// Part of the decoded value.
    DecodedPart,
    /// The whole value as it stands.
    Whole,
    /// The whole decoded value.
    DecodedWhole,
}

/// Which escapes a value may hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Escapes {
    Percent,
    PercentAndBackslash,
}

/// Reads values and collects what is looked up.
pub(super) struct Reader<'a> {
    config: &'a Config,
    /// With the index of the byte at which each becomes known.
    found: Vec<(usize, Rank, Candidate)>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(config: &'a Config) -> Self {
        Self {
            config,
            found: Vec::new(),
        }
    }

    pub(super) fn into_candidates(mut self) -> Vec<Candidate> {
        self.found.sort_by_key(|(at, rank, _)| (*at, *rank));
        self.found
            .into_iter()
            .map(|(_, _, candidate)| candidate)
            .collect()
    }

    fn look_up(
        &mut self,
        at: usize,
        rank: Rank,
        location: LocationId,
        domain: Domain,
        text: &[Char],
    ) {
        if text.len() < self.config.min_len {
            return;
        }
        let text = text.iter().map(|(_, byte)| *byte).collect();
        self.found.push((
            at,
            rank,
            Candidate {
                location,
                domain,
                text,
            },
        ));
    }

    /// Words between white space or quotes; the one behind a first word `Basic` is credentials besides.
    /// Gives the index behind what was read: no further than its last word.
    pub(super) fn header_value(&mut self, location: LocationId, value: &[Char]) -> usize {
        let mut rest = value;
        let mut basic = false;
        for count in 0..MAX_WORDS {
            let front = rest.iter().take_while(|(_, b)| ends_word(*b)).count();
            let (word, behind) = take_until(&rest[front..], ends_word);
            let end = behind.first().map(|(at, _)| *at);
            self.whole(location, word, end);
            if basic {
                self.credentials(location, word, end);
            } else {
                self.between_others(location, word, end);
            }
            let text: Vec<u8> = word.iter().map(|(_, byte)| *byte).collect();
            basic = count == 0 && text.eq_ignore_ascii_case(b"basic");
            rest = behind;
        }
        rest.first().map_or(usize::MAX, |(at, _)| at + 1)
    }

    /// The value as it stands, and the signed part of a JWS.
    fn whole(&mut self, location: LocationId, text: &[Char], end: Option<usize>) {
        self.signed_part(location, text, Rank::Part, 0);
        if let Some(end) = end {
            self.look_up(end, Rank::Whole, location, Domain::Exact, text);
        }
    }

    /// What stands before the second dot, if that dot becomes known at `from` or later.
    fn signed_part(&mut self, location: LocationId, text: &[Char], rank: Rank, from: usize) {
        let mut dots = (0..text.len()).filter(|at| text[*at].1 == b'.');
        if let Some(second) = dots.nth(1)
            && text[second].0 >= from
        {
            self.look_up(text[second].0, rank, location, Domain::Jws, &text[..second]);
        }
    }

    /// What stands between bytes beyond ASCII, among which the white space of Latin-1 and Unicode is.
    fn between_others(&mut self, location: LocationId, word: &[Char], end: Option<usize>) {
        let others: Vec<usize> = (0..word.len())
            .filter(|at| !word[*at].1.is_ascii())
            .collect();
        if let Some(first) = others.first() {
            self.parts(location, word, &others, end, word[*first].0);
        }
    }

    /// `user:password` in base64 (RFC 7617 section 2).
    fn credentials(&mut self, location: LocationId, word: &[Char], end: Option<usize>) {
        let decoded = decode_base64(word);
        let colon = decoded.iter().position(|(_, byte)| *byte == b':');
        let ends: Vec<usize> = (0..decoded.len())
            .filter(|at| colon == Some(*at) || is_white(decoded[*at].1))
            .collect();
        self.parts(location, &decoded, &ends, end, 0);
    }

    /// What stands between the characters at `ends`.
    fn parts(
        &mut self,
        location: LocationId,
        decoded: &[Char],
        ends: &[usize],
        end: Option<usize>,
        from: usize,
    ) {
        let mut begin = 0;
        let known = ends.iter().map(|at| (*at, Some(decoded[*at].0)));
        for (at, known) in known.chain([(decoded.len(), end)]) {
            let part = &decoded[begin..at];
            self.signed_part(location, part, Rank::DecodedPart, from);
            if let Some(known) = known {
                self.look_up(known, Rank::DecodedWhole, location, Domain::Exact, part);
            }
            begin = at + 1;
        }
    }

    /// A value up to `&`, `;` or white space; quotes stand around candidates.
    pub(super) fn query_value(&mut self, location: LocationId, value: &[Char]) {
        let mut rest = value;
        loop {
            let ends = |b| matches!(b, b'"' | b'&' | b';') || is_white(b);
            let (text, behind) = take_until(rest, ends);
            let end = behind.first().copied();
            self.escaped(
                location,
                text,
                end.map(|(at, _)| at),
                Escapes::Percent,
                b"#+",
            );
            match end {
                Some((_, b'"')) => rest = &behind[1..],
                _ => return,
            }
        }
    }

    /// A value up to `;`, white space, or its closing quote; gives what follows it.
    pub(super) fn cookie_value<'c>(
        &mut self,
        location: LocationId,
        value: &'c [Char],
    ) -> &'c [Char] {
        let front = value.iter().take_while(|(_, b)| ends_word(*b)).count();
        let ends = |byte| byte == b'"' || byte == b';' || is_white(byte);
        let (text, behind) = take_until(&value[front..], ends);
        let end = behind.first().map(|(at, _)| *at);
        self.escaped(location, text, end, Escapes::PercentAndBackslash, b",");
        match behind.first() {
            // What stands between a closing quote and the next separator is nothing.
            Some((_, b'"')) => {
                take_until(behind, |byte| {
                    byte == b';' || byte == b',' || is_white(byte)
                })
                .1
            }
            _ => behind,
        }
    }

    /// A value that may hold escapes, and that may be over at each of `stops` for some servers. Blanks and quotes that come
    /// out of escapes stand around candidates.
    fn escaped(
        &mut self,
        location: LocationId,
        text: &[Char],
        end: Option<usize>,
        escapes: Escapes,
        stops: &[u8],
    ) {
        self.whole(location, text, end);
        let query = escapes == Escapes::Percent;
        let is_stop = |byte: u8| stops.contains(&byte) || query && !byte.is_ascii();
        let stops: Vec<usize> = (0..text.len()).filter(|at| is_stop(text[*at].1)).collect();
        for at in stops.iter().copied() {
            self.look_up(text[at].0, Rank::Part, location, Domain::Exact, &text[..at]);
        }
        let begins = |at: &usize| match text[*at].1 {
            b'%' => true,
            b'\\' => !query,
            b'+' => query && *at == 0,
            _ => false,
        };
        let Some(first) = (0..text.len()).find(begins).map(|at| text[at].0) else {
            return;
        };
        let mut decoded = decode(text, end.unwrap_or(usize::MAX), escapes);
        if query {
            decoded.drop_leading_plus();
        }
        let chars = &decoded.chars;
        let ends: Vec<usize> = (0..chars.len()).filter(|at| decoded.ends(*at)).collect();
        self.parts(location, chars, &ends, end, first);
        for at in stops.into_iter().filter(|at| text[*at].0 > first) {
            // An escape that the stop cuts short is no part of either reading.
            let known = chars.iter().take_while(|(known, _)| *known < text[at].0);
            let known: Vec<Char> = known.copied().collect();
            let begin = ends.iter().rfind(|end| **end < known.len());
            let part = &known[begin.map_or(0, |end| end + 1)..];
            self.look_up(text[at].0, Rank::DecodedPart, location, Domain::Exact, part);
        }
    }
}

/// What a value reads decoded.
struct Decoded {
    chars: Vec<Char>,
    /// Places of those that come out of an escape by a number.
    escaped: Vec<usize>,
}

impl Decoded {
    /// Whether this character stands between candidates.
    fn ends(&self, at: usize) -> bool {
        self.escaped.contains(&at) && ends_word(self.chars[at].1)
    }

    /// A `+` in front of a part of the query is a blank.
    fn drop_leading_plus(&mut self) {
        let mut at = 0;
        while at < self.chars.len() {
            let plus = self.chars[at].1 == b'+' && !self.escaped.contains(&at);
            if plus && (at == 0 || self.ends(at - 1)) {
                self.chars.remove(at);
                for escaped in self.escaped.iter_mut().filter(|escaped| **escaped > at) {
                    *escaped -= 1;
                }
            } else {
                at += 1;
            }
        }
    }
}

fn ends_word(byte: u8) -> bool {
    byte == b'"' || is_white(byte)
}

fn take_until(chars: &[Char], stops: impl Fn(u8) -> bool) -> (&[Char], &[Char]) {
    let len = chars.iter().take_while(|(_, byte)| !stops(*byte)).count();
    chars.split_at(len)
}

/// Decodes `%xx`, `\ooo` and `\c`. Each byte has the index at which it becomes known: the last of its escape,
/// or, for what turned out to be no escape, the index of the byte that showed it (`end` at the end).
fn decode(text: &[Char], end: usize, escapes: Escapes) -> Decoded {
    let byte = |at: usize| text.get(at).map(|(_, byte)| *byte);
    let index = |at: usize| text.get(at).map_or(end, |(index, _)| *index);
    let digit = |at: usize, radix: u32| byte(at).and_then(|b| char::from(b).to_digit(radix));
    let (mut decoded, mut places) = (Vec::new(), Vec::new());
    let mut at = 0;
    while let Some(first) = byte(at) {
        at += 1;
        if first == b'%' {
            if let (Some(high), Some(low)) = (digit(at, 16), digit(at + 1, 16)) {
                places.push(decoded.len());
                decoded.extend(u8::try_from(high << 4 | low).map(|byte| (index(at + 1), byte)));
                at += 2;
                continue;
            }
            let digits = usize::from(digit(at, 16).is_some());
            let shown = index(at + digits);
            decoded.push((shown, first));
            decoded.extend((0..digits).map(|i| (shown, text[at + i].1)));
            at += digits;
        } else if first == b'\\' && escapes == Escapes::PercentAndBackslash {
            let octal = (0..3).take_while(|i| digit(at + i, 8).is_some()).count();
            let starts = digit(at, 8).is_some_and(|digit| digit < 4);
            match (starts, octal) {
                (true, 3) => {
                    let value = (0..3)
                        .filter_map(|i| digit(at + i, 8))
                        .fold(0, |v, d| v << 3 | d);
                    places.push(decoded.len());
                    decoded.extend(u8::try_from(value).map(|byte| (index(at + 2), byte)));
                    at += 3;
                }
                (true, _) => {
                    let shown = index(at + octal);
                    decoded.extend((0..octal).map(|i| (shown, text[at + i].1)));
                    at += octal;
                }
                (false, _) => match byte(at) {
                    Some(quoted) => {
                        decoded.push((index(at), quoted));
                        at += 1;
                    }
                    None => decoded.push((end, first)),
                },
            }
        } else {
            decoded.push((index(at - 1), first));
        }
    }
    Decoded {
        chars: decoded,
        escaped: places,
    }
}

/// Either alphabet; what is in neither is left out. Each byte has the index of the character that completed it.
fn decode_base64(word: &[Char]) -> Vec<Char> {
    let mut bits = Vec::new();
    let mut decoded = Vec::new();
    for (at, byte) in word {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => continue,
        };
        bits.extend((0..6).rev().map(|bit| value >> bit & 1));
        if bits.len() >= 8 {
            let byte = bits.drain(..8).fold(0, |byte, bit| byte << 1 | bit);
            decoded.push((*at, byte));
        }
    }
    decoded
}
