//! Source routes: what is on its way to another address of the host than the one that it names as its destination.

use super::{Bytes, Head};
use crate::swar;

/// An IPv6 routing header (RFC 8200 section 4.4).
pub(super) const ROUTING: u8 = 43;
/// Loose and strict source routes (RFC 791 section 3.1).
const LOOSE: u8 = 131;
const STRICT: u8 = 137;
/// Most bytes of options in an IPv4 header.
const OPTIONS: u32 = 40;

/// 1 where the IPv6 extension header of this type at `at` names addresses that are still to be gone by, else 0.
#[inline(always)]
pub(super) fn goes_on_v6(head: &Head, kind: u8, at: u32) -> u32 {
    let none_left = swar::is_zero(u32::from(head.u8(at + 3)));
    swar::is_zero(u32::from(kind ^ ROUTING)) & (none_left ^ 1)
}

/// 1 where the options of an IPv4 header, which stand from `at` up to `end`, name addresses that are still to be gone by, else 0.
/// What the host would refuse may be either.
#[inline(always)]
pub(super) fn goes_on_v4(head: &Head, at: u32, end: u32) -> u32 {
    tokenblock_goes_on_v4(head, at, end) as u32
}

/// Under a name that other objects could call: such a function the verifier walks through once, whoever calls it.
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
extern "C" fn tokenblock_goes_on_v4(head: *const Head, at: u32, end: u32) -> u64 {
    // SAFETY: `goes_on_v4` passes a reference; the verifier sees to the rest.
    let Some(head) = (unsafe { head.as_ref() }) else {
        return 0;
    };
    let (mut at, mut found, mut option) = (at, 0, 0);
    while option < OPTIONS && at < end {
        option += 1;
        let (kind, len) = (head.u8(at), u32::from(head.u8(at + 1)));
        // Without branches: each is one more way for each place at which the option may stand.
        let is_route =
            swar::is_zero(u32::from(kind ^ LOOSE)) | swar::is_zero(u32::from(kind ^ STRICT));
        // The pointer is behind the last address once all are gone by.
        let is_over = swar::is_below(len, u32::from(head.u8(at + 2)));
        found |= is_route & (is_over ^ 1);
        // The end of the list, and an option of one byte; others have a length, of two at least.
        let ends = swar::is_zero(u32::from(kind)) | swar::is_below(len, 2);
        let is_single = swar::is_zero(u32::from(kind ^ 1));
        at += swar::choose(is_single, 1, swar::choose(ends, OPTIONS, len));
    }
    u64::from(found)
}
