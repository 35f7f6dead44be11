//! The scans of a segment: where each begins, and what its end says.

use super::{
    super::{
        digest::HOLDS_BYTES, framing::Framing, rules::Rules, scan::Scan, swar::forget_registers,
    },
    Conflict, Flow, Gap, Left, Place,
    passed::{AMBIGUOUS, PASSED},
    record::{ADRIFT, GUESSES, HEADED, HELD_STARTS, NOISY, UNREAD},
};

/// Scans that a segment may need, and one more to say what came of the last.
pub const STEPS: u32 = 7;

/// Where a scan begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Start {
    /// Bytes behind the segment's start.
    pub offset: u32,
    /// The scan is over with the first line.
    pub first_line_only: bool,
    /// Not the segment is read, but what is kept of what stands behind the gap that it fills, until no candidate is
    /// under way.
    pub behind: bool,
}

impl Start {
    /// Whether the scan is over before its end.
    #[inline(always)]
    #[must_use]
    pub fn is_over(self, scan: &Scan) -> bool {
        self.first_line_only && scan.left_line() || self.behind && scan.left_candidate()
    }
}

pub(super) const SAW_HEADER: u32 = 1;
pub(super) const ENDED_HEADERS: u32 = 2;
pub(super) const SAW_BLANK: u32 = 4;
const SAW_HTTP2: u32 = 8;
/// A message may begin behind the segment, though it leaves an open state.
pub(super) const ENDS_BODY: u32 = 16;
/// The segment begins with a word that is no header's name.
pub(super) const PLAIN: u32 = 32;
/// The segment holds more than empty lines.
pub(super) const SAW_WORD: u32 = 64;
/// A header block says in two ways where its message ends.
const SAW_AMBIGUOUS: u32 = 128;
/// The segment may be the rest of a request target as well as what it was read as.
pub(super) const STILL_UNREAD: u32 = 256;
/// What stands behind the gap is read on from the segment's end.
const READS_BEHIND: u32 = 512;
/// There the candidate ends in which the segment does.
pub(super) const LEFT_BEHIND: u32 = 1024;
/// The segment is read as a request target as well.
pub(super) const READS_TARGET: u32 = 2048;
/// The segment is read for parameters anywhere as well.
const READS_ANYWHERE: u32 = 4096;
/// Messages may begin anywhere from this segment on.
pub(super) const SAW_ADRIFT: u32 = 8192;
/// A header block ended that says that its message comes in chunks.
pub(super) const SAW_CHUNKS: u32 = 1 << 14;
/// The segment ends in an empty line by which chunks may be over.
pub(super) const MAY_END_CHUNKS: u32 = 1 << 15;
/// The segment is the beginning of one that was passed, and the state at its end is kept, whatever that is.
pub(super) const PIECE: u32 = 1 << 16;
/// A sign of a header was seen in a body of which the segment holds the head.
pub(super) const SAW_NOISE: u32 = 1 << 17;
/// The segment is read under a guess of what it is of.
pub(super) const GUESSED: u32 = 1 << 18;
/// The gap that the segment fills is all of a body whose length was declared.
pub(super) const IN_BODY: u32 = 1 << 19;
/// The segment is a copy of one that was read for parameters anywhere.
const WAS_ANYWHERE: u32 = 1 << 20;
/// Signs of what stands behind a gap, and of what a flow that was adrift before is read for.
pub(super) const OF_BEHIND: u32 = READS_BEHIND | LEFT_BEHIND | READS_ANYWHERE | WAS_ANYWHERE;
/// Signs of any scan of a segment; the others are those of the last.
const OF_ANY: u32 = SAW_HTTP2
    | ENDS_BODY
    | SAW_AMBIGUOUS
    | STILL_UNREAD
    | READS_TARGET
    | SAW_ADRIFT
    | PIECE
    | IN_BODY
    | GUESSED
    | OF_BEHIND;

/// What [`tokenblock_flow_start`] gives.
const NOTHING: u64 = u64::MAX;
const ONE_LINE: u64 = 1 << 32;
const READ_BEHIND: u64 = 1 << 33;

impl Flow {
    /// How the segment under judgement leaves the flow.
    #[inline(always)]
    #[must_use]
    pub fn leaves(&self) -> Left {
        self.next_left
    }

    /// The `step`th scan (0 to [`STEPS`]) that the segment needs, with its state in `scan`; `None` where none. For a step
    /// above 0 `scan` is the scan before at its end.
    #[inline(always)]
    pub fn start(
        &mut self,
        step: u32,
        start: u32,
        scan: &mut Scan,
        rules: &Rules,
    ) -> Option<Start> {
        if step > 0 && self.is_read(scan) {
            return None;
        }
        let begun = tokenblock_flow_start(self, scan, rules, step, start);
        (begun != NOTHING).then_some(Start {
            offset: begun as u32,
            first_line_only: begun & ONE_LINE != 0,
            behind: begun & READ_BEHIND != 0,
        })
    }

    /// Whether the scans so far are all that the segment needs, as nearly always; where not, [`Flow::start_here`] knows.
    #[inline(always)]
    pub(super) fn is_read(&self, scan: &Scan) -> bool {
        let next =
            self.next_place as u32 == Place::Next as u32 && self.flags & (UNREAD | ADRIFT) == 0;
        next && self.closes == 0 && self.next_fork == 0 && !scan.has_forked()
    }

    fn start_here(
        &mut self,
        step: u32,
        start: u32,
        scan: &mut Scan,
        rules: &Rules,
    ) -> Option<Start> {
        let (place, gap) = (self.next_place, self.next_gap);
        let at = self.reads_from(place, start);
        let offset = at.wrapping_sub(start);
        let read = self.next_read;
        let repeats = place as u32 == Place::Repeat as u32;
        // Behind what was left in a known state that is not open.
        let known = read as u32 == Place::Recovery as u32 && gap.is_light();
        let left = match read {
            Place::Next | Place::Filler => gap,
            Place::Recovery if known => gap,
            _ => Left::Closed,
        };
        let next = read as u32 == Place::Next as u32;
        let held = self.holds(at) && (!next || repeats) && !read.is_early();
        let whole = next && (repeats || self.flags & UNREAD == 0);
        let exact = whole || matches!(read, Place::Filler) || known || held;
        let open = next && !repeats && left as u32 == Left::Open as u32;
        let beside = self.beside(open, held);
        if step == 1 {
            (self.next_fork, self.next_fork_again) = scan.forks();
        }
        if step > 0 && self.next_fork != 0 {
            let offset = self.next_fork - 1;
            (self.next_fork, self.next_fork_again) = (self.next_fork_again, 0);
            scan.restart();
            return Some(Start {
                offset,
                first_line_only: false,
                behind: false,
            });
        }
        // What is in front is unknown: it may also be a request target.
        if step > 0 && !exact && self.next_signs & READS_TARGET == 0 {
            self.next_signs |= READS_TARGET;
            scan.restart_in_last_target();
            scan.continue_message(offset, self.at_framing, self.at_body);
            return Some(Start {
                offset,
                first_line_only: true,
                behind: false,
            });
        }
        if step > 0 && self.wants_anywhere() {
            self.next_signs |= READS_ANYWHERE;
            self.start_anywhere(scan, rules, open, held);
            return Some(Start {
                offset,
                first_line_only: false,
                behind: false,
            });
        }
        if step > 0 {
            return self.read_on(scan, rules);
        }
        let left = if beside == 0 {
            left
        } else {
            Left::numbered(beside)
        };
        match left {
            Left::Open if next && !repeats => {
                scan.resume(&self.state);
                scan.seal(rules, self.salt);
                scan.read_lines();
            }
            _ if held && beside == 0 => {
                scan.resume(&self.held);
                scan.seal(rules, self.salt);
                scan.read_lines();
            }
            // A message may begin with the segment, though what is before it did not end its line.
            Left::Closed if next || known || held => scan.restart_anywhere(),
            _ if !exact => scan.restart_anywhere(),
            Left::Target => scan.restart_inside_target(),
            Left::Method => scan.restart_in_method(),
            Left::Line => scan.restart(),
            Left::AfterCr => scan.restart_after_cr(),
            // An open state is held, or the segment was not placed here.
            Left::Closed | Left::Open => scan.restart_in_line(),
        }
        forget_registers();
        scan.continue_message(offset, self.at_framing, self.at_body);
        let held_starts = held && !repeats && self.flags & HELD_STARTS != 0;
        if self.next_starts != 0 || held_starts {
            scan.fork_here();
        }
        Some(Start {
            offset,
            first_line_only: false,
            behind: false,
        })
    }

    /// How lines are read on where a state is resumed that is kept beside it: the one at the tip (`open`), or that which is
    /// `held`; 0 where it is one of lines itself.
    #[inline(always)]
    fn beside(&self, open: bool, held: bool) -> u32 {
        if open {
            self.state.beside()
        } else if held {
            self.held.beside()
        } else {
            0
        }
    }

    /// A copy of a segment is to be read for what that one was, also where the flow is adrift no more: it might leave the scanner
    /// otherwise.
    pub(super) fn read_as(&mut self, signs: u32) {
        if signs & READS_ANYWHERE != 0 {
            self.next_signs |= WAS_ANYWHERE;
        }
    }

    /// Whether the segment under judgement is still to be read for parameters anywhere.
    #[inline(always)]
    fn wants_anywhere(&self) -> bool {
        let anywhere = self.flags & ADRIFT != 0 || self.next_signs & (GUESSED | WAS_ANYWHERE) != 0;
        anywhere && self.next_signs & READS_ANYWHERE == 0
    }

    /// Begins the scan for parameters anywhere, from where the last one ended, if that was within one.
    #[inline(always)]
    fn start_anywhere(&self, scan: &mut Scan, rules: &Rules, open: bool, held: bool) {
        if open {
            scan.resume_anywhere(&self.state, rules, self.salt);
        } else if held {
            scan.resume_anywhere(&self.held, rules, self.salt);
        } else {
            scan.restart();
        }
        scan.read_anywhere();
    }

    /// The scan for parameters anywhere came to its end. Its state is kept with that of the lines, where one says both.
    ///
    /// # Errors
    /// Where each needs a state of its own.
    #[inline(always)]
    fn end_anywhere(&mut self, scan: &mut Scan, rules: &Rules) -> Result<(), Conflict> {
        if scan.left_parameter(rules) {
            return Ok(());
        }
        let line = self.next_left;
        if line.is_light() {
            scan.keep_beside(line.number());
            self.next_left = Left::Open;
            self.keep_next(scan, rules);
            return Ok(());
        }
        let signature = self.signature_of_next();
        if !scan.join(&mut self.next, signature) {
            return Err(Conflict::Ambiguous);
        }
        self.next_signature = signature ^ self.next.signature_of_also();
        Ok(())
    }

    /// Keeps the state at the end of the segment under judgement.
    #[inline(always)]
    fn keep_next(&mut self, scan: &Scan, rules: &Rules) {
        if HOLDS_BYTES {
            self.next_signature = scan.signature();
        }
        self.next.copy(scan);
        self.next.seal(rules, self.salt);
    }

    /// The scan of what stands behind the gap that the segment closes, where it ends in a candidate; then, what came
    /// of it.
    #[inline(always)]
    fn read_on(&mut self, scan: &mut Scan, rules: &Rules) -> Option<Start> {
        if self.next_signs & READS_BEHIND != 0 {
            if scan.left_candidate() || Left::of(scan, rules).is_light() {
                self.next_signs |= LEFT_BEHIND;
            }
            return None;
        }
        if self.closes == 0 || self.next_left.is_light() || self.next.begins_beside() {
            return None;
        }
        self.next_signs |= READS_BEHIND;
        scan.resume(&self.next);
        scan.seal(rules, self.salt);
        if scan.beside() == 0 {
            scan.read_lines();
        } else {
            scan.read_anywhere();
        }
        Some(Start {
            offset: 0,
            first_line_only: false,
            behind: true,
        })
    }

    /// Seals what is kept behind `gap`, or opens it.
    #[inline(always)]
    pub fn seal_behind(&self, gap: &mut Gap, rules: &Rules) {
        gap.behind.seal(rules, self.salt, gap.right);
    }

    /// Whether HTTP/2 begins in the segment under judgement.
    #[inline(always)]
    #[must_use]
    pub fn saw_http2(&self) -> bool {
        self.next_signs & SAW_HTTP2 != 0
    }

    /// Whether a header block of the segment under judgement says in two ways where its message ends.
    #[inline(always)]
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        self.next_signs & SAW_AMBIGUOUS != 0
    }

    /// Before the scans of the segment `start..end`, which may fill `gap`.
    #[inline(always)]
    pub fn open(&mut self, place: Place, start: u32, end: u32, gap: &Gap) {
        self.next_place = place;
        tokenblock_flow_open(self, gap, start, end);
    }

    fn open_here(&mut self, start: u32, end: u32, gap: &Gap) {
        let place = self.next_place;
        self.next_gap = gap.left;
        let closes = place.fills() && gap.right == end;
        self.closes = u16::from(closes && !gap.behind.is_empty());
        self.next_left = Left::Closed;
        let again = place as u32 == Place::Repeat as u32;
        self.next_signs = if (place.fills() || again) && self.is_in_body(gap) {
            IN_BODY
        } else {
            0
        };
        self.next_body = 0;
        self.next_framing = Framing::NONE;
        let in_body = self.in_body(end);
        self.open_guess(place, gap, in_body);
        let framing = self.framing_before(place, self.reads_from(place, start), gap);
        self.knows_framing = u16::from(framing.is_some());
        (self.at_framing, self.at_body) = framing.unwrap_or((Framing::NONE, 0));
        self.open_repeat(place, start, end, gap);
    }

    /// What is known of the message where a segment is read from, which may be of a head that is missing in `gap`.
    #[inline(always)]
    fn framing_before(&self, place: Place, at: u32, gap: &Gap) -> Option<(Framing, u64)> {
        if self.is_of_head() {
            return Some((gap.passed.at_framing, gap.passed.at_body));
        }
        let recovers = place as u32 == Place::Recovery as u32;
        if recovers && self.flags & (GUESSES | HEADED) == GUESSES | HEADED {
            return None;
        }
        self.framing_at(place, at)
    }

    /// Where a segment is read from.
    #[inline(always)]
    pub(super) fn reads_from(&self, place: Place, start: u32) -> u32 {
        match place {
            Place::Next => self.tip,
            Place::Recovery => self.settled,
            _ => start,
        }
    }

    /// A scan of the segment came to its end in this state.
    ///
    /// # Errors
    /// Where another scan of it ended in a candidate, and differently. A segment ahead of a gap is then dropped:
    /// it comes again when more is known. Of the first segment that was seen of a flow the line is believed.
    #[inline(always)]
    pub fn end(&mut self, begun: Start, scan: &mut Scan, rules: &Rules) -> Result<(), Conflict> {
        match tokenblock_flow_end(self, scan, rules, u32::from(begun.first_line_only)) {
            PASSED => Ok(()),
            _ => Err(Conflict::Ambiguous),
        }
    }

    fn end_here(
        &mut self,
        scan: &mut Scan,
        rules: &Rules,
        first_line_only: bool,
    ) -> Result<(), Conflict> {
        let place = self.next_place;
        if self.next_signs & READS_BEHIND != 0 {
            return Ok(());
        }
        if scan.is_anywhere() {
            return self.end_anywhere(scan, rules);
        }
        if self.is_no_body(scan) {
            return Err(Conflict::Ambiguous);
        }
        if place as u32 == Place::Inside as u32 && self.is_of_messages(scan) {
            // It comes again in its place.
            return Err(Conflict::Ambiguous);
        }
        if scan.finish_body() {
            self.next_signs |= ENDS_BODY;
        }
        forget_registers();
        self.doubt(place, scan);
        if scan.forks_again() {
            return Err(Conflict::Ambiguous);
        }
        if place as u32 == Place::Ahead as u32 && scan.saw_header() {
            // What fills the gap is as likely to: it would end the flow where it ends inside a candidate.
            self.flags |= NOISY;
            return Err(Conflict::Ambiguous);
        }
        if place as u32 == Place::Filler as u32 && scan.saw_header() {
            self.flags |= NOISY;
        }
        if !first_line_only {
            self.note_message(scan);
        }
        forget_registers();
        let left = Left::of(scan, rules);
        let closed = left as u32 == Left::Closed as u32;
        if first_line_only && !closed {
            // Both ends are kept as one.
            self.next_signs &= !PIECE;
        }
        let exact = self.next_signs & PIECE != 0 && !first_line_only;
        if closed && !exact {
            return Ok(());
        }
        if !closed && self.next_left as u32 != Left::Closed as u32 {
            let same = self.next_left as u32 == left as u32
                && (left.is_light() || self.signature_of_next() == scan.signature());
            if same || place as u32 == Place::First as u32 {
                return Ok(());
            }
            if self.flags & UNREAD != 0 && left as u32 == Left::Target as u32 {
                // The next segment is read in both ways as well.
                self.next_signs |= STILL_UNREAD;
                return Ok(());
            }
            return Err(Conflict::Ambiguous);
        }
        if !closed {
            self.next_left = left;
        }
        if !left.is_light() || exact {
            self.keep_next(scan, rules);
        }
        Ok(())
    }

    /// Whether the scan of what lies inside a gap found that it is of more than a body.
    #[inline(always)]
    fn is_of_messages(&mut self, scan: &Scan) -> bool {
        if scan.saw_header() {
            self.flags |= NOISY;
        }
        let framed = scan.ended_headers() || !scan.framing.is_as(Framing::NONE);
        scan.saw_header() || framed
    }

    /// The signature of `next`, which may be sealed.
    #[inline(always)]
    pub(super) fn signature_of_next(&self) -> u64 {
        if HOLDS_BYTES {
            self.next_signature
        } else {
            self.next.signature()
        }
    }

    /// What the scan of the whole segment saw of its messages' framing.
    #[inline(always)]
    fn note_message(&mut self, scan: &Scan) {
        self.next_body = scan.body_left();
        self.next_framing = scan.framing;
        self.next_signs = self.next_signs & OF_ANY
            | u32::from(scan.saw_header())
            | u32::from(scan.ended_headers()) << 1
            | u32::from(scan.saw_blank()) << 2
            | u32::from(scan.saw_http2()) << 3
            | u32::from(scan.began_plain()) << 5
            | u32::from(scan.saw_word()) << 6
            | u32::from(scan.is_ambiguous()) << 7
            | u32::from(scan.begins_chunks()) << 14
            | u32::from(scan.may_end_chunks()) << 15
            | u32::from(scan.saw_header_in_body()) << 17;
    }
}

/// [`Flow::open`], as [`super::passed::tokenblock_flow_pass`]. Gives 0, for it wants a value.
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
extern "C" fn tokenblock_flow_open(flow: *mut Flow, gap: *const Gap, start: u32, end: u32) -> u64 {
    // SAFETY: `Flow::open` passes references; the verifier sees to the rest.
    if let (Some(flow), Some(gap)) = unsafe { (flow.as_mut(), gap.as_ref()) } {
        flow.open_here(start, end, gap);
    }
    0
}

/// [`Flow::start`], as [`super::passed::tokenblock_flow_pass`]: the offset and perhaps [`ONE_LINE`], or [`NOTHING`].
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
extern "C" fn tokenblock_flow_start(
    flow: *mut Flow,
    scan: *mut Scan,
    rules: *const Rules,
    step: u32,
    start: u32,
) -> u64 {
    // SAFETY: `Flow::start` passes references; the verifier sees to the rest.
    let Some((flow, scan, rules)) = (unsafe { passed(flow, scan, rules) }) else {
        return NOTHING;
    };
    match flow.start_here(step, start, scan, rules) {
        Some(begun) => {
            u64::from(begun.offset)
                | u64::from(begun.first_line_only) << 32
                | u64::from(begun.behind) << 33
        }
        None => NOTHING,
    }
}

/// [`Flow::end`], as [`super::passed::tokenblock_flow_pass`].
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
extern "C" fn tokenblock_flow_end(
    flow: *mut Flow,
    scan: *mut Scan,
    rules: *const Rules,
    first_line_only: u32,
) -> u64 {
    // SAFETY: `Flow::end` passes references; the verifier sees to the rest.
    let Some((flow, scan, rules)) = (unsafe { passed(flow, scan, rules) }) else {
        return AMBIGUOUS;
    };
    match flow.end_here(scan, rules, first_line_only != 0) {
        Ok(()) => PASSED,
        Err(_) => AMBIGUOUS,
    }
}

/// What such a function is passed, `None` where a pointer is null, as the verifier must think one may be.
///
/// # Safety
/// Pointers that are not null must be references of the caller's.
#[inline(always)]
unsafe fn passed<'a>(
    flow: *mut Flow,
    scan: *mut Scan,
    rules: *const Rules,
) -> Option<(&'a mut Flow, &'a mut Scan, &'a Rules)> {
    // SAFETY: the caller's promise.
    unsafe { Some((flow.as_mut()?, scan.as_mut()?, rules.as_ref()?)) }
}
