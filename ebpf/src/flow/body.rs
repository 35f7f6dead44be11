//! Where messages end: what was said of it, and where.

use super::{
    super::{framing::Framing, swar::forget_registers},
    Conflict, Flow, Left, Place, before,
    record::{AGAIN, CHUNKED, DECLARED, DOUBTED, FRAMED, MORE, NOISY, PAUSED, RECOVERING},
    scans::{ENDED_HEADERS, MAY_END_CHUNKS, SAW_BLANK, SAW_CHUNKS, SAW_HEADER, SAW_NOISE},
};

impl Flow {
    /// Where `body` counts from: while what was lost is sent again, what was passed before is not behind it.
    #[inline(always)]
    pub(super) fn body_from(&self) -> u32 {
        if self.flags & RECOVERING == 0 {
            self.tip
        } else {
            self.high
        }
    }

    /// What the header block says, and how much of a declared body is to come, where a segment is read from; `None`
    /// where that was not kept.
    #[inline(always)]
    pub(super) fn framing_at(&self, place: Place, at: u32) -> Option<(Framing, u64)> {
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
    pub(super) fn framed_last(&self) -> u32 {
        if self.flags & AGAIN == 0 {
            self.framed_to
        } else {
            self.again_to
        }
    }

    /// The segment `at..end` changes the framing.
    #[inline(always)]
    pub(super) fn reframe(&mut self, at: u32, end: u32, framing: Framing, body: u64) {
        let behind = self.knows_settled != 0 && !before(self.settled, self.framed_to);
        if behind && self.flags & (AGAIN | MORE) == AGAIN {
            // Nothing goes back to the first.
            self.framed_from = self.framed_again;
            self.framed_to = self.again_to;
            self.kept_framing = self.again_framing;
            self.kept_body = self.again_body;
            self.flags &= !AGAIN;
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

    /// Whether the segment under judgement says of the message behind its end what was taken for true there.
    pub(super) fn is_framed_so(&self, end: u32) -> bool {
        let recorded = self.recorded_at(end);
        recorded.is_some_and(|(framing, body)| {
            framing.is_as(self.next_framing) && body == self.next_body
        })
    }

    /// Whether the segment under judgement says where a message ends that ends behind it.
    #[inline(always)]
    pub(super) fn declares_end(&self) -> bool {
        self.next_signs & ENDED_HEADERS != 0 && self.next_body != 0
            || self.next_framing.bytes() != 0
    }

    /// What fills a gap, up to `end`, says where a message ends. What was passed behind it was read without this, so that
    /// all of it must be of that message's body.
    #[inline(always)]
    pub(super) fn declare(&mut self, start: u32, end: u32) -> Result<(), Conflict> {
        let passed = u64::from(self.tip.wrapping_sub(end));
        let known = self.flags & RECOVERING != 0 || self.body != 0 || self.framing.bytes() != 0;
        let ended = self.next_signs & ENDED_HEADERS != 0;
        if known || !ended || self.next_body <= passed {
            return Err(Conflict::Gap);
        }
        self.reframe(start, end, Framing::NONE, 0);
        self.body = self.next_body - passed;
        self.flags |= DECLARED | DOUBTED;
        if self.next_signs & SAW_NOISE == 0 {
            self.flags &= !NOISY;
        }
        Ok(())
    }

    /// Whether the segment under judgement, of so many bytes, is the LF of a line end that was cut.
    #[inline(always)]
    fn is_rest_of_line_end(&self, len: u32) -> bool {
        len == 1
            && self.left as u32 == Left::AfterCr as u32
            && self.next_left as u32 == Left::Line as u32
    }

    /// The segment was passed up to `end`, and read from `at` on.
    #[inline(always)]
    pub(super) fn count_body(&mut self, at: u32, end: u32) {
        tokenblock_count_body(self, at, end);
    }

    fn count_here(&mut self, at: u32, end: u32) {
        let (framing, body) = (self.at_framing, self.at_body);
        let len = end.wrapping_sub(at);
        self.quiet = self.quiet.saturating_add(len);
        if self.next_signs & MAY_END_CHUNKS != 0 {
            // Perhaps the end of the last chunk, and a header block comes next.
            self.quiet = 0;
            self.flags |= PAUSED;
        } else if !self.is_rest_of_line_end(len) {
            self.flags &= !PAUSED;
        }
        let len = u64::from(len);
        if self.next_place as u32 == Place::Ahead as u32 {
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
            self.flags &= !(DECLARED | CHUNKED);
        }
        let quiet = self.next_signs & SAW_NOISE == 0;
        if quiet && self.next_signs & ENDED_HEADERS != 0 {
            self.flags |= DECLARED;
            self.flags &= !NOISY;
        }
        if quiet && self.next_signs & SAW_CHUNKS != 0 {
            self.flags |= CHUNKED;
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
}

/// [`Flow::count_body`], under a name that other objects could call, since such a function the verifier walks through once.
/// Gives 0, for it wants a value.
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
extern "C" fn tokenblock_count_body(flow: *mut Flow, at: u32, end: u32) -> u64 {
    // SAFETY: `Flow::count_body` passes a reference; the verifier sees to the rest.
    if let Some(flow) = unsafe { flow.as_mut() } {
        flow.count_here(at, end);
    }
    0
}
