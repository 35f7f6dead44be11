//! Asks upstreams whether they are well: each for itself, at an interval, over connections made for that.
//!
//! One task an upstream does it for all workers, on the threads of the process and not on those that serve requests,
//! which may be busy just when it counts.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, Version, header, uri::Scheme};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    connect::{self, Way},
    route::ServerSeed,
};
use crate::proxy::{
    accept::Live,
    counters::{Counter, Counters},
    preamble,
    settings::{CheckSettings, ProxySettings, UpstreamHttp},
    stream::Transport,
};

const UNKNOWN: u8 = 0;
const UP: u8 = 1;
const DOWN: u8 = 2;

/// What the checks of an upstream say of it, for all workers.
#[derive(Debug, Default)]
pub(super) struct Condition(AtomicU8);

impl Condition {
    /// Whether nothing is to be asked of it.
    pub(super) fn is_down(&self) -> bool {
        self.0.load(Relaxed) == DOWN
    }
}

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no answer in time")]
    Timeout,
    #[error("no connection: {0}")]
    Connect(#[source] io::Error),
    #[error("no answer: {0}")]
    Answer(#[from] hyper::Error),
    #[error("the answer's status is {0}")]
    Status(StatusCode),
    #[error("nothing can be asked of it: {0}")]
    Request(#[from] http::Error),
}

/// Checks the upstreams of the settings in force, where they say so; never returns.
pub(in crate::proxy) async fn run(mut live: watch::Receiver<Arc<Live>>, counters: Arc<Counters>) {
    loop {
        let current = Arc::clone(&live.borrow_and_update());
        // Those of earlier settings end when this is dropped.
        let mut checks = JoinSet::new();
        if let Some(check) = &current.settings.check {
            for server in current.routes.servers() {
                let settings = Arc::clone(&current.settings);
                let (check, counters) = (check.clone(), Arc::clone(&counters));
                checks.spawn(follow(server, settings, check, counters));
            }
        }
        if live.changed().await.is_err() {
            // The proxy is on its way out.
            return std::future::pending().await;
        }
    }
}

/// Checks one upstream, again and again.
async fn follow(
    server: ServerSeed,
    settings: Arc<ProxySettings>,
    check: CheckSettings,
    counters: Arc<Counters>,
) {
    let upstream = &server.upstream;
    let condition = &server.condition.0;
    let mut pause = interval(check.interval);
    pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Results in a row that contradict what is known; the first one of all is believed at once.
    let mut contrary = 0;
    loop {
        pause.tick().await;
        counters.add(Counter::HealthChecks);
        let asked = timeout(check.timeout, ask(&server, &settings, &check)).await;
        let result = asked.unwrap_or(Err(Failure::Timeout));
        if let Err(why) = &result {
            counters.add(Counter::HealthChecksFailed);
            tracing::debug!(%upstream, %why, "a health check failed");
        }
        let known = condition.load(Relaxed);
        let (found, wanted) = match result {
            Ok(()) => (UP, check.passes),
            Err(_) => (DOWN, check.failures),
        };
        if found == known {
            contrary = 0;
            continue;
        }
        contrary += 1;
        if known != UNKNOWN && contrary < wanted {
            continue;
        }
        contrary = 0;
        condition.store(found, Relaxed);
        match result {
            Err(why) => {
                counters.add(Counter::UpstreamsDown);
                tracing::warn!(%upstream, %why, "an upstream fails its health checks: it is asked for nothing");
            }
            Ok(()) if known == DOWN => {
                tracing::info!(%upstream, "an upstream passes its health checks again");
            }
            Ok(()) => {}
        }
    }
}

/// Makes a connection and one request.
async fn ask(
    server: &ServerSeed,
    settings: &ProxySettings,
    check: &CheckSettings,
) -> Result<(), Failure> {
    let preamble = preamble::of_our_own(settings.upstream_preamble);
    let way = Way {
        upstream: &server.upstream,
        tls: server.tls.as_ref(),
        own: settings.own.as_deref(),
        preamble: preamble.as_deref(),
    };
    let stream = connect::connect(way, false)
        .await
        .map_err(Failure::Connect)?;
    let http2 = match settings.upstream_http {
        UpstreamHttp::Http1 => false,
        UpstreamHttp::Http2 => true,
        UpstreamHttp::Negotiated => stream.alpn() == Some(b"h2"),
    };
    let authority = server.upstream.authority();
    let host = check.host.as_deref().unwrap_or(&authority);
    let request = Request::get(check.path.clone())
        .header(header::USER_AGENT, "tokenblock-health-check")
        .body(Empty::<Bytes>::new())?;
    let status = if http2 {
        let scheme = if server.upstream.is_tls() {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        };
        status_over_http2(stream, request, scheme, host).await?
    } else {
        status_over_http1(stream, request, host).await?
    };
    if status.is_success() || status.is_redirection() {
        return Ok(());
    }
    Err(Failure::Status(status))
}

async fn status_over_http1(
    stream: Transport,
    mut request: Request<Empty<Bytes>>,
    host: &str,
) -> Result<StatusCode, Failure> {
    let headers = request.headers_mut();
    let host = HeaderValue::from_str(host).map_err(http::Error::from)?;
    headers.insert(header::HOST, host);
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with this, however this ends.
    let mut driving = JoinSet::new();
    driving.spawn(connection);
    Ok(sender.send_request(request).await?.status())
}

async fn status_over_http2(
    stream: Transport,
    mut request: Request<Empty<Bytes>>,
    scheme: Scheme,
    host: &str,
) -> Result<StatusCode, Failure> {
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::builder()
        .scheme(scheme)
        .authority(host)
        .path_and_query(path.map_or_else(|| "/".to_owned(), |path| path.to_string()))
        .build()?;
    *request.version_mut() = Version::HTTP_2;
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let mut driving = JoinSet::new();
    driving.spawn(connection);
    Ok(sender.send_request(request).await?.status())
}
