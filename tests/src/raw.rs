//! A TCP client that makes its own segments, and so can send what no honest TCP sends.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use etherparse::{
    IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header, NetSlice, PacketBuilder,
    SlicedPacket, TcpHeader, TcpOptionElement, TransportSlice, err::packet::BuildWriteError,
};

use crate::{
    netns::{INTERFACE, Pair},
    wire::{self, Wire},
};

/// The client's IPv4 address, which no host has: nobody else answers what is sent there.
pub const PHANTOM_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 9));
/// The client's IPv6 address, as [`PHANTOM_V4`].
pub const PHANTOM_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 9));

/// How long the server may take to answer a SYN.
const HANDSHAKE: Duration = Duration::from_secs(20);
/// When what is not acknowledged is sent again.
const RETRANSMISSION: Duration = Duration::from_millis(260);
/// How long something is sent again and again.
const PATIENCE: Duration = Duration::from_secs(3);
/// Where in a frame with its prefix the IP header begins.
const IP_AT: usize = wire::PREFIX + 14;
/// The Ethernet type of IPv6.
const IPV6: [u8; 2] = [0x86, 0xdd];
/// The client's clock at its start; an old timestamp is far before.
const CLOCK: u32 = 100_000_000;

/// Where raw clients of a pair of namespaces live.
#[derive(Debug)]
pub struct RawHost<'a> {
    pair: &'a Pair,
    client_mac: [u8; 6],
    server_mac: [u8; 6],
}

impl<'a> RawHost<'a> {
    /// Tells the server's namespace where the phantom addresses are.
    ///
    /// # Errors
    /// Where `ip` refuses.
    pub fn new(pair: &'a Pair) -> Result<Self> {
        let (client_mac, server_mac) = (pair.client.mac(INTERFACE)?, pair.server.mac(INTERFACE)?);
        let octets = client_mac.map(|octet| format!("{octet:02x}")).join(":");
        for address in [PHANTOM_V4, PHANTOM_V6] {
            pair.server.ip(&format!(
                "neighbour replace {address} lladdr {octets} dev {INTERFACE} nud permanent"
            ))?;
        }
        Ok(Self {
            pair,
            client_mac,
            server_mac,
        })
    }

    /// Tells the server's namespace that clients of these networks are behind the phantom addresses.
    ///
    /// # Errors
    /// Where `ip` refuses.
    pub fn lead_to(&self, networks: [&str; 2]) -> Result<()> {
        for (network, by) in networks.into_iter().zip([PHANTOM_V4, PHANTOM_V6]) {
            let server = &self.pair.server;
            server.ip(&format!("route add {network} via {by} dev {INTERFACE}"))?;
        }
        Ok(())
    }

    /// A client at `port` of the phantom address of the server's family.
    ///
    /// # Errors
    /// Where it gets no packet socket.
    pub fn client(&self, server: SocketAddr, port: u16) -> Result<RawClient> {
        let address = match server {
            SocketAddr::V4(_) => PHANTOM_V4,
            SocketAddr::V6(_) => PHANTOM_V6,
        };
        Ok(RawClient {
            wire: Wire::open(&self.pair.client, INTERFACE)?,
            client_mac: self.client_mac,
            server_mac: self.server_mac,
            client: SocketAddr::new(address, port),
            server,
            first: 0,
            acknowledged: 0,
            next: 0,
            received: Vec::new(),
            end: None,
            born: Instant::now(),
            heard: CLOCK,
            identification: port,
        })
    }
}

/// One segment, and what is wrong with it.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The TCP header, its checksum apart.
    pub tcp: TcpHeader,
    /// The payload.
    pub payload: Vec<u8>,
    /// Timestamps (RFC 7323): the client's clock and what it last heard.
    pub stamps: Option<(u32, u32)>,
    /// Further options, as they stand in the header.
    pub options: Vec<u8>,
    /// The TCP checksum is wrong.
    pub bad_checksum: bool,
    /// The IP header is wrong: its checksum, or for IPv6 its length.
    pub bad_ip_header: bool,
    /// It is addressed to another station of the link.
    pub to_another_station: bool,
}

/// Where the streams of a connection begin.
#[derive(Clone, Copy, Debug)]
pub struct Handshake {
    first: u32,
    next: u32,
    heard: u32,
}

/// How a connection ended for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By RST.
    Reset,
    /// By FIN.
    Closed,
}

/// A connection, or what is to become one. Offsets count the bytes of its stream.
#[derive(Debug)]
pub struct RawClient {
    wire: Wire,
    client_mac: [u8; 6],
    server_mac: [u8; 6],
    client: SocketAddr,
    server: SocketAddr,
    /// Sequence number of the first byte of the stream.
    first: u32,
    /// Sequence number that the server awaits.
    acknowledged: u32,
    /// Sequence number that is awaited of the server.
    next: u32,
    /// What the server sent in order.
    pub received: Vec<u8>,
    /// Whether the server ended the connection.
    pub end: Option<End>,
    born: Instant,
    /// The server's clock.
    heard: u32,
    /// Of the last datagram that was sent in fragments.
    identification: u16,
}

impl RawClient {
    /// The client's end, as the origin sees it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.client
    }

    /// Becomes another client, of whom nobody has heard.
    pub fn become_another(&mut self, client: SocketAddr) {
        (self.client, self.next, self.end) = (client, 0, None);
        self.received.clear();
    }

    /// Connects, so that the first byte has sequence number `first`.
    ///
    /// # Errors
    /// Where the server does not answer.
    pub fn connect(&mut self, first: u32) -> Result<()> {
        self.send_syn(first, b"")?;
        self.await_handshake()?;
        self.send(&self.bare(0))
    }

    /// Sends a SYN with data on it (RFC 7413).
    ///
    /// # Errors
    /// Where it can't be sent.
    pub fn send_syn(&mut self, first: u32, payload: &[u8]) -> Result<()> {
        (self.first, self.acknowledged, self.next) = (first, first.wrapping_sub(1), 0);
        (self.end, self.heard) = (None, 0);
        self.received.clear();
        let mut syn = self.bare(0);
        syn.tcp.sequence_number = first.wrapping_sub(1);
        (syn.tcp.syn, syn.tcp.ack) = (true, false);
        syn.payload = payload.to_vec();
        // Maximum segment size 1400, and no window scale.
        syn.options = vec![2, 4, 0x05, 0x78];
        self.send(&syn)
    }

    /// Waits for the server's SYN, or its refusal.
    ///
    /// # Errors
    /// Where neither comes.
    pub fn await_handshake(&mut self) -> Result<()> {
        let deadline = Instant::now() + HANDSHAKE;
        while self.next == 0 && self.end.is_none() && Instant::now() < deadline {
            self.listen(Duration::from_millis(5))?;
        }
        if self.next == 0 && self.end.is_none() {
            bail!("{} does not answer {}", self.server, self.client);
        }
        Ok(())
    }

    /// What was agreed on with the server's SYN.
    #[must_use]
    pub fn handshake(&self) -> Handshake {
        Handshake {
            first: self.first,
            next: self.next,
            heard: self.heard,
        }
    }

    /// Goes on with what was agreed on before.
    pub fn resume(&mut self, agreed: Handshake) {
        (self.first, self.next) = (agreed.first, agreed.next);
        (self.acknowledged, self.heard) = (agreed.first, agreed.heard);
        self.end = None;
        self.received.clear();
    }

    /// How much of the stream the server acknowledged.
    #[must_use]
    pub fn taken(&self) -> usize {
        let taken = self.acknowledged.wrapping_sub(self.first);
        // Before the first is the SYN, or what was left of another connection.
        if taken > u32::MAX >> 1 {
            0
        } else {
            taken as usize
        }
    }

    /// A correct segment without payload at `offset` of the stream.
    #[must_use]
    pub fn bare(&self, offset: usize) -> Segment {
        let sequence = self.sequence(offset);
        let mut tcp = TcpHeader::new(self.client.port(), self.server.port(), sequence, 0xffff);
        (tcp.ack, tcp.acknowledgment_number) = (true, self.next);
        Segment {
            tcp,
            payload: Vec::new(),
            stamps: Some((self.now(), self.heard)),
            options: Vec::new(),
            bad_checksum: false,
            bad_ip_header: false,
            to_another_station: false,
        }
    }

    /// A correct segment of these bytes at `offset` of the stream.
    #[must_use]
    pub fn segment(&self, offset: usize, payload: impl Into<Vec<u8>>) -> Segment {
        let mut segment = self.bare(offset);
        segment.tcp.psh = true;
        segment.payload = payload.into();
        segment
    }

    /// The client's clock, in milliseconds.
    fn now(&self) -> u32 {
        let passed = self.born.elapsed().as_millis() & u128::from(u32::MAX >> 1);
        CLOCK.wrapping_add(u32::try_from(passed).unwrap_or(0))
    }

    /// The sequence number at `offset` of the stream.
    #[expect(clippy::cast_possible_truncation, reason = "sequence numbers wrap")]
    fn sequence(&self, offset: usize) -> u32 {
        self.first.wrapping_add(offset as u32)
    }

    /// Sends a segment as it is, then reads what has come.
    ///
    /// # Errors
    /// Where it can't be sent.
    pub fn send(&mut self, segment: &Segment) -> Result<()> {
        let frame = self.frame(segment)?;
        self.wire.send(&frame)?;
        self.listen(Duration::ZERO)
    }

    /// Sends a segment so many times, and reads nothing.
    ///
    /// # Errors
    /// Where it can't be sent.
    pub fn repeat(&mut self, segment: &Segment, times: u32) -> Result<()> {
        let frame = self.frame(segment)?;
        (0..times).try_for_each(|_| self.wire.send(&frame))
    }

    /// Sends a segment in IP fragments of `size` bytes, a multiple of eight. What fits one is sent as a fragment that
    /// is whole (RFC 6946), over IPv4 as it is.
    ///
    /// # Errors
    /// Where it can't be sent.
    pub fn send_in_fragments(&mut self, segment: &Segment, size: usize) -> Result<()> {
        let frame = self.frame(segment)?;
        self.identification = self.identification.wrapping_add(1);
        let (head, datagram) = frame
            .split_at_checked(self.tcp_at())
            .context("a frame without a datagram")?;
        let pieces = datagram.len().div_ceil(size);
        for (index, piece) in datagram.chunks(size).enumerate() {
            let more = index + 1 < pieces;
            let offset = IpFragOffset::try_new(u16::try_from(index * size / 8)?)?;
            let (link, ip) = head.split_at(IP_AT);
            let mut fragment = link.to_vec();
            match self.client {
                SocketAddr::V4(_) => {
                    let (mut ip, _) = Ipv4Header::from_slice(ip)?;
                    ip.dont_fragment = false;
                    (ip.more_fragments, ip.fragment_offset) = (more, offset);
                    ip.identification = self.identification;
                    ip.set_payload_len(piece.len())?;
                    ip.header_checksum = ip.calc_header_checksum();
                    ip.write(&mut fragment)?;
                }
                SocketAddr::V6(_) => {
                    let (mut ip, _) = Ipv6Header::from_slice(ip)?;
                    let id = u32::from(self.identification);
                    let header = Ipv6FragmentHeader::new(IpNumber::TCP, offset, more, id);
                    ip.next_header = IpNumber::IPV6_FRAGMENTATION_HEADER;
                    ip.set_payload_length(Ipv6FragmentHeader::LEN + piece.len())?;
                    ip.write(&mut fragment)?;
                    header.write(&mut fragment)?;
                }
            }
            fragment.extend_from_slice(piece);
            self.wire.send(&fragment)?;
        }
        self.listen(Duration::ZERO)
    }

    /// Sends a segment by way of another address of the server's host: by a loose source route (RFC 791 section 3.1), or by
    /// a segment routing header (RFC 8754 section 2).
    ///
    /// # Errors
    /// Where it can't be sent, or the address is of another family.
    pub fn send_by(&mut self, segment: &Segment, way: IpAddr) -> Result<()> {
        let frame = self.frame(segment)?;
        let (head, datagram) = frame
            .split_at_checked(self.tcp_at())
            .context("a frame without a datagram")?;
        let (link, ip) = head.split_at(IP_AT);
        let mut routed = link.to_vec();
        match (way, self.server.ip()) {
            (IpAddr::V4(way), IpAddr::V4(server)) => {
                let mut options = vec![1, 131, 7, 4];
                options.extend(server.octets());
                let (mut ip, _) = Ipv4Header::from_slice(ip)?;
                ip.destination = way.octets();
                ip.options = options.as_slice().try_into().context("IP options")?;
                ip.set_payload_len(datagram.len())?;
                ip.header_checksum = ip.calc_header_checksum();
                ip.write(&mut routed)?;
            }
            (IpAddr::V6(way), IpAddr::V6(server)) => {
                // TCP behind it, 40 bytes, type 4, one address left of two, the last of them first.
                let mut route = vec![6, 4, 4, 1, 1, 0, 0, 0];
                route.extend(server.octets());
                route.extend(way.octets());
                let (mut ip, _) = Ipv6Header::from_slice(ip)?;
                ip.destination = way.octets();
                ip.next_header = IpNumber::IPV6_ROUTE_HEADER;
                ip.set_payload_length(route.len() + datagram.len())?;
                ip.write(&mut routed)?;
                routed.extend(route);
            }
            ends => bail!("both of one family, not {ends:?}"),
        }
        routed.extend_from_slice(datagram);
        self.wire.send(&routed)?;
        self.listen(Duration::ZERO)
    }

    /// Sends a segment's whole IP packet inside another, behind a segment routing header that is at its end: the host unpacks
    /// it by itself (RFC 8754 section 4.3.1.2).
    ///
    /// # Errors
    /// Where it can't be sent.
    pub fn send_inside(&mut self, segment: &Segment, way: Ipv6Addr) -> Result<()> {
        let frame = self.frame(segment)?;
        let (link, packet) = frame
            .split_at_checked(IP_AT)
            .context("a frame without a packet")?;
        let (inner, IpAddr::V6(source)) = (
            match self.client {
                SocketAddr::V4(_) => IpNumber::IPV4,
                SocketAddr::V6(_) => IpNumber::IPV6,
            },
            PHANTOM_V6,
        ) else {
            bail!("{PHANTOM_V6} is of another family");
        };
        // 24 bytes, type 4, no address left of one.
        let mut route = vec![inner.0, 2, 4, 0, 0, 0, 0, 0];
        route.extend(way.octets());
        let mut ip = Ipv6Header {
            next_header: IpNumber::IPV6_ROUTE_HEADER,
            hop_limit: 64,
            source: source.octets(),
            destination: way.octets(),
            ..Ipv6Header::default()
        };
        ip.set_payload_length(route.len() + packet.len())?;
        let mut outer = link.to_vec();
        outer.truncate(IP_AT - 2);
        outer.extend(IPV6);
        ip.write(&mut outer)?;
        outer.extend(route);
        outer.extend_from_slice(packet);
        self.wire.send(&outer)?;
        self.listen(Duration::ZERO)
    }

    /// Where in a frame with its prefix the TCP header begins.
    fn tcp_at(&self) -> usize {
        match self.client {
            SocketAddr::V4(_) => IP_AT + 20,
            SocketAddr::V6(_) => IP_AT + 40,
        }
    }

    /// Sends bytes at `offset` once.
    ///
    /// # Errors
    /// Where they can't be sent.
    pub fn push(&mut self, offset: usize, bytes: &[u8]) -> Result<()> {
        self.send(&self.segment(offset, bytes))
    }

    /// Sends bytes at `offset`, and again until the server has acknowledged them, has ended the connection, or
    /// patience ends.
    ///
    /// # Errors
    /// Where they can't be sent.
    pub fn deliver(&mut self, offset: usize, bytes: &[u8]) -> Result<()> {
        let end = offset + bytes.len();
        let deadline = Instant::now() + PATIENCE;
        while self.end.is_none() && self.taken() < end && Instant::now() < deadline {
            self.push(offset, bytes)?;
            self.await_taken(end, RETRANSMISSION)?;
        }
        Ok(())
    }

    /// Waits until the server acknowledged so much of the stream, or ended the connection, or `limit` passed.
    ///
    /// # Errors
    /// Where the interface is gone.
    pub fn await_taken(&mut self, end: usize, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while self.end.is_none() && self.taken() < end && Instant::now() < deadline {
            self.listen(Duration::from_millis(5))?;
        }
        Ok(())
    }

    /// Reads for `limit`, and all that has come by then.
    ///
    /// # Errors
    /// Where the interface is gone.
    pub fn listen(&mut self, limit: Duration) -> Result<()> {
        let mut buffer = vec![0; wire::MAX];
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(frame) = self.wire.receive(&mut buffer, left)? else {
                return Ok(());
            };
            let Some((tcp, payload)) = self.of_server(frame.get(wire::PREFIX..).unwrap_or(&[]))
            else {
                continue;
            };
            if self.take(&tcp, &payload) {
                self.send(&self.bare(self.taken()))?;
            }
            if limit > Duration::ZERO && left.is_zero() {
                return Ok(());
            }
        }
    }

    /// Takes a segment of the server's; whether it is to be acknowledged.
    fn take(&mut self, tcp: &TcpHeader, payload: &[u8]) -> bool {
        if tcp.rst {
            self.end = Some(End::Reset);
            return false;
        }
        if tcp.ack {
            self.acknowledged = tcp.acknowledgment_number;
        }
        if tcp.syn {
            self.next = tcp.sequence_number.wrapping_add(1);
            return false;
        }
        if tcp.sequence_number != self.next || payload.is_empty() && !tcp.fin {
            return false;
        }
        self.received.extend_from_slice(payload);
        let len = u32::try_from(payload.len()).unwrap_or(0) + u32::from(tcp.fin);
        self.next = self.next.wrapping_add(len);
        if tcp.fin {
            self.end = Some(End::Closed);
        }
        true
    }

    /// The segment in a frame, where it is one of this connection's.
    fn of_server(&mut self, frame: &[u8]) -> Option<(TcpHeader, Vec<u8>)> {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let (source, destination): (IpAddr, IpAddr) = match packet.net? {
            NetSlice::Ipv4(ip) => {
                let header = ip.header();
                (
                    header.source_addr().into(),
                    header.destination_addr().into(),
                )
            }
            NetSlice::Ipv6(ip) => {
                let header = ip.header();
                (
                    header.source_addr().into(),
                    header.destination_addr().into(),
                )
            }
            NetSlice::Arp(_) => return None,
        };
        let TransportSlice::Tcp(tcp) = packet.transport? else {
            return None;
        };
        let ends = (
            SocketAddr::new(source, tcp.source_port()),
            SocketAddr::new(destination, tcp.destination_port()),
        );
        if ends != (self.server, self.client) {
            return None;
        }
        for option in tcp.options_iterator().flatten() {
            if let TcpOptionElement::Timestamp(theirs, _) = option {
                self.heard = theirs;
            }
        }
        Some((tcp.to_header(), tcp.payload().to_vec()))
    }

    fn frame(&self, segment: &Segment) -> Result<Vec<u8>> {
        let mut tcp = segment.tcp.clone();
        let mut options = segment.options.clone();
        if let Some((ours, theirs)) = segment.stamps {
            // Two times no operation, then the timestamps (RFC 7323 appendix A).
            options.extend([1, 1, 8, 10]);
            options.extend(ours.to_be_bytes());
            options.extend(theirs.to_be_bytes());
        }
        tcp.set_options_raw(&options).context("TCP options")?;
        let mut station = self.server_mac;
        if segment.to_another_station {
            station[5] ^= 1;
        }
        let mut frame = vec![0; wire::PREFIX];
        let link = PacketBuilder::ethernet2(self.client_mac, station);
        let written: Result<(), BuildWriteError> = match (self.client.ip(), self.server.ip()) {
            (IpAddr::V4(client), IpAddr::V4(server)) => {
                let ip = Ipv4Header::new(0, 64, IpNumber::TCP, client.octets(), server.octets())?;
                let ip = etherparse::IpHeaders::Ipv4(ip, etherparse::Ipv4Extensions::default());
                link.ip(ip)
                    .tcp_header(tcp)
                    .write(&mut frame, &segment.payload)
            }
            (IpAddr::V6(client), IpAddr::V6(server)) => {
                let ip = Ipv6Header {
                    hop_limit: 64,
                    source: client.octets(),
                    destination: server.octets(),
                    ..Ipv6Header::default()
                };
                let ip = etherparse::IpHeaders::Ipv6(ip, etherparse::Ipv6Extensions::default());
                link.ip(ip)
                    .tcp_header(tcp)
                    .write(&mut frame, &segment.payload)
            }
            ends => bail!("both ends of one family, not {ends:?}"),
        };
        written.context("a frame")?;
        let ip_flaw_at = match self.client {
            SocketAddr::V4(_) => IP_AT + 10,
            SocketAddr::V6(_) => IP_AT + 4,
        };
        let wrong = [
            segment.bad_checksum.then_some(self.tcp_at() + 16),
            segment.bad_ip_header.then_some(ip_flaw_at),
        ];
        for at in wrong.into_iter().flatten() {
            if let Some(byte) = frame.get_mut(at) {
                *byte ^= 0x55;
            }
        }
        Ok(frame)
    }
}
