//! What a segment is to its flow.

use super::{
    super::swar::forget_registers,
    Flow, Gap, before, guess,
    record::{
        ACCEPTED, AGAIN, CHUNKED, COPIES, DECLARED, DIFFERED, FRAMED, GAPS, GAVE_UP, HELD_STARTS,
        HOLDS, KNOWS_TIP, MISSES_GAP, MORE, NOISY, NOTED, ON_SYN, OPEN, PAUSED, PROVES, RECOVERING,
        TRUSTS, UNREAD,
    },
};

/// Bytes without a sign of a header after which data ahead of a gap is passed: it belongs to a body.
pub(super) const BULK: u32 = 16 * 1024;
/// Furthest from what is settled that a receiver's window can reach (RFC 7323 section 2.2).
pub(super) const WINDOW: u32 = 1 << 30;
/// More than the longest segment has.
const LONGEST: i32 = 1 << 20;
/// Nanoseconds after which the receiver has acknowledged all that it took: the longest delayed
/// acknowledgment of Linux (`TCP_DELACK_MAX`, 200 ms) and what its timers may be late, so that what is not settled was
/// lost behind the hook.
pub(super) const RECOVERY: i64 = 220_000_000;

/// Bits of those places that are asked for together, so that one instruction tells.
const EARLY: u32 = 32;
const FILLS: u32 = 64;
const SECOND: u32 = 128;

/// What a segment is to its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Place {
    /// The receiver has all of it: passed unread.
    Settled = 0,
    /// It begins where the last one ended.
    Next = 1,
    /// The first one that was seen of its flow; the scan does not know whether a line begins there.
    First = 2,
    /// Ahead of a gap inside a body, or of a head in front of one: passed, and the gap noted.
    Ahead = EARLY,
    /// It lies inside a gap, at its left end.
    Filler = FILLS,
    /// The receiver lost what was passed before; it begins where the receiver stands.
    Recovery = 3,
    /// Ahead of a gap while a header block may be open: dropped, TCP sends it again in order.
    TooEarly = 4,
    /// A second copy of bytes that were passed and are not settled: dropped.
    Duplicate = 5,
    /// Further away than any window, or of another connection: dropped, as the receiver would.
    OutOfWindow = 6,
    /// Older than what the receiver has taken: dropped, as the receiver would.
    Old = 7,
    /// A second copy of a segment that was passed, or of its beginning: passed where it leaves the flow as the first did, or
    /// the rest does.
    Repeat = SECOND,
    /// It lies inside a gap, and not at its left end: passed as what is ahead of one, and the gap is two.
    Inside = EARLY | FILLS,
}

impl Place {
    /// Whether it is read before what is in front of it was.
    #[inline(always)]
    #[must_use]
    pub const fn is_early(self) -> bool {
        self as u32 & EARLY != 0
    }

    /// Whether its first bytes count by themselves: what fills a gap in front of them may be read on in them.
    #[inline(always)]
    #[must_use]
    pub const fn shows_first(self) -> bool {
        self as u32 & (EARLY | SECOND) != 0
    }

    /// Whether it is judged by what is noted where it begins: a gap, or what was passed.
    #[inline(always)]
    pub(super) const fn is_of_noted(self) -> bool {
        self as u32 & (FILLS | SECOND) != 0
    }

    /// Whether it lies inside a gap.
    #[inline(always)]
    pub(super) const fn fills(self) -> bool {
        self as u32 & FILLS != 0
    }
}

impl Flow {
    /// Whether anything may be noted for the flow. Where the receiver has all that was passed there is nothing any more.
    #[inline(always)]
    #[must_use]
    pub fn has_gaps(&mut self) -> bool {
        if self.flags & (GAPS | NOTED | DIFFERED) == 0 {
            return false;
        }
        let closed = self.knows_settled != 0 && self.settled == self.tip;
        if closed {
            self.flags &= !(GAPS | NOTED | DIFFERED | MISSES_GAP | guess::ALL);
            self.epoch = self.epoch.wrapping_add(1);
        }
        !closed
    }

    /// Forgets what is noted for the flow.
    #[inline(always)]
    pub fn forget_gaps(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.flags |= MISSES_GAP;
    }

    /// Places the segment of the bytes `start..end` (sequence numbers) with a timestamp (0: none). `gap` is what is noted
    /// where [`Flow::noted_under`] says.
    #[inline(always)]
    pub fn place(
        &mut self,
        start: u32,
        end: u32,
        stamp: u32,
        now: u64,
        gap: Option<&Gap>,
    ) -> Place {
        let place = self.place_here(start, end, stamp, now, gap);
        if matches!(
            place,
            Place::TooEarly | Place::Duplicate | Place::Old | Place::Ahead
        ) {
            self.expect_losses();
        }
        place
    }

    #[inline(always)]
    fn place_here(
        &mut self,
        start: u32,
        end: u32,
        stamp: u32,
        now: u64,
        gap: Option<&Gap>,
    ) -> Place {
        if self.salt == 0 {
            self.salt = now | 1;
        }
        self.next_stamp = stamp;
        let knows_settled = self.knows_settled != 0;
        if self.knows_settled == ACCEPTED || self.over != OPEN {
            // No data is settled yet, or no more is: what stands before is of another connection.
            let behind = knows_settled && before(start, self.settled);
            if behind || !self.may_go_on(start) {
                return Place::OutOfWindow;
            }
        }
        if knows_settled && !before(self.settled, end) {
            return Place::Settled;
        }
        if knows_settled && self.flags & KNOWS_TIP != 0 && before(self.tip, self.settled) {
            self.catch_up();
        }
        let lost = now.wrapping_sub(self.passed_at) as i64 >= RECOVERY;
        if self.flags & ON_SYN != 0 && !knows_settled && !lost {
            // Nobody sends more before the server has said what it took of the data on the SYN (RFC 7413 section 4.2).
            return Place::TooEarly;
        }
        if self.is_old(lost) {
            return Place::Old;
        }
        if self.flags & KNOWS_TIP == 0 {
            return Place::First;
        }
        // Most flows have none of them, and what says where they are lies in a cache line apart.
        if knows_settled {
            self.settle_marks();
        }
        forget_registers();
        let knows_settled = self.knows_settled != 0;
        if knows_settled && before(self.tip, self.settled) {
            // Another hole in what was passed before a recovery.
            return if lost && start == self.settled {
                Place::Recovery
            } else {
                Place::Duplicate
            };
        }
        if start == self.tip {
            // The receiver may hold the first of what comes again here: of a copy that is longer it would read the end alone.
            let held = self.flags & RECOVERING != 0 && knows_settled && start != self.settled;
            return if held && before(self.high, end) {
                Place::Duplicate
            } else {
                Place::Next
            };
        }
        let distance = start.wrapping_sub(if knows_settled {
            self.settled
        } else {
            self.tip
        }) as i32;
        if !(-(WINDOW as i32)..WINDOW as i32).contains(&distance) {
            return Place::OutOfWindow;
        }
        if before(self.tip, start) {
            return if self.in_body(end) || self.may_guess() {
                Place::Ahead
            } else {
                Place::TooEarly
            };
        }
        if knows_settled && self.settled == self.tip {
            // Its first bytes are settled; the receiver reads on from the tip.
            return Place::Next;
        }
        let recovers = knows_settled && lost && !before(self.settled, start);
        let inside = self.noted_under != start;
        if gap.is_some() && inside && self.takes_inside(start) {
            return Place::Inside;
        }
        if let Some(gap) = gap
            && !inside
            && (gap.left.is_light() || self.holds(start))
        {
            if gap.passed.is_known() {
                let passes = self.flags & COPIES == 0 && !(recovers && self.flags & DIFFERED != 0);
                if passes && gap.passed.is_copied(end, recovers) {
                    if recovers {
                        // Unless it passes.
                        self.flags |= DIFFERED;
                    }
                    return Place::Repeat;
                }
            } else if !before(gap.right, end) {
                return Place::Filler;
            }
        }
        if recovers {
            return Place::Recovery;
        }
        Place::Duplicate
    }

    /// What the receiver has taken of states that were held or given up, and of changes of the framing, is over. It has to be gone before
    /// its sequence numbers come round.
    #[inline(always)]
    pub(super) fn settle_marks(&mut self) {
        if self.flags & (HOLDS | GAVE_UP | FRAMED | AGAIN | MORE) == 0 {
            return;
        }
        let behind = self.settled.wrapping_sub(self.held_at) as i32;
        // Of what is noted of a path that loses, something may begin there and end where it is not settled.
        let noted = self.flags & (GAPS | NOTED) != 0;
        if behind > if noted { LONGEST } else { 0 } {
            self.flags &= !HOLDS;
        }
        if before(self.gave_up_at, self.settled) {
            self.flags &= !GAVE_UP;
        }
        if !before(self.settled, self.framed_last()) {
            self.flags &= !(FRAMED | AGAIN | MORE);
        }
    }

    /// The receiver has taken more than was passed since a recovery: it held what was passed before. Or it took
    /// what was not seen here, and its stream is read from where it stands.
    #[inline(always)]
    fn catch_up(&mut self) {
        if self.flags & RECOVERING == 0 || before(self.high, self.settled) {
            self.flags &= !(KNOWS_TIP | RECOVERING | PROVES | TRUSTS | guess::ALL);
        } else if self.settled == self.high {
            self.flags &= !RECOVERING;
            self.tip = self.high;
            self.left = self.high_left;
            if !self.left.is_light() {
                self.state.copy(&self.held);
                self.set_starts(self.flags & HELD_STARTS != 0);
            }
        }
    }

    /// Whether all up to `end` belongs to a body. A length that was declared is believed, and so are chunks, but where
    /// they may be over; without either (a protocol upgrade) much that showed no sign of a header is taken for a body. A lie
    /// gains a reset.
    #[inline(always)]
    pub(super) fn in_body(&self, end: u32) -> bool {
        let ahead = u64::from(end.wrapping_sub(self.tip));
        self.flags & (RECOVERING | UNREAD) == 0 && self.over == OPEN && self.is_body(ahead)
    }

    #[inline(always)]
    fn is_body(&self, ahead: u64) -> bool {
        let in_chunks = self.flags & (CHUNKED | PAUSED | NOISY | DECLARED) == CHUNKED;
        ahead <= self.body && (self.flags & NOISY == 0 || self.quiet >= BULK)
            || in_chunks
            || self.flags & DECLARED == 0 && self.quiet >= BULK && self.left.is_light()
    }
}
