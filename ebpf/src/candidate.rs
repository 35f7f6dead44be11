//! From the bytes at a location to the digests that are looked up: the canonical form, taken while reading.
//!
//! A value is read in two ways at once: as it stands, and, from the first escape on (or inside `Basic`
//! credentials, or from the first byte beyond ASCII of a header), decoded. Each reading is digested as its bytes come, so that neither is ever stored.

use super::{
    digest::{Domain, Ending, Pad, Sip, TokenDigest},
    location::{LocationId, mix},
    rules::{NO_LOCATION, Rules},
    swar,
};

/// Most words of a header value that are candidates; servers read one or two (`scheme SP token`).
const MAX_WORDS: u32 = 8;

/// What kind of value is read; it decides what ends a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Context {
    /// A header value: words between white space or quotes.
    Header = 0,
    /// A cookie value, up to `;` or white space.
    Cookie = 1,
    /// A value of the query, up to `&`, `;` or white space.
    Query = 2,
}

/// Where reading goes on after a byte of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Still in this value.
    Value,
    /// The value is over; the next name may follow.
    Name,
    /// The value is over; skip to the next delimiter.
    Skip,
    /// Nothing more on this line is a candidate.
    Line,
}

/// How the second reading decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Decoder {
    None = 0,
    /// `%xx`, and in cookies `\ooo` and `\c`.
    Escapes = 1,
    /// Base64 of `user:password` (RFC 7617), either alphabet, padded or not.
    Basic = 2,
    /// In headers: words between bytes beyond ASCII, for the white space of Latin-1 and Unicode is among them, at which
    /// many applications split what they take for text.
    Words = 3,
}

/// Progress inside an escape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Escape {
    None = 0,
    Percent = 1,
    PercentDigit = 2,
    Backslash = 3,
    OneOctal = 4,
    TwoOctal = 5,
}

const UNDECODED: u32 = 0x100;

const RAW_MARK: u32 = 1;
const DECODED_MARK: u32 = 2;
const RAW_END: u32 = 4;
const DECODED_END: u32 = 8;

/// One way to read a value, digested as it comes.
#[derive(Clone, Copy)]
#[repr(C)]
struct Reading {
    sip: Sip,
    /// The digest as it stood before a byte that may have ended the candidate.
    mark: Sip,
    /// Dots seen so far, up to 2; the second ends the signed part of a compact JWS.
    dots: u32,
    /// Whether `mark` stands before a second dot.
    mark_is_jws: u32,
}

impl Reading {
    #[inline(always)]
    fn reset(&mut self, rules: &Rules) {
        self.sip.restart(&rules.seed);
        self.dots = 0;
    }

    /// Leaves no byte behind.
    #[inline(always)]
    fn wipe(&mut self) {
        self.sip.wipe();
        self.mark.wipe();
    }

    /// Takes a byte; true where the digest before it is to be looked up as a JWS.
    #[inline(always)]
    fn byte(&mut self, byte: u8, min_len: u64) -> bool {
        let mut marked = false;
        if byte == b'.' && self.dots < 2 {
            self.dots += 1;
            if self.dots == 2 && self.sip.len() >= min_len {
                self.mark.copy(&self.sip);
                self.mark_is_jws = 1;
                marked = true;
            }
        }
        self.sip.absorb(u64::from(byte), 1);
        marked
    }
}

/// The value being read. All zero is a valid resting state; [`Value::begin`] starts one.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Value {
    raw: Reading,
    decoded: Reading,
    context: Context,
    decoder: Decoder,
    escape: Escape,
    /// Bits of a base64 quantum, or the digits of an escape as they stood.
    bits: u32,
    bit_count: u32,
    words: u32,
    /// Whether the colon of `user:password` has come.
    colon: u32,
    pending: u32,
    location: u32,
    /// Whether a byte of the candidate has come.
    begun: u32,
    /// Whether the candidate must be digested: the filter could not rule it out, or was not asked.
    exact: u32,
    /// [`UNDECODED`] and the byte that the second reading has still to take; 0 where none.
    undecoded: u32,
    /// The digest that is being finished.
    ending: Ending,
}

impl Value {
    /// A value that has not begun.
    #[must_use]
    pub fn new(rules: &Rules) -> Self {
        let sip = Sip::new(&rules.seed);
        let reading = Reading {
            sip,
            mark: sip,
            dots: 0,
            mark_is_jws: 0,
        };
        Self {
            raw: reading,
            decoded: reading,
            context: Context::Header,
            decoder: Decoder::None,
            escape: Escape::None,
            bits: 0,
            bit_count: 0,
            words: 0,
            colon: 0,
            pending: 0,
            location: NO_LOCATION as u32,
            begun: 0,
            exact: 0,
            undecoded: 0,
            ending: Ending::new(&rules.seed),
        }
    }

    /// Starts a value at this location.
    #[inline(always)]
    pub fn begin(&mut self, rules: &Rules, context: Context, location: LocationId) {
        self.raw.reset(rules);
        self.context = context;
        self.decoder = Decoder::None;
        self.escape = Escape::None;
        self.words = 0;
        self.location = u32::from(location);
        self.begun = 0;
        self.exact = 0;
    }

    /// A hash of all that decides how reading goes on.
    #[inline(always)]
    pub(crate) fn signature(&self) -> u64 {
        let plain = u64::from(self.location) << 40
            | u64::from(self.context as u32) << 36
            | u64::from(self.decoder as u32) << 32
            | u64::from(self.words) << 24
            | u64::from(self.begun) << 16
            | u64::from(self.raw.dots);
        let hash = mix(plain, self.raw.sip.signature());
        if self.takes_words() {
            return hash;
        }
        let progress = u64::from(self.escape as u32) << 48
            | u64::from(self.decoded.dots) << 40
            | u64::from(self.colon) << 32
            | u64::from(self.bits) << 8
            | u64::from(self.bit_count);
        mix(mix(hash, progress), self.decoded.sip.signature())
    }

    /// Forgets what is pending.
    #[inline(always)]
    pub fn rest(&mut self) {
        self.pending = 0;
        self.undecoded = 0;
    }

    /// Whether this is a value of the query.
    #[inline(always)]
    #[must_use]
    pub fn is_query(&self) -> bool {
        self.context as u32 == Context::Query as u32
    }

    /// The location whose value this is.
    #[inline(always)]
    #[must_use]
    pub fn location(&self) -> LocationId {
        self.location as LocationId
    }

    /// Whether no byte of the candidate has come yet.
    #[inline(always)]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.begun == 0
    }

    /// Whether a candidate begins here that the filter may rule out.
    #[inline(always)]
    #[must_use]
    pub fn may_glance(&self) -> bool {
        (self.begun | self.exact) == 0 && self.takes_words()
    }

    /// The candidate must be digested.
    #[inline(always)]
    pub fn require_digest(&mut self) {
        self.exact = 1;
    }

    /// The candidate is not listed; its bytes need not be read.
    #[inline(always)]
    pub fn rule_out(&mut self) {
        self.begun = 1;
    }

    /// Whether this is the value of a header.
    #[inline(always)]
    #[must_use]
    pub fn is_header(&self) -> bool {
        self.context as u32 == Context::Header as u32
    }

    /// Whether `byte` separates values of this kind.
    #[inline(always)]
    #[must_use]
    pub fn is_separator(&self, byte: u8) -> bool {
        byte == b';' && !self.is_header() || byte == b'&' && self.is_query()
    }

    /// Whether this is a value of a cookie.
    #[inline(always)]
    #[must_use]
    pub fn is_cookie(&self) -> bool {
        self.context as u32 == Context::Cookie as u32
    }

    /// Whether work or a digest waits for [`Value::take_pending`].
    #[inline(always)]
    #[must_use]
    pub fn has_pending(&self) -> bool {
        self.pending != 0
            || self.ending.is_busy()
            || self.raw.sip.is_full()
            || self.decoded.sip.is_full()
    }

    /// Hides the bytes that the hashes hold from who reads the place where the value is kept, or shows them again.
    #[inline(always)]
    pub(crate) fn seal(&mut self, rules: &Rules, salt: u64) {
        let mut pad = Pad::new(&rules.seed, salt);
        self.raw.mark.wipe();
        self.decoded.mark.wipe();
        self.ending.wipe();
        self.raw.sip.seal(&mut pad);
        self.decoded.sip.seal(&mut pad);
    }

    /// Leaves no byte of the value behind; it is of no more use.
    #[inline(always)]
    pub(crate) fn wipe(&mut self) {
        self.raw.wipe();
        self.decoded.wipe();
        self.ending.wipe();
    }

    /// Whether the second reading waits for the byte that the first one took.
    #[inline(always)]
    #[must_use]
    pub fn has_undecoded(&self) -> bool {
        self.undecoded != 0
    }

    /// Takes that byte into the second reading.
    #[inline(always)]
    pub fn decode(&mut self, rules: &Rules) {
        let byte = self.undecoded as u8;
        self.undecoded = 0;
        if self.decoder as u32 == Decoder::Escapes as u32 {
            self.unescape(rules, byte);
        } else if self.decoder as u32 == Decoder::Basic as u32 {
            self.unbase64(rules, byte);
        } else if byte >= 0x80 {
            self.end_decoded(rules);
        } else {
            self.decoded_byte(rules, byte);
        }
    }

    /// The next digest to look up; `None` after a unit of work of another kind. Nothing may be read while
    /// [`Value::has_pending`].
    #[inline(always)]
    pub fn take_pending(&mut self, rules: &Rules) -> Option<TokenDigest> {
        if self.raw.sip.is_full() {
            self.raw.sip.compress();
            return None;
        }
        if self.decoded.sip.is_full() {
            self.decoded.sip.compress();
            return None;
        }
        if self.ending.is_busy() {
            return self.ending.go_on();
        }
        let bit = self.pending & self.pending.wrapping_neg();
        self.pending &= !bit;
        let (sip, jws) = match bit {
            RAW_MARK => (&self.raw.mark, self.raw.mark_is_jws != 0),
            DECODED_MARK => (&self.decoded.mark, self.decoded.mark_is_jws != 0),
            RAW_END => (&self.raw.sip, false),
            _ => (&self.decoded.sip, false),
        };
        let domain = if jws { Domain::Jws } else { Domain::Exact };
        let digest = self.ending.begin(sip, domain);
        match bit {
            RAW_END => self.raw.reset(rules),
            DECODED_END => self.decoded.reset(rules),
            _ => {}
        }
        digest
    }

    /// Whether only the reading as it stands is on, so that words can be taken at once.
    #[inline(always)]
    #[must_use]
    pub fn takes_words(&self) -> bool {
        self.decoder as u32 == Decoder::None as u32
    }

    /// Takes `n` bytes of which none is [special](specials).
    #[inline(always)]
    pub fn plain(&mut self, word: u64, n: u32) {
        self.begun |= u32::from(n != 0);
        self.raw.sip.absorb(word, n);
    }

    /// Takes one byte of which nothing is known; says where reading goes on.
    ///
    /// CR and LF end the value like other white space; what they mean for the line is the scanner's job.
    #[inline(always)]
    pub fn byte(&mut self, rules: &Rules, byte: u8) -> Next {
        if byte <= b' ' {
            return self.white(rules);
        }
        let (cookie, query) = (
            self.context as u32 == Context::Cookie as u32,
            self.context as u32 == Context::Query as u32,
        );
        match byte {
            b'"' => return self.quote(rules),
            // In queries too: CGI, Rack 2, old versions of Python.
            b';' if cookie || query => {
                self.end(rules);
                return Next::Name;
            }
            b'&' if query => {
                self.end(rules);
                return Next::Name;
            }
            b'%' if cookie || query => self.fork(Decoder::Escapes),
            b'\\' if cookie => self.fork(Decoder::Escapes),
            // A blank, where blanks in front of a value are dropped.
            b'+' if query && self.begun == 0 => self.fork(Decoder::Escapes),
            0x80.. if !cookie && !query => self.fork(Decoder::Words),
            // Some servers end the candidate here, others don't.
            b',' if cookie => self.mark(rules),
            b'#' | b'+' | 0x80.. if query => self.mark(rules),
            _ => {}
        }
        swar::forget_registers();
        self.begun = 1;
        if self.raw.byte(byte, rules.min_len) {
            self.pending |= RAW_MARK;
        }
        if !self.takes_words() {
            self.undecoded = u32::from(byte) | UNDECODED;
        }
        Next::Value
    }

    #[inline(always)]
    fn white(&mut self, rules: &Rules) -> Next {
        let empty = self.is_empty();
        match self.context {
            Context::Header => {
                if empty {
                    return Next::Value;
                }
                self.end_word(rules)
            }
            Context::Cookie => {
                if empty {
                    return Next::Value;
                }
                self.end(rules);
                Next::Name
            }
            // Not the end of the query at all servers.
            Context::Query => {
                self.end(rules);
                Next::Skip
            }
        }
    }

    #[inline(always)]
    fn quote(&mut self, rules: &Rules) -> Next {
        if self.is_empty() {
            return Next::Value;
        }
        match self.context {
            Context::Header => self.end_word(rules),
            Context::Cookie => {
                self.end(rules);
                Next::Skip
            }
            Context::Query => {
                self.end(rules);
                Next::Value
            }
        }
    }

    /// Ends a word of a header value; the one after a first word `Basic` is read as base64 as well.
    #[inline(always)]
    fn end_word(&mut self, rules: &Rules) -> Next {
        let lower = self.raw.sip.short_word() | 0x20_2020_2020;
        let basic = self.words == 0
            && self.raw.sip.len() == 5
            && lower == u64::from_le_bytes(*b"basic\0\0\0");
        self.end(rules);
        self.words += 1;
        if basic {
            self.decoded.reset(rules);
            self.decoder = Decoder::Basic;
            self.bits = 0;
            self.bit_count = 0;
            self.colon = 0;
        }
        if self.words < MAX_WORDS {
            Next::Value
        } else {
            Next::Line
        }
    }

    /// Ends the candidate in both readings.
    #[inline(always)]
    pub fn end(&mut self, rules: &Rules) {
        self.begun = 0;
        self.exact = 0;
        if self.raw.sip.len() >= rules.min_len {
            self.pending |= RAW_END;
        } else {
            self.raw.reset(rules);
        }
        swar::forget_registers();
        if self.decoder as u32 != Decoder::None as u32 {
            self.flush_escape();
            if self.decoded.sip.len() >= rules.min_len {
                self.pending |= DECODED_END;
            }
            self.decoder = Decoder::None;
        }
    }

    /// Has the candidate looked up as if it ended before the next byte, and reads on.
    #[inline(always)]
    fn mark(&mut self, rules: &Rules) {
        if self.raw.sip.len() >= rules.min_len {
            self.raw.mark.copy(&self.raw.sip);
            self.raw.mark_is_jws = 0;
            self.pending |= RAW_MARK;
        }
        if self.decoder as u32 == Decoder::Escapes as u32 && self.decoded.sip.len() >= rules.min_len
        {
            self.decoded.mark.copy(&self.decoded.sip);
            self.decoded.mark_is_jws = 0;
            self.pending |= DECODED_MARK;
        }
    }

    /// From the first escape on, or what `decoder` is about else, there are two readings.
    #[inline(always)]
    fn fork(&mut self, decoder: Decoder) {
        if self.decoder as u32 == Decoder::None as u32 {
            self.decoded.sip.copy(&self.raw.sip);
            self.decoded.dots = self.raw.dots;
            self.decoder = decoder;
            self.escape = Escape::None;
        }
    }

    #[inline(always)]
    fn decoded_byte(&mut self, rules: &Rules, byte: u8) {
        if self.decoded.byte(byte, rules.min_len) {
            self.pending |= DECODED_MARK;
        }
    }

    /// Ends the candidate of the second reading alone; the next one begins.
    #[inline(always)]
    fn end_decoded(&mut self, rules: &Rules) {
        if self.decoded.sip.len() >= rules.min_len {
            self.pending |= DECODED_END;
        } else {
            self.decoded.reset(rules);
        }
    }

    #[inline(always)]
    fn unescape(&mut self, rules: &Rules, byte: u8) {
        let octal = (byte ^ b'0') < 8;
        let hex = hex_value(byte);
        let mut escaped = true;
        let value = match self.escape {
            Escape::Percent if hex < 16 => {
                self.bits = u32::from(byte);
                self.escape = Escape::PercentDigit;
                return;
            }
            Escape::PercentDigit if hex < 16 => hex_value(self.bits as u8) << 4 | hex,
            Escape::Backslash if octal && byte < b'4' => {
                self.bits = u32::from(byte);
                self.escape = Escape::OneOctal;
                return;
            }
            Escape::OneOctal if octal => {
                self.bits |= u32::from(byte) << 8;
                self.escape = Escape::TwoOctal;
                return;
            }
            Escape::TwoOctal if octal => {
                ((self.bits & 7) << 6 | (self.bits >> 8 & 7) << 3 | u32::from(byte & 7)) as u8
            }
            Escape::Backslash => {
                escaped = false;
                byte
            }
            _ => {
                self.flush_escape();
                swar::forget_registers();
                match byte {
                    b'%' => {
                        self.escape = Escape::Percent;
                        return;
                    }
                    b'\\' if self.is_cookie() => {
                        self.escape = Escape::Backslash;
                        return;
                    }
                    b'+' if self.is_query() && self.decoded.sip.is_empty() => return,
                    _ => {}
                }
                escaped = false;
                byte
            }
        };
        self.escape = Escape::None;
        swar::forget_registers();
        // Blanks and quotes that come out of escapes stand around candidates too.
        if escaped && (value <= b' ' || value == b'"') {
            self.end_decoded(rules);
        } else {
            self.decoded_byte(rules, value);
        }
    }

    /// What looked like an escape was none: its bytes stand as they are.
    #[inline(always)]
    fn flush_escape(&mut self) {
        let (word, n) = match self.escape {
            Escape::None => (0, 0),
            Escape::Percent => (u64::from(b'%'), 1),
            Escape::PercentDigit => (u64::from(b'%') | u64::from(self.bits) << 8, 2),
            Escape::Backslash => (u64::from(b'\\'), 1),
            Escape::OneOctal => (u64::from(self.bits), 1),
            Escape::TwoOctal => (u64::from(self.bits), 2),
        };
        self.escape = Escape::None;
        self.decoded.sip.absorb(word, n);
    }

    #[inline(always)]
    fn unbase64(&mut self, rules: &Rules, byte: u8) {
        let value = base64_value(byte);
        if value >= 64 {
            return;
        }
        self.bits = (self.bits << 6 | u32::from(value)) & 0xffff;
        self.bit_count += 6;
        if self.bit_count < 8 {
            return;
        }
        self.bit_count &= 7;
        let byte = (self.bits.wrapping_shr(self.bit_count) & 0xff) as u8;
        let colon = byte == b':' && self.colon == 0;
        if colon || byte <= b' ' {
            self.colon |= u32::from(colon);
            self.end_decoded(rules);
        } else {
            self.decoded_byte(rules, byte);
        }
    }
}

/// Marks the bytes of a word that [`Value::plain`] may not take: all up to `/` but `-`, those beyond ASCII, and in cookies
/// and queries (`parted` is all ones, else zero) `;` and `\`.
#[inline(always)]
#[must_use]
pub fn specials(word: u64, parted: u64) -> u64 {
    let odd = swar::odd(word, b'/') & !swar::equal(word, b'-');
    odd | (swar::equal(word, b';') | swar::equal(word, b'\\')) & parted
}

/// Value of a hexadecimal digit; 16 and above for any other byte.
#[inline(always)]
pub(crate) fn hex_value(byte: u8) -> u8 {
    let digit = byte.wrapping_sub(b'0');
    let letter = (byte | 0x20).wrapping_sub(b'a');
    if digit < 10 {
        digit
    } else if letter < 6 {
        letter + 10
    } else {
        16
    }
}

#[inline(always)]
fn base64_value(byte: u8) -> u8 {
    match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => 64,
    }
}
