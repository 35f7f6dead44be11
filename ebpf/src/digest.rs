//! The wire-speed identity of a token: SipHash-2-4-128 of its canonical form under the installation key.

use crate::{location::mix, swar};

/// 128 random bits made at first start and shared by the nodes of a fleet.
///
/// Deliberately without `Debug`; who owns the bytes zeroizes them.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct InstallationKey(pub [u8; 16]);

/// Key of the denylist map: SipHash-2-4-128, little-endian halves, domain mixed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C, align(8))]
pub struct TokenDigest(pub [u8; 16]);

/// What was digested: a value as a whole, or the signed part of a compact JWS.
///
/// An opaque token that happens to read `a.b` is no JWS, so the two must not share digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// The whole canonical form.
    Exact,
    /// `header.payload` of a compact JWS (RFC 7515 section 3.1), whatever signature follows.
    Jws,
}

impl Domain {
    /// Xored into the digest; any constant serves, since SipHash is a keyed pseudo-random function.
    const fn constant(self) -> [u64; 2] {
        match self {
            Self::Exact => [0, 0],
            Self::Jws => [0x6a77_735f_6865_6164, 0x6a77_735f_626f_6479],
        }
    }
}

impl TokenDigest {
    /// Under what the kernel tier lists it.
    #[inline(always)]
    #[must_use]
    pub fn key(&self) -> Self {
        *self
    }

    /// Digest of a whole canonical form that lies in memory.
    #[must_use]
    pub fn of(key: &InstallationKey, domain: Domain, canonical: &[u8]) -> Self {
        let mut hasher = Sip::new(&SipSeed::new(key));
        let mut chunks = canonical.chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            hasher.absorb(u64::from_le_bytes(word), 8);
        }
        for byte in chunks.remainder() {
            hasher.absorb(u64::from(*byte), 1);
        }
        hasher.finish(domain)
    }
}

/// Gathers bytes into words, so that a hash does not depend on how its input was cut.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Tail {
    word: u64,
    len: u64,
}

impl Default for Tail {
    fn default() -> Self {
        Self::new()
    }
}

impl Tail {
    /// Takes the first `n` (0..=8) bytes of `word`; gives a block when eight bytes are together.
    #[inline(always)]
    pub fn push(&mut self, word: u64, n: u32) -> Option<u64> {
        let word = swar::keep(word, n);
        let have = (self.len & 7) as u32;
        let block = self.word | word.wrapping_shl(have * 8);
        self.len += u64::from(n);
        if have + n < 8 {
            self.word = block;
            return None;
        }
        // Two shifts: with nothing held back, `word >> 64` would be undefined.
        self.word = (word >> 1).wrapping_shr(63 - have * 8);
        Some(block)
    }

    /// Bytes taken so far.
    #[inline(always)]
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was taken yet.
    #[inline(always)]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes not yet given as a block; to be changed by who hides them.
    #[cfg(any(feature = "sha256", not(target_arch = "bpf")))]
    #[inline(always)]
    pub(crate) fn held(&mut self) -> &mut u64 {
        &mut self.word
    }

    /// No bytes yet.
    #[inline(always)]
    #[must_use]
    pub fn new() -> Self {
        Self {
            word: swar::zero(),
            len: swar::zero(),
        }
    }

    /// The bytes not yet given as a block, length in the top byte as SipHash pads.
    #[inline(always)]
    #[must_use]
    pub fn padded(&self) -> u64 {
        self.word | self.len << 56
    }
}

/// Initial state of [`Sip`] under one key.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct SipSeed {
    pub(crate) v: [u64; 4],
}

impl SipSeed {
    /// Derives the state from the key, as the SipHash-128 reference does.
    #[must_use]
    pub fn new(key: &InstallationKey) -> Self {
        let (mut low, mut high) = ([0; 8], [0; 8]);
        low.copy_from_slice(&key.0[..8]);
        high.copy_from_slice(&key.0[8..]);
        let (k0, k1) = (u64::from_le_bytes(low), u64::from_le_bytes(high));
        Self {
            v: [
                k0 ^ 0x736f_6d65_7073_6575,
                k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
                k0 ^ 0x6c79_6765_6e65_7261,
                k1 ^ 0x7465_6462_7974_6573,
            ],
        }
    }
}

/// Whether a hash in progress holds more than a few bytes as they stand. SHA-256, which takes this one's place in a
/// second compilation of the scanner, does: see [`crate::sha256`].
pub(crate) const HOLDS_BYTES: bool = false;

/// What hides the bytes that a hash holds.
pub(crate) struct Pad;

impl Pad {
    /// A pad under the installation key; no two flows have one `salt`.
    #[inline(always)]
    pub(crate) fn new(_seed: &SipSeed, _salt: u64) -> Self {
        Self
    }
}

/// Ends a hash. SipHash ends at once; what takes its place may need several units of work.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Ending;

#[expect(
    clippy::unused_self,
    clippy::unnecessary_wraps,
    clippy::trivially_copy_pass_by_ref,
    reason = "what takes its place in `sha256` needs it"
)]
impl Ending {
    /// Nothing is being ended.
    #[inline(always)]
    #[must_use]
    pub fn new(_seed: &SipSeed) -> Self {
        Self
    }

    /// Whether [`Ending::go_on`] is to be called.
    #[inline(always)]
    pub(crate) fn is_busy(&self) -> bool {
        false
    }

    /// Begins to end a copy of a hash.
    #[inline(always)]
    pub(crate) fn begin(&mut self, hash: &Sip, domain: Domain) -> Option<TokenDigest> {
        Some(hash.finish(domain))
    }

    /// Does one unit of work; gives the digest with the last.
    #[inline(always)]
    pub(crate) fn go_on(&mut self) -> Option<TokenDigest> {
        None
    }

    /// Leaves no byte behind.
    #[inline(always)]
    pub(crate) fn wipe(&mut self) {}
}

/// A SipHash-2-4-128 in progress; can be saved and resumed at any byte.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Sip {
    v: [u64; 4],
    tail: Tail,
}

impl Sip {
    /// A hash of nothing yet.
    #[inline(always)]
    #[must_use]
    pub fn new(seed: &SipSeed) -> Self {
        Self {
            v: seed.v,
            tail: Tail { word: 0, len: 0 },
        }
    }

    /// A hash of nothing again.
    #[inline(always)]
    pub(crate) fn restart(&mut self, seed: &SipSeed) {
        *self = Self::new(seed);
    }

    /// Becomes a copy of another.
    #[inline(always)]
    pub(crate) fn copy(&mut self, from: &Self) {
        *self = *from;
    }

    /// Takes the first `n` (0..=8) bytes of `word`.
    #[inline(always)]
    pub fn absorb(&mut self, word: u64, n: u32) {
        if let Some(block) = self.tail.push(word, n) {
            self.v = compress(self.v, block);
        }
    }

    /// Bytes taken so far.
    #[inline(always)]
    #[must_use]
    pub fn len(&self) -> u64 {
        self.tail.len
    }

    /// Whether nothing was taken yet.
    #[inline(always)]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tail.len == 0
    }

    /// A hash of the state.
    #[inline(always)]
    pub(crate) fn signature(&self) -> u64 {
        mix(
            mix(self.v[0], self.v[1]),
            mix(self.v[2], self.v[3]) ^ self.tail.padded(),
        )
    }

    /// The bytes taken so far, while they are fewer than eight.
    #[inline(always)]
    #[must_use]
    pub fn short_word(&self) -> u64 {
        self.tail.word
    }

    /// The digest; the hash can go on afterwards.
    #[inline(always)]
    #[must_use]
    pub fn finish(&self, domain: Domain) -> TokenDigest {
        let mut v = compress(self.v, self.tail.padded());
        v[2] ^= 0xee;
        v = round(round(round(round(v))));
        let low = v[0] ^ v[1] ^ v[2] ^ v[3];
        v[1] ^= 0xdd;
        v = round(round(round(round(v))));
        let high = v[0] ^ v[1] ^ v[2] ^ v[3];
        let constant = domain.constant();
        let (low, high) = (
            (low ^ constant[0]).to_le_bytes(),
            (high ^ constant[1]).to_le_bytes(),
        );
        let mut digest = [0; 16];
        digest[..8].copy_from_slice(&low);
        digest[8..].copy_from_slice(&high);
        TokenDigest(digest)
    }
}

#[expect(
    clippy::unused_self,
    reason = "what takes its place in `sha256` needs it"
)]
impl Sip {
    /// Whether [`Sip::compress`] must be called before more is taken than a unit of the scanner takes.
    #[inline(always)]
    pub(crate) fn is_full(&self) -> bool {
        false
    }

    /// Takes a whole block in.
    #[inline(always)]
    pub(crate) fn compress(&mut self) {}

    /// Hides the bytes held, or shows them again.
    #[inline(always)]
    pub(crate) fn seal(&mut self, _pad: &mut Pad) {}

    /// Leaves no byte behind; the hash is of no more use.
    #[inline(always)]
    pub(crate) fn wipe(&mut self) {}
}

#[inline(always)]
pub(crate) fn compress(mut v: [u64; 4], block: u64) -> [u64; 4] {
    v[3] ^= block;
    v = round(round(v));
    v[0] ^= block;
    v
}

#[inline(always)]
#[expect(
    clippy::many_single_char_names,
    reason = "the names of the SipHash paper are v0 to v3"
)]
fn round(v: [u64; 4]) -> [u64; 4] {
    let [mut a, mut b, mut c, mut d] = v;
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use core::hash::Hasher as _;
    use proptest::prelude::*;
    use siphasher::sip128::{Hasher128 as _, SipHasher24};
    use std::vec::Vec;

    proptest! {
        #[test]
        fn agrees_with_the_siphasher_crate(key: [u8; 16], bytes: Vec<u8>) {
            let mut reference = SipHasher24::new_with_key(&key);
            reference.write(&bytes);
            let ours = TokenDigest::of(&InstallationKey(key), Domain::Exact, &bytes);
            prop_assert_eq!(ours.0, reference.finish128().as_bytes());
        }

        #[test]
        fn does_not_depend_on_the_cut(bytes: Vec<u8>, cuts: Vec<u8>) {
            let key = InstallationKey([7; 16]);
            let mut hasher = Sip::new(&SipSeed::new(&key));
            let mut rest = &bytes[..];
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let n = cuts.next().map_or(8, |c| usize::from(c % 9)).min(rest.len());
                let mut word = [0xaa; 8];
                word[..n].copy_from_slice(&rest[..n]);
                hasher.absorb(u64::from_le_bytes(word), n as u32);
                rest = &rest[n..];
                if n == 0 { hasher.absorb(u64::from(rest[0]), 1); rest = &rest[1..]; }
            }
            prop_assert_eq!(hasher.finish(Domain::Jws), TokenDigest::of(&key, Domain::Jws, &bytes));
        }
    }

    #[test]
    fn domains_do_not_meet() {
        let key = InstallationKey([1; 16]);
        assert_ne!(
            TokenDigest::of(&key, Domain::Exact, b"a.b"),
            TokenDigest::of(&key, Domain::Jws, b"a.b")
        );
    }
}
