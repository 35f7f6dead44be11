//! One HTTP/2 connection to an upstream, shared by many requests of one worker.

use std::{cell::Cell, io, rc::Rc};

use http::{HeaderValue, Request, Response, Uri, Version, header, uri::PathAndQuery};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http2},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use crate::proxy::{
    body::RequestBody, connection::OnThisThread, settings::Timeouts, stream::Transport,
};

/// The connection's end for requests; it is driven by a task of its own.
#[derive(Clone)]
pub(super) struct Shared {
    sender: http2::SendRequest<RequestBody>,
    /// Requests that are not over yet.
    streams: Rc<Cell<usize>>,
    made: Instant,
}

/// The place of one request; given back when dropped.
pub(super) struct Stream {
    shared: Shared,
    tls: bool,
}

impl Shared {
    /// Speaks HTTP/2 on `stream`.
    ///
    /// # Errors
    /// Where the upstream breaks off.
    pub(super) async fn new(stream: Transport, timeouts: &Timeouts) -> io::Result<Self> {
        let (sender, connection) = http2::Builder::new(OnThisThread)
            .timer(TokioTimer::new())
            .adaptive_window(true)
            .keep_alive_interval(timeouts.upstream_idle)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an upstream connection broke");
            }
        });
        Ok(Self {
            sender,
            streams: Rc::default(),
            made: Instant::now(),
        })
    }

    /// When it was made.
    pub(super) fn made(&self) -> Instant {
        self.made
    }

    /// Whether requests can still be sent.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// A place, if fewer than `limit` are taken.
    pub(super) fn stream(&self, limit: usize, tls: bool) -> Option<Stream> {
        if self.streams.get() >= limit || !self.sender.is_ready() {
            return None;
        }
        self.streams.set(self.streams.get() + 1);
        Some(Stream {
            shared: self.clone(),
            tls,
        })
    }
}

impl Stream {
    /// Sends a request; gives the response as soon as its head has come.
    ///
    /// # Errors
    /// Where no response came; with the request, if nothing of it was sent.
    pub(super) async fn send(
        &mut self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        speak_http2(&mut request, self.tls);
        self.shared.sender.try_send_request(request).await
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let streams = &self.shared.streams;
        streams.set(streams.get().saturating_sub(1));
    }
}

/// Makes a request that was readied for HTTP/1.1 one of HTTP/2 (RFC 9113 section 8.3.1).
fn speak_http2(request: &mut Request<RequestBody>, tls: bool) {
    let headers = request.headers_mut();
    for name in [
        header::CONNECTION,
        header::UPGRADE,
        header::TRANSFER_ENCODING,
    ] {
        headers.remove(name);
    }
    // Interim responses don't reach us here; the flow control of HTTP/2 holds a body back well enough.
    headers.remove(header::EXPECT);
    let host = headers.remove(header::HOST);
    request.body_mut().release();
    *request.version_mut() = Version::HTTP_2;
    if let Some(uri) = host.and_then(|host| absolute(&host, request.uri(), tls)) {
        *request.uri_mut() = uri;
    }
}

fn absolute(host: &HeaderValue, uri: &Uri, tls: bool) -> Option<Uri> {
    let path = uri.path_and_query().cloned();
    Uri::builder()
        .scheme(if tls { "https" } else { "http" })
        .authority(host.as_bytes())
        .path_and_query(path.unwrap_or(PathAndQuery::from_static("/")))
        .build()
        .ok()
}
