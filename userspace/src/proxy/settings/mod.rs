//! The proxy's settings, already checked.

mod route;
mod upstream;

use std::{
    fmt, io,
    net::{AddrParseError, IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use clap::ValueEnum;
use http::{HeaderValue, StatusCode, uri::PathAndQuery};
use ipnet::IpNet;

pub(super) use self::upstream::Host;
pub use self::{
    route::{Route, RouteError},
    upstream::{Upstream, UpstreamError},
};

/// How the proxy listens and forwards.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// Where clients connect to.
    pub listen: Listen,
    /// Share the address with a predecessor that is about to stop. Whoever connects in the moment in which the
    /// predecessor closes its socket is reset, unless `net.ipv4.tcp_migrate_req` is 1; a socket that is passed on
    /// ([`super::Proxy::with_listener`]) loses nobody.
    /// Default: false, which makes a second process on the same address an error.
    pub takeover: bool,
    /// Sources (load balancers) whose connections start with a PROXY protocol header, and must. Default: none.
    pub proxy_protocol_from: Vec<IpNet>,
    /// Proxies in front whose `X-Forwarded-*` and `Forwarded` fields are kept and added to; those of others are
    /// replaced. Default: none.
    pub trusted_proxies: Vec<IpNet>,
    /// Certificate and key; without them the proxy listens in cleartext.
    pub tls: Option<TlsFiles>,
    /// Further certificates, for clients that ask for one of their names; `tls` is the default.
    pub more_certificates: Vec<TlsFiles>,
    /// The oldest version that clients can agree on. Default: TLS 1.2.
    pub tls_min_version: TlsVersion,
    /// Authorities, in PEM form, of which clients must show a certificate. Default: none is asked for.
    pub client_ca: Option<PathBuf>,
    /// Where requests go.
    pub upstream: Upstream,
    /// Further servers that can stand in for it. Default: none.
    pub more_upstreams: Vec<Upstream>,
    /// Requests that go elsewhere. Default: none.
    pub routes: Vec<Route>,
    /// Requests that came to these ports and that no route is for: who takes them in place of `upstream`. Default: none.
    pub by_port: Vec<(u16, Upstream)>,
    /// How one of several servers is chosen. Default: least connections.
    pub balance: Balance,
    /// When a server among several is left out.
    pub health: HealthSettings,
    /// How servers are asked whether they are well. Default: they aren't.
    pub check: Option<CheckSettings>,
    /// Which HTTP is spoken there. Default: HTTP/1.1.
    pub upstream_http: UpstreamHttp,
    /// How an `https` upstream is reached.
    pub upstream_tls: UpstreamTlsSettings,
    /// What upstreams are told of whom a connection is for. A connection is then for one client alone. Default: nothing.
    pub upstream_preamble: Preamble,
    /// Where connections to a service are intercepted: who must know of the proxy's own. Default: nowhere.
    pub own: Option<Arc<dyn OwnConnections>>,
    /// Threads, each with its own listener, event loop and upstream connections. Default: one a core.
    pub workers: NonZeroUsize,
    /// Report listed tokens, and let them pass. Default: false.
    pub monitor: bool,
    /// The answer to a request that bears a listed token.
    pub refusal: Refusal,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How large and how many things may be.
    pub limits: Limits,
}

/// Who must know of the connections that the proxy itself makes, so that they are not handed to it again.
pub trait OwnConnections: fmt::Debug + Send + Sync {
    /// Whether those to this destination are intercepted.
    fn are_to(&self, destination: SocketAddr) -> bool;

    /// One is made from this end on to such a destination.
    ///
    /// # Errors
    /// Where that can't be noted, and the connection must not be made.
    fn begin(&self, source: SocketAddr, destination: SocketAddr) -> io::Result<()>;

    /// It is made, or could not be.
    fn end(&self, source: SocketAddr, destination: SocketAddr);
}

/// Where clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// An address; port 0 takes a free one.
    Address(SocketAddr),
    /// The socket that a service manager has passed (`LISTEN_FDS`).
    Passed,
    /// A free port; who connects to it, and does not come by interception, is turned away.
    Intercepted,
}

/// A certificate chain and its key, both in PEM form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, leaf first.
    pub cert: PathBuf,
    /// The leaf's key (PKCS #8, PKCS #1 or SEC 1).
    pub key: PathBuf,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TlsVersion {
    /// RFC 5246
    #[default]
    #[value(name = "1.2")]
    Tls12,
    /// RFC 8446
    #[value(name = "1.3")]
    Tls13,
}

/// Which HTTP is spoken with an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum UpstreamHttp {
    /// HTTP/1.1
    #[default]
    #[value(name = "1.1")]
    Http1,
    /// HTTP/2, over cleartext with prior knowledge
    #[value(name = "2")]
    Http2,
    /// What an `https` upstream picks in the handshake; HTTP/1.1 over cleartext
    #[value(name = "auto")]
    Negotiated,
}

/// The PROXY protocol, as it is spoken to upstreams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Preamble {
    /// Not at all
    #[default]
    Off,
    /// Version 1: a line of text
    V1,
    /// Version 2: binary
    V2,
}

/// The answer to a request that bears a listed token.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Default: 403.
    pub status: StatusCode,
    /// Default: `application/json`.
    pub content_type: HeaderValue,
    /// Default: `{"error":"listed_token"}`.
    pub body: Bytes,
}

/// How one of several servers is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Balance {
    /// The one with the fewest requests of this worker
    #[default]
    LeastConnections,
    /// One after the other
    RoundRobin,
}

/// When a server among several is left out, as far as a worker's own requests tell.
#[derive(Clone, Debug)]
pub struct HealthSettings {
    /// Failures in a row (no connection, no response, a broken one) that eject a server. Default: 3.
    pub failures: u32,
    /// How long it is ejected, until one request may try it. Default: 10 s.
    pub eject: Duration,
}

/// How servers are asked whether they are well. One that says no, or nothing, gets no requests, though it be the only one.
#[derive(Clone, Debug)]
pub struct CheckSettings {
    /// What is asked for; any answer of 2xx or 3xx is a yes.
    pub path: PathAndQuery,
    /// The host that is asked for. Default: the server's own name.
    pub host: Option<String>,
    /// From one check to the next. Default: 5 s.
    pub interval: Duration,
    /// For the whole of a check: connection, handshake, head of the answer. Default: 2 s.
    pub timeout: Duration,
    /// Checks in a row that it must fail to be left out; the very first is enough. Default: 3.
    pub failures: u32,
    /// Checks in a row that it must pass to be back. Default: 2.
    pub passes: u32,
}

/// How an `https` upstream is reached.
#[derive(Clone, Debug, Default)]
pub struct UpstreamTlsSettings {
    /// Authorities, in PEM form, that its certificate must come from. Default: the system's.
    pub ca: Option<PathBuf>,
    /// The name that it is asked for and that its certificate must be for. Default: the URL's host.
    pub server_name: Option<String>,
    /// The certificate and key to show to it. Default: none.
    pub client: Option<TlsFiles>,
}

/// The settings of handshakes with clients.
#[derive(Clone, Debug)]
pub(super) struct ServerTlsSettings {
    pub(super) default: TlsFiles,
    pub(super) more: Vec<TlsFiles>,
    pub(super) min_version: TlsVersion,
    pub(super) client_ca: Option<PathBuf>,
    /// Whether HTTP/2 is offered besides HTTP/1.1.
    pub(super) http2: bool,
}

/// How long things may take; each ends the connection or the request with a named reason.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// A TLS handshake with a client. Default: 10 s.
    pub handshake: Duration,
    /// A request head, from its first byte (the first one: from the connection's start). Default: 15 s.
    pub header: Duration,
    /// A pause in a request body. Default: 30 s.
    pub body: Duration,
    /// A client that reads nothing of a response that waits for it. Default: 60 s.
    pub write: Duration,
    /// A connection without a request. Default: 75 s.
    pub idle: Duration,
    /// Name resolution, connection and TLS handshake with an upstream. Default: 5 s.
    pub upstream_connect: Duration,
    /// The head of an upstream's response, from the last byte that was sent to it. Default: 60 s.
    pub upstream_response: Duration,
    /// The `100 Continue` that a client asks for, until its body is sent without (RFC 9110 section 10.1.1).
    /// Default: 1 s.
    pub upstream_continue: Duration,
    /// An upstream connection that is kept for the next request. Default: 30 s.
    pub upstream_idle: Duration,
    /// An upstream connection altogether, until it is used no more: the next is made to the address that the upstream's
    /// name has then. Default: 5 min.
    pub upstream_age: Duration,
    /// A pause in both directions of an upgraded connection (`WebSocket`). Default: 1 h.
    pub tunnel: Duration,
    /// From the order to stop until what is still open is cut off. Default: 800 ms.
    pub drain: Duration,
}

/// How large and how many things may be.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Client connections at a time. Default: 65,536.
    pub connections: usize,
    /// Client connections at a time from one IPv4 address or one IPv6 /64. Default: 16,384.
    pub connections_per_source: usize,
    /// Requests of one connection, which ends gracefully after them. Default: no limit.
    pub requests_per_connection: Option<u64>,
    /// Requests at a time on one HTTP/2 connection. Default: 128.
    pub http2_streams: u32,
    /// Streams that a client may reset within ten seconds. Default: 500.
    pub http2_resets: u32,
    /// Streams of one HTTP/2 connection that have to be reset for their client's errors, until it ends. Default: 1,024.
    pub http2_stream_errors: u32,
    /// HTTP/2 frames without use (SETTINGS, PING, PRIORITY, CONTINUATION, empty DATA; window updates and unknown ones that
    /// nothing was sent or asked for) that a client may send within ten seconds. Default: 1,000.
    pub http2_control_frames: u32,
    /// Bytes of a request head. Default: 64 KiB.
    pub header_bytes: usize,
    /// Fields of a request head. Default: 128.
    pub header_fields: usize,
    /// Bytes of the body of a refused HTTP/1.1 request that are read, so that its connection can stay open;
    /// a longer one ends it. Default: 64 KiB.
    pub discard_bytes: u64,
    /// Requests at a time on one HTTP/2 connection to an upstream; one more opens another. Default: 100.
    pub upstream_streams: usize,
    /// Bytes a second of a request body that a client has to send, on average over the time that was waited for it, once
    /// that is longer than the longest pause. Default: 128; 0 leaves it time.
    pub body_rate: u64,
    /// Bytes of a form (`application/x-www-form-urlencoded`) that are judged like a query, while it passes.
    /// Default: 0, which judges none.
    pub form_bytes: u64,
    /// Upstream connections that a worker keeps for the next request. Default: 512.
    pub upstream_idle: usize,
}

impl ProxySettings {
    /// Settings with every default; cleartext, until `tls` is set.
    #[must_use]
    pub fn new(listen: impl Into<Listen>, upstream: Upstream) -> Self {
        Self {
            listen: listen.into(),
            takeover: false,
            proxy_protocol_from: Vec::new(),
            trusted_proxies: Vec::new(),
            tls: None,
            more_certificates: Vec::new(),
            tls_min_version: TlsVersion::default(),
            client_ca: None,
            upstream,
            more_upstreams: Vec::new(),
            routes: Vec::new(),
            by_port: Vec::new(),
            balance: Balance::default(),
            health: HealthSettings::default(),
            check: None,
            upstream_http: UpstreamHttp::default(),
            upstream_tls: UpstreamTlsSettings::default(),
            upstream_preamble: Preamble::default(),
            own: None,
            workers: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            monitor: false,
            refusal: Refusal::default(),
            timeouts: Timeouts::default(),
            limits: Limits::default(),
        }
    }
}

impl ProxySettings {
    /// Whether a connection that was made to this address is served.
    pub(super) fn serves(&self, local: SocketAddr) -> bool {
        let intercepted = |own: &Arc<dyn OwnConnections>| own.are_to(local);
        self.listen != Listen::Intercepted || self.own.as_ref().is_some_and(intercepted)
    }

    /// Whether requests can go to upstreams over bare connections.
    pub(super) fn has_plain_upstreams(&self) -> bool {
        self.upstream_http == UpstreamHttp::Http1 && self.upstream_preamble == Preamble::Off
    }

    /// Whether a connection from this address starts with a PROXY protocol header.
    pub(super) fn has_preamble(&self, source: IpAddr) -> bool {
        is_in(source, &self.proxy_protocol_from)
    }

    /// Whether a client at this address is a proxy that says whose requests it sends.
    pub(super) fn trusts(&self, client: IpAddr) -> bool {
        is_in(client, &self.trusted_proxies)
    }

    /// The settings of handshakes, where clients come over TLS.
    pub(super) fn server_tls(&self) -> Option<ServerTlsSettings> {
        Some(ServerTlsSettings {
            default: self.tls.clone()?,
            more: self.more_certificates.clone(),
            min_version: self.tls_min_version,
            client_ca: self.client_ca.clone(),
            http2: true,
        })
    }
}

fn is_in(address: IpAddr, nets: &[IpNet]) -> bool {
    let address = address.to_canonical();
    nets.iter().any(|net| net.contains(&address))
}

impl ServerTlsSettings {
    /// Every certificate, the default first.
    pub(super) fn certificates(&self) -> impl Iterator<Item = &TlsFiles> {
        std::iter::once(&self.default).chain(&self.more)
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

/// An address, or `systemd`.
impl FromStr for Listen {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        match text {
            "systemd" => Ok(Self::Passed),
            _ => text.parse().map(Self::Address),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Passed => f.write_str("the socket of the service manager"),
            Self::Intercepted => f.write_str("a free port"),
        }
    }
}

impl Default for Refusal {
    fn default() -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            content_type: HeaderValue::from_static("application/json"),
            body: Bytes::from_static(b"{\"error\":\"listed_token\"}\n"),
        }
    }
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self {
            failures: 3,
            eject: Duration::from_secs(10),
        }
    }
}

impl CheckSettings {
    /// Checks of this path with every default.
    #[must_use]
    pub fn new(path: PathAndQuery) -> Self {
        Self {
            path,
            host: None,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            failures: 3,
            passes: 2,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(15),
            body: Duration::from_secs(30),
            write: Duration::from_mins(1),
            idle: Duration::from_secs(75),
            upstream_connect: Duration::from_secs(5),
            upstream_response: Duration::from_mins(1),
            upstream_continue: Duration::from_secs(1),
            upstream_idle: Duration::from_secs(30),
            upstream_age: Duration::from_mins(5),
            tunnel: Duration::from_hours(1),
            drain: Duration::from_millis(800),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 65_536,
            connections_per_source: 16_384,
            requests_per_connection: None,
            http2_streams: 128,
            http2_resets: 500,
            http2_stream_errors: 1024,
            http2_control_frames: 1000,
            header_bytes: 64 * 1024,
            header_fields: 128,
            form_bytes: 0,
            discard_bytes: 64 * 1024,
            upstream_streams: 100,
            body_rate: 128,
            upstream_idle: 512,
        }
    }
}
