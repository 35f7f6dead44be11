//! SHA-256 (FIPS 180-4) under the names that the scanner calls its digest by.

use sha2::{compress256, digest::generic_array::GenericArray};

pub use crate::digest::{Domain, InstallationKey};
use crate::{digest::SipSeed, location::mix};

/// SHA-256 of a canonical form, and as what that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenDigest {
    /// Big-endian, as it is written.
    pub sha256: [u8; 32],
    /// A value as a whole, or the signed part of a compact JWS.
    pub domain: Domain,
}

impl TokenDigest {
    /// Digest of a whole canonical form that lies in memory; the key plays no part.
    #[must_use]
    pub fn of(key: &InstallationKey, domain: Domain, canonical: &[u8]) -> Self {
        let mut hash = Sip::new(&SipSeed::new(key));
        for byte in canonical {
            hash.push(*byte);
        }
        hash.finish(domain)
    }
}

/// A hash in progress; takes the place of [`crate::digest::Sip`], and its name.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Sip {
    state: [u32; 8],
    block: [u8; BLOCK],
    len: u64,
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
/// Bytes of a block.
const BLOCK: usize = 64;

impl Sip {
    /// A hash of nothing yet.
    #[must_use]
    pub fn new(_seed: &SipSeed) -> Self {
        Self {
            state: INITIAL,
            block: [0; BLOCK],
            len: 0,
        }
    }

    /// Takes the first `n` (0..=8) bytes of `word`.
    pub fn absorb(&mut self, word: u64, n: u32) {
        for byte in word.to_le_bytes().into_iter().take(n as usize) {
            self.push(byte);
        }
    }

    fn push(&mut self, byte: u8) {
        let at = self.held();
        self.block[at] = byte;
        self.len += 1;
        if at == BLOCK - 1 {
            self.compress();
        }
    }

    /// Bytes of the block that were taken.
    fn held(&self) -> usize {
        usize::try_from(self.len % BLOCK as u64).unwrap_or(0)
    }

    fn compress(&mut self) {
        compress256(&mut self.state, &[GenericArray::from(self.block)]);
    }

    /// Bytes taken so far.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was taken yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A hash of the state.
    #[must_use]
    pub(crate) fn signature(&self) -> u64 {
        let words = self.state.into_iter().map(u64::from);
        let state = words.fold(0, mix);
        let held = self.block.iter().take(self.held());
        held.fold(mix(state, self.len), |hash, byte| {
            mix(hash, u64::from(*byte))
        })
    }

    /// The bytes taken so far, while they are fewer than eight.
    #[must_use]
    pub fn short_word(&self) -> u64 {
        let mut word = [0; 8];
        for (to, from) in word
            .iter_mut()
            .zip(self.block)
            .take(self.len.min(8) as usize)
        {
            *to = from;
        }
        u64::from_le_bytes(word)
    }

    /// The digest; the hash can go on afterwards.
    #[must_use]
    pub fn finish(&self, domain: Domain) -> TokenDigest {
        let mut last = *self;
        let bits = (self.len * 8).to_be_bytes();
        last.push(0x80);
        while last.len % BLOCK as u64 != BLOCK as u64 - 8 {
            last.push(0);
        }
        for byte in bits {
            last.push(byte);
        }
        let mut sha256 = [0; 32];
        for (to, word) in sha256.chunks_exact_mut(4).zip(last.state) {
            to.copy_from_slice(&word.to_be_bytes());
        }
        TokenDigest { sha256, domain }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};
    use std::vec::Vec;

    proptest! {
        #[test]
        fn agrees_with_the_sha2_crate(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0..9_u32) {
            let mut hash = Sip::new(&SipSeed::new(&InstallationKey([0; 16])));
            for chunk in bytes.chunks(8) {
                let mut word = [0xaa; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                let (word, n) = (u64::from_le_bytes(word), u32::try_from(chunk.len()).unwrap());
                let cut = cut.min(n);
                hash.absorb(word, cut);
                hash.absorb(word.checked_shr(cut * 8).unwrap_or(0), n - cut);
            }
            let expected: Vec<u8> = Sha256::digest(&bytes).to_vec();
            prop_assert_eq!(&hash.finish(Domain::Exact).sha256[..], &expected[..]);
            prop_assert_eq!(hash.len(), bytes.len() as u64);
        }
    }
}
