//! Bodies that are passed unread: see "Trusted bodies" in ARCHITECTURE.md.

use super::{
    super::{framing::Framing, scan::Scan, swar::forget_registers},
    Flow, Left, Place, before,
    place::WINDOW,
    record::{
        ACKNOWLEDGED, ADRIFT, DECLARED, DOUBTED, DRIFTS, OPEN, PROVES, RECOVERING, STARTS, TRUSTS,
        UNREAD,
    },
    scans::{IN_BODY, SAW_ADRIFT, SAW_WORD},
};

/// Bytes before the end of a declared body that are always read, so that the next message is read from its first byte
/// with everything in order.
const MARGIN: u64 = 64 * 1024;

impl Flow {
    /// Passes the segment `start..end` unread at `now`, where that may be: `after` so many bytes (0: never).
    #[inline(always)]
    pub fn pass_trusted(&mut self, start: u32, end: u32, after: u32, now: u64) -> bool {
        // Most segments are of no such body, and need no call.
        self.flags & (PROVES | TRUSTS) != 0
            && tokenblock_pass_trusted(self, start, end, after, now) != 0
    }

    /// Whether the segment `start..end` may be passed unread, for it lies inside a declared body that the server's
    /// application is known to read as one: it has taken `after` bytes of it, more than any buffer holds, and not said a
    /// word, though to a server that does not read a body here they were requests, or nonsense. See "Trusted bodies" in
    /// ARCHITECTURE.md.
    #[inline(always)]
    fn trusts(&mut self, start: u32, end: u32, after: u32) -> bool {
        if self.knows_settled != ACKNOWLEDGED || !before(self.settled, end) {
            return false;
        }
        let silent = self.sent == self.proof_sent && self.over == OPEN;
        if !silent || self.flags & RECOVERING != 0 || before(self.tip, self.settled) {
            if self.flags & TRUSTS != 0 && self.tip == self.unread_to {
                // A server that says something in a body may have left it unread.
                self.flags |= UNREAD | ADRIFT;
                self.adrift_from = self.tip;
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
        self.settle_marks();
        self.forget_far_ends();
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

    /// Takes from a scan what no declared body of this connection is trusted after. In mid-stream a chunked body may be
    /// under way.
    #[inline(always)]
    pub(super) fn doubt(&mut self, place: Place, scan: &Scan) {
        let odd = if place.fills() && !self.is_of_head() {
            !scan.framing.is_as(Framing::NONE)
        } else {
            scan.is_odd() || place as u32 == Place::First as u32
        };
        if odd || scan.is_doubtful() || scan.saw_http2() || scan.has_forked() {
            self.flags |= DOUBTED;
        }
        forget_registers();
        self.turn_adrift(scan);
    }

    /// Takes from a scan whether servers may end messages where it is not known here.
    #[inline(always)]
    fn turn_adrift(&mut self, scan: &Scan) {
        if self.is_guessed() {
            // It is read so in any case.
            return;
        }
        let place = self.next_read;
        // What fills a gap in a declared body is of no head.
        let in_body =
            place.fills() && (self.flags & DECLARED != 0 || self.next_signs & IN_BODY != 0);
        // What is said ahead of a gap of where a message ends is not kept.
        let framed = scan.ended_headers() || !scan.framing.is_as(Framing::NONE);
        let ahead = place.is_early() && framed;
        let first = place as u32 == Place::First as u32;
        let adrift = first || ahead || scan.is_adrift() || scan.is_odd() && !in_body;
        if !adrift {
            return;
        }
        self.next_signs |= SAW_ADRIFT;
        self.flags &= !DRIFTS;
        if self.flags & ADRIFT == 0 {
            self.flags |= ADRIFT;
            self.adrift_from = self.body_from();
        }
    }

    /// The connection was accepted, and passed some that no flow was kept of: where messages end is not known.
    #[inline(always)]
    pub fn begin_adrift(&mut self) {
        self.flags |= ADRIFT | DOUBTED;
        self.adrift_from = self.tip;
    }

    /// Whether the segment up to `end` is to set the flow adrift, though what was passed behind it was not read for what
    /// begins anywhere.
    #[inline(always)]
    pub(super) fn turns_adrift(&self, end: u32) -> bool {
        self.next_signs & SAW_ADRIFT != 0 && before(end, self.adrift_from)
    }

    /// The segment was read up to `end`; `inside`: the same body began before it and ends behind it. From the first word of
    /// a body on, at which a server that reads none must say something, the server's silence counts.
    #[inline(always)]
    pub(super) fn count_silence(&mut self, inside: bool, end: u32) {
        if !inside || self.flags & DOUBTED != 0 {
            self.flags &= !PROVES;
        } else if self.flags & PROVES == 0 && self.next_signs & SAW_WORD != 0 {
            self.flags = self.flags & !TRUSTS | PROVES;
            self.proof_from = end;
            self.proof_sent = self.sent;
        }
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
