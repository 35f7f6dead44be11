//! Header blocks as usual requests have them: the states at their beginning and at their end.

use super::super::framing::Framing;
use super::{BLANK, FIELD, NO_END, SIGN, Scan, WORD};

impl Scan {
    /// Whether a line begins at the position that continues none, in no body, and no other message is read beside it.
    #[inline(always)]
    fn is_bare(&self) -> bool {
        let odd = (self.body_end ^ NO_END)
            | self.fork_at
            | self.fork_again_at
            | self.also
            | self.in_query
            | self.glanced;
        odd == 0 && self.is_plain_line() && !self.value.has_pending() && !self.value.has_undecoded()
    }

    /// Whether a message begins at the position, and nothing was read yet.
    #[inline(always)]
    #[must_use]
    pub fn begins_message(&self) -> bool {
        self.is_bare() && self.headers | self.pos == 0 && self.framing == Framing::NONE
    }

    /// Whether the header lines of a message begin at the position: behind a request line as usual, and nothing else.
    #[inline(always)]
    #[must_use]
    pub fn begins_block(&self) -> bool {
        self.is_bare()
            && self.headers & !FIELD == SIGN | WORD
            && self.framing == Framing::NONE.begin()
    }

    /// Whether a message without a body ended at the position: what it said is that it began, and that it is over.
    #[inline(always)]
    #[must_use]
    pub fn ended_block(&self) -> bool {
        self.is_bare()
            && self.headers & !FIELD == SIGN | WORD | BLANK
            && self.framing == Framing::NONE
            && self.may_end_chunks()
    }

    /// Where [`Scan::begins_block`]: header lines are what is most likely to come.
    #[inline(always)]
    pub fn begin_block(&mut self) {
        self.headers |= FIELD;
    }

    /// Where [`Scan::begins_block`]: goes to where it [`Scan::ended_block`], at `end`.
    #[inline(always)]
    pub fn end_block(&mut self, end: u32) {
        self.pos = end;
        self.headers = SIGN | WORD | BLANK;
        self.blank_at = self.base.wrapping_add(end);
        self.framing = Framing::NONE;
    }
}
