//! Whether a scanned segment may be passed, and what it changes.

use super::{
    Flow, Gap, Left, Place, before,
    ends::AHEAD,
    gaps::{CROSSES, ENDS_AT},
    guess,
    record::{
        ADRIFT, AGAIN, DIFFERED, DOUBTED, FRAMED, GAPS, GAVE_UP, GUESSES, KNOWS_TIP, MORE, PROVES,
        RECOVERING, STARTS, TRUSTS, UNREAD,
    },
    scans::{ENDS_BODY, LEFT_BEHIND, PLAIN, STILL_UNREAD},
};

/// Why a segment can't be passed after it was scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Conflict {
    /// It ends inside a candidate, and what follows was passed already.
    Gap = 0,
    /// It can be read in two ways, and both end inside a candidate.
    Ambiguous = 1,
}

/// What [`tokenblock_flow_pass`] gives: one of these, or [`NOTE`] and a gap's left end.
pub(super) const PASSED: u64 = 0;
const GAP: u64 = 1;
pub(super) const AMBIGUOUS: u64 = 2;
const NOTE: u64 = 1 << 32;

impl Flow {
    /// Whether the segment `start..end` may be passed, now that it is scanned; if so it counts as passed.
    /// `gap` is what is noted under `start`; what is to be noted instead takes its place, and its left end is given back.
    ///
    /// # Errors
    /// [`Conflict::Gap`] where it ends inside a candidate that goes on in what was passed before; [`Conflict::Ambiguous`]
    /// where its end can't be kept beside another's: it is dropped, and comes again.
    #[inline(always)]
    pub fn pass(
        &mut self,
        place: Place,
        start: u32,
        end: u32,
        now: u64,
        gap: &mut Gap,
    ) -> Result<Option<u32>, Conflict> {
        self.next_place = place;
        let passed = if place.is_of_noted() {
            tokenblock_flow_fill(self, gap, start, end, now)
        } else {
            tokenblock_flow_pass(self, gap, start, end, now)
        };
        match passed {
            PASSED => Ok(None),
            GAP => Err(Conflict::Gap),
            AMBIGUOUS => Err(Conflict::Ambiguous),
            at => Ok(Some(at as u32)),
        }
    }

    fn pass_here(
        &mut self,
        start: u32,
        end: u32,
        now: u64,
        gap: &mut Gap,
    ) -> Result<Option<u32>, Conflict> {
        let left = self.next_left;
        let place = self.next_place;
        let mut note = None;
        let at = self.reads_from(place, start);
        self.settle_adrift(place, start);
        match place {
            Place::Ahead => {
                self.guess()?;
                note = Some(self.tip);
                gap.right = start;
                gap.left = self.left;
                gap.plain = u32::from(self.next_signs & PLAIN != 0);
                gap.in_body = u32::from(self.at_body != 0);
                gap.passed.place = Place::Settled;
                gap.passed.starts = u32::from(self.flags & STARTS != 0);
                self.await_head(gap);
                self.leave_tip();
                self.note_open(self.tip, self.tip, start);
                self.flags |= GAPS;
            }
            _ if self.knows_framing == 0 => return Err(Conflict::Gap),
            Place::Recovery => self.recover(end)?,
            _ => self.leave_tip(),
        }
        if self.flags & RECOVERING != 0 {
            let holes = self.holes(at, end);
            if holes & CROSSES != 0 && at != self.settled {
                // The receiver may hold what ended there, and go on behind it with the rest of this alone.
                return Err(Conflict::Ambiguous);
            }
            if !before(self.high, end) {
                self.meets_recovered(at, end, holes)?;
            }
            self.cover_ends(at, end);
            self.flags &= !guess::ALL;
            if before(end, self.high) {
                self.note_end(end, self.next_from());
                self.commit(end, left, now);
                return Ok(None);
            }
            self.flags &= !RECOVERING;
            if self.flags & FRAMED != 0 && !before(self.framed_from, at) {
                self.flags &= !(FRAMED | AGAIN | MORE);
            } else if self.flags & AGAIN != 0 && !before(self.framed_again, at) {
                self.flags &= !(AGAIN | MORE);
            }
        }
        self.forget_ends();
        self.forget_far_ends();
        if place as u32 == Place::Ahead as u32 {
            self.note_end(start, AHEAD);
        }
        if left as u32 != Left::Closed as u32 || self.flags & GAVE_UP != 0 || self.has_room() {
            self.note_end(end, self.next_from());
        }
        self.count_body(at, end);
        self.commit(end, left, now);
        Ok(note)
    }

    /// What is given where the segment `start..end` came to this.
    #[inline(always)]
    fn came_to(&mut self, passed: Result<Option<u32>, Conflict>, start: u32, end: u32) -> u64 {
        if passed.is_ok() {
            self.note_stamp(start, end);
        }
        match passed {
            Ok(None) => PASSED,
            Ok(Some(at)) => NOTE | u64::from(at),
            Err(Conflict::Gap) => GAP,
            Err(Conflict::Ambiguous) => AMBIGUOUS,
        }
    }

    /// Where the flow is adrift, but for what is settled.
    #[inline(always)]
    fn settle_adrift(&mut self, place: Place, start: u32) {
        let first = place as u32 == Place::First as u32;
        if self.flags & ADRIFT != 0 {
            let behind = self.knows_settled != 0 && before(self.adrift_from, self.settled);
            if first || behind {
                // Nothing comes back that stands before it.
                self.adrift_from = if first { start } else { self.settled };
            }
        }
    }

    /// [`Flow::pass`] of what lies inside `gap`, or is a copy of what is noted in it.
    fn fill_here(
        &mut self,
        start: u32,
        end: u32,
        now: u64,
        gap: &mut Gap,
    ) -> Result<Option<u32>, Conflict> {
        self.settle_adrift(self.next_place, start);
        let note = match self.next_place {
            Place::Filler => self.fill(start, end, gap)?,
            Place::Inside => self.split(start, end, gap)?,
            _ => self.repeat(start, end, gap)?,
        };
        let repeats = self.next_place as u32 == Place::Repeat as u32;
        if !repeats || self.is_wanted(start) {
            self.passed_at = now;
        }
        Ok(note)
    }

    /// The segment fills `gap` up to `end`; what is left of it takes its place, and its left end is given back.
    fn fill(&mut self, start: u32, end: u32, gap: &mut Gap) -> Result<Option<u32>, Conflict> {
        let left = self.next_left;
        let closes = gap.right == end;
        if self.turns_adrift(end) {
            // What was passed behind it was not read for what begins anywhere.
            return Err(Conflict::Gap);
        }
        if self.is_of_head() {
            self.learn_head(start, end, gap)?;
        } else if self.declares_end() {
            self.declare(start, end)?;
        }
        if !closes {
            gap.left = left;
            gap.passed.starts = u32::from(self.next_signs & ENDS_BODY != 0);
            self.note_open(start, end, gap.right);
            self.note_end(end, self.next_from());
            self.hold_next(end);
            return Ok(Some(end));
        }
        if !self.meets(end, gap) {
            return Err(Conflict::Gap);
        }
        self.note_open(start, end, end);
        Ok(None)
    }

    /// The segment up to `end` closes `gap`: whether what stands behind was read as it is to be read now.
    fn meets(&mut self, end: u32, gap: &Gap) -> bool {
        if self.next_left.is_light() {
            return true;
        }
        // With white space behind it, it may be a header's at some servers.
        self.flags |= DOUBTED;
        // The rest of a name that has no colon behind it was read as what it is.
        let name = gap.plain != 0 && self.next.is_name() && !self.next.begins_beside();
        if !name && self.next_signs & LEFT_BEHIND == 0 {
            return false;
        }
        // Who comes back to here reads on from this state.
        self.note_end(end, self.next_from());
        self.hold_next(end);
        true
    }

    /// The segment `start..end` lies in the middle of `gap`, of which the part in front of it is left; that behind it is
    /// [`Flow::rest`].
    ///
    /// # Errors
    /// [`Conflict::Ambiguous`] where it can't pass before what is in front of it has.
    fn split(&mut self, start: u32, end: u32, gap: &mut Gap) -> Result<Option<u32>, Conflict> {
        self.guess()?;
        let right = gap.right;
        if self.turns_adrift(end) || right == end && !self.meets(end, gap) {
            return Err(Conflict::Ambiguous);
        }
        self.note_end(start, AHEAD);
        let left = self.noted_under;
        self.note_open(left, left, start);
        if right != end {
            self.note_open(end, end, right);
            self.note_end(end, self.next_from());
            self.hold_next(end);
        }
        gap.right = start;
        gap.plain = u32::from(self.next_signs & PLAIN != 0);
        Ok(Some(left))
    }

    /// The segment `start..end` is a copy of what is noted in `gap`, or of its beginning.
    ///
    /// # Errors
    /// [`Conflict::Ambiguous`] where it does not leave the flow as that did.
    fn repeat(&mut self, start: u32, end: u32, gap: &mut Gap) -> Result<Option<u32>, Conflict> {
        let whole = gap.passed.to == end;
        if self.turns_adrift(end) || whole && !self.is_same(&gap.passed) {
            return Err(Conflict::Ambiguous);
        }
        let cut = !whole;
        if cut {
            self.cut(start, end, gap)?;
        }
        if self.is_wanted(start) {
            self.flags &= !DIFFERED;
        }
        Ok(cut.then_some(start))
    }

    /// What was passed from what is settled on was lost behind the hook, or is held by the receiver: the tip goes
    /// back.
    #[inline(always)]
    fn recover(&mut self, end: u32) -> Result<(), Conflict> {
        let open = self.gave_up(self.settled) && self.may_be_open(self.settled);
        if open || !self.may_recover() {
            return Err(Conflict::Gap);
        }
        // The word from which on the server's silence counts may be among what it never got.
        self.flags &= !(PROVES | TRUSTS | DIFFERED);
        if self.flags & RECOVERING == 0 {
            self.leave_holes();
        }
        if self.flags & RECOVERING == 0 || before(self.high, self.tip) {
            self.high = self.tip;
            self.high_left = self.left;
            self.flags |= RECOVERING;
            // Also where nothing of it is left to be read: the receiver's acknowledgment may be late, and this copy lost.
            self.leave_tip();
        }
        self.epoch = self.epoch.wrapping_add(1);
        self.forget_copies();
        if before(end, self.high) && !self.high_left.is_light() && !self.holds(self.high) {
            return Err(Conflict::Gap);
        }
        self.tip = end;
        Ok(())
    }

    /// The segment under judgement, read from `at`, is of a recovery, up to `end`. What was passed behind it must have been read as it is
    /// to be read now. Where it ends with all that was passed before, the receiver may hold that in its place, or for another one if
    /// this is a decoy, and go on from there: both have to leave the scanner alike.
    ///
    /// # Errors
    /// Where they do not: [`Conflict::Ambiguous`] if an acknowledgment will say which of them the receiver has, else
    /// [`Conflict::Gap`].
    #[inline(always)]
    fn meets_recovered(&mut self, at: u32, end: u32, holes: u32) -> Result<(), Conflict> {
        let last = end == self.high;
        let left = self.next_left;
        let light = last && left as u32 == self.high_left as u32 && left.is_light();
        let from = if last { Left::Open } else { left };
        // What was guessed stays adrift: where messages end counts for nothing there.
        let framed = self.flags & GUESSES != 0 || self.is_framed_so(end);
        // So too where nothing of that follows, though nothing is left open.
        let closes = holes & ENDS_AT != 0 && from as u32 == Left::Closed as u32;
        let alike = (light || self.is_read_from(end, from)) && framed;
        let alike = alike && (!closes || self.was_left_so(end));
        if alike && (last || !self.turns_adrift(end)) {
            Ok(())
        } else if last && at != self.settled {
            Err(Conflict::Ambiguous)
        } else {
            Err(Conflict::Gap)
        }
    }

    #[inline(always)]
    fn commit(&mut self, end: u32, left: Left, now: u64) {
        self.tip = end;
        self.flags |= KNOWS_TIP;
        if self.flags & RECOVERING == 0 && self.next_signs & STILL_UNREAD == 0 {
            self.flags &= !UNREAD;
        }
        self.set_starts(self.next_signs & ENDS_BODY != 0);
        self.left = left;
        self.passed_at = now;
        if !left.is_light() {
            self.state.copy(&self.next);
        }
    }
}

/// [`Flow::pass`], under a name that other objects could call: such a function the verifier walks through once, and not
/// behind each way through a scan.
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
pub(super) extern "C" fn tokenblock_flow_pass(
    flow: *mut Flow,
    gap: *mut Gap,
    start: u32,
    end: u32,
    now: u64,
) -> u64 {
    // SAFETY: `Flow::pass` passes references; the verifier sees to the rest.
    let (Some(flow), Some(gap)) = (unsafe { flow.as_mut() }, unsafe { gap.as_mut() }) else {
        return GAP;
    };
    let passed = flow.pass_here(start, end, now, gap);
    flow.came_to(passed, start, end)
}

/// [`Flow::pass`] of what something is noted of, likewise.
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
extern "C" fn tokenblock_flow_fill(
    flow: *mut Flow,
    gap: *mut Gap,
    start: u32,
    end: u32,
    now: u64,
) -> u64 {
    // SAFETY: as above.
    let (Some(flow), Some(gap)) = (unsafe { flow.as_mut() }, unsafe { gap.as_mut() }) else {
        return GAP;
    };
    let passed = flow.fill_here(start, end, now, gap);
    flow.came_to(passed, start, end)
}
