//! What the kernel tier reports of a listed token, as it stands in the ring buffer.

use crate::{
    location::LocationId,
    packet::{Address, Segment},
};

/// One listed token in one packet. Addresses are IPv6, IPv4 ones mapped (RFC 4291 section 2.5.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// The location at which the token stood.
    pub location: LocationId,
    /// 1: the packet was dropped; 0: it passed.
    pub blocked: u8,
    /// 1: the source is banned from now on, and no location or token is named; 0: a token was seen.
    pub banned: u8,
    /// The first bytes of the `TokenId`.
    pub token: [u8; 6],
    /// Zero.
    pub padding: [u8; 2],
    /// Index of the interface.
    pub interface: u32,
    /// TCP sequence number of the first byte of the packet's payload.
    pub sequence: u32,
}

impl Event {
    /// Bytes of an event in the ring buffer.
    pub const SIZE: usize = size_of::<Self>();

    /// An event of this segment, with what is known of the packet filled in.
    #[inline(always)]
    #[must_use]
    pub fn of(segment: &Segment) -> Self {
        Self {
            source: segment.source,
            destination: segment.destination,
            source_port: segment.source_port,
            destination_port: segment.destination_port,
            location: 0,
            blocked: 0,
            banned: 0,
            token: [0; 6],
            padding: [0; 2],
            interface: 0,
            sequence: segment.sequence,
        }
    }

    /// Reads an event back from the bytes of a ring buffer record; `None` where the size is another.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::SIZE] = bytes.try_into().ok()?;
        // SAFETY: `repr(C)`, integers only, so any bytes are an event; the read may be unaligned.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }
}

const _: () = assert!(Event::SIZE == 56);
