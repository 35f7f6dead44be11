//! Header blocks that repeat.
//!
//! A client sends the same header lines with each request of a connection. What was judged clean once in a flow is known
//! again by its keyed sums, and not read again: what the scanner finds in a block depends on its state where the block
//! begins, on the bytes, the rules and the list alone. So the first line is read, and where it leaves the scanner as it did
//! then, the scanner is set as the block left it. Where that line is as usual, and so is the flow, nothing else of the engine
//! has anything to say of such a request, and it is passed at once. One value that is another one each time may be left out of
//! the sums, if nothing reads it. See "Header blocks that repeat" in ARCHITECTURE.md.

use super::{
    super::{
        framing::Framing,
        rules::Rules,
        scan::{Chunk as _, Scan, Source, WIDEST},
        sums::{GROUP, MOST, SumKeys, Sums},
        swar,
    },
    Flow, Left, Place,
    record::{
        ADRIFT, CHUNKED, DECLARED, HOLDS, LOSSY, NOISY, PAUSED, PROVES, RECOVERING, STARTS, UNREAD,
    },
};

/// What a flow remembers of its last header block.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Memo {
    /// Bytes from the end of the first line to the end of the segment; 0: none is known.
    len: u16,
    /// Segments that are not looked at.
    rests: u16,
    /// Bytes of the first line in front of it that was read last, and was as usual ([`LENGTH`]); [`SUMMED`] where `all_sums`
    /// are of both; how many of them are not looked at ([`RESTS`]).
    line: u16,
    /// Blocks that were no repeats, since the last one that was.
    misses: u8,
    /// Whether a block with these sums was judged clean, under this generation of the list and the rules; else they are of
    /// one that is being judged.
    judged: Judged,
    generation: u64,
    sums: Sums,
    /// Of the line and the block.
    all_sums: Sums,
    /// What is left out of both sums.
    fresh: Fresh,
}

/// Of a block: a line whose value may be another one each time, as a request's id or the time is.
#[derive(Clone, Copy)]
#[repr(C)]
struct Fresh {
    /// Where the line begins.
    line: u16,
    /// Where its value begins and ends; the same where it may not: then the line is as any other.
    from: u16,
    /// 0: there is none.
    to: u16,
}

impl Fresh {
    const NONE: Self = Self {
        line: 0,
        from: 0,
        to: 0,
    };

    /// Where the value stands in a block that begins at `at`.
    #[inline(always)]
    fn bounds(self, at: u32) -> [u32; 2] {
        [at + u32::from(self.from), at + u32::from(self.to)]
    }

    /// Where the next line begins.
    #[inline(always)]
    fn next(self) -> u32 {
        if self.to == 0 {
            0
        } else {
            u32::from(self.to) + 2
        }
    }

    #[inline(always)]
    const fn is_empty(self) -> bool {
        self.from == self.to
    }
}

/// Of [`Memo::line`].
const LENGTH: u16 = 0xfff;
const SUMMED: u16 = 1 << 12;
const RESTS: u16 = 7 * ONE_REST;
const ONE_REST: u16 = 1 << 13;
const _: () = assert!(MOST <= LENGTH as u32);

/// What was found in a block.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Judged {
    /// It was not read to its end.
    Not = 0,
    Clean = 1,
    /// Something that is reported each time.
    Reported = 2,
}

/// What is under way with a segment.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Doing {
    /// It is read as any other.
    Nothing = 0,
    /// Its first line is read; the rest is known.
    Knows = 1,
    /// Its first line is read; the rest is to be read and remembered.
    Learns = 2,
    /// The rest is read.
    Reads = 3,
    /// The rest is read up to the end of the line whose value is left out of the sums.
    ReadsFresh = 4,
}

/// What is known of a segment before it is scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recalled {
    /// Nothing.
    Nothing,
    /// Its block is not the one that is remembered, and may be: [`Flow::learn`] is to be asked.
    Other,
    /// So many bytes are to be read before [`Flow::come_to_end`] is asked.
    Line(u32),
    /// All of it: a request that may be passed by [`Flow::pass_known`].
    Request,
    /// The same, of which all sums are to be taken ([`Flow::note_all`]).
    RequestToSum,
}

/// What comes behind the bytes that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing: the segment is read.
    None,
    /// A header block that needs no reading: the scanner stands behind it.
    Known,
    /// The header block, or more of it, to be read up to here before [`Flow::come_to_end`] is asked again.
    Until(u32),
}

/// [`Rest`] as a number; what is none of these is where [`Rest::Until`] ends.
const NONE: u64 = 0;
const KNOWN: u64 = 1;

/// Misses after which no block is looked at for a while.
const PATIENCE: u8 = 2;
/// Segments that are not looked at then, at first; twice as many each further time, up to so many times.
const REST: u16 = 16;
const DOUBLINGS: u8 = 6;

impl Memo {
    /// Nothing.
    pub(super) const NONE: Self = Self {
        len: 0,
        rests: 0,
        line: 0,
        misses: 0,
        judged: Judged::Not,
        generation: 0,
        sums: Sums::NONE,
        all_sums: Sums::NONE,
        fresh: Fresh::NONE,
    };

    /// Forgets all.
    #[inline(always)]
    pub(super) fn forget(&mut self) {
        self.len = 0;
        self.rests = 0;
        self.misses = 0;
        self.judged = Judged::Not;
    }

    #[inline(always)]
    fn is_clean(&self) -> bool {
        self.judged as u8 == Judged::Clean as u8
    }

    /// The block is not the one that is remembered. Requests that differ each time are left alone for longer and longer.
    #[inline(always)]
    fn miss(&mut self) {
        self.judged = Judged::Not;
        let most = u32::from(PATIENCE + DOUBLINGS);
        self.misses = swar::least(u32::from(self.misses) + 1, most) as u8;
        if self.misses >= PATIENCE {
            self.len = 0;
            self.rests = REST << (self.misses.wrapping_sub(PATIENCE) & 7);
        }
    }

    /// Notes how long the block of a segment is, where its first line is over in it.
    fn note<S: Source + ?Sized>(&mut self, source: &S) {
        let chunk = source.chunk(0);
        let mut i = 0;
        let mut mark = 0;
        while i < WIDEST / 8 {
            mark = swar::first_equal(chunk.word(i), b'\n');
            if mark != 0 {
                break;
            }
            i = swar::opaque(i + 1);
        }
        let behind = i * 8 + swar::first(mark) + 1;
        let len = source.end().wrapping_sub(behind);
        self.fresh = Fresh::NONE;
        if (GROUP..=MOST).contains(&len) {
            self.len = len as u16;
            self.judged = Judged::Not;
        } else {
            self.miss();
        }
    }

    /// Where the last bytes of a segment begin that may be the block that is remembered; 0: they are another one.
    #[inline(always)]
    fn block_at<S: Source + ?Sized>(&mut self, source: &S) -> u32 {
        let end = source.end();
        let len = u32::from(self.len);
        let from = end.wrapping_sub(len);
        let line_end = source.chunk(from.wrapping_sub(1)).word(0) as u8 == b'\n';
        if len >= end || from > MOST || !line_end {
            self.miss();
            return 0;
        }
        from
    }

    /// Whether the block of a segment, which begins at `at`, is the one that is remembered, and clean.
    #[inline(always)]
    fn knows_block<S: Source + ?Sized>(
        &self,
        source: &S,
        keys: &SumKeys,
        at: u32,
        generation: u64,
    ) -> bool {
        let sums = self.sums_of_block(source, keys, at);
        let is_same = sums.is_some_and(|sums| sums.is_as(&self.sums));
        is_same && self.generation == generation && self.is_clean()
    }

    /// Prepares to remember the block of a segment, which begins at `at`; false where none is to be, for a while.
    ///
    /// Where it is another one than the last, the value is looked for that is another one each time: in one line after the other,
    /// a request each.
    #[inline(always)]
    fn learn<S: Source + ?Sized>(
        &mut self,
        source: &S,
        keys: &SumKeys,
        rules: &Rules,
        at: u32,
        generation: u64,
    ) -> bool {
        // What was found of a line counts under one generation as well.
        self.line = 0;
        let is_other = self.is_clean() && self.generation == generation;
        let fresh = self.fresh;
        let line = if is_other {
            fresh.next()
        } else {
            // Other rules may read it.
            u32::from(fresh.line)
        };
        if is_other || fresh.to != 0 {
            let found = self.leave_out(source, rules, at, line);
            if is_other && !found {
                self.misses |= PATIENCE - 1;
                self.miss();
            }
        }
        swar::forget_registers();
        let Some(sums) = self.sums_of_block(source, keys, at) else {
            return false;
        };
        self.judged = Judged::Not;
        self.generation = generation;
        self.sums = sums;
        self.len != 0
    }

    /// The sums of the block of a segment, which begins at `at`, as they are remembered; `None` where a line ends in the value that
    /// is left out.
    #[inline(always)]
    fn sums_of_block<S: Source + ?Sized>(
        &self,
        source: &S,
        keys: &SumKeys,
        at: u32,
    ) -> Option<Sums> {
        let sums = source.sums(keys, at, source.end().wrapping_sub(at));
        if self.fresh.is_empty() {
            return Some(sums);
        }
        let part = source.part_sums(keys, at, self.fresh.bounds(0))?;
        Some(sums.without(&part))
    }

    /// Leaves out of the sums what is the value of the line at `line` of a block that begins at `at`, if it is one that is not
    /// read; false where there is no such line.
    #[inline(always)]
    fn leave_out<S: Source + ?Sized>(
        &mut self,
        source: &S,
        rules: &Rules,
        at: u32,
        line: u32,
    ) -> bool {
        self.fresh = Fresh::NONE;
        let line_at = swar::opaque(at.wrapping_add(line));
        // Where the block is another one, no line may begin there.
        if source.chunk(line_at.wrapping_sub(1)).word(0) as u8 != b'\n' {
            return false;
        }
        let Some([from, to]) = source.unread_value(line_at, rules) else {
            return false;
        };
        self.fresh = Fresh {
            line: line as u16,
            from: (from - at) as u16,
            to: (to - at) as u16,
        };
        true
    }

    /// Whether the `len` bytes of a segment may be those of which `all_sums` are.
    #[inline(always)]
    fn is_summed(&self, len: u32, generation: u64) -> bool {
        let line = u32::from(self.line & LENGTH);
        self.line & SUMMED != 0
            && line + u32::from(self.len) == len
            && self.generation == generation
            && self.is_clean()
    }

    /// The first `line` bytes of a segment of `len` were read, and were as usual. Of two lines of one length the second is
    /// remembered, with all that is behind it: true where it is to be. Where the third is another none is looked at for a while,
    /// for most clients ask for something else each time.
    #[inline(always)]
    fn note_line(&mut self, line: u32, len: u32) -> bool {
        let rests = self.line & RESTS;
        let again = u32::from(self.line) == line && len <= MOST;
        let fewer = rests.wrapping_sub(ONE_REST) & RESTS;
        self.line = line as u16 | if rests == 0 { 0 } else { fewer };
        again
    }
}

impl Flow {
    /// Whether [`Flow::recall`] is to be asked of the segment at `start`, in which a request may begin.
    #[inline(always)]
    pub fn may_recall(&mut self, place: Place, start: u32) -> bool {
        const ODD: u32 = RECOVERING | UNREAD | ADRIFT | STARTS | HOLDS;
        self.recalls = Doing::Nothing;
        let next = place as u32 == Place::Next as u32 && start == self.tip;
        let line = self.left as u32 == Left::Line as u32 && self.flags & ODD == 0;
        if !next || !line || self.body != 0 || self.framing != Framing::NONE {
            return false;
        }
        let rests = self.memo.rests;
        // One less, down to none.
        self.memo.rests = rests - (1 ^ swar::is_zero(u32::from(rests))) as u16;
        rests == 0
    }

    /// Whether the segment of `len` bytes may be the last one again, so that [`Flow::knows_all`] is to be asked before
    /// [`Flow::recall`], with the sums of all of it; as there.
    #[inline(always)]
    #[must_use]
    pub fn may_know_all(&self, len: u32, generation: u64) -> bool {
        self.flags & LOSSY == 0 && self.memo.is_summed(len, generation)
    }

    /// What is left out of the sums of all of the segment that is recalled; empty where nothing is.
    #[inline(always)]
    #[must_use]
    pub fn left_out(&self) -> [u32; 2] {
        self.memo.fresh.bounds(u32::from(self.memo.line & LENGTH))
    }

    /// Whether the segment of these sums is the last one again, and may be passed by [`Flow::pass_known`]. `None`: a line ends in
    /// what is left out.
    #[inline(always)]
    pub fn knows_all(&mut self, sums: Option<&Sums>) -> bool {
        let known = sums.is_some_and(|sums| sums.is_as(&self.memo.all_sums));
        if !known {
            self.memo.line = RESTS;
        }
        known
    }

    /// These are the sums of the segment that was recalled.
    #[inline(always)]
    pub fn note_all(&mut self, sums: &Sums) {
        self.memo.all_sums = *sums;
        self.memo.line |= SUMMED;
    }

    /// Before a segment is scanned, which `source` holds whole. `scan` is a state of no more use, `generation` was read before
    /// anything of the list and the rules was.
    #[inline(always)]
    pub fn recall<S: Source + ?Sized>(
        &mut self,
        scan: &mut Scan,
        source: &S,
        keys: &SumKeys,
        rules: &Rules,
        generation: u64,
    ) -> Recalled {
        if self.memo.len == 0 {
            self.memo.note(source);
            return Recalled::Nothing;
        }
        let line = self.memo.block_at(source);
        if line == 0 {
            return Recalled::Nothing;
        }
        if !self.memo.knows_block(source, keys, line, generation) {
            return Recalled::Other;
        }
        self.recalls = Doing::Knows;
        if self.flags & LOSSY == 0 {
            scan.restart();
            source.request_line(scan, rules);
            if scan.begins_block() && scan.pos == line {
                return if self.memo.note_line(line, source.end()) {
                    Recalled::RequestToSum
                } else {
                    Recalled::Request
                };
            }
        }
        Recalled::Line(line)
    }

    /// Of a segment whose block is another one: as [`Flow::recall`].
    #[inline(always)]
    pub fn learn<S: Source + ?Sized>(
        &mut self,
        source: &S,
        keys: &SumKeys,
        rules: &Rules,
        generation: u64,
    ) -> Recalled {
        let at = source.end().wrapping_sub(u32::from(self.memo.len));
        if !self.memo.learn(source, keys, rules, at, generation) {
            return Recalled::Nothing;
        }
        self.recalls = Doing::Learns;
        Recalled::Line(at)
    }

    /// Passes the segment `start..end` at `now`, of which all is known: as [`Flow::pass`] passes a request without a body that
    /// was scanned, in a flow of which [`Flow::may_recall`] was true.
    #[inline(always)]
    pub fn pass_known(&mut self, start: u32, end: u32, now: u64) {
        self.recalls = Doing::Nothing;
        self.memo.misses = 0;
        self.forget_ends();
        self.note_end(end, Left::Line as u32);
        self.quiet = 0;
        self.flags = self.flags & !(DECLARED | CHUNKED | PROVES) | NOISY | PAUSED;
        self.asked = 1;
        self.asked_at = self.answers;
        self.tip = end;
        self.passed_at = now;
        self.note_stamp(start, end);
    }

    /// The scan came to the end of what it was given, behind which the segment ends at `end`.
    #[inline(always)]
    pub fn come_to_end(&mut self, scan: &mut Scan, end: u32) -> Rest {
        if self.recalls as u32 == Doing::Nothing as u32 {
            return Rest::None;
        }
        match tokenblock_come_to_end(self, scan, end) {
            NONE => Rest::None,
            KNOWN => Rest::Known,
            until => Rest::Until(until as u32),
        }
    }

    fn come_to_end_here(&mut self, scan: &mut Scan, end: u32) -> u64 {
        let doing = self.recalls;
        self.recalls = Doing::Nothing;
        if matches!(doing, Doing::Reads) {
            let reported = self.memo.judged as u8 == Judged::Reported as u8;
            if scan.ended_block() && !reported {
                self.memo.judged = Judged::Clean;
            } else {
                self.memo.miss();
            }
            return NONE;
        }
        if !scan.begins_block() {
            if matches!(doing, Doing::ReadsFresh) {
                // The lines in front of the value say something.
                self.memo.fresh = Fresh::NONE;
            }
            self.memo.miss();
            return u64::from(end);
        }
        if matches!(doing, Doing::Knows) {
            self.memo.misses = 0;
            scan.end_block(end);
            return KNOWN;
        }
        scan.begin_block();
        let fresh = self.memo.fresh;
        if matches!(doing, Doing::Learns) && !fresh.is_empty() {
            self.recalls = Doing::ReadsFresh;
            return u64::from(scan.pos + fresh.next());
        }
        self.recalls = Doing::Reads;
        u64::from(end)
    }

    /// Something was found in the segment under judgement that is reported each time.
    #[inline(always)]
    pub fn reports(&mut self) {
        self.memo.judged = Judged::Reported;
    }
}

/// [`Flow::come_to_end`], as [`super::passed::tokenblock_flow_pass`]: a [`Rest`].
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
extern "C" fn tokenblock_come_to_end(flow: *mut Flow, scan: *mut Scan, end: u32) -> u64 {
    // SAFETY: `Flow::come_to_end` passes references; the verifier sees to the rest.
    let (Some(flow), Some(scan)) = (unsafe { (flow.as_mut(), scan.as_mut()) }) else {
        return 0;
    };
    flow.come_to_end_here(scan, end)
}
