//! The answer on one stream.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason as Code, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Response, header, response};
use hyper::body::Body;

use super::piece::Piece;
use crate::proxy::{
    body::{BodyError, ResponseBody},
    date,
};

/// Where the answer to one request goes. Dropped before its end, it resets the stream.
pub(super) struct Reply(SendResponse<Piece>);

/// Where a body goes: that of an answer to a client, or that of a request to an upstream.
pub(in crate::proxy) struct Flow(SendStream<Piece>);

/// The stream is over: the client has reset it, or the connection broke.
#[derive(Debug)]
pub(in crate::proxy) struct Gone;

impl Reply {
    /// The answer on this stream.
    pub(super) fn new(respond: SendResponse<Piece>) -> Self {
        Self(respond)
    }

    /// Ready when the client wants no answer any more.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_reset(cx).map(drop)
    }

    /// Says something in between (1xx); whoever is gone hears nothing.
    pub(super) fn interim(&mut self, head: Response<()>) {
        if let Err(error) = self.0.send_informational(head) {
            tracing::debug!(%error, "no interim response on a stream");
        }
    }

    /// Sends a head; `last` says that no body follows.
    pub(super) fn head(&mut self, head: Response<()>, last: bool) -> Result<Flow, Gone> {
        self.0.send_response(head, last).map(Flow).map_err(|error| {
            tracing::debug!(%error, "no response on a stream");
            self.0.send_reset(Code::INTERNAL_ERROR);
            Gone
        })
    }

    /// Sends our own words, or, to `HEAD`, what they would be (RFC 9110 section 9.3.2); gives them back where the client
    /// doesn't take all of them now.
    pub(super) fn own(
        &mut self,
        response: Response<Bytes>,
        is_head: bool,
    ) -> Result<Option<(Flow, Bytes)>, Gone> {
        let (head, words) = own(response);
        let is_all = is_head || words.is_empty();
        let mut flow = self.head(Response::from_parts(head, ()), is_all)?;
        if is_all {
            return Ok(None);
        }
        flow.0.reserve_capacity(words.len());
        if flow.0.capacity() < words.len() {
            return Ok(Some((flow, words)));
        }
        flow.put(Piece::Bytes(words), true)?;
        Ok(None)
    }

    /// Sends a response, as its body comes; to `HEAD`, without one.
    pub(super) async fn pass(
        &mut self,
        response: Response<ResponseBody>,
        is_head: bool,
    ) -> Result<(), Gone> {
        let (mut head, body) = response.into_parts();
        let is_empty = body.is_end_stream();
        let length = body.size_hint().exact().filter(|_| !is_empty);
        let is_all = is_head || is_empty;
        complete(&mut head.headers, length);
        let mut flow = self.head(Response::from_parts(head, ()), is_all)?;
        if !is_all {
            flow.pass(body).await?;
        }
        Ok(())
    }
}

impl Flow {
    /// The rest of a stream whose head is sent.
    pub(in crate::proxy) fn new(stream: SendStream<Piece>) -> Self {
        Self(stream)
    }

    /// Sends the next piece; there must be room, or nothing in it.
    pub(super) fn put(&mut self, piece: Piece, last: bool) -> Result<(), Gone> {
        self.0.send_data(piece, last).map_err(|_over| Gone)
    }

    /// Whether the other end takes some bytes now.
    pub(super) fn has_room(&mut self) -> bool {
        // No more than that: what is asked for is kept from other streams.
        self.0.reserve_capacity(1);
        self.0.capacity() > 0
    }

    /// Ready when the other end takes some bytes.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        while !self.has_room() {
            match ready!(self.0.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(Gone)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when the other end wants no more.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_reset(cx).map(drop)
    }

    /// The response breaks off.
    pub(super) fn break_off(&mut self) -> Gone {
        self.0.send_reset(Code::INTERNAL_ERROR);
        Gone
    }

    /// Sends a body, as it comes.
    pub(in crate::proxy) async fn pass(
        &mut self,
        mut body: impl Body<Data = Bytes, Error = BodyError> + Unpin,
    ) -> Result<(), Gone> {
        loop {
            let frame = std::future::poll_fn(|cx| {
                if self.poll_gone(cx).is_ready() {
                    return Poll::Ready(Err(Gone));
                }
                Pin::new(&mut body).poll_frame(cx).map(Ok)
            });
            let Some(frame) = frame.await? else {
                return self.put(Piece::Bytes(Bytes::new()), true);
            };
            let frame = frame.map_err(|error| {
                tracing::debug!(%error, "a body broke off");
                self.0.send_reset(code(&error));
                Gone
            })?;
            let data = match frame.into_data() {
                Ok(data) => data,
                Err(frame) => {
                    let Ok(trailers) = frame.into_trailers() else {
                        continue;
                    };
                    self.0.reserve_capacity(0);
                    return self.0.send_trailers(trailers).map_err(|_over| Gone);
                }
            };
            let last = body.is_end_stream();
            if !data.is_empty() {
                std::future::poll_fn(|cx| self.poll_room(cx)).await?;
            }
            self.put(Piece::Bytes(data), last)?;
            if last {
                return Ok(());
            }
        }
    }
}

/// Head and body of our own words, as they are sent.
pub(super) fn own(response: Response<Bytes>) -> (response::Parts, Bytes) {
    let (mut head, words) = response.into_parts();
    complete(&mut head.headers, Some(words.len() as u64));
    (head, words)
}

/// Adds what every head has: the time, and the length of what follows where it is known.
fn complete(headers: &mut HeaderMap, length: Option<u64>) {
    headers.entry(header::DATE).or_insert_with(date::value);
    if let Some(length) = length {
        headers
            .entry(header::CONTENT_LENGTH)
            .or_insert_with(|| HeaderValue::from(length));
    }
}

/// What the sender of a body has said of why it breaks off, where it speaks HTTP/2.
fn code(error: &BodyError) -> Code {
    match error {
        BodyError::Stream(error) => error.reason().unwrap_or(Code::INTERNAL_ERROR),
        BodyError::Broken(_) | BodyError::ListedToken | BodyError::TooSlow => Code::INTERNAL_ERROR,
    }
}
