//! Frames with correct lengths and checksums, to be broken on purpose afterwards.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use etherparse::{IpNumber, Ipv4Header, Ipv4Options, Ipv6Header, Ipv6RawExtHeader, TcpHeader};

/// 802.1Q, a customer's tag.
pub const CUSTOMER_TAG: u16 = 0x8100;
/// 802.1ad, a provider's tag.
pub const PROVIDER_TAG: u16 = 0x88a8;
/// Bytes of an Ethernet header.
pub const ETHERNET_HEADER: usize = 14;

const CLIENT4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SERVER4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 2, 3, 4, 5);
const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x80);

/// The IP header, and what it says besides the addresses.
#[derive(Clone, Debug)]
enum Network {
    V4 { options: Vec<u8> },
    V6 { extensions: Vec<IpNumber> },
}

/// One TCP segment from the client to the server, and how it is wrapped.
#[derive(Clone, Debug)]
pub struct Frame {
    network: Network,
    tags: Vec<u16>,
    tcp: TcpHeader,
    payload: Vec<u8>,
    /// The server sends it.
    answers: bool,
}

impl Frame {
    /// The port of the client.
    pub const CLIENT_PORT: u16 = 40_001;
    /// The port of the server.
    pub const SERVER_PORT: u16 = 8080;
    /// The sequence number.
    pub const SEQUENCE: u32 = 0xffff_fff0;
    /// Acknowledgment number of the client's frames.
    pub const ACKNOWLEDGES: u32 = 0x0102_0304;

    /// A segment over IPv4.
    #[must_use]
    pub fn v4(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(
            Network::V4 {
                options: Vec::new(),
            },
            payload.into(),
        )
    }

    /// A segment over IPv6.
    #[must_use]
    pub fn v6(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(
            Network::V6 {
                extensions: Vec::new(),
            },
            payload.into(),
        )
    }

    fn new(network: Network, payload: Vec<u8>) -> Self {
        let mut tcp = TcpHeader::new(Self::CLIENT_PORT, Self::SERVER_PORT, Self::SEQUENCE, 0xffff);
        (tcp.acknowledgment_number, tcp.ack, tcp.psh) = (Self::ACKNOWLEDGES, true, true);
        Self {
            network,
            tags: Vec::new(),
            tcp,
            payload,
            answers: false,
        }
    }

    /// With VLAN tags of these kinds, the outermost first.
    #[must_use]
    pub fn tagged(mut self, kinds: &[u16]) -> Self {
        self.tags.extend_from_slice(kinds);
        self
    }

    /// With `words` (0..=10) times four bytes of IPv4 options; nothing for IPv6.
    #[must_use]
    pub fn ip_options(mut self, words: usize) -> Self {
        if let Network::V4 { options } = &mut self.network {
            // No operation (RFC 791 section 3.1).
            *options = vec![1; words * 4];
        }
        self
    }

    /// With IPv6 extension headers of eight bytes each, of these kinds; nothing for IPv4.
    #[must_use]
    pub fn extensions(mut self, kinds: &[IpNumber]) -> Self {
        if let Network::V6 { extensions } = &mut self.network {
            *extensions = kinds.to_vec();
        }
        self
    }

    /// With `words` (0..=10) times four bytes of TCP options.
    ///
    /// # Errors
    /// Where they don't fit.
    pub fn tcp_options(mut self, words: usize) -> Result<Self> {
        // No operation (RFC 9293 section 3.2).
        self.tcp
            .set_options_raw(&vec![1; words * 4])
            .context("TCP options")?;
        Ok(self)
    }

    /// With these bytes of TCP options, a multiple of four and 40 at most.
    ///
    /// # Errors
    /// Where they don't fit.
    pub fn options(mut self, bytes: &[u8]) -> Result<Self> {
        self.tcp.set_options_raw(bytes).context("TCP options")?;
        Ok(self)
    }

    /// With these timestamps, the sender's own and the one that it echoes (RFC 7323 section 3.2); 0 and 0: without.
    #[must_use]
    pub fn stamped(mut self, own: u32, echo: u32) -> Self {
        if (own, echo) != (0, 0) {
            let mut options = vec![1, 1, 8, 10];
            options.extend([own, echo].into_iter().flat_map(u32::to_be_bytes));
            // Twelve bytes always fit.
            self.tcp.set_options_raw(&options).unwrap_or_default();
        }
        self
    }

    /// With this sequence number.
    #[must_use]
    pub fn at(mut self, sequence: u32) -> Self {
        self.tcp.sequence_number = sequence;
        self
    }

    /// With this acknowledgment number.
    #[must_use]
    pub fn acknowledges(mut self, acknowledgment: u32) -> Self {
        self.tcp.acknowledgment_number = acknowledgment;
        self
    }

    /// From the server to the client, with this acknowledgment number.
    #[must_use]
    pub fn answer(mut self, acknowledgment: u32) -> Self {
        self.answers = true;
        let tcp = &mut self.tcp;
        (tcp.source_port, tcp.destination_port) = (tcp.destination_port, tcp.source_port);
        tcp.acknowledgment_number = acknowledgment;
        self
    }

    /// With SYN.
    #[must_use]
    pub fn syn(mut self) -> Self {
        self.tcp.syn = true;
        self
    }

    /// With RST.
    #[must_use]
    pub fn reset(mut self) -> Self {
        self.tcp.rst = true;
        self
    }

    /// With FIN.
    #[must_use]
    pub fn finish(mut self) -> Self {
        self.tcp.fin = true;
        self
    }

    /// Without ACK.
    #[must_use]
    pub fn no_ack(mut self) -> Self {
        self.tcp.ack = false;
        self
    }

    /// To another port.
    #[must_use]
    pub fn to_port(mut self, port: u16) -> Self {
        self.tcp.destination_port = port;
        self
    }

    /// The addresses of client and server.
    #[must_use]
    pub fn addresses(&self) -> (Ipv6Addr, Ipv6Addr) {
        match self.network {
            Network::V4 { .. } => (CLIENT4.to_ipv6_mapped(), SERVER4.to_ipv6_mapped()),
            Network::V6 { .. } => (CLIENT6, SERVER6),
        }
    }

    /// Offset of the IP header in [`Frame::ethernet`].
    #[must_use]
    pub fn ip_at(&self) -> usize {
        ETHERNET_HEADER + self.tags.len() * 4
    }

    /// The frame as an interface with Ethernet headers has it.
    ///
    /// # Errors
    /// Where a length doesn't fit its field.
    pub fn ethernet(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        for (id, kind) in (1_u16..).zip(&self.tags) {
            bytes.extend(kind.to_be_bytes());
            bytes.extend(id.to_be_bytes());
        }
        let kind: u16 = match self.network {
            Network::V4 { .. } => 0x0800,
            Network::V6 { .. } => 0x86dd,
        };
        bytes.extend(kind.to_be_bytes());
        bytes.extend(self.ip()?);
        Ok(bytes)
    }

    /// The packet as an interface without link headers has it.
    ///
    /// # Errors
    /// Where a length doesn't fit its field.
    pub fn ip(&self) -> Result<Vec<u8>> {
        let mut tcp = self.tcp.clone();
        let mut bytes;
        match &self.network {
            Network::V4 { options } => {
                let ip = self.v4_header(options)?;
                tcp.checksum = tcp.calc_checksum_ipv4(&ip, &self.payload)?;
                bytes = ip.to_bytes().to_vec();
            }
            Network::V6 { extensions } => {
                let (mut ip, chain) = self.v6_header(extensions)?;
                tcp.checksum = tcp.calc_checksum_ipv6(&ip, &self.payload)?;
                ip.next_header = *extensions.first().unwrap_or(&IpNumber::TCP);
                bytes = ip.to_bytes().to_vec();
                bytes.extend(chain);
            }
        }
        bytes.extend(tcp.to_bytes());
        bytes.extend(&self.payload);
        Ok(bytes)
    }

    fn ends<T>(&self, client: T, server: T) -> (T, T) {
        if self.answers {
            (server, client)
        } else {
            (client, server)
        }
    }

    fn v4_header(&self, options: &[u8]) -> Result<Ipv4Header> {
        let len = u16::try_from(self.tcp.header_len() + self.payload.len())?;
        let (source, destination) = self.ends(CLIENT4.octets(), SERVER4.octets());
        let mut ip = Ipv4Header::new(len, 64, IpNumber::TCP, source, destination)?;
        ip.options = Ipv4Options::try_from(options)?;
        ip.set_payload_len(len.into())?;
        ip.header_checksum = ip.calc_header_checksum();
        Ok(ip)
    }

    /// The header as the checksum sees it, and the extension headers behind it.
    fn v6_header(&self, extensions: &[IpNumber]) -> Result<(Ipv6Header, Vec<u8>)> {
        let mut chain = Vec::new();
        let behind = extensions.iter().skip(1).chain([&IpNumber::TCP]);
        for (kind, next) in extensions.iter().zip(behind) {
            let content = if *kind == IpNumber::IPV6_ROUTE_HEADER {
                // Of segment routing, without segments left (RFC 8754 section 2).
                [4, 0, 0, 0, 0, 0]
            } else {
                // A padding option (RFC 8200 section 4.2).
                [1, 4, 0, 0, 0, 0]
            };
            let header = Ipv6RawExtHeader::new_raw(*next, &content)?;
            chain.extend(header.to_bytes());
        }
        let len = chain.len() + self.tcp.header_len() + self.payload.len();
        let (source, destination) = self.ends(CLIENT6.octets(), SERVER6.octets());
        let ip = Ipv6Header {
            payload_length: u16::try_from(len)?,
            next_header: IpNumber::TCP,
            hop_limit: 64,
            source,
            destination,
            ..Ipv6Header::default()
        };
        Ok((ip, chain))
    }
}
