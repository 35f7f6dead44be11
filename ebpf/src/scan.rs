//! The scanner: finds locations in a byte stream, line by line, whatever the framing says.
//!
//! It works in units: [`Scan::step`] does one bounded piece of straight-line work and returns. The kernel
//! program calls it under `bpf_loop`, the host in a plain loop. Between two units the whole state lies in
//! [`Scan`], so a stream may be cut at any byte.

use crate::{
    candidate::{Context, Next, Value, hex_value, specials},
    digest::TokenDigest,
    location::{LocationId, LocationKind, NameHash},
    rules::{COOKIE_HEADER, MAX_NAME, NO_LOCATION, Rules},
    swar,
};

/// Bytes to scan, addressed by position.
pub trait Source {
    /// The eight bytes at `at`, the first in the lowest place. Bytes at and behind [`Source::end`] may be
    /// anything.
    fn word(&self, at: u32) -> u64;
    /// Position behind the last byte.
    fn end(&self) -> u32;
}

/// What the scanner reads at its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Mode {
    /// The first byte of a line.
    Line = 0,
    /// A header name, or the method of a request line.
    Name = 1,
    /// Nothing of interest up to the end of the line.
    Skip = 2,
    /// The value at a location.
    Value = 3,
    /// The request target before its query.
    Target = 4,
    /// The name of a query parameter.
    QueryName = 5,
    /// The value of a query parameter that is no location.
    QuerySkip = 6,
    /// The name of a cookie.
    CookieName = 7,
    /// The value of a cookie that is no location.
    CookieSkip = 8,
    /// White space between the method and the request target.
    BeforeTarget = 9,
}

/// What a unit left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Call again.
    More,
    /// A candidate is complete: look its digest up, then call again.
    Lookup(TokenDigest),
    /// All bytes of the source are scanned.
    End,
}

/// Bytes that the widest unit reads at once; a source that will grow should hold as many before its end.
pub const WIDEST: u32 = 64;

/// The scanner's state. Can be saved at any byte and resumed on the bytes that follow.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Scan {
    /// Position of the next byte in the source.
    pub pos: u32,
    mode: Mode,
    /// Where reading goes on if the next line is folded (obs-fold, RFC 9112 section 5.2).
    fold: Mode,
    /// Whether the last line ended with a CR whose LF may follow.
    after_cr: u32,
    /// Whether white space ended the cookie name (`name = value`).
    name_ended: u32,
    /// Hexadecimal digits that an escape in a query name still needs.
    escape: u32,
    escape_high: u32,
    /// Location that `name[` of a query would be.
    array: u32,
    name: NameHash,
    value: Value,
}

impl Scan {
    /// The state at the start of a line.
    #[must_use]
    pub fn new(rules: &Rules) -> Self {
        Self {
            pos: 0,
            mode: Mode::Line,
            fold: Mode::Skip,
            after_cr: 0,
            name_ended: 0,
            escape: 0,
            escape_high: 0,
            array: u32::from(NO_LOCATION),
            name: NameHash::new(LocationKind::Header, rules.name_seed),
            value: Value::new(rules),
        }
    }

    /// Sets the state to the start of a line, at position 0. Whatever else the state holds is set when it is
    /// entered, so a state of zeros may be restarted too.
    #[inline(always)]
    pub fn restart(&mut self) {
        self.pos = 0;
        self.mode = Mode::Line;
        self.fold = Mode::Skip;
        self.after_cr = 0;
        self.value.rest();
    }

    /// The state at the start of the value of a header location.
    #[must_use]
    pub fn header_value(rules: &Rules, location: LocationId) -> Self {
        let mut scan = Self::new(rules);
        scan.enter_header(rules, location);
        scan
    }

    /// The state at the start of a query.
    #[must_use]
    pub fn query(rules: &Rules) -> Self {
        let mut scan = Self::new(rules);
        scan.enter_query(rules);
        scan
    }

    /// The location whose candidate was completed last.
    #[inline(always)]
    #[must_use]
    pub fn location(&self) -> LocationId {
        self.value.location()
    }

    /// Whether the next byte could continue a candidate or the name of a location: the state must be kept to
    /// judge what follows.
    #[inline(always)]
    #[must_use]
    pub fn is_open(&self) -> bool {
        !matches!(self.mode, Mode::Skip | Mode::Line) || self.fold as u32 != Mode::Skip as u32
    }

    /// Does one unit of work.
    #[inline(always)]
    pub fn step<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S) -> Step {
        if self.value.has_pending() {
            return Step::Lookup(self.value.take_pending(rules));
        }
        if self.pos >= source.end() {
            return Step::End;
        }
        match self.mode {
            Mode::Value => self.value_unit(rules, source),
            Mode::Skip => self.skip_unit(source),
            Mode::Line | Mode::Name => self.name_unit(rules, source),
            Mode::BeforeTarget | Mode::Target => self.target_unit(rules, source),
            Mode::QueryName => self.query_name_unit(rules, source),
            Mode::QuerySkip | Mode::CookieSkip => self.part_skip_unit(rules, source),
            Mode::CookieName => self.cookie_name_unit(rules, source),
        }
        Step::More
    }

    /// The stream ended: what was read so far is all there will be.
    pub fn finish(&mut self, rules: &Rules) {
        if self.mode == Mode::Value {
            self.value.end(rules);
            self.mode = Mode::Skip;
        }
    }

    /// Takes the line end `byte` at the current position.
    #[inline(always)]
    fn end_line(&mut self, byte: u8) {
        self.fold = match self.mode {
            // White space before the first byte of a value does not end it.
            mode @ (Mode::Value | Mode::CookieName | Mode::CookieSkip) => mode,
            _ => Mode::Skip,
        };
        self.after_cr = u32::from(byte == b'\r');
        self.mode = Mode::Line;
        self.pos += 1;
    }

    #[inline(always)]
    fn skip_unit<S: Source + ?Sized>(&mut self, source: &S) {
        let left = source.end() - self.pos;
        let mut at = self.pos;
        let mut i = 0;
        while i < WIDEST / 8 {
            let mask = swar::line_end(source.word(at));
            if mask != 0 {
                at += swar::first(mask);
                break;
            }
            at += 8;
            i += 1;
        }
        if at - self.pos >= left {
            self.pos += left;
            return;
        }
        self.pos = at;
        if i < WIDEST / 8 {
            self.end_line(source.word(at) as u8);
        }
    }

    #[inline(always)]
    fn name_unit<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S) {
        let word = source.word(self.pos);
        if self.mode as u32 == Mode::Line as u32 && !self.begin_line(rules, word as u8) {
            return;
        }
        let left = source.end() - self.pos;
        let stop = swar::first(swar::equal(word, b':') | swar::below(word, b'!'));
        let n = if stop < left { stop } else { left };
        let n = if n < 8 { n } else { 8 };
        self.name.absorb(word, n);
        self.pos += n;
        if self.name.len() > MAX_NAME as u64 {
            self.mode = Mode::Skip;
        } else if stop == n && stop < 8 && stop < left {
            self.end_name(rules, word.wrapping_shr(stop * 8) as u8);
        }
    }

    /// Looks at the first byte of a line and takes it if it is a line end; true where a name begins.
    #[inline(always)]
    fn begin_line(&mut self, rules: &Rules, byte: u8) -> bool {
        match byte {
            b'\n' if self.after_cr != 0 => self.after_cr = 0,
            b'\n' | b'\r' => {
                self.fold = Mode::Skip;
                self.after_cr = u32::from(byte == b'\r');
            }
            // Left to be read there: to a value or a cookie name it is white space like any other.
            b' ' | b'\t' => {
                self.mode = self.fold;
                return false;
            }
            _ => {
                self.fold = Mode::Skip;
                self.mode = Mode::Name;
                self.name = NameHash::new(LocationKind::Header, rules.name_seed);
                return true;
            }
        }
        self.pos += 1;
        false
    }

    /// Takes the byte that ended a name or a method.
    #[inline(always)]
    fn end_name(&mut self, rules: &Rules, byte: u8) {
        if byte == b'\r' || byte == b'\n' {
            self.end_line(byte);
            return;
        }
        self.pos += 1;
        if byte == b':' {
            let location = rules.find(self.name.finish());
            self.enter_header(rules, location);
        } else if self.name.is_empty() {
            self.mode = Mode::Skip;
        } else {
            self.mode = Mode::BeforeTarget;
        }
    }

    #[inline(always)]
    fn enter_header(&mut self, rules: &Rules, location: LocationId) {
        if location == NO_LOCATION {
            self.mode = Mode::Skip;
        } else if location == COOKIE_HEADER {
            self.enter_cookie(rules);
        } else {
            self.mode = Mode::Value;
            self.value.begin(rules, Context::Header, location);
        }
    }

    #[inline(always)]
    fn enter_cookie(&mut self, rules: &Rules) {
        self.mode = Mode::CookieName;
        self.name_ended = 0;
        self.name = NameHash::new(LocationKind::Cookie, rules.name_seed);
    }

    #[inline(always)]
    fn enter_query(&mut self, rules: &Rules) {
        self.mode = Mode::QueryName;
        self.escape = 0;
        self.array = u32::from(NO_LOCATION);
        self.name = NameHash::new(LocationKind::Query, rules.name_seed);
    }

    #[inline(always)]
    fn value_unit<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S) {
        let left = source.end() - self.pos;
        let word = source.word(self.pos);
        let stop = swar::first(specials(word));
        if stop == 0 || !self.value.takes_words() {
            self.value_byte(rules, word as u8);
            return;
        }
        let n = if stop < left { stop } else { left };
        self.value.plain(word, n);
        self.pos += n;
    }

    #[inline(always)]
    fn value_byte(&mut self, rules: &Rules, byte: u8) {
        let next = self.value.byte(rules, byte);
        if byte == b'\r' || byte == b'\n' {
            if matches!(next, Next::Name) {
                self.enter_cookie(rules);
            } else if matches!(next, Next::Line) {
                self.mode = Mode::Skip;
            }
            self.end_line(byte);
            return;
        }
        self.pos += 1;
        match next {
            Next::Value => {}
            Next::Name => self.enter_next_name(rules),
            Next::Skip => self.mode = Mode::CookieSkip,
            Next::Line => self.mode = Mode::Skip,
        }
    }

    #[inline(always)]
    fn enter_next_name(&mut self, rules: &Rules) {
        if self.value.is_query() {
            self.enter_query(rules);
        } else {
            self.enter_cookie(rules);
        }
    }

    #[inline(always)]
    fn target_unit<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S) {
        let left = source.end() - self.pos;
        let word = source.word(self.pos);
        // Several servers take more than one space here.
        if self.mode as u32 == Mode::BeforeTarget as u32 && matches!(word as u8, b' ' | b'\t') {
            self.pos += 1;
            return;
        }
        self.mode = Mode::Target;
        let stop = swar::first(swar::equal(word, b'?') | swar::below(word, b'!'));
        if stop >= left || stop == 8 {
            self.pos += if left < 8 { left } else { 8 };
            return;
        }
        self.pos += stop;
        match word.wrapping_shr(stop * 8) as u8 {
            b'?' => {
                self.pos += 1;
                self.enter_query(rules);
            }
            byte @ (b'\r' | b'\n') => self.end_line(byte),
            _ => {
                self.pos += 1;
                self.mode = Mode::Skip;
            }
        }
    }

    /// Skips the rest of a cookie or query parameter that is no location.
    #[inline(always)]
    fn part_skip_unit<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S) {
        let left = source.end() - self.pos;
        let word = source.word(self.pos);
        let cookie = self.mode as u32 == Mode::CookieSkip as u32;
        let separators = if cookie {
            swar::equal(word, b';') | swar::equal(word, b',')
        } else {
            swar::equal(word, b'&')
        };
        let stop = swar::first(separators | swar::below(word, b'!'));
        if stop >= left || stop == 8 {
            self.pos += if left < 8 { left } else { 8 };
            return;
        }
        self.pos += stop;
        let byte = word.wrapping_shr(stop * 8) as u8;
        if byte == b'\r' || byte == b'\n' {
            self.end_line(byte);
            return;
        }
        self.pos += 1;
        if cookie {
            self.enter_cookie(rules);
        } else if byte == b'&' {
            self.enter_query(rules);
        } else {
            self.mode = Mode::Skip;
        }
    }

    #[inline(always)]
    fn cookie_name_unit<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S) {
        let left = source.end() - self.pos;
        let word = source.word(self.pos);
        let stop = swar::first(
            swar::equal(word, b'=')
                | swar::equal(word, b';')
                | swar::equal(word, b',')
                | swar::below(word, b'!'),
        );
        let n = if stop < left { stop } else { left };
        if n > 0 {
            if self.name_ended != 0 {
                self.enter_cookie(rules);
            }
            self.name.absorb(word, n);
            self.pos += n;
            if self.name.len() > MAX_NAME as u64 {
                self.mode = Mode::CookieSkip;
            }
            return;
        }
        match word as u8 {
            byte @ (b'\r' | b'\n') => return self.end_line(byte),
            b'=' => {
                let location = rules.find(self.name.finish());
                if location == NO_LOCATION {
                    self.mode = Mode::CookieSkip;
                } else {
                    self.mode = Mode::Value;
                    self.value.begin(rules, Context::Cookie, location);
                }
            }
            b';' | b',' => self.enter_cookie(rules),
            _ => self.name_ended = u32::from(!self.name.is_empty()),
        }
        self.pos += 1;
    }

    #[inline(always)]
    fn query_name_unit<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S) {
        let left = source.end() - self.pos;
        let word = source.word(self.pos);
        // Everything below `-` that may be special: `%`, `&`, `+`, white space.
        let stop = swar::first(
            swar::equal(word, b'=') | swar::equal(word, b'[') | swar::below(word, b'-'),
        );
        let n = if stop < left { stop } else { left };
        if n > 0 && self.escape == 0 {
            self.name.absorb(word, n);
            self.pos += n;
            self.check_query_name();
            return;
        }
        self.query_name_byte(rules, word as u8);
    }

    #[inline(always)]
    fn query_name_byte(&mut self, rules: &Rules, byte: u8) {
        match byte {
            b'\r' | b'\n' => return self.end_line(byte),
            b'&' => self.enter_query(rules),
            b'=' => self.enter_query_value(rules),
            _ if byte <= b' ' => self.mode = Mode::Skip,
            b'%' => self.escape = 2,
            _ => match (self.escape, hex_value(byte)) {
                (2, digit @ 0..16) => {
                    self.escape_high = u32::from(digit);
                    self.escape = 1;
                }
                (1, digit @ 0..16) => {
                    self.escape = 0;
                    self.query_name_char(rules, (self.escape_high << 4) as u8 | digit);
                }
                _ => {
                    self.escape = 0;
                    self.query_name_char(rules, byte);
                }
            },
        }
        self.pos += 1;
    }

    /// Takes a decoded character of a query name.
    #[inline(always)]
    fn query_name_char(&mut self, rules: &Rules, byte: u8) {
        // PHP drops spaces before a name.
        if self.name.is_empty() && (byte == b'+' || byte == b' ') {
            return;
        }
        // `name[]` and `name[key]` are arrays in PHP and Node's qs; the first bracket ends the name there.
        if byte == b'[' && self.array == u32::from(NO_LOCATION) {
            self.array = u32::from(rules.find(self.name.finish()));
        }
        self.name.absorb(u64::from(byte), 1);
        self.check_query_name();
    }

    /// Gives up a name that is too long for a location, unless it is one with an array's key behind it.
    #[inline(always)]
    fn check_query_name(&mut self) {
        if self.name.len() > MAX_NAME as u64 && self.array == u32::from(NO_LOCATION) {
            self.mode = Mode::QuerySkip;
        }
    }

    #[inline(always)]
    fn enter_query_value(&mut self, rules: &Rules) {
        let mut location = rules.find(self.name.finish());
        if location == NO_LOCATION {
            location = self.array as LocationId;
        }
        if location == NO_LOCATION {
            self.mode = Mode::QuerySkip;
        } else {
            self.mode = Mode::Value;
            self.value.begin(rules, Context::Query, location);
        }
    }
}

impl Source for [u8] {
    fn word(&self, at: u32) -> u64 {
        let rest = self.get(at as usize..).unwrap_or(&[]);
        match rest.first_chunk::<8>() {
            Some(chunk) => u64::from_le_bytes(*chunk),
            None => rest
                .iter()
                .rev()
                .fold(0, |word, byte| word << 8 | u64::from(*byte)),
        }
    }

    fn end(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }
}
