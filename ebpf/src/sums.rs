//! Keyed sums of bytes, by which a block is known again of which no copy is kept.
//!
//! Two multilinear hashes (Carter and Wegman, "Universal classes of hash functions") modulo 2^64 under random keys, one
//! over the words as they are, the other over the words with their bytes in reverse, each under the key of the word behind
//! it: so a word costs one key, and the keys half the cache (as Toeplitz matrices do: Krawczyk, "LFSR-based hashing and
//! authentication"). For two blocks of one length take the last word in which they differ, `b` and `c` the lowest and the
//! highest byte there that do. The words' difference is divisible by at most 2^(8b+7), so that at most so many of the 2^64
//! keys of that word make the first sums equal. Whichever it is, the key behind it counts in no other difference of the
//! second sums, and with the bytes in reverse at most 2^(8(7-c)+7) of those make these equal. Since `b <= c`, both are
//! equal for one of 2^58 choices of the keys at most, whatever the blocks are, as long as who chooses them does not know
//! the keys.

use crate::swar;

/// Bytes of a group: so many are taken at once.
pub const GROUP: u32 = 64;
/// Most bytes of a block, and most bytes in front of it.
pub const MOST: u32 = GROUPS * GROUP;
/// Most bytes of a part that is left out of the sums.
pub const MOST_PART: u32 = 256;

/// Most groups of a block.
const GROUPS: u32 = 32;
const GROUP_WORDS: usize = GROUP as usize / 8;
const KEYS: usize = GROUPS as usize * GROUP_WORDS + 1;

/// Random words, one for each word of a block and one behind them; they lie in a BPF array map as they are, and nowhere
/// else.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct SumKeys([u64; KEYS]);

impl SumKeys {
    /// Bytes of all keys.
    pub const BYTES: usize = size_of::<Self>();

    /// Keys of these bytes, which have to be random.
    #[must_use]
    pub fn new(random: &[u8; Self::BYTES]) -> Self {
        let mut keys = Self([0; KEYS]);
        for (key, word) in keys.0.iter_mut().zip(random.as_chunks().0) {
            *key = u64::from_ne_bytes(*word);
        }
        keys
    }

    /// The keys of a group, and the one behind them.
    #[inline(always)]
    fn group(&self, group: u32) -> &[u64; GROUP_WORDS + 1] {
        let at = (group & (GROUPS - 1)) as usize * GROUP_WORDS;
        // SAFETY: in bounds by the mask.
        unsafe { &*self.0.as_ptr().add(at).cast() }
    }

    /// The keys of a word, by its number.
    #[inline(always)]
    fn pair(&self, word: u32) -> [u64; 2] {
        let at = (swar::opaque(word) & (MOST / 8 - 1)) as usize;
        // SAFETY: in bounds by the mask: there is one key more than words.
        unsafe { self.0.as_ptr().add(at).cast::<[u64; 2]>().read() }
    }
}

/// The sums of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Sums {
    /// Of the words.
    plain: u64,
    /// Of the words with their bytes in reverse.
    reversed: u64,
}

impl Sums {
    /// Of nothing.
    pub const NONE: Self = Self {
        plain: 0,
        reversed: 0,
    };

    /// The sums of `len` bytes, [`MOST`] at most: `group` gives those of a group, by how many are before it, and `word` a word
    /// of a group; behind the last one there are zeros.
    #[inline(always)]
    #[must_use]
    pub fn of<G>(
        keys: &SumKeys,
        len: u32,
        group: impl Fn(u32) -> G,
        word: impl Fn(&G, u32) -> u64,
    ) -> Self {
        let mut sums = Self::NONE;
        let mut n = 0;
        while n < GROUPS && n * GROUP < len {
            sums.take_group(keys.group(n), &group(n * GROUP), &word);
            n += 1;
        }
        sums
    }

    /// What the bytes of a part add to the sums of all: `word` gives a word, by its number, `part` is where they begin and
    /// where they end, [`MOST_PART`] at most. `None` where a line ends in them.
    #[inline(always)]
    #[must_use]
    pub fn of_part(keys: &SumKeys, part: [u32; 2], word: impl Fn(u32) -> u64) -> Option<Self> {
        let [from, to] = part;
        let mut sums = Self::NONE;
        let (mut n, mut front, mut others) = (from / 8, from & 7, u64::MAX);
        let mut i = 0;
        while i <= MOST_PART / 8 && n * 8 < to {
            let word = word(n);
            let bytes = swar::keep(word, swar::least(to - n * 8, 8)) & !swar::keep(u64::MAX, front);
            others &= swar::not_line_end(bytes);
            sums.take(keys.pair(n), bytes);
            front = 0;
            n = swar::opaque(n + 1);
            i += 1;
        }
        (!others & swar::splat(0x80) == 0).then_some(sums)
    }

    /// The sums of the same bytes, but with zeros where a part of them is, which adds `part`.
    #[inline(always)]
    #[must_use]
    pub const fn without(&self, part: &Self) -> Self {
        Self {
            plain: self.plain.wrapping_sub(part.plain),
            reversed: self.reversed.wrapping_sub(part.reversed),
        }
    }

    #[inline(always)]
    fn take_group<G>(
        &mut self,
        keys: &[u64; GROUP_WORDS + 1],
        group: &G,
        word: &impl Fn(&G, u32) -> u64,
    ) {
        let mut plain = keys[0];
        let mut i = 0;
        while i < GROUP_WORDS {
            let reversed = keys[i + 1];
            self.take([plain, reversed], word(group, i as u32));
            plain = reversed;
            if i % 2 == 1 {
                // Two after the other: all at once they need more registers than there are.
                [self.plain, self.reversed] = swar::settled([self.plain, self.reversed]);
            }
            i += 1;
        }
    }

    /// Takes one word more, under these keys.
    #[inline(always)]
    pub(crate) fn take(&mut self, [plain, reversed]: [u64; 2], word: u64) {
        self.plain = self.plain.wrapping_add(plain.wrapping_mul(word));
        let product = reversed.wrapping_mul(word.swap_bytes());
        self.reversed = self.reversed.wrapping_add(product);
    }

    /// Both in one word, of words that have two keys each: for two that differ the same for one of 2^33 choices of the keys at
    /// most, since one of a word's difference and of that in reverse is divisible by no more than 2^31.
    #[inline(always)]
    pub(crate) const fn total(&self) -> u64 {
        self.plain.wrapping_add(self.reversed)
    }

    /// Whether both are the same.
    #[inline(always)]
    #[must_use]
    pub const fn is_as(&self, other: &Self) -> bool {
        (self.plain ^ other.plain) | (self.reversed ^ other.reversed) == 0
    }
}

#[cfg(all(test, not(feature = "sha256")))]
mod tests {
    extern crate std;
    use super::*;
    use crate::scan::Source as _;
    use proptest::prelude::*;
    use std::{vec, vec::Vec};

    /// Words that look random.
    fn keys() -> SumKeys {
        let mut state = 1_u64;
        let mut bytes = [0; SumKeys::BYTES];
        for word in bytes.as_chunks_mut().0 {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            *word = (state ^ state >> 32).to_ne_bytes();
        }
        SumKeys::new(&bytes)
    }

    fn blocks() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), GROUP as usize..=MOST as usize)
    }

    proptest! {
        #[test]
        fn they_are_those_of_the_bytes_wherever_they_lie(block in blocks(), before in 0..=MOST) {
            let (keys, len) = (keys(), block.len() as u32);
            let moved = [vec![1; before as usize], block.clone()].concat();
            let sums = block[..].sums(&keys, 0, len);
            prop_assert!(sums.is_as(&moved[..].sums(&keys, before, len)));
            // Zeros behind them do not count.
            let longer = [block, vec![0; 20]].concat();
            prop_assert!(sums.is_as(&longer[..].sums(&keys, 0, len)));
        }

        #[test]
        fn a_part_may_be_left_out(
            block in blocks(), before in 0..=MOST, at: prop::sample::Index, len in 0..=MOST_PART,
            line_end in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let keys = keys();
            let from = at.index(block.len());
            let part = from..(from + len as usize).min(block.len());
            let mut block = [vec![1; before as usize], block].concat();
            let inside = before as usize + part.start..before as usize + part.end;
            block[inside.clone()].iter_mut().for_each(|byte| *byte |= 0x10);
            if let Some(at) = line_end.filter(|_| !inside.is_empty()) {
                block[inside.start + at.index(inside.len())] = b"\r\n"[at.index(2)];
            }
            let bounds = [part.start as u32, part.end as u32];
            let sums = block[..].part_sums(&keys, before, bounds);
            let has_end = block[inside.clone()].iter().any(|byte| matches!(byte, b'\r' | b'\n'));
            prop_assert_eq!(sums.is_none(), has_end);
            if let Some(part) = sums {
                let len = block.len() as u32 - before;
                let all = block[..].sums(&keys, before, len);
                block[inside].fill(0);
                prop_assert_eq!(all.without(&part), block[..].sums(&keys, before, len));
            }
        }

        #[test]
        fn every_byte_counts_in_each(block in blocks(), at: prop::sample::Index, other in 1..=u8::MAX) {
            let (keys, len) = (keys(), block.len() as u32);
            let mut changed = block.clone();
            changed[at.index(block.len())] ^= other;
            let (a, b) = (block[..].sums(&keys, 0, len), changed[..].sums(&keys, 0, len));
            prop_assert!(a.plain != b.plain || a.reversed != b.reversed);
            prop_assert!(!a.is_as(&b));
        }
    }

    fn total(keys: &SumKeys, words: [u64; 2]) -> u64 {
        let mut sums = Sums::NONE;
        for (key, word) in keys.group(0).as_chunks().0.iter().zip(words) {
            sums.take(*key, word);
        }
        sums.total()
    }

    /// What a multiplication by an odd number leaves as it is, and what a shift by half a word makes of it: where words are
    /// mixed by those alone, these two differences cancel, whatever the keys are.
    #[test]
    fn no_difference_cancels_another() {
        const DIFFERENCES: [[u64; 2]; 3] = [
            [1 << 63, 1 << 63 | 1 << 31],
            [1 << 63, 1 << 63],
            [1 << 63, 0],
        ];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut bytes = [0; SumKeys::BYTES];
        for round in 0..1000 {
            bytes[..32].fill_with(|| {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                (state >> 56) as u8
            });
            let keys = SumKeys::new(&bytes);
            let words = [round, !round];
            for [first, second] in DIFFERENCES {
                let other = [words[0] ^ first, words[1] ^ second];
                assert_ne!(total(&keys, words), total(&keys, other), "{round}");
            }
        }
    }
}
