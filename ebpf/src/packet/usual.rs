//! The headers that nearly all packets have: Ethernet, IPv4 without options or IPv6 without extension headers, TCP. Read
//! where they lie, each at a place that the compiler knows; whatever else there is, is left to [`super::parse`].

use network_types::{eth::EtherType, ip::IpProto};

use super::{
    Address, ETHERNET_HEADER, IPV4_HEADER, IPV6_HEADER, STAMPED_HEADER, STAMPS, Segment,
    TCP_HEADER, ether_type,
};
use crate::swar;

/// Ether type, version and header length: of IPv4 without options, and of IPv6.
const V4: u32 = (ether_type(EtherType::Ipv4) as u32) << 16 | 0x4500;
const V4_MASK: u32 = 0xffff_ff00;
const V6: u32 = (ether_type(EtherType::Ipv6) as u32) << 16 | 0x6000;
const V6_MASK: u32 = 0xffff_f000;
/// Fragments, time to live and protocol of IPv4: TCP in one piece.
const WHOLE: u32 = IpProto::Tcp as u32;
const WHOLE_MASK: u32 = 0x3fff_00ff;

/// The first bytes of a packet.
pub trait Bytes {
    /// Whether there are so many.
    fn holds(&self, n: u32) -> bool;

    /// The byte at `at`, which is held, as all that follows.
    fn u8(&self, at: u32) -> u8;

    /// The two bytes from `at` on, in network byte order.
    fn be16(&self, at: u32) -> u16;

    /// The four bytes from `at` on, in network byte order.
    fn be32(&self, at: u32) -> u32;

    /// The eight bytes from `at` on, as they lie in memory.
    fn word(&self, at: u32) -> u64;

    /// The IPv4 address at `at`.
    #[inline(always)]
    fn address4(&self, at: u32) -> Address {
        Address::v4(self.be32(at).to_be())
    }

    /// The IPv6 address at `at`.
    #[inline(always)]
    fn address6(&self, at: u32) -> Address {
        Address {
            high: self.word(at),
            low: self.word(at + 8),
        }
    }
}

/// Reads the headers of a frame of `len` bytes as [`super::parse`] does, where they are usual; else gives false, and may
/// have written some of `segment`.
#[inline(always)]
pub fn parse_usual(frame: &impl Bytes, len: u32, segment: &mut Segment) -> bool {
    const V4_TCP: u32 = ETHERNET_HEADER + IPV4_HEADER;
    const V6_TCP: u32 = ETHERNET_HEADER + IPV6_HEADER;
    if !frame.holds(V4_TCP + TCP_HEADER) {
        return false;
    }
    let kind = frame.be32(ETHERNET_HEADER - 2);
    segment.unread = 0;
    segment.ip_at = ETHERNET_HEADER;
    if kind & V4_MASK == V4 {
        if frame.be32(ETHERNET_HEADER + 6) & WHOLE_MASK != WHOLE {
            return false;
        }
        segment.source = frame.address4(ETHERNET_HEADER + 12);
        segment.destination = frame.address4(ETHERNET_HEADER + 16);
        segment.version = 4;
        let end = end(frame.be16(ETHERNET_HEADER + 2), ETHERNET_HEADER, len);
        return tcp(frame, V4_TCP, end, segment);
    }
    let is_v6 = kind & V6_MASK == V6 && frame.holds(V6_TCP + TCP_HEADER);
    if !is_v6 || frame.u8(ETHERNET_HEADER + 6) != IpProto::Tcp as u8 {
        return false;
    }
    segment.source = frame.address6(ETHERNET_HEADER + 8);
    segment.destination = frame.address6(ETHERNET_HEADER + 24);
    segment.version = 6;
    let end = end(frame.be16(ETHERNET_HEADER + 4), V6_TCP, len);
    tcp(frame, V6_TCP, end, segment)
}

/// Where the IP packet ends in the frame, whose header says `total` bytes from `at` on; BIG TCP packets say 0.
#[inline(always)]
fn end(total: u16, at: u32, len: u32) -> u32 {
    let total = u32::from(total);
    // Without branches: each is one more way for all that follows.
    let any = swar::is_zero(total).wrapping_sub(1);
    swar::least((at + total) & any | len & !any, len)
}

#[inline(always)]
fn tcp(frame: &impl Bytes, at: u32, end: u32, segment: &mut Segment) -> bool {
    // One store: the key of the flow takes both by one load, which would wait for two.
    let ports = frame.be32(at).rotate_left(16);
    segment.source_port = ports as u16;
    segment.destination_port = (ports >> 16) as u16;
    segment.sequence = frame.be32(at + 4);
    segment.acknowledgment = frame.be32(at + 8);
    let header = u32::from(frame.u8(at + 12) >> 4) * 4;
    segment.flags = frame.u8(at + 13) & 0x3f;
    segment.window = frame.be16(at + 14);
    segment.urgent = frame.be16(at + 18);
    segment.tcp_at = at;
    segment.payload_at = at + header;
    segment.payload_len = end.wrapping_sub(at + header);
    segment.stamp = 0;
    segment.echo = 0;
    if header < TCP_HEADER || at + header > end {
        return false;
    }
    if header >= STAMPED_HEADER {
        if !frame.holds(at + STAMPED_HEADER) {
            return false;
        }
        if frame.be32(at + TCP_HEADER) == STAMPS {
            segment.stamp = frame.be32(at + TCP_HEADER + 4);
            segment.echo = frame.be32(at + TCP_HEADER + 8);
        }
    }
    true
}
