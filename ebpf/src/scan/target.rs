//! The request target, up to its query, and the values of a query that are no location.

use super::super::{filter::Filter, rules::Rules, swar};
use super::{ABSOLUTE, ABSOLUTE_CASE, Chunk, FIELD, Mode, SIGN, Scan, Source, VERSION};

/// Words of a request target that a unit reads.
const TARGET_WORDS: u32 = 4;

impl Scan {
    /// Does one unit of work on a part of a line.
    #[inline(always)]
    pub(super) fn part_unit<S: Source + ?Sized, F: Filter>(
        &mut self,
        rules: &Rules,
        source: &S,
        filter: &F,
    ) {
        match self.mode {
            Mode::Glance => self.glance_unit(rules, source, filter),
            Mode::Name => self.name_unit(rules, source),
            Mode::QueryName => self.query_name_unit(rules, source),
            Mode::CookieName => self.cookie_name_unit(rules, source),
            Mode::Length => self.length_unit(source),
            Mode::Method => self.method_unit(source),
            Mode::Line
            | Mode::Value
            | Mode::BeforeTarget
            | Mode::Target
            | Mode::Skip
            | Mode::QuerySkip
            | Mode::CookieSkip => {}
        }
    }

    #[inline(always)]
    pub(super) fn target_unit<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S) {
        let left = self.end(source) - self.pos;
        let chunk = source.chunk(self.pos);
        // Several servers take more than one space here.
        if self.mode as u32 == Mode::BeforeTarget as u32
            && matches!(chunk.word(0) as u8, b' ' | b'\t')
        {
            self.pos += 1;
            return;
        }
        if self.mode as u32 == Mode::BeforeTarget as u32 {
            let first = u32::from(chunk.word(0) as u8);
            let path = swar::is_zero(first ^ u32::from(b'/'));
            let absolute = swar::is_zero((chunk.word(0) as u32 | ABSOLUTE_CASE) ^ ABSOLUTE);
            if (path | absolute) != 0 && self.fold as u32 == Mode::Skip as u32 {
                self.fold = Mode::Target;
            }
            // `*`, or `http://` in either case.
            let other = swar::is_zero(first ^ u32::from(b'*'))
                | swar::is_zero((first | 0x20) ^ u32::from(b'h'));
            self.headers |= path * (SIGN | FIELD);
            if (path | other) != 0 && !self.in_body() {
                self.begin_message();
            }
        }
        swar::forget_registers();
        self.mode = Mode::Target;
        let part = u64::from(self.in_query) << 32 | u64::from(self.in_query);
        let mut i = 0;
        let (mut word, mut stop) = (0, 8);
        while i < TARGET_WORDS {
            word = chunk.word(i);
            stop =
                swar::first(swar::equal(word, b'?') | parts(word) & part | swar::below(word, b'!'));
            if stop < 8 {
                break;
            }
            i += 1;
        }
        let n = i * 8 + (stop & 7);
        if n >= left || stop == 8 {
            self.pos += swar::least(n, left);
            return;
        }
        self.pos += n;
        match word.wrapping_shr(stop * 8) as u8 {
            b'?' | b'&' | b';' => {
                self.pos += 1;
                self.enter_query(rules);
            }
            byte @ (b'\r' | b'\n') => self.end_line(byte),
            _ => {
                self.pos += 1;
                if source.chunk(self.pos).word(0) as u32 == VERSION {
                    self.doubt_in_body();
                }
                if self.is_path() && !self.is_over(source) {
                    return;
                }
                // After `end_body`, or else `Skip`.
                self.mode = if self.fold as u32 == Mode::BeforeTarget as u32 {
                    Mode::BeforeTarget
                } else {
                    Mode::Skip
                };
                self.fold = Mode::Skip;
                self.in_query = 0;
            }
        }
    }

    /// Skips the rest of a cookie or query parameter that is no location.
    #[inline(always)]
    pub(super) fn part_skip_unit<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S) {
        let left = self.end(source) - self.pos;
        let word = source.chunk(self.pos).word(0);
        let cookie = self.mode as u32 == Mode::CookieSkip as u32;
        let separators = if cookie {
            swar::equal(word, b';') | swar::equal(word, b',')
        } else {
            parts(word)
        };
        let stop = swar::first(separators | swar::below(word, b'!'));
        if stop >= left || stop == 8 {
            self.pos += swar::least(left, 8);
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
        } else if byte > b' ' {
            self.enter_query(rules);
        } else if !self.is_path() || self.is_over(source) {
            self.mode = Mode::Skip;
        }
    }

    /// Whether the request target is one by its beginning. Some servers take white space and control characters for a
    /// part of it, so that it is over with its line, or in front of the version.
    #[inline(always)]
    pub(super) fn is_path(&self) -> bool {
        self.fold as u32 == Mode::Target as u32
    }
}

/// What stands between two parts of a query.
#[inline(always)]
fn parts(word: u64) -> u64 {
    swar::equal(word, b'&') | swar::equal(word, b';')
}
