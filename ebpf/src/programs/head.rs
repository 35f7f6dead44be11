//! The headers of a packet.

use aya_ebpf::bindings::__sk_buff;
use tokenblock_ebpf::{
    packet::{Bytes, HEAD, Head, Link, Segment, parse, parse_usual},
    swar::{forget_registers, least},
    verdict::Counter,
};

use super::skb;

/// Reads the headers of the packet, whose length is `len`. Usual ones are read where they lie: what the kernel's helper has
/// copied can't be read for 20 ns.
///
/// # Errors
/// As [`parse`].
#[inline(always)]
pub fn read(
    skb: *mut __sk_buff,
    len: u32,
    link: Link,
    head: &mut Head,
    segment: &mut Segment,
) -> Result<(), Counter> {
    // Frames without Ethernet too would have the verifier walk twice through all ("750784 instructions").
    let usual = matches!(link, Link::Ethernet) && parse_usual(&Linear::of(skb), len, segment);
    let read = if usual {
        Ok(())
    } else {
        read_any(skb, len, link, head, segment)
    };
    // To the verifier it shall be one way on.
    forget_registers();
    read
}

#[inline(always)]
fn read_any(
    skb: *mut __sk_buff,
    len: u32,
    link: Link,
    head: &mut Head,
    segment: &mut Segment,
) -> Result<(), Counter> {
    head.len = least(len, HEAD as u32);
    // SAFETY: `head` holds HEAD bytes and more.
    if !unsafe { skb::load::<{ HEAD as u32 }>(skb, 0, head.as_mut_ptr(), len) } {
        return Err(Counter::NotIp);
    }
    let parsed = parse(head, len, link, segment);
    // The first bytes of a frame hold the first of its payload, where the query of a request stands.
    head.clear();
    parsed
}

/// What of a packet lies in one piece.
struct Linear {
    start: usize,
    end: usize,
}

impl Linear {
    #[inline(always)]
    fn of(skb: *mut __sk_buff) -> Self {
        // SAFETY: the program's context.
        let (start, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
        Self { start, end }
    }

    #[inline(always)]
    fn at<T>(&self, at: u32) -> T {
        // SAFETY: the verifier sees that it is between the packet's start and its end.
        unsafe { ((self.start + at as usize) as *const T).read_unaligned() }
    }
}

impl Bytes for Linear {
    #[inline(always)]
    fn holds(&self, n: u32) -> bool {
        self.start + n as usize <= self.end
    }

    #[inline(always)]
    fn u8(&self, at: u32) -> u8 {
        self.at(at)
    }

    #[inline(always)]
    fn be16(&self, at: u32) -> u16 {
        u16::from_be(self.at(at))
    }

    #[inline(always)]
    fn be32(&self, at: u32) -> u32 {
        u32::from_be(self.at(at))
    }

    #[inline(always)]
    fn word(&self, at: u32) -> u64 {
        self.at(at)
    }
}
