//! The headers of a packet, where the parser reads them.

use aya_ebpf::bindings::__sk_buff;
use network_types::eth::EtherType;
use tokenblock_ebpf::{
    packet::{HEAD, Head, Link, USUAL_V4, USUAL_V6},
    swar::{forget_registers, least},
};

use super::skb;

/// Offset of the IP header behind an Ethernet header.
const IP_AT: u32 = 14;
/// The first byte of an IPv4 header without options.
const PLAIN_V4: u8 = 0x45;
/// The first half of the first byte of an IPv6 header.
const V6: u8 = 6;
/// What comes next, in an IPv6 header: its place, and TCP.
const NEXT_AT: u32 = 6;
const TCP: u8 = 6;

/// Copies the first bytes of the packet, whose length is `len`; false where it can't be read.
#[inline(always)]
pub fn fill(skb: *mut __sk_buff, len: u32, link: Link, head: &mut Head) -> bool {
    // Frames without Ethernet too would have the verifier walk twice through all ("750784 instructions").
    let filled = matches!(link, Link::Ethernet) && fill_usual(skb, head);
    // How many bytes are held is a constant so far: to the verifier it shall be one way on.
    forget_registers();
    if filled {
        return true;
    }
    head.len = least(len, HEAD as u32);
    // SAFETY: `head` holds HEAD bytes and more.
    unsafe { skb::load::<{ HEAD as u32 }>(skb, 0, head.as_mut_ptr(), len) }
}

/// Copies usual headers from the packet itself, by words that stand as the parser reads them. What the kernel's
/// helper has copied can't be read for 20 ns, and what was stored as a word is there at once. False for all other
/// packets.
#[inline(always)]
fn fill_usual(skb: *mut __sk_buff, head: &mut Head) -> bool {
    // SAFETY: the program's context.
    let (start, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    // SAFETY: the verifier sees that it is between the packet's start and its end.
    let byte = |at: u32| unsafe { *((start + at as usize) as *const u8) };
    // SAFETY: as above.
    let word = |at: u32| unsafe { ((start + at as usize) as *const u64).read_unaligned() };
    if start + (IP_AT + USUAL_V4) as usize > end {
        return false;
    }
    let first = byte(IP_AT);
    let kind_at_end = word(IP_AT - 8);
    // The crate holds ether types in network byte order.
    let kind = u16::from_be_bytes([kind_at_end.to_ne_bytes()[6], kind_at_end.to_ne_bytes()[7]]);
    let is_v4 = kind == u16::from_be(EtherType::Ipv4 as u16) && first == PLAIN_V4;
    let is_v6 = kind == u16::from_be(EtherType::Ipv6 as u16)
        && first >> 4 == V6
        && byte(IP_AT + NEXT_AT) == TCP
        && start + (IP_AT + USUAL_V6) as usize <= end;
    if !is_v4 && !is_v6 {
        return false;
    }
    let mut at = IP_AT - 8;
    while at + 8 <= IP_AT + USUAL_V4 {
        head.put(at, word(at));
        at += 8;
    }
    head.len = IP_AT + USUAL_V4;
    if is_v6 {
        while at < IP_AT + USUAL_V6 {
            head.put(at, word(at));
            at += 8;
        }
        head.len = at;
    } else {
        head.put(head.len - 8, word(IP_AT + USUAL_V4 - 8));
    }
    true
}
