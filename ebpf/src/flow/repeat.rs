//! Second copies of what was passed.
//!
//! What was passed may be missing at the receiver all the same: it refused it as too old, or had no room. Where losses are
//! about, it is remembered of each segment how it was read and how it left the scanner. A second copy of the same bounds
//! that is read from the same state, and leaves the same, may take the place of the first: whichever of them the receiver
//! has, it was judged in its place, and so was what follows.
//!
//! Who sends again may cut elsewhere: what was one segment, perhaps of many that the host had put together, comes in
//! pieces. A shorter copy inside of a body is passed too. What is left of the segment is then to be read from where that copy
//! leaves the scanner, and has to leave it as the whole did.

use super::{
    super::{framing::Framing, rules::Rules},
    Conflict, Flow, Gap, Left, Place, before,
    record::{LOSSY, NOTED, PROVES, STARTS, TRUSTS, UNREAD},
    scans::{
        GUESSED, IN_BODY, MAY_END_CHUNKS, OF_BEHIND, PIECE, PLAIN, READS_TARGET, SAW_BLANK,
        SAW_WORD,
    },
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
    pub(super) at_framing: Framing,
    pub(super) at_body: u64,
    framing: Framing,
    body: u64,
}

/// In `signs`: it is what is left of a segment behind a shorter copy, and was not passed by itself.
const LEFT: u32 = 1 << 31;
/// Signs that a segment which is cut may have: it lies inside of one message's body.
const OF_BODY: u32 = PLAIN
    | SAW_WORD
    | SAW_BLANK
    | MAY_END_CHUNKS
    | READS_TARGET
    | IN_BODY
    | GUESSED
    | OF_BEHIND
    | LEFT;
/// Those of them that say nothing new of a piece of it.
const OF_PIECE: u32 = PLAIN | SAW_WORD | READS_TARGET | PIECE | IN_BODY | OF_BEHIND;

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

    /// Whether it was read under a guess.
    #[inline(always)]
    pub(super) fn is_guessed(&self) -> bool {
        self.signs & GUESSED != 0
    }

    /// Whether what ends at `end` may be a copy of it, or of its beginning. A piece may be one that does not pass, however
    /// often it comes: so not where a recovery `recovers`.
    #[inline(always)]
    pub(super) fn is_copied(&self, end: u32, recovers: bool) -> bool {
        let whole = self.to == end;
        let piece = self.signs & LEFT != 0 || !whole;
        !(before(self.to, end) || piece && recovers)
    }

    /// Whether it lies inside of one message's body, as far as it was read.
    fn is_of_body(&self, start: u32) -> bool {
        let len = u64::from(self.to.wrapping_sub(start));
        let framed = self.at_framing != Framing::NONE || self.framing != Framing::NONE;
        let ends = self.at_body != 0 && self.at_body <= len;
        self.signs & !OF_BODY == 0 && self.starts == 0 && !framed && !ends
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
    pub(super) fn open_repeat(&mut self, place: Place, start: u32, end: u32, gap: &Gap) {
        let repeats = place as u32 == Place::Repeat as u32;
        let next = place as u32 == Place::Next as u32;
        let filler = place as u32 == Place::Filler as u32;
        self.next_read = if repeats { gap.passed.place } else { place };
        if next {
            self.next_gap = self.left;
        } else if place.is_early() {
            self.next_gap = Left::Closed;
        }
        self.next_starts = if repeats || filler {
            gap.passed.starts
        } else {
            u32::from(next && self.flags & STARTS != 0)
        };
        if place as u32 == Place::Recovery as u32 {
            self.read_from_noted(self.settled);
        }
        let whole = next && start == self.tip && self.flags & UNREAD == 0;
        self.remembers = u16::from(whole || filler || place.is_early());
        if repeats {
            if gap.passed.to != end {
                self.next_signs |= PIECE;
            }
            self.read_as(gap.passed.signs);
            self.knows_framing = 1;
            self.at_framing = gap.passed.at_framing;
            self.at_body = gap.passed.at_body;
        }
    }

    /// Looks at the first bytes of the segment under judgement, which are those of `gap`, and keeps a digest of them.
    #[inline(always)]
    pub fn digest_first(&mut self, gap: &Gap, rules: &Rules) {
        self.next_first = gap.behind.digest(rules, self.salt);
        self.look_at_first(gap);
    }

    /// Whether the segment under judgement leaves the flow as the one did that was passed before.
    #[inline(always)]
    pub(super) fn is_same(&self, passed: &Passed) -> bool {
        let left = self.next_left;
        let state = left as u32 == passed.left as u32
            && (left.is_light() || self.signature_of_next() == passed.signature);
        let message = self.next_framing.is_as(passed.framing) && self.next_body == passed.body;
        let signs = if passed.signs & LEFT == 0 {
            (self.next_signs ^ passed.signs) & !OF_BEHIND == 0
        } else {
            self.says_no_more(passed)
        };
        state && message && signs && self.begins_as(passed)
    }

    /// Whether the segment under judgement, a copy of what was passed or of a piece of it, says nothing that was not said.
    fn says_no_more(&self, passed: &Passed) -> bool {
        self.next_signs & !(passed.signs | OF_PIECE) == 0
    }

    /// Whether the first bytes of the segment under judgement are those of what was passed, where they count: what filled the gap in
    /// front of them may have been read on in them, so that they stay together. They are more than a name has.
    fn begins_as(&self, passed: &Passed) -> bool {
        !passed.place.is_early() || self.next_first == passed.first
    }

    /// The segment under judgement, `start..end`, is a copy of the beginning of the one that is noted in `gap`: it takes its place
    /// there, and what is left of that one is [`Flow::rest`].
    ///
    /// # Errors
    /// [`Conflict::Ambiguous`] where it can't be passed before all of it comes.
    pub(super) fn cut(&mut self, start: u32, end: u32, gap: &mut Gap) -> Result<(), Conflict> {
        let passed = &mut gap.passed;
        let unframed = self.next_framing == Framing::NONE;
        let piece = passed.is_of_body(start) && unframed && self.says_no_more(passed);
        if !piece || !self.begins_as(passed) {
            return Err(Conflict::Ambiguous);
        }
        // The word from which on the server's silence counts may be in what is left.
        self.flags &= !(PROVES | TRUSTS);
        // The receiver may turn out to stand there. Who comes up to here, and took what was passed at first, reads on in
        // that: so the end is not noted.
        self.hold_next(end);
        self.note_passed(end, &mut gap.passed);
        Ok(())
    }

    /// What is left of the segment that is noted in `gap`, of which the one under judgement was passed, up to `end`.
    fn left_of(&self, end: u32, gap: &mut Gap) {
        gap.right = end;
        gap.left = if self.next_signs & PIECE == 0 {
            self.next_left
        } else {
            Left::Open
        };
        gap.plain = 0;
        let passed = &mut gap.passed;
        passed.place = Place::Next;
        passed.starts = 0;
        passed.signs |= LEFT;
        passed.at_framing = self.next_framing;
        passed.at_body = self.next_body;
    }

    /// What is left behind the segment up to `end` of the gap or the segment in whose place it was passed, where anything is.
    /// That is noted in `gap` as it was before.
    #[inline(always)]
    pub fn rest(&self, end: u32, gap: &mut Gap) -> bool {
        tokenblock_rest(self, gap, end) != 0
    }

    fn rest_here(&self, end: u32, gap: &mut Gap) -> bool {
        if self.next_place as u32 == Place::Inside as u32 {
            gap.left = self.next_left;
            gap.leave_rest();
            gap.passed.starts = 0;
            return gap.right != end;
        }
        let cut = self.next_place as u32 == Place::Repeat as u32 && gap.passed.to != end;
        if cut {
            self.left_of(end, gap);
        }
        cut
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
        gap.in_body = u32::from(self.next_signs & IN_BODY != 0);
        gap.guessed = 0;
        let passed = &mut gap.passed;
        passed.place = self.next_place;
        passed.starts = self.next_starts;
        passed.first = self.next_first;
        passed.at_framing = self.at_framing;
        passed.at_body = self.at_body;
        self.note_passed(end, passed);
        true
    }

    /// Notes how the segment under judgement, up to `end`, leaves the scanner.
    fn note_passed(&self, end: u32, passed: &mut Passed) {
        passed.to = end;
        passed.signs = self.next_signs & !PIECE;
        passed.left = self.next_left;
        passed.signature = 0;
        passed.framing = self.next_framing;
        passed.body = self.next_body;
        if !self.next_left.is_light() {
            passed.signature = self.signature_of_next();
        }
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

/// [`Flow::rest`], likewise.
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
extern "C" fn tokenblock_rest(flow: *const Flow, gap: *mut Gap, end: u32) -> u64 {
    // SAFETY: as above.
    let (Some(flow), Some(gap)) = (unsafe { (flow.as_ref(), gap.as_mut()) }) else {
        return 0;
    };
    u64::from(flow.rest_here(end, gap))
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
