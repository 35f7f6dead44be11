//! The heads of frames (RFC 9113 section 4.1).

/// Bytes of a head.
pub(in crate::proxy) const HEAD: usize = 9;
/// Bytes that a frame may have behind its head, as long as nothing else is announced (section 6.5.2).
pub(super) const MOST: usize = 16_384;

pub(in crate::proxy) const DATA: u8 = 0;
pub(in crate::proxy) const HEADERS: u8 = 1;
pub(in crate::proxy) const PRIORITY: u8 = 2;
pub(in crate::proxy) const RST_STREAM: u8 = 3;
pub(in crate::proxy) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(in crate::proxy) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(in crate::proxy) const WINDOW_UPDATE: u8 = 8;
pub(in crate::proxy) const CONTINUATION: u8 = 9;
/// The first kind that nobody knows.
pub(in crate::proxy) const UNKNOWN: u8 = 10;

pub(super) const ACK: u8 = 1;
pub(in crate::proxy) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;
pub(super) const HAS_PRIORITY: u8 = 32;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct Head {
    /// Bytes that follow.
    pub(in crate::proxy) len: usize,
    pub(in crate::proxy) kind: u8,
    pub(in crate::proxy) flags: u8,
    /// 0 for the connection.
    pub(in crate::proxy) stream: u32,
}

impl Head {
    pub(super) fn parse(bytes: [u8; HEAD]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = bytes;
        let len = u32::from_be_bytes([0, a, b, c]);
        Self {
            len: usize::try_from(len).unwrap_or(usize::MAX),
            kind,
            flags,
            // One bit says nothing.
            stream: u32::from_be_bytes(stream) & (u32::MAX >> 1),
        }
    }

    /// One without payload and flags.
    pub(super) fn of(kind: u8, stream: u32) -> Self {
        Self {
            len: 0,
            kind,
            flags: 0,
            stream,
        }
    }

    /// Writes it; `len` has 24 bits.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        let [.., high, middle, low] = self.len.to_be_bytes();
        out.extend_from_slice(&[high, middle, low, self.kind, self.flags]);
        out.extend_from_slice(&self.stream.to_be_bytes());
    }

    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Writes a head, whose block may take several frames.
pub(super) fn write_head(stream: u32, block: &[u8], last: bool, out: &mut Vec<u8>) {
    let mut next = Head::of(HEADERS, stream);
    next.flags = if last { END_STREAM } else { 0 };
    let mut rest = block;
    loop {
        let (part, after) = rest.split_at(rest.len().min(MOST));
        if after.is_empty() {
            next.flags |= END_HEADERS;
        }
        next.len = part.len();
        next.write(out);
        out.extend_from_slice(part);
        if after.is_empty() {
            return;
        }
        (rest, next) = (after, Head::of(CONTINUATION, stream));
    }
}

/// Writes what ends a stream at once.
pub(super) fn write_reset(stream: u32, code: u32, out: &mut Vec<u8>) {
    let head = Head::of(RST_STREAM, stream);
    Head { len: 4, ..head }.write(out);
    out.extend_from_slice(&code.to_be_bytes());
}

/// Follows frames, however their bytes are cut.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Walk {
    /// Bytes to pass over until the next frame's head.
    skip: usize,
    head: [u8; HEAD],
    /// Bytes of `head` that have come.
    have: usize,
}

impl Walk {
    /// The next head of which the last byte is among `bytes`, which are cut to what follows it.
    pub(in crate::proxy) fn next(&mut self, bytes: &mut &[u8]) -> Option<Head> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let (passed, rest) = bytes.split_at(self.skip.min(bytes.len()));
                self.skip -= passed.len();
                *bytes = rest;
                continue;
            }
            let (next, rest) = bytes.split_at((HEAD - self.have).min(bytes.len()));
            if let Some(place) = self.head.get_mut(self.have..self.have + next.len()) {
                place.copy_from_slice(next);
            }
            self.have += next.len();
            *bytes = rest;
            if self.have == HEAD {
                let head = Head::parse(self.head);
                (self.have, self.skip) = (0, head.len);
                return Some(head);
            }
        }
        None
    }

    /// Whether a whole number of frames has passed.
    pub(super) fn is_between(&self) -> bool {
        self.skip == 0 && self.have == 0
    }
}
