//! One client connection: handshake, requests, end.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    error::Error,
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    sync::Arc,
};

use http::{HeaderMap, Request, Response, Version, header};
use hyper::{body::Incoming, rt::Executor, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::TcpStream,
    sync::Notify,
    time::{Duration, sleep_until, timeout},
};

use super::{
    accept::{Seat, Worker},
    activity::Activity,
    admission::Place,
    body::{Answering, ResponseBody},
    counters::{Closed, Counter},
    fast::{self, Outcome},
    forward,
    hop::Provenance,
    inspect::{Ends, Form, Verdict},
    preamble,
    refuse::{self, Reason},
    settings::ProxySettings,
    stalls::{Stall, Stalls},
    stream::{ClientStream, Transport},
    upstream::Routes,
};

/// Bytes of a request body that a client may send ahead, on one HTTP/2 stream and on all of a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of a response that are held for one HTTP/2 stream.
const SEND_BUFFER: usize = 64 * 1024;

/// How long a new connection is left to send its first request although the worker stops.
const FIRST_REQUEST: Duration = Duration::from_millis(100);

/// A connection's other end, as a request sees it: with the settings under which the request began.
pub(super) struct Peer {
    pub(super) worker: Rc<Worker>,
    pub(super) client: Rc<Client>,
    /// The client's own upstream connections, where upstreams are told whom they are for.
    routes: Option<Routes>,
}

/// Who is at the other end of a connection, and what the connection is doing.
pub(super) struct Client {
    pub(super) activity: Arc<Activity>,
    pub(super) provenance: Provenance,
    pub(super) stalls: Stalls,
    ends: Ends,
    /// Requests so far.
    requests: Cell<u64>,
    /// Told when the connection has had its share of them.
    retire: Notify,
    /// Where the settings for the next request are.
    seat: Rc<Seat>,
}

impl Peer {
    /// The same client under the settings in force now.
    fn renew(slot: &RefCell<Rc<Self>>) -> Rc<Self> {
        let mut peer = slot.borrow_mut();
        if let Some(newer) = peer.newer() {
            *peer = newer;
        }
        Rc::clone(&peer)
    }

    /// The same client under the settings in force now; `None` where it is under those.
    pub(super) fn newer(&self) -> Option<Rc<Self>> {
        let seat = &self.client.seat;
        (!seat.holds(&self.worker))
            .then(|| Rc::new(Self::new(seat.worker(), Rc::clone(&self.client))))
    }

    fn new(worker: Rc<Worker>, client: Rc<Client>) -> Self {
        let Ends {
            source,
            destination,
        } = client.ends;
        let header = preamble::header(worker.settings.upstream_preamble, source, destination);
        Self {
            routes: header.map(|header| worker.routes.for_client(&header)),
            worker,
            client,
        }
    }

    /// Where requests go.
    pub(super) fn routes(&self) -> &Routes {
        self.routes.as_ref().unwrap_or(&self.worker.routes)
    }

    /// The port that the client has connected to.
    pub(super) fn port(&self) -> u16 {
        self.client.ends.destination.port()
    }

    /// Counts a request; true where it is the last that the connection may have.
    pub(super) fn on_request(&self) -> bool {
        self.worker.counters.add(Counter::Requests);
        let requests = self.client.requests.get() + 1;
        self.client.requests.set(requests);
        let last = Some(requests) == self.worker.settings.limits.requests_per_connection;
        if last {
            self.client.retire.notify_one();
        }
        last
    }

    /// What judges the body of a request with these fields, if anything does.
    pub(super) fn form(&self, headers: &HeaderMap) -> Option<Form> {
        let limit = self.worker.settings.limits.form_bytes;
        // Of several types some servers take the first, others the last.
        let mut kinds = headers
            .get_all(header::CONTENT_TYPE)
            .iter()
            .flat_map(|kinds| kinds.as_bytes().split(|byte| *byte == b','));
        let is_form = |kind: &[u8]| {
            let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
            kind.trim_ascii()
                .eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
        };
        (limit > 0 && kinds.any(is_form)).then(|| self.worker.inspector.form(limit))
    }

    /// Judges the next bytes of a form.
    pub(super) fn inspect_form(&self, form: &mut Form, bytes: &[u8], last: bool) -> Verdict {
        let Worker {
            inspector,
            counters,
            ..
        } = &*self.worker;
        inspector.form_bytes(counters, self.client.ends, form, bytes, last)
    }

    /// Judges fields that came after a body.
    pub(super) fn inspect_trailers(&self, trailers: &HeaderMap) -> Verdict {
        let Worker {
            inspector,
            counters,
            ..
        } = &*self.worker;
        inspector.trailers(counters, self.client.ends, trailers)
    }

    /// Judges the head of a request that was read without making a map of its fields.
    pub(super) fn inspect_plain<'f>(
        &self,
        query: Option<&str>,
        fields: impl Iterator<Item = (&'f str, &'f [u8])>,
    ) -> Verdict {
        let Worker {
            inspector,
            counters,
            ..
        } = &*self.worker;
        inspector.plain(counters, self.client.ends, query, fields)
    }

    fn inspect_head(&self, request: &Request<Incoming>) -> Verdict {
        let Worker {
            inspector,
            counters,
            ..
        } = &*self.worker;
        inspector.head(counters, self.client.ends, request.uri(), request.headers())
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
pub(super) async fn run(seat: Rc<Seat>, mut stream: TcpStream, client: SocketAddr, _place: Place) {
    let worker = seat.worker();
    let Ok(local) = stream.local_addr() else {
        // The client is gone already.
        worker.counters.close(Closed::Protocol);
        return;
    };
    if !worker.settings.serves(local) {
        worker.counters.close(Closed::NotIntercepted);
        return;
    }
    let client = match preamble(&worker, &mut stream, client).await {
        Ok(client) => client,
        Err(why) => {
            tracing::debug!(source = %client, ?why, "no PROXY protocol header");
            worker.counters.close(why);
            return;
        }
    };
    let (transport, protocol) = match handshake(&worker, stream).await {
        Ok(ready) => ready,
        Err(why) => {
            tracing::debug!(%client, ?why, "no TLS session");
            worker.counters.close(why);
            return;
        }
    };
    let (tls, trusted) = (worker.tls.is_some(), worker.settings.trusts(client.ip()));
    let other_end = Rc::new(Client {
        activity: Arc::new(Activity::new()),
        stalls: Stalls::default(),
        provenance: Provenance::new(client, tls, trusted),
        ends: Ends {
            source: canonical(client),
            destination: canonical(local),
        },
        requests: Cell::new(0),
        retire: Notify::new(),
        seat,
    });
    let peer = Rc::new(Peer::new(worker, other_end));
    if let Err(why) = serve(&peer, transport, protocol).await {
        tracing::debug!(%client, ?why, "a connection was closed");
        peer.worker.counters.close(why);
    }
}

/// An address of IPv4 as such, also where a socket for both families shows it.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Who the client is: the other end, or whom a balancer there speaks for.
async fn preamble(
    worker: &Worker,
    stream: &mut TcpStream,
    source: SocketAddr,
) -> Result<SocketAddr, Closed> {
    if !worker.settings.has_preamble(source.ip()) {
        return Ok(source);
    }
    let limit = worker.settings.timeouts.handshake;
    let told = timeout(limit, preamble::read(stream)).await;
    Ok(told
        .map_err(|_elapsed| Closed::PreambleTimeout)??
        .unwrap_or(source))
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
    let limits = &peer.worker.settings.limits;
    let client = ClientStream::new(transport, Arc::clone(&peer.client.activity), limits);
    let client = match protocol {
        Protocol::Http1 | Protocol::Detected if peer.worker.settings.has_plain_upstreams() => {
            match serve_plain(peer, client).await? {
                Outcome::Over => return Ok(()),
                Outcome::NotPlain(client) => *client,
            }
        }
        Protocol::Http1 | Protocol::Http2 | Protocol::Detected => client,
    };
    // What most connections never need takes no room in them.
    Box::pin(serve_any(peer, client, protocol)).await
}

/// Serves requests while they are plain, and until a limit is passed or the worker stops.
async fn serve_plain(peer: &Rc<Peer>, client: ClientStream) -> Result<Outcome, Closed> {
    let timeouts = &peer.worker.settings.timeouts;
    let ending = Cell::new(false);
    let mut serving = pin!(fast::serve(peer, client, &ending));
    let mut overdue = pin!(peer.client.activity.overdue(timeouts, &peer.client.stalls));
    let mut draining = pin!(draining(peer));
    loop {
        tokio::select! {
            biased;
            outcome = serving.as_mut() => return outcome,
            why = &mut overdue => {
                if why == Closed::IdleTimeout {
                    ending.set(true);
                    drop(timeout(timeouts.header, serving).await);
                }
                return Err(why);
            }
            () = &mut draining, if !ending.get() => ending.set(true),
        }
    }
}

/// Serves all kinds of requests.
async fn serve_any(
    peer: &Rc<Peer>,
    client: ClientStream,
    protocol: Protocol,
) -> Result<(), Closed> {
    let worker = &peer.worker;
    let http = http(&worker.settings, protocol);
    let limits = &worker.settings.limits;
    let stream = TokioIo::new(client);
    let newest = RefCell::new(Rc::clone(peer));
    // Boxed: it is moved several times on its way into a task of HTTP/2.
    let service = service_fn(|request| Box::pin(respond(Peer::renew(&newest), request)));
    let mut connection = pin!(http.serve_connection_with_upgrades(stream, service));
    let timeouts = &worker.settings.timeouts;
    let mut overdue = pin!(peer.client.activity.overdue(timeouts, &peer.client.stalls));
    let mut draining = pin!(draining(peer));
    let counts_requests = limits.requests_per_connection.is_some();
    let mut ending = false;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => return ended.map_err(|error| broken(peer, &*error)),
            why = &mut overdue => {
                if why != Closed::IdleTimeout {
                    return Err(why);
                }
                // A request may be on its way: the end is announced.
                connection.as_mut().graceful_shutdown();
                drop(timeout(timeouts.header, connection).await);
                return Err(why);
            }
            () = &mut draining, if !ending => {
                ending = true;
                connection.as_mut().graceful_shutdown();
            }
            () = peer.client.retire.notified(), if counts_requests && !ending => {
                ending = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Runs until the connection is to end because the worker stops. The first request of one that was just made is
/// on its way, and is waited for.
async fn draining(peer: &Peer) {
    let mut drain = peer.worker.drain.clone();
    // An error says that nobody is left to give the order.
    let _ordered = drain.wait_for(|draining| *draining).await.is_ok();
    if peer.client.requests.get() == 0 {
        sleep_until(peer.client.activity.start() + FIRST_REQUEST).await;
    }
}

/// Why a connection broke.
fn broken(peer: &Peer, error: &(dyn Error + Send + Sync + 'static)) -> Closed {
    tracing::debug!(%error, client = %peer.client.ends.source, "a connection broke");
    let too_large = |error: &hyper::Error| error.is_parse_too_large();
    match peer.client.activity.fault() {
        Some(fault) => fault,
        None if error.downcast_ref().is_some_and(too_large) => Closed::HeaderTooLarge,
        None => Closed::Protocol,
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
        .max_concurrent_streams(limits.http2_streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
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
    let answering = Answering::begin(&peer.client.activity);
    peer.on_request();
    let http2 = request.version() == Version::HTTP_2;
    let response = match judge(&peer, request).await {
        Ok(response) => response,
        Err(reason) => {
            peer.worker.counters.refuse(reason);
            refuse::response(reason, &peer.worker.settings.refusal)
        }
    };
    let stall = http2.then(|| Stall::begin(&peer));
    Ok(response.map(|body| body.answering(answering, stall)))
}

async fn judge(
    peer: &Rc<Peer>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Reason> {
    if request.headers().len() > peer.worker.settings.limits.header_fields {
        return Err(Reason::HeaderFields);
    }
    match peer.inspect_head(&request) {
        Verdict::Pass => forward::forward(peer, request).await,
        Verdict::Block => {
            if request.version() == Version::HTTP_2 {
                refuse::linger(&peer.worker, request.into_body());
            } else if !request.headers().contains_key(header::EXPECT)
                && !refuse::discard(&peer.worker.settings, request.into_body()).await
            {
                let patience = peer.worker.settings.timeouts.body;
                peer.client.activity.on_body_left(patience);
            }
            Err(Reason::ListedToken)
        }
    }
}
