//! From which states the last segments were read on.

use super::{
    super::swar::is_zero,
    Flow, Left,
    place::WINDOW,
    record::{STARTS, UNREAD},
    scans::{ENDS_BODY, STILL_UNREAD},
};

/// Ends of segments that are remembered; a power of two.
pub(super) const ENDS: usize = 32;

/// Where a segment ended.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Boundary {
    pub(super) at: u32,
    /// From which state what was passed behind it was read: [`AHEAD`], or as [`Flow::next_from`] has it.
    pub(super) from: u32,
}

/// As the start of a line and as a target, which is from all light states.
pub(super) const AHEAD: u32 = u32::MAX;
/// From an open state, of which the rest is a part of its signature; not [`AHEAD`].
const OPEN_STATE: u32 = 1 << 31;
/// Beside a light state: what was passed since leaves this place in its middle.
const COVERED: u32 = 1 << 8;
/// From none of them.
const UNKNOWN: u32 = OPEN_STATE - 1;

impl Flow {
    /// How the segment under judgement leaves the scanner, in a word; beside that [`ENDS_BODY`], where what follows is read as
    /// a message too.
    #[inline(always)]
    pub(super) fn next_from(&self) -> u32 {
        let left = self.next_left;
        let from = if left.is_light() {
            if self.next_signs & STILL_UNREAD != 0 {
                return AHEAD;
            }
            left as u32
        } else {
            (self.signature_of_next() as u32 | OPEN_STATE) & !1
        };
        from & !ENDS_BODY | self.next_signs & ENDS_BODY
    }

    /// A segment is passed: where all before it is settled nobody comes back to where others ended, but to where it begins.
    #[inline(always)]
    pub(super) fn forget_ends(&mut self) {
        if self.knows_settled != 0 && self.settled == self.tip {
            self.ends = 0;
            if self.left.is_light() && self.flags & UNREAD == 0 {
                let starts = if self.flags & STARTS != 0 {
                    ENDS_BODY
                } else {
                    0
                };
                self.note_end(self.tip, self.left as u32 | starts);
            }
        }
    }

    /// A segment is passed: where others ended is forgotten long before its sequence number comes round. All that was noted before the
    /// last one stands less than a window in front of what was settled then.
    #[inline(always)]
    pub(super) fn forget_far_ends(&mut self) {
        let last = self.ends.wrapping_sub(1) as usize & (ENDS - 1);
        if let Some(end) = self.ended.get(last)
            && self.knows_settled != 0
            && self.settled.wrapping_sub(end.at) as i32 >= WINDOW as i32
        {
            self.ends = 0;
        }
    }

    /// Whether one more end can be remembered without forgetting another.
    #[inline(always)]
    pub(super) fn has_room(&self) -> bool {
        (self.ends as usize) < ENDS
    }

    /// A segment is passed in the place of others: where those ended between `from` and `to` another state may be now.
    #[inline(always)]
    pub(super) fn cover_ends(&mut self, from: u32, to: u32) {
        tokenblock_cover_ends(self, from, to);
    }

    fn cover_ends_here(&mut self, from: u32, to: u32) {
        let mut n = 0;
        // Without branches, as in [`Flow::noted_at`].
        while n < ENDS {
            let end = &mut self.ended[n];
            let behind = from.wrapping_sub(end.at) as i32 >> 31;
            let before = end.at.wrapping_sub(to) as i32 >> 31;
            let light = is_zero(end.from / COVERED);
            end.from |= (COVERED * light) & (behind & before) as u32;
            n += 1;
        }
    }

    /// A segment ended at `at`; what is behind it is read from there.
    pub(super) fn note_end(&mut self, at: u32, from: u32) {
        if let Some(end) = self.ended.get_mut(self.ends as usize & (ENDS - 1)) {
            *end = Boundary { at, from };
            self.ends += 1;
            if self.ends as usize == 2 * ENDS {
                self.ends = ENDS as u32;
            }
        }
    }

    /// Whether what was passed behind `at` was read as it is where the state there is `left`. From `Closed` nothing of it
    /// belongs to what is in front.
    pub(super) fn is_read_from(&self, at: u32, left: Left) -> bool {
        if left as u32 == Left::Closed as u32 {
            return true;
        }
        let read_from = self.was_read_from(at);
        read_from == self.next_from() || read_from == AHEAD && left.is_light()
    }

    /// Whether what ended at `at` left the scanner as the segment under judgement does.
    pub(super) fn was_left_so(&self, at: u32) -> bool {
        self.was_read_from(at) == self.next_from()
    }

    /// Whether what was passed behind `at` was read from an open state, or it is not remembered from which.
    #[inline(always)]
    pub(super) fn may_be_open(&self, at: u32) -> bool {
        self.was_read_from(at) & !ENDS_BODY >= Left::Open as u32
    }

    /// As [`Flow::noted_at`], of places that are covered too.
    #[inline(always)]
    fn was_read_from(&self, at: u32) -> u32 {
        let from = self.noted_at(at);
        if from & OPEN_STATE == 0 {
            from & !COVERED
        } else {
            from
        }
    }

    /// The segment under judgement is read as what was passed behind `at`, where it is known how the state was left there, and
    /// that is not open.
    pub(super) fn read_from_noted(&mut self, at: u32) {
        let from = self.noted_at(at);
        let left = from & !ENDS_BODY;
        if left < Left::Open as u32 {
            self.next_gap = Left::numbered(left + 1);
            self.next_starts = from & ENDS_BODY;
        } else {
            self.next_gap = Left::Open;
            self.next_starts = 0;
        }
    }

    /// From which state what was passed behind `at` was read; [`UNKNOWN`] where that is not remembered.
    #[inline(always)]
    fn noted_at(&self, at: u32) -> u32 {
        tokenblock_noted_at(self, at) as u32
    }

    fn noted_at_here(&self, at: u32) -> u32 {
        let mut read_from = UNKNOWN;
        let mut back = ENDS as u32;
        // What was noted last of a place counts. Without branches: the verifier walks each way through each round.
        while back > 0 {
            let n = self.ends.wrapping_sub(back) as usize & (ENDS - 1);
            let end = self
                .ended
                .get(n)
                .copied()
                .unwrap_or(Boundary { at: 0, from: 0 });
            let noted = (back.wrapping_sub(self.ends).wrapping_sub(1) as i32 >> 31) as u32;
            let mask = is_zero(end.at ^ at).wrapping_neg() & noted;
            read_from = read_from & !mask | end.from & mask;
            back -= 1;
        }
        read_from
    }
}

/// [`Flow::cover_ends`], under a name that other objects could call, since such a function the verifier walks through once.
/// Gives 0, for it wants a value.
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
extern "C" fn tokenblock_cover_ends(flow: *mut Flow, from: u32, to: u32) -> u64 {
    // SAFETY: `Flow::cover_ends` passes a reference; the verifier sees to the rest.
    if let Some(flow) = unsafe { flow.as_mut() } {
        flow.cover_ends_here(from, to);
    }
    0
}

/// [`Flow::noted_at`], likewise.
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
extern "C" fn tokenblock_noted_at(flow: *const Flow, at: u32) -> u64 {
    // SAFETY: `Flow::noted_at` passes a reference; the verifier sees to the rest.
    let flow = unsafe { flow.as_ref() };
    u64::from(flow.map_or(UNKNOWN, |flow| flow.noted_at_here(at)))
}
