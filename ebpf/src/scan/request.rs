//! The first line of a request, taken at once where it is spelled as usual.

use super::super::{framing::Framing, rules::Rules, swar};
use super::{
    Chunk, FIELD, HTTP_1_1, Mode, PRI, SIGN, Scan, Source, VERSION, WIDEST, WORD,
    query::ends_query_name,
};

/// Bytes of what ends the line: a space, the version, CR LF.
const END: u32 = 11;
/// Bytes of a line that are looked at: a word that begins there lies in one chunk.
const MOST: u32 = WIDEST - 2 * END;
/// Most parameters of a query that are taken, and words of a path or a value.
const PARAMETERS: u32 = 16;
const WORDS: u32 = 32;

/// How requests with the methods of RFC 9110 and RFC 5789 begin, as far as eight bytes show, but for CONNECT.
const BEGINNINGS: [&[u8]; 8] = [
    b"GET /",
    b"HEAD /",
    b"POST /",
    b"PUT /",
    b"PATCH /",
    b"DELETE /",
    b"TRACE /",
    b"OPTIONS ",
];

/// Whether a segment whose first eight bytes these are begins as a request does, and not in the middle of a line.
#[inline(always)]
#[must_use]
pub fn begins_request(word: u64) -> bool {
    let mut begins = false;
    let mut i = 0;
    while i < BEGINNINGS.len() {
        let beginning = const_word(BEGINNINGS[i]);
        begins |= swar::keep(word, BEGINNINGS[i].len() as u32) == beginning;
        i += 1;
    }
    begins
}

/// Up to eight bytes as a word.
const fn const_word(bytes: &[u8]) -> u64 {
    let mut word = 0;
    let mut i = bytes.len();
    while i > 0 {
        i -= 1;
        word = word << 8 | bytes[i] as u64;
    }
    word
}

impl Scan {
    /// Whether [`Scan::request_line`] may be done: nothing was read yet.
    #[inline(always)]
    pub(super) fn is_unread(&self) -> bool {
        self.headers | self.pos | self.also == 0
    }

    /// Takes the first line of a request as most are: a method, one space, a path, perhaps parameters whose names mean nothing
    /// to the rules, one space, `HTTP/1.1` and CR LF. Where it is spelled otherwise the units go on from there. What they do
    /// with a whole line is the same, at three times the cost.
    #[inline(always)]
    pub fn request_line<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S) {
        if !self.begins_message() {
            return;
        }
        let word = source.chunk(0).word(0);
        let method = swar::first(swar::first_below(word, b'!') | swar::first_equal(word, b':'));
        let path = source.chunk(method).word(0) as u16 == u16::from_le_bytes(*b" /");
        let odd = swar::not_ascii(swar::keep(word, method)) != 0;
        let special = word as u32 == VERSION || word as u32 == PRI;
        let end = swar::least(source.end(), MOST);
        if method == 0 || !path || odd || special || method + 1 >= end {
            return;
        }
        self.mode = Mode::Target;
        self.fold = Mode::Target;
        self.headers = SIGN | FIELD | WORD;
        self.framing = Framing::NONE.begin();
        self.name_ended = 0;
        self.pos = method + 1;
        swar::forget_registers();
        if !self.skip_to(source, end, path_end) {
            return;
        }
        let mut i = 0;
        while i < PARAMETERS {
            swar::forget_registers();
            if source.chunk(self.pos).word(0) as u8 <= b' ' {
                self.end_request_line(source);
                return;
            }
            if !self.take_parameter(rules, source, end) {
                return;
            }
            i = swar::opaque(i + 1);
        }
    }

    /// Goes to the first byte that `ends` marks; false where there is none before `end`, and the position is any in front of it.
    #[inline(always)]
    fn skip_to<S: Source + ?Sized>(
        &mut self,
        source: &S,
        end: u32,
        ends: impl Fn(u64) -> u64,
    ) -> bool {
        let chunk = source.chunk(self.pos);
        let mut i = 0;
        let mut mark = 0;
        while i < WORDS {
            mark = ends(chunk.word(i));
            if mark != 0 {
                break;
            }
            i = swar::opaque(i + 1);
        }
        let at = self.pos + i * 8 + (swar::first(mark) & 7);
        if mark == 0 || at >= end {
            return false;
        }
        self.pos = at;
        true
    }

    /// Takes a separator, and the parameter behind it, if its name means nothing.
    #[inline(always)]
    fn take_parameter<S: Source + ?Sized>(&mut self, rules: &Rules, source: &S, end: u32) -> bool {
        self.pos += 1;
        self.enter_query(rules);
        swar::forget_registers();
        let chunk = source.chunk(self.pos);
        let (mut whole, mut word) = (0, chunk.word(0));
        let first = word as u8;
        let mut stop = swar::first(ends_query_name(word));
        if stop == 8 {
            (whole, word) = (8, chunk.word(1));
            stop = swar::first(ends_query_name(word));
        }
        let len = whole + stop;
        let equals = word.wrapping_shr(stop * 8) as u8 == b'=';
        if stop == 8 || len == 0 || !equals || self.pos + len >= end {
            return false;
        }
        if rules.may_know_parameter(first, len) {
            return false;
        }
        self.pos += len + 1;
        self.mode = Mode::QuerySkip;
        swar::forget_registers();
        self.skip_to(source, end, value_end)
    }

    /// Takes the end of the line, if it is the usual one.
    #[inline(always)]
    fn end_request_line<S: Source + ?Sized>(&mut self, source: &S) {
        let space = source.chunk(self.pos).word(0) as u8 == b' ';
        let chunk = source.chunk(self.pos + 1);
        let crlf = chunk.word(1) as u16 == u16::from_le_bytes(*b"\r\n");
        let left = source.end() - self.pos;
        if space && chunk.word(0) == HTTP_1_1 && crlf && left >= END {
            self.pos += END;
            self.mode = Mode::Line;
            self.fold = Mode::Skip;
        }
    }
}

/// What ends a path, or begins its query; marks behind the first one may be wrong.
#[inline(always)]
fn path_end(word: u64) -> u64 {
    swar::first_equal(word, b'?') | swar::first_below(word, b'!')
}

/// What ends the value of a parameter; marks behind the first one may be wrong.
#[inline(always)]
fn value_end(word: u64) -> u64 {
    swar::first_equal(word, b'&') | swar::first_equal(word, b';') | swar::first_below(word, b'!')
}

#[cfg(test)]
mod tests {
    use super::begins_request;

    #[test]
    fn requests_begin_with_a_method_and_a_path() {
        let begins = |bytes: &[u8; 8]| begins_request(u64::from_le_bytes(*bytes));
        for request in [
            b"GET / HT",
            b"GET /abc",
            b"HEAD / H",
            b"POST /ab",
            b"PUT /abc",
            b"PATCH /a",
            b"DELETE /",
            b"TRACE /a",
            b"OPTIONS ",
        ] {
            assert!(begins(request), "{}", request.escape_ascii());
        }
        for other in [
            b"GETX / H",
            b"GET  / H",
            b" GET / H",
            b"get / HT",
            b"a\r\n\r\nGET",
            b"A / HTTP",
            b"PUTGET /",
            b"DELETE a",
        ] {
            assert!(!begins(other), "{}", other.escape_ascii());
        }
    }
}
