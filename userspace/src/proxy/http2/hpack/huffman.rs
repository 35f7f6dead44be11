//! The Huffman code of strings (RFC 7541 appendix B).

use super::Malformed;

/// Bits of the code of each byte. The code is canonical, so that lengths say all: shorter codes are the smaller ones, and
/// among those of one length the smaller bytes have them. What ends a string has the largest of all, and stands in none.
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, //
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28, //
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, //
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, //
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, //
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, //
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, //
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, //
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, //
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, //
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, //
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, //
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, //
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, //
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, //
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// Bits of the longest code.
const LONGEST: usize = 30;
/// Bits of what most texts are made of.
const SHORT: usize = 8;

/// What the code's lengths say.
struct Codes {
    /// By the next eight bits: the byte with a code of so many bits or fewer, and that code's length; 0 for a longer one.
    short: [(u8, u8); 1 << SHORT],
    /// All bytes in the order of their codes.
    bytes: [u8; 256],
    /// Of the codes of each length: the first one, how many bytes have shorter ones, and how many have these.
    lengths: [(u32, u32, u32); LONGEST + 1],
}

static CODES: Codes = Codes::new();

impl Codes {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::indexing_slicing,
        reason = "run by the compiler, over 256 bytes"
    )]
    const fn new() -> Self {
        let mut codes = Self {
            short: [(0, 0); 1 << SHORT],
            bytes: [0; 256],
            lengths: [(0, 0, 0); LONGEST + 1],
        };
        let (mut code, mut known, mut length) = (0_u32, 0_u32, 1);
        while length <= LONGEST {
            code <<= 1;
            codes.lengths[length] = (code, known, 0);
            let mut byte = 0;
            while byte < LENGTHS.len() {
                if LENGTHS[byte] as usize == length {
                    codes.bytes[known as usize] = byte as u8;
                    if length <= SHORT {
                        let spare = SHORT - length;
                        let mut next = (code as usize) << spare;
                        let end = next + (1 << spare);
                        while next < end {
                            codes.short[next] = (byte as u8, length as u8);
                            next += 1;
                        }
                    }
                    code += 1;
                    known += 1;
                    codes.lengths[length].2 += 1;
                }
                byte += 1;
            }
            length += 1;
        }
        codes
    }

    /// The byte whose code begins these bits, and that code's length.
    fn long(&self, bits: u64) -> Option<(u8, usize)> {
        (SHORT + 1..=LONGEST).find_map(|length| {
            let &(first, before, count) = self.lengths.get(length)?;
            let code = u32::try_from(bits >> (64 - length)).ok()?;
            let place = code.checked_sub(first).filter(|place| *place < count)?;
            let byte = self.bytes.get(usize::try_from(before + place).ok()?)?;
            Some((*byte, length))
        })
    }
}

/// Adds the bytes of a coded string to `out`.
///
/// # Errors
/// Where it is none.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    // The shortest code has five bits.
    out.reserve(coded.len() * 8 / 5);
    let (mut rest, mut bits, mut have) = (coded, 0_u64, 0_usize);
    loop {
        if have < 32 {
            if let Some((next, tail)) = rest.split_first_chunk::<4>() {
                bits |= u64::from(u32::from_be_bytes(*next)) << (32 - have);
                (rest, have) = (tail, have + 32);
            } else if let Some((next, tail)) = rest.split_first() {
                bits |= u64::from(*next) << (56 - have);
                (rest, have) = (tail, have + 8);
                continue;
            }
        }
        let short = usize::from(bits.to_be_bytes()[0]);
        let (byte, length) = match CODES.short.get(short) {
            Some(&(byte, length)) if length > 0 => (byte, usize::from(length)),
            _ => match CODES.long(bits) {
                Some(long) => long,
                None => break,
            },
        };
        if length > have {
            break;
        }
        out.push(byte);
        bits <<= length;
        have -= length;
    }
    // What is left over has fewer than eight bits, all ones (section 5.2).
    let is_end = have < 8 && bits == !(u64::MAX >> have);
    is_end.then_some(()).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Appendix C.4 and C.6, and bytes of all lengths.
    #[test]
    fn strings_of_the_specification_are_read() {
        let examples: [(&[u8], &str); 4] = [
            (
                b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
                "www.example.com",
            ),
            (b"\xa8\xeb\x10\x64\x9c\xbf", "no-cache"),
            (b"\x64\x02", "302"),
            (
                b"\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff",
                "Mon, 21 Oct 2013 20:13:21 GMT",
            ),
        ];
        for (coded, text) in examples {
            let mut out = Vec::new();
            decode(coded, &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }

    #[test]
    fn what_is_left_over_is_a_few_ones() {
        let mut out = Vec::new();
        // The end of the string inside of it, a whole byte more, and zeros.
        for coded in [&b"\xff\xff\xff\xff"[..], b"\xff", b"\x64\x02\xff", b"\x64"] {
            assert!(decode(coded, &mut out).is_err(), "{coded:x?}");
        }
        assert!(decode(b"", &mut out).is_ok());
    }
}
