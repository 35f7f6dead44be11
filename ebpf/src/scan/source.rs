//! Where the scanner reads: bytes by position, in chunks that one check covers.

use super::super::{
    filter::Words,
    rules::Rules,
    sums::{SumKeys, Sums},
};
use super::{Scan, WIDEST, WIDEST_WORDS, block::unread_value};

/// Bytes to scan, addressed by position.
pub trait Source {
    /// A piece of the source.
    type Chunk<'a>: Chunk
    where
        Self: 'a;

    /// The [`WIDEST`] bytes from `at` on, one check for all of them. Bytes at and behind [`Source::end`] may be
    /// anything.
    fn chunk(&self, at: u32) -> Self::Chunk<'_>;

    /// Position behind the last byte.
    fn end(&self) -> u32;

    /// Position of the first CR or LF in `from..end`; `end` where there is none.
    fn line_end(&self, from: u32, end: u32) -> u32;

    /// Does [`Scan::whole_line`] on this source until it is false.
    fn whole_lines(&self, scan: &mut Scan, rules: &Rules);

    /// Does [`Scan::request_line`] on this source.
    fn request_line(&self, scan: &mut Scan, rules: &Rules);

    /// Does [`Scan::find_part`] on this source.
    fn find_part(&self, scan: &mut Scan, rules: &Rules);

    /// Does [`block::unread_value`](super::block::unread_value) on this source.
    fn unread_value(&self, at: u32, rules: &Rules) -> Option<[u32; 2]>;

    /// The sums of the last `len` bytes, which begin at `from`, both at most [`MOST`](crate::sums::MOST).
    fn sums(&self, keys: &SumKeys, from: u32, len: u32) -> Sums;

    /// What a part of them adds to these; see [`Sums::of_part`].
    fn part_sums(&self, keys: &SumKeys, from: u32, part: [u32; 2]) -> Option<Sums>;
}

/// [`WIDEST`] bytes of a source.
pub trait Chunk {
    /// The eight bytes from `index * 8` on, the first in the lowest place; `index` below `WIDEST / 8`.
    fn word(&self, index: u32) -> u64;

    /// The eight bytes from `at` on, `at` below `WIDEST / 2`.
    fn word_at(&self, at: u32) -> u64;

    /// The two words from `index` on, a multiple of two.
    fn pair(&self, index: u32) -> (u64, u64);

    /// The four words from `index` on, a multiple of four.
    fn words(&self, index: u32) -> Words;
}

impl Source for [u8] {
    type Chunk<'a> = &'a [u8];

    fn chunk(&self, at: u32) -> &[u8] {
        self.get(at as usize..).unwrap_or(&[])
    }

    fn end(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }

    fn line_end(&self, from: u32, end: u32) -> u32 {
        let rest = self.get(from as usize..end as usize).unwrap_or(&[]);
        let len = rest.iter().position(|b| matches!(b, b'\r' | b'\n'));
        len.map_or(end, |len| from + len as u32)
    }

    fn whole_lines(&self, scan: &mut Scan, rules: &Rules) {
        while scan.whole_line(rules, self) {}
        if scan.is_body_line() {
            while scan.body_line(rules, self) {}
        }
    }

    fn request_line(&self, scan: &mut Scan, rules: &Rules) {
        scan.request_line(rules, self);
    }

    fn find_part(&self, scan: &mut Scan, rules: &Rules) {
        scan.find_part(rules, self);
    }

    fn unread_value(&self, at: u32, rules: &Rules) -> Option<[u32; 2]> {
        unread_value(self, at, rules)
    }

    fn sums(&self, keys: &SumKeys, from: u32, len: u32) -> Sums {
        Sums::of(keys, len, |at| self.chunk(from + at), Chunk::word)
    }

    fn part_sums(&self, keys: &SumKeys, from: u32, part: [u32; 2]) -> Option<Sums> {
        Sums::of_part(keys, part, |n| self.chunk(from + n * 8).word(0))
    }
}

impl Chunk for &[u8; WIDEST as usize] {
    #[inline(always)]
    fn word(&self, index: u32) -> u64 {
        let at = (index & (WIDEST_WORDS - 1)) as usize * 8;
        // SAFETY: in bounds by the mask; eight bytes are eight bytes.
        u64::from_le_bytes(unsafe { self.as_ptr().add(at).cast::<[u8; 8]>().read() })
    }

    #[inline(always)]
    fn word_at(&self, at: u32) -> u64 {
        let at = (at & (WIDEST / 2 - 1)) as usize;
        // SAFETY: as in `word`.
        u64::from_le_bytes(unsafe { self.as_ptr().add(at).cast::<[u8; 8]>().read() })
    }

    #[inline(always)]
    fn pair(&self, index: u32) -> (u64, u64) {
        // One check for both.
        let at = (index & (WIDEST_WORDS - 2)) as usize * 8;
        // SAFETY: as in `word`.
        let word = |n: usize| unsafe { self.as_ptr().add(at + n * 8).cast::<[u8; 8]>().read() };
        (u64::from_le_bytes(word(0)), u64::from_le_bytes(word(1)))
    }

    #[inline(always)]
    fn words(&self, index: u32) -> Words {
        // One check for all four.
        let at = (index & (WIDEST_WORDS - 4)) as usize * 8;
        // SAFETY: as in `word`.
        let word = |n: usize| unsafe { self.as_ptr().add(at + n * 8).cast::<[u8; 8]>().read() };
        (
            u64::from_le_bytes(word(0)),
            u64::from_le_bytes(word(1)),
            u64::from_le_bytes(word(2)),
            u64::from_le_bytes(word(3)),
        )
    }
}

impl Chunk for &[u8] {
    fn word(&self, index: u32) -> u64 {
        self.word_at(index * 8)
    }

    fn word_at(&self, at: u32) -> u64 {
        let rest = self.get(at as usize..).unwrap_or(&[]);
        match rest.first_chunk::<8>() {
            Some(chunk) => u64::from_le_bytes(*chunk),
            None => rest
                .iter()
                .rev()
                .fold(0, |word, byte| word << 8 | u64::from(*byte)),
        }
    }

    fn pair(&self, index: u32) -> (u64, u64) {
        (self.word(index), self.word(index + 1))
    }

    fn words(&self, index: u32) -> Words {
        (
            self.word(index),
            self.word(index + 1),
            self.word(index + 2),
            self.word(index + 3),
        )
    }
}
