//! The scanner: finds locations in a byte stream, line by line, whatever the framing says.
//!
//! It works in units: [`Scan::step`] does one bounded piece of straight-line work and returns. The kernel
//! program calls it under `bpf_loop`, the host in a plain loop. Between two units the whole state lies in
//! [`Scan`], so a stream may be cut at any byte.

mod anywhere;
mod block;
mod body;
mod cookie;
mod line;
mod message;
mod query;
mod request;
mod said;
mod saved;
mod source;
mod target;
mod value;
mod whole;

use super::{
    candidate::Value,
    digest::TokenDigest,
    filter::{Filter, Lanes},
    framing::Framing,
    location::{LocationKind, NameHash},
    rules::{NO_LOCATION, Rules},
    swar,
};

pub use self::{
    block::unread_value,
    request::begins_request,
    source::{Chunk, Source},
};

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

/// [`SIGN`] of what a body was declared in, or was said to come in chunks; none has been seen since it began.
const SIGN_BEFORE: u32 = 1 << 13;

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

/// An empty line has ended a header block that says that its message comes in chunks; [`BEFORE_CHUNKS`]: and none since.
const CHUNKS: u32 = 2048;

const BEFORE_CHUNKS: u32 = 4096;

/// `also`: parameters are looked for anywhere, and nothing else.
const ANYWHERE: u32 = 1 << 31;

/// `also` of a state that is kept: a reading by lines and one of parameters anywhere are both in it. Below it is what
/// [`Scan::keep_beside`] was told.
const BOTH: u32 = 8;

/// No end of a body is known.
const NO_END: u32 = u32::MAX;

/// Furthest position of an end of a body: further than any segment reaches.
const FAR: u64 = 1 << 31;

/// There is no earlier length.
const NO_LENGTH: u64 = u64::MAX;

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
    /// Whether white space ended the cookie name (`name = value`). Of a header's name: what makes it none of framing at
    /// most servers.
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
    /// Behind the first byte of the last empty line, where [`BLANK`] is set.
    blank_at: u32,
    /// Where the line ends that is being looked at.
    line_end: u32,
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
            blank_at: 0,
            line_end: 0,
            also: 0,
            fingerprint: Lanes::NONE,
            name: NameHash::new(LocationKind::Header, rules.name_seed),
            value: Value::new(rules),
        }
    }

    /// Where to stop: the end of the source or of the declared body.
    #[inline(always)]
    fn end<S: Source + ?Sized>(&self, source: &S) -> u32 {
        let end = source.end();
        swar::least(self.body_end, end)
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
            Mode::Line => {
                if self.is_unread() {
                    source.request_line(self, rules);
                    swar::forget_registers();
                }
                if self.mode as u32 == Mode::Line as u32 && self.pos < self.end(source) {
                    self.line_unit(rules, source);
                }
            }
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

    /// The stream ended: what was read so far is all there will be.
    pub fn finish(&mut self, rules: &Rules) {
        if self.mode == Mode::Value {
            self.value.end(rules);
            self.mode = Mode::Skip;
        }
    }

    /// Whether the line ends with what is usual behind a request target.
    #[inline(always)]
    fn is_over<S: Source + ?Sized>(&self, source: &S) -> bool {
        let chunk = source.chunk(self.pos);
        let left = source.end().wrapping_sub(self.pos);
        left > 8 && chunk.word(0) == HTTP_1_1 && matches!(chunk.word(1) as u8, b'\r' | b'\n')
    }
}
