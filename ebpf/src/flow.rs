//! The stream of a flow, made exact without a copy of it.
//!
//! Every byte of a flow is passed once. What is passed is scanned from the state in which the byte before it
//! was left, so the application can read nothing that was not judged in its place: a second copy of bytes that
//! the receiver has not acknowledged is dropped, whatever it says. See "The flow engine" in ARCHITECTURE.md.

use super::{
    behind::Behind,
    digest::HOLDS_BYTES,
    framing::Framing,
    packet::Address,
    response::Said,
    rules::Rules,
    scan::Scan,
    swar::{forget_registers, is_zero},
};

/// Scans that a segment may need, and one more to say what came of the last.
pub const STEPS: u32 = 6;
/// Bytes without a sign of a header after which data ahead of a gap is passed: it belongs to a body.
const BULK: u32 = 16 * 1024;
/// Bytes before the end of a declared body that are always read, so that the next message is read from its first byte
/// with everything in order.
const MARGIN: u64 = 64 * 1024;
/// Furthest from what is settled that a receiver's window can reach (RFC 7323 section 2.2).
const WINDOW: u32 = 1 << 30;
/// Ends of segments that are remembered; a power of two.
const ENDS: usize = 32;
/// Nanoseconds after which the receiver has acknowledged all that it took: the longest delayed
/// acknowledgment of Linux (`TCP_DELACK_MAX`, 200 ms) and what its timers may be late, so that what is not settled was
/// lost behind the hook.
const RECOVERY: i64 = 220_000_000;

/// The half of a connection that carries requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FlowKey {
    /// Who sends requests.
    pub client: Address,
    /// Who is sent them.
    pub server: Address,
    /// The client's port.
    pub client_port: u16,
    /// The protected port.
    pub server_port: u16,
    /// Zero.
    pub reserved: u32,
}

impl FlowKey {
    /// The key of the flow that stands in on a CPU for those for which there is no room; `hook` is 0 or 1.
    #[inline(always)]
    #[must_use]
    pub fn stand_in(cpu: u32, hook: u32) -> Self {
        Self {
            client: Address::UNSPECIFIED,
            server: Address::UNSPECIFIED,
            client_port: 0,
            server_port: 0,
            reserved: cpu << 1 | hook,
        }
    }
}

/// What a segment is to its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Place {
    /// The receiver has all of it: passed unread.
    Settled = 0,
    /// It begins where the last one ended.
    Next = 1,
    /// The first one that was seen of its flow; the scan does not know whether a line begins there.
    First = 2,
    /// Ahead of a gap inside a body: passed, and the gap noted.
    Ahead = 3,
    /// It lies inside a gap, at its left end.
    Filler = 4,
    /// The receiver lost what was passed before; it begins where the receiver stands.
    Recovery = 5,
    /// Ahead of a gap while a header block may be open: dropped, TCP sends it again in order.
    TooEarly = 6,
    /// A second copy of bytes that were passed and are not settled: dropped.
    Duplicate = 7,
    /// Further away than any window, or of another connection: dropped, as the receiver would.
    OutOfWindow = 8,
}

/// Why a segment can't be passed after it was scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Conflict {
    /// It ends inside a candidate, and what follows was passed already.
    Gap = 0,
    /// It can be read in two ways, and both end inside a candidate.
    Ambiguous = 1,
}

/// How the scanner's state was left, in short; what can't be said so is kept whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Left {
    /// Nothing up to the next line end can be part of a candidate.
    Closed = 0,
    /// At the first byte of a line.
    Line = 1,
    /// In a request target, before its query.
    Target = 2,
    /// In what may be a method, and is no location's name.
    Method = 3,
    /// Between a CR and the LF that may follow; then at the first byte of a line.
    AfterCr = 4,
    /// Elsewhere: the state is needed.
    Open = 5,
}

impl Left {
    /// How `scan` was left.
    #[inline(always)]
    #[must_use]
    pub fn of(scan: &Scan, rules: &Rules) -> Self {
        if scan.is_closed() {
            Self::Closed
        } else if scan.is_plain_line() || scan.is_indented() {
            Self::Line
        } else if scan.is_plain_cr() {
            Self::AfterCr
        } else if scan.is_target() {
            Self::Target
        } else if scan.is_method(rules) {
            Self::Method
        } else {
            Self::Open
        }
    }

    /// Whether what was scanned as the start of a line and as a target was also scanned from here.
    #[inline(always)]
    #[must_use]
    pub fn is_light(self) -> bool {
        (self as u32) < Self::Open as u32
    }
}

/// A gap between what was passed, noted under its flow and its left end.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Gap {
    /// Sequence number of the first byte behind it that was passed.
    pub right: u32,
    /// How the state was left at its left end.
    pub left: Left,
    /// 1 where what is behind it can't be the rest of a header's name.
    pub plain: u32,
    /// Zero.
    pub reserved: u32,
    /// What stands behind it.
    pub behind: Behind,
}

impl Gap {
    /// None.
    pub const NONE: Self = Self {
        right: 0,
        left: Left::Closed,
        plain: 0,
        reserved: 0,
        behind: Behind::NONE,
    };

    /// Takes a copy of another.
    #[inline(always)]
    pub fn copy(&mut self, from: &Self) {
        self.right = from.right;
        self.left = from.left;
        self.plain = from.plain;
        self.behind.copy(&from.behind);
    }
}

/// The key of a [`Gap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct GapKey {
    /// The flow.
    pub flow: FlowKey,
    /// Sequence number of the first byte that is missing.
    pub at: u32,
    /// The flow's epoch: gaps of an older connection, or before a recovery, are none any more.
    pub epoch: u32,
}

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

/// Where a segment ended.
#[derive(Clone, Copy)]
#[repr(C)]
struct Boundary {
    at: u32,
    /// From which state what was passed behind it was read: a [`Left`], [`AHEAD`], or of [`OPEN_STATE`].
    from: u32,
}

/// As the start of a line and as a target, which is from all light states.
const AHEAD: u32 = u32::MAX;
/// From an open state, of which the rest is a part of its signature; not [`AHEAD`].
const OPEN_STATE: u32 = 1 << 31;
/// From none of them.
const UNKNOWN: u32 = OPEN_STATE - 1;

/// What is known of a flow. All zero is a flow of which nothing is known.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Flow {
    /// Held by the program that judges a segment; the programs' own affair.
    pub lock: u32,
    flags: u32,
    knows_settled: u32,
    knows_sent: u32,
    /// Behind the last byte that the server sent.
    sent: u32,
    /// Segments with payload that the server sent.
    answers: u32,
    /// How the response ends that the server began last: one of [`OVER`], [`AT`], [`IN_CHUNKS`], [`UNTOLD`], [`AWAITED`].
    response: u32,
    /// Behind its last byte.
    response_end: u32,
    /// Whether a whole header block was passed, and `answers` at that time.
    asked: u32,
    asked_at: u32,
    /// All before this sequence number is taken by the receiver.
    settled: u32,
    /// Behind the last byte that was passed.
    tip: u32,
    /// Behind the furthest byte that was passed before a recovery; the receiver may hold such bytes.
    high: u32,
    /// How the state was left at `high`.
    high_left: Left,
    /// Where the first segment begins that changed the framing and is not settled, and the last one.
    framed_from: u32,
    framed_again: u32,
    /// Where they end: what is said inside of them was not kept.
    framed_to: u32,
    again_to: u32,
    /// One of [`OPEN`], [`FINISHED`], [`RESET`].
    over: u32,
    /// Bytes passed since the last sign of a header.
    quiet: u32,
    /// Bytes of a declared body that are still to come behind `tip`, at least.
    body: u64,
    /// What the header block says which is being read.
    framing: Framing,
    /// `body` and `framing` at `framed_from`.
    kept_body: u64,
    /// The same at `framed_again`.
    again_framing: Framing,
    again_body: u64,
    kept_framing: Framing,
    /// `body` and `framing` where the segment under judgement is read from, and whether they are known there.
    at_body: u64,
    at_framing: Framing,
    knows_framing: u32,
    /// What the segment under judgement is, and how the state was left at the gap that it fills.
    next_place: Place,
    next_gap: Left,
    /// Whether it closes that gap, behind which something is kept.
    closes: u32,
    /// Behind the first bytes of messages in it that are to be read as well; 0 where none is.
    next_fork: u32,
    next_fork_again: u32,
    reserved: u32,
    /// How the server's silence is counted while it reads a declared body: the sequence number of the first byte that
    /// counts, and `sent` at that time.
    proof_from: u32,
    proof_sent: u32,
    /// What was passed unread: from the first of these sequence numbers up to the second.
    unread_from: u32,
    unread_to: u32,
    /// `body` and `framing` behind the segment under judgement.
    next_body: u64,
    next_framing: Framing,
    /// When a segment was last passed, in nanoseconds of the monotonic clock.
    pub passed_at: u64,
    /// How the state was left at `tip`.
    left: Left,
    /// How the segment under judgement leaves it.
    next_left: Left,
    /// The sequence number to which `held` belongs.
    held_at: u32,
    /// The sequence numbers of the first and of the last open state that was given up.
    gave_up_from: u32,
    gave_up_at: u32,
    /// Bits from [`SAW_HEADER`] to [`STILL_UNREAD`], of the segment under judgement.
    next_signs: u32,
    /// Part of the key of the flow's gaps.
    pub epoch: u32,
    /// Where segments ended that are not settled, the last ones; `ends` counts them.
    ended: [Boundary; ENDS],
    ends: u32,
    /// Sets the flow's states apart from another's; see [`Scan::seal`].
    salt: u64,
    /// The signature of `next` as it was before it was sealed.
    next_signature: u64,
    /// The state at `tip`, where it was left open.
    state: Scan,
    /// The state at the end of the segment under judgement, where it is left open.
    next: Scan,
    /// The last open state that is not settled yet.
    held: Scan,
}

const SAW_HEADER: u32 = 1;
const ENDED_HEADERS: u32 = 2;
const SAW_BLANK: u32 = 4;
const SAW_HTTP2: u32 = 8;
/// A message may begin behind the segment, though it leaves an open state.
const ENDS_BODY: u32 = 16;
/// The segment begins with a word that is no header's name.
const PLAIN: u32 = 32;
/// The segment holds more than empty lines.
const SAW_WORD: u32 = 64;
/// A header block says in two ways where its message ends.
const SAW_AMBIGUOUS: u32 = 128;
/// The segment may be the rest of a request target as well as what it was read as.
const STILL_UNREAD: u32 = 256;
/// What stands behind the gap is read on from the segment's end.
const READS_BEHIND: u32 = 512;
/// There the candidate ends in which the segment does.
const LEFT_BEHIND: u32 = 1024;
/// The segment is read as a request target as well.
const READS_TARGET: u32 = 2048;
/// Signs of any scan of a segment; the others are those of the last.
const OF_ANY: u32 = SAW_HTTP2
    | ENDS_BODY
    | SAW_AMBIGUOUS
    | STILL_UNREAD
    | READS_TARGET
    | READS_BEHIND
    | LEFT_BEHIND;

const KNOWS_TIP: u32 = 1;
/// A gap was noted.
const GAPS: u32 = 2;
/// `high` is set.
const RECOVERING: u32 = 4;
/// `held` is set.
const HOLDS: u32 = 8;
/// The last header block declared a length.
const DECLARED: u32 = 32;
/// An open state was given up for another.
const GAVE_UP: u32 = 16;
/// What was passed came on a SYN; the server has not said yet whether it took it.
const ON_SYN: u32 = 64;
/// `framed_from` is set.
const FRAMED: u32 = 128;
/// A message may begin at `tip`, though the state there is open.
const STARTS: u32 = 512;
/// The same for `held_at`.
const HELD_STARTS: u32 = 1024;
/// The declared body has lines that look like headers.
const NOISY: u32 = 2048;
/// `framed_again` is set.
const AGAIN: u32 = 256;
/// Others changed the framing between `framed_from` and `framed_again`.
const MORE: u32 = 1 << 20;
/// `proof_from` is set: what the server acknowledges from there on without a word is counted.
const PROVES: u32 = 4096;
/// What was passed unread is known.
const TRUSTS: u32 = 8192;
/// What is before `tip` was passed unread, and is trusted no more: it may be the start of a line, or of a request line.
const UNREAD: u32 = 16384;
/// Something was read in this connection by which its server may end messages elsewhere.
const DOUBTED: u32 = 32768;

/// `knows_settled`: from the SYN-ACK alone, which the server may send for several connections of the same ends and
/// keep none of (SYN cookies).
const ACCEPTED: u32 = 1;
/// `knows_settled`: the server has acknowledged data.
const ACKNOWLEDGED: u32 = 2;

/// `over`: as far as it is known, the connection goes on.
const OPEN: u32 = 0;
/// `over`: the server sends no more.
const FINISHED: u32 = 1;
/// `over`: one end has reset it.
const RESET: u32 = 2;

/// `response`: nothing of one is to come.
const OVER: u32 = 0;
/// `response`: it ends at `response_end`.
const AT: u32 = 1;
/// `response`: it ends with the last chunk.
const IN_CHUNKS: u32 = 2;
/// `response`: it may go on.
const UNTOLD: u32 = 3;
/// `response`: interim ones came, and it is still to begin.
const AWAITED: u32 = 4;

/// What [`tokenblock_flow_pass`] gives: one of these, or [`NOTE`] and a gap's left end.
const PASSED: u64 = 0;
const GAP: u64 = 1;
const AMBIGUOUS: u64 = 2;
const NOTE: u64 = 1 << 32;
/// What [`tokenblock_flow_start`] gives.
const NOTHING: u64 = u64::MAX;
const ONE_LINE: u64 = 1 << 32;
const READ_BEHIND: u64 = 1 << 33;

/// [`Flow::pass`], under a name that other objects could call: such a function the verifier walks through once, and not
/// behind each way through a scan.
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
extern "C" fn tokenblock_flow_pass(
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
    match flow.pass_here(start, end, now, gap) {
        Ok(None) => PASSED,
        Ok(Some(at)) => NOTE | u64::from(at),
        Err(Conflict::Gap) => GAP,
        Err(Conflict::Ambiguous) => AMBIGUOUS,
    }
}

/// [`Flow::start`], as [`tokenblock_flow_pass`]: the offset and perhaps [`ONE_LINE`], or [`NOTHING`].
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
extern "C" fn tokenblock_flow_start(
    flow: *mut Flow,
    scan: *mut Scan,
    rules: *const Rules,
    step: u32,
    start: u32,
) -> u64 {
    // SAFETY: `Flow::start` passes references; the verifier sees to the rest.
    let (Some(flow), Some(scan), Some(rules)) =
        (unsafe { (flow.as_mut(), scan.as_mut(), rules.as_ref()) })
    else {
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

/// [`Flow::end`], as [`tokenblock_flow_pass`].
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
extern "C" fn tokenblock_flow_end(
    flow: *mut Flow,
    scan: *mut Scan,
    rules: *const Rules,
    first_line_only: u32,
) -> u64 {
    // SAFETY: `Flow::end` passes references; the verifier sees to the rest.
    let (Some(flow), Some(scan), Some(rules)) =
        (unsafe { (flow.as_mut(), scan.as_mut(), rules.as_ref()) })
    else {
        return AMBIGUOUS;
    };
    match flow.end_here(scan, rules, first_line_only != 0) {
        Ok(()) => PASSED,
        Err(_) => AMBIGUOUS,
    }
}

/// Whether sequence number `a` is before `b` (RFC 9293 section 3.4).
#[inline(always)]
#[must_use]
pub const fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

impl Flow {
    /// A flow of which nothing is known.
    #[must_use]
    pub fn new(rules: &Rules) -> Self {
        let scan = Scan::new(rules);
        Self {
            lock: 0,
            flags: 0,
            knows_settled: 0,
            knows_sent: 0,
            sent: 0,
            answers: 0,
            response: OVER,
            response_end: 0,
            asked: 0,
            asked_at: 0,
            settled: 0,
            tip: 0,
            high: 0,
            high_left: Left::Closed,
            framed_from: 0,
            framed_again: 0,
            framed_to: 0,
            again_to: 0,
            kept_body: 0,
            again_framing: Framing::NONE,
            again_body: 0,
            kept_framing: Framing::NONE,
            at_body: 0,
            at_framing: Framing::NONE,
            knows_framing: 0,
            proof_from: 0,
            proof_sent: 0,
            unread_from: 0,
            unread_to: 0,
            over: OPEN,
            quiet: 0,
            body: 0,
            framing: Framing::NONE,
            next_body: 0,
            next_framing: Framing::NONE,
            passed_at: 0,
            left: Left::Closed,
            next_left: Left::Closed,
            held_at: 0,
            gave_up_from: 0,
            gave_up_at: 0,
            next_signs: 0,
            epoch: 0,
            next_place: Place::Settled,
            next_gap: Left::Closed,
            closes: 0,
            next_fork: 0,
            next_fork_again: 0,
            reserved: 0,
            ended: [Boundary { at: 0, from: 0 }; ENDS],
            ends: 0,
            salt: 0,
            next_signature: 0,
            state: scan,
            next: scan,
            held: scan,
        }
    }

    /// Forgets all.
    #[inline(always)]
    pub fn forget(&mut self) {
        self.flags = 0;
        self.knows_settled = 0;
        self.knows_sent = 0;
        self.response = OVER;
        self.asked = 0;
        self.over = OPEN;
        self.body = 0;
        self.framing = Framing::NONE;
        self.quiet = 0;
        self.ends = 0;
    }

    /// How the segment under judgement leaves the flow.
    #[inline(always)]
    #[must_use]
    pub fn leaves(&self) -> Left {
        self.next_left
    }

    /// The receiver acknowledges all before `ack`: what its own packets say, so no decoy moves it. May run while
    /// another CPU judges a segment, so it writes nothing that judging writes.
    #[inline(always)]
    pub fn settle(&mut self, ack: u32) {
        if self.knows_settled == 0 || before(self.settled, ack) {
            self.settled = ack;
            self.knows_settled = ACKNOWLEDGED;
        }
    }

    /// The server ends the connection, by RST or by FIN: what comes from its client afterwards may be of another.
    /// As [`Flow::settle`].
    #[inline(always)]
    pub fn end_by_server(&mut self, reset: bool) {
        if reset {
            self.over = RESET;
        } else if self.over == OPEN {
            self.over = FINISHED;
        }
    }

    /// The client sends RST with this sequence number. Only one that stands where the server may is believed, as
    /// the server does (RFC 5961 section 3.2). As [`Flow::settle`].
    #[inline(always)]
    pub fn end_by_client(&mut self, sequence: u32) {
        let known = self.knows_settled != 0 && self.flags & KNOWS_TIP != 0;
        if known && !before(sequence, self.settled) && !before(self.tip, sequence) {
            self.over = RESET;
        }
    }

    /// The receiver sends `len` bytes from sequence number `start` on. As [`Flow::settle`].
    #[inline(always)]
    pub fn answer(&mut self, start: u32, len: u32) {
        let end = start.wrapping_add(len);
        if len > 0 {
            self.answers = self.answers.wrapping_add(1);
        }
        if self.knows_sent == 0 || before(self.sent, end) {
            self.sent = end;
            self.knows_sent = 1;
        }
    }

    /// Whether a response may begin at sequence number `start`, so that its head is to be read: behind another one, or
    /// where a request is unanswered, as what was told of the one before (to HEAD, say) may be wrong.
    #[inline(always)]
    #[must_use]
    pub fn may_begin_response(&self, start: u32) -> bool {
        let next = self.knows_sent == 0 || start == self.sent;
        let unanswered = self.asked != 0 && self.asked_at == self.answers;
        next && (unanswered || self.response == AWAITED || self.has_responded())
    }

    /// What is said at sequence number `start`, where a response may begin. As [`Flow::settle`].
    #[inline(always)]
    pub fn begin_response(&mut self, start: u32, said: Said) {
        self.response = match said {
            Said::Bytes(count) => {
                self.response_end = start.wrapping_add(count);
                AT
            }
            Said::Chunks => IN_CHUNKS,
            Said::Interim => AWAITED,
            Said::Nothing | Said::Unknown => UNTOLD,
        };
    }

    /// Whether the response that was begun last comes in chunks, so that its end is to be looked for.
    #[inline(always)]
    #[must_use]
    pub fn responds_in_chunks(&self) -> bool {
        self.response == IN_CHUNKS
    }

    /// The last chunk was sent. As [`Flow::settle`].
    #[inline(always)]
    pub fn end_chunks(&mut self) {
        self.response = OVER;
    }

    /// Whether the response that was begun last is over.
    #[inline(always)]
    fn has_responded(&self) -> bool {
        self.response == OVER || self.response == AT && self.response_end == self.sent
    }

    /// Whether the server owes the client nothing, so that an answer in its place is understood as one to the
    /// segment that acknowledges `acknowledgment`.
    #[inline(always)]
    #[must_use]
    pub fn owes_nothing(&self, acknowledgment: u32) -> bool {
        let answered = self.asked == 0 || self.asked_at != self.answers;
        answered && (self.knows_sent == 0 || self.sent == acknowledgment && self.has_responded())
    }

    /// Whether a gap may be noted for the flow. Where the receiver has all that was passed there is none any more.
    #[inline(always)]
    #[must_use]
    pub fn has_gaps(&mut self) -> bool {
        if self.flags & GAPS == 0 {
            return false;
        }
        let closed = self.knows_settled != 0 && self.settled == self.tip;
        if closed {
            self.flags &= !GAPS;
            self.epoch = self.epoch.wrapping_add(1);
        }
        !closed
    }

    /// The receiver accepts a connection, and has taken all before `ack`. What is known of an older connection
    /// is forgotten, and so is what came with the SYN and was not taken.
    #[inline(always)]
    pub fn accept(&mut self, ack: u32) {
        const TAKEN: u32 = KNOWS_TIP | ON_SYN;
        self.epoch = self.epoch.wrapping_add(1);
        let taken = self.flags & TAKEN == TAKEN && self.tip == ack;
        self.settled = ack;
        self.knows_settled = ACCEPTED;
        self.over = OPEN;
        if taken {
            self.flags &= !ON_SYN;
            return;
        }
        self.flags = KNOWS_TIP;
        self.knows_sent = 0;
        self.response = OVER;
        self.asked = 0;
        self.body = 0;
        self.framing = Framing::NONE;
        self.tip = ack;
        self.left = Left::Line;
        self.quiet = 0;
        self.ends = 0;
    }

    /// Places data on a SYN (RFC 7413), the bytes from `start` on: the beginning of a connection. While an older
    /// one is remembered it is dropped, and the client sends its SYN again without.
    #[inline(always)]
    pub fn place_on_syn(&mut self, start: u32) -> Place {
        if self.flags & KNOWS_TIP != 0 || self.knows_settled != 0 {
            return Place::OutOfWindow;
        }
        self.flags = KNOWS_TIP | ON_SYN;
        self.tip = start;
        self.left = Left::Line;
        Place::Next
    }

    /// Places the segment of the bytes `start..end` (sequence numbers). `gap` is what is noted under `start`.
    #[inline(always)]
    pub fn place(&mut self, start: u32, end: u32, now: u64, gap: Option<&Gap>) -> Place {
        if self.salt == 0 {
            self.salt = now | 1;
        }
        let knows_settled = self.knows_settled != 0;
        if self.knows_settled == ACCEPTED || self.over != OPEN {
            // No data is settled yet, or no more is: what stands before is of another connection.
            let behind = knows_settled && before(start, self.settled);
            if behind || !self.may_go_on(start) {
                return Place::OutOfWindow;
            }
        }
        if knows_settled && !before(self.settled, end) {
            return Place::Settled;
        }
        if knows_settled && self.flags & KNOWS_TIP != 0 && before(self.tip, self.settled) {
            self.catch_up();
        }
        if self.flags & KNOWS_TIP == 0 {
            return Place::First;
        }
        if knows_settled && before(self.gave_up_at, self.settled) {
            self.flags &= !GAVE_UP;
        }
        if knows_settled && !before(self.settled, self.framed_last()) {
            self.flags &= !(FRAMED | AGAIN | MORE);
        }
        forget_registers();
        let knows_settled = self.knows_settled != 0;
        let lost = now.wrapping_sub(self.passed_at) as i64 >= RECOVERY;
        if knows_settled && before(self.tip, self.settled) {
            // Another hole in what was passed before a recovery.
            return if lost && start == self.settled {
                Place::Recovery
            } else {
                Place::Duplicate
            };
        }
        if start == self.tip {
            return Place::Next;
        }
        let distance = start.wrapping_sub(if knows_settled {
            self.settled
        } else {
            self.tip
        }) as i32;
        if !(-(WINDOW as i32)..WINDOW as i32).contains(&distance) {
            return Place::OutOfWindow;
        }
        if before(self.tip, start) {
            return if self.in_body(end) && self.keeps_tip() {
                Place::Ahead
            } else {
                Place::TooEarly
            };
        }
        if knows_settled && self.settled == self.tip {
            // Its first bytes are settled; the receiver reads on from the tip.
            return Place::Next;
        }
        if let Some(gap) = gap
            && !before(gap.right, end)
            && (gap.left.is_light() || self.holds(start))
        {
            return Place::Filler;
        }
        if knows_settled && lost && !before(self.settled, start) {
            return Place::Recovery;
        }
        Place::Duplicate
    }

    /// Passes the segment `start..end` unread at `now`, where that may be: `after` so many bytes (0: never).
    #[inline(always)]
    pub fn pass_trusted(&mut self, start: u32, end: u32, after: u32, now: u64) -> bool {
        tokenblock_pass_trusted(self, start, end, after, now) != 0
    }

    /// Whether the segment `start..end` may be passed unread, for it lies inside a declared body that the server's
    /// application is known to read as one: it has taken `after` bytes of it, more than any buffer holds, and not said a
    /// word, though to a server that does not read a body here they were requests, or nonsense. See "Trusted bodies" in
    /// ARCHITECTURE.md.
    #[inline(always)]
    fn trusts(&mut self, start: u32, end: u32, after: u32) -> bool {
        if self.flags & (PROVES | TRUSTS) == 0
            || self.knows_settled != ACKNOWLEDGED
            || !before(self.settled, end)
        {
            return false;
        }
        let silent = self.sent == self.proof_sent && self.over == OPEN;
        if !silent || self.flags & RECOVERING != 0 || before(self.tip, self.settled) {
            if self.flags & TRUSTS != 0 && self.tip == self.unread_to {
                self.flags |= UNREAD;
            }
            self.flags &= !(PROVES | TRUSTS);
            return false;
        }
        if self.flags & TRUSTS == 0 {
            let taken = self.settled.wrapping_sub(self.proof_from) as i32;
            if after == 0 || taken < after as i32 {
                return false;
            }
            self.flags |= TRUSTS;
            self.unread_from = self.tip;
            self.unread_to = self.tip;
        }
        // What is settled is harmless.
        let start = if before(start, self.settled) {
            self.settled
        } else {
            start
        };
        if before(start, self.unread_from) {
            return false;
        }
        if !before(self.unread_to, end) {
            // A second copy, or a gap.
            return true;
        }
        let beyond_window = !before(end, self.settled.wrapping_add(WINDOW));
        if self.flags & PROVES == 0 || self.tip != self.unread_to || beyond_window {
            return false;
        }
        u64::from(end.wrapping_sub(self.tip)) + MARGIN <= self.body
    }

    /// The segment up to `end` was passed unread.
    #[inline(always)]
    fn pass_unread(&mut self, end: u32, now: u64) {
        self.passed_at = now;
        if before(self.unread_from, self.settled) {
            self.unread_from = self.settled;
        }
        if !before(self.unread_to, end) {
            return;
        }
        self.body -= u64::from(end.wrapping_sub(self.tip));
        self.tip = end;
        self.unread_to = end;
        self.left = Left::Closed;
        self.flags &= !STARTS;
    }

    /// Whether a segment at `start` may be of this connection, should it be over. What comes behind the server's
    /// FIN may also be the start of another.
    #[inline(always)]
    fn may_go_on(&self, start: u32) -> bool {
        let either = matches!(self.left, Left::Closed | Left::Line);
        self.over == OPEN
            || self.over == FINISHED && self.flags & KNOWS_TIP != 0 && start == self.tip && either
    }

    /// The receiver has taken more than was passed since a recovery: it held what was passed before. Or it took
    /// what was not seen here, and its stream is read from where it stands.
    #[inline(always)]
    fn catch_up(&mut self) {
        if self.flags & RECOVERING == 0 || before(self.high, self.settled) {
            self.flags &= !(KNOWS_TIP | RECOVERING | PROVES | TRUSTS);
        } else if self.settled == self.high {
            self.flags &= !RECOVERING;
            self.tip = self.high;
            self.left = self.high_left;
            if !self.left.is_light() {
                self.state.copy(&self.held);
                self.set_starts(self.flags & HELD_STARTS != 0);
            }
        }
    }

    /// Whether a message may begin at the tip, though the state there is open.
    #[inline(always)]
    fn set_starts(&mut self, starts: bool) {
        if starts {
            self.flags |= STARTS;
        } else {
            self.flags &= !STARTS;
        }
    }

    /// Whether the state at the tip is known still when a gap that begins there is filled. Only one open state is kept,
    /// and that for the first gap: another's would keep the first from being filled piece by piece.
    #[inline(always)]
    fn keeps_tip(&self) -> bool {
        self.left.is_light() || self.flags & GAPS == 0
    }

    /// Whether all up to `end` belongs to a body. A length that was declared is believed; without one (chunks,
    /// a protocol upgrade) much that showed no sign of a header is taken for a body. A lie gains a reset.
    #[inline(always)]
    fn in_body(&self, end: u32) -> bool {
        let ahead = u64::from(end.wrapping_sub(self.tip));
        self.flags & (RECOVERING | UNREAD) == 0 && self.over == OPEN && self.is_body(ahead)
    }

    #[inline(always)]
    fn is_body(&self, ahead: u64) -> bool {
        ahead <= self.body && (self.flags & NOISY == 0 || self.quiet >= BULK)
            || self.flags & DECLARED == 0 && self.quiet >= BULK && self.left.is_light()
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
        let begun = tokenblock_flow_start(self, scan, rules, step, start);
        (begun != NOTHING).then_some(Start {
            offset: begun as u32,
            first_line_only: begun & ONE_LINE != 0,
            behind: begun & READ_BEHIND != 0,
        })
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
        let left = match place {
            Place::Next => self.left,
            Place::Filler => gap,
            _ => Left::Closed,
        };
        let next = place as u32 == Place::Next as u32;
        let held = self.holds(at) && !next;
        let exact = next && self.flags & UNREAD == 0 || matches!(place, Place::Filler) || held;
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
            scan.restart_in_target();
            scan.continue_message(offset, self.at_framing, self.at_body);
            return Some(Start {
                offset,
                first_line_only: true,
                behind: false,
            });
        }
        if step > 0 {
            return self.read_on(scan, rules);
        }
        match left {
            Left::Open if next => {
                scan.resume(&self.state);
                scan.seal(rules, self.salt);
            }
            _ if held => {
                scan.resume(&self.held);
                scan.seal(rules, self.salt);
            }
            // A message may begin with the segment, though what is before it did not end its line.
            Left::Closed if next => scan.restart_anywhere(),
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
        if next && self.flags & STARTS != 0 || held && self.flags & HELD_STARTS != 0 {
            scan.fork_here();
        }
        Some(Start {
            offset,
            first_line_only: false,
            behind: false,
        })
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
        if self.closes == 0 || self.next_left.is_light() {
            return None;
        }
        self.next_signs |= READS_BEHIND;
        scan.resume(&self.next);
        scan.seal(rules, self.salt);
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

    /// Where `body` counts from: while what was lost is sent again, what was passed before is not behind it.
    #[inline(always)]
    fn body_from(&self) -> u32 {
        if self.flags & RECOVERING == 0 {
            self.tip
        } else {
            self.high
        }
    }

    /// What the header block says, and how much of a declared body is to come, where a segment is read from; `None`
    /// where that was not kept.
    #[inline(always)]
    fn framing_at(&self, place: Place, at: u32) -> Option<(Framing, u64)> {
        let next = place as u32 == Place::Next as u32;
        if next && self.flags & RECOVERING == 0 {
            return Some((self.framing, self.body));
        }
        if place as u32 == Place::Ahead as u32 {
            let distance = u64::from(at.wrapping_sub(self.tip));
            return Some((Framing::NONE, self.body.saturating_sub(distance)));
        }
        if !next && place as u32 != Place::Recovery as u32 {
            return Some((Framing::NONE, 0));
        }
        self.recorded_at(at)
    }

    /// The same of a place in what was passed and is not settled.
    #[inline(always)]
    fn recorded_at(&self, at: u32) -> Option<(Framing, u64)> {
        let (framing, body, from) = if self.flags & FRAMED != 0 && !before(self.framed_from, at) {
            (self.kept_framing, self.kept_body, self.framed_from)
        } else if self.is_inside(at) {
            return None;
        } else if self.flags & AGAIN != 0 && !before(self.framed_again, at) {
            if self.flags & MORE != 0 {
                return None;
            }
            (self.again_framing, self.again_body, self.framed_again)
        } else {
            (self.framing, self.body, self.body_from())
        };
        if framing.bytes() != 0 && !self.holds(at) {
            // It is not known either whether an empty line may begin here.
            return None;
        }
        let distance = if body == 0 {
            0
        } else {
            u64::from(from.wrapping_sub(at))
        };
        Some((framing, body + distance))
    }

    /// Whether `at` lies inside a segment that changed the framing.
    #[inline(always)]
    fn is_inside(&self, at: u32) -> bool {
        let first = self.flags & FRAMED != 0 && before(at, self.framed_to);
        let again = before(self.framed_again, at) && before(at, self.again_to);
        first || self.flags & AGAIN != 0 && again
    }

    /// Where the last segment ends that changed the framing.
    #[inline(always)]
    fn framed_last(&self) -> u32 {
        if self.flags & AGAIN == 0 {
            self.framed_to
        } else {
            self.again_to
        }
    }

    /// The segment `at..end` changes the framing.
    #[inline(always)]
    fn reframe(&mut self, at: u32, end: u32, framing: Framing, body: u64) {
        if self.knows_settled != 0 && !before(self.settled, self.framed_to) {
            // Nothing goes back behind it.
            if self.flags & (AGAIN | MORE) == AGAIN {
                self.framed_from = self.framed_again;
                self.framed_to = self.again_to;
                self.kept_framing = self.again_framing;
                self.kept_body = self.again_body;
                self.flags &= !AGAIN;
            } else if self.flags & AGAIN == 0 {
                self.flags &= !FRAMED;
            }
        }
        if self.flags & FRAMED == 0 {
            self.flags |= FRAMED;
            self.framed_from = at;
            self.framed_to = end;
            self.kept_framing = framing;
            self.kept_body = body;
            return;
        }
        if self.flags & AGAIN != 0 {
            self.flags |= MORE;
        }
        self.flags |= AGAIN;
        self.framed_again = at;
        self.again_to = end;
        self.again_framing = framing;
        self.again_body = body;
    }

    #[inline(always)]
    fn holds(&self, at: u32) -> bool {
        self.flags & HOLDS != 0 && self.held_at == at
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
        self.next_gap = gap.left;
        let closes = place as u32 == Place::Filler as u32 && gap.right == end;
        self.closes = u32::from(closes && !gap.behind.is_empty());
        self.next_left = Left::Closed;
        self.next_signs = 0;
        self.next_body = 0;
        self.next_framing = Framing::NONE;
        let framing = self.framing_at(place, self.reads_from(place, start));
        self.knows_framing = u32::from(framing.is_some());
        (self.at_framing, self.at_body) = framing.unwrap_or((Framing::NONE, 0));
    }

    /// Where a segment is read from.
    #[inline(always)]
    fn reads_from(&self, place: Place, start: u32) -> u32 {
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
    pub fn end(
        &mut self,
        place: Place,
        begun: Start,
        scan: &mut Scan,
        rules: &Rules,
    ) -> Result<(), Conflict> {
        self.next_place = place;
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
        if left as u32 == Left::Closed as u32 {
            return Ok(());
        }
        if self.next_left as u32 != Left::Closed as u32 {
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
        self.next_left = left;
        if !left.is_light() {
            if HOLDS_BYTES {
                self.next_signature = scan.signature();
            }
            self.next.copy(scan);
            self.next.seal(rules, self.salt);
        }
        Ok(())
    }

    /// Takes from a scan what no declared body of this connection is trusted after. In mid-stream a chunked body may be
    /// under way.
    #[inline(always)]
    fn doubt(&mut self, place: Place, scan: &Scan) {
        let filler = place as u32 == Place::Filler as u32;
        let odd = if filler {
            !scan.framing.is_as(Framing::NONE)
        } else {
            scan.is_odd() || place as u32 == Place::First as u32
        };
        if odd || scan.is_doubtful() || scan.saw_http2() || scan.has_forked() {
            self.flags |= DOUBTED;
        }
    }

    /// The signature of `next`, which may be sealed.
    #[inline(always)]
    fn signature_of_next(&self) -> u64 {
        if HOLDS_BYTES {
            self.next_signature
        } else {
            self.next.signature()
        }
    }

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
        match tokenblock_flow_pass(self, gap, start, end, now) {
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
        match place {
            Place::Filler => {
                note = self.fill(start, end, gap)?;
                self.passed_at = now;
                return Ok(note);
            }
            Place::Ahead => {
                note = Some(self.tip);
                gap.right = start;
                gap.left = self.left;
                gap.plain = u32::from(self.next_signs & PLAIN != 0);
                if !self.left.is_light() && !self.holds(self.tip) {
                    self.give_up_held();
                }
                self.leave_tip();
                self.flags |= GAPS;
            }
            _ if self.knows_framing == 0 => return Err(Conflict::Gap),
            Place::Recovery => self.recover(end)?,
            _ => self.leave_tip(),
        }
        if self.flags & RECOVERING != 0 {
            if before(end, self.high) {
                // What was passed behind it must have been read as it is to be read now.
                if !self.is_read_from(end, left) || !self.is_framed_so(end) {
                    return Err(Conflict::Gap);
                }
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
        if self.knows_settled != 0 && self.settled == self.tip {
            self.ends = 0;
        }
        if place as u32 == Place::Ahead as u32 {
            self.note_end(start, AHEAD);
        }
        if left as u32 != Left::Closed as u32 || self.flags & GAVE_UP != 0 {
            self.note_end(end, self.next_from());
        }
        self.count_body(place, at, end, left);
        self.commit(end, left, now);
        Ok(note)
    }

    /// How the segment under judgement leaves the scanner, in a word.
    #[inline(always)]
    fn next_from(&self) -> u32 {
        let left = self.next_left;
        if left.is_light() {
            left as u32
        } else {
            (self.signature_of_next() as u32 | OPEN_STATE) & !1
        }
    }

    /// A segment ended at `at`; what is behind it is read from there.
    fn note_end(&mut self, at: u32, from: u32) {
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
    fn is_read_from(&self, at: u32, left: Left) -> bool {
        if left as u32 == Left::Closed as u32 {
            return true;
        }
        let read_from = self.noted_at(at);
        read_from == self.next_from() || read_from == AHEAD && left.is_light()
    }

    /// From which state what was passed behind `at` was read; [`UNKNOWN`] where that is not remembered.
    fn noted_at(&self, at: u32) -> u32 {
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

    /// Whether the segment under judgement says of the message behind its end what was taken for true there.
    fn is_framed_so(&self, end: u32) -> bool {
        let recorded = self.recorded_at(end);
        recorded.is_some_and(|(framing, body)| {
            framing.is_as(self.next_framing) && body == self.next_body
        })
    }

    /// The segment fills `gap` up to `end`; what is left of it takes its place, and its left end is given back.
    fn fill(&mut self, start: u32, end: u32, gap: &mut Gap) -> Result<Option<u32>, Conflict> {
        let left = self.next_left;
        let closes = gap.right == end;
        if !closes {
            self.hold(start, end, left)?;
        }
        if self.declares_end() {
            self.declare(start, end)?;
        }
        if !closes {
            gap.left = left;
            self.note_end(end, self.next_from());
            return Ok(Some(end));
        }
        // The rest of a name that has no colon behind it was read as what it is.
        let name = gap.plain != 0 && self.next.is_name();
        if left.is_light() {
            return Ok(None);
        }
        // With white space behind it, it may be a header's at some servers.
        self.flags |= DOUBTED;
        if name || self.next_signs & LEFT_BEHIND != 0 {
            Ok(None)
        } else {
            Err(Conflict::Gap)
        }
    }

    /// What was passed from what is settled on was lost behind the hook, or is held by the receiver: the tip goes
    /// back.
    #[inline(always)]
    fn recover(&mut self, end: u32) -> Result<(), Conflict> {
        if self.gave_up(self.settled) && self.noted_at(self.settled) >= Left::Open as u32 {
            return Err(Conflict::Gap);
        }
        self.epoch = self.epoch.wrapping_add(1);
        // The word from which on the server's silence counts may be among what it never got.
        self.flags &= !(PROVES | TRUSTS);
        if self.flags & RECOVERING == 0 || before(self.high, self.tip) {
            self.high = self.tip;
            self.high_left = self.left;
            self.flags |= RECOVERING;
            if before(end, self.high) {
                self.leave_tip();
            }
        }
        if before(end, self.high) && !self.high_left.is_light() && !self.holds(self.high) {
            return Err(Conflict::Gap);
        }
        self.tip = end;
        Ok(())
    }

    /// Whether the segment under judgement says where a message ends that ends behind it.
    #[inline(always)]
    fn declares_end(&self) -> bool {
        self.next_signs & ENDED_HEADERS != 0 && self.next_body != 0
            || self.next_framing.bytes() != 0
    }

    /// What fills a gap, up to `end`, says where a message ends. What was passed behind it was read without this, so that
    /// all of it must be of that message's body.
    #[inline(always)]
    fn declare(&mut self, start: u32, end: u32) -> Result<(), Conflict> {
        let passed = u64::from(self.tip.wrapping_sub(end));
        let known = self.flags & RECOVERING != 0 || self.body != 0 || self.framing.bytes() != 0;
        let ended = self.next_signs & ENDED_HEADERS != 0;
        if known || !ended || self.next_body <= passed {
            return Err(Conflict::Gap);
        }
        self.reframe(start, end, Framing::NONE, 0);
        self.body = self.next_body - passed;
        self.flags |= DECLARED | DOUBTED;
        self.flags &= !NOISY;
        Ok(())
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
            | u32::from(scan.is_ambiguous()) << 7;
    }

    /// The segment was passed up to `end`, and read from `at` on.
    #[inline(always)]
    fn count_body(&mut self, place: Place, at: u32, end: u32, left: Left) {
        let (framing, body) = (self.at_framing, self.at_body);
        let len = end.wrapping_sub(at);
        self.quiet = self.quiet.saturating_add(len);
        if self.next_signs & SAW_BLANK != 0 && matches!(left, Left::Line | Left::AfterCr) {
            // Perhaps the end of the last chunk, and a header block comes next.
            self.quiet = 0;
        }
        let len = u64::from(len);
        if place as u32 == Place::Ahead as u32 {
            if body != 0 && body <= len {
                self.reframe(at, end, framing, body);
            }
            self.body = body.saturating_sub(len);
            return;
        }
        let ended_body = body != 0 && body <= len;
        let counted =
            self.next_framing.is_as(framing) && self.next_body == body.saturating_sub(len);
        if !counted || ended_body {
            self.reframe(at, end, framing, body);
        }
        forget_registers();
        self.body = self.next_body;
        self.framing = self.next_framing;
        forget_registers();
        if self.next_signs & SAW_HEADER != 0 {
            self.quiet = 0;
            self.flags |= NOISY;
            self.flags &= !DECLARED;
        }
        if self.next_signs & ENDED_HEADERS != 0 {
            self.flags |= DECLARED;
            self.flags &= !NOISY;
        }
        forget_registers();
        if self.next_signs & SAW_BLANK != 0 {
            self.asked = 1;
            self.asked_at = self.answers;
        }
        forget_registers();
        self.count_silence(body > len, end);
    }

    /// The segment was read up to `end`; `inside`: the same body began before it and ends behind it. From the first word of
    /// a body on, at which a server that reads none must say something, the server's silence counts.
    #[inline(always)]
    fn count_silence(&mut self, inside: bool, end: u32) {
        if !inside || self.flags & DOUBTED != 0 {
            self.flags &= !PROVES;
        } else if self.flags & PROVES == 0 && self.next_signs & SAW_WORD != 0 {
            self.flags = self.flags & !TRUSTS | PROVES;
            self.proof_from = end;
            self.proof_sent = self.sent;
        }
    }

    #[inline(always)]
    fn commit(&mut self, end: u32, left: Left, now: u64) {
        self.tip = end;
        self.flags |= KNOWS_TIP;
        if self.flags & RECOVERING == 0 && self.next_signs & STILL_UNREAD == 0 {
            self.flags &= !UNREAD;
        }
        if self.next_signs & ENDS_BODY == 0 {
            self.flags &= !STARTS;
        } else {
            self.flags |= STARTS;
        }
        self.left = left;
        self.passed_at = now;
        if !left.is_light() {
            self.state.copy(&self.next);
        }
    }

    /// Before the tip moves on from an open state: the receiver may turn out to stand there.
    #[inline(always)]
    fn leave_tip(&mut self) {
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
    fn gave_up(&self, at: u32) -> bool {
        self.flags & GAVE_UP != 0 && !before(at, self.gave_up_from) && !self.holds(at)
    }

    /// Another state is about to be held.
    #[inline(always)]
    fn give_up_held(&mut self) {
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
    fn hold(&mut self, start: u32, at: u32, left: Left) -> Result<(), Conflict> {
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

    /// Whether nothing is lost if the flow is forgotten: all that was passed is settled, and the flow does not
    /// stand inside a candidate.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let settled = self.knows_settled != 0 && !before(self.settled, self.tip);
        settled && self.flags & KNOWS_TIP != 0 && self.left != Left::Open
    }
}

/// [`Flow::pass_trusted`], under a name that other objects could call, since such a function the verifier walks through
/// once. Gives 1 where the segment is passed.
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
extern "C" fn tokenblock_pass_trusted(
    flow: *mut Flow,
    start: u32,
    end: u32,
    after: u32,
    now: u64,
) -> u64 {
    // SAFETY: `Flow::pass_trusted` passes a reference; the verifier sees to the rest.
    let Some(flow) = (unsafe { flow.as_mut() }) else {
        return 0;
    };
    if !flow.trusts(start, end, after) {
        return 0;
    }
    flow.pass_unread(end, now);
    1
}
