//! What a header block says of where its message ends (RFC 9112 section 6).

/// What a header block has said so far, in one word, so that it is kept from one segment to the next as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Framing(u64);

/// Longest `Content-Length` that is believed.
const LENGTH: u64 = (1 << 48) - 1;
/// A request line was read, and no empty line since.
const BEGUN: u64 = 1 << 63;
/// `Content-Length` was read.
const DECLARED: u64 = 1 << 62;
/// `Transfer-Encoding` was read.
const CODED: u64 = 1 << 61;
/// A digit of the length was read.
const DIGITS: u64 = 1 << 60;
/// White space was read behind the digits.
const ENDED: u64 = 1 << 59;
/// Bytes of a length that are read at once.
const WORD: u32 = 8;

impl Framing {
    /// Nothing, as between two messages.
    pub const NONE: Self = Self(0);

    /// The declared length; 0 where none is.
    #[inline(always)]
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0 & LENGTH
    }

    /// Whether both say the same of where the message ends.
    #[inline(always)]
    #[must_use]
    pub const fn is_as(self, other: Self) -> bool {
        (self.0 ^ other.0) & !BEGUN == 0
    }

    /// After a request line. What was read before it is of no message, but a second such line is not the first of one.
    #[inline(always)]
    #[must_use]
    pub const fn begin(self) -> Self {
        if self.0 & BEGUN == 0 {
            Self(BEGUN)
        } else {
            self
        }
    }

    /// After the name `Content-Length`: its value is about to be read.
    #[inline(always)]
    #[must_use]
    pub const fn declare(self) -> Self {
        Self(self.0 & !(LENGTH | DIGITS | ENDED) | DECLARED)
    }

    /// After the name `Transfer-Encoding`.
    #[inline(always)]
    #[must_use]
    pub const fn code(self) -> Self {
        Self(self.0 | CODED)
    }

    /// Whether a request line was read, and no empty line since.
    #[inline(always)]
    #[must_use]
    pub const fn is_begun(self) -> bool {
        self.0 & BEGUN != 0
    }

    /// Whether a length was declared.
    #[inline(always)]
    #[must_use]
    pub const fn is_declared(self) -> bool {
        self.0 & DECLARED != 0
    }

    /// 1 where `Transfer-Encoding` was read behind a request line, else 0.
    #[inline(always)]
    #[must_use]
    pub const fn is_coded(self) -> u32 {
        (self.0 >> CODED.trailing_zeros() & self.0 >> BEGUN.trailing_zeros() & 1) as u32
    }

    /// 1 where a length was read, and no request line in front of it, else 0.
    #[inline(always)]
    #[must_use]
    pub const fn declares_unbegun(self) -> u32 {
        (self.0 >> DECLARED.trailing_zeros() & !(self.0 >> BEGUN.trailing_zeros()) & 1) as u32
    }

    /// Whether the block says in two ways where the message ends.
    #[inline(always)]
    #[must_use]
    pub const fn is_ambiguous(self) -> bool {
        const BOTH: u64 = BEGUN | DECLARED | CODED;
        self.0 & BOTH == BOTH
    }

    /// Whether the block declares another length than `earlier`.
    #[inline(always)]
    #[must_use]
    pub const fn differs(self, earlier: u64) -> bool {
        self.0 & BEGUN != 0 && self.bytes() != earlier
    }

    /// Whether a value that is over has no digit.
    #[inline(always)]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 & DIGITS == 0
    }

    /// After the first `n` (0..=8) bytes of `word`, of the value of `Content-Length`. Beside it 0, or what is not 0
    /// where servers read other numbers: other bytes than digits and the white space around them, or too many.
    #[inline(always)]
    #[must_use]
    pub fn read(self, word: u64, n: u32) -> (Self, u64) {
        let mut bytes = self.bytes();
        let mut seen = self.0 & (DIGITS | ENDED);
        let mut odd = 0;
        let mut i = 0;
        while i < WORD {
            let byte = word.wrapping_shr(i * 8) as u8;
            let digit = byte.wrapping_sub(b'0');
            if i < n {
                if digit < 10 {
                    bytes = bytes * 10 + u64::from(digit);
                    odd |= bytes >> LENGTH.count_ones();
                    bytes &= LENGTH;
                    odd |= seen & ENDED;
                    seen |= DIGITS;
                } else {
                    odd |= u64::from(byte ^ b' ') * u64::from(byte ^ b'\t');
                    seen |= seen >> 1 & ENDED;
                }
            }
            i += 1;
        }
        (Self(self.0 & !LENGTH | bytes | seen), odd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (u64, bool) {
        let (mut framing, mut odd) = (Framing::NONE.begin().declare(), 0);
        for piece in text.as_bytes().chunks(3) {
            let mut word = [b'7'; 8];
            word[..piece.len()].copy_from_slice(piece);
            let (next, seen) = framing.read(u64::from_le_bytes(word), piece.len() as u32);
            framing = next;
            odd |= seen;
        }
        (framing.bytes(), odd == 0 && !framing.is_empty())
    }

    #[test]
    fn lengths_that_all_servers_read_alike_are_plain() {
        for (text, length) in [
            ("0", 0),
            (" 5", 5),
            ("4294967296", 1 << 32),
            ("  0012345678", 12_345_678),
            (" 281474976710655", LENGTH),
            ("5 ", 5),
            ("\t5\t \t ", 5),
        ] {
            assert_eq!(read(text), (length, true), "{text:?}");
        }
        for text in [
            "",
            " ",
            "+5",
            "-5",
            "0x10",
            "1_000",
            "5, 5",
            "1 0",
            "0 5",
            "5 \t0",
            "5,5",
            "5;6",
            "5x6",
            "5.0",
            "5\u{b}",
            "281474976710656",
            "99999999999999999999999",
        ] {
            assert!(!read(text).1, "{text:?}");
        }
    }

    #[test]
    fn a_block_may_say_one_thing() {
        let begun = Framing::NONE.begin();
        assert!(begun.declare().code().is_ambiguous());
        assert!(begun.code().declare().is_ambiguous());
        assert!(!begun.code().code().is_ambiguous() && !begun.declare().is_ambiguous());
        // As text in a body.
        assert!(!Framing::NONE.code().declare().is_ambiguous());
        assert_eq!(Framing::NONE.declare().declares_unbegun(), 1);
        for framing in [Framing::NONE, Framing::NONE.code(), begun, begun.declare()] {
            assert_eq!(framing.declares_unbegun(), 0);
        }
        assert_eq!(Framing::NONE.declare().begin(), begun);
        assert_eq!(begun.declare().begin(), begun.declare());
        assert_eq!(begun.code().is_coded(), 1);
        for framing in [Framing::NONE, Framing::NONE.code(), begun, begun.declare()] {
            assert_eq!(framing.is_coded(), 0);
        }
        let five = begun.declare().read(u64::from(b'5'), 1).0;
        assert!(five.differs(6) && !five.differs(5));
        assert!(five.is_as(Framing(five.0 & !BEGUN)) && !five.is_as(begun));
    }
}
