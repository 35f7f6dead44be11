//! What is done to a whole hash, as functions that other objects could call: the verifier walks through such a function
//! once, knowing nothing of its callers, and not from each place that calls it. They give 0, for it wants a value.

#[cfg(target_arch = "bpf")]
use super::block::compress;
use super::{
    super::{location::mix, swar},
    BLOCK, DONE, Ending, INITIAL, LENGTH, PAD, Sip,
};

/// By the instructions that the processor has for it.
#[cfg(not(target_arch = "bpf"))]
pub(super) fn compress(state: &mut [u32; 8], _: &mut [u32; 8], block: &mut [u32; 16]) {
    let mut bytes = [0; 64];
    for (bytes, word) in bytes.chunks_exact_mut(4).zip(block) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    sha2::compress256(state, &[bytes.into()]);
}

macro_rules! apart {
    ($($(#[doc = $doc:literal])* fn $name:ident($subject:ident: &mut $kind:ty $(, $more:ident: $type:ty)*) -> u64 $body:block)*) => { $(
        $(#[doc = $doc])*
        #[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
        pub(super) extern "C" fn $name($subject: *mut $kind $(, $more: $type)*) -> u64 {
            // SAFETY: callers pass references; the verifier sees to the rest.
            let Some($subject) = (unsafe { $subject.as_mut() }) else {
                return 0;
            };
            $body
        }
    )* };
}

apart! {
    /// Takes the waiting block in.
    fn tokenblock_sha256_compress(hash: &mut Sip) -> u64 {
        let half = (hash.full.wrapping_sub(1) & 1) as usize;
        hash.full = 0;
        let (blocks, _) = hash.words.as_chunks_mut::<BLOCK>();
        let Some(block) = blocks.get_mut(half) else {
            return 0;
        };
        // SAFETY: of the same size, and without a stricter alignment.
        let words = unsafe { &mut *(&raw mut *block).cast::<[u32; 2 * BLOCK]>() };
        compress(&mut hash.state, &mut hash.scratch, words);
        let mut i = 0;
        while i < BLOCK {
            block[i] = swar::zero();
            i += 1;
        }
        0
    }

    /// Sets a hash to that of nothing.
    fn tokenblock_sha256_restart(hash: &mut Sip) -> u64 {
        let mut i = 0;
        while i < INITIAL.len() {
            hash.state[i] = INITIAL[i];
            i += 1;
        }
        let mut i = 0;
        while i < 2 * BLOCK {
            hash.words[i] = swar::zero();
            i += 1;
        }
        hash.tail = crate::digest::Tail::new();
        hash.full = swar::zero();
        0
    }

    /// Copies a hash word by word, as `Scan::copy`.
    fn tokenblock_sha256_copy(to: &mut Sip, from: *const Sip) -> u64 {
        const WORDS: usize = size_of::<Sip>() / 8;
        const { assert!(size_of::<Sip>() == WORDS * 8 && align_of::<Sip>() == 8) };
        if from.is_null() {
            return 0;
        }
        let (from, to) = (from.cast::<u64>(), (&raw mut *to).cast::<u64>());
        let mut i = 0;
        while i < WORDS {
            // SAFETY: both are WORDS words, without padding.
            unsafe { to.add(i).write(from.add(i).read()) };
            i += 1;
        }
        0
    }

    /// Changes the bytes held by a key, or back.
    fn tokenblock_sha256_seal(hash: &mut Sip, low: u64, high: u64) -> u64 {
        let len = hash.tail.len();
        let (half, whole) = ((len >> 6 & 1) as usize * BLOCK, len >> 3 & 7);
        let mut v = [low, high, low ^ !0, high ^ !0];
        let mut i = 0;
        while i < BLOCK {
            v = crate::digest::compress(v, i as u64);
            let pad = v[0] ^ v[1] ^ v[2] ^ v[3];
            hash.words[(half + i) & (2 * BLOCK - 1)] ^= pad & below(i as u64, whole);
            i += 1;
        }
        v = crate::digest::compress(v, BLOCK as u64);
        *hash.tail.held() ^= swar::keep(v[0] ^ v[1] ^ v[2] ^ v[3], (len & 7) as u32);
        0
    }

    /// A hash of a hash.
    fn tokenblock_sha256_signature(hash: &mut Sip) -> u64 {
        let mut sum = mix(hash.tail.len(), hash.tail.padded());
        let mut i = 0;
        while i < hash.state.len() {
            sum = mix(sum, u64::from(hash.state[i]));
            i += 1;
        }
        let mut i = 0;
        while i < hash.words.len() {
            sum = mix(sum, hash.words[i]);
            i += 1;
        }
        sum
    }

    /// Puts a one bit, zeros and the length in bits behind the bytes (FIPS 180-4 section 5.1.1).
    fn tokenblock_sha256_pad(ending: &mut Ending) -> u64 {
        let len = ending.hash.tail.len();
        let (mut block, at) = (len >> 6 & 1, len >> 3 & 7);
        let mut ends = at < 7;
        if ending.stage == PAD {
            let last = *ending.hash.tail.held() | 0x80_u64.wrapping_shl((len & 7) as u32 * 8);
            ending.hash.words[(block * 8 + at) as usize & (2 * BLOCK - 1)] = last;
        } else {
            block ^= 1;
            ends = true;
        }
        if ends {
            ending.hash.words[(block * 8 + 7) as usize & (2 * BLOCK - 1)] = (len << 3).swap_bytes();
        }
        ending.hash.full = 1 + block;
        ending.stage = if ends { DONE } else { LENGTH };
        0
    }
}

/// All ones where `a < b`, both small.
#[inline(always)]
fn below(a: u64, b: u64) -> u64 {
    (a.wrapping_sub(b) as i64 >> 63) as u64
}
