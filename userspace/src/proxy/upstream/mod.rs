//! Connections to the upstream, kept for the next request of the same worker.

mod check;
mod connect;
mod health;
mod http1;
mod http2;
mod route;

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    sync::Arc,
    task::Context,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::client::conn::TrySendError;
use tokio::time::{Instant, timeout};

use self::{
    check::Condition,
    health::{Health, State},
    http1::Link,
    route::ServerSeed,
};
pub(super) use self::{
    check::run as check,
    route::{Group, RouteSeeds, Routes},
};
use super::{
    body::RequestBody,
    counters::{Counter, Counters},
    incoming::IncomingBody,
    interim::Interim,
    refuse::Reason,
    settings::{ProxySettings, Upstream, UpstreamHttp},
    stream::Transport,
    tls::UpstreamTls,
};

/// An upstream's connections that one worker keeps.
pub(super) struct Pool {
    upstream: Upstream,
    standing: Rc<Standing>,
    /// What its checks say, where it is checked.
    condition: Arc<Condition>,
    /// What is sent before anything else: whom the connections are for.
    preamble: Option<Bytes>,
    settings: Arc<ProxySettings>,
    tls: Option<UpstreamTls>,
    counters: Arc<Counters>,
    /// HTTP/1.1 connections that nobody uses. The one used last is on top, so that those not needed grow old.
    idle: RefCell<Vec<Idle<Box<Link>>>>,
    /// The same, of bare connections.
    bare: RefCell<Vec<Idle<Transport>>>,
    /// HTTP/2 connections.
    shared: RefCell<Vec<http2::Shared>>,
    /// Whether other settings have taken its place: nothing is kept any more.
    retired: Cell<bool>,
    /// Held while an HTTP/2 connection is made, so that a crowd of requests makes one.
    connecting: tokio::sync::Mutex<()>,
}

/// What a worker knows of an upstream, over whichever connections.
#[derive(Default)]
struct Standing {
    health: Health,
    /// Requests that are not over yet.
    active: Cell<usize>,
}

struct Idle<T> {
    link: T,
    since: Instant,
    made: Instant,
}

/// Where a connection that was leased comes from.
#[derive(Clone, Copy)]
struct Origin {
    made: Instant,
    /// Whether it served a request before, so that the upstream may have closed it by now.
    reused: bool,
}

/// An HTTP/1.1 connection without a library, that belongs to one request until it is given back. Dropped before,
/// it is closed.
pub(super) struct Bare {
    stream: Transport,
    share: Share,
    origin: Origin,
}

/// A connection, or a place on one, that belongs to one request until it is given back. Dropped before, it is
/// closed.
pub(super) struct Lease {
    connection: Connection,
    share: Share,
    origin: Origin,
}

/// A request that got no response.
pub(super) struct Unanswered {
    /// The request, where none of it was sent.
    pub(super) unsent: Option<Request<RequestBody>>,
    pub(super) error: NoResponse,
}

/// Why a request got no response.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoResponse {
    /// Over HTTP/1.1.
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    /// On a stream of HTTP/2.
    #[error(transparent)]
    Http2(#[from] h2::Error),
}

/// One request's share of an upstream's work.
struct Share(Rc<Pool>);

enum Connection {
    Http1(Box<Link>),
    Http2(http2::Stream),
}

impl Pool {
    /// A pool without connections.
    fn new(server: &ServerSeed, settings: Arc<ProxySettings>, counters: Arc<Counters>) -> Rc<Self> {
        Rc::new(Self {
            upstream: server.upstream.clone(),
            standing: Rc::default(),
            condition: Arc::clone(&server.condition),
            preamble: None,
            settings,
            tls: server.tls.clone(),
            counters,
            idle: RefCell::default(),
            bare: RefCell::default(),
            shared: RefCell::default(),
            retired: Cell::new(false),
            connecting: tokio::sync::Mutex::default(),
        })
    }

    /// A pool of connections to the same upstream that are all for one client, as `preamble` says.
    fn for_client(&self, preamble: Bytes) -> Rc<Self> {
        Rc::new(Self {
            upstream: self.upstream.clone(),
            standing: Rc::clone(&self.standing),
            condition: Arc::clone(&self.condition),
            preamble: Some(preamble),
            settings: Arc::clone(&self.settings),
            tls: self.tls.clone(),
            counters: Arc::clone(&self.counters),
            idle: RefCell::default(),
            bare: RefCell::default(),
            shared: RefCell::default(),
            retired: Cell::new(false),
            connecting: tokio::sync::Mutex::default(),
        })
    }

    /// A connection that was kept, or a new one. An upgrade takes one of HTTP/1.1, where there can be one.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn lease(self: &Rc<Self>, upgrade: bool) -> Result<Lease, Reason> {
        if let Some((link, made)) = self.take_idle() {
            return Ok(self.leased(Connection::Http1(link), Origin::kept(made)));
        }
        if let Some((stream, made)) = self.take_idle_bare()
            && let Ok(link) = Link::new(stream).await
        {
            return Ok(self.leased(Connection::Http1(Box::new(link)), Origin::kept(made)));
        }
        if self.settings.upstream_http == UpstreamHttp::Http1 || upgrade {
            return self.connect(upgrade).await;
        }
        if let Some(stream) = self.take_stream() {
            return Ok(self.leased(Connection::Http2(stream), Origin::kept(Instant::now())));
        }
        let _alone = self.connecting.lock().await;
        // Whoever was before us may have made one.
        if let Some(stream) = self.take_stream() {
            return Ok(self.leased(Connection::Http2(stream), Origin::kept(Instant::now())));
        }
        self.connect(upgrade).await
    }

    /// A new connection.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn connect(self: &Rc<Self>, upgrade: bool) -> Result<Lease, Reason> {
        let connection = self.in_time(self.open(upgrade)).await?;
        Ok(self.leased(connection, Origin::new()))
    }

    async fn in_time<T>(&self, opening: impl Future<Output = io::Result<T>>) -> Result<T, Reason> {
        let upstream = &self.upstream;
        let limit = self.settings.timeouts.upstream_connect;
        match timeout(limit, opening).await {
            Ok(Ok(connection)) => {
                self.counters.add(Counter::UpstreamConnects);
                Ok(connection)
            }
            Ok(Err(error)) => {
                tracing::warn!(%upstream, %error, "can't connect to the upstream");
                Err(Reason::UpstreamConnect)
            }
            Err(_elapsed) => {
                tracing::warn!(%upstream, ?limit, "the upstream takes no connection in time");
                Err(Reason::UpstreamConnectTimeout)
            }
        }
    }

    /// A connection that was kept, bare.
    pub(super) fn take_bare(self: &Rc<Self>) -> Option<Bare> {
        let of_library = || {
            let (link, made) = self.take_idle()?;
            Some((link.into_unused()?, made))
        };
        let (stream, made) = self.take_idle_bare().or_else(of_library)?;
        Some(self.bared(stream, Origin::kept(made)))
    }

    fn take_idle_bare(&self) -> Option<(Transport, Instant)> {
        let mut bare = self.bare.borrow_mut();
        while let Some(Idle {
            mut link,
            since,
            made,
        }) = bare.pop()
        {
            if since.elapsed() > self.settings.timeouts.upstream_idle {
                // All below it are older.
                bare.clear();
                return None;
            }
            if link.is_quiet() {
                return Some((link, made));
            }
        }
        None
    }

    /// A new bare connection.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn connect_bare(self: &Rc<Self>) -> Result<Bare, Reason> {
        let stream = self.in_time(self.stream(true)).await?;
        Ok(self.bared(stream, Origin::new()))
    }

    fn bared(self: &Rc<Self>, stream: Transport, origin: Origin) -> Bare {
        self.standing.begin();
        Bare {
            stream,
            share: Share(Rc::clone(self)),
            origin,
        }
    }

    async fn stream(&self, http1_only: bool) -> io::Result<Transport> {
        let way = connect::Way {
            upstream: &self.upstream,
            tls: self.tls.as_ref(),
            own: self.settings.own.as_deref(),
            preamble: self.preamble.as_deref(),
        };
        connect::connect(way, http1_only).await
    }

    async fn open(&self, upgrade: bool) -> io::Result<Connection> {
        let (settings, tls) = (&self.settings, self.tls.as_ref());
        let http1_only = upgrade && settings.upstream_http != UpstreamHttp::Http2;
        let stream = self.stream(http1_only).await?;
        let http2 = match settings.upstream_http {
            UpstreamHttp::Http1 => false,
            UpstreamHttp::Http2 => true,
            UpstreamHttp::Negotiated => stream.alpn() == Some(b"h2"),
        };
        if !http2 {
            return Ok(Connection::Http1(Box::new(Link::new(stream).await?)));
        }
        let shared = http2::Shared::new(stream, &settings.timeouts).await?;
        let first = shared.stream(usize::MAX, tls.is_some());
        self.shared.borrow_mut().push(shared);
        first
            .map(Connection::Http2)
            .ok_or_else(|| io::Error::new(io::ErrorKind::ConnectionReset, "it was closed at once"))
    }

    fn leased(self: &Rc<Self>, connection: Connection, origin: Origin) -> Lease {
        self.standing.begin();
        Lease {
            connection,
            share: Share(Rc::clone(self)),
            origin,
        }
    }

    /// Who it is.
    pub(super) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Requests that are not over yet.
    fn active(&self) -> usize {
        self.standing.active.get()
    }

    /// Whether to ask it now.
    fn state(&self) -> State {
        if self.condition.is_down() {
            return State::Down;
        }
        self.standing.health.state()
    }

    fn on_probe(&self) {
        self.standing.health.on_probe(&self.settings.health);
    }

    /// The upstream has answered.
    pub(super) fn on_success(&self) {
        if self.standing.health.on_success() {
            tracing::info!(upstream = %self.upstream, "an upstream is back");
        }
    }

    /// The upstream has not answered.
    pub(super) fn on_failure(&self) {
        if self.standing.health.on_failure(&self.settings.health) {
            self.counters.add(Counter::UpstreamsEjected);
            tracing::warn!(upstream = %self.upstream, "an upstream is left out for a while");
        }
    }

    /// The upstream has broken off in mid-response.
    fn on_broken(&self) {
        self.counters.add(Counter::ResponsesBroken);
        tracing::warn!(upstream = %self.upstream, "a response broke off");
    }

    /// Takes the connection used last; those that were closed meanwhile, or are too old, go.
    fn take_idle(&self) -> Option<(Box<Link>, Instant)> {
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle {
            mut link,
            since,
            made,
        }) = idle.pop()
        {
            if since.elapsed() > self.settings.timeouts.upstream_idle {
                // All below it are older.
                idle.clear();
                return None;
            }
            link.look();
            if link.is_ready() {
                return Some((link, made));
            }
        }
        None
    }

    /// Takes a place on the first HTTP/2 connection that has one.
    fn take_stream(&self) -> Option<http2::Stream> {
        let mut shared = self.shared.borrow_mut();
        // Requests on one that is too old come to their end there.
        shared.retain(|one| one.is_open() && self.is_young(one.made()));
        let limit = self.settings.limits.upstream_streams;
        let tls = self.tls.is_some();
        shared.iter().find_map(|one| one.stream(limit, tls))
    }

    fn keep(&self, link: Box<Link>, made: Instant) {
        let mut idle = self.idle.borrow_mut();
        if self.keeps(idle.len(), made) {
            let since = Instant::now();
            idle.push(Idle { link, since, made });
        }
    }

    /// Whether a connection that was made then is kept beside so many others.
    fn keeps(&self, others: usize, made: Instant) -> bool {
        !self.retired.get() && others < self.settings.limits.upstream_idle && self.is_young(made)
    }

    /// Whether a connection that was made then is to be used again. In time all are made anew, so that an upstream whose
    /// name has moved is followed.
    fn is_young(&self, made: Instant) -> bool {
        made.elapsed() < self.settings.timeouts.upstream_age
    }

    /// Closes what nobody uses, and keeps nothing from now on.
    pub(super) fn retire(&self) {
        self.retired.set(true);
        self.idle.borrow_mut().clear();
        self.bare.borrow_mut().clear();
        self.shared.borrow_mut().clear();
    }

    /// Closes kept connections that the upstream has closed or that are too old; never returns.
    pub(super) async fn sweep(&self) {
        let limit = self.settings.timeouts.upstream_idle;
        let mut pause = tokio::time::interval((limit / 4).max(Duration::from_millis(100)));
        loop {
            pause.tick().await;
            self.idle.borrow_mut().retain_mut(|kept| {
                kept.link.look();
                !kept.link.has_ended() && kept.since.elapsed() <= limit
            });
            self.bare
                .borrow_mut()
                .retain_mut(|kept| kept.link.is_quiet() && kept.since.elapsed() <= limit);
            self.shared.borrow_mut().retain(http2::Shared::is_open);
        }
    }
}

impl Origin {
    /// It was made just now.
    fn new() -> Self {
        Self {
            made: Instant::now(),
            reused: false,
        }
    }

    /// It was made then.
    fn kept(made: Instant) -> Self {
        Self { made, reused: true }
    }
}

impl NoResponse {
    /// Whether the body of the request is why: its client broke it off.
    pub(super) fn is_of_the_body(&self) -> bool {
        match self {
            Self::Http1(error) => error.is_user(),
            Self::Http2(error) => error.is_reset() && !error.is_remote() && !error.is_library(),
        }
    }

    /// Whether the upstream has said what can't be understood.
    pub(super) fn is_nonsense(&self) -> bool {
        match self {
            Self::Http1(error) => error.is_parse(),
            Self::Http2(error) => error.is_library() && !error.is_io(),
        }
    }
}

impl Unanswered {
    /// The connection broke before the request was sent.
    fn unsent(request: Request<RequestBody>, error: h2::Error) -> Self {
        Self {
            unsent: Some(request),
            error: error.into(),
        }
    }
}

impl From<TrySendError<Request<RequestBody>>> for Unanswered {
    fn from(mut error: TrySendError<Request<RequestBody>>) -> Self {
        Self {
            unsent: error.take_message(),
            error: error.into_error().into(),
        }
    }
}

impl From<h2::Error> for Unanswered {
    fn from(error: h2::Error) -> Self {
        Self {
            unsent: None,
            error: error.into(),
        }
    }
}

impl Standing {
    fn begin(&self) {
        self.active.set(self.active.get() + 1);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let active = &self.0.standing.active;
        active.set(active.get().saturating_sub(1));
    }
}

impl Bare {
    /// Whether the connection served a request before.
    pub(super) fn is_reused(&self) -> bool {
        self.origin.reused
    }

    /// How many other requests the upstream has not answered in full.
    pub(super) fn others(&self) -> usize {
        self.share.0.active().saturating_sub(1)
    }

    /// The connection itself.
    pub(super) fn stream(&mut self) -> &mut Transport {
        &mut self.stream
    }

    /// The response broke off.
    pub(super) fn on_broken(&self) {
        self.share.0.on_broken();
    }

    /// Keeps the connection for the next request.
    pub(super) fn give_back(self) {
        let pool = &self.share.0;
        let mut bare = pool.bare.borrow_mut();
        let made = self.origin.made;
        if pool.keeps(bare.len(), made) {
            bare.push(Idle {
                link: self.stream,
                since: Instant::now(),
                made,
            });
        }
    }
}

impl Lease {
    /// Whether the connection served a request before.
    pub(super) fn is_reused(&self) -> bool {
        self.origin.reused
    }

    /// Sends a request; gives the response as soon as its head has come, and passes what is said before to `interim`.
    ///
    /// # Errors
    /// Where no response came; with the request, if nothing of it was sent.
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
        interim: &Interim,
    ) -> Result<Response<IncomingBody>, Unanswered> {
        match &mut self.connection {
            Connection::Http1(link) => link.send(request, interim).await,
            Connection::Http2(stream) => stream.send(request, interim).await,
        }
    }

    /// Lets a connection that has no task of its own read and write what it can; false where it has one.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        match &mut self.connection {
            Connection::Http1(link) => {
                link.drive(cx);
                true
            }
            Connection::Http2(_) => false,
        }
    }

    /// The response broke off.
    pub(super) fn on_broken(&self) {
        self.share.0.on_broken();
    }

    /// Keeps the connection for the next request. One whose upstream has answered before it had all of the request is
    /// closed: nobody would go on sending (RFC 9112 section 9.6).
    pub(super) fn give_back(self) {
        if let Connection::Http1(mut link) = self.connection {
            link.look();
            if link.is_ready() {
                self.share.0.keep(link, self.origin.made);
            }
        }
    }

    /// The bare connection, after a response that changed its protocol; HTTP/2 has no such responses.
    pub(super) async fn into_parts(self) -> Option<http1::Parts> {
        match self.connection {
            Connection::Http1(link) => Some(link.into_parts().await),
            Connection::Http2(_) => None,
        }
    }
}
