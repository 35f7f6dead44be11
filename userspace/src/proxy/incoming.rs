//! The body of a message as its sender sends it, over either version of HTTP.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, header};
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::body::BodyError;

/// What a client sends behind the head of a request, or an upstream behind that of a response.
pub(super) enum IncomingBody {
    /// Over HTTP/1.
    Http1(Incoming),
    /// On a stream of HTTP/2.
    Http2(Received),
}

/// What comes on a stream of HTTP/2.
pub(super) struct Received {
    stream: RecvStream,
    /// Bytes that are still to come, where the sender has said so; the library holds it to that.
    left: Option<u64>,
    /// Whether nothing but trailers can come.
    data_done: bool,
}

impl Received {
    /// What follows a head with these fields.
    pub(super) fn new(stream: RecvStream, headers: &HeaderMap) -> Self {
        let left = if stream.is_end_stream() {
            Some(0)
        } else {
            said_length(headers)
        };
        Self {
            stream,
            left,
            data_done: false,
        }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_done {
            match ready!(self.stream.poll_data(cx)).transpose()? {
                Some(data) => {
                    // Taken: the sender may send as much again. It fails for a stream that is over.
                    let _given = self.stream.flow_control().release_capacity(data.len());
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                None => self.data_done = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }
}

/// What the sender says of how long its body is.
fn said_length(headers: &HeaderMap) -> Option<u64> {
    let said = headers.get(header::CONTENT_LENGTH)?;
    said.to_str().ok()?.parse().ok()
}

impl Body for IncomingBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Http1(incoming) => Pin::new(incoming).poll_frame(cx).map_err(BodyError::from),
            Self::Http2(received) => received.poll_frame(cx).map_err(BodyError::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(incoming) => incoming.is_end_stream(),
            Self::Http2(received) => received.stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(incoming) => incoming.size_hint(),
            Self::Http2(received) => received
                .left
                .map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}
