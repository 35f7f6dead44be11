//! Bytes of a response on their way into HTTP/2: as they were read, and not copied.

use bytes::{Buf, Bytes};

use crate::proxy::fast::Buffer;

/// A piece of a body.
pub(in crate::proxy) enum Piece {
    /// Of the library that speaks with the upstream, or our own words.
    Bytes(Bytes),
    /// Of a buffer of the worker, which gets it back when the piece is written.
    Pooled(Pooled),
}

/// Some bytes of a buffer.
pub(in crate::proxy) struct Pooled {
    buffer: Buffer,
    from: usize,
    to: usize,
}

impl Default for Piece {
    /// Nothing.
    fn default() -> Self {
        Self::Bytes(Bytes::new())
    }
}

impl Piece {
    /// All of `buffer`.
    pub(super) fn whole(buffer: Buffer) -> Self {
        let to = buffer.len();
        Self::of(buffer, 0, to)
    }

    /// The bytes of `buffer` between the two places.
    pub(super) fn of(buffer: Buffer, from: usize, to: usize) -> Self {
        let to = to.min(buffer.len());
        Self::Pooled(Pooled {
            from: from.min(to),
            to,
            buffer,
        })
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Pooled(pooled) => pooled.to - pooled.from,
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Pooled(Pooled { buffer, from, to }) => buffer.get(*from..*to).unwrap_or_default(),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Bytes(bytes) => bytes.advance(count),
            Self::Pooled(Pooled { from, to, .. }) => *from = (*from + count).min(*to),
        }
    }
}
