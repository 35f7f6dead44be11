//! One client connection: handshake, requests, end.

use std::{convert::Infallible, net::SocketAddr, pin::pin, rc::Rc, sync::Arc};

use http::{HeaderMap, Request, Response, Version, header};
use hyper::{body::Incoming, rt::Executor, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{net::TcpStream, time::timeout};

use super::{
    accept::Worker,
    activity::Activity,
    body::{Answering, ResponseBody},
    counters::{Closed, Counter},
    forward,
    hop::Provenance,
    inspect::{Ends, Verdict},
    refuse::{self, Reason},
    settings::ProxySettings,
    stream::{ClientStream, Transport},
};

/// Who is at the other end of a connection, and what the connection is doing.
pub(super) struct Peer {
    pub(super) worker: Rc<Worker>,
    pub(super) activity: Arc<Activity>,
    pub(super) provenance: Provenance,
    ends: Ends,
}

impl Peer {
    /// Judges fields that came after a body.
    pub(super) fn inspect_trailers(&self, trailers: &HeaderMap) -> Verdict {
        let Worker {
            inspector,
            counters,
            ..
        } = &*self.worker;
        inspector.trailers(counters, self.ends, trailers)
    }

    fn inspect_head(&self, request: &Request<Incoming>) -> Verdict {
        let Worker {
            inspector,
            counters,
            ..
        } = &*self.worker;
        inspector.head(counters, self.ends, request.uri(), request.headers())
    }
}

/// Which protocol the handshake has settled.
#[derive(Clone, Copy)]
enum Protocol {
    Http1,
    Http2,
    /// Whichever the first bytes speak.
    Detected,
}

/// Serves one connection to its end.
pub(super) async fn run(worker: Rc<Worker>, stream: TcpStream, client: SocketAddr) {
    let Ok(local) = stream.local_addr().and_then(|local| {
        stream.set_nodelay(true)?;
        Ok(local)
    }) else {
        // The client is gone already.
        worker.counters.close(Closed::Protocol);
        return;
    };
    let (transport, protocol) = match handshake(&worker, stream).await {
        Ok(ready) => ready,
        Err(why) => {
            tracing::debug!(%client, ?why, "no TLS session");
            worker.counters.close(why);
            return;
        }
    };
    let peer = Rc::new(Peer {
        activity: Arc::new(Activity::new()),
        provenance: Provenance::new(client, worker.tls.is_some()),
        ends: Ends {
            source: client,
            destination: local,
        },
        worker,
    });
    if let Err(why) = serve(&peer, transport, protocol).await {
        peer.worker.counters.close(why);
    }
}

async fn handshake(worker: &Worker, stream: TcpStream) -> Result<(Transport, Protocol), Closed> {
    let Some(tls) = &worker.tls else {
        return Ok((Transport::Plain(stream), Protocol::Detected));
    };
    let limit = worker.settings.timeouts.handshake;
    let stream = timeout(limit, tls.acceptor().accept(stream))
        .await
        .map_err(|_elapsed| Closed::HandshakeTimeout)?
        .map_err(|error| {
            tracing::debug!(%error, "a TLS handshake failed");
            Closed::Handshake
        })?;
    let transport = Transport::Tls(Box::new(stream.into()));
    let protocol = match transport.alpn() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    };
    Ok((transport, protocol))
}

/// Serves requests until the client has no more, a limit is passed, or the worker stops.
async fn serve(peer: &Rc<Peer>, transport: Transport, protocol: Protocol) -> Result<(), Closed> {
    let worker = &peer.worker;
    let http = http(&worker.settings, protocol);
    let stream = TokioIo::new(ClientStream::new(transport, Arc::clone(&peer.activity)));
    let service = service_fn(|request| respond(Rc::clone(peer), request));
    let mut connection = pin!(http.serve_connection_with_upgrades(stream, service));
    let mut overdue = pin!(peer.activity.overdue(&worker.settings.timeouts));
    let mut drain = worker.drain.clone();
    let mut draining = false;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                return ended.map_err(|error| {
                    tracing::debug!(%error, client = %peer.ends.source, "a connection broke");
                    Closed::Protocol
                });
            }
            why = &mut overdue => return Err(why),
            _ = drain.wait_for(|draining| *draining), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// How HTTP is spoken with clients.
fn http(settings: &ProxySettings, protocol: Protocol) -> auto::Builder<OnThisThread> {
    let limits = &settings.limits;
    let mut http = auto::Builder::new(OnThisThread);
    http = match protocol {
        Protocol::Http1 => http.http1_only(),
        Protocol::Http2 => http.http2_only(),
        Protocol::Detected => http,
    };
    http.http1()
        .max_buf_size(limits.header_bytes.max(8192))
        .max_headers(limits.header_fields)
        // `Activity` holds the connection to its limits.
        .header_read_timeout(None);
    http.http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX));
    http
}

/// Runs the futures of HTTP/2 streams where their connection runs.
#[derive(Clone, Copy)]
pub(super) struct OnThisThread;

impl<F: Future + 'static> Executor<F> for OnThisThread {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// Answers one request.
async fn respond(
    peer: Rc<Peer>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let answering = Answering::begin(&peer.activity);
    peer.worker.counters.add(Counter::Requests);
    let response = match judge(&peer, request).await {
        Ok(response) => response,
        Err(reason) => {
            peer.worker.counters.refuse(reason);
            refuse::response(reason)
        }
    };
    Ok(response.map(|body| body.answering(answering)))
}

async fn judge(
    peer: &Rc<Peer>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Reason> {
    match peer.inspect_head(&request) {
        Verdict::Pass => forward::forward(peer, request).await,
        Verdict::Block => {
            let waits = request.headers().contains_key(header::EXPECT);
            if request.version() != Version::HTTP_2 && !waits {
                let limit = peer.worker.settings.limits.discard_bytes;
                refuse::discard(request.into_body(), limit).await;
            }
            Err(Reason::ListedToken)
        }
    }
}
