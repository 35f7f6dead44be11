//! Lines that say nothing, taken whole: usual header lines, and lines of text.

use super::super::{rules::Rules, swar};
use super::{
    ABSOLUTE, ABSOLUTE_CASE, Chunk, FIELD, Mode, NAMED, ODD, ONE_LINE, Scan, Source, VERSION,
    WIDEST_WORDS, WORD,
    body::{indent, target_end},
    line::FRONT,
};

impl Scan {
    /// Whether [`Scan::whole_line`] may be done.
    #[inline(always)]
    pub(super) fn takes_lines(&self) -> bool {
        let line = self.is_plain_line() && !self.is_one_line();
        let goes_on = self.is_closed() || self.mode as u32 == Mode::Method as u32;
        (goes_on || line) && !self.value.has_pending() && !self.is_anywhere()
    }

    /// Whether the scan is over with its first line.
    #[inline(always)]
    fn is_one_line(&self) -> bool {
        self.headers & ONE_LINE != 0
    }

    /// Takes the rest of a line of which nothing more matters, of a method as far as it does not end, or a whole line that means nothing to the rules, as most do;
    /// true where another one begins behind it. For a scanner where [`Scan::is_closed`], inside of a method, where [`Scan::is_plain_line`], or
    /// where a CR that no LF follows ended the line before. What the units do with a whole line is the same, at three
    /// times the cost.
    #[inline(always)]
    pub fn whole_line<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S) -> bool {
        let left = self.end(source).wrapping_sub(self.pos);
        if self.mode as u32 == Mode::Method as u32 {
            return self.skip_method(source, left);
        }
        if !self.is_closed() {
            if self.is_body_line() {
                return false;
            }
            let taken = if self.headers & FIELD == 0 {
                self.take_text(rules, source, left)
            } else {
                self.take_field(rules, source, left)
            };
            if !taken {
                return false;
            }
        }
        let scan = swar::again(self);
        let end = scan.end(source);
        scan.line_end = source.line_end(scan.pos, end);
        let scan = swar::again(scan);
        let end = scan.end(source);
        scan.end_whole_line(source, end, true) && !scan.is_one_line()
    }

    /// Takes what holds no end of a method, but may be followed by more of it; true where it is followed by more.
    #[inline(always)]
    fn skip_method<S: Source + ?Sized>(&mut self, source: &S, left: u32) -> bool {
        if self.name_ended & FRONT != 0 {
            return false;
        }
        let chunk = source.chunk(self.pos);
        let mut at = 0;
        while at < WIDEST_WORDS {
            let (a, b, c, d) = chunk.words(at);
            if usual_name_end(a) | usual_name_end(b) | usual_name_end(c) | usual_name_end(d) != 0 {
                break;
            }
            at = swar::opaque(at + 4);
        }
        let len = swar::least(at * 8, left);
        self.pos += len;
        at == WIDEST_WORDS && len < left
    }

    /// Takes the name of a header; false where it may be known to the rules.
    #[inline(always)]
    fn take_field<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S, left: u32) -> bool {
        let (first, len, is_usual) = usual_name(&source.chunk(self.pos));
        if !is_usual || len >= left || rules.may_know(first, len) {
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
        let mut mark = first_word_end(word);
        if mark == 0 {
            bits = word;
            (whole, word) = (8, chunk.word(1));
            mark = first_word_end(word);
        }
        if mark == 0 {
            bits |= word;
            (whole, word) = (16, chunk.word(2));
            mark = first_word_end(word);
        }
        let stop = swar::first(mark);
        let (len, end) = (whole + stop, indent + whole + stop);
        let known = begin == VERSION || rules.may_know(begin as u8, len);
        let byte = word.wrapping_shr(stop * 8) as u8;
        if mark == 0 || end >= left || known || byte == b'?' {
            return false;
        }
        if swar::not_ascii(bits | swar::keep(word, stop)) != 0 {
            return false;
        }
        let scan = swar::again(self);
        let next = if byte == b':' || byte == b'\r' || byte == b'\n' {
            Some(0)
        } else {
            scan.next_word(source, left, end + 1)
        };
        let Some(next) = next else {
            return false;
        };
        if !scan.in_body() {
            scan.headers |= u32::from(indent != 0) * ODD;
            if byte == b':' {
                scan.doubt_unbegun();
            }
            if matches!(next, b'*' | b'h' | b'H') {
                scan.begin_message();
            }
        }
        let named = byte == b':' && indent == 0 && scan.headers & WORD == 0;
        scan.headers |= WORD | (u32::from(named) * NAMED);
        true
    }

    /// Looks at the second word of a line, `at` bytes behind the position: its first byte; `None` where it may be a target.
    #[inline(always)]
    fn next_word<S: Source + ?Sized>(&self, source: &S, left: u32, at: u32) -> Option<u8> {
        let chunk = source.chunk(self.pos + at);
        let begin = chunk.word(0) as u32;
        let mut whole = 0;
        let mut mark = target_end(chunk.word(0));
        if mark == 0 {
            whole = 8;
            mark = target_end(chunk.word(1));
        }
        if mark == 0 {
            whole = 16;
            mark = target_end(chunk.word(2));
        }
        let end = at + whole + swar::first(mark);
        let behind = source.chunk(self.pos + end).word(0);
        let query = behind as u8 == b'?';
        let version = (behind >> 8) as u32 == VERSION;
        let first = begin as u8;
        let version = version || begin == VERSION;
        let target = first == b'/' || begin | ABSOLUTE_CASE == ABSOLUTE || query || version;
        let blank = first == b' ' || first == b'\t' || self.in_query != 0;
        if mark == 0 || target || blank || end >= left {
            return None;
        }
        Some(first)
    }

    /// Takes a line to its end, as far as it goes; true where another one may begin behind it that continues none.
    #[inline(always)]
    pub(super) fn end_whole_line<S: Source + ?Sized>(
        &mut self,
        source: &S,
        end: u32,
        doubts: bool,
    ) -> bool {
        let at = self.line_end;
        self.pos = at;
        if at >= end {
            self.mode = Mode::Skip;
            return false;
        }
        let more = at + 1 < end;
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
        if doubts && lf == 0 && more {
            self.doubt_cr();
        }
        lf != 0 || more && (end >> 8) as u8 != b'\r'
    }
}

/// What ends a header name or a method that no query follows; marks behind the first one may be wrong.
#[inline(always)]
fn first_word_end(word: u64) -> u64 {
    swar::first_equal(word, b':') | target_end(word)
}

/// The first byte and the length of the header name with which a line begins; whether it is one as usual, with its colon.
#[inline(always)]
pub(super) fn usual_name<C: Chunk>(chunk: &C) -> (u8, u32, bool) {
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
    let colon = word.wrapping_shr(stop * 8) as u8 == b':';
    (first, whole + stop, mark != 0 && colon)
}

/// What ends a header name, or a method, and all bytes beyond ASCII; marks behind the first one may be wrong.
#[inline(always)]
fn usual_name_end(word: u64) -> u64 {
    swar::first_equal(word, b':') | swar::first_odd(word, b'!')
}
