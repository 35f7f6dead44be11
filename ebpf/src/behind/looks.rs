//! What the bytes behind a gap look like, of which nobody has said yet what they belong to.

use super::super::swar::{choose, is_below, is_zero, opaque};
use super::{BEHIND, Behind, WORDS};

/// Of each state the next one, four bits each, from the lowest on: one such word for each kind of byte.
type Next = u32;

/// The first byte, of which nothing is known.
const FIRST: u32 = 0;
/// In a line whose beginning was not seen.
const WITHIN: u32 = 1;
/// At the first byte of a line.
const LINE: u32 = 2;
/// In the first word of a line, all of it bytes of a name.
const NAME: u32 = 3;
/// They may be of a head.
const HEAD: u32 = 4;
/// They begin inside a body.
const BODY: u32 = 5;

/// A word of the next states, in their order.
const fn next(first: u32, within: u32, line: u32, name: u32) -> Next {
    first | within << 4 | line << 8 | name << 12 | HEAD << 16 | BODY << 20
}

/// Bytes of a field's name (RFC 9110 section 5.6.2).
const NAMES: Next = next(WITHIN, WITHIN, NAME, NAME);
/// Other bytes than these kinds, which may stand in a field's value.
const OTHERS: Next = next(WITHIN, WITHIN, BODY, BODY);
/// A line that begins with it may go on with the one before.
const BLANK: Next = next(WITHIN, WITHIN, WITHIN, BODY);
const COLON: Next = next(WITHIN, WITHIN, WITHIN, HEAD);
/// An empty line may end a head.
const CR: Next = next(HEAD, WITHIN, HEAD, BODY);
const LF: Next = next(HEAD, LINE, HEAD, BODY);
/// Control characters, of which no head has any.
const CONTROL: Next = next(BODY, BODY, BODY, BODY);

/// The next states by a byte: one look for a byte, without branches, for the verifier walks each round.
static BY_BYTE: [Next; 256] = by_byte();

const fn by_byte() -> [Next; 256] {
    let mut next = [OTHERS; 256];
    let mut byte = 0;
    while byte < 256 {
        next[byte] = match byte as u8 {
            b' ' | b'\t' => BLANK,
            b':' => COLON,
            b'\r' => CR,
            b'\n' => LF,
            control if control < 0x20 || control == 0x7f => CONTROL,
            name if is_of_name(name) => NAMES,
            _ => OTHERS,
        };
        byte += 1;
    }
    next
}

const fn is_of_name(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'#'
            | b'$'
            | b'%'
            | b'&'
            | b'\''
            | b'*'
            | b'+'
            | b'-'
            | b'.'
            | b'^'
            | b'_'
            | b'`'
            | b'|'
            | b'~'
    ) || byte.is_ascii_alphanumeric()
}

impl Behind {
    /// Whether it can't be that an honest client's head goes on in them, or begins there: they have a control character, or a
    /// line that is no field's; and neither the end of a head in front of that, nor a field. Where that is so the head, if one
    /// is missing, is all in front of them.
    #[inline(always)]
    #[must_use]
    pub fn is_body(&self) -> bool {
        tokenblock_behind_looks(self) != 0
    }

    fn looks(&self) -> u32 {
        let mut state = FIRST;
        let mut at = 0;
        // Forgotten each time, so that the verifier finds itself where it was and does not walk each of the rounds.
        while at < BEHIND {
            let word = self.words[(at / 8) as usize & (WORDS - 1)];
            let after = go_on(state, (word >> (at % 8 * 8)) as u8);
            state = opaque(choose(is_below(at, self.len), after, state));
            at = opaque(at + 1);
        }
        state
    }
}

/// The state behind a byte.
#[inline(always)]
fn go_on(state: u32, byte: u8) -> u32 {
    BY_BYTE[usize::from(byte)] >> (state * 4) & 15
}

/// [`Behind::is_body`], under a name that other objects could call, since such a function the verifier walks through once.
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
extern "C" fn tokenblock_behind_looks(behind: *const Behind) -> u64 {
    // SAFETY: `Behind::is_body` passes a reference; the verifier sees to the rest.
    let Some(behind) = (unsafe { behind.as_ref() }) else {
        return 0;
    };
    u64::from(is_zero(behind.looks() ^ BODY))
}

#[cfg(test)]
mod tests {
    use super::super::BEHIND;
    use super::*;

    fn is_body(bytes: &[u8]) -> bool {
        let mut behind = Behind::NONE;
        let kept = behind.keep(bytes.len() as u32) as usize;
        for (i, byte) in bytes[..kept].iter().enumerate() {
            behind.words[i / 8] |= u64::from(*byte) << (i % 8 * 8);
        }
        behind.is_body()
    }

    #[test]
    fn what_no_head_has_is_of_a_body() {
        for text in [
            "\0",
            "some of \u{7f}",
            "of a\nlong line\n",
            "abc\r\n{\"a\": 1}\r\n",
            "abc\n\"a\": 1\n",
            "abc\n<a>",
            "abc\r\nno name\r\n\r\nGET / HTTP/1.1",
            "abc\nword\nand",
            "abc\n word\nand so",
            "abc\n:word\nand so",
            "abc\n\u{a0}word",
            "abc: d\nan d",
            "abc: d\n--boundary",
        ] {
            let expected = text != "abc: d\n--boundary";
            assert_eq!(is_body(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn what_a_head_may_have_is_not() {
        // What tells is behind what is kept.
        let mut long = [b'a'; BEHIND as usize + 4];
        long[BEHIND as usize - 1..].copy_from_slice(b"\nan d");
        assert!(!is_body(&long));
        for text in [
            "",
            "a",
            "a b c",
            "{\"a\": \"b\", \"c\": [1, 2]}",
            "a; session=b; c=\"d\"",
            "\n",
            "\r\na b",
            "\n\0",
            "\nan d",
            "me\r\nHost: h\r\nan d",
            "me\r\nHost",
            "me\r\nHost:",
            "me\r\n more of it\r\n",
            "me\r\n\r\n{\"a\": 1}",
            "me\n\n\0",
            "me\r\n\r\nGET / HTTP/1.1\r\n",
            "/a?b=c HTTP/1.1\r\nHost: h\r\n",
            "caf\u{e9}; a=b",
        ] {
            assert!(!is_body(text.as_bytes()), "{text:?}");
        }
    }

    #[test]
    fn names_are_those_of_fields() {
        for byte in 0..=u8::MAX {
            let line = [b"a\n", &[byte][..], b" "].concat();
            let name = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            let state = [b'a', b'\n', byte].into_iter().fold(FIRST, go_on);
            assert_eq!(state == NAME, name, "{byte}");
            let other = !matches!(byte, b'\r' | b'\n' | b' ' | b'\t' | b':');
            assert_eq!(is_body(&line), other, "{byte}");
        }
    }
}
