//! Reading a packet, and changing a header of it.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_l4_csum_replace, bpf_skb_load_bytes, bpf_skb_store_bytes},
};
use tokenblock_ebpf::{
    reply::{CHECKSUM_AT, URG},
    swar::{self, opaque},
};

/// Copies `n` bytes of the packet from `at` to `to`. `N` is a power of two, `n` in `1..=N`; at and above `N`
/// it copies `N`. False where the packet is shorter, or `n` is 0; `to` is cleared then.
///
/// # Safety
/// `skb` is the program's context and `to` points to `N` writable bytes.
#[inline(always)]
pub unsafe fn load<const N: u32>(skb: *mut __sk_buff, at: u32, to: *mut u8, n: u32) -> bool {
    // SAFETY: the caller's promise; the length is at most N.
    unsafe {
        if n >= N {
            return bpf_skb_load_bytes(skb.cast(), at, to.cast(), N) == 0;
        }
        // "R4 invalid zero-sized read": the verifier wants both bounds on the very register.
        let n = opaque(n) & (N - 1);
        if n == 0 {
            return false;
        }
        bpf_skb_load_bytes(skb.cast(), at, to.cast(), n) == 0
    }
}

/// Copies `N` bytes of the packet from `at` to `to`; false where the packet is shorter.
///
/// # Safety
/// As [`load`].
#[inline(always)]
pub unsafe fn read<const N: u32>(skb: *mut __sk_buff, at: u32, to: *mut u8) -> bool {
    // SAFETY: the caller's promise.
    unsafe { bpf_skb_load_bytes(skb.cast(), at, to.cast(), N) == 0 }
}

/// Clears `n` bytes at `to`, as [`load`] counts them: a read far outside the packet fails, and a failed read
/// clears its target at the speed of the kernel's own memset.
///
/// # Safety
/// As [`load`].
#[inline(always)]
pub unsafe fn clear<const N: u32>(skb: *mut __sk_buff, to: *mut u8, n: u32) {
    // SAFETY: the caller's promise.
    unsafe { load::<N>(skb, u32::MAX, to, n) };
}

/// Offset of data offset, flags and window in a TCP header, and of the urgent pointer (RFC 9293 section 3.1).
const FLAGS_AT: u32 = 12;
const URGENT_AT: u32 = 18;

/// Clears the URG flag of the TCP header at `tcp_at`, and its urgent pointer, which is `urgent`. False where the packet
/// can't be written.
#[inline(always)]
pub fn clear_urgent(skb: *mut __sk_buff, tcp_at: u32, urgent: u16) -> bool {
    // A word each: the stack takes no unaligned access.
    let (mut flagged, gone) = (swar::zero(), swar::zero());
    // SAFETY: the program's context; a word holds two bytes.
    unsafe {
        if !read::<2>(
            skb,
            tcp_at.wrapping_add(FLAGS_AT),
            (&raw mut flagged).cast(),
        ) {
            return false;
        }
        // The flags are the second byte in memory.
        let calm = flagged & !u64::from(u16::from_be(u16::from(URG)));
        replace(skb, tcp_at, FLAGS_AT, flagged, calm)
            && replace(skb, tcp_at, URGENT_AT, u64::from(urgent.to_be()), gone)
    }
}

/// Puts two bytes, the first in memory of `new`, in the place of those of `old` in the TCP header, and mends its checksum.
///
/// # Safety
/// As [`load`].
#[inline(always)]
pub(super) unsafe fn replace(
    skb: *mut __sk_buff,
    tcp_at: u32,
    at: u32,
    old: u64,
    new: u64,
) -> bool {
    const LEN: u32 = 2;
    // SAFETY: the caller's promise; `new` lives.
    unsafe {
        let from = (&raw const new).cast();
        bpf_skb_store_bytes(skb, tcp_at.wrapping_add(at), from, LEN, 0) == 0
            && bpf_l4_csum_replace(
                skb,
                tcp_at.wrapping_add(CHECKSUM_AT),
                old,
                new,
                u64::from(LEN),
            ) == 0
    }
}
