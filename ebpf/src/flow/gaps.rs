//! Which gaps are open, so that what lies in the middle of one passes.
//!
//! What is known of a gap stands in a map, under its left end. A segment that begins there is found by its own start;
//! for any other the gap has to be known by its bounds. The flow keeps those of a few. What does not fit is filled from
//! its left end only.

use super::{
    super::swar::{is_zero, opaque},
    Flow, before,
    place::BULK,
    record::{DECLARED, GAPS, HOLED, MISSES_GAP, NOISY, UNREAD},
};

/// Gaps that are kept.
pub(super) const OPEN_GAPS: usize = 15;
/// At none of them.
const NOWHERE: u32 = OPEN_GAPS as u32;

/// Of a segment: one of the holes begins inside it.
pub(super) const CROSSES: u32 = 1;
/// One of them begins where it ends.
pub(super) const ENDS_AT: u32 = 2;

/// The bounds of a gap: of the first byte that is missing, and of the first behind it. Nothing is missing where they are
/// one.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct OpenGap {
    left: u32,
    right: u32,
}

impl OpenGap {
    /// None.
    pub(super) const NONE: Self = Self { left: 0, right: 0 };
}

impl Flow {
    /// Under which sequence number that stands which is noted for the segment `start..end`: `start`, or the left end of the
    /// gap in whose middle it lies.
    #[inline(always)]
    pub fn noted_under(&mut self, start: u32, end: u32) -> u32 {
        tokenblock_noted_under(self, start, end) as u32
    }

    fn noted_under_here(&mut self, start: u32, end: u32) -> u32 {
        let mut under = start;
        if self.open_epoch == self.epoch {
            let mut n = 0;
            // Without branches: the verifier walks each way through each round.
            while n < OPEN_GAPS {
                let gap = self.open[n];
                let begins_before = gap.left.wrapping_sub(start) as i32 >> 31;
                let ends_before = gap.right.wrapping_sub(end) as i32 >> 31;
                // One that is over would hold what lies half the sequence space away.
                let missing = is_zero(gap.left ^ gap.right).wrapping_sub(1);
                let mask = (begins_before & !ends_before) as u32 & missing;
                under = under & !mask | gap.left & mask;
                n += 1;
            }
        }
        self.noted_under = under;
        under
    }

    /// Whether what begins at `start` and lies in the middle of a gap may pass, as what is ahead of one does. When the gap
    /// was noted all of it belonged to a body, and a recovery forgets it.
    #[inline(always)]
    pub(super) fn takes_inside(&self, start: u32) -> bool {
        let missing = self.knows_settled == 0 || !before(start, self.settled);
        // As ahead of a gap, but where lines of a declared body look like headers.
        let bulk = self.flags & DECLARED == 0 && self.quiet >= BULK;
        missing && self.flags & UNREAD == 0 && (self.flags & NOISY == 0 || bulk)
    }

    /// The gap that began at `from` is now that from `left` to `right`. One that is not known yet takes the place of one that
    /// is over.
    #[inline(always)]
    pub(super) fn note_open(&mut self, from: u32, left: u32, right: u32) {
        tokenblock_note_open(self, from, left, right);
    }

    fn note_open_here(&mut self, from: u32, left: u32, right: u32) {
        let fresh = is_zero(self.open_epoch ^ self.epoch);
        self.open_epoch = self.epoch;
        let (mut spare, mut same) = (NOWHERE, NOWHERE);
        let mut n = 0;
        // Bits are multiplied: where one masks a constant, the verifier walks both ways. Round by round: all of them in line hold
        // more on the stack than there is room for.
        while n < OPEN_GAPS as u32
            && let Some(gap) = self.open.get_mut(n as usize)
        {
            // Those of another epoch are none.
            let missing = gap.right.wrapping_sub(gap.left).wrapping_mul(fresh);
            gap.right = gap.left.wrapping_add(missing);
            let empty = is_zero(missing);
            let known = is_zero(gap.left ^ from) & (1 ^ empty);
            spare = spare.wrapping_add(empty.wrapping_mul(n.wrapping_sub(spare)));
            same = same.wrapping_add(known.wrapping_mul(n.wrapping_sub(same)));
            n = opaque(n + 1);
        }
        let neither = is_zero(same ^ NOWHERE);
        let at = same.wrapping_add(neither.wrapping_mul(spare.wrapping_sub(same)));
        if let Some(gap) = self.open.get_mut(at as usize) {
            *gap = OpenGap { left, right };
        } else {
            self.flags |= MISSES_GAP;
        }
    }

    /// A recovery begins: of the gaps that are open nothing is known any more but where they were.
    #[inline(always)]
    pub(super) fn leave_holes(&mut self) {
        let known = self.open_epoch == self.epoch;
        self.flags &= !HOLED;
        if self.flags & GAPS != 0 && known || self.flags & MISSES_GAP != 0 {
            self.flags |= HOLED;
        }
    }

    /// What the segment `from..to` has of the holes in what was passed before a recovery: [`CROSSES`], [`ENDS_AT`].
    #[inline(always)]
    pub(super) fn holes(&self, from: u32, to: u32) -> u32 {
        if self.flags & HOLED == 0 {
            0
        } else if self.flags & MISSES_GAP != 0 {
            CROSSES | ENDS_AT
        } else {
            tokenblock_holes(self, from, to) as u32
        }
    }

    fn holes_here(&self, from: u32, to: u32) -> u32 {
        let (mut holes, mut n) = (0, 0);
        // Without branches, as in `noted_under_here`.
        while n < OPEN_GAPS {
            let OpenGap { left, right } = self.open[n];
            let missing = is_zero(left ^ right) ^ 1;
            let behind = (from.wrapping_sub(left) as i32 >> 31) as u32;
            let before = (left.wrapping_sub(to) as i32 >> 31) as u32;
            let ends_at = is_zero(left ^ to) * ENDS_AT;
            holes |= (behind & before & CROSSES | ends_at) * missing;
            n += 1;
        }
        holes
    }
}

/// [`Flow::noted_under`], under a name that other objects could call, since such a function the verifier walks through
/// once.
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
extern "C" fn tokenblock_noted_under(flow: *mut Flow, start: u32, end: u32) -> u64 {
    // SAFETY: `Flow::noted_under` passes a reference; the verifier sees to the rest.
    let Some(flow) = (unsafe { flow.as_mut() }) else {
        return u64::from(start);
    };
    u64::from(flow.noted_under_here(start, end))
}

/// [`Flow::holes`], likewise.
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
extern "C" fn tokenblock_holes(flow: *const Flow, from: u32, to: u32) -> u64 {
    // SAFETY: `Flow::holes` passes a reference; the verifier sees to the rest.
    let flow = unsafe { flow.as_ref() };
    u64::from(flow.map_or(0, |flow| flow.holes_here(from, to)))
}

/// [`Flow::note_open`], likewise. Gives 0, for it wants a value.
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
extern "C" fn tokenblock_note_open(flow: *mut Flow, from: u32, left: u32, right: u32) -> u64 {
    // SAFETY: `Flow::note_open` passes a reference; the verifier sees to the rest.
    if let Some(flow) = unsafe { flow.as_mut() } {
        flow.note_open_here(from, left, right);
    }
    0
}
