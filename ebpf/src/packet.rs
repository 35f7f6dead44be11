//! From a frame to the place of its TCP payload.
//!
//! Reads a copy of the first bytes of the frame, so that it needs no packet pointers. What it refuses has a
//! reason each.

mod route;
mod usual;

use network_types::{eth::EtherType, ip::IpProto};

use self::route::ROUTING;
use crate::{swar, verdict::Counter};

pub use self::usual::{Bytes, parse_usual};

/// Bytes of a frame that are read for its headers.
pub const HEAD: usize = 128;

/// Most VLAN tags in the frame itself; one more may lie in the packet's metadata.
const MAX_TAGS: u32 = 4;
/// Most IPv6 extension headers.
const MAX_EXTENSIONS: u32 = 8;

const ETHERNET_HEADER: u32 = 14;
const VLAN_TAG: u32 = 4;
const IPV4_HEADER: u32 = 20;
const IPV6_HEADER: u32 = 40;
const TCP_HEADER: u32 = 20;
/// Bytes of one with timestamps alone, and how they stand there (RFC 7323 appendix A).
const STAMPED_HEADER: u32 = 32;
const STAMPS: u32 = 0x0101_080a;
/// An IPv6 fragment header (RFC 8200 section 4.5).
const FRAGMENT: u8 = 0x2c;
/// An authentication header (RFC 4302).
const AUTHENTICATION: u8 = 0x33;

/// The first bytes of a frame; bytes behind `len` may be anything.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct Head {
    bytes: [u8; HEAD + 16],
    /// Bytes held.
    pub len: u32,
    reserved: u32,
}

impl Head {
    /// A head of zeros.
    #[must_use]
    pub const fn zero() -> Self {
        Self {
            bytes: [0; HEAD + 16],
            len: 0,
            reserved: 0,
        }
    }

    /// Copies the first bytes of a frame.
    #[must_use]
    pub fn of(frame: &[u8]) -> Self {
        let mut head = Self::zero();
        let n = frame.len().min(HEAD);
        head.bytes[..n].copy_from_slice(&frame[..n]);
        head.len = n as u32;
        head
    }

    /// Leaves none of the payload behind.
    #[inline(always)]
    pub fn clear(&mut self) {
        let words = (&raw mut *self).cast::<u64>();
        let mut at = 0;
        while at < HEAD / 8 {
            // In line: a call of the kernel's own memset costs three times as much.
            // SAFETY: a head is aligned to words, and holds so many.
            unsafe { words.add(at).write_volatile(swar::zero()) };
            at += 1;
        }
    }

    /// Where the bytes are to be put: [`HEAD`] of them.
    #[inline(always)]
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }
}

// Positions are masked, not checked: the caller has compared with the length, which the verifier does
// not follow; the sixteen bytes behind keep the longest read inside.
impl Bytes for Head {
    #[inline(always)]
    fn holds(&self, n: u32) -> bool {
        n <= self.len
    }

    #[inline(always)]
    fn u8(&self, at: u32) -> u8 {
        self.bytes[at as usize & (HEAD - 1)]
    }

    #[inline(always)]
    fn be16(&self, at: u32) -> u16 {
        let at = at as usize & (HEAD - 1);
        u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    #[inline(always)]
    fn be32(&self, at: u32) -> u32 {
        let at = at as usize & (HEAD - 1);
        u32::from_be_bytes([
            self.bytes[at],
            self.bytes[at + 1],
            self.bytes[at + 2],
            self.bytes[at + 3],
        ])
    }

    #[inline(always)]
    fn word(&self, at: u32) -> u64 {
        let at = at as usize & (HEAD - 1);
        let mut word = [0; 8];
        word.copy_from_slice(&self.bytes[at..at + 8]);
        u64::from_ne_bytes(word)
    }
}

/// An IPv6 address, or an IPv4 address mapped into IPv6 (RFC 4291 section 2.5.5.2), in network byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Address {
    high: u64,
    low: u64,
}

impl Address {
    /// `::`.
    pub const UNSPECIFIED: Self = Self { high: 0, low: 0 };

    /// That of an IPv4 address, as it lies in memory.
    #[inline(always)]
    fn v4(address: u32) -> Self {
        let mapped = u64::from(u32::from_ne_bytes([0, 0, 0xff, 0xff]));
        Self {
            high: swar::zero(),
            low: mapped | u64::from(address) << 32,
        }
    }

    /// The sixteen bytes as they stand in an IPv6 header.
    #[must_use]
    pub fn octets(&self) -> [u8; 16] {
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&self.high.to_ne_bytes());
        octets[8..].copy_from_slice(&self.low.to_ne_bytes());
        octets
    }

    /// Its two halves, each as it lies in memory.
    #[inline(always)]
    #[must_use]
    pub fn halves(&self) -> [u64; 2] {
        [self.high, self.low]
    }

    /// The same bytes as four words, each in network byte order.
    #[inline(always)]
    #[must_use]
    pub fn words(&self) -> [u32; 4] {
        // First in memory is what is least significant on a little-endian machine.
        let halves = |word: u64| {
            let word = word.to_le();
            ((word as u32).to_le(), ((word >> 32) as u32).to_le())
        };
        let (first, second) = halves(self.high);
        let (third, fourth) = halves(self.low);
        [first, second, third, fourth]
    }
}

/// How frames of an interface begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// With an Ethernet header.
    Ethernet,
    /// With the IP header (tun, `WireGuard`, IP tunnels).
    Ip,
}

/// A TCP segment with payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Segment {
    /// Source address; IPv4 mapped into IPv6.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Sequence number of the segment (of its SYN where it has one).
    pub sequence: u32,
    /// Acknowledgment number.
    pub acknowledgment: u32,
    /// Offset of the IP header in the frame.
    pub ip_at: u32,
    /// Offset of the TCP header in the frame.
    pub tcp_at: u32,
    /// Offset of the payload in the frame.
    pub payload_at: u32,
    /// Bytes of payload.
    pub payload_len: u32,
    /// The sender's timestamp, and the one that it echoes (RFC 7323 section 3.2); 0 where they don't stand first among
    /// the options, as every system sends them.
    pub stamp: u32,
    /// See `stamp`.
    pub echo: u32,
    /// Window, unscaled.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// FIN, SYN, RST, PSH, ACK, URG from bit 0.
    pub flags: u8,
    /// 4 or 6.
    pub version: u8,
    /// Why its TCP header is not read behind the ports: `FIRST_FRAGMENT`, `ROUTED`; 0 where it is.
    pub unread: u16,
}

/// The first fragment of a datagram: `more fragments` of IPv4 or of IPv6.
const FIRST_FRAGMENT: u16 = 0x2001;
/// It goes on to another address than the one that it names, see [`route`].
const ROUTED: u16 = 2;

impl Segment {
    /// Whether it has other TCP options than timestamps alone, as they usually stand there.
    #[inline(always)]
    #[must_use]
    pub fn has_other_options(&self) -> bool {
        let header = self.payload_at.wrapping_sub(self.tcp_at);
        header != TCP_HEADER && (header != STAMPED_HEADER || self.stamp == 0)
    }
}

/// Finds the TCP segment in a frame of `len` bytes whose first bytes are `head`, and writes it to `segment`.
///
/// # Errors
/// Why the frame holds no TCP segment that can be judged. The ports of a [`Counter::Fragment`] and of a
/// [`Counter::SourceRouted`] are read.
#[inline(always)]
pub fn parse(head: &Head, len: u32, link: Link, segment: &mut Segment) -> Result<(), Counter> {
    let readable = head.len;
    segment.unread = 0;
    let ip_at = network_header(head, readable, link)?;
    match head.u8(ip_at) >> 4 {
        4 => ipv4(head, readable, len, ip_at, segment)?,
        6 => ipv6(head, readable, len, ip_at, segment)?,
        _ => return Err(Counter::NotIp),
    }
    tcp(head, readable, segment)
}

#[inline(always)]
fn network_header(head: &Head, readable: u32, link: Link) -> Result<u32, Counter> {
    if matches!(link, Link::Ip) {
        return if readable == 0 {
            Err(Counter::NotIp)
        } else {
            Ok(0)
        };
    }
    if readable < ETHERNET_HEADER {
        return Err(Counter::NotIp);
    }
    let mut at = ETHERNET_HEADER;
    let mut tags = 0;
    loop {
        let kind = head.be16(at - 2);
        if kind == ether_type(EtherType::Ieee8021q)
            || kind == ether_type(EtherType::Ieee8021ad)
            || kind == 0x9100
        {
            at += VLAN_TAG;
            tags += 1;
            if tags > MAX_TAGS {
                return Err(Counter::HeadersTooLong);
            }
        } else if kind == ether_type(EtherType::Ipv4) || kind == ether_type(EtherType::Ipv6) {
            return if at < readable {
                Ok(at)
            } else {
                Err(Counter::Malformed)
            };
        } else {
            return Err(Counter::NotIp);
        }
    }
}

/// The crate holds ether types in network byte order.
const fn ether_type(kind: EtherType) -> u16 {
    u16::from_be(kind as u16)
}

#[inline(always)]
fn ipv4(
    head: &Head,
    readable: u32,
    len: u32,
    at: u32,
    segment: &mut Segment,
) -> Result<(), Counter> {
    if at + IPV4_HEADER > readable {
        return Err(Counter::Malformed);
    }
    let header = u32::from(head.u8(at) & 0xf) * 4;
    if header < IPV4_HEADER {
        return Err(Counter::Malformed);
    }
    transport(head.u8(at + 9))?;
    // An offset, or more fragments (RFC 791 section 3.1).
    let fragment = head.be16(at + 6) & 0x3fff;
    if fragment & 0x1fff != 0 {
        return Err(Counter::LaterFragment);
    }
    segment.unread = fragment | options_of(head, readable, at, header);
    segment.source = head.address4(at + 12);
    segment.destination = head.address4(at + 16);
    segment.version = 4;
    segment.ip_at = at;
    segment.tcp_at = at + header;
    let total = u32::from(head.be16(at + 2));
    // BIG TCP packets have no length of their own.
    let end = if total == 0 { len } else { at + total };
    segment.payload_len = if end < len { end } else { len };
    Ok(())
}

/// What the options of the IPv4 header at `at` make of it, of which so many bytes are `readable`.
#[inline(always)]
fn options_of(head: &Head, readable: u32, at: u32, header: u32) -> u16 {
    let end = swar::least(at + header, readable);
    ROUTED * route::goes_on_v4(head, at + IPV4_HEADER, end) as u16
}

#[inline(always)]
fn ipv6(
    head: &Head,
    readable: u32,
    len: u32,
    at: u32,
    segment: &mut Segment,
) -> Result<(), Counter> {
    if at + IPV6_HEADER > readable {
        return Err(Counter::Malformed);
    }
    let total = u32::from(head.be16(at + 4));
    let end = if total == 0 {
        len
    } else {
        at + IPV6_HEADER + total
    };
    segment.payload_len = if end < len { end } else { len };
    segment.source = head.address6(at + 8);
    segment.destination = head.address6(at + 24);
    segment.version = 6;
    segment.ip_at = at;
    let mut next = head.u8(at + 6);
    let mut at = at + IPV6_HEADER;
    let mut extensions = 0;
    let mut is_routed = 0;
    // RFC 8200 section 4: hop-by-hop 0, routing 43, destination 60; RFC 6275: mobility 135; RFC 7401: HIP 139;
    // RFC 5533: shim6 140.
    while let 0 | ROUTING | FRAGMENT | 60 | 135 | 139 | 140 | AUTHENTICATION = next {
        extensions += 1;
        if extensions > MAX_EXTENSIONS || at + 4 > readable {
            return Err(Counter::HeadersTooLong);
        }
        // Without branches: each is one more way for each place at which the header may stand.
        let is_fragment = swar::is_zero(u32::from(next ^ FRAGMENT));
        let is_authentication = swar::is_zero(u32::from(next ^ AUTHENTICATION));
        // RFC 8200 section 4.5: an offset in units of eight bytes, and whether more follow.
        let fragment = u32::from(head.be16(at + 2)) & 0xfff9 & is_fragment.wrapping_neg();
        if fragment > 1 {
            return Err(Counter::LaterFragment);
        }
        // One that is whole is taken as it is (RFC 6946).
        let routed = ROUTED * route::goes_on_v6(head, next, at) as u16;
        segment.unread |= fragment as u16 | routed;
        is_routed |= swar::is_zero(u32::from(next ^ ROUTING));
        let words = u32::from(head.u8(at + 1)) & is_fragment.wrapping_sub(1);
        let bytes = (words + 1 + is_authentication) * (8 >> is_authentication);
        next = head.u8(at);
        at += bytes;
    }
    match transport(next) {
        // No other interface is there that could judge what is in it.
        Err(Counter::Encapsulated) if is_routed != 0 => return Err(Counter::RoutedTunnel),
        read => read?,
    }
    segment.tcp_at = at;
    Ok(())
}

#[inline(always)]
fn transport(protocol: u8) -> Result<(), Counter> {
    if protocol == IpProto::Tcp as u8 {
        Ok(())
    } else if matches!(protocol, 4 | 41 | 47 | 94 | 97 | 98 | 137) {
        // IP in IP, IPv6 in IP, GRE, IPIP, ETHERIP, ENCAP, MPLS in IP.
        Err(Counter::Encapsulated)
    } else {
        Err(Counter::NotTcp)
    }
}

/// Reads the TCP header; `segment.payload_len` holds the end of the IP packet so far.
#[inline(always)]
fn tcp(head: &Head, readable: u32, segment: &mut Segment) -> Result<(), Counter> {
    let (at, end) = (segment.tcp_at, segment.payload_len);
    if segment.unread != 0 {
        // The shortest that there is holds the ports.
        if at + 4 > readable {
            return Err(Counter::HeadersTooLong);
        }
        segment.source_port = head.be16(at);
        segment.destination_port = head.be16(at + 2);
        return Err(if segment.unread & FIRST_FRAGMENT != 0 {
            Counter::Fragment
        } else {
            Counter::SourceRouted
        });
    }
    if at + TCP_HEADER > readable {
        return Err(if at + TCP_HEADER > end {
            Counter::Malformed
        } else {
            Counter::HeadersTooLong
        });
    }
    // One store: the key of the flow takes both by one load, which would wait for two.
    let ports = head.be32(at).rotate_left(16);
    segment.source_port = ports as u16;
    segment.destination_port = (ports >> 16) as u16;
    segment.sequence = head.be32(at + 4);
    segment.acknowledgment = head.be32(at + 8);
    segment.flags = head.u8(at + 13) & 0x3f;
    segment.window = head.be16(at + 14);
    segment.urgent = head.be16(at + 18);
    let header = u32::from(head.u8(at + 12) >> 4) * 4;
    if header < TCP_HEADER || at + header > end {
        return Err(Counter::Malformed);
    }
    segment.payload_at = at + header;
    segment.payload_len = end - segment.payload_at;
    // Without branches: each is one more way for all that follows.
    let short = header.wrapping_sub(STAMPED_HEADER) | readable.wrapping_sub(at + STAMPED_HEADER);
    let stamped = swar::is_zero(head.be32(at + TCP_HEADER) ^ STAMPS) & !(short >> 31);
    let mask = stamped.wrapping_neg();
    segment.stamp = head.be32(at + TCP_HEADER + 4) & mask;
    segment.echo = head.be32(at + TCP_HEADER + 8) & mask;
    Ok(())
}
