//! How a response's body comes to its end, and what of the bytes that come belongs to it.

use std::io::Write as _;

use super::chunks::{Chunks, Malformed};

/// The end of a body in chunks, without trailers.
pub(super) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// How a body comes to its end.
#[derive(Clone, Debug)]
pub(in crate::proxy) enum Framing {
    /// After so many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked(Chunks),
    /// With the connection.
    UntilClose,
}

impl Framing {
    /// How many of `bytes` belong to this response, where the client gets them as they are.
    pub(in crate::proxy) fn take_as_it_is(&mut self, bytes: &[u8]) -> Option<usize> {
        let Self::Length(left) = self else {
            return None;
        };
        let len = piece(*left, bytes);
        *left -= len as u64;
        Some(len)
    }

    /// Writes what a client of HTTP/1.1 gets of `bytes`; says how many of them belong to this response.
    pub(super) fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, Malformed> {
        let in_chunks = !matches!(self, Self::Length(_));
        let taken = self.take_data(bytes, |data| {
            if in_chunks {
                write_chunk(out, data);
            } else {
                out.extend_from_slice(data);
            }
        })?;
        if in_chunks && self.is_done() {
            out.extend_from_slice(LAST_CHUNK);
        }
        Ok(taken)
    }

    /// Hands on the data in `bytes`, piece by piece; says how many of them belong to this response.
    pub(in crate::proxy) fn take_data(
        &mut self,
        bytes: &[u8],
        mut put: impl FnMut(&[u8]),
    ) -> Result<usize, Malformed> {
        match self {
            Self::Length(left) => {
                let len = piece(*left, bytes);
                *left -= len as u64;
                put(bytes.get(..len).unwrap_or_default());
                Ok(len)
            }
            Self::UntilClose => {
                put(bytes);
                Ok(bytes.len())
            }
            Self::Chunked(chunks) => {
                let mut from = 0;
                loop {
                    let (data, next) = chunks.next(bytes, from)?;
                    from = next;
                    let Some(data) = data else { break };
                    put(bytes.get(data).unwrap_or_default());
                }
                Ok(from)
            }
        }
    }

    /// Whether the body has come to its end.
    pub(in crate::proxy) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.is_done(),
            Self::UntilClose => false,
        }
    }
}

/// How many of these bytes belong to a body of which so many are left.
fn piece(left: u64, bytes: &[u8]) -> usize {
    usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()))
}

fn write_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if !data.is_empty() {
        // Writing to memory doesn't fail.
        let _written = write!(out, "{:x}\r\n", data.len()).is_ok();
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    }
}
