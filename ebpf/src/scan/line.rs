//! Lines: their first byte, the name or method that they begin with, the way to their end.

use super::super::{
    candidate::Context,
    location::{LocationId, LocationKind, NameHash},
    rules::{CONTENT_LENGTH, COOKIE_HEADER, HTTP2_METHOD, MAX_NAME, Rules, TRANSFER_ENCODING},
    swar,
};
use super::{Chunk, DOUBT, FIELD, HTTP2, Mode, NAMED, PRI, SIGN, Scan, Source, VERSION, WORD};

/// Lengths of the names `Content-Length` and `Transfer-Encoding`.
const FRAMING_NAMES: [u32; 2] = [14, 17];

/// Of a header's name: it has separators that only some servers take for hyphens, or none of framing has.
const SEPARATORS: u32 = 1;

/// Of a header's name: it is a location's, and white space stands behind it.
const BLANK: u32 = 4;

/// Of a header's name: all its bytes so far are beyond ASCII, if it has any.
pub(super) const FRONT: u32 = 0x80;

impl Scan {
    /// Takes the LF behind a CR.
    #[inline(always)]
    pub(super) fn end_of_crlf<S: Source + ?Sized>(&mut self, source: &S) {
        if source.chunk(self.pos).word(0) as u8 == b'\n' {
            self.pos += 1;
            self.after_cr = 0;
        }
    }

    /// Takes the line end `byte` at the current position.
    #[inline(always)]
    pub(super) fn end_line(&mut self, byte: u8) {
        self.fold = match self.mode {
            // White space before the first byte of a value does not end it.
            mode @ (Mode::Value | Mode::CookieName | Mode::CookieSkip | Mode::Length) => mode,
            _ => Mode::Skip,
        };
        self.after_cr = u32::from(byte == b'\r');
        self.mode = Mode::Line;
        self.pos += 1;
    }

    /// Reads from the first byte of a line: takes a whole name of up to 23 bytes at once.
    #[inline(always)]
    pub(super) fn line_unit<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S) {
        let chunk = source.chunk(self.pos);
        let words = [chunk.word(0), chunk.word(1), chunk.word(2)];
        let has_next = source.end() - self.pos > 1;
        if !self.begin_line(rules, words[0], has_next) {
            return;
        }
        let left = self.end(source) - self.pos;
        let (mut whole, mut word) = (0, words[0]);
        let mut stop = swar::first(name_end(word, FRONT));
        if stop == 8 {
            (whole, word) = (1, words[1]);
            stop = swar::first(name_end(word, swar::last(words[0])));
        }
        if stop == 8 {
            (whole, word) = (2, words[2]);
            stop = swar::first(name_end(word, swar::last(words[1])));
        }
        let n = whole * 8 + stop;
        if stop == 8 || n >= left {
            // Longer, or cut: byte by byte, so that it can go on in the next segment.
            self.mode = Mode::Name;
            return;
        }
        let byte = word.wrapping_shr(stop * 8) as u8;
        let next = source.chunk(self.pos + n + 1).word(0) as u8;
        if byte <= b' ' && (next <= b' ' || next == b':' || n + 1 == left) {
            // A header's name, perhaps, with white space in front of its colon.
            self.mode = Mode::Name;
            return;
        }
        self.pos += n;
        if words[0] as u8 >= 0x80 {
            // Some servers take such bytes for white space.
            self.doubt_outside_body();
        }
        swar::forget_registers();
        if byte == b':' {
            self.pos += 1;
            self.note_name();
            self.doubt_unbegun();
            // Where a name of framing has its hyphen.
            let (seventh, eighth) = ((words[0] >> 56) as u32, words[1] as u32 & 0xff);
            let hyphen = u32::from(b'-');
            let has_hyphen = swar::is_zero(seventh ^ hyphen) | swar::is_zero(eighth ^ hyphen);
            self.name_ended = has_hyphen ^ 1;
            let hash = NameHash::of_words(rules.name_seed, words, whole, stop);
            self.enter_header(rules, rules.find(hash));
        } else {
            // The rest of a request line that was cut in front of its version.
            let version = swar::is_zero(words[0] as u32 ^ VERSION) * DOUBT;
            self.headers |= WORD | version | (swar::is_zero(words[0] as u32 ^ PRI) * HTTP2);
            if FRAMING_NAMES.contains(&n) {
                let hash = NameHash::of_words(rules.name_seed, words, whole, stop);
                self.doubt_name(rules.find(hash), byte);
            }
            swar::forget_registers();
            self.end_method(byte, n == 0);
        }
    }

    /// A word ended by a colon.
    #[inline(always)]
    pub(super) fn note_name(&mut self) {
        let first = swar::is_zero(self.headers & WORD);
        self.headers |= FIELD | WORD | (first * NAMED);
    }

    #[inline(always)]
    pub(super) fn name_unit<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S) {
        let word = source.chunk(self.pos).word(0);
        let left = self.end(source) - self.pos;
        if self.name_ended & BLANK != 0 {
            return self.behind_name(rules, word as u8);
        }
        let front = if self.name.is_empty() {
            FRONT
        } else {
            self.name_ended & FRONT
        };
        let stop = swar::first(name_end(word, front));
        let n = swar::least(stop, left);
        let ascii = swar::keep(swar::not_ascii(!word), n);
        self.name.absorb(word, n);
        self.pos += n;
        let others = swar::equal(word, b'_') | swar::equal(word, b'.') | swar::equal(word, b'~');
        if swar::keep(others, n) != 0 {
            self.name_ended |= SEPARATORS;
        }
        if swar::not_ascii(swar::keep(word, n)) != 0 {
            self.doubt_outside_body();
        }
        self.name_ended &= !FRONT;
        if ascii == 0 {
            self.name_ended |= front;
        }
        if self.name.len() > MAX_NAME as u64 {
            // Behind a body that ends without a line end a method may follow.
            self.mode = Mode::Method;
            self.name_ended &= FRONT;
        } else if stop < 8 && stop < left {
            let byte = word.wrapping_shr(stop * 8) as u8;
            if byte == b':' {
                self.pos += 1;
                self.note_name();
                self.doubt_unbegun();
                self.enter_header(rules, rules.find(self.name.finish()));
            } else {
                self.headers |= WORD;
                let method = rules.find(self.name.finish());
                self.headers |= swar::is_zero(u32::from(method ^ HTTP2_METHOD)) * HTTP2;
                self.doubt_name(method, byte);
                let header = method < TRANSFER_ENCODING || method == COOKIE_HEADER;
                if header && byte <= b' ' {
                    self.name_ended |= BLANK;
                } else {
                    self.end_method(byte, self.name.is_empty());
                }
            }
        }
    }

    /// Takes a byte of the white space behind a location's name, with which Cheroot takes it for a header's, or what is behind
    /// that.
    #[inline(always)]
    fn behind_name(&mut self, rules: &Rules, byte: u8) {
        match byte {
            b':' => {
                self.pos += 1;
                self.note_name();
                self.doubt_unbegun();
                self.enter_header(rules, rules.find(self.name.finish()));
            }
            b'\r' | b'\n' => self.end_method(byte, false),
            _ if byte <= b' ' => self.pos += 1,
            _ => {
                self.headers &= !FIELD;
                self.mode = Mode::BeforeTarget;
            }
        }
    }

    #[inline(always)]
    pub(super) fn method_unit<S: Source + ?Sized>(&mut self, source: &S) {
        let word = source.chunk(self.pos).word(0);
        let left = self.end(source) - self.pos;
        let stop = swar::first(name_end(word, self.name_ended & FRONT));
        let n = swar::least(stop, left);
        if swar::keep(swar::not_ascii(!word), n) != 0 {
            self.name_ended = 0;
        }
        self.pos += n;
        if stop < 8 && stop < left {
            let byte = word.wrapping_shr(stop * 8) as u8;
            if byte == b':' {
                self.doubt_unbegun();
                self.mode = Mode::Skip;
            } else {
                self.end_method(byte, false);
            }
        }
    }

    /// Looks at the first byte of a line, that of `word`, and takes it if it is a line end; true where a name begins.
    /// `has_next`: the source has another byte behind it.
    #[inline(always)]
    fn begin_line(&mut self, rules: &Rules, word: u64, has_next: bool) -> bool {
        match word as u8 {
            b'\n' if self.after_cr != 0 => self.after_cr = 0,
            // Several CR before an LF are one line end; no server takes them for an empty line.
            b'\r' if self.after_cr != 0 => {
                self.doubt_cr();
                self.fold = Mode::Skip;
            }
            byte @ (b'\n' | b'\r') => {
                self.after_cr = u32::from(byte == b'\r');
                if !has_next || (word >> 8) as u8 != b'\n' {
                    // Not the end of a header block at most servers.
                    self.doubt_cr();
                }
                // After `restart_anywhere` it is the end of a line that began before.
                if self.fold as u32 != Mode::BeforeTarget as u32 {
                    self.end_headers();
                }
                self.fold = Mode::Skip;
            }
            // Left to be read there: to a value or a cookie name it is white space like any other.
            b' ' | b'\t' => {
                self.doubt_cr();
                self.mode = self.fold;
                if self.fold as u32 == Mode::BeforeTarget as u32 {
                    self.fold = Mode::Skip;
                } else {
                    // Some servers take a folded line for a header.
                    self.doubt_outside_body();
                }
                if matches!(self.mode, Mode::Skip | Mode::Length) {
                    // A length that goes on in another line is one at some servers.
                    let folds_length = swar::is_zero(self.mode as u32 ^ Mode::Length as u32);
                    self.headers |= folds_length * self.ambiguous_in_block();
                    self.mode = Mode::Name;
                    self.begin_name(rules);
                }
                return false;
            }
            _ => {
                self.doubt_cr();
                self.fold = Mode::Skip;
                self.begin_name(rules);
                return true;
            }
        }
        self.pos += 1;
        false
    }

    #[inline(always)]
    fn begin_name(&mut self, rules: &Rules) {
        self.name = NameHash::new(LocationKind::Header, rules.name_seed);
        self.name_ended = 0;
    }

    /// Takes the byte that ended what may be a method: white space, a line end, or one beyond ASCII, for the white space of
    /// Latin-1 is that to servers that split a line of text.
    #[inline(always)]
    fn end_method(&mut self, byte: u8, empty: bool) {
        self.headers &= !FIELD;
        if byte == b'\r' || byte == b'\n' {
            self.end_line(byte);
            return;
        }
        self.pos += 1;
        if empty || byte >= 0x80 {
            // White space or a control character, which some servers leave out.
            self.doubt_outside_body();
        }
        if byte >= 0x80 {
            // It may be part of the method as well.
            self.fold = Mode::BeforeTarget;
        }
        self.mode = if empty {
            Mode::Name
        } else {
            Mode::BeforeTarget
        };
    }

    #[inline(always)]
    pub(super) fn enter_header(&mut self, rules: &Rules, location: LocationId) {
        swar::forget_registers();
        if location >= HTTP2_METHOD {
            self.mode = Mode::Skip;
        } else if location == CONTENT_LENGTH || location == TRANSFER_ENCODING {
            self.enter_framing(location);
        } else if location == COOKIE_HEADER {
            self.headers |= SIGN;
            self.doubt_in_body();
            self.enter_cookie(rules);
        } else {
            self.headers |= SIGN;
            self.doubt_in_body();
            self.mode = Mode::Value;
            self.value.begin(rules, Context::Header, location);
        }
    }
}

/// What ends a header name, or a method. Bytes beyond ASCII are among it, for to some servers they are white space, but not
/// those that it begins with: `front` is [`FRONT`] where all before the word are such, else 0. Marks behind the first one may
/// be wrong.
#[inline(always)]
pub(super) fn name_end(word: u64, front: u32) -> u64 {
    let high = swar::not_ascii(word);
    let begun = high & !(high << 8 | u64::from(front));
    swar::first_equal(word, b':') | swar::first_below(word, b'!') | begun
}
