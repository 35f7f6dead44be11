//! One block of SHA-256 (FIPS 180-4 section 6.2.2) in straight-line code, for the programs; the host has the processor's.

use crate::swar::forget_registers;

/// Takes a block of sixteen words, given as they lie in memory, into the state; leaves anything in its place and in
/// `s`.
///
/// The working variables and the schedule stay in memory, where the program's small stack is not: they are more than
/// the registers hold.
#[inline(always)]
pub(super) fn compress(state: &mut [u32; 8], s: &mut [u32; 8], block: &mut [u32; 16]) {
    let mut i = 0;
    while i < 8 {
        s[i] = state[i];
        i += 1;
    }
    macro_rules! rounds {
        ($first:expr; $($i:literal)*) => { $(
            block[$i] = if $first == 0 {
                block[$i].swap_bytes()
            } else {
                scheduled(
                    block[$i],
                    block[($i + 1) % 16],
                    block[($i + 9) % 16],
                    block[($i + 14) % 16],
                )
            };
            // The variables keep their places, and change their names.
            round(s, (16 - $i) % 8, K[$first + $i].wrapping_add(block[$i]));
            // Else LLVM brings rounds forward, and all their words onto the stack.
            forget_registers();
        )* };
    }
    rounds!(0; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    rounds!(16; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    rounds!(32; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    rounds!(48; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    let mut i = 0;
    while i < 8 {
        state[i] = state[i].wrapping_add(s[i]);
        i += 1;
    }
}

/// The word that is scheduled in the place of `w16`, the one sixteen words before it.
#[inline(always)]
fn scheduled(w16: u32, w15: u32, w7: u32, w2: u32) -> u32 {
    let s0 = w15.rotate_right(7) ^ w15.rotate_right(18) ^ (w15 >> 3);
    let s1 = w2.rotate_right(17) ^ w2.rotate_right(19) ^ (w2 >> 10);
    w16.wrapping_add(s0).wrapping_add(w7).wrapping_add(s1)
}

/// One round; `a` is where the variable of this name stands, the others follow it.
#[inline(always)]
#[expect(clippy::many_single_char_names, reason = "the names of FIPS 180-4")]
fn round(s: &mut [u32; 8], a: usize, kw: u32) {
    let at = |n: usize| (a + n) % 8;
    let (e, f, g) = (s[at(4)], s[at(5)], s[at(6)]);
    let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
    let choice = (e & f) ^ (!e & g);
    let t1 = s[at(7)]
        .wrapping_add(s1)
        .wrapping_add(choice)
        .wrapping_add(kw);
    s[at(3)] = s[at(3)].wrapping_add(t1);
    let (a, b, c) = (s[at(0)], s[at(1)], s[at(2)]);
    let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
    let majority = (a & b) ^ (a & c) ^ (b & c);
    s[at(7)] = t1.wrapping_add(s0).wrapping_add(majority);
}

/// FIPS 180-4 section 4.2.2.
const K: [u32; 64] = [
    0x428a_2f98,
    0x7137_4491,
    0xb5c0_fbcf,
    0xe9b5_dba5,
    0x3956_c25b,
    0x59f1_11f1,
    0x923f_82a4,
    0xab1c_5ed5,
    0xd807_aa98,
    0x1283_5b01,
    0x2431_85be,
    0x550c_7dc3,
    0x72be_5d74,
    0x80de_b1fe,
    0x9bdc_06a7,
    0xc19b_f174,
    0xe49b_69c1,
    0xefbe_4786,
    0x0fc1_9dc6,
    0x240c_a1cc,
    0x2de9_2c6f,
    0x4a74_84aa,
    0x5cb0_a9dc,
    0x76f9_88da,
    0x983e_5152,
    0xa831_c66d,
    0xb003_27c8,
    0xbf59_7fc7,
    0xc6e0_0bf3,
    0xd5a7_9147,
    0x06ca_6351,
    0x1429_2967,
    0x27b7_0a85,
    0x2e1b_2138,
    0x4d2c_6dfc,
    0x5338_0d13,
    0x650a_7354,
    0x766a_0abb,
    0x81c2_c92e,
    0x9272_2c85,
    0xa2bf_e8a1,
    0xa81a_664b,
    0xc24b_8b70,
    0xc76c_51a3,
    0xd192_e819,
    0xd699_0624,
    0xf40e_3585,
    0x106a_a070,
    0x19a4_c116,
    0x1e37_6c08,
    0x2748_774c,
    0x34b0_bcb5,
    0x391c_0cb3,
    0x4ed8_aa4a,
    0x5b9c_ca4f,
    0x682e_6ff3,
    0x748f_82ee,
    0x78a5_636f,
    0x84c8_7814,
    0x8cc7_0208,
    0x90be_fffa,
    0xa450_6ceb,
    0xbef9_a3f7,
    0xc671_78f2,
];
