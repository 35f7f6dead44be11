//! Cuts a file into blocks of whole lines, so that several threads can read it.

use std::io::{self, Read};

use zeroize::Zeroizing;

use super::lines::MAX_LINE;

/// Bytes of a block; several of the longest lines.
const BLOCK: usize = 16 * MAX_LINE;

/// The blocks of a file, one behind the other; wiped when they are dropped.
pub(super) struct Blocks<R> {
    input: R,
    /// The beginning of a line whose end was not read yet.
    rest: Zeroizing<Vec<u8>>,
    ended: bool,
}

impl<R: Read> Blocks<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input,
            rest: Zeroizing::default(),
            ended: false,
        }
    }

    fn block(&mut self) -> io::Result<Zeroizing<Vec<u8>>> {
        // Never grown: that would leave a copy behind.
        let mut block = Zeroizing::new(vec![0; BLOCK + self.rest.len()]);
        let (held, free) = block.split_at_mut(self.rest.len());
        held.copy_from_slice(&self.rest);
        let read = fill(&mut self.input, free)?;
        self.ended = read < free.len();
        let end = self.rest.len() + read;
        let lines = match memchr::memrchr(b'\n', &block[..end]) {
            Some(last) if !self.ended => last + 1,
            // The last line, or one that is too long to be one.
            _ => end,
        };
        self.rest = Zeroizing::new(block[lines..end].to_vec());
        block.truncate(lines);
        Ok(block)
    }
}

impl<R: Read> Iterator for Blocks<R> {
    type Item = io::Result<Zeroizing<Vec<u8>>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let block = self.block();
        self.ended |= block.is_err();
        Some(block)
    }
}

/// Reads until `buffer` is full or the input ends; gives how much.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(free) = buffer.get_mut(filled..).filter(|free| !free.is_empty()) {
        match input.read(free) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn blocks_are_the_file_and_end_with_a_line(lines in prop::collection::vec(0..MAX_LINE, 0..120), ends: bool) {
            let mut text = Vec::new();
            for length in &lines {
                text.resize(text.len() + length, b'x');
                text.push(b'\n');
            }
            if !ends {
                text.extend_from_slice(b"last");
            }
            let blocks: Vec<_> = Blocks::new(&text[..]).map(Result::unwrap).collect();
            prop_assert_eq!(blocks.iter().flat_map(|block| block.iter().copied()).collect::<Vec<_>>(), text);
            let whole = blocks.iter().rev().skip(1).all(|block| block.last() == Some(&b'\n'));
            prop_assert!(whole);
        }
    }
}
