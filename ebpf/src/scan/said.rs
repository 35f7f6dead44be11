//! What a scan found, for the flow engine: what its place is in, what was said of framing.

use super::super::{rules::Rules, swar};
use super::{
    ADRIFT, AMBIGUOUS, BEFORE_CHUNKS, BLANK, CHUNKS, DOUBT, ENDED, HTTP2, Mode, NAMED, NO_END, ODD,
    SIGN, SIGN_BEFORE, Scan, WORD,
};

impl Scan {
    /// Whether nothing of what was read can be part of a candidate, up to the next line end.
    #[inline(always)]
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.mode as u32 == Mode::Skip as u32
    }

    /// Whether what is read can't become a location's name, but may be a method.
    #[inline(always)]
    #[must_use]
    pub fn is_method(&self, rules: &Rules) -> bool {
        self.mode as u32 == Mode::Method as u32
            || self.mode as u32 == Mode::Name as u32
                && !self.name.is_empty()
                && !rules.may_begin(self.name.finish())
    }

    /// Whether what is read is the white space that a line begins with, where it makes no difference whether the line is
    /// empty.
    #[inline(always)]
    #[must_use]
    pub fn is_indented(&self) -> bool {
        self.is_name() && self.name.is_empty() && !self.framing.is_begun()
    }

    /// Whether the state is that of a request target, or of a part of its query that is no location's.
    #[inline(always)]
    #[must_use]
    pub fn is_target(&self) -> bool {
        matches!(
            self.mode,
            Mode::BeforeTarget | Mode::Target | Mode::QuerySkip
        ) && self.fold as u32 != Mode::BeforeTarget as u32
    }

    /// Whether a line begins here that continues none, and no LF is expected behind a CR.
    #[inline(always)]
    #[must_use]
    pub fn is_plain_line(&self) -> bool {
        self.mode as u32 == Mode::Line as u32
            && self.fold as u32 == Mode::Skip as u32
            && self.after_cr == 0
    }

    /// As [`Scan::is_plain_line`], where an LF is expected.
    #[inline(always)]
    #[must_use]
    pub fn is_plain_cr(&self) -> bool {
        self.mode as u32 == Mode::Line as u32
            && self.fold as u32 == Mode::Skip as u32
            && self.after_cr != 0
    }

    /// Whether the line in which the scan began is over, and no candidate of it waits to be looked up.
    #[inline(always)]
    #[must_use]
    pub fn left_line(&self) -> bool {
        matches!(self.mode, Mode::Skip | Mode::Line) && !self.value.has_pending()
    }

    /// Whether nothing of a candidate is under way, nor may go on in a folded line.
    #[inline(always)]
    #[must_use]
    pub fn left_candidate(&self) -> bool {
        const ENDED: u32 = 1 << Mode::Skip as u32
            | 1 << Mode::Line as u32
            | 1 << Mode::Target as u32
            | 1 << Mode::QuerySkip as u32;
        // Without another branch: each unit asks this.
        let line = swar::is_zero(self.mode as u32 ^ Mode::Line as u32);
        let folds = 1 ^ swar::is_zero(self.fold as u32 ^ Mode::Skip as u32);
        let ended = ENDED.wrapping_shr(self.mode as u32) & (1 ^ line & folds) & 1;
        ended != 0 && !self.value.has_pending() && !self.value.has_undecoded()
    }

    /// Whether a sign of a header (a request line, a location) was seen since [`Scan::restart`].
    #[inline(always)]
    #[must_use]
    pub fn saw_header(&self) -> bool {
        self.headers & (SIGN | SIGN_BEFORE) != 0
    }

    /// The same of the body that the last header block declares, or says to come in chunks.
    #[inline(always)]
    #[must_use]
    pub fn saw_header_in_body(&self) -> bool {
        self.headers & SIGN != 0 && self.headers & (ENDED | CHUNKS) != 0
    }

    /// Bytes of the declared body that are still to come behind the position.
    #[inline(always)]
    #[must_use]
    pub fn body_left(&self) -> u64 {
        if self.body_end == NO_END {
            return 0;
        }
        u64::from(self.body_end.wrapping_sub(self.pos)) + self.beyond
    }

    /// Whether an empty line has ended a header block that declares a length, and no body since.
    #[inline(always)]
    #[must_use]
    pub fn ended_headers(&self) -> bool {
        self.headers & ENDED != 0
    }

    /// Whether an empty line has ended a header block that says that its message comes in chunks.
    #[inline(always)]
    #[must_use]
    pub fn begins_chunks(&self) -> bool {
        self.headers & CHUNKS != 0
    }

    /// Whether what was read ends in an empty line by which chunks may be over: not that of the head in front of them.
    #[inline(always)]
    #[must_use]
    pub fn may_end_chunks(&self) -> bool {
        // Its first byte may be a CR, behind which an LF was taken.
        let behind = self.base.wrapping_add(self.pos).wrapping_sub(self.blank_at);
        let blank = self.headers & (BLANK | BEFORE_CHUNKS) == BLANK;
        blank && behind < 2 && self.mode as u32 == Mode::Line as u32
    }

    /// Whether a header block says in two ways where its message ends.
    #[inline(always)]
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        self.headers & AMBIGUOUS != 0
    }

    /// Whether something was read by which a server may end messages elsewhere than they are ended here: what no
    /// declared body is trusted after.
    #[inline(always)]
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        self.headers & (DOUBT | ADRIFT) != 0
    }

    /// Whether something was read by which servers may end messages at other places, and not at the start of a line.
    #[inline(always)]
    #[must_use]
    pub fn is_adrift(&self) -> bool {
        self.headers & ADRIFT != 0
    }

    /// As [`Scan::is_doubtful`], unless it was in a body of which this scan does not know.
    #[inline(always)]
    #[must_use]
    pub fn is_odd(&self) -> bool {
        self.headers & ODD != 0
    }

    /// Whether more than empty lines was read: a server that takes it for a request answers.
    #[inline(always)]
    #[must_use]
    pub fn saw_word(&self) -> bool {
        self.headers & WORD != 0 || matches!(self.mode, Mode::Name | Mode::Method)
    }

    /// Whether HTTP/2 began.
    #[inline(always)]
    #[must_use]
    pub fn saw_http2(&self) -> bool {
        self.headers & HTTP2 != 0
    }

    /// Whether what is read is a name so far.
    #[inline(always)]
    #[must_use]
    pub fn is_name(&self) -> bool {
        self.mode as u32 == Mode::Name as u32
    }

    /// Whether the first word that was read ended, and not as the name of a header does.
    #[inline(always)]
    #[must_use]
    pub fn began_plain(&self) -> bool {
        self.headers & (WORD | NAMED) == WORD
    }

    /// Whether an empty line was read.
    #[inline(always)]
    #[must_use]
    pub fn saw_blank(&self) -> bool {
        self.headers & BLANK != 0
    }

    /// Whether a message must be read as well that begins in the middle of what was read.
    #[inline(always)]
    #[must_use]
    pub fn has_forked(&self) -> bool {
        self.fork_at != 0
    }

    /// Where such messages begin, counted from behind the start of the segment; 0 where none does.
    #[inline(always)]
    #[must_use]
    pub fn forks(&self) -> (u32, u32) {
        (self.fork_at, self.fork_again_at)
    }

    /// Where the next unit reads its [`super::WIDEST`] bytes.
    #[inline(always)]
    #[must_use]
    pub fn reads_at(&self) -> u32 {
        self.pos + self.glanced
    }

    /// Whether nothing is left to be done before the source has more than `end` bytes.
    #[inline(always)]
    #[must_use]
    pub fn is_done(&self, end: u32) -> bool {
        self.pos >= end && !self.value.has_pending() && !self.value.has_undecoded()
    }
}
