//! Names of query parameters.

use super::super::{
    candidate::{Context, hex_value},
    location::{LocationId, LocationKind, NameHash},
    rules::{MAX_NAME, NO_LOCATION, Rules},
    swar,
};
use super::{Chunk, Mode, Scan, Source};

impl Scan {
    #[inline(always)]
    pub(super) fn enter_query(&mut self, rules: &Rules) {
        self.mode = Mode::QueryName;
        self.escape = 0;
        self.array = u32::from(NO_LOCATION);
        self.name = NameHash::new(LocationKind::Query, rules.name_seed);
    }

    #[inline(always)]
    pub(super) fn query_name_unit<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S) {
        let left = self.end(source) - self.pos;
        let word = source.chunk(self.pos).word(0);
        let stop = swar::first(ends_query_name(word));
        let n = if self.escape != 0 {
            0
        } else {
            swar::least(stop, left)
        };
        if n > 0 {
            self.name.absorb(word, n);
            self.pos += n;
            self.check_query_name();
            if self.mode as u32 == Mode::QuerySkip as u32 {
                return;
            }
        }
        if n < 8 && n < left {
            swar::forget_registers();
            self.query_name_byte(rules, word.wrapping_shr(n * 8) as u8);
        }
    }

    /// White space or a control character stands in the query.
    #[inline(always)]
    pub(super) fn end_query_part(&mut self) {
        self.mode = if self.is_path() {
            Mode::QuerySkip
        } else {
            Mode::Skip
        };
    }

    #[inline(always)]
    fn query_name_byte(&mut self, rules: &Rules, byte: u8) {
        match byte {
            b'\r' | b'\n' => return self.end_line(byte),
            b'&' | b';' => self.enter_query(rules),
            b'=' => self.enter_query_value(rules),
            _ if byte <= b' ' => self.end_query_part(),
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
        // PHP drops spaces before a name, URLSearchParams a `?`, and to Node's qs `[name]` is `name`.
        if self.name.is_empty() && matches!(byte, b'+' | b' ' | b'?' | b'[') {
            return;
        }
        // `name[]` and `name[key]` are arrays in PHP and Node's qs; the first bracket ends the name there, and in PHP a zero.
        if matches!(byte, 0 | b'[' | b']') && self.array == u32::from(NO_LOCATION) {
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

/// What ends a name, or is more in it than a character. Everything below `-` may be: `%`, `&`, `+`, white space. Marks behind
/// the first one may be wrong.
#[inline(always)]
pub(super) fn ends_query_name(word: u64) -> u64 {
    swar::first_equal(word, b'=')
        | swar::first_equal(word, b'[')
        | swar::first_equal(word, b']')
        | swar::first_equal(word, b';')
        | swar::first_equal(word, b'?')
        | swar::first_below(word, b'-')
}
