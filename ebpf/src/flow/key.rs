//! What a flow and its gaps are known by.

use core::mem::offset_of;

use super::{
    super::{behind::Behind, packet::Address, sums::Sums, swar::opaque_long},
    Left, Passed,
};

/// The half of a connection that carries requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FlowKey {
    /// Who sends requests.
    pub client: Address,
    /// Who is sent them.
    pub server: Address,
    /// The client's port.
    pub client_port: u16,
    /// The protected port.
    pub server_port: u16,
    /// The way and, in bit 0, the hook that requests pass. A way is an interface, by its index, or several that are one
    /// ([`FlowKey::JOINED`]).
    pub passes: u32,
}

/// Both ports of a key, the client's first, as the half word of this number.
const PORTS_AT: usize = offset_of!(FlowKey, client_port) / size_of::<u32>();
const _: () = assert!(offset_of!(FlowKey, server_port) == PORTS_AT * size_of::<u32>() + 2);

/// Words of a key.
const WORDS: usize = size_of::<FlowKey>() / size_of::<u64>();

/// Random words by which flows find their places, as [`Sums`] takes them.
pub type PlaceKeys = [[u64; 2]; WORDS];

impl FlowKey {
    /// Sets both ports, by one store: [`FlowKey::place`] takes them by one load, which would wait for two stores until those,
    /// and all in front of them, are in the cache.
    #[inline(always)]
    pub fn set_ports(&mut self, client: u16, server: u16) {
        let ([a, b], [c, d]) = (client.to_ne_bytes(), server.to_ne_bytes());
        let ports = u32::from_ne_bytes([a, b, c, d]);
        // SAFETY: both ports, as they lie in memory, where a key is aligned to words.
        unsafe { (&raw mut *self).cast::<u32>().add(PORTS_AT).write(ports) };
    }

    /// Added to a number, that of a way of several interfaces, by any of which packets of one connection may come.
    pub const JOINED: u32 = 1 << 30;
    /// Interfaces of a larger index are ways of their own in any case.
    pub const INTERFACES: u32 = 1 << 14;

    /// The way that requests pass.
    #[must_use]
    pub fn way(&self) -> u32 {
        self.passes >> 1
    }

    /// Where the flow stands in the table of flows, under these [`PlaceKeys`]: a word, for which the table is searched in half the time.
    /// Whoever does not know them finds two flows of one place with one guess in 2^32 at best; where two have one all the same,
    /// who comes second finds no room. Odd, as no place of one that stands in is.
    #[inline(always)]
    #[must_use]
    pub fn place(&self, keys: impl Fn(usize) -> [u64; 2]) -> u64 {
        let mut sums = Sums::NONE;
        for (i, word) in self.words().into_iter().enumerate() {
            sums.take(keys(i), word);
        }
        sums.total() | 1
    }

    /// Whether it is the same key.
    #[inline(always)]
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        let (these, others) = (self.words(), other.words());
        // Without branches: each is one more way for all that follows.
        let differ = these
            .iter()
            .zip(others)
            .fold(0, |differ, (this, other)| differ | (this ^ other));
        opaque_long(differ) == 0
    }

    /// Its bits.
    #[inline(always)]
    fn words(&self) -> [u64; WORDS] {
        let ([a, b], [c, d]) = (self.client.halves(), self.server.halves());
        // SAFETY: both ports, as they lie in memory, where a key is aligned to words.
        let ports = unsafe { (&raw const *self).cast::<u32>().add(PORTS_AT).read() };
        [a, b, c, d, u64::from(ports) << 32 | u64::from(self.passes)]
    }

    /// Where the flow stands in the table that stands in on a CPU for those for which there is no room; `hook` is 0 or 1.
    #[inline(always)]
    #[must_use]
    pub fn place_of_stand_in(cpu: u32, hook: u32) -> u64 {
        u64::from(cpu << 1 | hook) << 1
    }

    /// Whether one stands in that stands there.
    #[must_use]
    pub fn stands_in(place: u64) -> bool {
        place & 1 == 0
    }
}

/// What is noted under a flow and a sequence number: a gap between what was passed, under its left end, or a segment that
/// was passed, under its start.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Gap {
    /// Sequence number of the first byte behind the gap that was passed.
    pub right: u32,
    /// How the state was left at its left end, or in front of the segment.
    pub left: Left,
    /// 1 where what is behind it can't be the rest of a header's name.
    pub plain: u32,
    /// 1 where all of it is of a body whose length was declared.
    pub in_body: u32,
    /// 1 where the head of what was passed behind it is missing in it, 2 where it lies in what was guessed to be a body; see
    /// [`Flow::is_guessed`](super::Flow::is_guessed).
    pub guessed: u32,
    /// Zero.
    pub reserved: u32,
    /// The segment. Of a gap in which a head is missing: what was said of the message at its left end.
    pub passed: Passed,
    /// What stands behind the gap.
    pub behind: Behind,
}

impl Gap {
    /// None.
    pub const NONE: Self = Self {
        right: 0,
        left: Left::Closed,
        plain: 0,
        in_body: 0,
        guessed: 0,
        reserved: 0,
        passed: Passed::NONE,
        behind: Behind::NONE,
    };

    /// Takes a copy of another.
    #[inline(always)]
    pub fn copy(&mut self, from: &Self) {
        self.right = from.right;
        self.left = from.left;
        self.plain = from.plain;
        self.in_body = from.in_body;
        self.guessed = from.guessed;
        self.passed.copy(&from.passed);
        self.behind.copy(&from.behind);
    }
}

/// The key of a [`Gap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct GapKey {
    /// The flow.
    pub flow: FlowKey,
    /// Sequence number of the first byte that is missing.
    pub at: u32,
    /// The flow's epoch: gaps of an older connection, or before a recovery, are none any more.
    pub epoch: u32,
}

#[cfg(all(test, not(feature = "sha256")))]
mod tests {
    use super::*;

    #[test]
    fn ports_that_are_set_at_once() {
        let mut key = FlowKey {
            passes: 7,
            ..FlowKey::default()
        };
        key.set_ports(0x1234, 0x5678);
        let each = FlowKey {
            client_port: 0x1234,
            server_port: 0x5678,
            ..FlowKey::default()
        };
        assert_eq!(key, FlowKey { passes: 7, ..each });
    }
}
