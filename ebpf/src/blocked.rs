//! What is remembered of a flow once one of its requests was blocked: what the client sends on is not judged
//! again, and where its answer may have been lost it is given once more.

use crate::{
    flow::FlowKey,
    packet::Segment,
    reply::{ACK, FIN, FORBIDDEN_LEN, RST, SYN, end_of},
    verdict::OnHit,
};

/// How long a flow stays blocked after its last segment, in nanoseconds: longer than any pause between two
/// retransmissions of a common system (RFC 6298 section 2.5 bounds them at a minute or more).
pub const MEMORY_NS: u64 = 150_000_000_000;
/// Most times that one blocked request is answered.
const MAX_ANSWERS: u32 = 8;
/// Most segments that a client may send behind a 403; each is acknowledged, so that the client comes to read
/// its answer. Beyond them it is reset.
const MAX_LINGERING: u32 = 4096;

/// The flow that a segment from the client is of.
#[inline(always)]
#[must_use]
pub fn flow_of(segment: &Segment) -> FlowKey {
    FlowKey {
        client: segment.source,
        server: segment.destination,
        client_port: segment.source_port,
        server_port: segment.destination_port,
        passes: 0,
    }
}

/// What is remembered of a blocked flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Blocked {
    /// Until when, in nanoseconds since boot.
    pub until: u64,
    /// Sequence number of the segment that bore the token.
    pub hit: u32,
    /// The next sequence number of the client that was not taken.
    pub next: u32,
    /// Sequence number of the answer.
    pub answer: u32,
    /// Answers given after the first.
    pub answers: u32,
    /// The [`OnHit`] that was done.
    pub on_hit: u32,
    /// Zero.
    pub reserved: u32,
}

/// What is done with a segment of a blocked flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Again {
    /// It is of a new connection: the flow is forgotten, the segment judged.
    Forget,
    /// It goes on to the host, whose TCP knows no such connection.
    Pass,
    /// It is dropped.
    Drop,
    /// It is dropped, and the client reset.
    Reset,
    /// It is dropped, and the client given its 403 again.
    Forbid,
    /// It is dropped, and the client told that it was taken.
    Acknowledge,
}

impl Blocked {
    /// A flow blocked by `segment` at `now` (nanoseconds since boot).
    #[inline(always)]
    #[must_use]
    pub fn by(segment: &Segment, on_hit: OnHit, now: u64) -> Self {
        Self {
            until: now + MEMORY_NS,
            hit: segment.sequence,
            next: end_of(segment),
            answer: segment.acknowledgment,
            answers: 0,
            on_hit: on_hit as u32,
            reserved: 0,
        }
    }

    /// The next sequence number towards the client, once it has its 403 and the FIN behind it.
    #[inline(always)]
    #[must_use]
    pub fn after_answer(&self) -> u32 {
        self.answer.wrapping_add(FORBIDDEN_LEN).wrapping_add(1)
    }

    /// What is done with another segment of the client's.
    #[inline(always)]
    pub fn again(&mut self, segment: &Segment, now: u64) -> Again {
        if segment.flags & SYN != 0 || now > self.until {
            return Again::Forget;
        }
        if segment.flags & RST != 0 {
            return Again::Pass;
        }
        self.until = now + MEMORY_NS;
        match OnHit::of(self.on_hit) {
            OnHit::Drop if segment.payload_len == 0 => Again::Pass,
            OnHit::Drop => Again::Drop,
            OnHit::Reset => self.reset_again(segment),
            OnHit::Forbid => self.forbid_again(segment),
        }
    }

    #[inline(always)]
    fn reset_again(&mut self, segment: &Segment) -> Again {
        if segment.payload_len == 0 {
            // The host answers it by RST, as it does for any connection that it does not know.
            return Again::Pass;
        }
        if self.is_final(segment) {
            return Again::Drop;
        }
        self.answers += 1;
        Again::Reset
    }

    #[inline(always)]
    fn forbid_again(&mut self, segment: &Segment) -> Again {
        if segment.payload_len == 0 && segment.flags & FIN == 0 || self.answers > MAX_LINGERING {
            return Again::Drop;
        }
        self.answers += 1;
        if self.answers > MAX_LINGERING {
            return Again::Reset;
        }
        let end = end_of(segment);
        // In order, or a retransmission that brings more.
        if reaches(segment.sequence, self.next) && reaches(self.next, end) {
            self.next = end;
        }
        if self.covers_hit(segment) && segment.acknowledgment == self.answer {
            Again::Forbid
        } else {
            Again::Acknowledge
        }
    }

    /// Whether the segment can be dropped without a look at anything else, because nobody waits for an answer.
    #[inline(always)]
    #[must_use]
    pub fn is_dead(&self, segment: &Segment, now: u64) -> bool {
        let carries = segment.payload_len != 0 && segment.flags & (SYN | RST) == 0;
        carries && now <= self.until && self.is_final(segment)
    }

    #[inline(always)]
    fn is_final(&self, segment: &Segment) -> bool {
        match OnHit::of(self.on_hit) {
            OnHit::Drop => true,
            // What stood in front of the blocked request may not have been acknowledged: its client begins there again.
            OnHit::Reset => self.answers >= MAX_ANSWERS || !reaches(segment.sequence, self.hit),
            OnHit::Forbid => self.answers > MAX_LINGERING,
        }
    }

    /// Whether the segment brings the blocked request again: its answer may have been lost.
    #[inline(always)]
    fn covers_hit(&self, segment: &Segment) -> bool {
        let into = self.hit.wrapping_sub(segment.sequence);
        into < segment.payload_len
    }
}

/// Whether sequence number `a` is at or before `b` (RFC 9293 section 3.4).
#[inline(always)]
fn reaches(a: u32, b: u32) -> bool {
    b.wrapping_sub(a) as i32 >= 0
}

const _: () = assert!(size_of::<FlowKey>() == 40 && size_of::<Blocked>() == 32);
const _: () = assert!(ACK & (FIN | SYN | RST) == 0);

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000;

    /// A segment of the flow at `sequence`.
    fn segment(sequence: u32, payload_len: u32, flags: u8) -> Segment {
        Segment {
            sequence,
            acknowledgment: 500,
            payload_len,
            flags,
            ..Segment::default()
        }
    }

    fn blocked(on_hit: OnHit) -> Blocked {
        // Across the wrap of sequence numbers.
        Blocked::by(&segment(u32::MAX - 49, 100, ACK), on_hit, NOW)
    }

    #[test]
    fn a_new_connection_and_time_make_it_forget() {
        for on_hit in [OnHit::Drop, OnHit::Reset, OnHit::Forbid] {
            let mut flow = blocked(on_hit);
            assert_eq!(flow.again(&segment(7, 0, SYN), NOW), Again::Forget);
            let late = NOW + MEMORY_NS + 1;
            assert_eq!(
                flow.again(&segment(u32::MAX - 49, 9, ACK), late),
                Again::Forget
            );
            assert!(!flow.is_dead(&segment(u32::MAX - 49, 9, ACK), late));
            assert_eq!(flow.again(&segment(50, 0, RST), NOW), Again::Pass);
        }
    }

    #[test]
    fn a_dropped_request_stays_dropped() {
        let mut flow = blocked(OnHit::Drop);
        assert_eq!(
            flow.again(&segment(u32::MAX - 49, 100, ACK), NOW),
            Again::Drop
        );
        assert_eq!(flow.again(&segment(50, 0, ACK), NOW), Again::Pass);
        assert!(flow.is_dead(&segment(50, 1, ACK), NOW));
        assert!(!flow.is_dead(&segment(50, 0, ACK), NOW));
    }

    #[test]
    fn a_lost_reset_is_sent_again_some_times() {
        let mut flow = blocked(OnHit::Reset);
        let retransmission = segment(u32::MAX - 99, 200, ACK);
        for _ in 0..MAX_ANSWERS {
            assert!(!flow.is_dead(&retransmission, NOW));
            assert_eq!(flow.again(&retransmission, NOW), Again::Reset);
        }
        assert!(flow.is_dead(&retransmission, NOW));
        assert_eq!(flow.again(&retransmission, NOW), Again::Drop);
        assert_eq!(flow.again(&segment(50, 10, ACK), NOW), Again::Drop);
        assert_eq!(flow.again(&segment(50, 0, ACK), NOW), Again::Pass);
    }

    #[test]
    fn a_lost_reset_is_sent_again_for_what_stood_in_front() {
        let mut flow = blocked(OnHit::Reset);
        let in_front = segment(u32::MAX - 1499, 1400, ACK);
        assert!(!flow.is_dead(&in_front, NOW));
        assert_eq!(flow.again(&in_front, NOW), Again::Reset);
    }

    #[test]
    fn a_refused_client_is_led_to_its_end() {
        let mut flow = blocked(OnHit::Forbid);
        assert_eq!(flow.after_answer(), 500 + FORBIDDEN_LEN + 1);
        let mut seen = |segment: &Segment| (flow.again(segment, NOW), flow.next);
        assert_eq!(seen(&segment(u32::MAX - 49, 100, ACK)), (Again::Forbid, 50));
        assert_eq!(seen(&segment(50, 0, ACK)), (Again::Drop, 50));
        assert_eq!(seen(&segment(50, 10, ACK)), (Again::Acknowledge, 60));
        // Behind a gap: what was taken is said again.
        assert_eq!(seen(&segment(70, 10, ACK)), (Again::Acknowledge, 60));
        assert_eq!(seen(&segment(50, 30, ACK)), (Again::Acknowledge, 80));
        assert_eq!(seen(&segment(80, 0, ACK | FIN)), (Again::Acknowledge, 81));
        assert_eq!(seen(&segment(80, 0, ACK | FIN)), (Again::Acknowledge, 81));
    }

    #[test]
    fn a_client_that_never_ends_is_reset() {
        let mut flow = blocked(OnHit::Forbid);
        let more = segment(50, 10, ACK);
        for _ in 0..MAX_LINGERING {
            assert_eq!(flow.again(&more, NOW), Again::Acknowledge);
        }
        assert!(!flow.is_dead(&more, NOW));
        assert_eq!(flow.again(&more, NOW), Again::Reset);
        assert!(flow.is_dead(&more, NOW));
        assert_eq!(flow.again(&more, NOW), Again::Drop);
    }
}
