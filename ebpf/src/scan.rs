//! The scanner: finds locations in a byte stream, line by line, whatever the framing says.
//!
//! It works in units: [`Scan::step`] does one bounded piece of straight-line work and returns. The kernel
//! program calls it under `bpf_loop`, the host in a plain loop. Between two units the whole state lies in
//! [`Scan`], so a stream may be cut at any byte.

use core::mem::MaybeUninit;

use super::{
    candidate::{Context, Next, Value, hex_value, specials},
    digest::{Domain, HOLDS_BYTES, TokenDigest},
    filter::{Filter, GROUP, Lanes, Words},
    framing::Framing,
    location::{LocationId, LocationKind, NameHash, mix},
    rules::{
        CONTENT_LENGTH, COOKIE_HEADER, HTTP2_METHOD, MAX_NAME, NO_LOCATION, Rules,
        TRANSFER_ENCODING,
    },
    swar,
};

/// Bytes to scan, addressed by position.
pub trait Source {
    /// A piece of the source.
    type Chunk<'a>: Chunk
    where
        Self: 'a;

    /// The [`WIDEST`] bytes from `at` on, one check for all of them. Bytes at and behind [`Source::end`] may be
    /// anything.
    fn chunk(&self, at: u32) -> Self::Chunk<'_>;

    /// Position behind the last byte.
    fn end(&self) -> u32;

    /// Position of the first CR or LF in `from..end`; `end` where there is none.
    fn line_end(&self, from: u32, end: u32) -> u32;

    /// Does [`Scan::whole_line`] on this source until it is false.
    fn whole_lines(&self, scan: &mut Scan, rules: &Rules);

    /// Does [`Scan::find_part`] on this source.
    fn find_part(&self, scan: &mut Scan, rules: &Rules);
}

/// [`WIDEST`] bytes of a source.
pub trait Chunk {
    /// The eight bytes from `index * 8` on, the first in the lowest place; `index` below `WIDEST / 8`.
    fn word(&self, index: u32) -> u64;

    /// The two words from `index` on, a multiple of two.
    fn pair(&self, index: u32) -> (u64, u64);

    /// The four words from `index` on, a multiple of four.
    fn words(&self, index: u32) -> Words;
}

/// What the scanner reads at its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Mode {
    /// The first byte of a line.
    Line = 0,
    /// A header name, or the method of a request line.
    Name = 1,
    /// Nothing of interest up to the end of the line.
    Skip = 2,
    /// The value at a location.
    Value = 3,
    /// The request target before its query.
    Target = 4,
    /// The name of a query parameter.
    QueryName = 5,
    /// The value of a query parameter that is no location.
    QuerySkip = 6,
    /// The name of a cookie.
    CookieName = 7,
    /// The value of a cookie that is no location.
    CookieSkip = 8,
    /// A candidate of which first the fingerprint is taken.
    Glance = 9,
    /// White space between the method and the request target.
    BeforeTarget = 10,
    /// The value of `Content-Length`.
    Length = 11,
    /// The rest of what is no location's name, but may be a method.
    Method = 12,
}

/// What a unit left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Call again.
    More,
    /// A candidate is complete: look its digest up, then call again.
    Lookup(TokenDigest),
    /// All bytes of the source are scanned.
    End,
}

/// Bytes that the widest unit reads at once; a source that will grow should hold as many before its end.
pub const WIDEST: u32 = 512;

const WIDEST_WORDS: u32 = WIDEST / 8;
/// A request line or a location was seen.
const SIGN: u32 = 1;
/// An empty line was seen.
const BLANK: u32 = 2;
/// The first line of HTTP/2 was seen.
const HTTP2: u32 = 4;
/// The method of that line, behind it the space that ends it.
const PRI: u32 = u32::from_le_bytes(*b"PRI ");
/// How the version begins, with which a request line ends.
const VERSION: u32 = u32::from_le_bytes(*b"HTTP");
/// The version that most request lines end with.
const HTTP_1_1: u64 = u64::from_le_bytes(*b"HTTP/1.1");
/// How an absolute target begins, in either case.
const ABSOLUTE: u32 = u32::from_le_bytes(*b"http");
const ABSOLUTE_CASE: u32 = 0x2020_2020;
/// The first word of a line has ended, since the scan began; [`NAMED`]: by a colon.
const WORD: u32 = 16;
const NAMED: u32 = 32;
/// An empty line has ended a header block that declares a length, and no body since.
const ENDED: u32 = 8;
/// A header block says in two ways where its message ends.
const AMBIGUOUS: u32 = 64;
/// Something was read by which a server may end messages elsewhere than they are ended here.
const DOUBT: u32 = 128;
/// As [`DOUBT`], if it was not in a body.
const ODD: u32 = 256;
/// The line that was begun last began with the name of a header, or as a request line does: so does the next, most
/// likely.
const FIELD: u32 = 512;
/// The scan is over with its first line.
const ONE_LINE: u32 = 1 << 16;
/// What was read may be a length that is not taken for one here, or none that is: messages may begin anywhere from here on.
const ADRIFT: u32 = 1024;
/// `also`: parameters are looked for anywhere, and nothing else.
const ANYWHERE: u32 = 1 << 31;
/// `also` of a state that is kept: a reading by lines and one of parameters anywhere are both in it. Below it is what
/// [`Scan::keep_beside`] was told.
const BOTH: u32 = 8;
/// The same: a reading by lines, beside which a parameter may begin.
const BEGINS: u32 = 9;
/// No end of a body is known.
const NO_END: u32 = u32::MAX;
/// Furthest position of an end of a body: further than any segment reaches.
const FAR: u64 = 1 << 31;
/// There is no earlier length.
const NO_LENGTH: u64 = u64::MAX;
/// Lengths of the names `Content-Length` and `Transfer-Encoding`.
const FRAMING_NAMES: [u32; 2] = [14, 17];
/// Words of a request target that a unit reads.
const TARGET_WORDS: u32 = 4;

/// The scanner's state. Can be saved at any byte and resumed on the bytes that follow.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Scan {
    /// Position of the next byte in the source.
    pub pos: u32,
    mode: Mode,
    /// Where reading goes on if the next line is folded (obs-fold, RFC 9112 section 5.2). In a target: `Target` where it is
    /// one by its beginning, so that white space alone does not end it; `BeforeTarget` where it may be a method.
    fold: Mode,
    /// Whether the last line ended with a CR whose LF may follow.
    after_cr: u32,
    /// Whether white space ended the cookie name (`name = value`). Of a header's name: whether it has separators that only
    /// some servers take for hyphens, and none of framing does.
    name_ended: u32,
    /// Hexadecimal digits that an escape in a query name still needs.
    escape: u32,
    escape_high: u32,
    /// Location that `name[` of a query would be.
    array: u32,
    /// Bytes behind `pos` of which the fingerprint is taken.
    glanced: u32,
    /// Dots among them, up to 2.
    dots: u32,
    /// Bytes of the next group that are looked at already.
    passed: u32,
    /// Bits from [`SIGN`] to [`ONE_LINE`].
    headers: u32,
    /// What the header block says that is being read.
    pub framing: Framing,
    /// The length that it declared before the one that is being read.
    earlier: u64,
    /// Bytes of the declared body behind `body_end`.
    beyond: u64,
    /// Position at which the declared body ends, at most [`FAR`]; [`NO_END`] where none is known.
    body_end: u32,
    /// Bytes that were scanned before position 0.
    base: u32,
    /// All ones where what is read as a target may be the rest of a query.
    in_query: u32,
    /// Behind the first byte of a message that may begin in the middle of what was read as a line, and of another; 0
    /// where none does.
    fork_at: u32,
    fork_again_at: u32,
    /// 0 where lines are read; else [`ANYWHERE`] or, in a state that is kept, [`BOTH`] or a number below it.
    also: u32,
    fingerprint: Lanes,
    name: NameHash,
    value: Value,
}

impl Scan {
    /// The state at the start of a line.
    #[must_use]
    pub fn new(rules: &Rules) -> Self {
        Self {
            pos: 0,
            mode: Mode::Line,
            fold: Mode::Skip,
            after_cr: 0,
            name_ended: 0,
            escape: 0,
            escape_high: 0,
            array: u32::from(NO_LOCATION),
            glanced: 0,
            dots: 0,
            passed: 0,
            headers: 0,
            framing: Framing::NONE,
            earlier: NO_LENGTH,
            beyond: 0,
            body_end: NO_END,
            base: 0,
            in_query: 0,
            fork_at: 0,
            fork_again_at: 0,
            also: 0,
            fingerprint: Lanes::NONE,
            name: NameHash::new(LocationKind::Header, rules.name_seed),
            value: Value::new(rules),
        }
    }

    /// Sets the state to the start of a line, at position 0. Whatever else the state holds is set when it is
    /// entered, so a state of zeros may be restarted too.
    #[inline(always)]
    pub fn restart(&mut self) {
        self.pos = 0;
        self.mode = Mode::Line;
        self.fold = Mode::Skip;
        self.after_cr = 0;
        self.glanced = 0;
        self.in_query = 0;
        self.also = 0;
        self.forget_message();
        self.value.rest();
    }

    /// The state at the start of the value of a header location.
    #[must_use]
    pub fn header_value(rules: &Rules, location: LocationId) -> Self {
        let mut scan = Self::new(rules);
        scan.enter_header(rules, location);
        scan
    }

    /// The state at the start of a query.
    #[must_use]
    pub fn query(rules: &Rules) -> Self {
        let mut scan = Self::new(rules);
        scan.enter_query(rules);
        scan
    }

    /// The location whose candidate was completed last.
    #[inline(always)]
    #[must_use]
    pub fn location(&self) -> LocationId {
        self.value.location()
    }

    /// Sets the state to a place in a request target, perhaps before it, or behind a part of its query.
    #[inline(always)]
    pub fn restart_in_target(&mut self) {
        self.restart();
        self.mode = Mode::BeforeTarget;
        self.in_query = u32::MAX;
    }

    /// As [`Scan::restart_in_target`], for who reads no more than the line.
    #[inline(always)]
    pub fn restart_in_last_target(&mut self) {
        self.restart_in_target();
        self.headers = ONE_LINE;
    }

    /// Sets the state to the middle of a request target.
    #[inline(always)]
    pub fn restart_inside_target(&mut self) {
        self.restart_in_target();
        self.fold = Mode::Target;
    }

    /// Sets the state to a place of which nothing is known: the start of a line, which finds all that the rest
    /// of a line would show, and, should a method end here, the white space behind it.
    #[inline(always)]
    pub fn restart_anywhere(&mut self) {
        self.restart();
        self.fold = Mode::BeforeTarget;
    }

    /// Sets the state to the middle of a line of which nothing more matters.
    #[inline(always)]
    pub fn restart_in_line(&mut self) {
        self.restart();
        self.mode = Mode::Skip;
    }

    /// Sets the state to behind a CR.
    #[inline(always)]
    pub fn restart_after_cr(&mut self) {
        self.restart();
        self.after_cr = 1;
    }

    /// Sets the state to the middle of what may be a method.
    #[inline(always)]
    pub fn restart_in_method(&mut self) {
        self.restart();
        self.mode = Mode::Method;
    }

    /// Takes a copy of another state.
    #[inline(always)]
    pub fn copy(&mut self, from: &Self) {
        if HOLDS_BYTES {
            tokenblock_scan_copy(self, from);
        } else {
            self.copy_words(from);
        }
    }

    #[inline(always)]
    fn copy_words(&mut self, from: &Self) {
        const WORDS: usize = size_of::<Scan>() / 8;
        const { assert!(size_of::<Scan>() == WORDS * 8 && align_of::<Scan>() == 8) };
        let (from, to) = (
            (&raw const *from).cast::<u64>(),
            (&raw mut *self).cast::<u64>(),
        );
        let mut i = 0;
        while i < WORDS {
            // Word by word: LLVM would make an assignment a call of a byte-wise memmove, and the verifier walks
            // through each of its rounds.
            // SAFETY: both are WORDS words; padding is copied as what it is.
            unsafe {
                to.add(i)
                    .cast::<MaybeUninit<u64>>()
                    .write(from.add(i).cast::<MaybeUninit<u64>>().read());
            }
            i += 1;
        }
    }

    /// Hides what the state holds of a candidate from who reads the place where it is kept, or shows it again.
    #[inline(always)]
    pub(crate) fn seal(&mut self, rules: &Rules, salt: u64) {
        self.value.seal(rules, salt);
    }

    /// Leaves nothing of a candidate behind; the state is of no more use.
    #[inline(always)]
    pub fn wipe(&mut self) {
        self.value.wipe();
    }

    /// Takes a saved state.
    #[inline(always)]
    pub fn resume(&mut self, saved: &Self) {
        self.copy(saved);
        self.pos = 0;
        self.forget_message();
    }

    /// Goes on by lines from a state that was resumed.
    #[inline(always)]
    pub fn read_lines(&mut self) {
        self.also = 0;
    }

    /// Goes on with parameters that begin anywhere, whatever the lines say: what is read is the query of a request, should
    /// one begin within a line.
    #[inline(always)]
    pub fn read_anywhere(&mut self) {
        self.also = ANYWHERE;
        // White space ends a part of the query, and not the query.
        self.fold = Mode::Target;
    }

    /// Keeps this state of a reading anywhere beside one by lines that is as `line` (1 to 7) says.
    #[inline(always)]
    pub fn keep_beside(&mut self, line: u32) {
        self.also = line;
    }

    /// What [`Scan::keep_beside`] was told; 0 where the state is one of a reading by lines.
    #[inline(always)]
    #[must_use]
    pub fn beside(&self) -> u32 {
        if self.also < BOTH { self.also } else { 0 }
    }

    /// Whether a parameter may begin beside this reading by lines, that is kept.
    #[inline(always)]
    #[must_use]
    pub fn begins_beside(&self) -> bool {
        self.also == BEGINS
    }

    /// Begins a reading of parameters anywhere where the state `kept` was kept, which is resumed where it is one of such.
    #[inline(always)]
    pub fn resume_anywhere(&mut self, kept: &Self, rules: &Rules, salt: u64) {
        if kept.also == 0 {
            self.restart();
        } else if kept.also == BEGINS {
            self.restart();
            self.enter_query(rules);
        } else {
            self.resume(kept);
            self.seal(rules, salt);
        }
    }

    /// Notes this reading anywhere in `line`, the state of the reading by lines that is kept, with this signature; false
    /// where it needs a state of its own.
    #[inline(always)]
    pub fn join(&mut self, line: &mut Self, signature: u64) -> bool {
        self.also = 0;
        self.fold = line.fold;
        self.after_cr = line.after_cr;
        self.name_ended = line.name_ended;
        let begins = self.is_query_name() && self.name.is_empty();
        if self.signature() == signature {
            line.also = BOTH;
        } else if begins {
            line.also = BEGINS;
        } else {
            return false;
        }
        true
    }

    /// Whether a reading anywhere stands in no parameter that is a location's.
    #[inline(always)]
    #[must_use]
    pub fn left_parameter(&self, rules: &Rules) -> bool {
        let ends =
            self.is_query_name() && !self.name.is_empty() && !rules.may_begin(self.name.finish());
        ends || !matches!(self.mode, Mode::QueryName | Mode::Value)
    }

    /// Whether the name of a parameter is read, and nothing of it waits for what comes.
    #[inline(always)]
    fn is_query_name(&self) -> bool {
        self.mode as u32 == Mode::QueryName as u32
            && self.escape == 0
            && self.array == u32::from(NO_LOCATION)
    }

    #[inline(always)]
    fn forget_message(&mut self) {
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

    /// Where to stop: the end of the source or of the declared body.
    #[inline(always)]
    fn end<S: Source + ?Sized>(&self, source: &S) -> u32 {
        let end = source.end();
        swar::least(self.body_end, end)
    }

    /// A declared body is over, so a message begins, though perhaps not at the start of a line. Framing may
    /// lie: what is being read goes on being read, and the message is read from its first byte as well; both at once
    /// where that can be.
    #[inline(always)]
    fn end_body(&mut self) {
        self.body_end = NO_END;
        self.headers &= !ENDED;
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

    /// Whether nothing of a candidate is under way.
    #[inline(always)]
    #[must_use]
    pub fn left_candidate(&self) -> bool {
        matches!(
            self.mode,
            Mode::Skip | Mode::Line | Mode::Target | Mode::QuerySkip
        ) && !self.value.has_pending()
            && !self.value.has_undecoded()
    }

    /// Whether a sign of a header (a request line, a location) was seen since [`Scan::restart`].
    #[inline(always)]
    #[must_use]
    pub fn saw_header(&self) -> bool {
        self.headers & SIGN != 0
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

    /// Whether what is read belongs to a declared body.
    #[inline(always)]
    fn in_body(&self) -> bool {
        self.body_end != NO_END
    }

    /// Whether an empty line has ended a header block that declares a length, and no body since.
    #[inline(always)]
    #[must_use]
    pub fn ended_headers(&self) -> bool {
        self.headers & ENDED != 0
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

    /// Something that looks odd was read. In a body anything may.
    #[inline(always)]
    fn doubt_outside_body(&mut self) {
        self.headers |= swar::is_zero(self.body_end ^ NO_END) * ODD;
    }

    /// Something that looks like a request was read. In a body a server that reads none there may take it for one.
    #[inline(always)]
    fn doubt_in_body(&mut self) {
        let outside = swar::is_zero(self.body_end ^ NO_END);
        self.headers |= (1 ^ outside) * DOUBT;
    }

    /// [`AMBIGUOUS`] in a header block.
    #[inline(always)]
    fn ambiguous_in_block(&self) -> u32 {
        u32::from(self.framing.is_begun()) * AMBIGUOUS
    }

    /// A line begins with this name, which servers may take for a header's though no colon is behind it.
    #[inline(always)]
    fn doubt_name(&mut self, location: LocationId, byte: u8) {
        let length = swar::is_zero(u32::from(location ^ CONTENT_LENGTH));
        let coding = swar::is_zero(u32::from(location ^ TRANSFER_ENCODING));
        let outside = swar::is_zero(self.body_end ^ NO_END);
        // Where a line ends, no server sees a field.
        let white = u32::from(byte != b'\r' && byte != b'\n');
        let ambiguous = self.ambiguous_in_block() * outside * white;
        self.headers |= (length | coding) * (ADRIFT | ambiguous);
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

    /// A hash of all that decides how reading goes on.
    #[inline(always)]
    #[must_use]
    pub fn signature(&self) -> u64 {
        // What was noted of a name counts no more.
        let rests = self.is_closed() || self.is_plain_line() || self.is_plain_cr();
        let name_ended = u32::from(!rests) & self.name_ended;
        let modes = u64::from(self.mode as u32) << 48
            | u64::from(self.fold as u32) << 40
            | u64::from(self.after_cr) << 32
            | u64::from(name_ended) << 31
            | u64::from(self.escape) << 24
            | u64::from(self.escape_high) << 16
            | u64::from(self.array);
        let mut hash = mix(modes, 0);
        if !matches!(self.mode, Mode::Line | Mode::Target | Mode::Skip) {
            hash = mix(hash, self.name.signature());
        }
        if self.mode as u32 == Mode::Value as u32 || self.fold as u32 == Mode::Value as u32 {
            hash = mix(hash, self.value.signature());
        }
        hash ^ self.signature_of_also()
    }

    /// What the reading beside this one makes of the signature.
    #[inline(always)]
    #[must_use]
    pub fn signature_of_also(&self) -> u64 {
        u64::from(self.also) << 8
    }

    /// Where the next unit reads its [`WIDEST`] bytes.
    #[inline(always)]
    #[must_use]
    pub fn reads_at(&self) -> u32 {
        self.pos + self.glanced
    }

    /// Whether [`Scan::whole_line`] may be done.
    #[inline(always)]
    fn takes_lines(&self) -> bool {
        let line = self.is_plain_line() && !self.is_one_line();
        (self.is_closed() || line) && !self.value.has_pending() && !self.is_anywhere()
    }

    /// Whether the scan is over with its first line.
    #[inline(always)]
    fn is_one_line(&self) -> bool {
        self.headers & ONE_LINE != 0
    }

    /// Whether nothing is left to be done before the source has more than `end` bytes.
    #[inline(always)]
    #[must_use]
    pub fn is_done(&self, end: u32) -> bool {
        self.pos >= end && !self.value.has_pending() && !self.value.has_undecoded()
    }

    /// The source can hold no more bytes behind `pos`: what is read must be digested as it comes.
    #[inline(always)]
    pub fn stop_glancing(&mut self) {
        self.value.require_digest();
        self.glanced = 0;
        self.mode = Mode::Value;
    }

    /// Does one unit of work.
    #[inline(always)]
    pub fn step<S: Source + ?Sized, F: Filter>(
        &mut self,
        rules: &Rules,
        source: &S,
        filter: &F,
    ) -> Step {
        if self.value.has_pending() {
            return self
                .value
                .take_pending(rules)
                .map_or(Step::More, Step::Lookup);
        }
        if self.value.has_undecoded() {
            self.value.decode(rules);
            return Step::More;
        }
        if self.is_done(source.end()) {
            return Step::End;
        }
        if self.pos >= self.body_end {
            self.end_body();
            return Step::More;
        }
        if self.is_between_parts() {
            source.find_part(self, rules);
            return Step::More;
        }
        match self.mode {
            Mode::Line => self.line_unit(rules, source),
            Mode::BeforeTarget | Mode::Target | Mode::Skip | Mode::Value => {}
            _ => {
                self.part_unit(rules, source, filter);
                swar::forget_registers();
                if matches!(self.mode, Mode::QuerySkip | Mode::CookieSkip)
                    && self.also == 0
                    && self.pos < self.end(source)
                {
                    self.part_skip_unit(rules, source);
                }
            }
        }
        swar::forget_registers();
        // What begins behind a name, and the end of what was glanced at, is taken in the same unit.
        if self.mode as u32 == Mode::Value as u32 && self.pos < self.end(source) {
            self.value_unit(rules, source, filter.is_on());
            swar::forget_registers();
            self.begin_next_glance(rules, source, filter.is_on());
        }
        // What follows most units is done in the same one: a unit costs some ten nanoseconds, whatever it does.
        swar::forget_registers();
        if matches!(self.mode, Mode::BeforeTarget | Mode::Target) && self.pos < self.end(source) {
            self.target_unit(rules, source);
        }
        swar::forget_registers();
        if self.after_cr != 0
            && self.mode as u32 == Mode::Line as u32
            && self.pos < self.end(source)
        {
            self.end_of_crlf(source);
        }
        swar::forget_registers();
        if self.takes_lines() && self.pos < self.end(source) {
            source.whole_lines(self, rules);
        }
        Step::More
    }

    /// Whether parameters are looked for anywhere.
    #[inline(always)]
    #[must_use]
    pub fn is_anywhere(&self) -> bool {
        self.also & ANYWHERE != 0
    }

    /// Whether parameters are looked for anywhere, and none is being read.
    #[inline(always)]
    fn is_between_parts(&self) -> bool {
        self.also != 0 && !matches!(self.mode, Mode::QueryName | Mode::Value | Mode::Glance)
    }

    /// Looks for the next place where a parameter may begin, in [`WIDEST`] bytes.
    #[inline(always)]
    pub fn find_part<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S) {
        let left = self.end(source).wrapping_sub(self.pos);
        let chunk = source.chunk(self.pos);
        self.mode = Mode::Target;
        self.fold = Mode::Target;
        self.after_cr = 0;
        let mut at = 0;
        while at < WIDEST_WORDS {
            let (a, b) = chunk.pair(at);
            let (a, b) = (begins_part(a), begins_part(b));
            if a | b != 0 {
                let stop = at * 8 + swar::before(swar::first(a), swar::first(b));
                if stop < left {
                    self.pos += stop + 1;
                    self.enter_query(rules);
                    return;
                }
                break;
            }
            // Not unrolled.
            at = swar::opaque(at + 2);
        }
        self.pos += swar::least(left, WIDEST);
    }

    /// Does one unit of work on a part of a line.
    #[inline(always)]
    fn part_unit<S: Source + ?Sized, F: Filter>(&mut self, rules: &Rules, source: &S, filter: &F) {
        match self.mode {
            Mode::Glance => self.glance_unit(rules, source, filter),
            Mode::Name => self.name_unit(rules, source),
            Mode::QueryName => self.query_name_unit(rules, source),
            Mode::CookieName => self.cookie_name_unit(rules, source),
            Mode::Length => self.length_unit(source),
            Mode::Method => self.method_unit(source),
            Mode::Line
            | Mode::Value
            | Mode::BeforeTarget
            | Mode::Target
            | Mode::Skip
            | Mode::QuerySkip
            | Mode::CookieSkip => {}
        }
    }

    /// Takes the LF behind a CR.
    #[inline(always)]
    fn end_of_crlf<S: Source + ?Sized>(&mut self, source: &S) {
        if source.chunk(self.pos).word(0) as u8 == b'\n' {
            self.pos += 1;
            self.after_cr = 0;
        }
    }

    /// The stream ended: what was read so far is all there will be.
    pub fn finish(&mut self, rules: &Rules) {
        if self.mode == Mode::Value {
            self.value.end(rules);
            self.mode = Mode::Skip;
        }
    }

    /// Takes the line end `byte` at the current position.
    #[inline(always)]
    fn end_line(&mut self, byte: u8) {
        self.fold = match self.mode {
            // White space before the first byte of a value does not end it.
            mode @ (Mode::Value | Mode::CookieName | Mode::CookieSkip | Mode::Length) => mode,
            _ => Mode::Skip,
        };
        self.after_cr = u32::from(byte == b'\r');
        self.mode = Mode::Line;
        self.pos += 1;
    }

    /// Takes the rest of a line of which nothing more matters, or a whole one that means nothing to the rules, as most do;
    /// true where another one begins behind it. For a scanner where [`Scan::is_closed`], where [`Scan::is_plain_line`], or
    /// where a CR that no LF follows ended the line before. What the units do with a whole line is the same, at three
    /// times the cost.
    #[inline(always)]
    pub fn whole_line<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S) -> bool {
        let left = self.end(source).wrapping_sub(self.pos);
        if !self.is_closed() {
            let taken = if self.headers & FIELD == 0 {
                self.take_text(rules, source, left)
            } else {
                self.take_field(rules, source, left)
            };
            if !taken {
                return false;
            }
            self.mode = Mode::Skip;
        }
        swar::forget_registers();
        self.end_whole_line(source) && !self.is_one_line()
    }

    /// Takes the name of a header; false where it may be known to the rules.
    #[inline(always)]
    fn take_field<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S, left: u32) -> bool {
        let chunk = source.chunk(self.pos);
        let (mut whole, mut word) = (0, chunk.word(0));
        let first = word as u8;
        let mut mark = usual_name_end(word);
        if mark == 0 {
            (whole, word) = (8, chunk.word(1));
            mark = usual_name_end(word);
        }
        if mark == 0 {
            (whole, word) = (16, chunk.word(2));
            mark = usual_name_end(word);
        }
        let stop = swar::first(mark);
        let len = whole + stop;
        let colon = word.wrapping_shr(stop * 8) as u8 == b':';
        if mark == 0 || !colon || len >= left || rules.may_know(first, len) {
            // If it is text, the lines behind it are.
            self.headers &= !FIELD;
            return false;
        }
        self.note_name();
        true
    }

    /// Takes the first word of a line of text and, unless a colon ends it, the second one, if they are no name that is known
    /// to the rules and no target; else false.
    #[inline(always)]
    fn take_text<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S, left: u32) -> bool {
        let word = source.chunk(self.pos).word(0);
        let indent = if word as u8 > b' ' { 0 } else { indent(word) };
        if indent == 8 {
            return false;
        }
        let chunk = source.chunk(self.pos + indent);
        let (mut whole, mut word, mut bits) = (0, chunk.word(0), 0);
        let begin = word as u32;
        let mut mark = first_name_end(word);
        if mark == 0 {
            bits = word;
            (whole, word) = (8, chunk.word(1));
            mark = first_name_end(word);
        }
        if mark == 0 {
            bits |= word;
            (whole, word) = (16, chunk.word(2));
            mark = first_name_end(word);
        }
        let stop = swar::first(mark);
        let (len, end) = (whole + stop, indent + whole + stop);
        let known = begin == VERSION || rules.may_know(begin as u8, len);
        if mark == 0 || end >= left || known {
            return false;
        }
        let byte = word.wrapping_shr(stop * 8) as u8;
        let next = if byte == b':' || byte == b'\r' || byte == b'\n' {
            Some(0)
        } else {
            self.next_word(source, left, end + 1)
        };
        let Some(next) = next else {
            return false;
        };
        if !self.in_body() {
            let odd = swar::not_ascii(bits | swar::keep(word, stop)) | u64::from(indent);
            self.headers |= u32::from(odd != 0) * ODD;
            if matches!(next, b'*' | b'h' | b'H') {
                self.begin_message();
            }
        }
        let named = byte == b':' && indent == 0 && self.headers & WORD == 0;
        self.headers |= WORD | (u32::from(named) * NAMED);
        true
    }

    /// Looks at the second word of a line, `at` bytes behind the position: its first byte; `None` where it may be a target.
    #[inline(always)]
    fn next_word<S: Source + ?Sized>(&self, source: &S, left: u32, at: u32) -> Option<u8> {
        let chunk = source.chunk(self.pos + at);
        let (mut whole, mut word) = (0, chunk.word(0));
        let begin = word as u32;
        let mut mark = target_end(word);
        if mark == 0 {
            (whole, word) = (8, chunk.word(1));
            mark = target_end(word);
        }
        if mark == 0 {
            (whole, word) = (16, chunk.word(2));
            mark = target_end(word);
        }
        let stop = swar::first(mark);
        let end = at + whole + stop;
        let query = word.wrapping_shr(stop * 8) as u8 == b'?';
        let version = source.chunk(self.pos + end + 1).word(0) as u32 == VERSION;
        let first = begin as u8;
        let target = first == b'/' || begin | ABSOLUTE_CASE == ABSOLUTE || query || version;
        let blank = first == b' ' || first == b'\t' || self.in_query != 0;
        if mark == 0 || target || blank || end >= left {
            return None;
        }
        Some(first)
    }

    /// Takes a line to its end, as far as it goes; true where another one may begin behind it that continues none.
    #[inline(always)]
    fn end_whole_line<S: Source + ?Sized>(&mut self, source: &S) -> bool {
        let end = self.end(source);
        let at = source.line_end(self.pos, end);
        self.pos = at;
        if at >= end {
            return false;
        }
        let more = at + 1 < end;
        // Where the line ends is one place to the verifier.
        swar::forget_registers();
        let end = source.chunk(self.pos).word(0) as u16;
        self.mode = Mode::Line;
        self.fold = Mode::Skip;
        if end == u16::from_le_bytes(*b"\r\n") && more {
            self.pos += 2;
            self.after_cr = 0;
            return true;
        }
        let lf = u32::from(end as u8 == b'\n');
        self.pos += 1;
        self.after_cr = 1 ^ lf;
        if lf == 0 && more {
            self.doubt_cr();
        }
        lf != 0 || more && (end >> 8) as u8 != b'\r'
    }

    /// Reads from the first byte of a line: takes a whole name of up to 23 bytes at once.
    #[inline(always)]
    fn line_unit<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S) {
        let chunk = source.chunk(self.pos);
        let words = [chunk.word(0), chunk.word(1), chunk.word(2)];
        let has_next = source.end() - self.pos > 1;
        if !self.begin_line(rules, words[0], has_next) {
            return;
        }
        let left = self.end(source) - self.pos;
        let (mut whole, mut word, mut bits) = (0, words[0], 0);
        let mut stop = swar::first(name_end(word));
        if stop == 8 {
            bits = word;
            (whole, word) = (1, words[1]);
            stop = swar::first(name_end(word));
        }
        if stop == 8 {
            bits |= word;
            (whole, word) = (2, words[2]);
            stop = swar::first(name_end(word));
        }
        let n = whole * 8 + stop;
        if stop == 8 || n >= left {
            // Longer, or cut: byte by byte, so that it can go on in the next segment.
            self.mode = Mode::Name;
            return;
        }
        self.pos += n;
        if swar::not_ascii(bits | swar::keep(word, stop)) != 0 {
            // Some servers take such bytes for white space.
            self.doubt_outside_body();
        }
        swar::forget_registers();
        let byte = word.wrapping_shr(stop * 8) as u8;
        if byte == b':' {
            self.pos += 1;
            self.note_name();
            // Where a name of framing has its hyphen.
            let (seventh, eighth) = ((words[0] >> 56) as u32, words[1] as u32 & 0xff);
            let hyphen = u32::from(b'-');
            let has_hyphen = swar::is_zero(seventh ^ hyphen) | swar::is_zero(eighth ^ hyphen);
            self.name_ended = has_hyphen ^ 1;
            let hash = NameHash::of_words(rules.name_seed, words, whole, stop);
            self.enter_header(rules, rules.find(hash));
        } else {
            // The rest of a request line that was cut in front of its version.
            let version = swar::is_zero(words[0] as u32 ^ VERSION) * DOUBT;
            self.headers |= WORD | version | (swar::is_zero(words[0] as u32 ^ PRI) * HTTP2);
            if FRAMING_NAMES.contains(&n) {
                let hash = NameHash::of_words(rules.name_seed, words, whole, stop);
                self.doubt_name(rules.find(hash), byte);
            }
            swar::forget_registers();
            self.end_method(byte, n == 0);
        }
    }

    /// A word ended by a colon.
    #[inline(always)]
    fn note_name(&mut self) {
        let first = swar::is_zero(self.headers & WORD);
        self.headers |= FIELD | WORD | (first * NAMED);
    }

    #[inline(always)]
    fn name_unit<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S) {
        let word = source.chunk(self.pos).word(0);
        let left = self.end(source) - self.pos;
        let stop = swar::first(name_end(word));
        let n = swar::least(stop, left);
        self.name.absorb(word, n);
        self.pos += n;
        let others = swar::equal(word, b'_') | swar::equal(word, b'.') | swar::equal(word, b'~');
        if swar::keep(others, n) != 0 {
            self.name_ended = 1;
        }
        if swar::not_ascii(swar::keep(word, n)) != 0 {
            self.doubt_outside_body();
        }
        if self.name.len() > MAX_NAME as u64 {
            // Behind a body that ends without a line end a method may follow.
            self.mode = Mode::Method;
        } else if stop < 8 && stop < left {
            let byte = word.wrapping_shr(stop * 8) as u8;
            if byte == b':' {
                self.pos += 1;
                self.note_name();
                self.enter_header(rules, rules.find(self.name.finish()));
            } else {
                self.headers |= WORD;
                let method = rules.find(self.name.finish());
                self.headers |= swar::is_zero(u32::from(method ^ HTTP2_METHOD)) * HTTP2;
                self.doubt_name(method, byte);
                self.end_method(byte, self.name.is_empty());
            }
        }
    }

    /// A request line was read. What looks like one, behind a length, may be of the same header block.
    #[inline(always)]
    fn begin_message(&mut self) {
        self.headers |= self.framing.declares_unbegun() * ADRIFT;
        self.framing = self.framing.begin();
    }

    /// An empty line begins at the position: after it comes the body, if one was declared.
    #[inline(always)]
    fn end_headers(&mut self) {
        self.headers |= BLANK;
        if self.in_body() {
            return;
        }
        let length = self.framing.bytes();
        self.framing = Framing::NONE;
        if length == 0 {
            return;
        }
        // The LF of a CR LF is taken for granted: a byte more or less costs a fork at the most.
        let body = self.pos + 1 + self.after_cr;
        self.headers |= ENDED;
        self.end_body_at(u64::from(body) + length);
    }

    #[inline(always)]
    fn method_unit<S: Source + ?Sized>(&mut self, source: &S) {
        let word = source.chunk(self.pos).word(0);
        let left = self.end(source) - self.pos;
        let stop = swar::first(name_end(word));
        self.pos += swar::least(stop, left);
        if stop < 8 && stop < left {
            let byte = word.wrapping_shr(stop * 8) as u8;
            if byte == b':' {
                self.mode = Mode::Skip;
            } else {
                self.end_method(byte, false);
            }
        }
    }

    /// Looks at the first byte of a line, that of `word`, and takes it if it is a line end; true where a name begins.
    /// `has_next`: the source has another byte behind it.
    #[inline(always)]
    fn begin_line(&mut self, rules: &Rules, word: u64, has_next: bool) -> bool {
        match word as u8 {
            b'\n' if self.after_cr != 0 => self.after_cr = 0,
            // Several CR before an LF are one line end; no server takes them for an empty line.
            b'\r' if self.after_cr != 0 => {
                self.doubt_cr();
                self.fold = Mode::Skip;
            }
            byte @ (b'\n' | b'\r') => {
                self.after_cr = u32::from(byte == b'\r');
                if !has_next || (word >> 8) as u8 != b'\n' {
                    // Not the end of a header block at most servers.
                    self.doubt_cr();
                }
                // After `restart_anywhere` it is the end of a line that began before.
                if self.fold as u32 != Mode::BeforeTarget as u32 {
                    self.end_headers();
                }
                self.fold = Mode::Skip;
            }
            // Left to be read there: to a value or a cookie name it is white space like any other.
            b' ' | b'\t' => {
                self.doubt_cr();
                self.mode = self.fold;
                if self.fold as u32 == Mode::BeforeTarget as u32 {
                    self.fold = Mode::Skip;
                } else {
                    // Some servers take a folded line for a header.
                    self.doubt_outside_body();
                }
                if matches!(self.mode, Mode::Skip | Mode::Length) {
                    // A length that goes on in another line is one at some servers.
                    let folds_length = swar::is_zero(self.mode as u32 ^ Mode::Length as u32);
                    self.headers |= folds_length * self.ambiguous_in_block();
                    self.mode = Mode::Name;
                    self.begin_name(rules);
                }
                return false;
            }
            _ => {
                self.doubt_cr();
                self.fold = Mode::Skip;
                self.begin_name(rules);
                return true;
            }
        }
        self.pos += 1;
        false
    }

    /// Behind a line end stands no LF, as far as it is known. Where it is a CR, it is one at few servers.
    #[inline(always)]
    fn doubt_cr(&mut self) {
        self.headers |= swar::is_zero(self.body_end ^ NO_END) * self.after_cr * ODD;
    }

    #[inline(always)]
    fn begin_name(&mut self, rules: &Rules) {
        self.name = NameHash::new(LocationKind::Header, rules.name_seed);
        self.name_ended = 0;
    }

    /// Takes the byte, white space or a line end, that ended what may be a method.
    #[inline(always)]
    fn end_method(&mut self, byte: u8, empty: bool) {
        self.headers &= !FIELD;
        if byte == b'\r' || byte == b'\n' {
            self.end_line(byte);
            return;
        }
        self.pos += 1;
        self.mode = if empty {
            // White space or a control character, which some servers leave out.
            self.doubt_outside_body();
            Mode::Name
        } else {
            Mode::BeforeTarget
        };
    }

    #[inline(always)]
    fn enter_header(&mut self, rules: &Rules, location: LocationId) {
        swar::forget_registers();
        if location >= HTTP2_METHOD {
            self.mode = Mode::Skip;
        } else if location == CONTENT_LENGTH || location == TRANSFER_ENCODING {
            self.enter_framing(location);
        } else if location == COOKIE_HEADER {
            self.headers |= SIGN;
            self.doubt_in_body();
            self.enter_cookie(rules);
        } else {
            self.headers |= SIGN;
            self.doubt_in_body();
            self.mode = Mode::Value;
            self.value.begin(rules, Context::Header, location);
        }
    }

    /// Takes the name of a header that says where its message ends.
    #[inline(always)]
    fn enter_framing(&mut self, location: LocationId) {
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

    #[inline(always)]
    fn enter_cookie(&mut self, rules: &Rules) {
        self.mode = Mode::CookieName;
        self.name_ended = 0;
        self.name = NameHash::new(LocationKind::Cookie, rules.name_seed);
    }

    #[inline(always)]
    fn enter_query(&mut self, rules: &Rules) {
        self.mode = Mode::QueryName;
        self.escape = 0;
        self.array = u32::from(NO_LOCATION);
        self.name = NameHash::new(LocationKind::Query, rules.name_seed);
    }

    /// Reads up to eight bytes of a declared length; it decides what is convenient, never what is blocked.
    #[inline(always)]
    fn length_unit<S: Source + ?Sized>(&mut self, source: &S) {
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

    #[inline(always)]
    fn value_unit<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S, glance: bool) {
        let left = self.end(source) - self.pos;
        let mut word = source.chunk(self.pos).word(0);
        let mut bytes = 8;
        if word as u8 == b' ' && left > 1 && self.value.is_empty() && !self.value.is_query() {
            // The space behind the colon: not worth a unit.
            word >>= 8;
            bytes = 7;
            self.pos += 1;
        }
        let left = self.end(source) - self.pos;
        let parted = !self.value.is_header();
        let words = self.value.takes_words();
        let stop = swar::first(specials(word, u64::from(parted).wrapping_neg()));
        if stop >= bytes && glance && self.value.may_glance() {
            return self.begin_glance(rules);
        }
        let n = swar::least(swar::least(stop, bytes), left);
        // One byte at a time where there is a second reading.
        let n = if words { n } else { 0 };
        self.value.plain(word, n);
        self.pos += n;
        if n < swar::least(bytes, left) {
            swar::forget_registers();
            self.value_byte(rules, word.wrapping_shr(n * 8) as u8);
        }
    }

    #[inline(always)]
    fn begin_glance(&mut self, rules: &Rules) {
        self.mode = Mode::Glance;
        self.glanced = 0;
        self.dots = 0;
        self.passed = 0;
        self.fingerprint = rules.fingerprint.start();
    }

    /// Sees whether a candidate begins behind what a unit took of a value, so that the next unit glances at it.
    #[inline(always)]
    fn begin_next_glance<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S, glance: bool) {
        let free = !self.value.has_pending() && self.value.may_glance();
        if !glance || !free || self.mode as u32 != Mode::Value as u32 {
            return;
        }
        let word = source.chunk(self.pos).word(0);
        let cookie = u64::from(self.value.is_cookie()).wrapping_neg();
        if specials(word, cookie) == 0 && self.pos + 8 <= self.end(source) {
            self.begin_glance(rules);
        }
    }

    /// Takes the fingerprint of the candidate that begins at the position, a piece at a time.
    #[inline(always)]
    fn glance_unit<S: Source + ?Sized, F: Filter>(
        &mut self,
        rules: &Rules,
        source: &S,
        filter: &F,
    ) {
        let left = self.end(source) - self.pos;
        let chunk = source.chunk(self.pos + self.glanced);
        let parted = !self.value.is_header();
        let mut lanes = self.fingerprint;
        let mut at = 0;
        while at < WIDEST_WORDS {
            let (a, b, c, d) = chunk.words(at);
            let marks =
                swar::not_token(a) | swar::not_token(b) | swar::not_token(c) | swar::not_token(d);
            if marks != 0 || parted && ends_part(&chunk, at) != 0 {
                break;
            }
            rules.fingerprint.absorb(&mut lanes, (a, b, c, d));
            // Unrolled it needs more stack than there is ("combined stack size of 2 calls is ... Too large").
            at = swar::opaque(at + 4);
        }
        self.fingerprint = lanes;
        self.glanced += at * 8;
        swar::forget_registers();
        if at < WIDEST_WORDS {
            self.glance_group(rules, source, left, filter);
        } else if self.glanced >= left {
            self.stop_glancing();
        }
    }

    /// Looks for the first special byte of a group which may hold one.
    #[inline(always)]
    fn glance_group<S: Source + ?Sized, F: Filter>(
        &mut self,
        rules: &Rules,
        source: &S,
        left: u32,
        filter: &F,
    ) {
        let chunk = source.chunk(self.pos + self.glanced);
        let parted = u64::from(!self.value.is_header()).wrapping_neg();
        let passed = self.passed;
        let before = |index, stop| {
            // One word after the other: together they need more stack than there is.
            swar::forget_registers();
            let seen = swar::keep(u64::MAX, swar::part(passed, index));
            swar::before(
                swar::first(specials(chunk.word(index), parted) & !seen),
                stop,
            )
        };
        let stop = before(0, before(1, before(2, before(3, 0))));
        if stop < GROUP {
            return self.glance_stop(rules, source, left, stop, filter);
        }
        self.passed = 0;
        let mut lanes = self.fingerprint;
        rules.fingerprint.absorb(&mut lanes, chunk.words(0));
        self.fingerprint = lanes;
        self.glanced += GROUP;
        if self.glanced >= left {
            self.stop_glancing();
        }
    }

    /// Handles the first special byte that a glance met, `stop` bytes behind the first of the group.
    #[inline(always)]
    fn glance_stop<S: Source + ?Sized, F: Filter>(
        &mut self,
        rules: &Rules,
        source: &S,
        left: u32,
        stop: u32,
        filter: &F,
    ) {
        swar::forget_registers();
        let words = source.chunk(self.pos + self.glanced).words(0);
        let len = self.glanced + stop;
        let byte = source.chunk(self.pos + len).word(0) as u8;
        self.passed = stop + 1;
        let end = byte <= b' ' || byte == b'"' || self.value.is_separator(byte);
        if len < left && !end {
            match byte {
                b'.' if self.dots == 1 => self.dots = 2,
                b'.' => {
                    self.dots |= 1;
                    return;
                }
                // A byte like any other.
                b'+' if !self.value.is_query() => return,
                _ if self.value.is_header() => return,
                // An escape, or a byte that ends the candidate at some servers only.
                _ => return self.stop_glancing(),
            }
        }
        let domain = if end { Domain::Exact } else { Domain::Jws };
        let seen = rules
            .fingerprint
            .finish(self.fingerprint, words, stop, u64::from(len), domain);
        if len >= left || filter.may_hold(seen) {
            self.stop_glancing();
        } else if end {
            self.value.rule_out();
            self.pos += len;
            self.glanced = 0;
            self.mode = Mode::Value;
        }
    }

    #[inline(always)]
    fn value_byte(&mut self, rules: &Rules, byte: u8) {
        let next = self.value.byte(rules, byte);
        if byte == b'\r' || byte == b'\n' {
            if matches!(next, Next::Name) {
                self.enter_cookie(rules);
            } else if matches!(next, Next::Line | Next::Skip) {
                self.mode = Mode::Skip;
            }
            self.end_line(byte);
            return;
        }
        self.pos += 1;
        match next {
            Next::Value => {}
            Next::Name => self.enter_next_name(rules),
            Next::Skip if self.value.is_query() => self.end_query_part(),
            Next::Skip => self.mode = Mode::CookieSkip,
            Next::Line => self.mode = Mode::Skip,
        }
    }

    #[inline(always)]
    fn enter_next_name(&mut self, rules: &Rules) {
        if self.value.is_query() {
            self.enter_query(rules);
        } else {
            self.enter_cookie(rules);
        }
    }

    #[inline(always)]
    fn target_unit<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S) {
        let left = self.end(source) - self.pos;
        let chunk = source.chunk(self.pos);
        // Several servers take more than one space here.
        if self.mode as u32 == Mode::BeforeTarget as u32
            && matches!(chunk.word(0) as u8, b' ' | b'\t')
        {
            self.pos += 1;
            return;
        }
        if self.mode as u32 == Mode::BeforeTarget as u32 {
            let first = u32::from(chunk.word(0) as u8);
            let path = swar::is_zero(first ^ u32::from(b'/'));
            let absolute = swar::is_zero((chunk.word(0) as u32 | ABSOLUTE_CASE) ^ ABSOLUTE);
            if (path | absolute) != 0 && self.fold as u32 == Mode::Skip as u32 {
                self.fold = Mode::Target;
            }
            // `*`, or `http://` in either case.
            let other = swar::is_zero(first ^ u32::from(b'*'))
                | swar::is_zero((first | 0x20) ^ u32::from(b'h'));
            self.headers |= path * (SIGN | FIELD);
            if (path | other) != 0 && !self.in_body() {
                self.begin_message();
            }
        }
        swar::forget_registers();
        self.mode = Mode::Target;
        let part = u64::from(self.in_query) << 32 | u64::from(self.in_query);
        let mut i = 0;
        let (mut word, mut stop) = (0, 8);
        while i < TARGET_WORDS {
            word = chunk.word(i);
            stop =
                swar::first(swar::equal(word, b'?') | parts(word) & part | swar::below(word, b'!'));
            if stop < 8 {
                break;
            }
            i += 1;
        }
        let n = i * 8 + (stop & 7);
        if n >= left || stop == 8 {
            self.pos += swar::least(n, left);
            return;
        }
        self.pos += n;
        match word.wrapping_shr(stop * 8) as u8 {
            b'?' | b'&' | b';' => {
                self.pos += 1;
                self.enter_query(rules);
            }
            byte @ (b'\r' | b'\n') => self.end_line(byte),
            _ => {
                self.pos += 1;
                if source.chunk(self.pos).word(0) as u32 == VERSION {
                    self.doubt_in_body();
                }
                if self.is_path() && !self.is_over(source) {
                    return;
                }
                // After `end_body`, or else `Skip`.
                self.mode = if self.fold as u32 == Mode::BeforeTarget as u32 {
                    Mode::BeforeTarget
                } else {
                    Mode::Skip
                };
                self.fold = Mode::Skip;
                self.in_query = 0;
            }
        }
    }

    /// Skips the rest of a cookie or query parameter that is no location.
    #[inline(always)]
    fn part_skip_unit<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S) {
        let left = self.end(source) - self.pos;
        let word = source.chunk(self.pos).word(0);
        let cookie = self.mode as u32 == Mode::CookieSkip as u32;
        let separators = if cookie {
            swar::equal(word, b';') | swar::equal(word, b',')
        } else {
            parts(word)
        };
        let stop = swar::first(separators | swar::below(word, b'!'));
        if stop >= left || stop == 8 {
            self.pos += swar::least(left, 8);
            return;
        }
        self.pos += stop;
        let byte = word.wrapping_shr(stop * 8) as u8;
        if byte == b'\r' || byte == b'\n' {
            self.end_line(byte);
            return;
        }
        self.pos += 1;
        if cookie {
            self.enter_cookie(rules);
        } else if byte > b' ' {
            self.enter_query(rules);
        } else if !self.is_path() || self.is_over(source) {
            self.mode = Mode::Skip;
        }
    }

    /// Whether the request target is one by its beginning. Some servers take white space and control characters for a
    /// part of it, so that it is over with its line, or in front of the version.
    #[inline(always)]
    fn is_path(&self) -> bool {
        self.fold as u32 == Mode::Target as u32
    }

    /// Whether the line ends with what is usual behind a request target.
    #[inline(always)]
    fn is_over<S: Source + ?Sized>(&self, source: &S) -> bool {
        let chunk = source.chunk(self.pos);
        let left = source.end().wrapping_sub(self.pos);
        left > 8 && chunk.word(0) == HTTP_1_1 && matches!(chunk.word(1) as u8, b'\r' | b'\n')
    }

    #[inline(always)]
    fn cookie_name_unit<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S) {
        let mut word = source.chunk(self.pos).word(0);
        let mut left = source.end() - self.pos;
        let mut bytes = 8;
        if word as u8 == b' ' && left > 1 && self.name.is_empty() {
            word >>= 8;
            bytes = 7;
            self.pos += 1;
            left -= 1;
        }
        let stop = swar::first(
            swar::equal(word, b'=')
                | swar::equal(word, b';')
                | swar::equal(word, b',')
                | swar::below(word, b'!'),
        );
        let n = swar::least(stop, bytes);
        let n = swar::least(n, left);
        if n > 0 {
            if self.name_ended != 0 {
                self.enter_cookie(rules);
            }
            self.name.absorb(word, n);
            self.pos += n;
            if self.name.len() > MAX_NAME as u64 {
                self.mode = Mode::CookieSkip;
                return;
            }
        }
        if stop == n && stop < bytes && stop < left {
            swar::forget_registers();
            self.cookie_name_byte(rules, word.wrapping_shr(stop * 8) as u8);
        }
    }

    /// Takes the byte that ended what may be a cookie name.
    #[inline(always)]
    fn cookie_name_byte(&mut self, rules: &Rules, byte: u8) {
        match byte {
            b'\r' | b'\n' => return self.end_line(byte),
            b'=' => {
                let location = rules.find(self.name.finish());
                if location == NO_LOCATION {
                    self.mode = Mode::CookieSkip;
                } else {
                    self.mode = Mode::Value;
                    self.value.begin(rules, Context::Cookie, location);
                }
            }
            b';' | b',' => self.enter_cookie(rules),
            _ => self.name_ended = u32::from(!self.name.is_empty()),
        }
        self.pos += 1;
    }

    #[inline(always)]
    fn query_name_unit<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S) {
        let left = self.end(source) - self.pos;
        let word = source.chunk(self.pos).word(0);
        // Everything below `-` that may be special: `%`, `&`, `+`, white space.
        let stop = swar::first(
            swar::equal(word, b'=')
                | swar::equal(word, b'[')
                | swar::equal(word, b']')
                | swar::equal(word, b';')
                | swar::equal(word, b'?')
                | swar::below(word, b'-'),
        );
        let n = if self.escape != 0 {
            0
        } else {
            swar::least(stop, left)
        };
        if n > 0 {
            self.name.absorb(word, n);
            self.pos += n;
            self.check_query_name();
            if self.mode as u32 == Mode::QuerySkip as u32 {
                return;
            }
        }
        if n < 8 && n < left {
            swar::forget_registers();
            self.query_name_byte(rules, word.wrapping_shr(n * 8) as u8);
        }
    }

    /// White space or a control character stands in the query.
    #[inline(always)]
    fn end_query_part(&mut self) {
        self.mode = if self.is_path() {
            Mode::QuerySkip
        } else {
            Mode::Skip
        };
    }

    #[inline(always)]
    fn query_name_byte(&mut self, rules: &Rules, byte: u8) {
        match byte {
            b'\r' | b'\n' => return self.end_line(byte),
            b'&' | b';' => self.enter_query(rules),
            b'=' => self.enter_query_value(rules),
            _ if byte <= b' ' => self.end_query_part(),
            b'%' => self.escape = 2,
            _ => match (self.escape, hex_value(byte)) {
                (2, digit @ 0..16) => {
                    self.escape_high = u32::from(digit);
                    self.escape = 1;
                }
                (1, digit @ 0..16) => {
                    self.escape = 0;
                    self.query_name_char(rules, (self.escape_high << 4) as u8 | digit);
                }
                _ => {
                    self.escape = 0;
                    self.query_name_char(rules, byte);
                }
            },
        }
        self.pos += 1;
    }

    /// Takes a decoded character of a query name.
    #[inline(always)]
    fn query_name_char(&mut self, rules: &Rules, byte: u8) {
        // PHP drops spaces before a name, URLSearchParams a `?`, and to Node's qs `[name]` is `name`.
        if self.name.is_empty() && matches!(byte, b'+' | b' ' | b'?' | b'[') {
            return;
        }
        // `name[]` and `name[key]` are arrays in PHP and Node's qs; the first bracket ends the name there.
        if matches!(byte, b'[' | b']') && self.array == u32::from(NO_LOCATION) {
            self.array = u32::from(rules.find(self.name.finish()));
        }
        self.name.absorb(u64::from(byte), 1);
        self.check_query_name();
    }

    /// Gives up a name that is too long for a location, unless it is one with an array's key behind it.
    #[inline(always)]
    fn check_query_name(&mut self) {
        if self.name.len() > MAX_NAME as u64 && self.array == u32::from(NO_LOCATION) {
            self.mode = Mode::QuerySkip;
        }
    }

    #[inline(always)]
    fn enter_query_value(&mut self, rules: &Rules) {
        let mut location = rules.find(self.name.finish());
        if location == NO_LOCATION {
            location = self.array as LocationId;
        }
        if location == NO_LOCATION {
            self.mode = Mode::QuerySkip;
        } else {
            self.mode = Mode::Value;
            self.value.begin(rules, Context::Query, location);
        }
    }
}

/// Not zero where the group of word `index` holds a byte that ends a cookie or a parameter, or begins an escape.
#[inline(always)]
fn ends_part<C: Chunk>(chunk: &C, index: u32) -> u64 {
    let mut marks = 0;
    let mut i = index;
    while i < index + GROUP / 8 {
        swar::forget_registers();
        let word = chunk.word(i);
        marks |= swar::equal(word, b';') | swar::equal(word, b'\\');
        i += 1;
    }
    marks
}

/// [`Scan::copy`] where the state is large: under a name that other objects could call, since such a function the verifier
/// walks through once, and not from each place that calls it. Gives 0, for the verifier wants a value.
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
extern "C" fn tokenblock_scan_copy(to: *mut Scan, from: *const Scan) -> u64 {
    // SAFETY: `Scan::copy` passes references; the verifier sees to the rest.
    if let (Some(to), Some(from)) = unsafe { (to.as_mut(), from.as_ref()) } {
        to.copy_words(from);
    }
    0
}

/// What a query or a part of it begins behind; marks behind the first one may be wrong.
#[inline(always)]
fn begins_part(word: u64) -> u64 {
    swar::first_equal(word, b'?') | swar::first_equal(word, b'&') | swar::first_equal(word, b';')
}

/// What stands between two parts of a query.
#[inline(always)]
fn parts(word: u64) -> u64 {
    swar::equal(word, b'&') | swar::equal(word, b';')
}

/// What ends a header name, or a method.
#[inline(always)]
fn name_end(word: u64) -> u64 {
    swar::equal(word, b':') | swar::below(word, b'!')
}

/// As [`name_end`]; marks behind the first one may be wrong.
#[inline(always)]
fn first_name_end(word: u64) -> u64 {
    swar::first_equal(word, b':') | swar::first_below(word, b'!')
}

/// What ends a request target, or begins its query; marks behind the first one may be wrong.
#[inline(always)]
fn target_end(word: u64) -> u64 {
    swar::first_equal(word, b'?') | swar::first_below(word, b'!')
}

/// As [`name_end`], and bytes beyond ASCII; marks behind the first one may be wrong.
#[inline(always)]
fn usual_name_end(word: u64) -> u64 {
    swar::first_equal(word, b':') | swar::first_odd(word, b'!')
}

/// How many white space and control characters the word begins with; 8 also where a line end is among them.
#[inline(always)]
fn indent(word: u64) -> u32 {
    let indent = swar::first(swar::below(word, b'!') ^ swar::splat(0x80));
    if swar::keep(swar::line_end(word), indent) == 0 {
        indent
    } else {
        8
    }
}

impl Source for [u8] {
    type Chunk<'a> = &'a [u8];

    fn chunk(&self, at: u32) -> &[u8] {
        self.get(at as usize..).unwrap_or(&[])
    }

    fn end(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }

    fn line_end(&self, from: u32, end: u32) -> u32 {
        let rest = self.get(from as usize..end as usize).unwrap_or(&[]);
        let len = rest.iter().position(|b| matches!(b, b'\r' | b'\n'));
        len.map_or(end, |len| from + len as u32)
    }

    fn whole_lines(&self, scan: &mut Scan, rules: &Rules) {
        while scan.whole_line(rules, self) {}
    }

    fn find_part(&self, scan: &mut Scan, rules: &Rules) {
        scan.find_part(rules, self);
    }
}

impl Chunk for &[u8; WIDEST as usize] {
    #[inline(always)]
    fn word(&self, index: u32) -> u64 {
        let at = (index & (WIDEST_WORDS - 1)) as usize * 8;
        // SAFETY: in bounds by the mask; eight bytes are eight bytes.
        u64::from_le_bytes(unsafe { self.as_ptr().add(at).cast::<[u8; 8]>().read() })
    }

    #[inline(always)]
    fn pair(&self, index: u32) -> (u64, u64) {
        // One check for both.
        let at = (index & (WIDEST_WORDS - 2)) as usize * 8;
        // SAFETY: as in `word`.
        let word = |n: usize| unsafe { self.as_ptr().add(at + n * 8).cast::<[u8; 8]>().read() };
        (u64::from_le_bytes(word(0)), u64::from_le_bytes(word(1)))
    }

    #[inline(always)]
    fn words(&self, index: u32) -> Words {
        // One check for all four.
        let at = (index & (WIDEST_WORDS - 4)) as usize * 8;
        // SAFETY: as in `word`.
        let word = |n: usize| unsafe { self.as_ptr().add(at + n * 8).cast::<[u8; 8]>().read() };
        (
            u64::from_le_bytes(word(0)),
            u64::from_le_bytes(word(1)),
            u64::from_le_bytes(word(2)),
            u64::from_le_bytes(word(3)),
        )
    }
}

impl Chunk for &[u8] {
    fn word(&self, index: u32) -> u64 {
        let rest = self.get(index as usize * 8..).unwrap_or(&[]);
        match rest.first_chunk::<8>() {
            Some(chunk) => u64::from_le_bytes(*chunk),
            None => rest
                .iter()
                .rev()
                .fold(0, |word, byte| word << 8 | u64::from(*byte)),
        }
    }

    fn pair(&self, index: u32) -> (u64, u64) {
        (self.word(index), self.word(index + 1))
    }

    fn words(&self, index: u32) -> Words {
        (
            self.word(index),
            self.word(index + 1),
            self.word(index + 2),
            self.word(index + 3),
        )
    }
}
