//! Open states that are kept for who comes back to them.

use super::{
    Conflict, Flow, Left, before,
    record::{GAVE_UP, HELD_STARTS, HOLDS, STARTS},
};

impl Flow {
    /// Whether a message may begin at the tip, though the state there is open.
    #[inline(always)]
    pub(super) fn set_starts(&mut self, starts: bool) {
        if starts {
            self.flags |= STARTS;
        } else {
            self.flags &= !STARTS;
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
            if self.flags & STARTS == 0 {
                self.flags &= !HELD_STARTS;
            } else {
                self.flags |= HELD_STARTS;
            }
        } else {
            self.give_up(self.tip);
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
        self.flags & GAVE_UP != 0 && !before(at, self.gave_up_from) && !self.holds(at)
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

    /// Keeps the state at `at`, the left end of what is left of a gap that began at `start`: that of the first gap, in the
    /// place of the one from which it was read.
    pub(super) fn hold(&mut self, start: u32, at: u32, left: Left) -> Result<(), Conflict> {
        if left.is_light() {
            return Ok(());
        }
        if self.knows_settled == 0 || self.settled != start {
            return Err(Conflict::Ambiguous);
        }
        self.give_up_held();
        self.held.copy(&self.next);
        self.held_at = at;
        self.flags |= HOLDS;
        self.flags &= !HELD_STARTS;
        Ok(())
    }
}
