//! SHA-256 (FIPS 180-4) under the names that the scanner calls its digest by.
//!
//! Whole words are gathered until a block is full; it is taken in by a unit of work of its own, since the verifier
//! walks through it wherever it stands. There is room for two blocks: a unit may take a few bytes more.

use crate::digest::{SipSeed, Tail};

pub use crate::digest::{Domain, InstallationKey};

mod apart;
#[cfg(any(target_arch = "bpf", test))]
mod block;

/// SHA-256 of a canonical form, and as what that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C, align(8))]
pub struct TokenDigest {
    words: [u64; 4],
    /// A [`Domain`]; a whole word, so that no byte of a map's key is left to chance.
    domain: u64,
}

impl TokenDigest {
    /// The digest of these bytes.
    #[must_use]
    pub fn new(sha256: [u8; 32], domain: Domain) -> Self {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(sha256.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Self {
            words,
            domain: domain as u64,
        }
    }

    /// The hash, as it is written.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        let mut sha256 = [0; 32];
        for (bytes, word) in sha256.chunks_exact_mut(8).zip(self.words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        sha256
    }

    /// Under what the kernel tier lists it: half of the hash, which nobody finds another value for.
    #[inline(always)]
    #[must_use]
    pub fn key(&self) -> crate::digest::TokenDigest {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.words[0].to_le_bytes());
        // A value that is listed as one kind is not found as the other.
        key[8..].copy_from_slice(&(self.words[1] ^ self.domain).to_le_bytes());
        crate::digest::TokenDigest(key)
    }

    /// A value as a whole, or the signed part of a compact JWS.
    #[must_use]
    pub fn domain(&self) -> Domain {
        if self.domain == Domain::Jws as u64 {
            Domain::Jws
        } else {
            Domain::Exact
        }
    }

    /// Digest of a whole canonical form that lies in memory; the key plays no part.
    #[must_use]
    pub fn of(key: &InstallationKey, domain: Domain, canonical: &[u8]) -> Self {
        let seed = SipSeed::new(key);
        let mut hash = Sip::new(&seed);
        for byte in canonical {
            hash.absorb(u64::from(*byte), 1);
            if hash.is_full() {
                hash.compress();
            }
        }
        let mut ending = Ending::new(&seed);
        let mut digest = ending.begin(&hash, domain);
        loop {
            match digest {
                Some(digest) => return digest,
                None => digest = ending.go_on(),
            }
        }
    }
}

/// Up to 63 bytes of a candidate that was cut stay with its flow until the next segment.
pub(crate) const HOLDS_BYTES: bool = true;

/// Hides the bytes that a hash holds: a key for words that nobody without the installation key can tell from random
/// ones.
pub(crate) struct Pad {
    v: [u64; 4],
    hashes: u64,
}

impl Pad {
    /// A pad under the installation key; no two flows have one `salt`.
    #[inline(always)]
    pub(crate) fn new(seed: &SipSeed, salt: u64) -> Self {
        Self {
            v: crate::digest::compress(seed.v, salt),
            hashes: 0,
        }
    }

    /// The key for another hash.
    #[inline(always)]
    fn next(&mut self) -> (u64, u64) {
        self.hashes += 1;
        self.v = crate::digest::compress(self.v, self.hashes);
        (self.v[0] ^ self.v[1], self.v[2] ^ self.v[3])
    }
}

/// Words of a block.
const BLOCK: usize = 8;

/// A hash in progress; takes the place of [`crate::digest::Sip`], and its name.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Sip {
    state: [u32; 8],
    /// For the time of a block.
    scratch: [u32; 8],
    /// Two blocks, filled in turn; what is not taken in yet, and zeros.
    words: [u64; 2 * BLOCK],
    tail: Tail,
    /// The number of the block that waits to be taken in, 1 or 2; 0 where none does.
    full: u64,
}

/// FIPS 180-4 section 5.3.3.
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

impl Sip {
    /// A hash of nothing yet.
    #[inline(always)]
    #[must_use]
    pub fn new(_seed: &SipSeed) -> Self {
        Self {
            state: INITIAL,
            scratch: [0; 8],
            words: [0; 2 * BLOCK],
            tail: Tail::new(),
            full: 0,
        }
    }

    /// A hash of nothing again.
    #[inline(always)]
    pub(crate) fn restart(&mut self, _seed: &SipSeed) {
        apart::tokenblock_sha256_restart(self);
    }

    /// Leaves no byte behind; the hash is of no more use.
    #[inline(always)]
    pub(crate) fn wipe(&mut self) {
        apart::tokenblock_sha256_restart(self);
    }

    /// Becomes a copy of another.
    #[inline(always)]
    pub(crate) fn copy(&mut self, from: &Self) {
        apart::tokenblock_sha256_copy(self, from);
    }

    /// Takes the first `n` (0..=8) bytes of `word`.
    #[inline(always)]
    pub fn absorb(&mut self, word: u64, n: u32) {
        if let Some(block) = self.tail.push(word, n) {
            let at = (self.tail.len() / 8).wrapping_sub(1);
            self.words[at as usize & (2 * BLOCK - 1)] = block;
            if at & 7 == 7 {
                self.full = 1 + (at >> 3 & 1);
            }
        }
    }

    /// Whether a block waits to be taken in.
    #[inline(always)]
    pub(crate) fn is_full(&self) -> bool {
        self.full != 0
    }

    /// Takes the waiting block in.
    #[inline(always)]
    pub(crate) fn compress(&mut self) {
        apart::tokenblock_sha256_compress(self);
    }

    /// Hides the bytes held, or shows them again.
    #[inline(always)]
    pub(crate) fn seal(&mut self, pad: &mut Pad) {
        let (low, high) = pad.next();
        apart::tokenblock_sha256_seal(self, low, high);
    }

    /// Bytes taken so far.
    #[inline(always)]
    #[must_use]
    pub fn len(&self) -> u64 {
        self.tail.len()
    }

    /// Whether nothing was taken yet.
    #[inline(always)]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tail.is_empty()
    }

    /// A hash of the state, while no block waits.
    #[inline(always)]
    #[must_use]
    pub(crate) fn signature(&self) -> u64 {
        apart::tokenblock_sha256_signature((&raw const *self).cast_mut())
    }

    /// The bytes taken so far, while they are fewer than eight.
    #[inline(always)]
    #[must_use]
    pub fn short_word(&self) -> u64 {
        self.tail.padded() & (u64::MAX >> 8)
    }
}

/// Ends a hash, a unit of work after the other.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Ending {
    hash: Sip,
    domain: u64,
    stage: u64,
}

/// Nothing to do.
const IDLE: u64 = 0;
/// The last bytes have to be padded.
const PAD: u64 = 1;
/// A block with nothing but the length has to follow.
const LENGTH: u64 = 2;
/// Once no block waits the digest is there.
const DONE: u64 = 3;

impl Ending {
    /// Nothing is being ended.
    #[inline(always)]
    #[must_use]
    pub fn new(seed: &SipSeed) -> Self {
        Self {
            hash: Sip::new(seed),
            domain: 0,
            stage: IDLE,
        }
    }

    /// Whether [`Ending::go_on`] is to be called.
    #[inline(always)]
    pub(crate) fn is_busy(&self) -> bool {
        self.stage != IDLE
    }

    /// Begins to end a copy of a hash.
    #[inline(always)]
    pub(crate) fn begin(&mut self, hash: &Sip, domain: Domain) -> Option<TokenDigest> {
        self.hash.copy(hash);
        self.domain = domain as u64;
        self.stage = PAD;
        None
    }

    /// Does one unit of work; gives the digest with the last.
    #[inline(always)]
    pub(crate) fn go_on(&mut self) -> Option<TokenDigest> {
        if self.hash.is_full() {
            self.hash.compress();
            return None;
        }
        if self.stage == DONE {
            return Some(self.take());
        }
        apart::tokenblock_sha256_pad(self);
        None
    }

    #[inline(always)]
    fn take(&mut self) -> TokenDigest {
        let s = &self.hash.state;
        let word =
            |high: u32, low: u32| u64::from(high.swap_bytes()) | u64::from(low.swap_bytes()) << 32;
        let digest = TokenDigest {
            words: [
                word(s[0], s[1]),
                word(s[2], s[3]),
                word(s[4], s[5]),
                word(s[6], s[7]),
            ],
            domain: self.domain,
        };
        self.wipe();
        digest
    }

    /// Leaves no byte behind.
    #[inline(always)]
    pub(crate) fn wipe(&mut self) {
        self.hash.wipe();
        self.stage = IDLE;
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};
    use std::vec::Vec;

    const KEY: InstallationKey = InstallationKey([0; 16]);

    proptest! {
        #[test]
        fn agrees_with_the_sha2_crate(
            bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0..9_u32, sealed in 0..40_usize,
        ) {
            let seed = SipSeed::new(&KEY);
            let mut hash = Sip::new(&seed);
            for (at, chunk) in bytes.chunks(8).enumerate() {
                let mut word = [0xaa; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                let (word, n) = (u64::from_le_bytes(word), u32::try_from(chunk.len()).unwrap());
                let cut = cut.min(n);
                hash.absorb(word, cut);
                hash.absorb(word.checked_shr(cut * 8).unwrap_or(0), n - cut);
                if hash.is_full() {
                    hash.compress();
                }
                if at == sealed {
                    let open = hash.signature();
                    hash.seal(&mut Pad::new(&seed, 7));
                    prop_assert!(hash.signature() != open || hash.len().is_multiple_of(64));
                    hash.seal(&mut Pad::new(&seed, 7));
                }
            }
            let expected: Vec<u8> = Sha256::digest(&bytes).to_vec();
            let mut ending = Ending::new(&seed);
            let mut digest = ending.begin(&hash, Domain::Jws);
            while digest.is_none() {
                digest = ending.go_on();
            }
            prop_assert_eq!(&digest.unwrap().sha256()[..], &expected[..]);
            prop_assert_eq!(digest.unwrap().domain(), Domain::Jws);
            prop_assert_eq!(hash.len(), bytes.len() as u64);
            prop_assert_eq!(TokenDigest::of(&KEY, Domain::Jws, &bytes), digest.unwrap());
        }

        #[test]
        fn the_programs_compress_as_the_processor_does(state: [u32; 8], words: [u32; 16]) {
            let (mut ours, mut theirs) = (state, state);
            block::compress(&mut ours, &mut [0; 8], &mut { words });
            apart::compress(&mut theirs, &mut [0; 8], &mut { words });
            prop_assert_eq!(ours, theirs);
        }
    }
}
