//! Lines of a declared body that say nothing, taken one after the other.

use super::super::{rules::Rules, swar};
use super::{
    ABSOLUTE, ABSOLUTE_CASE, BLANK, Chunk, Mode, Scan, Source, VERSION, WORD,
    line::{FRONT, name_end},
};

/// Further than any line reaches.
const TARGET: u32 = 1 << 31;

impl Scan {
    /// Whether [`Scan::body_line`] may be done where [`Scan::takes_lines`].
    #[inline(always)]
    pub(super) fn is_body_line(&self) -> bool {
        self.mode as u32 == Mode::Line as u32
            && self.in_body()
            && self.headers & WORD != 0
            && self.in_query == 0
    }

    /// [`Scan::whole_line`] in a declared body. Its end is looked for first: a processor has room for as many instructions as both
    /// take, and so is at the end of the next line while it still looks at the words of this.
    #[inline(always)]
    pub fn body_line<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S) -> bool {
        let end = self.end_of_body(source);
        if !self.is_body_line() || self.pos >= end {
            return false;
        }
        let chunk = source.chunk(self.pos);
        self.line_end = source.line_end(self.pos, end);
        let scan = swar::again(self);
        if !scan.take_body_line(rules, source, &chunk) {
            return false;
        }
        let scan = swar::again(scan);
        let end = scan.end_of_body(source);
        scan.end_whole_line(source, end, false)
    }

    /// [`Scan::end`], where a branch is foreseen and costs the verifier nothing.
    #[inline(always)]
    fn end_of_body<S: Source + ?Sized>(&self, source: &S) -> u32 {
        let (end, body_end) = (source.end(), self.body_end);
        if body_end < end { body_end } else { end }
    }

    /// Takes a line of a declared body if it means nothing to the rules, nor to the framing: there nothing of its spelling is odd.
    #[inline(always)]
    fn take_body_line<S: Source + ?Sized>(
        &mut self,
        rules: &Rules,
        source: &S,
        chunk: &S::Chunk<'_>,
    ) -> bool {
        let mut first = chunk.word(0);
        let mut len = 0;
        if first as u8 <= b' ' {
            if matches!(first as u8, b'\n' | b'\r') {
                // Several CR before an LF are one line end.
                if self.after_cr != 0 {
                    return false;
                }
                self.headers |= BLANK;
                return true;
            }
            len = indent(first);
            if len == 8 {
                return false;
            }
            first = chunk.word_at(len);
        }
        let mut word = first;
        let mut mark = name_end(word, FRONT);
        let mut whole = 0;
        if mark == 0 {
            whole = 8;
            word = chunk.word_at(len + 8);
            mark = name_end(word, swar::last(first));
        }
        let stop = swar::first_marked(mark);
        let known = first as u32 == VERSION || rules.may_know(first as u8, whole + stop);
        if mark == 0 || known {
            return false;
        }
        len += whole + stop;
        let byte = word.wrapping_shr(stop * 8) as u8;
        if !matches!(byte, b':' | b'\n' | b'\r') {
            // What is behind a byte beyond ASCII may be a part of the method, and the next word the target.
            len = behind_targets(chunk, len + 1, u32::from(byte >> 7));
        }
        self.pos.wrapping_add(len) < self.end_of_body(source)
    }
}

/// Where the word at `at` ends, or its query, and `more` words behind it (0 or 1), as far as the line goes; [`TARGET`] where one of
/// them may be a target that means something, or the version behind one.
#[inline(always)]
fn behind_targets<C: Chunk>(chunk: &C, mut at: u32, mut more: u32) -> u32 {
    loop {
        let first = chunk.word_at(at);
        let blank = matches!(first as u8, b' ' | b'\t');
        let (mut over, mut mark) = (at, target_end(first));
        for _ in 0..3 {
            if mark == 0 {
                over += 8;
                mark = target_end(chunk.word_at(over));
            }
        }
        if mark == 0 || blank || may_begin(first) {
            return TARGET;
        }
        over += swar::first_marked(mark);
        let mut byte = chunk.word_at(over) as u8;
        if byte == b'?' {
            over = behind_query(chunk, over + 1);
            byte = chunk.word_at(over) as u8;
        }
        if matches!(byte, b'\n' | b'\r') {
            return over;
        }
        if more == 0 {
            let version = may_begin(chunk.word_at(over + 1));
            return if version { TARGET } else { over };
        }
        at = over + 1;
        more = swar::opaque(0);
    }
}

/// Whether a target begins so, or the version behind one.
#[inline(always)]
fn may_begin(word: u64) -> bool {
    word as u8 == b'/' || word as u32 | ABSOLUTE_CASE == ABSOLUTE
}

/// Where the query at `at` ends; [`TARGET`] where a parameter in it may have a value. White space ends it, for it is not that of a
/// path.
#[inline(always)]
fn behind_query<C: Chunk>(chunk: &C, at: u32) -> u32 {
    let (mut over, mut mark) = (at, query_end(chunk.word_at(at)));
    for _ in 0..3 {
        if mark == 0 {
            over += 8;
            mark = query_end(chunk.word_at(over));
        }
    }
    over += swar::first_marked(mark);
    if mark == 0 || chunk.word_at(over) as u8 == b'=' {
        return TARGET;
    }
    over
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
