//! Lines of a declared body that say nothing, taken one after the other.

use super::super::{rules::Rules, swar};
use super::{
    ABSOLUTE, ABSOLUTE_CASE, BLANK, Chunk, Mode, Scan, Source, VERSION, WORD,
    line::{FRONT, name_end},
};

/// Further than any line reaches.
const TARGET: u32 = 1 << 31;

impl Scan {
    /// Whether [`Scan::take_body_line`] may be done where [`Scan::takes_lines`].
    #[inline(always)]
    pub(super) fn is_body_line(&self) -> bool {
        self.mode as u32 == Mode::Line as u32
            && self.in_body()
            && self.headers & WORD != 0
            && self.in_query == 0
    }

    /// Takes a line of a declared body if it means nothing to the rules, nor to the framing: there nothing of its spelling is odd.
    /// Where its words end is not where the search for the line's end begins: the one need not wait for the other.
    #[inline(always)]
    pub(super) fn take_body_line<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S) -> bool {
        let chunk = source.chunk(self.pos);
        let left = self.end(source) - self.pos;
        let mut first = chunk.word(0);
        let mut len = 0;
        if first as u8 <= b' ' {
            if matches!(first as u8, b'\n' | b'\r') {
                // Several CR before an LF are one line end.
                if left == 0 || self.after_cr != 0 {
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
        let stop = swar::first(mark);
        let known = first as u32 == VERSION || rules.may_know(first as u8, whole + stop);
        if mark == 0 || known {
            return false;
        }
        len += whole + stop;
        let byte = word.wrapping_shr(stop * 8) as u8;
        if byte == b' ' {
            len = behind_target(&chunk, len + 1);
        } else if !matches!(byte, b':' | b'\n' | b'\r') {
            len = behind_target(&chunk, len + 1);
            if byte >= 0x80 && !matches!(chunk.word_at(len) as u8, b'\n' | b'\r') {
                // What is behind that byte may be a part of the method, and the next word the target.
                len = behind_target(&chunk, len + 1);
            }
        }
        len < left
    }
}

/// Where the word at `at` ends; [`TARGET`] where it may be a target.
#[inline(always)]
fn behind_target<C: Chunk>(chunk: &C, at: u32) -> u32 {
    let first = chunk.word_at(at);
    let (mut over, mut word) = (at, first);
    let mut mark = target_end(word);
    if mark == 0 {
        over += 8;
        word = chunk.word_at(over);
        mark = target_end(word);
    }
    if mark == 0 {
        over += 8;
        word = chunk.word_at(over);
        mark = target_end(word);
    }
    if mark == 0 {
        over += 8;
        word = chunk.word_at(over);
        mark = target_end(word);
    }
    if mark == 0 || first as u32 | ABSOLUTE_CASE == ABSOLUTE || first as u8 == b'/' {
        return TARGET;
    }
    let stop = swar::first(mark);
    let byte = word.wrapping_shr(stop * 8) as u8;
    over += stop;
    if byte == b'?' || over == at && matches!(byte, b' ' | b'\t') {
        return TARGET;
    }
    if chunk.word_at(over + 1) as u32 == VERSION {
        return TARGET;
    }
    over
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
