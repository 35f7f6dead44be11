//! A glance before the digest: most candidates are settled by a cheap fingerprint and one cache line.
//!
//! SipHash costs a candidate of 800 bytes more than all the rest of its request. The fingerprint is a
//! third of that, and a bitmap of the fingerprints of all entries (blocked Bloom filter, 64-bit blocks)
//! says for nearly every candidate that it is not listed. It never says so of one that is: what it cannot
//! rule out is digested and looked up.

use crate::{
    digest::{Domain, InstallationKey},
    swar,
};

/// Bits of the filter for an entry; with three bits set in a block of 64, about one candidate in 150 that is
/// not listed is digested in vain.
pub const BITS_PER_ENTRY: u32 = 16;

/// Blocks of a page: the filter grows by pages, each a map of its own.
pub const PAGE: u32 = 1 << 17;
/// Most pages; more than 250 million entries have room.
pub const PAGES: u32 = 1 << 9;

/// Says of a fingerprint that no entry has it.
pub trait Filter {
    /// Whether fingerprints are worth taking.
    fn is_on(&self) -> bool;
    /// False only if no entry has this fingerprint.
    fn may_hold(&self, fingerprint: Fingerprint) -> bool;
}

/// No filter: every candidate is digested.
#[derive(Clone, Copy, Debug)]
pub struct NoFilter;

impl Filter for NoFilter {
    #[inline(always)]
    fn is_on(&self) -> bool {
        false
    }

    #[inline(always)]
    fn may_hold(&self, _: Fingerprint) -> bool {
        true
    }
}

/// A keyed 64-bit hash of a canonical form; weak on purpose, since a collision costs no more than time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    /// The fingerprint of a canonical form that lies in memory.
    #[must_use]
    pub fn of(key: &InstallationKey, domain: Domain, canonical: &[u8]) -> Self {
        let seed = FingerprintSeed::new(key);
        let mut lanes = seed.start();
        let mut groups = canonical.chunks_exact(GROUP as usize);
        for group in &mut groups {
            seed.absorb(&mut lanes, words_of(group));
        }
        let rest = groups.remainder();
        seed.finish(
            lanes,
            words_of(rest),
            rest.len() as u32,
            canonical.len() as u64,
            domain,
        )
    }

    /// The block of a filter with `mask + 1` blocks, a power of two of pages, and the bits in it, that stand for this fingerprint.
    #[inline(always)]
    #[must_use]
    pub const fn place(self, mask: u32) -> (u32, u64) {
        let f = self.0;
        let bits = 1 << (f & 63) | 1 << (f >> 6 & 63) | 1 << (f >> 12 & 63);
        ((f >> 32) as u32 & mask, bits)
    }
}

/// Four words, in the order of their bytes.
pub type Words = (u64, u64, u64, u64);

/// Bytes of four words: a fingerprint takes so many at once.
pub const GROUP: u32 = 32;

/// Up to [`GROUP`] bytes, with zeros behind them.
fn words_of(bytes: &[u8]) -> Words {
    let word = |index: usize| {
        let rest = bytes.get(index * 8..).unwrap_or(&[]);
        let eight = rest.iter().take(8).rev();
        eight.fold(0, |word, byte| word << 8 | u64::from(*byte))
    };
    (word(0), word(1), word(2), word(3))
}

/// A fingerprint on its way. The multiplications of one lane wait for each other, so there are two.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Lanes {
    even: u64,
    odd: u64,
}

impl Lanes {
    /// Nothing was taken, and none will be before [`FingerprintSeed::start`].
    pub const NONE: Self = Self { even: 0, odd: 0 };
}

/// Key material of fingerprints.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct FingerprintSeed {
    start: u64,
    multiplier: u64,
}

impl FingerprintSeed {
    /// Derives the seed from the installation key; a digest of nothing under another label serves.
    #[must_use]
    pub fn new(key: &InstallationKey) -> Self {
        let derived = crate::digest::TokenDigest::of(key, Domain::Exact, b"fingerprint").0;
        let (mut low, mut high) = ([0; 8], [0; 8]);
        low.copy_from_slice(&derived[..8]);
        high.copy_from_slice(&derived[8..]);
        Self {
            start: u64::from_le_bytes(low),
            multiplier: u64::from_le_bytes(high) | 1,
        }
    }

    /// The state of an empty value.
    #[inline(always)]
    #[must_use]
    pub fn start(&self) -> Lanes {
        Lanes {
            even: self.start,
            odd: self.start,
        }
    }

    /// Takes a whole group.
    #[inline(always)]
    pub fn absorb(&self, lanes: &mut Lanes, (a, b, c, d): Words) {
        lanes.even = self.mix(self.mix(lanes.even, a), c);
        lanes.odd = self.mix(self.mix(lanes.odd, b), d);
    }

    #[inline(always)]
    fn mix(&self, state: u64, word: u64) -> u64 {
        let x = (state ^ word).wrapping_mul(self.multiplier);
        // Without it the top byte of a word would only ever reach the top byte of the state.
        x ^ x >> 32
    }

    /// Ends a value of `len` bytes with the first `n` (below [`GROUP`]) bytes of a group.
    #[inline(always)]
    #[must_use]
    pub fn finish(
        &self,
        mut lanes: Lanes,
        words: Words,
        n: u32,
        len: u64,
        domain: Domain,
    ) -> Fingerprint {
        let domain = match domain {
            Domain::Exact => 0,
            Domain::Jws => 1 << 63,
        };
        let group = (
            swar::keep(words.0, swar::part(n, 0)),
            swar::keep(words.1, swar::part(n, 1)),
            swar::keep(words.2, swar::part(n, 2)),
            swar::keep(words.3, swar::part(n, 3)),
        );
        self.absorb(&mut lanes, group);
        Fingerprint(self.mix(self.mix(lanes.even, lanes.odd), len | domain))
    }
}
