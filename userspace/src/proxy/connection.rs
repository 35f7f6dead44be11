//! One client connection: handshake, requests, end.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    error::Error,
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use http::{HeaderMap, Request, Response, Uri, Version, header};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
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
    http2,
    incoming::IncomingBody,
    inspect::{Ends, Form, Scene, Verdict},
    interim::{Interim, Outbox},
    preamble,
    refuse::{self, Reason},
    seldom::{Seldom, once_more},
    stalls::Stalls,
    stream::{ClientStream, Transport},
    upstream::Routes,
};

/// The smallest limit that the library knows for the bytes of a head.
const LEAST_HEAD: usize = 8192;
/// The type of a form's body.
const FORM: &[u8] = b"application/x-www-form-urlencoded";

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
    /// Where the settings for the next request are.
    seat: Rc<Seat>,
}

impl Peer {
    /// The same client under the settings in force now.
    pub(super) fn renew(slot: &RefCell<Rc<Self>>) -> Rc<Self> {
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
        // Other settings may allow fewer than there were.
        let limit = self.worker.settings.limits.requests_per_connection;
        limit.is_some_and(|limit| requests >= limit)
    }

    /// What judges the body of a request with these fields, if anything does.
    pub(super) fn form(&self, headers: &HeaderMap) -> Option<Form> {
        let limit = self.worker.settings.limits.form_bytes;
        // Of several types some servers take the first, others the last; some take for a form what has no type, or one
        // that only begins so.
        let mut kinds = headers
            .get_all(header::CONTENT_TYPE)
            .iter()
            .flat_map(|kinds| kinds.as_bytes().split(|byte| *byte == b','));
        let is_form = |kind: &[u8]| {
            let kind = kind.trim_ascii().get(..FORM.len());
            kind.is_some_and(|kind| kind.eq_ignore_ascii_case(FORM))
        };
        let may_be_form = kinds.any(is_form) || !headers.contains_key(header::CONTENT_TYPE);
        (limit > 0 && may_be_form).then(|| self.worker.inspector.form(limit))
    }

    fn scene(&self) -> Scene<'_> {
        Scene {
            counters: &self.worker.counters,
            hits: &self.worker.hits,
            ends: self.client.ends,
        }
    }

    /// Judges the next bytes of a form.
    pub(super) fn inspect_form(&self, form: &mut Form, bytes: &[u8], last: bool) -> Verdict {
        let inspector = &self.worker.inspector;
        inspector.form_bytes(self.scene(), form, bytes, last)
    }

    /// Judges fields that came after a body.
    pub(super) fn inspect_trailers(&self, trailers: &HeaderMap) -> Verdict {
        let inspector = &self.worker.inspector;
        inspector.trailers(self.scene(), trailers)
    }

    /// Judges the head of a request that was read without making a map of its fields.
    pub(super) fn inspect_plain<'f>(
        &self,
        query: Option<&str>,
        fields: impl Iterator<Item = (&'f str, &'f [u8])>,
    ) -> Verdict {
        let inspector = &self.worker.inspector;
        inspector.plain(self.scene(), query, fields)
    }

    /// Judges the head of a request.
    ///
    /// # Errors
    /// Why it is refused.
    pub(super) fn judge(
        &self,
        version: Version,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), Reason> {
        self.within_limits(version, uri, headers)?;
        let inspector = &self.worker.inspector;
        match inspector.head(self.scene(), uri, headers) {
            Verdict::Pass => Ok(()),
            Verdict::Block => Err(Reason::ListedToken),
        }
    }

    /// Sees that a head is no larger than allowed.
    ///
    /// # Errors
    /// Why the request is refused.
    pub(super) fn within_limits(
        &self,
        version: Version,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), Reason> {
        let limits = &self.worker.settings.limits;
        let is_too_large = if version == Version::HTTP_2 {
            // As RFC 9113 section 6.5.2 counts.
            size(uri, headers, 32) > limits.header_bytes
        } else {
            limits.header_bytes < LEAST_HEAD && size(uri, headers, 4) > limits.header_bytes
        };
        if is_too_large {
            return Err(Reason::HeaderBytes);
        }
        if headers.len() > limits.header_fields {
            return Err(Reason::HeaderFields);
        }
        Ok(())
    }
}

/// The bytes of a head, as good as: without its method, its version, and blanks; with so many `more` a field.
fn size(uri: &Uri, headers: &HeaderMap, more: usize) -> usize {
    let fields = headers.iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + more);
    let target = uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    target + fields.sum::<usize>()
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
            let ending = Cell::new(false);
            let serving = pin!(fast::serve(peer, client, &ending));
            match until_over(peer, &ending, serving).await? {
                Outcome::Over => return Ok(()),
                Outcome::NotPlain(client) => *client,
            }
        }
        Protocol::Http1 | Protocol::Http2 | Protocol::Detected => client,
    };
    // What most connections never need takes no room in them.
    match protocol {
        Protocol::Http1 => Box::pin(serve_http1(peer, client)).await,
        Protocol::Http2 => Box::pin(serve_http2(peer, client)).await,
        Protocol::Detected => match Box::pin(detect(peer, client)).await? {
            (client, true) => Box::pin(serve_http2(peer, client)).await,
            (client, false) => Box::pin(serve_http1(peer, client)).await,
        },
    }
}

/// Runs what serves a connection, until a limit is passed or the worker stops; no further request is to be taken
/// once `ending` is set.
async fn until_over<T>(
    peer: &Peer,
    ending: &Cell<bool>,
    mut serving: Pin<&mut impl Future<Output = Result<T, Closed>>>,
) -> Result<T, Closed> {
    let timeouts = &peer.worker.settings.timeouts;
    let waiting = pin!(async {
        tokio::select! {
            why = peer.client.activity.overdue(timeouts, &peer.client.stalls) => why,
            never = draining(peer, ending) => match never {},
        }
    });
    tokio::select! {
        biased;
        outcome = serving.as_mut() => outcome,
        why = Seldom::new(waiting) => {
            if why == Closed::IdleTimeout {
                // A request may be on its way: the end is announced.
                ending.set(true);
                drop(timeout(timeouts.header, serving).await);
            }
            Err(why)
        }
    }
}

/// Reads as far as it takes to know which version the client speaks; true for HTTP/2.
async fn detect(peer: &Peer, mut client: ClientStream) -> Result<(ClientStream, bool), Closed> {
    let ending = Cell::new(false);
    let detecting = async {
        let http2 = client.speaks_http2().await;
        http2.map_err(|error| broken(peer, &error))
    };
    let http2 = until_over(peer, &ending, pin!(detecting)).await?;
    Ok((client, http2))
}

/// Serves requests of HTTP/2.
async fn serve_http2(peer: &Rc<Peer>, client: ClientStream) -> Result<(), Closed> {
    let ending = Cell::new(false);
    let serving = async {
        let served = http2::serve(peer, client, &ending).await;
        served.map_err(|error| broken(peer, &*error))
    };
    until_over(peer, &ending, pin!(serving)).await
}

/// Serves all kinds of requests of HTTP/1.
async fn serve_http1(peer: &Rc<Peer>, mut client: ClientStream) -> Result<(), Closed> {
    let worker = &peer.worker;
    let limits = &worker.settings.limits;
    let outbox = Arc::<Outbox>::default();
    client.set_outbox(Arc::clone(&outbox));
    let newest = RefCell::new(Rc::clone(peer));
    let ending = Cell::new(false);
    let service = service_fn(|request| {
        let peer = Peer::renew(&newest);
        if peer.on_request() {
            ending.set(true);
        }
        respond(peer, request, Arc::clone(&outbox))
    });
    let mut http = http1::Builder::new();
    http.max_buf_size(limits.header_bytes.max(LEAST_HEAD))
        .max_headers(limits.header_fields)
        // `Activity` holds the connection to its limits.
        .header_read_timeout(None);
    let connection = http.serve_connection(TokioIo::new(client), service);
    let mut connection = pin!(connection.with_upgrades());
    let mut is_told = false;
    let serving = std::future::poll_fn(|cx| {
        loop {
            if ending.get() && !is_told {
                is_told = true;
                connection.as_mut().graceful_shutdown();
            }
            let ended = connection.as_mut().poll(cx);
            // The last request may have come just now.
            if ended.is_ready() || is_told || !ending.get() {
                return ended.map_err(|error| broken(peer, &error));
            }
        }
    });
    until_over(peer, &ending, pin!(serving)).await
}

/// Sets `ending` once the connection is to end because the worker stops. The first request of one that was just made is
/// on its way, and is waited for.
async fn draining(peer: &Peer, ending: &Cell<bool>) -> Infallible {
    {
        let mut drain = peer.worker.drain.clone();
        // An error says that nobody is left to give the order.
        let _ordered = drain.wait_for(|draining| *draining).await.is_ok();
    }
    if peer.client.requests.get() == 0 {
        sleep_until(peer.client.activity.start() + FIRST_REQUEST).await;
    }
    ending.set(true);
    // What serves is to see it.
    once_more().await;
    std::future::pending().await
}

/// Why a connection broke.
fn broken(peer: &Peer, error: &(dyn Error + 'static)) -> Closed {
    tracing::debug!(%error, client = %peer.client.ends.source, "a connection broke");
    let too_large = |error: &hyper::Error| error.is_parse_too_large();
    let excess = |error: &h2::Error| {
        error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)
    };
    match peer.client.activity.fault() {
        Some(fault) => fault,
        None if error.downcast_ref().is_some_and(excess) => Closed::Http2Excess,
        None if error.downcast_ref().is_some_and(too_large) => Closed::HeaderTooLarge,
        None => Closed::Protocol,
    }
}

/// Answers one request of HTTP/1.
async fn respond(
    peer: Rc<Peer>,
    request: Request<Incoming>,
    outbox: Arc<Outbox>,
) -> Result<Response<ResponseBody>, Infallible> {
    let answering = Answering::begin(&peer.client.activity);
    // Who speaks HTTP/1.0 knows nothing of interim responses.
    let outbox = (request.version() == Version::HTTP_11).then_some(outbox);
    let interim = Interim::default();
    let mut judging = pin!(judge(&peer, request.map(IncomingBody::Http1), &interim));
    let response = std::future::poll_fn(|cx| {
        let response = judging.as_mut().poll(cx);
        while let Poll::Ready(said) = interim.poll(cx) {
            if let Some(outbox) = &outbox {
                outbox.put(&said);
            }
        }
        response
    });
    let response = response.await;
    if let Some(outbox) = &outbox {
        std::future::poll_fn(|cx| outbox.poll_empty(cx)).await;
    }
    let response = match response {
        Ok(response) => response,
        Err(reason) => {
            peer.worker.counters.refuse(reason);
            let own = refuse::response(reason, &peer.worker.settings.refusal);
            own.map(ResponseBody::from)
        }
    };
    Ok(response.map(|body| body.answering(answering, None)))
}

async fn judge(
    peer: &Rc<Peer>,
    request: Request<IncomingBody>,
    interim: &Interim,
) -> Result<Response<ResponseBody>, Reason> {
    let settings = &peer.worker.settings;
    if !request.body().is_end_stream() {
        // Whoever refuses it leaves its body where it is.
        peer.client.activity.on_body_left(settings.timeouts.body);
    }
    let judged = peer.judge(request.version(), request.uri(), request.headers());
    if judged == Err(Reason::ListedToken) && !request.headers().contains_key(header::EXPECT) {
        if refuse::discard(settings, request.into_body()).await {
            peer.client.activity.on_body_done();
        }
        return Err(Reason::ListedToken);
    }
    judged?;
    forward::forward(peer, request, interim).await
}
