//! The value at a location, byte by byte or by its fingerprint first.

use super::super::{
    candidate::{Next, specials},
    digest::Domain,
    filter::{Filter, GROUP},
    rules::Rules,
    swar,
};
use super::{Chunk, Mode, Scan, Source, WIDEST_WORDS};

impl Scan {
    /// The source can hold no more bytes behind `pos`: what is read must be digested as it comes.
    #[inline(always)]
    pub fn stop_glancing(&mut self) {
        self.value.require_digest();
        self.glanced = 0;
        self.mode = Mode::Value;
    }

    #[inline(always)]
    pub(super) fn value_unit<S: Source + ?Sized>(
        &mut self,
        rules: &Rules,
        source: &S,
        glance: bool,
    ) {
        let left = self.end(source) - self.pos;
        let mut word = source.chunk(self.pos).word(0);
        let mut bytes = 8;
        if word as u8 == b' ' && left > 1 && self.value.is_empty() && !self.value.is_query() {
            // The space behind the colon: not worth a unit.
            word >>= 8;
            bytes = 7;
            self.pos += 1;
        }
        let left = self.end(source) - self.pos;
        let parted = !self.value.is_header();
        let words = self.value.takes_words();
        let stop = swar::first(specials(word, u64::from(parted).wrapping_neg()));
        if stop >= bytes && glance && self.value.may_glance() {
            return self.begin_glance(rules);
        }
        let n = swar::least(swar::least(stop, bytes), left);
        // One byte at a time where there is a second reading.
        let n = if words { n } else { 0 };
        self.value.plain(word, n);
        self.pos += n;
        if n < swar::least(bytes, left) {
            swar::forget_registers();
            self.value_byte(rules, word.wrapping_shr(n * 8) as u8);
        }
    }

    #[inline(always)]
    fn begin_glance(&mut self, rules: &Rules) {
        self.mode = Mode::Glance;
        self.glanced = 0;
        self.dots = 0;
        self.passed = 0;
        self.fingerprint = rules.fingerprint.start();
    }

    /// Sees whether a candidate begins behind what a unit took of a value, so that the next unit glances at it.
    #[inline(always)]
    pub(super) fn begin_next_glance<S: Source + ?Sized>(
        &mut self,
        rules: &Rules,
        source: &S,
        glance: bool,
    ) {
        let free = !self.value.has_pending() && self.value.may_glance();
        if !glance || !free || self.mode as u32 != Mode::Value as u32 {
            return;
        }
        let word = source.chunk(self.pos).word(0);
        let cookie = u64::from(self.value.is_cookie()).wrapping_neg();
        if specials(word, cookie) == 0 && self.pos + 8 <= self.end(source) {
            self.begin_glance(rules);
        }
    }

    /// Takes the fingerprint of the candidate that begins at the position, a piece at a time.
    #[inline(always)]
    pub(super) fn glance_unit<S: Source + ?Sized, F: Filter>(
        &mut self,
        rules: &Rules,
        source: &S,
        filter: &F,
    ) {
        let left = self.end(source) - self.pos;
        let chunk = source.chunk(self.pos + self.glanced);
        let parted = !self.value.is_header();
        let mut lanes = self.fingerprint;
        let mut at = 0;
        while at < WIDEST_WORDS {
            let (a, b, c, d) = chunk.words(at);
            let marks =
                swar::not_token(a) | swar::not_token(b) | swar::not_token(c) | swar::not_token(d);
            if marks != 0 || parted && ends_part(&chunk, at) != 0 {
                break;
            }
            rules.fingerprint.absorb(&mut lanes, (a, b, c, d));
            // Unrolled it needs more stack than there is ("combined stack size of 2 calls is ... Too large").
            at = swar::opaque(at + 4);
        }
        self.fingerprint = lanes;
        self.glanced += at * 8;
        swar::forget_registers();
        if at < WIDEST_WORDS {
            self.glance_group(rules, source, left, filter);
        } else if self.glanced >= left {
            self.stop_glancing();
        }
    }

    /// Looks for the first special byte of a group which may hold one.
    #[inline(always)]
    fn glance_group<S: Source + ?Sized, F: Filter>(
        &mut self,
        rules: &Rules,
        source: &S,
        left: u32,
        filter: &F,
    ) {
        let chunk = source.chunk(self.pos + self.glanced);
        let parted = u64::from(!self.value.is_header()).wrapping_neg();
        let passed = self.passed;
        let before = |index, stop| {
            // One word after the other: together they need more stack than there is.
            swar::forget_registers();
            let seen = swar::keep(u64::MAX, swar::part(passed, index));
            swar::before(
                swar::first(specials(chunk.word(index), parted) & !seen),
                stop,
            )
        };
        let stop = before(0, before(1, before(2, before(3, 0))));
        if stop < GROUP {
            return self.glance_stop(rules, source, left, stop, filter);
        }
        self.passed = 0;
        let mut lanes = self.fingerprint;
        rules.fingerprint.absorb(&mut lanes, chunk.words(0));
        self.fingerprint = lanes;
        self.glanced += GROUP;
        if self.glanced >= left {
            self.stop_glancing();
        }
    }

    /// Handles the first special byte that a glance met, `stop` bytes behind the first of the group.
    #[inline(always)]
    fn glance_stop<S: Source + ?Sized, F: Filter>(
        &mut self,
        rules: &Rules,
        source: &S,
        left: u32,
        stop: u32,
        filter: &F,
    ) {
        swar::forget_registers();
        let words = source.chunk(self.pos + self.glanced).words(0);
        let len = self.glanced + stop;
        let byte = source.chunk(self.pos + len).word(0) as u8;
        self.passed = stop + 1;
        let end = byte <= b' ' || byte == b'"' || self.value.is_separator(byte);
        if len < left && !end {
            match byte {
                b'.' if self.dots == 1 => self.dots = 2,
                b'.' => {
                    self.dots |= 1;
                    return;
                }
                // A byte like any other.
                b'+' if !self.value.is_query() => return,
                _ if self.value.is_header() && byte < 0x80 => return,
                // An escape, or a byte that ends the candidate at some servers only.
                _ => return self.stop_glancing(),
            }
        }
        let domain = if end { Domain::Exact } else { Domain::Jws };
        let seen = rules
            .fingerprint
            .finish(self.fingerprint, words, stop, u64::from(len), domain);
        if len >= left || filter.may_hold(seen) {
            self.stop_glancing();
        } else if end {
            self.value.rule_out();
            self.pos += len;
            self.glanced = 0;
            self.mode = Mode::Value;
        }
    }

    #[inline(always)]
    fn value_byte(&mut self, rules: &Rules, byte: u8) {
        let next = self.value.byte(rules, byte);
        if byte == b'\r' || byte == b'\n' {
            if matches!(next, Next::Name) {
                self.enter_cookie(rules);
            } else if matches!(next, Next::Line | Next::Skip) {
                self.mode = Mode::Skip;
            }
            self.end_line(byte);
            return;
        }
        self.pos += 1;
        match next {
            Next::Value => {}
            Next::Name => self.enter_next_name(rules),
            Next::Skip if self.value.is_query() => self.end_query_part(),
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
}

/// Not zero where the group of word `index` holds a byte that ends a cookie or a parameter, or begins an escape.
#[inline(always)]
fn ends_part<C: Chunk>(chunk: &C, index: u32) -> u64 {
    let mut marks = 0;
    let mut i = index;
    while i < index + GROUP / 8 {
        swar::forget_registers();
        let word = chunk.word(i);
        marks |= swar::equal(word, b';') | swar::equal(word, b'\\');
        i += 1;
    }
    marks
}
