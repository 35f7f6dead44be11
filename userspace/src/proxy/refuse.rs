//! What a client gets in place of an answer of the upstream.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use tokio::time::{Duration, sleep, timeout};

use super::{
    accept::Worker,
    date::{self, Date},
    hop,
    incoming::IncomingBody,
    settings::{ProxySettings, Refusal},
};

/// How long a client of HTTP/2 has to see the answer before its stream is reset under a long body.
const GRACE: Duration = Duration::from_secs(1);

/// Why a request was not forwarded, or why its answer could not be had; shown as `proxy_refused_<name>`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, strum::EnumCount, strum::IntoStaticStr, strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Reason {
    /// It bears a listed token.
    ListedToken,
    /// `CONNECT`: this is no forward proxy.
    Connect,
    /// A target that names no resource here.
    Target,
    /// No `Host`, more than one, or one that is no host (RFC 9112 section 3.2).
    Host,
    /// A body in a transfer coding besides `chunked` (RFC 9112 section 6.1).
    TransferCoding,
    /// A form in a content coding, which can't be judged (RFC 9110 section 15.5.16).
    ContentCoding,
    /// More fields than allowed (RFC 6585 section 5).
    HeaderFields,
    /// A larger head than allowed, where that is little.
    HeaderBytes,
    /// Its body comes too slowly (RFC 9110 section 15.5.9).
    SlowBody,
    /// Its body is malformed, or broke off.
    BrokenBody,
    /// No upstream is for it, or all that are were left out.
    NoUpstream,
    /// No upstream could be connected to.
    UpstreamConnect,
    /// No upstream could be connected to in time.
    UpstreamConnectTimeout,
    /// The upstream broke the protocol or went away.
    UpstreamFailed,
    /// The upstream did not answer in time.
    UpstreamTimeout,
}

impl Reason {
    /// The status that the client gets (RFC 9110 section 15).
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::ListedToken => StatusCode::FORBIDDEN,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::Target | Self::Host | Self::BrokenBody => StatusCode::BAD_REQUEST,
            Self::TransferCoding => StatusCode::NOT_IMPLEMENTED,
            Self::ContentCoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::HeaderFields | Self::HeaderBytes => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::NoUpstream => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamConnect | Self::UpstreamFailed => StatusCode::BAD_GATEWAY,
            Self::UpstreamConnectTimeout | Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

/// Writes the answer to a refused HTTP/1.1 request; to `HEAD` it ends with its fields (RFC 9110 section 9.3.2).
pub(super) fn write(response: &Response<Bytes>, is_head: bool, closes: bool, out: &mut Vec<u8>) {
    let status = response.status();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in response.headers() {
        hop::write_field(out, name.as_str(), value.as_bytes());
    }
    if closes {
        out.extend_from_slice(b"connection: close\r\n");
    }
    hop::write_field(out, "date", &date::now());
    let body = response.body();
    let length = body.len().to_string();
    hop::write_field(out, "content-length", length.as_bytes());
    out.extend_from_slice(b"\r\n");
    if !is_head {
        out.extend_from_slice(body);
    }
}

/// The answer to listed tokens over HTTP/1.1 on connections that go on, written once a second.
#[derive(Default)]
pub(super) struct Written(RefCell<Option<Text>>);

struct Text {
    date: Date,
    /// All of it, and how much of it is the head.
    bytes: Vec<u8>,
    head: usize,
}

impl Written {
    /// Writes it, as [`write()`] does.
    pub(super) fn write(&self, listed: &Refusal, is_head: bool, out: &mut Vec<u8>) {
        let mut written = self.0.borrow_mut();
        let date = date::now();
        if written.as_ref().is_none_or(|text| text.date != date) {
            let response = response(Reason::ListedToken, listed);
            let mut bytes = Vec::new();
            write(&response, false, false, &mut bytes);
            let head = bytes.len() - response.body().len();
            *written = Some(Text { date, bytes, head });
        }
        if let Some(Text { bytes, head, .. }) = &*written {
            let len = if is_head { *head } else { bytes.len() };
            out.extend_from_slice(bytes.get(..len).unwrap_or_default());
        }
    }
}

/// The answer to a refused request: a small JSON body that names the reason, or what the settings say.
pub(super) fn response(reason: Reason, listed: &Refusal) -> Response<Bytes> {
    if reason == Reason::ListedToken {
        return answer(
            listed.status,
            listed.content_type.clone(),
            listed.body.clone(),
        );
    }
    let name: &'static str = reason.into();
    let body = Bytes::from(format!("{{\"error\":\"{name}\"}}\n"));
    let json = HeaderValue::from_static("application/json");
    answer(reason.status(), json, body)
}

fn answer(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Reads and forgets the rest of a small request body, so that an HTTP/1.1 connection can stay open.
///
/// A body that is longer than the settings allow, or comes too slowly, is left alone: the connection ends after the
/// response. So is the body of a client that waits for `100 Continue`; polling it would invite the client to send it.
/// Says whether the body was read to its end.
pub(super) async fn discard(settings: &ProxySettings, body: IncomingBody) -> bool {
    let mut body = body;
    let reading = read_out(&mut body, settings.limits.discard_bytes);
    timeout(settings.timeouts.body, reading)
        .await
        .unwrap_or(false)
}

/// The same beside the response, which goes first, on an HTTP/2 stream; a longer body is left where it is for a moment. Ending it in order takes the client's own end:
/// a stream that is reset under the rest of its body, be it an empty frame, is an error to some clients, which then
/// never show the response.
pub(super) fn linger(worker: &Rc<Worker>, body: IncomingBody) {
    if body.is_end_stream() || *worker.drain.borrow() {
        return;
    }
    let settings = Arc::clone(&worker.settings);
    tokio::task::spawn_local(async move {
        let mut body = body;
        let reading = read_out(&mut body, settings.limits.discard_bytes);
        if timeout(settings.timeouts.body, reading).await == Ok(false) {
            sleep(GRACE).await;
        }
    });
}

async fn read_out(body: &mut IncomingBody, limit: u64) -> bool {
    let mut left = limit;
    if body.size_hint().lower() > limit {
        return false;
    }
    while let Some(Ok(frame)) = body.frame().await {
        let len = frame.data_ref().map_or(0, |data| data.len() as u64);
        match left.checked_sub(len) {
            Some(rest) => left = rest,
            None => return false,
        }
    }
    true
}
