//! Second copies of what was passed.
//!
//! What was passed may be missing at the receiver all the same: it refused it as too old, or had no room. Where losses are
//! about, it is remembered of each segment how it was read and how it left the scanner. A second copy of the same bounds
//! that is read from the same state, and leaves the same, may take the place of the first: whichever of them the receiver
//! has, it was judged in its place, and so was what follows.

use super::{
    super::{framing::Framing, rules::Rules},
    Flow, Gap, Left, Place, before,
    record::{HELD_STARTS, LOSSY, NOTED, STARTS, UNREAD},
    scans::OF_BEHIND,
};

/// How a segment was read that was passed, and how it left the scanner.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Passed {
    /// Behind its last byte.
    pub to: u32,
    /// What it was; [`Place::Settled`] where none was passed.
    pub place: Place,
    /// Whether a message might begin with it; what the scans saw.
    pub(super) starts: u32,
    signs: u32,
    /// How it was left, and the signature of the state where that is needed.
    left: Left,
    reserved: u32,
    signature: u64,
    /// A digest of the first bytes, where it was passed ahead of a gap: what fills that may be read on in them.
    first: u64,
    /// What was known of the message at its start, and behind it.
    at_framing: Framing,
    at_body: u64,
    framing: Framing,
    body: u64,
}

impl Passed {
    /// None.
    pub const NONE: Self = Self {
        to: 0,
        place: Place::Settled,
        starts: 0,
        signs: 0,
        left: Left::Closed,
        reserved: 0,
        signature: 0,
        first: 0,
        at_framing: Framing::NONE,
        at_body: 0,
        framing: Framing::NONE,
        body: 0,
    };

    /// Whether a segment was passed from here.
    #[inline(always)]
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.place as u32 != Place::Settled as u32
    }

    /// Takes a copy of another's.
    #[inline(always)]
    pub(super) fn copy(&mut self, from: &Self) {
        tokenblock_passed_copy(self, from);
    }
}

impl Flow {
    /// Something of the flow was lost or late: what passes from now on is remembered.
    #[inline(always)]
    pub(super) fn expect_losses(&mut self) {
        self.flags |= LOSSY;
    }

    /// Before the scans of a segment from `start` on: how it is to be read, and whether that is to be remembered.
    #[inline(always)]
    pub(super) fn open_repeat(&mut self, place: Place, start: u32, gap: &Gap) {
        let repeats = place as u32 == Place::Repeat as u32;
        let next = place as u32 == Place::Next as u32;
        let filler = place as u32 == Place::Filler as u32;
        self.next_read = if repeats { gap.passed.place } else { place };
        if next {
            self.next_gap = self.left;
        } else if place.is_early() {
            self.next_gap = Left::Closed;
        }
        let held = filler && self.holds(start) && self.flags & HELD_STARTS != 0;
        self.next_starts = if repeats {
            gap.passed.starts
        } else {
            u32::from(next && self.flags & STARTS != 0 || held)
        };
        let whole = next && start == self.tip && self.flags & UNREAD == 0;
        self.remembers = u32::from(whole || filler || place.is_early());
        if repeats {
            self.knows_framing = 1;
            self.at_framing = gap.passed.at_framing;
            self.at_body = gap.passed.at_body;
        }
    }

    /// Keeps a digest of the first bytes of the segment under judgement, which are those of `gap`.
    #[inline(always)]
    pub fn digest_first(&mut self, gap: &Gap, rules: &Rules) {
        self.next_first = gap.behind.digest(rules, self.salt);
    }

    /// Whether the segment under judgement leaves the flow as the one did that was passed before.
    #[inline(always)]
    pub(super) fn is_same(&self, passed: &Passed) -> bool {
        let left = self.next_left;
        let state = left as u32 == passed.left as u32
            && (left.is_light() || self.signature_of_next() == passed.signature);
        let message = self.next_framing.is_as(passed.framing) && self.next_body == passed.body;
        let signs = (self.next_signs ^ passed.signs) & !OF_BEHIND == 0;
        let first = !passed.place.is_early() || self.next_first == passed.first;
        state && message && signs && first
    }

    /// Whether the segment `start..end`, which was passed, is to be noted under its start; then `gap` becomes what is noted.
    #[inline(always)]
    pub fn remember(&mut self, start: u32, end: u32, gap: &mut Gap) -> bool {
        // Flows without losses need no call.
        self.flags & LOSSY != 0 && tokenblock_remember(self, gap, start, end) != 0
    }

    fn remember_here(&mut self, start: u32, end: u32, gap: &mut Gap) -> bool {
        if self.remembers == 0 {
            return false;
        }
        if self.knows_settled != 0 && !before(self.settled, end) {
            return false;
        }
        self.flags |= NOTED;
        gap.right = start;
        gap.left = self.next_gap;
        gap.plain = 0;
        let passed = &mut gap.passed;
        passed.to = end;
        passed.place = self.next_place;
        passed.starts = self.next_starts;
        passed.signs = self.next_signs;
        passed.left = self.next_left;
        passed.signature = 0;
        passed.first = self.next_first;
        passed.at_framing = self.at_framing;
        passed.at_body = self.at_body;
        passed.framing = self.next_framing;
        passed.body = self.next_body;
        if !self.next_left.is_light() {
            passed.signature = self.signature_of_next();
        }
        true
    }
}

/// [`Flow::remember`], under a name that other objects could call, since such a function the verifier walks through once.
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
extern "C" fn tokenblock_remember(flow: *mut Flow, gap: *mut Gap, start: u32, end: u32) -> u64 {
    // SAFETY: `Flow::remember` passes references; the verifier sees to the rest.
    let (Some(flow), Some(gap)) = (unsafe { (flow.as_mut(), gap.as_mut()) }) else {
        return 0;
    };
    u64::from(flow.remember_here(start, end, gap))
}

/// [`Passed::copy`], likewise. Gives 0, for it wants a value.
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
extern "C" fn tokenblock_passed_copy(to: *mut Passed, from: *const Passed) -> u64 {
    // SAFETY: as above.
    if let (Some(to), Some(from)) = unsafe { (to.as_mut(), from.as_ref()) } {
        *to = *from;
    }
    0
}
