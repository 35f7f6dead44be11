//! The proxy's settings, already checked.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use http::{Uri, uri::Scheme};

/// How the proxy listens and forwards.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// Where clients connect to; port 0 takes a free one.
    pub listen: SocketAddr,
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
    /// Which HTTP is spoken there. Default: HTTP/1.1.
    pub upstream_http: UpstreamHttp,
    /// How an `https` upstream is reached.
    pub upstream_tls: UpstreamTlsSettings,
    /// Threads, each with its own listener, event loop and upstream connections. Default: one a core.
    pub workers: NonZeroUsize,
    /// Report listed tokens, and let them pass. Default: false.
    pub monitor: bool,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How large and how many things may be.
    pub limits: Limits,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// Which HTTP is spoken with an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamHttp {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2, over cleartext with prior knowledge.
    Http2,
    /// What an `https` upstream picks in the handshake; HTTP/1.1 over cleartext.
    Negotiated,
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
    /// HTTP/2 frames without use (SETTINGS, PING, PRIORITY, CONTINUATION, empty DATA) that a client may send
    /// within ten seconds. Default: 1,000.
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
    /// Bytes of a form (`application/x-www-form-urlencoded`) that are judged like a query, while it passes.
    /// Default: 0, which judges none.
    pub form_bytes: u64,
    /// Upstream connections that a worker keeps for the next request. Default: 512.
    pub upstream_idle: usize,
}

/// An upstream server, as `http://host:port` or `https://host:port` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    host: Host,
    port: u16,
    tls: bool,
}

/// A name to be resolved at each connection, or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// An address.
    Address(IpAddr),
    /// A name.
    Name(String),
}

/// Why a text names no upstream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// Not a URL.
    #[error("{0:?} is no URL; an upstream reads http://host:port")]
    NotAUrl(String),
    /// No scheme, or one that is not HTTP.
    #[error("{0:?} does not start with http:// or https://")]
    Scheme(String),
    /// A host is missing.
    #[error("{0:?} names no host")]
    NoHost(String),
    /// Credentials, a path or a query, which would be ignored.
    #[error("{0:?} has more than scheme, host and port")]
    TooMuch(String),
}

impl ProxySettings {
    /// Settings with every default; cleartext, until `tls` is set.
    #[must_use]
    pub fn new(listen: SocketAddr, upstream: Upstream) -> Self {
        Self {
            listen,
            tls: None,
            more_certificates: Vec::new(),
            tls_min_version: TlsVersion::default(),
            client_ca: None,
            upstream,
            upstream_http: UpstreamHttp::default(),
            upstream_tls: UpstreamTlsSettings::default(),
            workers: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            monitor: false,
            timeouts: Timeouts::default(),
            limits: Limits::default(),
        }
    }
}

impl ProxySettings {
    /// The settings of handshakes, where clients come over TLS.
    pub(super) fn server_tls(&self) -> Option<ServerTlsSettings> {
        Some(ServerTlsSettings {
            default: self.tls.clone()?,
            more: self.more_certificates.clone(),
            min_version: self.tls_min_version,
            client_ca: self.client_ca.clone(),
        })
    }
}

impl ServerTlsSettings {
    /// Every certificate, the default first.
    pub(super) fn certificates(&self) -> impl Iterator<Item = &TlsFiles> {
        std::iter::once(&self.default).chain(&self.more)
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
            http2_control_frames: 1000,
            header_bytes: 64 * 1024,
            header_fields: 128,
            form_bytes: 0,
            discard_bytes: 64 * 1024,
            upstream_streams: 100,
            upstream_idle: 512,
        }
    }
}

impl Upstream {
    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is reached over TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The host alone.
    pub(super) fn server_name(&self) -> String {
        match &self.host {
            Host::Address(address) => address.to_string(),
            Host::Name(name) => name.clone(),
        }
    }

    /// `host:port`, without the port where it is the scheme's own (RFC 9110 section 7.2).
    pub(super) fn authority(&self) -> String {
        let default_port = if self.tls { 443 } else { 80 };
        let host = match &self.host {
            Host::Address(IpAddr::V6(address)) => format!("[{address}]"),
            Host::Address(IpAddr::V4(address)) => address.to_string(),
            Host::Name(name) => name.clone(),
        };
        if self.port == default_port {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

impl FromStr for Upstream {
    type Err = UpstreamError;

    fn from_str(text: &str) -> Result<Self, UpstreamError> {
        if !text.contains("://") {
            return Err(UpstreamError::Scheme(text.to_owned()));
        }
        let not_a_url = |_: http::uri::InvalidUri| UpstreamError::NotAUrl(text.to_owned());
        let uri: Uri = text.parse().map_err(not_a_url)?;
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(UpstreamError::Scheme(text.to_owned())),
        };
        let no_host = || UpstreamError::NoHost(text.to_owned());
        let authority = uri.authority().ok_or_else(no_host)?;
        if authority.as_str().contains('@')
            || !matches!(uri.path(), "" | "/")
            || uri.query().is_some()
        {
            return Err(UpstreamError::TooMuch(text.to_owned()));
        }
        let host = authority.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if bare.is_empty() {
            return Err(no_host());
        }
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            // `host:` and `host:99999` have a colon and no port.
            None if authority.as_str() != host => {
                return Err(UpstreamError::NotAUrl(text.to_owned()));
            }
            None if tls => 443,
            None => 80,
        };
        Ok(Self {
            host: bare
                .parse()
                .map_or_else(|_| Host::Name(bare.to_owned()), Host::Address),
            port,
            tls,
        })
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_are_urls_of_a_host() {
        for (text, shown) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://example.org", "http://example.org"),
            ("https://example.org:443/", "https://example.org"),
            ("http://[::1]:9", "http://[::1]:9"),
        ] {
            assert_eq!(text.parse::<Upstream>().unwrap().to_string(), shown);
        }
        let error = |text: &str| text.parse::<Upstream>().unwrap_err();
        assert!(matches!(error("127.0.0.1:80"), UpstreamError::Scheme(_)));
        assert!(matches!(error("ftp://a"), UpstreamError::Scheme(_)));
        assert!(matches!(error("http://a/b"), UpstreamError::TooMuch(_)));
        assert!(matches!(error("http://u:p@a"), UpstreamError::TooMuch(_)));
        assert!(matches!(error("http://a:99999"), UpstreamError::NotAUrl(_)));
        assert!(matches!(error("http://"), UpstreamError::NotAUrl(_)));
    }
}
