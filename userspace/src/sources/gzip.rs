//! Expands a list that is stored with gzip (RFC 1952), up to a bound.

use std::{
    fs::File,
    io::{self, BufReader, ErrorKind, Read, Seek as _},
};

use flate2::bufread::MultiGzDecoder;

/// Lists of tokens expand to about twice their size; one that expands to more than this many times is no list.
const MOST_TIMES: u64 = 32;
/// A small file may expand to this many bytes all the same.
const ALWAYS: u64 = 16 << 20;
/// RFC 1952 section 2.3.1. No text starts so.
const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The contents of a list, expanded where the file is a gzip file, whatever it is called.
///
/// A gzip file that expands to too much ends in an error of the kind [`ErrorKind::FileTooLarge`].
pub(crate) fn expanded(mut file: File, bytes: u64) -> io::Result<Box<dyn Read + Send>> {
    let mut magic = [0; 2];
    let is_gzip = match file.read_exact(&mut magic) {
        Ok(()) => magic == MAGIC,
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => false,
        Err(error) => return Err(error),
    };
    file.rewind()?;
    if !is_gzip {
        return Ok(Box::new(file));
    }
    Ok(Box::new(Bounded {
        input: MultiGzDecoder::new(BufReader::new(file)),
        left: bytes.saturating_mul(MOST_TIMES).max(ALWAYS),
    }))
}

/// Whether an error while reading means that the file is no whole gzip file; reading a file as it is gives none of
/// these.
pub(super) fn is_damage(error: ErrorKind) -> bool {
    matches!(
        error,
        ErrorKind::InvalidInput | ErrorKind::InvalidData | ErrorKind::UnexpectedEof
    )
}

/// Fails, and doesn't just end, where there is more than may be.
struct Bounded<R> {
    input: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.left = self
            .left
            .checked_sub(n as u64)
            .ok_or(ErrorKind::FileTooLarge)?;
        Ok(n)
    }
}
