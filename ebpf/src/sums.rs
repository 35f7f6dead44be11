//! Keyed sums of bytes, by which a block is known again of which no copy is kept.
//!
//! Two multilinear hashes (Carter and Wegman, "Universal classes of hash functions") modulo 2^64 under independent random
//! keys, one over the words as they are, the other over the words with their bytes in reverse. For two blocks of one length
//! take any word in which they differ, `b` and `c` the lowest and the highest byte there that do. The words' difference is
//! divisible by at most 2^(8b+7), so that at most so many of the 2^64 keys of that word make the first sums equal; with the
//! bytes in reverse it is at most 2^(8(7-c)+7). Since `b <= c`, both sums are equal for one of 2^58 choices of the keys at
//! most, whatever the blocks are, as long as who chooses them does not know the keys.

use crate::swar;

/// Bytes of a group: so many are taken at once.
pub const GROUP: u32 = 64;
/// Most bytes of a block.
pub const MOST: u32 = GROUPS * GROUP;

/// Most groups of a block.
const GROUPS: u32 = 32;
const GROUP_WORDS: usize = GROUP as usize / 8;
const KEYS: usize = GROUPS as usize * GROUP_WORDS;

/// Random words, two for each word of a block; they lie in a BPF array map as they are, and nowhere else.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct SumKeys([[u64; 2]; KEYS]);

impl SumKeys {
    /// Bytes of all keys.
    pub const BYTES: usize = size_of::<Self>();

    /// Keys of these bytes, which have to be random.
    #[must_use]
    pub fn new(random: &[u8; Self::BYTES]) -> Self {
        let mut keys = Self([[0; 2]; KEYS]);
        let words = random.as_chunks().0.iter();
        for (key, word) in keys.0.as_flattened_mut().iter_mut().zip(words) {
            *key = u64::from_ne_bytes(*word);
        }
        keys
    }

    /// The keys of a group.
    #[inline(always)]
    fn group(&self, group: u32) -> &[[u64; 2]; GROUP_WORDS] {
        let at = (group & (GROUPS - 1)) as usize * GROUP_WORDS;
        // SAFETY: in bounds by the mask.
        unsafe { &*self.0.as_ptr().add(at).cast() }
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

    /// The sums of `len` bytes, [`GROUP`] to [`MOST`], that begin at `from`; `word` gives a word of those from a place on. The
    /// last group is that of the last bytes, whether or not the one before it has some of them.
    #[inline(always)]
    #[must_use]
    pub fn of<C>(
        keys: &SumKeys,
        from: u32,
        len: u32,
        chunk: impl Fn(u32) -> C,
        word: impl Fn(&C, u32) -> u64,
    ) -> Self {
        let mut sums = Self::NONE;
        let last = from.wrapping_add(len).wrapping_sub(GROUP);
        let mut at = from;
        let mut group = 0;
        while group < GROUPS {
            let (keys, chunk) = (keys.group(group), chunk(swar::least(at, last)));
            let mut i = 0;
            while i < GROUP_WORDS {
                sums.take(keys[i], word(&chunk, i as u32));
                // One after the other: all at once they need more registers than there are.
                swar::forget_registers();
                i += 1;
            }
            if at >= last {
                break;
            }
            at = swar::opaque(at.wrapping_add(GROUP));
            group += 1;
        }
        sums
    }

    /// Takes one word more, under keys of its own.
    #[inline(always)]
    pub(crate) fn take(&mut self, [plain, reversed]: [u64; 2], word: u64) {
        self.plain = self.plain.wrapping_add(plain.wrapping_mul(word));
        let product = reversed.wrapping_mul(word.swap_bytes());
        self.reversed = self.reversed.wrapping_add(product);
    }

    /// Both in one word: for two that differ the same for one of 2^33 choices of the keys at most, since one of a word's
    /// difference and of that in reverse is divisible by no more than 2^31.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn total(keys: &SumKeys, words: [u64; 2]) -> u64 {
        let mut sums = Sums::NONE;
        for (key, word) in keys.group(0).iter().zip(words) {
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
