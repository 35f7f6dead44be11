//! Open states that are kept for who comes back to them.

use super::{
    super::scan::Scan,
    Flow, Gap, Place, before,
    record::{GAVE_UP, HELD_STARTS, HOLDS, LOSSY, RECOVERING, STARTS},
    scans::ENDS_BODY,
};

impl Flow {
    /// Whether a message may begin at the tip, though the state there is open.
    #[inline(always)]
    pub(super) fn set_starts(&mut self, starts: bool) {
        self.set_flag(STARTS, starts);
    }

    /// The same of the state that is held.
    #[inline(always)]
    fn set_held_starts(&mut self, starts: bool) {
        self.set_flag(HELD_STARTS, starts);
    }

    #[inline(always)]
    fn set_flag(&mut self, flag: u32, on: bool) {
        if on {
            self.flags |= flag;
        } else {
            self.flags &= !flag;
        }
    }

    #[inline(always)]
    pub(super) fn holds(&self, at: u32) -> bool {
        self.flags & HOLDS != 0 && self.held_at == at
    }

    /// Before the tip moves on from an open state: the receiver may turn out to stand there.
    #[inline(always)]
    pub(super) fn leave_tip(&mut self) {
        if self.left.is_light() || self.holds(self.tip) {
            return;
        }
        if self.can_hold() {
            self.held.copy(&self.state);
            self.held_at = self.tip;
            self.flags |= HOLDS;
            self.set_held_starts(self.flags & STARTS != 0);
        } else {
            self.give_up(self.tip);
        }
    }

    /// The segment under judgement leaves an open state at `end`, in front of what is missing or was passed before: the
    /// receiver may turn out to stand there.
    #[inline(always)]
    pub(super) fn hold_next(&mut self, end: u32) {
        tokenblock_hold_next(self, end);
    }

    fn hold_next_here(&mut self, end: u32) {
        if self.next_left.is_light() {
            return;
        }
        if self.can_hold() {
            self.held.copy(&self.next);
            self.held_at = end;
            self.flags |= HOLDS;
            self.set_held_starts(self.next_signs & ENDS_BODY != 0);
        } else {
            self.give_up(end);
        }
    }

    /// The open state at this place is kept no longer.
    #[inline(always)]
    fn give_up(&mut self, at: u32) {
        if self.flags & GAVE_UP == 0 {
            self.gave_up_from = at;
            self.gave_up_at = at;
            self.flags |= GAVE_UP;
        }
        if before(at, self.gave_up_from) {
            self.gave_up_from = at;
        }
        if before(self.gave_up_at, at) {
            self.gave_up_at = at;
        }
    }

    /// Whether the state at this place may be one that was given up.
    #[inline(always)]
    pub(super) fn gave_up(&self, at: u32) -> bool {
        let among = !before(at, self.gave_up_from) && !before(self.gave_up_at, at);
        self.flags & GAVE_UP != 0 && among && !self.holds(at)
    }

    /// Another state is about to be held.
    #[inline(always)]
    pub(super) fn give_up_held(&mut self) {
        if !self.can_hold() {
            self.give_up(self.held_at);
        }
        self.flags &= !HOLDS;
    }

    /// Whether nothing is held that is needed still.
    #[inline(always)]
    fn can_hold(&self) -> bool {
        self.flags & HOLDS == 0 || self.knows_settled != 0 && before(self.held_at, self.settled)
    }

    /// Where the open state stands that is to be kept by its place before the segment under judgement is passed; `None`
    /// where none is.
    #[inline(always)]
    #[must_use]
    pub fn keeps_state_at(&self) -> Option<u32> {
        let place = self.next_place as u32;
        let leaves =
            place == Place::Ahead as u32 || place == Place::Next as u32 && self.remembers != 0;
        let open = !self.left.is_light() && self.flags & LOSSY != 0;
        (leaves && open).then_some(self.tip)
    }

    /// The state at the tip.
    #[inline(always)]
    #[must_use]
    pub fn state(&self) -> &Scan {
        &self.state
    }

    /// The state behind the segment under judgement.
    #[inline(always)]
    #[must_use]
    pub fn next_state(&self) -> &Scan {
        &self.next
    }

    /// Whether the state at `start` that was kept by its place is needed, for what is noted there.
    #[inline(always)]
    #[must_use]
    pub fn wants_state(&self, start: u32, gap: &Gap) -> bool {
        // During a recovery that at its end is held, and stays so.
        let free = self.flags & RECOVERING == 0 || self.high_left.is_light();
        free && self.noted_under == start && !gap.left.is_light() && !self.holds(start)
    }

    /// Takes the state at `start`, which was kept by its place.
    #[inline(always)]
    pub fn take_state(&mut self, start: u32, state: &Scan, gap: &Gap) {
        self.give_up_held();
        self.held.copy(state);
        self.held_at = start;
        self.flags |= HOLDS;
        self.set_held_starts(gap.passed.starts != 0);
    }
}

/// [`Flow::hold_next`], under a name that other objects could call, since such a function the verifier walks through once.
/// Gives 0, for it wants a value.
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
extern "C" fn tokenblock_hold_next(flow: *mut Flow, end: u32) -> u64 {
    // SAFETY: `Flow::hold_next` passes a reference; the verifier sees to the rest.
    if let Some(flow) = unsafe { flow.as_mut() } {
        flow.hold_next_here(end);
    }
    0
}
