//! The settings of the proxy tier, as given. Defaults are those of [`crate::proxy`].

use std::{num::NonZeroUsize, path::PathBuf};

use clap::{ArgAction, Args, ValueEnum, builder::BoolishValueParser};
use http::uri::PathAndQuery;

use super::units::Span;
use crate::proxy::{
    Balance, CheckSettings, HealthSettings, Limits, Preamble, Timeouts, TlsVersion, UpstreamHttp,
};

/// Where the proxy tier listens and what it does there.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Proxy tier (HTTPS)")]
pub struct ProxyArgs {
    /// Address to listen on, for instance `0.0.0.0:8443` or `[::]:8443`; `systemd` takes the socket that a service
    /// manager passes
    #[arg(long, value_name = "ADDR:PORT", env = "TOKENBLOCK_PROXY_LISTEN")]
    pub proxy_listen: Option<String>,

    /// Port of a TLS service on this host that the proxy is put before, without moving it: new connections to it, at
    /// any address of this host, are handed to the proxy. Needs `CAP_BPF` and `CAP_NET_ADMIN`; without --upstream, each
    /// service is asked at its port of localhost (repeatable)
    #[arg(long, value_name = "PORT", env = "TOKENBLOCK_INTERCEPT")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..), value_delimiter = ',')]
    pub intercept: Vec<u16>,

    /// What becomes of connections to it while no proxy runs
    #[arg(
        long,
        value_name = "WHAT",
        env = "TOKENBLOCK_INTERCEPT_FAIL",
        value_enum
    )]
    #[arg(default_value_t = InterceptFail::default())]
    pub intercept_fail: InterceptFail,

    /// Folder in a BPF file system that keeps what refuses them
    #[arg(long, value_name = "DIR", env = "TOKENBLOCK_INTERCEPT_PIN")]
    #[arg(default_value = "/sys/fs/bpf/tokenblock")]
    pub intercept_pin: PathBuf,

    /// Share the address with a running tokenblock that is about to stop; without it, an address in use is an error.
    /// Each needs a state folder of its own
    #[arg(long, value_name = "BOOL", env = "TOKENBLOCK_PROXY_TAKEOVER")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(default_value = "false", hide_default_value = true)]
    #[arg(value_parser = BoolishValueParser::new(), action = ArgAction::Set)]
    pub proxy_takeover: bool,

    /// Worker threads [default: one a core]
    #[arg(long, value_name = "N", env = "TOKENBLOCK_WORKERS")]
    pub workers: Option<NonZeroUsize>,

    /// Network whose connections begin with a PROXY protocol header (version 1 or 2), and must, for instance
    /// 10.0.0.0/8 (repeatable)
    #[arg(long, value_name = "CIDR", env = "TOKENBLOCK_PROXY_PROTOCOL_FROM")]
    #[arg(value_delimiter = ',')]
    pub proxy_protocol_from: Vec<String>,

    /// Network of proxies in front whose `X-Forwarded-*` and `Forwarded` fields are kept and added to; those of
    /// others are replaced (repeatable)
    #[arg(long, value_name = "CIDR", env = "TOKENBLOCK_TRUSTED_PROXY")]
    #[arg(value_delimiter = ',')]
    pub trusted_proxy: Vec<String>,

    /// What clients see in TLS handshakes.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Where clean requests go.
    #[command(flatten)]
    pub upstreams: UpstreamArgs,
    /// What a client gets whose request bears a listed token.
    #[command(flatten)]
    pub refusal: RefusalArgs,
    /// How long things may take.
    #[command(flatten)]
    pub timeouts: TimeoutArgs,
    /// How large and how many things may be.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// The defaults of checks, whatever is asked for.
fn checks() -> CheckSettings {
    CheckSettings::new(PathAndQuery::from_static("/"))
}

/// What becomes of connections that would be intercepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum InterceptFail {
    /// The service gets them, unjudged
    #[default]
    Open,
    /// They are refused, until a proxy runs again
    Closed,
}

/// What clients see in TLS handshakes.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Proxy tier: TLS with clients")]
pub struct TlsArgs {
    /// Certificate chain in PEM; without it the proxy speaks cleartext. Read again when it changes, and so is an OCSP
    /// response beside it, in DER form, under its name and `.ocsp`
    #[arg(long, value_name = "FILE", env = "TOKENBLOCK_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of the certificate in PEM
    #[arg(long, value_name = "FILE", env = "TOKENBLOCK_TLS_KEY")]
    pub tls_key: Option<PathBuf>,

    /// Further certificate and its key, for clients that ask for one of its names; in the TOML file
    /// `[[certificate]]` with `cert` and `key` (repeatable)
    #[arg(long, value_name = "CERT:KEY", env = "TOKENBLOCK_CERTIFICATE")]
    #[arg(value_delimiter = ',')]
    pub certificate: Vec<String>,

    /// Oldest version that clients can agree on
    #[arg(
        long,
        value_name = "VERSION",
        env = "TOKENBLOCK_TLS_MIN_VERSION",
        value_enum
    )]
    #[arg(default_value_t = TlsVersion::default())]
    pub tls_min_version: TlsVersion,

    /// Authorities in PEM of which clients must show a certificate, on each connection: no session is resumed
    #[arg(long, value_name = "FILE", env = "TOKENBLOCK_TLS_CLIENT_CA")]
    pub tls_client_ca: Option<PathBuf>,
}

/// Where clean requests go.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Proxy tier: upstreams")]
pub struct UpstreamArgs {
    /// Server that clean requests are forwarded to, as `http://HOST:PORT`, `https://HOST:PORT` or
    /// `unix:/PATH`; several stand in for each other (repeatable)
    #[arg(
        long,
        value_name = "URL",
        env = "TOKENBLOCK_UPSTREAM",
        value_delimiter = ','
    )]
    pub upstream: Vec<String>,

    /// Servers of requests for a host, under a path, or both, as HOST/PREFIX=URL,URL; separated by `;`. In the TOML
    /// file `[[route]]` with `host`, `path` and `upstream` (repeatable)
    #[arg(
        long,
        value_name = "ROUTE",
        env = "TOKENBLOCK_ROUTE",
        value_delimiter = ';'
    )]
    pub route: Vec<String>,

    /// How one of several servers is chosen
    #[arg(long, value_name = "HOW", env = "TOKENBLOCK_BALANCE", value_enum)]
    #[arg(default_value_t = Balance::default())]
    pub balance: Balance,

    /// HTTP that is spoken with servers
    #[arg(
        long,
        value_name = "VERSION",
        env = "TOKENBLOCK_UPSTREAM_HTTP",
        value_enum
    )]
    #[arg(default_value_t = UpstreamHttp::default())]
    pub upstream_http: UpstreamHttp,

    /// Begin each connection to a server with a PROXY protocol header that names the client; connections are then not
    /// shared by clients
    #[arg(
        long,
        value_name = "VERSION",
        env = "TOKENBLOCK_UPSTREAM_PROXY_PROTOCOL",
        value_enum
    )]
    #[arg(default_value_t = Preamble::default())]
    pub upstream_proxy_protocol: Preamble,

    /// Authorities in PEM that the certificate of an `https` server must come from [default: the system's]
    #[arg(long, value_name = "FILE", env = "TOKENBLOCK_UPSTREAM_CA")]
    pub upstream_ca: Option<PathBuf>,

    /// Name that an `https` server is asked for and that its certificate must be for [default: the URL's host]
    #[arg(long, value_name = "NAME", env = "TOKENBLOCK_UPSTREAM_SERVER_NAME")]
    pub upstream_server_name: Option<String>,

    /// Certificate chain in PEM to show to `https` servers
    #[arg(long, value_name = "FILE", env = "TOKENBLOCK_UPSTREAM_CERT")]
    pub upstream_cert: Option<PathBuf>,

    /// Private key of that certificate in PEM
    #[arg(long, value_name = "FILE", env = "TOKENBLOCK_UPSTREAM_KEY")]
    pub upstream_key: Option<PathBuf>,

    /// Failures in a row that leave a server out, where there are others
    #[arg(long, value_name = "N", env = "TOKENBLOCK_UPSTREAM_FAILURES")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    #[arg(default_value_t = HealthSettings::default().failures)]
    pub upstream_failures: u32,

    /// How long it is left out, until one request may try it
    #[arg(long, value_name = "TIME", env = "TOKENBLOCK_UPSTREAM_EJECT")]
    #[arg(default_value_t = Span(HealthSettings::default().eject))]
    pub upstream_eject: Span,

    /// Path that servers are asked for, again and again, to learn whether they are well: who answers other than 2xx or
    /// 3xx, or not in time, gets no requests until it does [default: none, they are not asked]
    #[arg(long, value_name = "PATH", env = "TOKENBLOCK_UPSTREAM_CHECK")]
    pub upstream_check: Option<PathAndQuery>,

    /// Host that they are asked for then [default: the server's own]
    #[arg(long, value_name = "HOST", env = "TOKENBLOCK_UPSTREAM_CHECK_HOST")]
    pub upstream_check_host: Option<String>,

    /// From one check of a server to the next
    #[arg(long, value_name = "TIME", env = "TOKENBLOCK_UPSTREAM_CHECK_INTERVAL")]
    #[arg(default_value_t = Span(checks().interval))]
    pub upstream_check_interval: Span,

    /// For a check: connection, handshake and head of the answer
    #[arg(long, value_name = "TIME", env = "TOKENBLOCK_UPSTREAM_CHECK_TIMEOUT")]
    #[arg(default_value_t = Span(checks().timeout))]
    pub upstream_check_timeout: Span,

    /// Checks in a row that a server must fail to get no more requests; the first of all is enough
    #[arg(long, value_name = "N", env = "TOKENBLOCK_UPSTREAM_CHECK_FAILURES")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    #[arg(default_value_t = checks().failures)]
    pub upstream_check_failures: u32,

    /// Checks in a row that it must pass to get them again
    #[arg(long, value_name = "N", env = "TOKENBLOCK_UPSTREAM_CHECK_PASSES")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    #[arg(default_value_t = checks().passes)]
    pub upstream_check_passes: u32,

    /// Unused connections to a server that a worker keeps for the next request
    #[arg(long, value_name = "N", env = "TOKENBLOCK_UPSTREAM_KEEP")]
    #[arg(default_value_t = Limits::default().upstream_idle)]
    pub upstream_keep: usize,

    /// Requests at a time on one HTTP/2 connection to a server; one more opens another
    #[arg(long, value_name = "N", env = "TOKENBLOCK_UPSTREAM_STREAMS")]
    #[arg(default_value_t = Limits::default().upstream_streams)]
    pub upstream_streams: usize,
}

/// What a client gets whose request bears a listed token.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Proxy tier: refusals")]
pub struct RefusalArgs {
    /// Status of the answer to a request that bears a listed token [default: 403]
    #[arg(long, value_name = "CODE", env = "TOKENBLOCK_REFUSAL_STATUS")]
    #[arg(value_parser = clap::value_parser!(u16).range(400..=599))]
    pub refusal_status: Option<u16>,

    /// Its `Content-Type` [default: application/json]
    #[arg(long, value_name = "TYPE", env = "TOKENBLOCK_REFUSAL_CONTENT_TYPE")]
    pub refusal_content_type: Option<String>,

    /// Its body [default: a small JSON object that names the reason]
    #[arg(long, value_name = "TEXT", env = "TOKENBLOCK_REFUSAL_BODY")]
    pub refusal_body: Option<String>,
}

/// How long things may take.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Proxy tier: time limits")]
pub struct TimeoutArgs {
    /// For a TLS handshake with a client, or a PROXY protocol header
    #[arg(long, value_name = "TIME", env = "TOKENBLOCK_TIMEOUT_HANDSHAKE")]
    #[arg(default_value_t = Span(Timeouts::default().handshake))]
    pub timeout_handshake: Span,

    /// For a request head, from its first byte (the first one: from the connection's start)
    #[arg(long, value_name = "TIME", env = "TOKENBLOCK_TIMEOUT_HEADER")]
    #[arg(default_value_t = Span(Timeouts::default().header))]
    pub timeout_header: Span,

    /// For a pause in a request body, and for what of it comes behind the answer
    #[arg(long, value_name = "TIME", env = "TOKENBLOCK_TIMEOUT_BODY")]
    #[arg(default_value_t = Span(Timeouts::default().body))]
    pub timeout_body: Span,

    /// For a client that reads nothing of a response that waits for it
    #[arg(long, value_name = "TIME", env = "TOKENBLOCK_TIMEOUT_WRITE")]
    #[arg(default_value_t = Span(Timeouts::default().write))]
    pub timeout_write: Span,

    /// For a connection without a request
    #[arg(long, value_name = "TIME", env = "TOKENBLOCK_TIMEOUT_IDLE")]
    #[arg(default_value_t = Span(Timeouts::default().idle))]
    pub timeout_idle: Span,

    /// For name resolution, connection and TLS handshake with a server
    #[arg(long, value_name = "TIME", env = "TOKENBLOCK_TIMEOUT_CONNECT")]
    #[arg(default_value_t = Span(Timeouts::default().upstream_connect))]
    pub timeout_connect: Span,

    /// For the head of a server's response, from the last byte that was sent to it
    #[arg(long, value_name = "TIME", env = "TOKENBLOCK_TIMEOUT_RESPONSE")]
    #[arg(default_value_t = Span(Timeouts::default().upstream_response))]
    pub timeout_response: Span,

    /// For the `100 Continue` that a client asks for, until its body is sent without
    #[arg(long, value_name = "TIME", env = "TOKENBLOCK_TIMEOUT_CONTINUE")]
    #[arg(default_value_t = Span(Timeouts::default().upstream_continue))]
    pub timeout_continue: Span,

    /// For an unused connection to a server
    #[arg(long, value_name = "TIME", env = "TOKENBLOCK_TIMEOUT_UPSTREAM_IDLE")]
    #[arg(default_value_t = Span(Timeouts::default().upstream_idle))]
    pub timeout_upstream_idle: Span,

    /// For a connection to a server altogether; the next is made to the address that its name has then
    #[arg(long, value_name = "TIME", env = "TOKENBLOCK_TIMEOUT_UPSTREAM_AGE")]
    #[arg(default_value_t = Span(Timeouts::default().upstream_age))]
    pub timeout_upstream_age: Span,

    /// For a pause in both directions of an upgraded connection (`WebSocket`)
    #[arg(long, value_name = "TIME", env = "TOKENBLOCK_TIMEOUT_TUNNEL")]
    #[arg(default_value_t = Span(Timeouts::default().tunnel))]
    pub timeout_tunnel: Span,

    /// From the order to stop until what is still open is cut off
    #[arg(long, value_name = "TIME", env = "TOKENBLOCK_TIMEOUT_DRAIN")]
    #[arg(default_value_t = Span(Timeouts::default().drain))]
    pub timeout_drain: Span,
}

/// How large and how many things may be.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Proxy tier: limits")]
pub struct LimitArgs {
    /// Client connections at a time
    #[arg(long, value_name = "N", env = "TOKENBLOCK_LIMIT_CONNECTIONS")]
    #[arg(default_value_t = Limits::default().connections)]
    pub limit_connections: usize,

    /// Client connections at a time from one IPv4 address or one IPv6 /64
    #[arg(
        long,
        value_name = "N",
        env = "TOKENBLOCK_LIMIT_CONNECTIONS_PER_SOURCE"
    )]
    #[arg(default_value_t = Limits::default().connections_per_source)]
    pub limit_connections_per_source: usize,

    /// Requests of one connection, which ends gracefully after them [default: no limit]
    #[arg(long, value_name = "N", env = "TOKENBLOCK_LIMIT_REQUESTS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub limit_requests: Option<u64>,

    /// Requests at a time on one HTTP/2 connection
    #[arg(long, value_name = "N", env = "TOKENBLOCK_LIMIT_STREAMS")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    #[arg(default_value_t = Limits::default().http2_streams)]
    pub limit_streams: u32,

    /// HTTP/2 streams that a client may reset within ten seconds
    #[arg(long, value_name = "N", env = "TOKENBLOCK_LIMIT_RESETS")]
    #[arg(default_value_t = Limits::default().http2_resets)]
    pub limit_resets: u32,

    /// HTTP/2 streams of one connection that the proxy has to reset for their client's errors (a body of another length than
    /// was said, a window beyond its bounds, more requests at a time than allowed), until it ends the connection
    #[arg(long, value_name = "N", env = "TOKENBLOCK_LIMIT_STREAM_ERRORS")]
    #[arg(default_value_t = Limits::default().http2_stream_errors)]
    pub limit_stream_errors: u32,

    /// HTTP/2 frames without use (SETTINGS, PING, PRIORITY, CONTINUATION, empty DATA; window updates and unknown ones that
    /// nothing was sent or asked for) that a client may send within ten seconds
    #[arg(long, value_name = "N", env = "TOKENBLOCK_LIMIT_CONTROL_FRAMES")]
    #[arg(default_value_t = Limits::default().http2_control_frames)]
    pub limit_control_frames: u32,

    /// Bytes of a request head
    #[arg(long, value_name = "BYTES", env = "TOKENBLOCK_LIMIT_HEADER_BYTES")]
    #[arg(default_value_t = Limits::default().header_bytes)]
    pub limit_header_bytes: usize,

    /// Fields of a request head
    #[arg(long, value_name = "N", env = "TOKENBLOCK_LIMIT_HEADER_FIELDS")]
    #[arg(default_value_t = Limits::default().header_fields)]
    pub limit_header_fields: usize,

    /// Bytes a second of a request body that a client has to send, on average over the time that was waited for it, once
    /// that is longer than --timeout-body; 0 leaves it time
    #[arg(long, value_name = "BYTES", env = "TOKENBLOCK_LIMIT_BODY_RATE")]
    #[arg(default_value_t = Limits::default().body_rate)]
    pub limit_body_rate: u64,

    /// Bytes of the body of a refused request that are read and forgotten, so that its connection can stay open;
    /// a longer one ends it
    #[arg(long, value_name = "BYTES", env = "TOKENBLOCK_LIMIT_DISCARD_BYTES")]
    #[arg(default_value_t = Limits::default().discard_bytes)]
    pub limit_discard_bytes: u64,

    /// Bytes of a form (`application/x-www-form-urlencoded`, or no type) that are read like a query while it passes; 0 reads none.
    /// Forms in a content coding are then refused
    #[arg(long, value_name = "BYTES", env = "TOKENBLOCK_LIMIT_FORM_BYTES")]
    #[arg(default_value_t = Limits::default().form_bytes)]
    pub limit_form_bytes: u64,
}
