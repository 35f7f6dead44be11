//! One HTTP/2 connection to an upstream, shared by many requests of one worker.
//!
//! The library's own client, without hyper's, which keeps interim responses to itself.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use h2::{Ping, PingPong, Reason as Code, client};
use http::{HeaderValue, Request, Response, Uri, Version, header, uri::PathAndQuery};
use hyper::body::Body as _;
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};

use super::Unanswered;
use crate::proxy::{
    body::RequestBody,
    http2::{Flow, Piece},
    incoming::{IncomingBody, Received},
    interim::Interim,
    settings::Timeouts,
    stream::Transport,
};

/// Bytes of a response that an upstream may send ahead, on one stream and on all of a connection.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
/// Bytes of a request body that are held for one stream.
const SEND_BUFFER: usize = 64 * 1024;
/// Bytes of a response's head, as the library counts them.
const HEAD: u32 = 64 * 1024;
/// How long an upstream may take to answer a PING.
const PONG: Duration = Duration::from_secs(20);

/// The connection's end for requests; it is driven by a task of its own.
#[derive(Clone)]
pub(super) struct Shared {
    sender: client::SendRequest<Piece>,
    /// Requests that are not over yet.
    streams: Rc<Cell<usize>>,
    made: Instant,
}

/// The place of one request; given back when dropped.
pub(super) struct Stream {
    shared: Shared,
    tls: bool,
    /// What sends its body.
    upload: Option<Upload>,
}

/// A task that sends a body; nobody wants the rest of it once this is dropped.
struct Upload(AbortHandle);

impl Shared {
    /// Speaks HTTP/2 on `stream`.
    ///
    /// # Errors
    /// Where the upstream breaks off.
    pub(super) async fn new(stream: Transport, timeouts: &Timeouts) -> io::Result<Self> {
        let (sender, mut connection) = client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(HEAD)
            .enable_push(false)
            .handshake(stream)
            .await
            .map_err(io::Error::other)?;
        let streams = Rc::<Cell<usize>>::default();
        let (pings, busy) = (connection.ping_pong(), Rc::clone(&streams));
        let interval = timeouts.upstream_idle;
        tokio::task::spawn_local(async move {
            let ended = tokio::select! {
                ended = connection => ended,
                () = silence(pings, &busy, interval) => Err(Code::NO_ERROR.into()),
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "an upstream connection broke");
            }
        });
        Ok(Self {
            sender,
            streams,
            made: Instant::now(),
        })
    }

    /// When it was made.
    pub(super) fn made(&self) -> Instant {
        self.made
    }

    /// Whether requests can still be sent.
    pub(super) fn is_open(&self) -> bool {
        let mut quiet = Context::from_waker(Waker::noop());
        !matches!(
            self.sender.clone().poll_ready(&mut quiet),
            Poll::Ready(Err(_))
        )
    }

    /// A place, if fewer than `limit` are taken, and fewer than the upstream takes.
    pub(super) fn stream(&self, limit: usize, tls: bool) -> Option<Stream> {
        let limit = limit.min(self.sender.current_max_send_streams());
        if self.streams.get() >= limit || !self.is_open() {
            return None;
        }
        self.streams.set(self.streams.get() + 1);
        Some(Stream {
            shared: self.clone(),
            tls,
            upload: None,
        })
    }
}

/// Ends when an upstream that has requests to answer does not even answer a PING.
async fn silence(pings: Option<PingPong>, streams: &Cell<usize>, interval: Duration) {
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    loop {
        sleep(interval).await;
        if streams.get() > 0 && timeout(PONG, pings.ping(Ping::opaque())).await.is_err() {
            return;
        }
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
        interim: &Interim,
    ) -> Result<Response<IncomingBody>, Unanswered> {
        let sender = &mut self.shared.sender;
        if let Err(error) = poll_fn(|cx| sender.poll_ready(cx)).await {
            return Err(Unanswered::unsent(request, error));
        }
        speak_http2(&mut request, self.tls);
        let (head, body) = request.into_parts();
        let empty = body.is_end_stream();
        let sent = sender.send_request(Request::from_parts(head, ()), empty);
        let (mut response, stream) = sent?;
        if !empty {
            self.upload = Some(Upload::begin(Flow::new(stream), body));
        }
        let response = poll_fn(|cx| {
            while let Poll::Ready(Some(Ok(said))) = response.poll_informational(cx) {
                interim.say(said.status(), said.headers());
            }
            Pin::new(&mut response).poll(cx)
        });
        let (head, stream) = response.await?.into_parts();
        let body = Received::new(stream, &head.headers);
        Ok(Response::from_parts(head, IncomingBody::Http2(body)))
    }
}

impl Upload {
    fn begin(mut flow: Flow, body: RequestBody) -> Self {
        let task = tokio::task::spawn_local(async move {
            // Whoever waits for the response learns of it.
            let _passed_or_gone = flow.pass(body).await;
        });
        Self(task.abort_handle())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.0.abort();
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
    let host = headers.remove(header::HOST);
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
