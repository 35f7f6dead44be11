//! Names of cookies.

use super::super::{
    candidate::Context,
    location::{LocationKind, NameHash},
    rules::{MAX_NAME, NO_LOCATION, Rules},
    swar,
};
use super::{Chunk, Mode, Scan, Source};

impl Scan {
    #[inline(always)]
    pub(super) fn enter_cookie(&mut self, rules: &Rules) {
        self.mode = Mode::CookieName;
        self.name_ended = 0;
        self.name = NameHash::new(LocationKind::Cookie, rules.name_seed);
    }

    #[inline(always)]
    pub(super) fn cookie_name_unit<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S) {
        let mut word = source.chunk(self.pos).word(0);
        let mut left = source.end() - self.pos;
        let mut bytes = 8;
        if word as u8 == b' ' && left > 1 && self.name.is_empty() {
            word >>= 8;
            bytes = 7;
            self.pos += 1;
            left -= 1;
        }
        let stop = swar::first(
            swar::equal(word, b'=')
                | swar::equal(word, b';')
                | swar::equal(word, b',')
                | swar::below(word, b'!'),
        );
        let n = swar::least(stop, bytes);
        let n = swar::least(n, left);
        if n > 0 {
            if self.name_ended != 0 {
                self.enter_cookie(rules);
            }
            self.name.absorb(word, n);
            self.pos += n;
            if self.name.len() > MAX_NAME as u64 {
                self.mode = Mode::CookieSkip;
                return;
            }
        }
        if stop == n && stop < bytes && stop < left {
            swar::forget_registers();
            self.cookie_name_byte(rules, word.wrapping_shr(stop * 8) as u8);
        }
    }

    /// Takes the byte that ended what may be a cookie name.
    #[inline(always)]
    fn cookie_name_byte(&mut self, rules: &Rules, byte: u8) {
        match byte {
            b'\r' | b'\n' => return self.end_line(byte),
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
}
