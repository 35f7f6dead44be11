//! What a client and a server are told about a blocked request: TCP segments made from the blocked one.
//!
//! A reply takes the place of the segment that it is made from: its TCP header stands at the same offset, so
//! what the kernel knows of an unfinished checksum there stays true. IP options and extension headers give way
//! to padding of the same length.

use crate::packet::{Address, Segment};

/// FIN (RFC 9293 section 3.1).
pub const FIN: u8 = 0x01;
/// SYN.
pub const SYN: u8 = 0x02;
/// RST.
pub const RST: u8 = 0x04;
/// PSH.
pub const PSH: u8 = 0x08;
/// ACK.
pub const ACK: u8 = 0x10;
/// URG.
pub const URG: u8 = 0x20;

/// The answer to a blocked request: that of the proxy tier, before a connection that ends.
pub static FORBIDDEN: [u8; 147] = *b"HTTP/1.1 403 Forbidden\r\n\
    Content-Type: application/json\r\n\
    Content-Length: 25\r\n\
    Cache-Control: no-store\r\n\
    Connection: close\r\n\
    \r\n\
    {\"error\":\"listed_token\"}\n";

/// Bytes of [`FORBIDDEN`].
pub const FORBIDDEN_LEN: u32 = FORBIDDEN.len() as u32;

/// Offset of the checksum in a TCP header (RFC 9293 section 3.1).
pub const CHECKSUM_AT: u32 = 16;
/// Bytes of a TCP header without options.
pub const TCP_BARE: u32 = 20;
/// Bytes of a TCP header with timestamps (RFC 7323 section 3.2), aligned as its appendix A shows.
pub const TCP_STAMPED: u32 = 32;
/// Bytes of an IPv4 header without options.
pub const IPV4: u32 = 20;
/// Bytes of an IPv6 header.
pub const IPV6: u32 = 40;
/// Most bytes of IP options or extension headers that a reply can make up for.
pub const MAX_PADDING: u32 = 128;

const TCP: u32 = 6;
const HOPS: u32 = 64;
const DESTINATION_OPTIONS: u32 = 60;
const NO_OPERATION: u64 = 0x0101_0101_0101_0101;
/// NOP, NOP, kind 8, length 10.
const TIMESTAMPS: u32 = 0x0101_080a;
const FORBIDDEN_SUM: u32 = sum_bytes(&FORBIDDEN);

/// The timestamps of a segment (RFC 7323 section 3.2); both zero where it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamps {
    /// The sender's own.
    pub value: u32,
    /// The one that it echoes.
    pub echo: u32,
}

impl Timestamps {
    /// Those of a segment that has none.
    pub const NONE: Self = Self { value: 0, echo: 0 };

    /// Reads the first twelve bytes behind a TCP header, as big-endian words; [`Self::NONE`] where they hold
    /// something else than aligned timestamps, which is what all common systems send.
    #[inline(always)]
    #[must_use]
    pub fn read(words: [u32; 3]) -> Self {
        if words[0] == TIMESTAMPS {
            Self {
                value: words[1],
                echo: words[2],
            }
        } else {
            Self::NONE
        }
    }

    #[inline(always)]
    fn are_there(self) -> bool {
        self.value | self.echo != 0
    }

    /// Those of an answer: its sender has sent `echo` last, as far as the client knows.
    #[inline(always)]
    fn answered(self) -> Self {
        Self {
            value: self.echo,
            echo: self.value,
        }
    }
}

/// What a reply says, apart from where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number.
    pub acknowledgment: u32,
    /// TCP flags.
    pub flags: u8,
    /// Whether [`FORBIDDEN`] is the payload.
    pub forbidden: bool,
    /// Timestamps, where the flow has them: then all segments but RST must (RFC 7323 section 3.2).
    pub timestamps: Timestamps,
}

impl Words {
    /// RST to the client: its sequence number is the one that the client awaits (RFC 5961 section 3.2).
    #[inline(always)]
    #[must_use]
    pub fn reset_client(segment: &Segment) -> Self {
        Self {
            sequence: segment.acknowledgment,
            acknowledgment: end_of(segment),
            flags: RST | ACK,
            forbidden: false,
            timestamps: Timestamps::NONE,
        }
    }

    /// RST to the server, in the name of the client.
    #[inline(always)]
    #[must_use]
    pub fn reset_server(segment: &Segment) -> Self {
        Self {
            sequence: segment.sequence,
            acknowledgment: segment.acknowledgment,
            flags: RST | ACK,
            forbidden: false,
            timestamps: Timestamps::NONE,
        }
    }

    /// The 403 to the client, and the end of the connection.
    #[inline(always)]
    #[must_use]
    pub fn forbid(segment: &Segment, timestamps: Timestamps) -> Self {
        Self {
            sequence: segment.acknowledgment,
            acknowledgment: end_of(segment),
            flags: PSH | ACK | FIN,
            forbidden: true,
            timestamps: timestamps.answered(),
        }
    }

    /// To a client that goes on after its 403: everything before `acknowledgment` was taken.
    #[inline(always)]
    #[must_use]
    pub fn acknowledge(sequence: u32, acknowledgment: u32, timestamps: Timestamps) -> Self {
        Self {
            sequence,
            acknowledgment,
            flags: ACK,
            forbidden: false,
            timestamps: timestamps.answered(),
        }
    }

    #[inline(always)]
    fn payload_len(&self) -> u32 {
        if self.forbidden { FORBIDDEN_LEN } else { 0 }
    }
}

/// The sequence number behind a segment (RFC 9293 section 3.4: SYN and FIN count).
#[inline(always)]
#[must_use]
pub fn end_of(segment: &Segment) -> u32 {
    segment
        .sequence
        .wrapping_add(segment.payload_len)
        .wrapping_add(u32::from(segment.flags & SYN != 0))
        .wrapping_add(u32::from(segment.flags & FIN != 0))
}

/// Which end a reply goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// The sender of the segment.
    Client,
    /// Its receiver.
    Server,
}

/// The headers of a reply, in network byte order, and the sums that its TCP checksum is made of.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Reply {
    /// The IP header: [`IPV4`] or [`IPV6`] bytes.
    pub ip: [u32; 10],
    /// The TCP header, its checksum zero: [`TCP_BARE`] or [`TCP_STAMPED`] bytes.
    pub tcp: [u32; 8],
    /// What stands between them: [`Reply::padding_len`] bytes.
    pub padding: [u64; MAX_PADDING as usize / 8],
    /// Bytes of padding.
    pub padding_len: u32,
    /// Bytes of the TCP header.
    pub tcp_len: u32,
    /// Bytes of [`FORBIDDEN`] that follow: all or none.
    pub payload_len: u32,
    /// Offset of the IP header in the frame.
    pub ip_at: u32,
    /// Offset of the TCP header in the frame.
    pub tcp_at: u32,
    /// 4 or 6.
    pub version: u32,
    /// Sum of the pseudo-header (RFC 9293 section 3.1), folded to 16 bits, as a host integer.
    pub pseudo_sum: u32,
    /// Sum of TCP header and payload, folded likewise.
    pub tcp_sum: u32,
}

impl Reply {
    /// No reply yet.
    #[must_use]
    pub const fn zero() -> Self {
        Self {
            ip: [0; 10],
            tcp: [0; 8],
            padding: [0; MAX_PADDING as usize / 8],
            padding_len: 0,
            tcp_len: 0,
            payload_len: 0,
            ip_at: 0,
            tcp_at: 0,
            version: 0,
            pseudo_sum: 0,
            tcp_sum: 0,
        }
    }

    /// Makes the reply to `segment` that says `words`; false where the segment's IP headers are longer than a
    /// reply can have.
    // With a stack of its own: the programs' is shared with the units ("combined stack size of 2 calls").
    #[inline(never)]
    pub fn write(&mut self, segment: &Segment, words: &Words, to: To) -> bool {
        let (source, destination) = match to {
            To::Client => (&segment.destination, &segment.source),
            To::Server => (&segment.source, &segment.destination),
        };
        let bare = if segment.version == 4 { IPV4 } else { IPV6 };
        let padding = segment
            .tcp_at
            .wrapping_sub(segment.ip_at)
            .wrapping_sub(bare);
        if padding > MAX_PADDING {
            return false;
        }
        self.ip_at = segment.ip_at;
        self.tcp_at = segment.tcp_at;
        self.version = u32::from(segment.version);
        self.padding_len = padding;
        self.payload_len = words.payload_len();
        self.write_tcp(segment, words, to);
        let tcp_packet = self.tcp_len + self.payload_len;
        self.pseudo_sum = fold(sum_address(source) + sum_address(destination) + TCP + tcp_packet);
        if segment.version == 4 {
            self.write_ipv4(source, destination, tcp_packet);
        } else {
            self.write_ipv6(source, destination, tcp_packet);
        }
        true
    }

    /// Bytes of the frame.
    #[inline(always)]
    #[must_use]
    pub fn frame_len(&self) -> u32 {
        self.tcp_at + self.tcp_len + self.payload_len
    }

    #[inline(always)]
    fn write_tcp(&mut self, segment: &Segment, words: &Words, to: To) {
        let (source, destination) = match to {
            To::Client => (segment.destination_port, segment.source_port),
            To::Server => (segment.source_port, segment.destination_port),
        };
        self.tcp_len = if words.timestamps.are_there() {
            TCP_STAMPED
        } else {
            TCP_BARE
        };
        // No more is to come, but what does must be welcome.
        let window = if words.flags & RST == 0 { 0xffff } else { 0 };
        let ports = u32::from(source) << 16 | u32::from(destination);
        let flags = (self.tcp_len / 4) << 28 | u32::from(words.flags) << 16 | window;
        let mut sum = sum_word(ports)
            + sum_word(words.sequence)
            + sum_word(words.acknowledgment)
            + sum_word(flags);
        self.tcp[0] = ports.to_be();
        self.tcp[1] = words.sequence.to_be();
        self.tcp[2] = words.acknowledgment.to_be();
        self.tcp[3] = flags.to_be();
        self.tcp[4] = 0;
        if words.timestamps.are_there() {
            let stamps = words.timestamps;
            sum += sum_word(TIMESTAMPS) + sum_word(stamps.value) + sum_word(stamps.echo);
            self.tcp[5] = TIMESTAMPS.to_be();
            self.tcp[6] = stamps.value.to_be();
            self.tcp[7] = stamps.echo.to_be();
        }
        if words.forbidden {
            sum += FORBIDDEN_SUM;
        }
        self.tcp_sum = fold(sum);
    }

    /// RFC 791 section 3.1; identification 0 with DF (RFC 6864 section 4.1).
    #[inline(always)]
    fn write_ipv4(&mut self, source: &Address, destination: &Address, tcp_packet: u32) {
        let header = IPV4 + self.padding_len;
        let lengths = 4 << 28 | (header / 4) << 24 | (header + tcp_packet);
        let fragment = 0x4000;
        let hops = HOPS << 24 | TCP << 16;
        let options = (self.padding_len / 2) * 0x0101;
        let (source, destination) = (source.words()[3], destination.words()[3]);
        let sum = sum_word(lengths)
            + sum_word(fragment)
            + sum_word(hops)
            + sum_word(u32::from_be(source))
            + sum_word(u32::from_be(destination))
            + options;
        self.ip[0] = lengths.to_be();
        self.ip[1] = fragment.to_be();
        self.ip[2] = (hops | !fold(sum) & 0xffff).to_be();
        self.ip[3] = source;
        self.ip[4] = destination;
        if self.padding_len != 0 {
            // At most 40 bytes.
            self.padding[0] = NO_OPERATION;
            self.padding[1] = NO_OPERATION;
            self.padding[2] = NO_OPERATION;
            self.padding[3] = NO_OPERATION;
            self.padding[4] = NO_OPERATION;
        }
    }

    /// RFC 8200 section 3, with padding as one option (sections 4.2, 4.6).
    #[inline(always)]
    fn write_ipv6(&mut self, source: &Address, destination: &Address, tcp_packet: u32) {
        let next = if self.padding_len == 0 {
            TCP
        } else {
            DESTINATION_OPTIONS
        };
        let (source, destination) = (source.words(), destination.words());
        self.ip[0] = (6_u32 << 28).to_be();
        self.ip[1] = ((self.padding_len + tcp_packet) << 16 | next << 8 | HOPS).to_be();
        self.ip[2] = source[0];
        self.ip[3] = source[1];
        self.ip[4] = source[2];
        self.ip[5] = source[3];
        self.ip[6] = destination[0];
        self.ip[7] = destination[1];
        self.ip[8] = destination[2];
        self.ip[9] = destination[3];
        if self.padding_len != 0 {
            // Next header, length in units of eight bytes less one, PadN, its length.
            let head =
                TCP << 24 | (self.padding_len / 8 - 1) << 16 | 1 << 8 | (self.padding_len - 4);
            self.padding[0] = (u64::from(head) << 32).to_be();
        }
    }
}

/// Sum of the two halves of a word.
#[inline(always)]
const fn sum_word(word: u32) -> u32 {
    (word >> 16) + (word & 0xffff)
}

#[inline(always)]
fn sum_address(address: &Address) -> u32 {
    let words = address.words();
    // The prefix of a mapped IPv4 address counts as nothing: 0xffff is zero in one's complement.
    sum_word(u32::from_be(words[0]))
        + sum_word(u32::from_be(words[1]))
        + sum_word(u32::from_be(words[2]))
        + sum_word(u32::from_be(words[3]))
}

/// The sum as 16 bits (RFC 1071 section 2).
#[inline(always)]
#[must_use]
pub const fn fold(sum: u32) -> u32 {
    let sum = sum_word(sum);
    sum_word(sum)
}

const fn sum_bytes(bytes: &[u8]) -> u32 {
    let mut sum = 0;
    let mut at = 0;
    while at < bytes.len() {
        let high = (bytes[at] as u32) << 8;
        let low = if at + 1 < bytes.len() {
            bytes[at + 1] as u32
        } else {
            0
        };
        sum += high | low;
        at += 2;
    }
    fold(sum)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::packet::{Head, Link, parse};
    use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
    use proptest::prelude::*;
    use std::vec::Vec;

    fn segment_of(frame: &[u8]) -> Segment {
        let mut segment = Segment::default();
        let len = u32::try_from(frame.len()).unwrap();
        parse(&Head::of(frame), len, Link::Ip, &mut segment).unwrap();
        segment
    }

    /// The packet as a program puts it together, with the checksum that the kernel's helper makes of the sums.
    fn packet(reply: &Reply) -> Vec<u8> {
        let words = |words: &[u32]| {
            words
                .iter()
                .flat_map(|w| w.to_ne_bytes())
                .collect::<Vec<u8>>()
        };
        let ip = if reply.version == 4 { 5 } else { 10 };
        let mut bytes = words(&reply.ip[..ip]);
        let padding: Vec<u8> = reply.padding.iter().flat_map(|w| w.to_ne_bytes()).collect();
        bytes.extend_from_slice(&padding[..reply.padding_len as usize]);
        let mut tcp = words(&reply.tcp[..reply.tcp_len as usize / 4]);
        let sum = !fold(reply.pseudo_sum + reply.tcp_sum) as u16;
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        bytes.extend_from_slice(&tcp);
        bytes.extend_from_slice(&FORBIDDEN[..reply.payload_len as usize]);
        bytes
    }

    /// A request over IPv4 or IPv6, with `padding` words of options in its IP header.
    fn request(
        v6: bool,
        padding: usize,
        addresses: [u8; 32],
        numbers: (u16, u16, u32, u32),
    ) -> Vec<u8> {
        let (source_port, destination_port, sequence, acknowledgment) = numbers;
        let mut tcp = Vec::new();
        tcp.extend_from_slice(&source_port.to_be_bytes());
        tcp.extend_from_slice(&destination_port.to_be_bytes());
        tcp.extend_from_slice(&sequence.to_be_bytes());
        tcp.extend_from_slice(&acknowledgment.to_be_bytes());
        tcp.extend_from_slice(&[5 << 4, PSH | ACK, 1, 0, 0, 0, 0, 0]);
        tcp.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n");
        let mut bytes = Vec::new();
        if v6 {
            let extension = if padding == 0 { 0 } else { 8 * padding };
            let length = u16::try_from(tcp.len() + extension).unwrap().to_be_bytes();
            bytes.extend_from_slice(&[0x60, 0, 0, 0, length[0], length[1]]);
            bytes.extend_from_slice(&[if padding == 0 { 6 } else { 60 }, 64]);
            bytes.extend_from_slice(&addresses);
            if padding != 0 {
                let start = bytes.len();
                bytes.extend_from_slice(&[6, u8::try_from(padding).unwrap() - 1]);
                bytes.resize(start + extension, 0);
            }
        } else {
            let header = 20 + 4 * padding;
            let length = u16::try_from(tcp.len() + header).unwrap().to_be_bytes();
            bytes.extend_from_slice(&[0x40 | u8::try_from(header / 4).unwrap(), 0]);
            bytes.extend_from_slice(&length);
            bytes.extend_from_slice(&[0, 0, 0x40, 0, 64, 6, 0, 0]);
            bytes.extend_from_slice(&addresses[..8]);
            bytes.resize(header, 1);
        }
        bytes.extend_from_slice(&tcp);
        bytes
    }

    fn checksums_are_right(bytes: &[u8]) -> (etherparse::TcpHeader, Vec<u8>) {
        let headers = PacketHeaders::from_ip_slice(bytes).unwrap();
        let payload = headers.payload.slice();
        let Some(TransportHeader::Tcp(tcp)) = headers.transport else {
            panic!("no TCP")
        };
        let sum = match headers.net.unwrap() {
            NetHeaders::Ipv4(ip, _) => {
                assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                tcp.calc_checksum_ipv4(&ip, payload).unwrap()
            }
            NetHeaders::Ipv6(ip, _) => tcp.calc_checksum_ipv6(&ip, payload).unwrap(),
            NetHeaders::Arp(_) => panic!("ARP"),
        };
        assert_eq!(tcp.checksum, sum);
        (tcp, payload.to_vec())
    }

    proptest! {
        #[test]
        fn replies_are_what_they_should_be(
            v6: bool,
            padding in 0_usize..8,
            addresses: [u8; 32],
            numbers: (u16, u16, u32, u32),
            stamps in proptest::option::of((1_u32.., any::<u32>())),
        ) {
            let frame = request(v6, padding, addresses, numbers);
            let segment = segment_of(&frame);
            let (source_port, destination_port, sequence, acknowledgment) = numbers;
            let timestamps = stamps.map_or(Timestamps::NONE, |(value, echo)| Timestamps { value, echo });
            let mut reply = Reply::zero();

            prop_assert!(reply.write(&segment, &Words::forbid(&segment, timestamps), To::Client));
            let bytes = packet(&reply);
            let (tcp, payload) = checksums_are_right(&bytes);
            prop_assert_eq!(bytes.len(), reply.frame_len() as usize);
            prop_assert_eq!((tcp.source_port, tcp.destination_port), (destination_port, source_port));
            prop_assert_eq!(tcp.sequence_number, acknowledgment);
            prop_assert_eq!(tcp.acknowledgment_number, sequence.wrapping_add(18));
            prop_assert!(tcp.ack && tcp.fin && tcp.psh && !tcp.rst && !tcp.syn);
            prop_assert_eq!(&payload[..], &FORBIDDEN[..]);
            let found = tcp.options_iterator().find_map(|option| match option {
                Ok(etherparse::TcpOptionElement::Timestamp(value, echo)) => Some((echo, value)),
                _ => None,
            });
            prop_assert_eq!(found, stamps);
            let back = segment_of(&bytes);
            prop_assert_eq!((back.source, back.destination), (segment.destination, segment.source));
            prop_assert_eq!(back.tcp_at, segment.tcp_at);

            prop_assert!(reply.write(&segment, &Words::reset_server(&segment), To::Server));
            let bytes = packet(&reply);
            let (tcp, payload) = checksums_are_right(&bytes);
            prop_assert_eq!((tcp.source_port, tcp.destination_port), (source_port, destination_port));
            prop_assert_eq!((tcp.sequence_number, tcp.acknowledgment_number), (sequence, acknowledgment));
            prop_assert!(tcp.rst && tcp.ack && !tcp.fin && payload.is_empty());
            let back = segment_of(&bytes);
            prop_assert_eq!((back.source, back.destination), (segment.source, segment.destination));
        }
    }

    #[test]
    fn the_answer_says_how_long_it_is() {
        let text = core::str::from_utf8(&FORBIDDEN).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let length = std::format!("Content-Length: {}", body.len());
        assert!(head.lines().any(|line| line == length), "{head}");
    }

    #[test]
    fn only_aligned_timestamps_are_read() {
        let stamps = Timestamps { value: 7, echo: 9 };
        assert_eq!(Timestamps::read([0x0101_080a, 7, 9]), stamps);
        assert_eq!(Timestamps::read([0x0402_080a, 7, 9]), Timestamps::NONE);
    }
}
