//! Lines of a declared body that say nothing, taken one after the other.

use super::super::{
    rules::{MAX_NAME, Rules},
    swar,
};
use super::{
    ABSOLUTE, ABSOLUTE_CASE, BLANK, Chunk, Mode, Scan, Source, VERSION, WORD,
    line::{FRONT, name_end},
};

/// Further than any line reaches.
const TARGET: u32 = 1 << 31;

/// Bytes of a line in front of which its first word has to end, for then all that may be looked at behind it lies in a chunk, and
/// to which it has to begin: what goes on at [`LONG`] is longer than any name that is looked for.
const LONG: u32 = 104;
const INDENTED: u32 = 32;
const _: () = assert!(LONG - INDENTED > MAX_NAME as u32);

impl Scan {
    /// Whether [`Scan::body_line`] may be done where `takes_lines` says so.
    #[inline(always)]
    #[must_use]
    pub fn is_body_line(&self) -> bool {
        self.mode as u32 == Mode::Line as u32
            && self.in_body()
            && self.headers & WORD != 0
            && self.in_query == 0
    }

    /// [`Scan::whole_line`] in a declared body, where [`Scan::is_body_line`], or behind another such line. Its end is looked for
    /// first: a processor has room for as many instructions as both take, and so is at the end of the next line while it still
    /// looks at the words of this.
    #[inline(always)]
    pub fn body_line<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S) -> bool {
        let end = self.end_of_body(source);
        if self.pos >= end {
            return false;
        }
        let chunk = source.chunk(self.pos);
        self.line_end = source.line_end(self.pos, end);
        let scan = swar::again(self);
        let len = scan.take_body_line(rules, &chunk, end);
        let scan = swar::again(scan);
        scan.pos.wrapping_add(len) < end && scan.end_body_line(source, end)
    }

    /// [`Scan::end`], where a branch is foreseen and costs the verifier nothing.
    #[inline(always)]
    fn end_of_body<S: Source + ?Sized>(&self, source: &S) -> u32 {
        let (end, body_end) = (source.end(), self.body_end);
        if body_end < end { body_end } else { end }
    }

    /// [`Scan::end_whole_line`], where the next line begins as this one did.
    #[inline(always)]
    fn end_body_line<S: Source + ?Sized>(&mut self, source: &S, end: u32) -> bool {
        let at = self.line_end;
        if at >= end {
            self.pos = at;
            self.mode = Mode::Skip;
            return false;
        }
        // Without a branch, for in what is no text nobody could foresee it. LF and CR differ in this bit.
        let two = source.chunk(at).word(0) as u16;
        let cr = u32::from(two) >> 2 & 1;
        if at + 1 >= end {
            self.pos = end;
            self.after_cr = cr;
            return false;
        }
        let crlf = swar::is_zero(u32::from(two ^ u16::from_le_bytes(*b"\r\n")));
        self.pos = at + 1 + crlf;
        self.after_cr = cr ^ crlf;
        // Several CR before an LF are one line end.
        two != u16::from_le_bytes(*b"\r\r")
    }

    /// How far a line of a declared body was looked at that means nothing to the rules, nor to the framing: there nothing of its
    /// spelling is odd. [`TARGET`] where it may mean something.
    #[inline(always)]
    fn take_body_line<C: Chunk>(&mut self, rules: &Rules, chunk: &C, end: u32) -> u32 {
        let mut first = chunk.word(0);
        let mut begin = 0;
        if first as u8 <= b' ' {
            if matches!(first as u8, b'\n' | b'\r') {
                // Several CR before an LF are one line end.
                if self.after_cr != 0 {
                    return TARGET;
                }
                self.headers |= BLANK;
                return 0;
            }
            self.passed = indentation(chunk);
            // For the verifier, all ways lead to one place by what is read again.
            begin = swar::again(self).passed;
            if begin > INDENTED {
                return TARGET;
            }
            first = chunk.word_at(begin);
        }
        let (mut at, mut word) = (begin, first);
        let mut mark = name_end(word, FRONT);
        if mark == 0 {
            self.passed = long_word(chunk, begin);
            at = swar::again(self).passed;
            let front = swar::last(chunk.word_at(at.wrapping_sub(8)));
            if at >= LONG {
                if self.pos + at <= end {
                    self.pos += at;
                    self.mode = Mode::Method;
                    self.name_ended = front;
                }
                return TARGET;
            }
            word = chunk.word_at(at);
            mark = name_end(word, front);
        }
        at += swar::first_marked(mark);
        if first as u32 == VERSION || rules.may_know(first as u8, at - begin) {
            return TARGET;
        }
        let word = chunk.word_at(at);
        if matches!(word as u8, b':' | b'\n' | b'\r') {
            return at;
        }
        // What is behind a byte beyond ASCII may be a part of the method, and the next word the target.
        behind_targets(chunk, at, word, 1 + (word as u32 >> 7 & 1))
    }
}

/// Where the word is in which the first word of a line ends that begins at `at`, not in the word there; [`LONG`] or more where none
/// is in front of that.
#[inline(always)]
fn long_word<C: Chunk>(chunk: &C, mut at: u32) -> u32 {
    let mut word = chunk.word_at(at);
    loop {
        let front = swar::last(word);
        at = swar::opaque(at + 8);
        word = chunk.word_at(at);
        if at >= LONG || name_end(word, front) != 0 {
            return at;
        }
    }
}

/// How many white space and control characters the line begins with, as far as it goes; more than [`INDENTED`] where there are.
#[inline(always)]
fn indentation<C: Chunk>(chunk: &C) -> u32 {
    let mut at = 0;
    loop {
        let word = chunk.word_at(at);
        let mark = swar::below(word, b'!') ^ swar::splat(0x80) | swar::line_end(word);
        if mark != 0 {
            return at + swar::first_marked(mark);
        }
        at = swar::opaque(at + 8);
        if at > INDENTED {
            return at;
        }
    }
}

/// Where the first `words` words behind the byte at `at` end, the first of `word`, or their queries, as far as the line goes;
/// [`TARGET`] where one of them may be a target that means something, or the version behind one.
#[inline(always)]
fn behind_targets<C: Chunk>(chunk: &C, mut at: u32, mut word: u64, mut words: u32) -> u32 {
    loop {
        let next = word >> 8;
        if may_begin(next) {
            return TARGET;
        }
        if words == 0 {
            return at;
        }
        let mark;
        (at, mark) = marked(chunk, at, word, target_end);
        if mark == 0 || matches!(next as u8, b' ' | b'\t') {
            return TARGET;
        }
        word = chunk.word_at(at);
        if word as u8 == b'?' {
            // A parameter in it may have a value. White space ends it, for it is not that of a path.
            let mark;
            (at, mark) = marked(chunk, at, word, query_end);
            word = chunk.word_at(at);
            if mark == 0 || word as u8 == b'=' {
                return TARGET;
            }
        }
        if matches!(word as u8, b'\n' | b'\r') {
            return at;
        }
        words = swar::opaque(words - 1);
    }
}

/// The first byte behind the one at `at`, the first of `word`, that `ends` marks, among 31, and a mark; 0 where there is none.
#[inline(always)]
fn marked<C: Chunk>(chunk: &C, mut at: u32, word: u64, ends: impl Fn(u64) -> u64) -> (u32, u64) {
    let mut mark = ends(word | 0xff);
    for _ in 0..3 {
        if mark == 0 {
            at += 8;
            mark = ends(chunk.word_at(at));
        }
    }
    (at + swar::first_marked(mark), mark)
}

/// Whether a target begins so, or the version behind one.
#[inline(always)]
fn may_begin(word: u64) -> bool {
    word as u8 == b'/' || word as u32 | ABSOLUTE_CASE == ABSOLUTE
}

/// What ends a query, or begins the value of a parameter; marks behind the first one may be wrong.
#[inline(always)]
fn query_end(word: u64) -> u64 {
    swar::first_equal(word, b'=') | swar::first_below(word, b'!')
}

/// What ends a request target, or begins its query; marks behind the first one may be wrong.
#[inline(always)]
pub(super) fn target_end(word: u64) -> u64 {
    swar::first_equal(word, b'?') | swar::first_below(word, b'!')
}

/// How many white space and control characters the word begins with; 8 also where a line end is among them.
#[inline(always)]
pub(super) fn indent(word: u64) -> u32 {
    let indent = swar::first(swar::below(word, b'!') ^ swar::splat(0x80));
    if swar::keep(swar::line_end(word), indent) == 0 {
        indent
    } else {
        8
    }
}
