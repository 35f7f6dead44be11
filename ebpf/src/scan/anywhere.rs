//! Parameters of a query, read anywhere beside the lines, once messages may end unseen.

use super::super::{
    rules::{NO_LOCATION, Rules},
    swar,
};
use super::{ANYWHERE, BOTH, Chunk, Mode, Scan, Source, WIDEST, WIDEST_WORDS};

/// `also` of a state that is kept: a reading by lines, beside which a parameter may begin.
const BEGINS: u32 = 9;

impl Scan {
    /// Goes on by lines from a state that was resumed.
    #[inline(always)]
    pub fn read_lines(&mut self) {
        self.also = 0;
    }

    /// Goes on with parameters that begin anywhere, whatever the lines say: what is read is the query of a request, should
    /// one begin within a line.
    #[inline(always)]
    pub fn read_anywhere(&mut self) {
        self.also = ANYWHERE;
        // White space ends a part of the query, and not the query.
        self.fold = Mode::Target;
    }

    /// Keeps this state of a reading anywhere beside one by lines that is as `line` (1 to 7) says.
    #[inline(always)]
    pub fn keep_beside(&mut self, line: u32) {
        self.also = line;
    }

    /// What [`Scan::keep_beside`] was told; 0 where the state is one of a reading by lines.
    #[inline(always)]
    #[must_use]
    pub fn beside(&self) -> u32 {
        if self.also < BOTH { self.also } else { 0 }
    }

    /// Whether a parameter may begin beside this reading by lines, that is kept.
    #[inline(always)]
    #[must_use]
    pub fn begins_beside(&self) -> bool {
        self.also == BEGINS
    }

    /// Begins a reading of parameters anywhere where the state `kept` was kept, which is resumed where it is one of such.
    #[inline(always)]
    pub fn resume_anywhere(&mut self, kept: &Self, rules: &Rules, salt: u64) {
        if kept.also == 0 {
            self.restart();
        } else if kept.also == BEGINS {
            self.restart();
            self.enter_query(rules);
        } else {
            self.resume(kept);
            self.seal(rules, salt);
        }
    }

    /// Notes this reading anywhere in `line`, the state of the reading by lines that is kept, with this signature; false
    /// where it needs a state of its own.
    #[inline(always)]
    pub fn join(&mut self, line: &mut Self, signature: u64) -> bool {
        self.also = 0;
        self.fold = line.fold;
        self.after_cr = line.after_cr;
        self.name_ended = line.name_ended;
        let begins = self.is_query_name() && self.name.is_empty();
        if self.signature() == signature {
            line.also = BOTH;
        } else if begins {
            line.also = BEGINS;
        } else {
            return false;
        }
        true
    }

    /// Whether a reading anywhere stands in no parameter that is a location's.
    #[inline(always)]
    #[must_use]
    pub fn left_parameter(&self, rules: &Rules) -> bool {
        let ends =
            self.is_query_name() && !self.name.is_empty() && !rules.may_begin(self.name.finish());
        ends || !matches!(self.mode, Mode::QueryName | Mode::Value)
    }

    /// Whether the name of a parameter is read, and nothing of it waits for what comes.
    #[inline(always)]
    fn is_query_name(&self) -> bool {
        self.mode as u32 == Mode::QueryName as u32
            && self.escape == 0
            && self.array == u32::from(NO_LOCATION)
    }

    /// What the reading beside this one makes of the signature.
    #[inline(always)]
    #[must_use]
    pub fn signature_of_also(&self) -> u64 {
        u64::from(self.also) << 8
    }

    /// Whether parameters are looked for anywhere.
    #[inline(always)]
    #[must_use]
    pub fn is_anywhere(&self) -> bool {
        self.also & ANYWHERE != 0
    }

    /// Whether parameters are looked for anywhere, and none is being read.
    #[inline(always)]
    pub(super) fn is_between_parts(&self) -> bool {
        self.also != 0 && !matches!(self.mode, Mode::QueryName | Mode::Value | Mode::Glance)
    }

    /// Looks for the next place where a parameter may begin, in [`super::WIDEST`] bytes.
    #[inline(always)]
    pub fn find_part<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S) {
        let left = self.end(source).wrapping_sub(self.pos);
        let chunk = source.chunk(self.pos);
        self.mode = Mode::Target;
        self.fold = Mode::Target;
        self.after_cr = 0;
        let mut at = 0;
        while at < WIDEST_WORDS {
            let (a, b) = chunk.pair(at);
            let (a, b) = (begins_part(a), begins_part(b));
            if a | b != 0 {
                let stop = at * 8 + swar::before(swar::first(a), swar::first(b));
                if stop < left {
                    self.pos += stop + 1;
                    self.enter_query(rules);
                    return;
                }
                break;
            }
            // Not unrolled.
            at = swar::opaque(at + 2);
        }
        self.pos += swar::least(left, WIDEST);
    }
}

/// What a query or a part of it begins behind; marks behind the first one may be wrong.
#[inline(always)]
fn begins_part(word: u64) -> u64 {
    swar::first_equal(word, b'?') | swar::first_equal(word, b'&') | swar::first_equal(word, b';')
}
