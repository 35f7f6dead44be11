//! Header blocks as usual requests have them: the states at their beginning and at their end.

use super::super::{
    framing::Framing,
    location::NameHash,
    rules::{NO_LOCATION, Rules},
    sums::MOST_PART,
    swar,
};
use super::{BLANK, Chunk, FIELD, NO_END, SIGN, Scan, Source, WORD, whole::usual_name};

/// Where the value of the line at `at` begins and ends, of a header block; both are the same where it may be read, or is very
/// long. Of any other none of the bytes but a line end means anything. `None` where the line is empty or does not end as usual.
#[inline(always)]
#[must_use]
pub fn unread_value<S: Source + ?Sized>(source: &S, at: u32, rules: &Rules) -> Option<[u32; 2]> {
    let end = source.line_end(at, source.end());
    let ends = source.chunk(end).word(0) as u16 == u16::from_le_bytes(*b"\r\n");
    if end == at || !ends || end + 2 > source.end() {
        return None;
    }
    swar::forget_registers();
    let (first, len, is_usual) = usual_name(&source.chunk(at));
    let begin = at + len + 1;
    let is_long = end.wrapping_sub(begin) > MOST_PART;
    if !is_usual
        || len == 0
        || is_long
        || rules.may_know(first, len) && is_known(source, at, len, rules)
    {
        return Some([end, end]);
    }
    Some([begin, end])
}

/// Whether the name of `len` bytes at `at`, as [`usual_name`] has it, is known to the rules, and not only one of its length.
#[inline(always)]
fn is_known<S: Source + ?Sized>(source: &S, at: u32, len: u32, rules: &Rules) -> bool {
    let chunk = source.chunk(at);
    let words = [chunk.word(0), chunk.word(1), chunk.word(2)];
    let hash = NameHash::of_words(rules.name_seed, words, len / 8, len & 7);
    rules.find(hash) != NO_LOCATION
}

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
