//! Cuts a file into lines without holding more of it than a window, which is wiped afterwards.

use std::io::{self, Read};

use zeroize::Zeroizing;

/// Longest line in bytes, its end not counted.
pub(super) const MAX_LINE: usize = 64 * 1024;

const WINDOW: usize = 256 * 1024;

/// Why there is no next line.
#[derive(Debug)]
pub(super) enum LinesError {
    /// The line with this number is longer than [`MAX_LINE`].
    TooLong(u64),
    /// The file could not be read.
    Io(io::Error),
}

/// The lines of a file, without their LF.
pub(super) struct Lines<R> {
    input: R,
    window: Zeroizing<Vec<u8>>,
    start: usize,
    end: usize,
    number: u64,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input,
            window: Zeroizing::new(vec![0; WINDOW]),
            start: 0,
            end: 0,
            number: 0,
        }
    }

    /// The next line and its number, counted from 1.
    pub(super) fn next(&mut self) -> Result<Option<(u64, &[u8])>, LinesError> {
        self.number += 1;
        let mut searched = 0;
        let (len, terminator) = loop {
            let held = &self.window[self.start..self.end];
            if let Some(at) = memchr::memchr(b'\n', &held[searched..]) {
                break (searched + at, 1);
            }
            searched = held.len();
            if searched > MAX_LINE + 1 {
                return Err(LinesError::TooLong(self.number));
            }
            if self.fill()? == 0 {
                break (searched, 0);
            }
        };
        let line = self.start..self.start + len;
        self.start = line.end + terminator;
        if line.is_empty() && terminator == 0 {
            return Ok(None);
        }
        // A CR before the LF isn't part of the line; which is longer by one for it.
        if len > MAX_LINE && (len > MAX_LINE + 1 || self.window[line.end - 1] != b'\r') {
            return Err(LinesError::TooLong(self.number));
        }
        Ok(Some((self.number, &self.window[line])))
    }

    /// Reads more behind what is held; 0 at the end of the file.
    fn fill(&mut self) -> Result<usize, LinesError> {
        if self.start > 0 {
            self.window.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        loop {
            match self.input.read(&mut self.window[self.end..]) {
                Ok(n) => {
                    self.end += n;
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LinesError::Io(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Gives a few bytes at a time.
    struct Dribble<'a>(&'a [u8], usize);

    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len()).min(buffer.len());
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn all(input: impl Read) -> Result<Vec<Vec<u8>>, LinesError> {
        let mut lines = Lines::new(input);
        let mut all = Vec::new();
        while let Some((number, line)) = lines.next()? {
            all.push(line.to_vec());
            assert_eq!(number, all.len() as u64);
        }
        Ok(all)
    }

    proptest! {
        #[test]
        fn agrees_with_split(
            lines in prop::collection::vec("[a-c\r]{0,5}", 0..20), last in "[a-c]{0,3}", step in 1..9_usize,
        ) {
            let mut text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
            text.push_str(&last);
            let mut expected: Vec<_> = lines.iter().map(|line| line.clone().into_bytes()).collect();
            if !last.is_empty() {
                expected.push(last.into_bytes());
            }
            prop_assert_eq!(all(Dribble(text.as_bytes(), step)).unwrap(), expected);
        }
    }

    #[test]
    fn the_longest_line_passes_and_one_byte_more_does_not() {
        let line = |n: usize, end: &str| format!("first\n{}{end}last", "x".repeat(n));
        for end in ["\n", "\r\n"] {
            assert_eq!(all(line(MAX_LINE, end).as_bytes()).unwrap().len(), 3);
            for n in [MAX_LINE + 1, MAX_LINE * 5] {
                let result = all(line(n, end).as_bytes());
                assert!(matches!(result, Err(LinesError::TooLong(2))));
            }
        }
    }
}
