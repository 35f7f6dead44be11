//! What overtakes the head of its message.
//!
//! Between two messages nothing is known of what comes ahead of a gap. Dropped, it is a loss to a sender who has just begun. So
//! where its first bytes can't be of a head it is taken for a body and passed: a guess. What was missing is read as if it had
//! come in order, and says whether that was right. Until then messages may begin anywhere, so all is read as where the flow
//! is adrift; where the guess was wrong that stays so. What was passed so was judged in its place, whatever it is of, but for a
//! candidate that begins in front of it: for that the first bytes are kept, as of all that is ahead of a gap.

use super::{
    super::{framing::Framing, scan::Scan},
    Conflict, Flow, Gap, Left, Place,
    record::{
        ADRIFT, AGAIN, CHUNKED, DECLARED, DOUBTED, DRIFTS, FRAMED, GUESSES, HEADED, NOISY, OF_BODY,
        OF_HEAD, OPEN, RECOVERING, STARTS, UNREAD,
    },
    scans::{ENDED_HEADERS, GUESSED, SAW_BLANK, SAW_CHUNKS, SAW_NOISE},
};

/// All flags of a guess.
pub(super) const ALL: u32 = GUESSES | DRIFTS | HEADED;

/// Of a gap: in it the head is missing of what was passed behind it.
const HEAD: u32 = 1;
/// It lies in what was guessed to be a body.
const UNDER: u32 = 2;

impl Gap {
    /// What is left behind a segment that lies in its middle.
    #[inline(always)]
    pub(super) fn leave_rest(&mut self) {
        if self.guessed != 0 {
            self.guessed = UNDER;
        }
    }
}

impl Flow {
    /// Whether what is ahead of a gap may be taken for a body of which the head is still to come.
    #[inline(always)]
    pub(super) fn may_guess(&self) -> bool {
        if self.over != OPEN || self.flags & (RECOVERING | UNREAD) != 0 {
            return false;
        }
        let line = self.left as u32 == Left::Line as u32 && self.flags & (ADRIFT | STARTS) == 0;
        let between = line && self.body == 0 && self.framing == Framing::NONE;
        between || self.flags & GUESSES != 0
    }

    /// Before the scans of a segment, which may fill `gap`: whether it is of a head that is missing, or read under a guess;
    /// `in_body`: what is ahead of a gap is known to be of a body.
    #[inline(always)]
    pub(super) fn open_guess(&mut self, place: Place, gap: &Gap, in_body: bool) {
        self.flags &= !OF_HEAD;
        let under = self.flags & GUESSES != 0;
        let guessed = match place {
            Place::Filler if under && gap.guessed == HEAD => {
                self.flags |= OF_HEAD;
                false
            }
            Place::Filler | Place::Inside | Place::Next => under,
            Place::Ahead => under || !in_body,
            Place::Repeat => gap.passed.is_guessed(),
            _ => false,
        };
        self.next_signs |= u32::from(guessed) * GUESSED;
    }

    /// Whether all of `gap` is of a body whose length is known: also where that was a guess when it was noted, and what came for
    /// the head has said so.
    #[inline(always)]
    pub(super) fn is_in_body(&self, gap: &Gap) -> bool {
        gap.in_body != 0 || gap.guessed == UNDER && self.flags & (ADRIFT | GUESSES) == 0
    }

    /// Whether the segment under judgement is read under a guess: where it can't pass it comes again, when more is known.
    #[inline(always)]
    #[must_use]
    pub fn is_guessed(&self) -> bool {
        self.next_signs & GUESSED != 0
    }

    /// Whether the segment under judgement is of a head that is missing.
    #[inline(always)]
    pub(super) fn is_of_head(&self) -> bool {
        self.flags & OF_HEAD != 0
    }

    /// Whether a scan found something in the segment under judgement that is not passed under a guess: what is said of where
    /// messages end is not kept then.
    #[inline(always)]
    pub(super) fn is_no_body(&self, scan: &Scan) -> bool {
        let framed = scan.ended_headers() || !scan.framing.is_as(Framing::NONE);
        self.is_guessed() && (framed || scan.saw_header() || scan.is_adrift())
    }

    /// Looks at the first bytes of the segment under judgement, which `gap` has. Not while it passes: the verifier counts the
    /// stack of all that call each other.
    #[inline(always)]
    pub(super) fn look_at_first(&mut self, gap: &Gap) {
        tokenblock_look_at_first(self, gap);
    }

    /// The segment under judgement is about to pass before what is in front of it.
    ///
    /// # Errors
    /// [`Conflict::Ambiguous`] where it is to be guessed what it is of, and that can be a head.
    #[inline(always)]
    pub(super) fn guess(&self) -> Result<(), Conflict> {
        if self.is_guessed() && self.flags & OF_BODY == 0 {
            return Err(Conflict::Ambiguous);
        }
        Ok(())
    }

    /// The segment under judgement passes ahead of `gap`, which begins at the tip: perhaps the head is missing in it.
    #[inline(always)]
    pub(super) fn await_head(&mut self, gap: &mut Gap) {
        let under = self.flags & GUESSES != 0;
        gap.guessed = if under {
            UNDER
        } else {
            u32::from(self.is_guessed()) * HEAD
        };
        gap.passed.at_framing = Framing::NONE;
        gap.passed.at_body = 0;
        if gap.guessed == HEAD {
            self.flags &= !(DECLARED | CHUNKED | NOISY | HEADED);
            self.flags |= GUESSES | DRIFTS | ADRIFT | DOUBTED;
            self.adrift_from = self.tip;
        }
    }

    /// The segment under judgement, `start..end`, is of the head that is missing in `gap`.
    ///
    /// # Errors
    /// [`Conflict::Gap`] where the head, with what it says of its message's end, goes on in what was passed.
    #[inline(always)]
    pub(super) fn learn_head(
        &mut self,
        start: u32,
        end: u32,
        gap: &mut Gap,
    ) -> Result<(), Conflict> {
        match tokenblock_learn_head(self, gap, start, end) {
            0 => Ok(()),
            _ => Err(Conflict::Gap),
        }
    }

    fn learn_here(&mut self, start: u32, end: u32, gap: &mut Gap) -> Result<(), Conflict> {
        let passed = u64::from(self.body_from().wrapping_sub(end));
        if self.next_signs & SAW_BLANK != 0 {
            self.asked = 1;
            self.asked_at = self.answers;
        }
        self.reframe_head(start, end);
        if self.covers(passed) {
            self.begin_body(passed);
            gap.in_body = 1;
        } else if self.next_signs & SAW_CHUNKS != 0 && self.next_framing.bytes() == 0 {
            self.flags |= CHUNKED;
        } else if gap.right != end {
            gap.passed.at_framing = self.next_framing;
            gap.passed.at_body = self.next_body;
            self.flags |= HEADED;
            return Ok(());
        } else if self.next_framing.is_as(Framing::NONE) {
            // A header block may go on behind what was passed, of another message perhaps. Nothing more passes ahead unless its
            // length is known.
            self.framing = Framing::NONE.begin();
            self.flags |= DECLARED;
        } else {
            return Err(Conflict::Gap);
        }
        gap.guessed = 0;
        self.flags &= !(ALL | NOISY);
        if self.next_signs & SAW_NOISE != 0 {
            self.flags |= NOISY;
        }
        Ok(())
    }

    /// The segment under judgement, `start..end`, is of the head that is missing: what is known where it begins holds in front
    /// of all its pieces, and within them nothing does.
    #[inline(always)]
    fn reframe_head(&mut self, start: u32, end: u32) {
        if self.flags & HEADED == 0 || self.flags & FRAMED == 0 {
            self.reframe(start, end, self.at_framing, self.at_body);
        } else if self.flags & AGAIN == 0 {
            self.framed_to = end;
        } else {
            self.again_to = end;
        }
    }

    /// Whether the segment under judgement declares a body that has all of the `passed` bytes behind it: where it ends with
    /// those, what comes next must be known to be the start of a message.
    #[inline(always)]
    fn covers(&self, passed: u64) -> bool {
        let light = matches!(self.left, Left::Closed | Left::Line);
        let ends = self.next_body == passed && light && self.flags & RECOVERING == 0;
        self.next_signs & ENDED_HEADERS != 0 && (self.next_body > passed || ends)
    }

    /// The segment under judgement declares a body that has all of the `passed` bytes behind it.
    #[inline(always)]
    fn begin_body(&mut self, passed: u64) {
        self.framing = Framing::NONE;
        self.body = self.next_body - passed;
        self.flags |= DECLARED;
        if self.flags & DRIFTS != 0 {
            // All that was passed is of this body.
            self.flags &= !ADRIFT;
        }
        if self.body == 0 {
            self.left = Left::Line;
            self.reframe(self.tip.wrapping_sub(1), self.tip, Framing::NONE, 1);
        }
    }
}

/// [`Flow::learn_head`], under a name that other objects could call, since such a function the verifier walks through once.
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
extern "C" fn tokenblock_learn_head(flow: *mut Flow, gap: *mut Gap, start: u32, end: u32) -> u64 {
    // SAFETY: `Flow::learn_head` passes references; the verifier sees to the rest.
    let (Some(flow), Some(gap)) = (unsafe { (flow.as_mut(), gap.as_mut()) }) else {
        return 1;
    };
    u64::from(flow.learn_here(start, end, gap).is_err())
}

/// [`Flow::look_at_first`], likewise. Gives 0, for it wants a value.
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
extern "C" fn tokenblock_look_at_first(flow: *mut Flow, gap: *const Gap) -> u64 {
    // SAFETY: as above.
    if let (Some(flow), Some(gap)) = unsafe { (flow.as_mut(), gap.as_ref()) } {
        flow.flags &= !OF_BODY;
        if flow.is_guessed() && gap.behind.is_body() {
            flow.flags |= OF_BODY;
        }
    }
    0
}
