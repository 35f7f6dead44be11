//! The first bytes behind a gap, kept until it is filled: what fills it may end in the middle of a name.

mod looks;

use super::{digest::compress, rules::Rules};

/// Bytes that are kept of what stands behind a gap: a name with escapes fits.
pub const BEHIND: u32 = 128;

const WORDS: usize = BEHIND as usize / 8;

/// The first bytes behind a gap. They may be of a token, so they are kept sealed.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Behind {
    /// How many.
    len: u32,
    /// Zero.
    reserved: u32,
    words: [u64; WORDS],
}

impl Behind {
    /// None.
    pub const NONE: Self = Self {
        len: 0,
        reserved: 0,
        words: [0; WORDS],
    };

    /// How many bytes are kept.
    #[inline(always)]
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether none are kept.
    #[inline(always)]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Of a segment of `len` bytes so many are kept, from now on.
    #[inline(always)]
    pub fn keep(&mut self, len: u32) -> u32 {
        self.len = super::swar::least(len, BEHIND);
        self.len
    }

    /// Where they lie, [`BEHIND`] bytes.
    #[inline(always)]
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.words.as_mut_ptr().cast()
    }

    /// Their words.
    #[inline(always)]
    #[must_use]
    pub fn words(&self) -> &[u64; WORDS] {
        &self.words
    }

    /// Takes a copy of another's.
    #[inline(always)]
    pub fn copy(&mut self, from: &Self) {
        tokenblock_behind_copy(self, from);
    }

    /// A digest of the bytes under the installation key and a `salt`.
    #[inline(always)]
    #[must_use]
    pub fn digest(&self, rules: &Rules, salt: u64) -> u64 {
        tokenblock_behind_digest(self, rules, salt)
    }

    /// Seals the bytes under the installation key, or opens them: what is kept under one `salt` and `place` differs.
    #[inline(always)]
    pub fn seal(&mut self, rules: &Rules, salt: u64, place: u32) {
        tokenblock_behind_seal(self, rules, salt, place);
    }
}

/// [`Behind::copy`], under a name that other objects could call, since such a function the verifier walks through once.
/// Gives 0, for it wants a value.
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
extern "C" fn tokenblock_behind_copy(to: *mut Behind, from: *const Behind) -> u64 {
    // SAFETY: `Behind::copy` passes references; the verifier sees to the rest.
    if let (Some(to), Some(from)) = unsafe { (to.as_mut(), from.as_ref()) } {
        to.len = from.len;
        let mut i = 0;
        while i < WORDS {
            // Each from where LLVM can't know it to be the next: it would call a byte-wise copy.
            to.words[i] = super::swar::opaque_long(from.words[i]);
            i += 1;
        }
    }
    0
}

/// [`Behind::seal`], likewise.
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
extern "C" fn tokenblock_behind_seal(
    behind: *mut Behind,
    rules: *const Rules,
    salt: u64,
    place: u32,
) -> u64 {
    /// Sets the words apart from those that seal a state.
    const DOMAIN: u64 = 1 << 63;
    // SAFETY: `Behind::seal` passes references; the verifier sees to the rest.
    if let (Some(behind), Some(rules)) = unsafe { (behind.as_mut(), rules.as_ref()) } {
        let mut v = compress(rules.seed.v, salt);
        v = compress(v, DOMAIN | u64::from(place));
        let mut i = 0;
        while i < WORDS {
            v = compress(v, i as u64);
            behind.words[i] ^= v[0] ^ v[1] ^ v[2] ^ v[3];
            i += 1;
        }
    }
    0
}

/// [`Behind::digest`], likewise.
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
extern "C" fn tokenblock_behind_digest(
    behind: *const Behind,
    rules: *const Rules,
    salt: u64,
) -> u64 {
    /// Sets it apart from what seals.
    const DOMAIN: u64 = 1 << 62;
    // SAFETY: `Behind::digest` passes references; the verifier sees to the rest.
    let (Some(behind), Some(rules)) = (unsafe { (behind.as_ref(), rules.as_ref()) }) else {
        return 0;
    };
    let mut v = compress(rules.seed.v, salt);
    v = compress(v, DOMAIN | u64::from(behind.len));
    let mut i = 0;
    while i < WORDS {
        v = compress(v, behind.words[i]);
        i += 1;
    }
    v = compress(v, 0);
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{digest::InstallationKey, location::LocationKind};

    #[test]
    fn what_is_sealed_opens_with_the_same_key_and_place_alone() {
        let rules = |key| {
            Rules::new(
                &InstallationKey([key; 16]),
                8,
                &[(LocationKind::Header, b"Authorization")],
            )
            .unwrap()
        };
        let plain = Behind {
            words: [u64::from_le_bytes(*b"a=secret"); WORDS],
            len: BEHIND,
            reserved: 0,
        };
        let mut sealed = Behind::NONE;
        sealed.copy(&plain);
        sealed.seal(&rules(1), 7, 9);
        assert!(sealed.words.iter().zip(plain.words).all(|(a, b)| *a != b));
        for (key, salt, place, opens) in [
            (1, 7, 9, true),
            (2, 7, 9, false),
            (1, 8, 9, false),
            (1, 7, 8, false),
        ] {
            let mut opened = sealed;
            opened.seal(&rules(key), salt, place);
            assert_eq!(opened.words == plain.words, opens);
        }
    }
}
