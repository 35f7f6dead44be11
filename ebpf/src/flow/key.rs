//! What a flow and its gaps are known by.

use super::{
    super::{behind::Behind, packet::Address},
    Left, Passed,
};

/// The half of a connection that carries requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// The index of the interface and, in bit 0, the hook that requests pass.
    pub passes: u32,
}

impl FlowKey {
    /// The index of the interface that requests pass.
    #[must_use]
    pub fn interface(&self) -> u32 {
        self.passes >> 1
    }

    /// The key of the flow that stands in on a CPU for those for which there is no room; `hook` is 0 or 1.
    #[inline(always)]
    #[must_use]
    pub fn stand_in(cpu: u32, hook: u32) -> Self {
        Self {
            client: Address::UNSPECIFIED,
            server: Address::UNSPECIFIED,
            client_port: 0,
            server_port: 0,
            passes: cpu << 1 | hook,
        }
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
    /// Zero.
    pub reserved: u32,
    /// The segment.
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
