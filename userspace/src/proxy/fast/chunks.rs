//! Chunked transfer coding (RFC 9112 section 7.1), read strictly: lines end with CR LF, sizes are hexadecimal digits.
//!
//! Extensions and trailers are read and dropped: who wants trailers says so, and that is not plain.

use std::ops::Range;

/// Bytes of sizes, extensions and trailers between two pieces of data.
const OVERHEAD: usize = 16 * 1024;

/// Where in a body we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In a size, of which so many digits were read.
    Size(u32),
    Extension,
    /// Behind the CR of a size's line.
    SizeEnd,
    Data,
    /// Behind a chunk's data.
    DataEnd,
    DataEndLf,
    /// At the start of a trailer's line.
    Trailer,
    TrailerLine,
    TrailerLineLf,
    /// Behind the CR of the empty line.
    LastLf,
    Done,
}

/// Reads a body that comes in pieces.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Chunks {
    at: At,
    /// Bytes of the chunk that are still to come.
    left: u64,
    overhead: usize,
}

/// Not a chunked body.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::proxy) struct Malformed;

impl Chunks {
    /// At the start of a body.
    pub(super) fn new() -> Self {
        Self {
            at: At::Size(0),
            left: 0,
            overhead: 0,
        }
    }

    /// Whether the body has come to its end.
    pub(super) fn is_done(&self) -> bool {
        self.at == At::Done
    }

    /// The next piece of data in `input` from `from` on, and where to go on; no piece where `input` has no more.
    pub(super) fn next(
        &mut self,
        input: &[u8],
        mut from: usize,
    ) -> Result<(Option<Range<usize>>, usize), Malformed> {
        while let Some(byte) = input.get(from) {
            if self.at == At::Done {
                break;
            }
            if self.at == At::Data {
                let rest = input.len() - from;
                let len = usize::try_from(self.left).map_or(rest, |left| left.min(rest));
                self.left -= len as u64;
                self.overhead = 0;
                if self.left == 0 {
                    self.at = At::DataEnd;
                }
                return Ok((Some(from..from + len), from + len));
            }
            self.step(*byte)?;
            from += 1;
        }
        Ok((None, from))
    }

    /// Takes one byte that is not data.
    fn step(&mut self, byte: u8) -> Result<(), Malformed> {
        self.overhead += 1;
        if self.overhead > OVERHEAD {
            return Err(Malformed);
        }
        self.at = match (self.at, byte) {
            (At::Size(digits), _) if byte.is_ascii_hexdigit() => self.digit(digits, byte)?,
            (At::Size(1..), b';' | b' ' | b'\t') | (At::Extension, b'\t' | b' '..) => At::Extension,
            (At::Size(1..) | At::Extension, b'\r') => At::SizeEnd,
            (At::SizeEnd, b'\n') if self.left > 0 => At::Data,
            (At::SizeEnd | At::TrailerLineLf, b'\n') => At::Trailer,
            (At::DataEnd, b'\r') => At::DataEndLf,
            (At::DataEndLf, b'\n') => At::Size(0),
            (At::Trailer, b'\r') => At::LastLf,
            (At::TrailerLine, b'\r') => At::TrailerLineLf,
            (At::Trailer | At::TrailerLine, b'\t' | b' '..) => At::TrailerLine,
            (At::LastLf, b'\n') => At::Done,
            _ => return Err(Malformed),
        };
        Ok(())
    }

    fn digit(&mut self, digits: u32, byte: u8) -> Result<At, Malformed> {
        // Fifteen digits leave room in 64 bits.
        if digits >= 15 {
            return Err(Malformed);
        }
        let digit = char::from(byte).to_digit(16).ok_or(Malformed)?;
        if digits == 0 {
            self.left = 0;
        }
        self.left = self.left << 4 | u64::from(digit);
        Ok(At::Size(digits + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data and what is left over, read in pieces of `cut` bytes.
    fn read(body: &[u8], cut: usize) -> Result<(Vec<u8>, usize), Malformed> {
        let (mut chunks, mut data, mut used) = (Chunks::new(), Vec::new(), 0);
        for piece in body.chunks(cut) {
            let mut from = 0;
            loop {
                let (range, next) = chunks.next(piece, from)?;
                from = next;
                match range {
                    Some(range) => data.extend_from_slice(&piece[range]),
                    None => break,
                }
            }
            used += from;
            if chunks.is_done() {
                return Ok((data, body.len() - used));
            }
        }
        Err(Malformed)
    }

    #[test]
    fn data_is_the_same_however_it_is_cut() {
        let body = b"5\r\nhello\r\n00A; ext=\"x\"\r\n, 10 bytes\r\n0\r\nTrailer: x\r\n\r\nHTTP";
        for cut in 1..=body.len() {
            let (data, left) = read(body, cut).unwrap();
            assert_eq!(data, b"hello, 10 bytes");
            assert!(left <= 4, "{cut}");
        }
        assert_eq!(read(body, body.len()).unwrap().1, 4);
    }

    #[test]
    fn what_others_may_read_otherwise_is_malformed() {
        for body in [
            &b"5\nhello\r\n0\r\n\r\n"[..],
            b"\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"-1\r\n\r\n0\r\n\r\n",
            b"5;a\nb\r\nhello\r\n0\r\n\r\n",
            b"1234567890abcdef\r\n",
            b"0\r\n\n",
            b"0\r\na\rb\r\n\r\n",
        ] {
            for cut in [1, body.len()] {
                assert_eq!(read(body, cut), Err(Malformed), "{}", body.escape_ascii());
            }
        }
        let endless = [&b"5;"[..], &[b'x'; OVERHEAD]].concat();
        assert_eq!(read(&endless, 100), Err(Malformed));
    }
}
