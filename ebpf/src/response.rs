//! How long a response is, as its head tells (RFC 9112 section 6.3): where a 403 may stand behind it, and where it would
//! stand inside it.
//!
//! No more than that is read of responses. What can't be told is taken for a response that goes on.

use crate::swar::{
    clear, first, first_equal, forget_registers, is_zero, keep, least, least_long, opaque, splat,
};

/// Most bytes of a head that are read.
pub const HEAD: u32 = 1024;
/// Bytes that are read first: what most heads end in.
pub const USUAL_HEAD: u32 = 256;
/// Bytes that a unit may read behind its place.
const BEHIND: usize = 32;
/// Units of [`BEHIND`] bytes, and one for each line.
const UNITS: u32 = HEAD / BEHIND as u32 + 64;
/// Longest head that is known again.
const KNOWN: u32 = 512;
/// Bytes that a round of [`Head::mix`] takes; a head that is known again has so many at least.
const ROUND: u32 = BEHIND as u32;
/// Heads that are read at most before one is noted again, where those that were noted did not come again.
const REST: u64 = 63;
/// Longer ones can't be told from others by sequence numbers.
const MOST: u64 = 1 << 31;
/// Of a number that is less.
const DIGITS: u32 = 10;

/// The bytes behind a TCP header of a server's segment.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Head {
    /// Those behind the ones that are there may be anything.
    pub bytes: [u8; HEAD as usize + BEHIND],
    /// The place up to which it is read, and where its last line begins. In memory, as what follows: what the verifier
    /// knows of a register it carries through the loop, and walks the rest again for each thing that it knows.
    at: u32,
    line: u32,
    /// Where the length stands; 0 where none does.
    length_at: u32,
    /// Behind the empty line; 0 where none was found.
    end: u32,
    /// 1 where there are chunks.
    chunks: u64,
    /// The head that was read last in whole, which servers send again and again: its bytes, their [`Head::mix`] (0 where none
    /// was made) and what it said.
    known_end: u32,
    /// Heads that are to be read before one is noted again; and how many that were at first.
    rests: u32,
    rested: u64,
    known_mix: u64,
    known: u64,
    /// What the mix begins with, so that nobody knows of two heads that mix alike; 0 until it is drawn.
    key: u64,
}

impl Default for Head {
    /// Of nothing.
    fn default() -> Self {
        Self {
            bytes: [0; HEAD as usize + BEHIND],
            at: 0,
            line: 0,
            length_at: 0,
            end: 0,
            chunks: 0,
            known_end: 0,
            rests: 0,
            rested: 0,
            known_mix: 0,
            known: 0,
            key: 0,
        }
    }
}

/// What the first bytes of a server's segment are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// No head of a response.
    Nothing,
    /// An interim response (RFC 9110 section 15.2): the response is still to come, or another protocol begins.
    Interim,
    /// A response of so many bytes, head and body.
    Bytes(u32),
    /// A response in chunks.
    Chunks,
    /// A response whose end can't be told from its head, or not from so much of it.
    Unknown,
}

const INTERIM: u64 = 1 << 32;
const CHUNKS: u64 = 2 << 32;
const UNKNOWN: u64 = 3 << 32;
const NOTHING: u64 = 4 << 32;

impl Said {
    /// Reads the first `len` bytes, of which it leaves none: they may hold what nobody else is to read.
    #[inline(always)]
    #[must_use]
    pub fn by(head: &mut Head, len: u32) -> Self {
        match tokenblock_response_head(head, len) {
            INTERIM => Self::Interim,
            CHUNKS => Self::Chunks,
            UNKNOWN => Self::Unknown,
            NOTHING => Self::Nothing,
            bytes => Self::Bytes(bytes as u32),
        }
    }
}

/// Bytes of the last chunk, and the one in front of it.
pub const LAST_CHUNK: u32 = 6;

/// Whether these are the last bytes of a segment of `len` that ends as a body in chunks does that has no trailers (RFC 9112
/// section 7.1). The last chunk stands behind a line's end, or its segment begins with it: a length that ends in a zero may
/// stand in front of an empty line too.
#[inline(always)]
#[must_use]
pub fn is_last_chunk(end: u64, len: u32) -> bool {
    const LAST: u64 = u64::from_le_bytes(*b"\n0\r\n\r\n\0\0");
    end == LAST || len == LAST_CHUNK - 1 && end >> 8 == LAST >> 8
}

/// Under a name that other objects could call: such a function the verifier walks through once, whoever calls it.
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
extern "C" fn tokenblock_response_head(head: *mut Head, len: u32) -> u64 {
    // SAFETY: callers pass a reference; the verifier sees to the rest.
    let Some(head) = (unsafe { head.as_mut() }) else {
        return NOTHING;
    };
    let len = least(len, HEAD);
    let said = if head.is_known(len) {
        get(&head.known)
    } else {
        head.read_and_note(len)
    };
    forget_registers();
    // SAFETY: they stand first in what is aligned to words.
    unsafe { clear(&mut head.bytes, len) };
    said
}

/// Makes small letters of capital ones, and leaves small ones and `-` as they are.
const LETTERS: u64 = splat(0x20);
const LENGTH: [u64; 2] = [
    u64::from_le_bytes(*b"content-"),
    u64::from_le_bytes(*b"length\0\0"),
];
const CODING: [u64; 2] = [
    u64::from_le_bytes(*b"transfer"),
    u64::from_le_bytes(*b"-encodin"),
];
const LF: u64 = b'\n' as u64;
const CR_LF: u64 = u64::from_le_bytes(*b"\r\n\0\0\0\0\0\0");
const NO_CONTENT: u64 = u64::from_le_bytes(*b"204\0\0\0\0\0");
const NOT_MODIFIED: u64 = u64::from_le_bytes(*b"304\0\0\0\0\0");

/// What lies in memory.
#[inline(always)]
fn get<T: Copy>(place: &T) -> T {
    // SAFETY: a reference, read as such.
    unsafe { (&raw const *place).read_volatile() }
}

#[inline(always)]
fn set<T>(place: &mut T, value: T) {
    // SAFETY: a reference, written as such.
    unsafe { (&raw mut *place).write_volatile(value) }
}

/// 1 where the words are the same, else 0: without a branch, for each doubles the ways that the verifier walks.
#[inline(always)]
fn same(a: u64, b: u64) -> u32 {
    let differ = a ^ b;
    is_zero(opaque((differ | differ >> 32) as u32))
}

impl Head {
    /// Whether a key was drawn.
    #[inline(always)]
    #[must_use]
    pub fn has_key(&self) -> bool {
        self.key != 0
    }

    /// Takes a key.
    #[inline(always)]
    pub fn set_key(&mut self, key: u64) {
        self.key = key | 1;
    }

    /// How many bytes are to be read first: the head that is known, or what most heads end in. [`HEAD`] where those say
    /// [`Said::Unknown`].
    #[inline(always)]
    #[must_use]
    pub fn asks_for(&self) -> u32 {
        if self.known_mix != 0 {
            self.known_end
        } else if self.known_end > USUAL_HEAD {
            HEAD
        } else {
            USUAL_HEAD
        }
    }

    /// Reads the first `len` bytes, and notes them where they are a head.
    #[inline(always)]
    fn read_and_note(&mut self, len: u32) -> u64 {
        let said = self.read(len);
        let end = get(&self.end);
        if end >= ROUND && end <= least(len, KNOWN) {
            self.note(end, said);
        }
        said
    }

    /// Reads the first `len` bytes.
    #[inline(always)]
    fn read(&mut self, len: u32) -> u64 {
        set(&mut self.end, 0);
        if keep(self.word(0), 7) != keep(u64::from_le_bytes(*b"HTTP/1. "), 7) {
            return NOTHING;
        }
        let status = keep(self.word(9), 3);
        if status as u8 == b'1' {
            return INTERIM;
        }
        self.read_lines(len);
        let end = get(&self.end);
        if end == 0 || end > len {
            return UNKNOWN;
        }
        if status == NO_CONTENT || status == NOT_MODIFIED {
            return u64::from(end);
        }
        if get(&self.chunks) != 0 {
            return CHUNKS;
        }
        let length_at = get(&self.length_at);
        if length_at == 0 {
            return UNKNOWN;
        }
        match self.number(length_at) {
            length if length < MOST => u64::from(end) + length,
            _ => UNKNOWN,
        }
    }

    /// Reads lines, up to the empty one.
    #[inline(always)]
    fn read_lines(&mut self, len: u32) {
        set(&mut self.at, 0);
        // The first line has no name.
        set(&mut self.line, HEAD);
        set(&mut self.length_at, 0);
        set(&mut self.chunks, 0);
        let mut unit = 0;
        while unit < UNITS {
            unit += 1;
            let at = get(&self.at);
            if at >= len {
                break;
            }
            let [name, more, third, fourth] = self.words(at);
            if at == get(&self.line) {
                let (byte, pair) = (keep(name, 1), keep(name, 2));
                if byte == LF || pair == CR_LF {
                    set(&mut self.end, at + 2 - same(byte, LF));
                    break;
                }
                if name | LETTERS == LENGTH[0] && keep(more | LETTERS, 6) == LENGTH[1] {
                    set(&mut self.length_at, at + 14);
                } else if name | LETTERS == CODING[0] && more | LETTERS == CODING[1] {
                    set(&mut self.chunks, 1);
                }
            }
            let ends = [name, more, third, fourth].map(|word| first_equal(word, b'\n'));
            let (ends, at) = match ends {
                [0, 0, 0, 0] => {
                    set(&mut self.at, at + BEHIND as u32);
                    continue;
                }
                [0, 0, 0, ends] => (ends, at + 24),
                [0, 0, ends, _] => (ends, at + 16),
                [0, ends, ..] => (ends, at + 8),
                [ends, ..] => (ends, at),
            };
            let line = at + first(ends) + 1;
            set(&mut self.at, line);
            set(&mut self.line, line);
        }
    }

    /// Whether the first of the `len` bytes are the head that is known.
    #[inline(always)]
    fn is_known(&mut self, len: u32) -> bool {
        let (end, mix) = (get(&self.known_end), get(&self.known_mix));
        if mix == 0 || end > len {
            return false;
        }
        let known = self.mix(end) == mix;
        let rested = get(&self.rested);
        let longer = least_long(2 * rested + 1, REST);
        // Servers whose heads differ each time shall not pay for those that send the same ones.
        set(&mut self.rested, if known { 0 } else { longer });
        if !known {
            set(&mut self.known_mix, 0);
        }
        known
    }

    /// Notes the head that was read up to `end`, and what it says.
    #[inline(always)]
    fn note(&mut self, end: u32, said: u64) {
        let rests = get(&self.rests);
        if rests != 0 {
            set(&mut self.rests, rests - 1);
            set(&mut self.known_mix, 0);
            return;
        }
        set(&mut self.rests, get(&self.rested) as u32);
        let mix = self.mix(end);
        set(&mut self.known_mix, mix);
        set(&mut self.known_end, end);
        set(&mut self.known, said);
    }

    /// A word for the first `n` bytes, [`ROUND`] at least and [`KNOWN`] at most. Heads that mix alike though they differ would
    /// have a pipelining client read a 403 in a wrong place, no more.
    #[inline(always)]
    fn mix(&self, n: u32) -> u64 {
        // Side by side: one behind the other each word would wait for the product of the last.
        let mut lanes = [self.key; BEHIND / 8];
        let mut at = 0;
        while at < KNOWN - ROUND {
            if at + ROUND >= n {
                break;
            }
            // SAFETY: HEAD bytes are there, all initialised.
            let word = |k: u32| unsafe {
                let at = self.bytes.as_ptr().add((at + k) as usize);
                at.cast::<u64>().read_unaligned()
            };
            take(&mut lanes, [word(0), word(8), word(16), word(24)]);
            at += ROUND;
        }
        take(&mut lanes, self.words(n.wrapping_sub(ROUND)));
        let [first, others @ ..] = lanes;
        others.into_iter().fold(first, mixed) | 1
    }

    /// Eight bytes from `at` on; others where so many are not there.
    #[inline(always)]
    fn word(&self, at: u32) -> u64 {
        let at = (opaque(at) & (HEAD - 1)) as usize;
        // SAFETY: HEAD + BEHIND bytes are there, all initialised.
        unsafe { self.bytes.as_ptr().add(at).cast::<u64>().read_unaligned() }
    }

    /// Those and the 24 behind them.
    #[inline(always)]
    fn words(&self, at: u32) -> [u64; BEHIND / 8] {
        let at = (opaque(at) & (HEAD - 1)) as usize;
        // SAFETY: as in `word`.
        [0, 8, 16, 24].map(|n| unsafe {
            self.bytes
                .as_ptr()
                .add(at + n)
                .cast::<u64>()
                .read_unaligned()
        })
    }

    /// The number behind the colon at `at` and white space; [`MOST`] where there is none that is less.
    #[inline(always)]
    fn number(&self, at: u32) -> u64 {
        let mut at = at + 1;
        for _ in 0..2 {
            let byte = keep(self.word(at), 1);
            at += same(byte, u64::from(b' ')) | same(byte, u64::from(b'\t'));
        }
        let [mut word, mut next, ..] = self.words(at);
        let (mut number, mut digits) = (0_u64, 0);
        for _ in 0..DIGITS {
            let digit = keep(word, 1).wrapping_sub(u64::from(b'0'));
            if digit >= 10 {
                break;
            }
            number = number * 10 + digit;
            digits += 1;
            word = word >> 8 | next << 56;
            next >>= 8;
        }
        let end = keep(word, 1);
        let ends = same(end, u64::from(b'\r')) | same(end, LF) | same(end, u64::from(b' '));
        if ends != 0 && digits != 0 && number < MOST {
            number
        } else {
            MOST
        }
    }
}

/// Mixes a word into each lane.
#[inline(always)]
fn take(lanes: &mut [u64; BEHIND / 8], words: [u64; BEHIND / 8]) {
    for (lane, word) in lanes.iter_mut().zip(words) {
        *lane = mixed(*lane, word);
    }
}

/// Mixes a word into a word. What only the upper bits tell apart is to reach all others.
#[inline(always)]
fn mixed(mix: u64, word: u64) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    (mix ^ word).wrapping_mul(ODD).swap_bytes()
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    fn said(text: &str) -> Said {
        let mut head = Head {
            bytes: [b'x'; HEAD as usize + BEHIND],
            ..Head::default()
        };
        let len = text.len().min(HEAD as usize);
        head.bytes[..len].copy_from_slice(&text.as_bytes()[..len]);
        let said = Said::by(&mut head, len as u32);
        assert!(head.bytes[..len].iter().all(|byte| *byte == 0), "{text}");
        said
    }

    #[test]
    fn the_last_chunk_is_a_line() {
        for (text, last) in [
            ("3\r\nabc\r\n0\r\n\r\n", true),
            ("0\r\n\r\n", true),
            ("Content-Length: 10\r\n\r\n", false),
            ("10\r\n\r\n", false),
            ("c\r\n0\r\n\r", false),
        ] {
            // What stands in front of the payload is a header's.
            let bytes = std::format!("......{text}").into_bytes();
            let mut end = [0; 8];
            end[..6].copy_from_slice(&bytes[bytes.len() - 6..]);
            let found = is_last_chunk(u64::from_le_bytes(end), text.len() as u32);
            assert_eq!(found, last, "{text:?}");
        }
    }

    #[test]
    fn lengths() {
        let long = std::format!("HTTP/1.1 200 OK\r\nX: {}\r\n", "x".repeat(1100));
        for (text, expected) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
                Said::Bytes(43),
            ),
            ("HTTP/1.0 404 No\ncontent-length:0\n\n", Said::Bytes(34)),
            (
                "HTTP/1.1 200 OK\r\nA: b\r\nCONTENT-LENGTH:\t 1234 \r\nC: d\r\n\r\n",
                Said::Bytes(55 + 1234),
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", Said::Bytes(27)),
            (
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
                Said::Bytes(48),
            ),
            ("HTTP/1.1 100 Continue\r\n\r\n", Said::Interim),
            (
                "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
                Said::Interim,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n",
                Said::Chunks,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                Said::Chunks,
            ),
            ("HTTP/1.1 200 OK\r\n\r\n", Said::Unknown),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", Said::Unknown),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r", Said::Unknown),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\n",
                Said::Unknown,
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n", Said::Unknown),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 4294967296\r\n\r\n",
                Said::Unknown,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
                Said::Unknown,
            ),
            (
                "HTTP/1.1 200 OK\r\nX-Content-Length: 5\r\n\r\n",
                Said::Unknown,
            ),
            ("hello", Said::Nothing),
            ("<html>HTTP/1.1 200 OK\r\n\r\n", Said::Nothing),
            ("HTTP/1.1 200 OK", Said::Unknown),
            (&long, Said::Unknown),
        ] {
            assert_eq!(said(text), expected, "{text}");
        }
    }
}
