//! Where a message ends: lengths, bodies, and what makes them doubtful.

use super::super::{
    framing::Framing,
    location::LocationId,
    rules::{CONTENT_LENGTH, TRANSFER_ENCODING},
    swar,
};
use super::{
    ADRIFT, AMBIGUOUS, BEFORE_CHUNKS, BLANK, CHUNKS, Chunk, DOUBT, ENDED, FAR, FIELD, Mode, NO_END,
    NO_LENGTH, ODD, SIGN, SIGN_BEFORE, Scan, Source,
};

/// Of an empty line behind `Transfer-Encoding`.
const CODED: u32 = CHUNKS | BEFORE_CHUNKS;

impl Scan {
    #[inline(always)]
    pub(super) fn forget_message(&mut self) {
        self.headers = 0;
        self.framing = Framing::NONE;
        self.body_end = NO_END;
        self.base = 0;
        self.fork_at = 0;
        self.fork_again_at = 0;
    }

    /// Tells of the message in which the scan begins, `offset` bytes behind what `base` counts from: what its header
    /// block says so far, and how much of a declared body is still to come.
    #[inline(always)]
    pub fn continue_message(&mut self, offset: u32, framing: Framing, body: u64) {
        self.base = offset;
        self.framing = framing;
        if body > 0 {
            self.end_body_at(body);
        }
    }

    /// The declared body ends so far behind position 0.
    #[inline(always)]
    fn end_body_at(&mut self, end: u64) {
        let near = swar::least_long(end, FAR);
        self.body_end = near as u32;
        self.beyond = end - near;
    }

    /// The source moves on: its next byte will have position 0.
    #[inline(always)]
    pub fn rebase(&mut self) {
        self.base = self.base.wrapping_add(self.pos);
        if self.body_end != NO_END {
            self.end_body_at(self.body_left());
        }
        self.pos = 0;
    }

    /// A declared body is over, so a message begins, though perhaps not at the start of a line. Framing may
    /// lie: what is being read goes on being read, and the message is read from its first byte as well; both at once
    /// where that can be.
    #[inline(always)]
    pub(super) fn end_body(&mut self) {
        self.body_end = NO_END;
        // As behind an empty line, what begins here is looked at more closely than a field.
        self.headers &= !(ENDED | FIELD);
        self.framing = Framing::NONE;
        if self.is_closed() {
            self.mode = Mode::Line;
            self.fold = Mode::Skip;
            self.after_cr = 0;
        } else if matches!(self.mode, Mode::BeforeTarget | Mode::Target) {
            // What looks like the end of a target may be that of a method.
            self.fold = Mode::BeforeTarget;
        } else if matches!(self.mode, Mode::Name | Mode::Method) || self.is_plain_line() {
            // The message's method may be the rest of this one, or begin with the line.
        } else {
            self.fork_here();
        }
    }

    /// A message may begin at the position as well.
    #[inline(always)]
    pub fn fork_here(&mut self) {
        let at = self.base.wrapping_add(self.pos).wrapping_add(1);
        if self.fork_at == 0 {
            self.fork_at = at;
        } else if self.fork_again_at == 0 {
            self.fork_again_at = at;
        } else {
            self.fork_again_at = NO_END;
        }
    }

    /// Whether messages begin at more places than can be read.
    #[inline(always)]
    #[must_use]
    pub fn forks_again(&self) -> bool {
        self.fork_again_at == NO_END
    }

    /// At the end of a segment: if a declared body is over with it, what follows may be a message. True where it must
    /// be read as one as well.
    #[inline(always)]
    pub fn finish_body(&mut self) -> bool {
        if self.body_end == NO_END || self.pos < self.body_end {
            return false;
        }
        let (first, again) = (self.fork_at, self.fork_again_at);
        self.end_body();
        let forks = self.fork_at != first || self.fork_again_at != again;
        (self.fork_at, self.fork_again_at) = (first, again);
        forks
    }

    /// Whether what is read belongs to a declared body.
    #[inline(always)]
    pub(super) fn in_body(&self) -> bool {
        self.body_end != NO_END
    }

    /// Something that looks odd was read. In a body anything may.
    #[inline(always)]
    pub(super) fn doubt_outside_body(&mut self) {
        self.headers |= swar::is_zero(self.body_end ^ NO_END) * ODD;
    }

    /// Something that looks like a request was read. In a body a server that reads none there may take it for one.
    #[inline(always)]
    pub(super) fn doubt_in_body(&mut self) {
        let outside = swar::is_zero(self.body_end ^ NO_END);
        self.headers |= (1 ^ outside) * DOUBT;
    }

    /// A line with a colon behind its first word, in no header block and no declared body, is a request line to servers that
    /// take any method.
    #[inline(always)]
    pub(super) fn doubt_unbegun(&mut self) {
        let outside = swar::is_zero(self.body_end ^ NO_END);
        self.headers |= (1 ^ u32::from(self.framing.is_begun())) * outside * ODD;
    }

    /// [`AMBIGUOUS`] in a header block.
    #[inline(always)]
    pub(super) fn ambiguous_in_block(&self) -> u32 {
        u32::from(self.framing.is_begun()) * AMBIGUOUS
    }

    /// A line begins with this name, which servers may take for a header's though no colon is behind it.
    #[inline(always)]
    pub(super) fn doubt_name(&mut self, location: LocationId, byte: u8) {
        let length = swar::is_zero(u32::from(location ^ CONTENT_LENGTH));
        let coding = swar::is_zero(u32::from(location ^ TRANSFER_ENCODING));
        let outside = swar::is_zero(self.body_end ^ NO_END);
        // Where a line ends, no server sees a field.
        let white = u32::from(byte != b'\r' && byte != b'\n');
        let ambiguous = self.ambiguous_in_block() * outside * white;
        self.headers |= (length | coding) * (ADRIFT | ambiguous);
    }

    /// A request line was read. What looks like one, behind a length, may be of the same header block.
    #[inline(always)]
    pub(super) fn begin_message(&mut self) {
        self.headers |= self.framing.declares_unbegun() * ADRIFT;
        self.framing = self.framing.begin();
    }

    /// An empty line begins at the position: after it comes the body, if one was declared.
    #[inline(always)]
    pub(super) fn end_headers(&mut self) {
        // The first line of a message is looked at more closely than those of its fields.
        self.headers = (self.headers | BLANK) & !FIELD;
        self.blank_at = self.base.wrapping_add(self.pos).wrapping_add(1);
        if self.in_body() {
            return;
        }
        let length = self.framing.bytes();
        let coded = self.framing.is_coded();
        // In chunks it may look like another head.
        let first = swar::is_zero(self.headers & CHUNKS);
        self.headers &= !BEFORE_CHUNKS;
        self.headers |= coded * CODED;
        self.leave_head(coded & first);
        self.framing = Framing::NONE;
        if length == 0 {
            return;
        }
        // The LF of a CR LF is taken for granted: a byte more or less costs a fork at the most.
        let body = self.pos + 1 + self.after_cr;
        self.headers |= ENDED;
        self.leave_head(first);
        self.end_body_at(u64::from(body) + length);
    }

    /// What is behind the position is a body, if `begins` is 1: another sign of a header is one in that.
    #[inline(always)]
    fn leave_head(&mut self, begins: u32) {
        let sign = self.headers & SIGN & begins;
        self.headers = self.headers & !sign | (sign * SIGN_BEFORE);
    }

    /// Behind a line end stands no LF, as far as it is known. Where it is a CR, it is one at few servers.
    #[inline(always)]
    pub(super) fn doubt_cr(&mut self) {
        self.headers |= swar::is_zero(self.body_end ^ NO_END) * self.after_cr * ODD;
    }

    /// Takes the name of a header that says where its message ends.
    #[inline(always)]
    pub(super) fn enter_framing(&mut self, location: LocationId) {
        self.mode = Mode::Skip;
        if self.in_body() || self.name_ended != 0 {
            // To a server that reads no body here it is one, or to one that takes other separators for hyphens.
            self.headers |= ADRIFT;
            return;
        }
        if location == TRANSFER_ENCODING {
            // In chunks and trailers anything may stand, and what they say of a length is none.
            self.headers |= ADRIFT;
            self.framing = self.framing.code();
        } else {
            self.earlier = NO_LENGTH;
            if self.framing.is_declared() {
                self.headers |= ADRIFT;
                self.earlier = self.framing.bytes();
            }
            self.framing = self.framing.declare();
            self.mode = Mode::Length;
        }
        if self.framing.is_ambiguous() {
            self.headers |= AMBIGUOUS;
        }
    }

    /// Reads up to eight bytes of a declared length; it decides what is convenient, never what is blocked.
    #[inline(always)]
    pub(super) fn length_unit<S: Source + ?Sized>(&mut self, source: &S) {
        let left = self.end(source) - self.pos;
        let word = source.chunk(self.pos).word(0);
        let stop = swar::first(swar::line_end(word));
        let n = swar::least(stop, left);
        let (framing, odd) = self.framing.read(word, n);
        self.framing = framing;
        if odd != 0 {
            self.headers |= ADRIFT | self.ambiguous_in_block();
        }
        self.pos += n;
        swar::forget_registers();
        if stop < 8 && stop < left {
            if self.framing.is_empty() {
                self.headers |= ADRIFT;
            }
            if self.earlier != NO_LENGTH && self.framing.differs(self.earlier) {
                self.headers |= AMBIGUOUS;
            }
            self.end_line(word.wrapping_shr(stop * 8) as u8);
        }
    }
}
