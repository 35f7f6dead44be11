//! What is known of a flow.

use core::{mem::offset_of, time::Duration};

use super::{
    super::{digest::HOLDS_BYTES, framing::Framing, rules::Rules, scan::Scan},
    FlowKey, Left, Place, before,
    ends::{Boundary, ENDS},
    gaps::{OPEN_GAPS, OpenGap},
    memo::{Doing, Memo},
};

/// What is known of a flow. All zero is a flow of which nothing is known.
///
/// Between two packets of a flow so much else is done that each of its cache lines comes from far away. So what a usual
/// packet reads and writes stands in the first ones, in this order: what every packet needs, and what a server's packet
/// changes; what a segment needs besides; what only bodies, losses and second readings do.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Flow {
    /// Whose flow it is; written before it stands in the table, and never again.
    pub key: FlowKey,
    /// Held by the program that judges a segment; the programs' own affair.
    pub lock: u32,
    pub(super) flags: u32,
    /// All before this sequence number is taken by the receiver.
    pub(super) settled: u32,
    /// Behind the last byte that was passed.
    pub(super) tip: u32,
    pub(super) knows_settled: u32,
    /// 1 while nobody but a sender who may be anybody has said that there is such a connection; the programs' own affair,
    /// as `lock`.
    pub newcomer: u32,

    /// When a segment was last passed, in nanoseconds of the monotonic clock.
    pub passed_at: u64,
    /// Behind the last byte that the server sent.
    pub(super) sent: u32,
    pub(super) knows_sent: u32,
    /// Segments with payload that the server sent.
    pub(super) answers: u32,
    /// How the response ends that the server began last: one of [`OVER`], [`AT`], [`IN_CHUNKS`], [`UNTOLD`], [`AWAITED`].
    pub(super) response: u32,
    /// Behind its last byte.
    pub(super) response_end: u32,
    /// Whether a whole header block was passed, and `answers` at that time.
    pub(super) asked: u32,
    pub(super) asked_at: u32,
    /// The timestamp that the receiver echoed last: of the segment that it took last in order (RFC 7323 section 4.3); 0:
    /// none.
    pub(super) echoed: u32,
    /// One of [`OPEN`], [`FINISHED`], [`RESET`], [`LEFT`], [`GONE`].
    pub(super) over: u32,
    /// The timestamp of the last segment that was passed where the receiver stands (0: none), and its end.
    pub(super) stamped: u32,
    pub(super) stamped_to: u32,
    /// How the state was left at `tip`.
    pub(super) left: Left,
    /// Part of the key of the flow's gaps.
    pub epoch: u32,
    /// Bytes passed since the last sign of a header.
    pub(super) quiet: u32,

    /// Bytes of a declared body that are still to come behind `tip`, at least.
    pub(super) body: u64,
    /// What the header block says which is being read.
    pub(super) framing: Framing,
    /// Sets the flow's states apart from another's; see [`Scan::seal`].
    pub(super) salt: u64,
    /// `body` and `framing` where the segment under judgement is read from, and behind it.
    pub(super) at_body: u64,
    pub(super) at_framing: Framing,
    pub(super) next_body: u64,
    pub(super) next_framing: Framing,
    /// What the segment under judgement is, and how it leaves the state at `tip`.
    pub(super) next_place: Place,
    pub(super) next_left: Left,

    /// Its timestamp; 0: none.
    pub(super) next_stamp: u32,
    /// Signs of it: see [`super::scans`].
    pub(super) next_signs: u32,
    /// How the state was left at the gap that it fills.
    pub(super) next_gap: Left,
    /// As what it is read, whether a message may begin with it, and whether it is to be remembered.
    pub(super) next_read: Place,
    pub(super) next_starts: u32,
    pub(super) remembers: u16,
    /// What is under way with what is remembered of its header blocks.
    pub(super) recalls: Doing,
    /// Whether `at_body` and `at_framing` are known.
    pub(super) knows_framing: u16,
    /// Whether it closes that gap, behind which something is kept.
    pub(super) closes: u16,
    /// Behind the first bytes of messages in it that are to be read as well; 0 where none is.
    pub(super) next_fork: u32,
    pub(super) next_fork_again: u32,
    /// All that was passed from here on was read for what begins anywhere, where the flow is adrift.
    pub(super) adrift_from: u32,
    /// What is remembered of its header blocks.
    pub(super) memo: Memo,
    /// Where segments ended that are not settled, the last ones; `ends` counts them.
    pub(super) ends: u32,
    pub(super) ended: [Boundary; ENDS],

    /// How the server's silence is counted while it reads a declared body: the sequence number of the first byte that
    /// counts, and `sent` at that time.
    pub(super) proof_from: u32,
    pub(super) proof_sent: u32,
    /// What was passed unread: from the first of these sequence numbers up to the second.
    pub(super) unread_from: u32,
    pub(super) unread_to: u32,
    /// The epoch to which `open` belongs.
    pub(super) open_epoch: u32,
    /// Where the first segment begins that changed the framing and is not settled, and the last one.
    pub(super) framed_from: u32,
    pub(super) framed_again: u32,
    /// Where they end: what is said inside of them was not kept.
    pub(super) framed_to: u32,
    pub(super) again_to: u32,
    /// `body` and `framing` at `framed_from`.
    pub(super) kept_body: u64,
    pub(super) kept_framing: Framing,
    /// The same at `framed_again`.
    pub(super) again_body: u64,
    pub(super) again_framing: Framing,
    /// Behind the furthest byte that was passed before a recovery; the receiver may hold such bytes.
    pub(super) high: u32,
    /// How the state was left at `high`.
    pub(super) high_left: Left,
    /// The sequence number to which `held` belongs.
    pub(super) held_at: u32,
    /// The sequence numbers of the first and of the last open state that was given up.
    pub(super) gave_up_from: u32,
    pub(super) gave_up_at: u32,
    /// Under which sequence number that stands which is noted for the segment under judgement: its first, or the left end of
    /// the gap in which it lies.
    pub(super) noted_under: u32,
    /// Gaps that are open, as many as fit.
    pub(super) open: [OpenGap; OPEN_GAPS],
    /// Part of the keys of what is noted of copies, and the first sequence number that they are of.
    pub(super) copies: u32,
    pub(super) copied_from: u32,
    /// A digest of the first bytes of the segment under judgement.
    pub(super) next_first: u64,
    /// The signature of `next` as it was before it was sealed.
    pub(super) next_signature: u64,
    /// The state at `tip`, where it was left open.
    pub(super) state: Scan,
    /// The state at the end of the segment under judgement, where it is left open.
    pub(super) next: Scan,
    /// The last open state that is not settled yet.
    pub(super) held: Scan,
}

/// Most bytes of a flow for which the kernel's allocator takes 2 KiB, with what the hash map has in front of it; for more
/// it takes twice as many.
const MOST: usize = 2048 - 64;
const _: () = assert!(HOLDS_BYTES || size_of::<Flow>() <= MOST);

/// Bytes of a cache line.
const LINE: usize = 64;
// The kernel's allocator puts a flow at the start of a line.
const _: () = assert!(
    offset_of!(Flow, passed_at) == LINE
        && offset_of!(Flow, body) == 2 * LINE
        && offset_of!(Flow, next_stamp) == 3 * LINE
        && offset_of!(Flow, ended) < 5 * LINE
);

pub(super) const KNOWS_TIP: u32 = 1;
/// A gap was noted.
pub(super) const GAPS: u32 = 2;
/// `high` is set.
pub(super) const RECOVERING: u32 = 4;
/// `held` is set.
pub(super) const HOLDS: u32 = 8;
/// The last header block declared a length.
pub(super) const DECLARED: u32 = 32;
/// An open state was given up for another.
pub(super) const GAVE_UP: u32 = 16;
/// What was passed first came on a SYN; the server has taken it, or has not said yet whether it did.
pub(super) const ON_SYN: u32 = 64;
/// `framed_from` is set.
pub(super) const FRAMED: u32 = 128;
/// A message may begin at `tip`, though the state there is open.
pub(super) const STARTS: u32 = 512;
/// The same for `held_at`.
pub(super) const HELD_STARTS: u32 = 1024;
/// The declared body has lines that look like headers.
pub(super) const NOISY: u32 = 2048;
/// `framed_again` is set.
pub(super) const AGAIN: u32 = 256;
/// Others changed the framing between `framed_from` and `framed_again`.
pub(super) const MORE: u32 = 1 << 20;
/// Something of the flow was lost or late.
pub(super) const LOSSY: u32 = 1 << 21;
/// A segment that was passed is noted.
pub(super) const NOTED: u32 = 1 << 22;
/// `proof_from` is set: what the server acknowledges from there on without a word is counted.
pub(super) const PROVES: u32 = 4096;
/// What was passed unread is known.
pub(super) const TRUSTS: u32 = 8192;
/// What is before `tip` was passed unread, and is trusted no more: it may be the start of a line, or of a request line.
pub(super) const UNREAD: u32 = 16384;
/// Something was read in this connection by which its server may end messages elsewhere.
pub(super) const DOUBTED: u32 = 32768;
/// Where messages end is not known from here on: parameters are looked for anywhere.
pub(super) const ADRIFT: u32 = 1 << 23;
/// The last header block said that its message comes in chunks.
pub(super) const CHUNKED: u32 = 1 << 24;
/// What was passed last may be the end of chunks.
pub(super) const PAUSED: u32 = 1 << 25;
/// Something was passed for a body of which the head is missing; see [`super::guess`].
pub(super) const GUESSES: u32 = 1 << 26;
/// The segment under judgement is of the head that is missing.
pub(super) const OF_HEAD: u32 = 1 << 27;
/// The first bytes of the segment under judgement can be of a body alone.
pub(super) const OF_BODY: u32 = 1 << 30;
/// [`ADRIFT`] is set for nothing but the guess.
pub(super) const DRIFTS: u32 = 1 << 28;
/// A part of what is missing in front of a guess was passed.
pub(super) const HEADED: u32 = 1 << 29;
/// There were gaps when the recovery began, of which the bounds stand in `open`: what was passed before ends where they begin, and
/// nothing of it follows.
pub(super) const HOLED: u32 = 1 << 31;
/// The bounds of a gap are not in `open`, though it may be there.
pub(super) const MISSES_GAP: u32 = 1 << 16;
/// A second copy of what the receiver was still without did not pass as one: what comes next there is read anew.
pub(super) const DIFFERED: u32 = 1 << 17;
/// Beside [`COPIES`], under which there is no such copy: parts of a segment were passed again.
pub(super) const PARTED: u32 = DIFFERED;
/// What is passed is noted, so that copies of it pass: see [`super::copies`].
pub(super) const COPIES: u32 = 1 << 18;
/// Something of the connection was.
pub(super) const COPIED: u32 = 1 << 19;
/// `knows_settled`: from the SYN-ACK alone, which the server may send for several connections of the same ends and
/// keep none of (SYN cookies).
pub(super) const ACCEPTED: u32 = 1;
/// `knows_settled`: the server has acknowledged data.
pub(super) const ACKNOWLEDGED: u32 = 2;
/// What is quiet for less may be under judgement.
const OVER_FOR: Duration = Duration::from_secs(1);
/// Longer than most clients wait between two requests.
const IDLE: Duration = Duration::from_secs(30);
/// No server waits longer for the rest of a line.
const FORSAKEN: Duration = Duration::from_hours(1);
/// When a connection that is over, or of which the server never took anything, is gone for certain: data on a SYN may wait
/// for the rest of the handshake for two minutes and seven seconds (`tcp_synack_retries`, and one more).
const DEAD: Duration = Duration::from_mins(3);
/// `over`: as far as it is known, the connection goes on.
pub(super) const OPEN: u32 = 0;
/// `over`: the server sends no more.
pub(super) const FINISHED: u32 = 1;
/// `over`: the server has reset it.
pub(super) const RESET: u32 = 2;
/// `over`: the client has reset it, if the server has heard that.
pub(super) const LEFT: u32 = 3;
/// `over`: the same, and the server sends no more.
pub(super) const GONE: u32 = 4;
/// `response`: nothing of one is to come.
pub(super) const OVER: u32 = 0;
/// `response`: it ends at `response_end`.
pub(super) const AT: u32 = 1;
/// `response`: it ends with the last chunk.
pub(super) const IN_CHUNKS: u32 = 2;
/// `response`: it may go on.
pub(super) const UNTOLD: u32 = 3;
/// `response`: interim ones came, and it is still to begin.
pub(super) const AWAITED: u32 = 4;

impl Flow {
    /// A flow of which nothing is known.
    #[must_use]
    pub fn new(rules: &Rules) -> Self {
        let scan = Scan::new(rules);
        Self {
            key: FlowKey::default(),
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
            echoed: 0,
            stamped: 0,
            stamped_to: 0,
            next_stamp: 0,
            next_read: Place::Settled,
            next_starts: 0,
            remembers: 0,
            next_first: 0,
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
            adrift_from: 0,
            noted_under: 0,
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
            newcomer: 0,
            ended: [Boundary { at: 0, from: 0 }; ENDS],
            ends: 0,
            open_epoch: 0,
            open: [OpenGap::NONE; OPEN_GAPS],
            copies: 0,
            copied_from: 0,
            salt: 0,
            next_signature: 0,
            memo: Memo::NONE,
            recalls: Doing::Nothing,
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
        self.echoed = 0;
        self.stamped = 0;
        self.knows_sent = 0;
        self.response = OVER;
        self.asked = 0;
        self.over = OPEN;
        self.body = 0;
        self.framing = Framing::NONE;
        self.quiet = 0;
        self.ends = 0;
        self.forget_copies();
        self.memo.forget();
    }

    /// Whether the flow may be forgotten, of which no segment was passed for `quiet`; `crowded`: others need its place.
    ///
    /// What comes next can't be judged without one that stands inside a candidate, or whose server holds what is behind
    /// a gap: it stays until its server has ended it or would hardly wait any longer. The client's word is none: the server
    /// may not have heard it, and what comes next may overlap what it has, so that where the flow stood must be known.
    #[must_use]
    pub fn may_go(&self, quiet: Duration, crowded: bool) -> bool {
        let ended = matches!(self.over, FINISHED | RESET | GONE);
        if self.is_settled() {
            return quiet > OVER_FOR && ended || crowded && quiet > IDLE;
        }
        // No server has said a word of such a connection but that there is none.
        let none = self.over == RESET && self.knows_settled == 0;
        if none && quiet > OVER_FOR {
            return true;
        }
        quiet > DEAD && (ended || self.knows_settled != ACKNOWLEDGED) || crowded && quiet > FORSAKEN
    }

    /// Whether the server has all that was passed, and the flow does not stand inside a candidate.
    fn is_settled(&self) -> bool {
        let settled = self.knows_settled != 0 && !before(self.settled, self.tip);
        settled && self.flags & KNOWS_TIP != 0 && self.left != Left::Open
    }
}
