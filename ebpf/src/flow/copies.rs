//! Second copies that say what the first said.
//!
//! On its way out of a host a segment passes the programs before a path may lose it, and an honest sender sends the same
//! bytes again, in pieces of any number of those that the first copy was cut into. So it is noted of each of these pieces
//! what it says, by keyed sums: a copy that says the same in all of them is passed unread, wherever the receiver stands and
//! however the scanner was left. As long as such notes hold, nothing else passes in their place, so whichever copy of a piece a
//! receiver takes, it has the bytes that were judged.

use super::{
    super::sums::{MOST, Sums},
    Flow, before,
    record::{COPIED, COPIES, KNOWS_TIP, OPEN, PARTED},
};

/// Sequence numbers that the notes of one generation span: of those that come round none is left.
const SPAN: i32 = 1 << 30;

/// What is noted of a piece of what was passed, under its start.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Copied {
    /// Behind its last byte.
    end: u32,
    /// [`FIRST`], [`LAST`], and above them the generation of the list and the rules, by which it was judged.
    generation: u32,
    /// Of the flow: an older one of the same key has another.
    salt: u64,
    sums: Sums,
}

/// A segment that was passed begins with the piece.
const FIRST: u32 = 1;
/// One ends with it.
const LAST: u32 = 2;
/// Bits of both.
const EDGES: u32 = 2;

impl Copied {
    /// Bytes of the piece that begins at `at`, of which `len` may be left; 0 where it is none that counts in `flow` any more.
    #[inline(always)]
    #[must_use]
    pub fn len(&self, flow: &Flow, at: u32, left: u32, generation: u64) -> u32 {
        let len = self.end.wrapping_sub(at);
        let counts =
            self.salt == flow.salt && self.generation >> EDGES == generation_of(generation);
        if counts && len <= left && len <= MOST {
            len
        } else {
            0
        }
    }

    /// Whether it says what has these sums.
    #[inline(always)]
    #[must_use]
    pub const fn says(&self, sums: &Sums) -> bool {
        self.sums.is_as(sums)
    }
}

/// As much of a generation as is kept.
const fn generation_of(generation: u64) -> u32 {
    generation as u32 & u32::MAX >> EDGES
}

/// Cuts a segment into pieces.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Pieces {
    /// Where the segment begins, the next one begins, and the segment ends (sequence numbers).
    start: u32,
    at: u32,
    end: u32,
    /// Where the sender cuts it next, and in pieces of how many bytes.
    cut: u32,
    size: u32,
    /// Whether the pieces that it was compared with so far begin and end where segments did that were passed.
    edges: u32,
}

impl Pieces {
    /// Those of `start..end`, which is cut after each `size` bytes; 0: nowhere.
    #[inline(always)]
    #[must_use]
    pub const fn new(start: u32, end: u32, size: u32) -> Self {
        let size = if size == 0 {
            end.wrapping_sub(start)
        } else {
            size
        };
        Self {
            start,
            at: start,
            end,
            cut: start.wrapping_add(size),
            size,
            edges: 0,
        }
    }

    /// Where the next one begins.
    #[inline(always)]
    #[must_use]
    pub const fn at(&self) -> u32 {
        self.at
    }

    /// Bytes that are left.
    #[inline(always)]
    #[must_use]
    pub const fn left(&self) -> u32 {
        self.end.wrapping_sub(self.at)
    }

    /// Bytes of the next one; 0 where none is left.
    #[inline(always)]
    #[must_use]
    pub fn next_len(&self) -> u32 {
        let to_cut = self.cut.wrapping_sub(self.at);
        to_cut.min(self.left()).min(MOST)
    }

    /// So many bytes are done, which are those of this piece.
    #[inline(always)]
    pub fn compared(&mut self, copied: &Copied, len: u32) {
        let first = if self.at == self.start {
            copied.generation
        } else {
            self.edges
        };
        self.edges = first & FIRST | copied.generation & LAST;
        self.advance(len);
    }

    /// So many bytes are done.
    #[inline(always)]
    pub fn advance(&mut self, len: u32) {
        self.at = self.at.wrapping_add(len);
        if self.at == self.cut {
            self.cut = self.cut.wrapping_add(self.size);
        }
    }
}

impl Flow {
    /// What its sender sends may be lost behind the programs: it is to be noted of all that is passed. Copies pass by that alone, so
    /// that one of other bytes which leaves the scanner alike does not.
    #[inline(always)]
    pub fn expect_copies(&mut self) {
        self.flags |= COPIES;
    }

    /// Whether the segment from `start` on may be a copy of what is noted, under [`Flow::copies`].
    #[inline(always)]
    #[must_use]
    pub fn may_be_copy(&self, start: u32) -> bool {
        const KNOWN: u32 = COPIED | KNOWS_TIP;
        self.flags & KNOWN == KNOWN && self.over == OPEN && before(start, self.tip)
    }

    /// Part of the keys under which copies are noted.
    #[inline(always)]
    #[must_use]
    pub fn copies(&self) -> u32 {
        self.copies
    }

    /// A copy of these pieces is passed at `now`. A receiver that takes a part of what was passed may come to stand where it is not known
    /// how the scanner was left.
    #[inline(always)]
    pub fn pass_copy(&mut self, pieces: &Pieces, now: u64) {
        if pieces.edges != FIRST | LAST {
            self.flags |= PARTED;
        }
        if self.is_wanted(pieces.start) {
            self.passed_at = now;
        }
    }

    /// Whether the receiver may acknowledge a second copy from `start` on: to what is ahead of where it stands it answers at once, with what
    /// it has said before.
    #[inline(always)]
    pub(super) fn is_wanted(&self, start: u32) -> bool {
        self.knows_settled != 0 && !before(self.settled, start)
    }

    /// The segment `start..end` was passed, and is to be noted.
    #[inline(always)]
    pub fn begin_copies(&mut self, start: u32, end: u32) {
        let far = end.wrapping_sub(self.copied_from) as i32 >= SPAN;
        if self.flags & COPIED == 0 || far {
            self.forget_copies();
            self.copied_from = start;
            self.flags |= COPIED;
        }
    }

    /// What is noted of the next one of these pieces, which has these sums.
    #[inline(always)]
    #[must_use]
    pub fn copied(&self, pieces: &Pieces, sums: Sums, generation: u64) -> Copied {
        let end = pieces.at.wrapping_add(pieces.next_len());
        let first = u32::from(pieces.at == pieces.start) * FIRST;
        let last = u32::from(pieces.end == end) * LAST;
        Copied {
            end,
            generation: generation_of(generation) << EDGES | first | last,
            salt: self.salt,
            sums,
        }
    }

    /// Whether what begins where the receiver stands may be read anew, though it is not what was passed there: not where the receiver may
    /// hold parts of what was passed, or stands where none of that ended.
    #[inline(always)]
    pub(super) fn may_recover(&self) -> bool {
        let known = self.next_gap.is_light() || self.holds(self.settled);
        self.flags & COPIES == 0 || self.flags & PARTED == 0 && known
    }

    /// Something else may be passed in the place of what is noted.
    #[inline(always)]
    pub(super) fn forget_copies(&mut self) {
        self.copies = self.copies.wrapping_add(1);
    }
}
