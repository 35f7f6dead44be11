//! Byte searches eight bytes at a time (SIMD within a register).
//!
//! Every mask has bit 7 of a byte set where the byte matches, so `trailing_zeros() / 8` is the index of the
//! first match in a little-endian word. Masks are exact in every byte unless the name says otherwise.

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;
const SEVEN: u64 = 0x7f7f_7f7f_7f7f_7f7f;

/// Zero, hidden from LLVM: for BPF it makes two neighbouring stores of a known zero a call of a byte-wise
/// memset, ten times their cost.
#[inline(always)]
#[must_use]
pub fn zero() -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let zero: u64;
        // SAFETY: sets a register.
        unsafe { core::arch::asm!("{0} = 0", out(reg) zero, options(pure, nomem, nostack)) };
        zero
    }
    #[cfg(not(target_arch = "bpf"))]
    0
}

/// Bytes that a round of [`clear`] clears.
const ROUND: u32 = 64;

/// Clears the first `n` bytes, and up to one round (64 bytes) more, by stores in line: a call of the kernel's memset takes as long as a
/// KiB of them. What is behind the last whole round of `bytes` is left: nobody writes there.
///
/// # Safety
/// The bytes are aligned to words.
#[inline(always)]
#[expect(
    clippy::cast_ptr_alignment,
    reason = "the caller sees to it, and a store that need not be aligned can't be volatile"
)]
pub unsafe fn clear<const N: usize>(bytes: &mut [u8; N], n: u32) {
    let most = N as u32 & !(ROUND - 1);
    let mut at = 0;
    while at < most && at < n {
        for i in 0..ROUND / 8 {
            // SAFETY: a round lies in front of `most`. Volatile, or LLVM makes a byte-wise memset of it.
            unsafe {
                let word = bytes.as_mut_ptr().add((at + i * 8) as usize);
                word.cast::<u64>().write_volatile(zero());
            }
        }
        at += ROUND;
    }
}

/// Hides a value's origin from LLVM.
#[inline(always)]
#[must_use]
pub fn opaque(n: u32) -> u32 {
    #[cfg(target_arch = "bpf")]
    let n = {
        let mut n = u64::from(n);
        // A real instruction: an empty one leaves two line records at one offset ("Invalid line_info").
        // SAFETY: a register is copied to itself.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) n, options(pure, nomem, nostack)) };
        n as u32
    };
    n
}

/// [`opaque`] of a word.
#[inline(always)]
#[must_use]
pub fn opaque_long(n: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    let n = {
        let mut n = n;
        // SAFETY: as in `opaque`.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) n, options(pure, nomem, nostack)) };
        n
    };
    n
}

/// The same two words, which LLVM computes here, before anything that is read or written behind.
#[inline(always)]
#[must_use]
pub fn settled(words: [u64; 2]) -> [u64; 2] {
    #[cfg(target_arch = "bpf")]
    let words = {
        let [mut a, mut b] = words;
        // SAFETY: registers are copied to themselves.
        unsafe {
            core::arch::asm!("{0} = {0}", "{1} = {1}", inout(reg) a, inout(reg) b, options(nostack));
        }
        [a, b]
    };
    words
}

/// Makes LLVM read again what lies in memory, rather than keep it in registers: only then are the ways that lead
/// here one to the verifier, which compares registers.
#[inline(always)]
pub fn forget_registers() {
    #[cfg(target_arch = "bpf")]
    // SAFETY: sets a register that nothing reads.
    unsafe {
        core::arch::asm!("{0} = 0", out(reg) _, options(nostack));
    }
}

/// Hides from LLVM where a reference leads, so that it reads again what lies there.
#[inline(always)]
#[must_use]
pub fn again<T>(reference: &mut T) -> &mut T {
    #[cfg(target_arch = "bpf")]
    let reference = {
        let mut pointer: *mut T = reference;
        // SAFETY: as in `opaque`; the reference goes on in the pointer.
        unsafe {
            core::arch::asm!("{0} = {0}", inout(reg) pointer, options(nostack));
            &mut *pointer
        }
    };
    reference
}

/// The smaller of two, without a branch: each branch of a unit is one more path that the verifier walks to the
/// end ("BPF program is too large").
#[inline(always)]
#[must_use]
pub fn least(a: u32, b: u32) -> u32 {
    least_long(u64::from(a), u64::from(b)) as u32
}

/// [`least`] of two below 2^63.
#[inline(always)]
#[must_use]
pub fn least_long(a: u64, b: u64) -> u64 {
    let difference = (a as i64).wrapping_sub(b as i64);
    #[cfg(target_arch = "bpf")]
    let difference = {
        let mut difference = difference;
        // Else LLVM sees a minimum, and makes it a branch.
        // SAFETY: a register is copied to itself.
        unsafe {
            core::arch::asm!("{0} = {0}", inout(reg) difference, options(pure, nomem, nostack));
        }
        difference
    };
    (b as i64).wrapping_add(difference & (difference >> 63)) as u64
}

/// 1 where `n` is zero, else 0: without a branch, as [`least`].
#[inline(always)]
#[must_use]
pub const fn is_zero(n: u32) -> u32 {
    ((n as u64).wrapping_sub(1) >> 63) as u32
}

/// 1 where `a` is below `b`, else 0: without a branch, as [`least`].
#[inline(always)]
#[must_use]
pub fn is_below(a: u32, b: u32) -> u32 {
    // Else LLVM sees a comparison, and makes it a branch.
    (opaque_long(u64::from(a).wrapping_sub(u64::from(b))) >> 63) as u32
}

/// The first where `one` is 1, the other where it is 0: without a branch, as [`least`].
#[inline(always)]
#[must_use]
pub fn choose(one: u32, first: u32, other: u32) -> u32 {
    other ^ (first ^ other) & opaque(one).wrapping_neg()
}

/// The byte `b` in all eight places.
#[inline(always)]
#[must_use]
pub const fn splat(b: u8) -> u64 {
    LOW.wrapping_mul(b as u64)
}

/// Bytes equal to `b`.
#[inline(always)]
#[must_use]
pub const fn equal(word: u64, b: u8) -> u64 {
    let x = word ^ splat(b);
    !((x & SEVEN).wrapping_add(SEVEN) | x) & HIGH
}

/// Bytes below `limit`, for `limit` in `1..=0x80`.
#[inline(always)]
#[must_use]
pub const fn below(word: u64, limit: u8) -> u64 {
    !((word & SEVEN).wrapping_add(splat(0x80 - limit)) | word) & HIGH
}

/// Bytes below `limit`, for `limit` in `1..=0x80`, or from 0x80 on.
#[inline(always)]
#[must_use]
pub const fn odd(word: u64, limit: u8) -> u64 {
    (!(word & SEVEN).wrapping_add(splat(0x80 - limit)) | word) & HIGH
}

/// As [`equal`], at half the cost; marks behind the first one may be wrong.
///
/// The subtraction borrows into bytes above a match only.
#[inline(always)]
#[must_use]
pub const fn first_equal(word: u64, b: u8) -> u64 {
    let x = word ^ splat(b);
    x.wrapping_sub(LOW) & !x & HIGH
}

/// As [`below`], at half the cost; marks behind the first one may be wrong.
#[inline(always)]
#[must_use]
pub const fn first_below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(splat(limit)) & !word & HIGH
}

/// As [`odd`], at half the cost; marks behind the first one may be wrong.
#[inline(always)]
#[must_use]
pub const fn first_odd(word: u64, limit: u8) -> u64 {
    (word.wrapping_sub(splat(limit)) | word) & HIGH
}

/// Bytes equal to LF or CR.
#[inline(always)]
#[must_use]
pub const fn line_end(word: u64) -> u64 {
    equal(word, b'\n') | equal(word, b'\r')
}

/// Looks for LF and CR in one word after the other.
#[derive(Clone, Copy)]
pub struct LineEnds {
    bits: u64,
    alike: u64,
    seven: u64,
}

impl LineEnds {
    /// With its constants in registers: LLVM would load them anew for each word.
    #[inline(always)]
    #[must_use]
    pub fn held() -> Self {
        let Self { bits, alike, seven } = Self::new();
        Self {
            bits: opaque_long(bits),
            alike: opaque_long(alike),
            seven: opaque_long(seven),
        }
    }

    #[inline(always)]
    const fn new() -> Self {
        Self {
            bits: splat(0x7b),
            alike: splat(0x0b),
            seven: SEVEN,
        }
    }

    /// Has bit 7 of each other byte set; the other bits may be anything.
    ///
    /// Which of its bits are like their neighbours is the same of LF and of CR, but for bit 2, and of no other byte of ASCII.
    #[inline(always)]
    #[must_use]
    pub const fn others(self, word: u64) -> u64 {
        let differs = (word ^ word >> 1) & self.bits ^ self.alike;
        differs.wrapping_add(self.seven) | word
    }
}

/// Bytes other than LF and CR.
#[inline(always)]
#[must_use]
pub const fn not_line_end(word: u64) -> u64 {
    LineEnds::new().others(word) & HIGH
}

/// Zero if every byte is in `0x30..=0x7f` or is `-`, as those of most tokens are; `/` may be marked too. May be combined
/// by `|` over words.
#[inline(always)]
#[must_use]
pub const fn not_token(word: u64) -> u64 {
    // Swaps `-` and `/`, so that `-` is above all other bytes that end a token.
    ((word ^ splat(0x02)).wrapping_sub(splat(b'/')) | word) & HIGH
}

/// Zero if every byte is in `0x10..0x90`, as those of ASCII text but for its control characters are; may be combined
/// by `|` over words.
#[inline(always)]
#[must_use]
pub const fn not_plain(word: u64) -> u64 {
    word.wrapping_sub(splat(0x10)) & HIGH
}

/// Bytes from 0x80 on.
#[inline(always)]
#[must_use]
pub const fn not_ascii(word: u64) -> u64 {
    word & HIGH
}

/// 0x80 where the last byte is from 0x80 on, else 0.
#[inline(always)]
#[must_use]
pub const fn last(word: u64) -> u32 {
    (word >> 56) as u32 & 0x80
}

/// Index (0..=7) of the first marked byte; 8 where none is marked.
#[inline(always)]
#[must_use]
pub const fn first(mask: u64) -> u32 {
    // BPF counts no trailing zeros: keep one bit for each byte below the first mark and add them up. With no
    // mark the subtraction leaves all eight.
    let marks = mask >> 7;
    let below_first = (marks & marks.wrapping_neg()).wrapping_sub(1) & LOW;
    (below_first.wrapping_mul(LOW) >> 56) as u32
}

/// [`first`] where a byte is marked, at two thirds of the cost.
#[inline(always)]
#[must_use]
pub const fn first_marked(mask: u64) -> u32 {
    // One bit is left, which moves the byte that says where it was to the top.
    const PLACES: u64 = 0x0001_0203_0405_0607;
    let one = (mask & mask.wrapping_neg()) >> 7;
    (one.wrapping_mul(PLACES) >> 56) as u32
}

/// 1 where no byte is marked, else 0.
#[inline(always)]
#[must_use]
pub fn unmarked(mask: u64) -> u32 {
    (opaque_long((mask >> 7).wrapping_sub(1)) >> 63) as u32
}

/// Index (0..=15) of the first marked byte of two words, in which there is one.
#[inline(always)]
#[must_use]
pub fn first_of_two(a: u64, b: u64) -> u32 {
    let none = unmarked(a);
    let rest = (a ^ b) & u64::from(none).wrapping_neg();
    none * 8 + first_marked(a ^ rest)
}

/// The first `n` bytes of `word`, `n` in `0..=8`; the rest zero.
#[inline(always)]
#[must_use]
pub const fn keep(word: u64, n: u32) -> u64 {
    // Two shifts by half: one shift by 64 is undefined.
    let rest = u64::MAX.wrapping_shl(n * 4).wrapping_shl(n * 4);
    word & !rest
}

/// How many of the first `n` bytes of a group of words lie in word `index`.
#[inline(always)]
#[must_use]
pub fn part(n: u32, index: u32) -> u32 {
    let behind = i64::from(n) - i64::from(index * 8);
    least((behind & !(behind >> 63)) as u32, 8)
}

/// The index of the first mark in a word and those behind it: `first` (0..=8) that in the word itself, `rest` that in
/// the others.
#[inline(always)]
#[must_use]
pub const fn before(first: u32, rest: u32) -> u32 {
    first + (rest & (first >> 3).wrapping_neg())
}

/// Folds a word of a location name: letters to lower case, and every other printable byte that is not a
/// letter or digit and stands below `0` or above `z` (`-`, `_`, `.`, `~`, `[`, `+`, space ...) to `-`.
///
/// Some servers hand `X_API.Key` to the application as `X-API-Key`; a name that is folded too far only makes
/// one more candidate, and a candidate is blocked only if it is a listed token.
#[inline(always)]
#[must_use]
pub const fn fold(word: u64) -> u64 {
    let low = word | splat(0x20);
    let seven = low & SEVEN;
    let at_least_zero = seven.wrapping_add(splat(0x80 - b'0'));
    let above_z = seven.wrapping_add(splat(0x80 - b'{'));
    let punctuation = (!at_least_zero | above_z) & HIGH;
    let mask = (punctuation >> 7).wrapping_mul(0xff);
    (low & !mask) | (splat(b'-') & mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn marks(mask: u64) -> [bool; 8] {
        mask.to_le_bytes().map(|b| b == 0x80)
    }

    proptest! {
        #[test]
        fn masks_are_exact(bytes: [u8; 8], b: u8, limit in 1u8..=0x80) {
            let word = u64::from_le_bytes(bytes);
            prop_assert_eq!(marks(equal(word, b)), bytes.map(|x| x == b));
            prop_assert_eq!(marks(below(word, limit)), bytes.map(|x| x < limit));
            prop_assert_eq!(marks(odd(word, limit)), bytes.map(|x| x < limit || x >= 0x80));
            prop_assert_eq!(first(first_equal(word, b)), first(equal(word, b)));
            if equal(word, b) != 0 {
                prop_assert_eq!(first_marked(equal(word, b)), first(equal(word, b)));
            }
            prop_assert_eq!(first(first_below(word, limit)), first(below(word, limit)));
            prop_assert_eq!(first(first_odd(word, limit)), first(below(word, limit) | not_ascii(word)));
            let end = bytes.iter().position(|x| *x == b'\n' || *x == b'\r').unwrap_or(8);
            prop_assert_eq!(first(line_end(word)) as usize, end);
            prop_assert_eq!(marks(not_line_end(word)), bytes.map(|x| x != b'\n' && x != b'\r'));
        }

        #[test]
        fn least_is_the_minimum(a: u32, b: u32) {
            prop_assert_eq!(least(a, b), a.min(b));
            let (a, b) = (u64::from(a) << 20, u64::from(b) << 20);
            prop_assert_eq!(least_long(a, b), a.min(b));
        }

        #[test]
        fn a_plain_group_is_plain(bytes: [u8; 8]) {
            let word = u64::from_le_bytes(bytes);
            if bytes.iter().any(|x| *x < b'/' && *x != b'-' || *x >= 0x80) {
                prop_assert!(not_token(word) != 0);
            }
            if bytes.iter().any(|x| *x < 0x10) {
                prop_assert!(not_plain(word) != 0);
            }
            let token = bytes.map(|x| if x & 0x7f < b'0' { b'-' } else { x & 0x7f });
            prop_assert_eq!(not_token(u64::from_le_bytes(token)), 0);
        }

        #[test]
        fn the_parts_of_a_group_are_its_whole(n in 0u32..=32) {
            let parts = [0, 1, 2, 3].map(|index| part(n, index));
            prop_assert_eq!(parts.iter().sum::<u32>(), n);
            prop_assert!(parts.windows(2).all(|two| two[0] == 8 || two[1] == 0));
        }

        #[test]
        fn zero_alone_is_zero(n: u32) {
            prop_assert_eq!(is_zero(n), u32::from(n == 0));
            prop_assert_eq!(is_zero(0), 1);
        }

        #[test]
        fn keep_keeps_the_first_bytes(bytes: [u8; 8], n in 0u32..=8) {
            let mut want = [0; 8];
            want[..n as usize].copy_from_slice(&bytes[..n as usize]);
            prop_assert_eq!(keep(u64::from_le_bytes(bytes), n).to_le_bytes(), want);
        }
    }

    #[test]
    fn fold_knows_no_case_and_no_separator() {
        let f = |s: &[u8; 8]| fold(u64::from_le_bytes(*s));
        assert_eq!(f(b"X-API-KE"), f(b"x_api.ke"));
        assert_eq!(f(b"X-API-KE"), f(b"x~Api-kE"));
        assert_ne!(f(b"X-API-KE"), f(b"X-API-K0"));
        assert_ne!(f(b"12345678"), f(b"12345679"));
    }
}
