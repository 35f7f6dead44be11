//! What the kernel tier decides of a packet, why, and how it is counted.

use crate::ban::BanRule;

/// Every way in which a packet can leave the programs, each with a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Counter {
    /// Not IPv4 or IPv6.
    NotIp = 0,
    /// IP, but neither TCP nor a known encapsulation.
    NotTcp,
    /// TCP from or to a port that is not protected.
    OtherPort,
    /// TCP without payload.
    NoPayload,
    /// A header that the host itself would refuse (length fields that contradict each other).
    Malformed,
    /// The first IP fragment of a segment to a protected port: without it the host puts nothing together.
    Fragment,
    /// More VLAN tags, IP options or extension headers than the parser reads.
    HeadersTooLong,
    /// IP in IP, GRE or the like: the inner packet is judged where it is unpacked.
    Encapsulated,
    /// Payload was scanned and bears no listed token.
    Clean,
    /// Payload bytes that were judged: scanned, or known again ([`Counter::Repeated`]).
    ScannedBytes,
    /// Candidates that were looked up; those of a block that is known again are not.
    Candidates,
    /// A listed token was found and its packet dropped.
    Blocked,
    /// A listed token was found and its packet passed (alert entry or monitor).
    Alerted,
    /// The scan did not come to the end of the payload; the packet is dropped.
    ScanUnfinished,
    /// The packet could not be read; it is dropped.
    ReadFailed,
    /// An event could not be reported: the ring buffer is full.
    EventLost,
    /// A segment of a flow of which a request was blocked; it is dropped.
    BlockedAgain,
    /// Blocked requests that were answered by RST.
    Reset,
    /// Blocked requests that were answered by 403.
    Forbidden,
    /// Blocked requests that could not be answered; their packets are dropped.
    AnswerFailed,
    /// Frames of a blocked flow that were dropped by XDP.
    XdpBlocked,
    /// Sources that were banned.
    Bans,
    /// Packets of a banned source; they are dropped.
    Banned,
    /// Frames of a banned source that were dropped by XDP.
    XdpBanned,
    /// A packet of a server, read for what it acknowledges.
    Answer,
    /// A retransmission of what the receiver has: passed unread.
    Settled,
    /// The first segment that was seen of a flow whose beginning was not: passed if it bears no listed token.
    MidStream,
    /// A segment ahead of a gap inside a body, passed.
    Ahead,
    /// A segment ahead of a gap while a header block may be open; it is dropped, and comes again.
    TooEarly,
    /// A second copy of bytes that are not acknowledged; it is dropped.
    Duplicate,
    /// A segment outside any window, or of a connection that is over; it is dropped.
    OutOfWindow,
    /// A segment of a flow that another CPU judges at this moment; it is dropped, and comes again.
    FlowBusy,
    /// No room for another flow; what does not end between two lines is dropped.
    FlowTableFull,
    /// A segment that ends inside a candidate which goes on in what was passed before; the flow is reset.
    GapConflict,
    /// Segments that were marked urgent; the mark is taken off.
    Urgent,
    /// A later IP fragment, of whatever port.
    LaterFragment,
    /// A connection goes over to HTTP/2, whose header fields are compressed; lines are still looked for.
    Http2,
    /// A segment inside a declared body that the server is known to read as one: passed unread.
    Trusted,
    /// A header block says in two ways where its message ends.
    AmbiguousFraming,
    /// A segment with an older timestamp than the receiver has taken, which it would refuse; it is dropped.
    OldTimestamp,
    /// Header blocks that were judged clean before in their flow, and not read again.
    Repeated,
    /// Segments with an option of Multipath TCP; it is made one of no meaning.
    Multipath,
    /// A packet to a protected port that goes on to another address than the one it names: to which connection it belongs is
    /// not read.
    SourceRouted,
    /// A packet inside one with an IPv6 routing header, which the host unpacks on the same interface.
    RoutedTunnel,
    /// A second copy, on its way out, of bytes that were judged: passed unread.
    Copied,
}

/// The names of all [`Counter`]s, in order.
pub const COUNTERS: [&str; 45] = [
    "not_ip",
    "not_tcp",
    "other_port",
    "no_payload",
    "malformed",
    "fragment",
    "headers_too_long",
    "encapsulated",
    "clean",
    "scanned_bytes",
    "candidates",
    "blocked",
    "alerted",
    "scan_unfinished",
    "read_failed",
    "event_lost",
    "blocked_again",
    "reset",
    "forbidden",
    "answer_failed",
    "xdp_blocked",
    "bans",
    "banned",
    "xdp_banned",
    "answer",
    "settled",
    "mid_stream",
    "ahead",
    "too_early",
    "duplicate",
    "out_of_window",
    "flow_busy",
    "flow_table_full",
    "gap_conflict",
    "urgent",
    "later_fragment",
    "http2",
    "trusted",
    "ambiguous_framing",
    "old_timestamp",
    "repeated",
    "multipath",
    "source_routed",
    "routed_tunnel",
    "copied",
];

const _: () = assert!(COUNTERS.len() == Counter::Copied as usize + 1);

impl Counter {
    /// Its name in logs and settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        COUNTERS.get(self as usize).copied().unwrap_or("unknown")
    }

    /// Whether the segment's ports may not have been read.
    #[inline(always)]
    #[must_use]
    pub const fn is_unread(self) -> bool {
        matches!(
            self,
            Self::Malformed
                | Self::Fragment
                | Self::LaterFragment
                | Self::SourceRouted
                | Self::RoutedTunnel
                | Self::HeadersTooLong
                | Self::Encapsulated
        )
    }
}

/// What becomes of a packet that leaves the programs for some reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Policy {
    /// It goes on.
    Pass = 0,
    /// It is dropped.
    Drop = 1,
    /// It is dropped, and both ends get RST.
    Reset = 2,
}

/// The policy of each [`Counter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Policies([u8; POLICIES]);

/// A power of two, so that an index is kept inside by a mask.
const POLICIES: usize = 64;
const _: () = assert!(COUNTERS.len() <= POLICIES);

impl Default for Policies {
    /// What could carry a listed token past the programs is dropped where hardly any other traffic looks like it; what
    /// keeps a stream exact is dropped because it comes again.
    fn default() -> Self {
        let mut policies = Self([Policy::Pass as u8; POLICIES]);
        for reason in [
            Counter::Malformed,
            Counter::Fragment,
            Counter::SourceRouted,
            Counter::RoutedTunnel,
            Counter::HeadersTooLong,
            Counter::ScanUnfinished,
            Counter::ReadFailed,
            Counter::Banned,
            Counter::TooEarly,
            Counter::Duplicate,
            Counter::OutOfWindow,
            Counter::OldTimestamp,
            Counter::FlowBusy,
            Counter::FlowTableFull,
        ] {
            policies.set(reason, Policy::Drop);
        }
        for reason in [Counter::GapConflict, Counter::AmbiguousFraming] {
            policies.set(reason, Policy::Reset);
        }
        policies
    }
}

impl Policies {
    /// What becomes of packets that leave for `reason`.
    pub fn set(&mut self, reason: Counter, policy: Policy) {
        self.0[reason as usize & (POLICIES - 1)] = policy as u8;
    }

    /// What becomes of a packet that leaves for `reason`.
    #[inline(always)]
    #[must_use]
    pub fn of(&self, reason: Counter) -> Policy {
        match self.0[reason as usize & (POLICIES - 1)] {
            0 => Policy::Pass,
            2 => Policy::Reset,
            _ => Policy::Drop,
        }
    }
}

/// The action of a denylist entry, as the map holds it.
pub const ACTION_BLOCK: u8 = 0;
/// See [`ACTION_BLOCK`]: the request passes and is reported.
pub const ACTION_ALERT: u8 = 1;

/// What the denylist map holds under a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct MapEntry {
    /// The first bytes of the `TokenId`.
    pub token: [u8; 6],
    /// [`ACTION_BLOCK`] or [`ACTION_ALERT`].
    pub action: u8,
    /// [`LISTED`].
    pub listed: u8,
}

/// Sets an entry apart from nothing.
pub const LISTED: u8 = 1;

impl MapEntry {
    /// As one word, as it lies in memory; never 0.
    #[must_use]
    pub fn to_word(self) -> u64 {
        let mut bytes = [0; 8];
        bytes[..6].copy_from_slice(&self.token);
        bytes[6] = self.action;
        bytes[7] = self.listed;
        u64::from_ne_bytes(bytes)
    }

    /// The entry of this word; `None` for 0.
    #[inline(always)]
    #[must_use]
    pub fn of_word(word: u64) -> Option<Self> {
        if word == 0 {
            return None;
        }
        let bytes = word.to_ne_bytes();
        let mut token = [0; 6];
        token.copy_from_slice(&bytes[..6]);
        Some(Self {
            token,
            action: bytes[6],
            listed: bytes[7],
        })
    }
}

/// What is done when a request is blocked; its packet is dropped in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum OnHit {
    /// No more.
    Drop = 0,
    /// Both ends get RST.
    Reset = 1,
    /// The client gets a 403 and the end of its connection, the server RST.
    Forbid = 2,
}

impl OnHit {
    /// The one of this number; what has none drops.
    #[inline(always)]
    #[must_use]
    pub fn of(number: u32) -> Self {
        match number {
            1 => Self::Reset,
            2 => Self::Forbid,
            _ => Self::Drop,
        }
    }
}

/// Settings of the programs that are no rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// 1: report and pass.
    pub monitor: u32,
    /// Number of blocks of the filter less one; 0 where there is none.
    pub filter_mask: u32,
    /// An [`OnHit`].
    pub on_hit: u32,
    /// Bit 0: requests are judged where they come in; bit 1: where they go out.
    pub judged: u32,
    /// Bytes of a declared body that a server must take without a word before the rest is passed unread; 0: never, at
    /// most [`LATEST_TRUST`].
    pub trust_after: u32,
    /// Most flows on record of which no server has said anything.
    pub newcomers: u32,
    /// When a source is banned.
    pub ban: BanRule,
    /// What becomes of packets that are not judged, or not passed for another reason than a listed token.
    pub policies: Policies,
}

/// Most bytes of [`Settings::trust_after`]: sequence numbers are compared.
pub const LATEST_TRUST: u32 = 1 << 30;

/// Bit of [`Settings::judged`]: requests that come in.
pub const JUDGE_INGRESS: u32 = 1;
/// Bit of [`Settings::judged`]: requests that go out.
pub const JUDGE_EGRESS: u32 = 2;

/// The protected ports, a bit each.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct PortSet {
    words: [u64; 1024],
}

impl PortSet {
    /// No port.
    pub const EMPTY: Self = Self { words: [0; 1024] };
    /// Every port.
    pub const ALL: Self = Self {
        words: [u64::MAX; 1024],
    };

    /// Adds a port.
    pub fn insert(&mut self, port: u16) {
        self.words[usize::from(port) >> 6] |= 1 << (port & 63);
    }

    /// Whether the port is protected.
    #[inline(always)]
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.words[port as usize >> 6 & 1023] >> (port & 63) & 1 != 0
    }
}

#[cfg(feature = "user")]
mod user {
    // SAFETY: `repr(C)`, integers only, no padding.
    unsafe impl aya::Pod for super::MapEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::table::Bucket {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::sums::SumKeys {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Settings {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::PortSet {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::digest::TokenDigest {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::flow::FlowKey {}
    // SAFETY: written by this very code on both sides, so every enum in it is one of its own.
    unsafe impl aya::Pod for crate::flow::Flow {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::sha256::flow::Flow {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::sha256::flow::FlowKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::sha256::digest::TokenDigest {}
}
