//! What both ends say of their connection: what is settled, answered, over.

use super::{
    super::{framing::Framing, response::Said},
    Flow, Left, Place, before,
    place::RECOVERY,
    record::{
        ACCEPTED, ACKNOWLEDGED, AT, AWAITED, FINISHED, GONE, IN_CHUNKS, KNOWS_TIP, LEFT, ON_SYN,
        OPEN, OVER, RESET, UNTOLD,
    },
};

impl Flow {
    /// The receiver acknowledges all before `ack`: what its own packets say, so no decoy moves it. May run while
    /// another CPU judges a segment, so it writes nothing that judging writes.
    #[inline(always)]
    pub fn settle(&mut self, ack: u32) {
        if self.knows_settled == 0 || before(self.settled, ack) {
            self.settled = ack;
            self.knows_settled = ACKNOWLEDGED;
        }
    }

    /// Whether the server has acknowledged data.
    #[inline(always)]
    #[must_use]
    pub fn is_acknowledged(&self) -> bool {
        self.knows_settled == ACKNOWLEDGED
    }

    /// The server ends the connection, by RST or by FIN: what comes from its client afterwards may be of another.
    /// As [`Flow::settle`].
    #[inline(always)]
    pub fn end_by_server(&mut self, reset: bool) {
        if reset {
            self.over = RESET;
        } else if self.over == OPEN {
            self.over = FINISHED;
        } else if self.over == LEFT {
            self.over = GONE;
        }
    }

    /// The client sends RST with this sequence number. Only one that stands where the server may is believed, as
    /// the server does (RFC 5961 section 3.2). As [`Flow::settle`].
    #[inline(always)]
    pub fn end_by_client(&mut self, sequence: u32) {
        let known = self.knows_settled != 0 && self.flags & KNOWS_TIP != 0;
        if known
            && !before(sequence, self.settled)
            && !before(self.tip, sequence)
            && self.over != RESET
        {
            self.over = if matches!(self.over, FINISHED | GONE) {
                GONE
            } else {
                LEFT
            };
        }
    }

    /// The program has the server get RST with this sequence number, which ends the connection if the server awaits it. As
    /// [`Flow::settle`].
    #[inline(always)]
    pub fn end_by_program(&mut self, sequence: u32) {
        if self.knows_settled != 0 && sequence == self.settled {
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

    /// The receiver accepts a connection at `now`, and has taken all before `ack`. What is known of an older connection
    /// is forgotten, and so is what came with the SYN and was not taken.
    #[inline(always)]
    pub fn accept(&mut self, ack: u32, now: u64) {
        const TAKEN: u32 = KNOWS_TIP | ON_SYN;
        self.epoch = self.epoch.wrapping_add(1);
        self.forget_copies();
        // The server says so again until it hears the client.
        let again = self.knows_settled == ACCEPTED && self.settled == ack;
        let first = self.knows_settled == 0 && self.tip == ack;
        // It may have been on its way when what follows was passed, which the server may have taken since.
        let crossed = again && (now.wrapping_sub(self.passed_at) as i64) < RECOVERY;
        let taken = self.flags & TAKEN == TAKEN && (again || first) || crossed;
        self.settled = ack;
        self.knows_settled = ACCEPTED;
        self.echoed = 0;
        self.stamped = 0;
        self.over = OPEN;
        if taken {
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

    /// Whether a segment at `start` may be of this connection, should it be over. What comes behind the server's
    /// FIN may also be the start of another.
    #[inline(always)]
    pub(super) fn may_go_on(&self, start: u32) -> bool {
        let either = matches!(self.left, Left::Closed | Left::Line);
        self.over == OPEN
            || self.over == FINISHED && self.flags & KNOWS_TIP != 0 && start == self.tip && either
    }
}
