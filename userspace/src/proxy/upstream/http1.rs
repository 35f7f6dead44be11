//! One HTTP/1.1 connection to an upstream.
//!
//! It has no task of its own: whoever has leased it drives it, first the request that waits for its response,
//! then the response's body. So an upstream's bytes wake the client connection's task directly.

use std::{
    io,
    pin::pin,
    task::{Context, Poll, Waker},
};

use http::{Request, Response};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::Unanswered;
use crate::proxy::{
    body::RequestBody, incoming::IncomingBody, interim::Interim, stream::Transport,
};

/// The connection with its end for requests.
pub(super) struct Link {
    sender: http1::SendRequest<RequestBody>,
    connection: http1::Connection<TokioIo<Transport>, RequestBody>,
    /// Whether `connection` has come to its end; it must not be polled any more.
    ended: bool,
}

/// A bare connection, and what was read beyond the last response.
pub(in crate::proxy) type Parts = http1::Parts<TokioIo<Transport>>;

impl Link {
    /// Speaks HTTP/1.1 on `stream`.
    ///
    /// # Errors
    /// None in practice: nothing is sent yet.
    pub(super) async fn new(stream: Transport) -> io::Result<Self> {
        let (sender, connection) = http1::Builder::new()
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        Ok(Self {
            sender,
            connection,
            ended: false,
        })
    }

    /// Lets the connection read and write what it can.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if !self.ended {
            // An error reaches whoever waits for the response or its body.
            self.ended = self.connection.poll_without_shutdown(cx).is_ready();
        }
    }

    /// Lets an unused connection find out whether it was closed, without waking anyone later.
    pub(super) fn look(&mut self) {
        self.drive(&mut Context::from_waker(Waker::noop()));
    }

    /// Whether the connection has come to its end.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether a request can be sent.
    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready() && !self.ended
    }

    /// Sends a request; gives the response as soon as its head has come.
    ///
    /// # Errors
    /// Where no response came; with the request, if nothing of it was sent.
    pub(super) async fn send(
        &mut self,
        mut request: Request<RequestBody>,
        interim: &Interim,
    ) -> Result<Response<IncomingBody>, Unanswered> {
        let interim = interim.clone();
        hyper::ext::on_informational(&mut request, move |said| {
            interim.say(said.status(), said.headers());
        });
        let mut reply = pin!(self.sender.try_send_request(request));
        let response = std::future::poll_fn(|cx| {
            self.drive(cx);
            // The reply comes out of the call above or not at all: nobody needs to be woken for it.
            reply.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        });
        Ok(response.await?.map(IncomingBody::Http1))
    }

    /// The bare connection of one that nobody uses; `None` where something was read that nobody asked for.
    pub(super) fn into_unused(self) -> Option<Transport> {
        let parts = self.connection.into_parts();
        parts.read_buf.is_empty().then(|| parts.io.into_inner())
    }

    /// The bare connection, after a response that changed its protocol.
    pub(super) async fn into_parts(mut self) -> Parts {
        std::future::poll_fn(|cx| {
            self.drive(cx);
            if self.ended {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        self.connection.into_parts()
    }
}
