//! Sends a clean request to the upstream and its response to the client.

use std::{pin::pin, rc::Rc};

use http::{HeaderValue, Request, Response, StatusCode, Version, header, request::Parts};
use hyper::{body::Body as _, upgrade::OnUpgrade};
use tokio::time::{Instant, sleep_until};

use super::{
    body::{Hold, Progress, RequestBody, ResponseBody},
    connection::Peer,
    counters::Counter,
    fast, hop,
    incoming::IncomingBody,
    interim::Interim,
    refuse::Reason,
    settings::Timeouts,
    target, tunnel,
    upstream::{Group, Lease, Pool, Unanswered},
};

/// Forwards `request`; gives the response when its head has come, and passes what is said before to `interim`.
///
/// # Errors
/// Why there is no response.
pub(super) async fn forward(
    peer: &Rc<Peer>,
    mut request: Request<IncomingBody>,
    interim: &Interim,
) -> Result<Response<ResponseBody>, Reason> {
    let upgrade = hop::upgrade(request.version(), request.headers());
    let upgrade = upgrade.map(|protocols| (protocols, hyper::upgrade::on(&mut request)));
    let (mut parts, body) = request.into_parts();
    let http2 = parts.version == Version::HTTP_2;
    rewrite(
        peer,
        &mut parts,
        upgrade.as_ref().map(|(protocols, _)| protocols),
    )?;
    let progress = Rc::new(Progress::new());
    let patience = peer.worker.settings.timeouts.upstream_continue;
    let hold = parts
        .headers
        .contains_key(header::EXPECT)
        .then(|| Hold::new(interim, patience, http2));
    let form = peer.form(&parts.headers);
    if form.is_some() && !body.is_end_stream() && hop::is_coded(&parts.headers) {
        return Err(Reason::ContentCoding);
    }
    let body = RequestBody::new((body, http2), peer, &progress, hold, form);
    let mut request = Request::from_parts(parts, body);
    if !request.body().is_empty() && !request.headers().contains_key(header::CONTENT_LENGTH) {
        // Unasked, the library leaves the body of a GET away.
        hop::set_chunked(request.headers_mut());
    }
    let way = Way {
        progress: &progress,
        interim,
        upgrade: upgrade.is_some(),
    };
    let (response, lease) = exchange(peer, request, way).await?;
    answer(peer, response, lease, upgrade.map(|(_, client)| client))
}

/// Makes the head of a request ours.
fn rewrite(peer: &Peer, parts: &mut Parts, upgrade: Option<&HeaderValue>) -> Result<(), Reason> {
    target::normalise(parts, &peer.worker.default_host)?;
    let headers = &mut parts.headers;
    if !hop::is_body_plain(headers) {
        return Err(Reason::TransferCoding);
    }
    let takes_trailers = hop::takes_trailers(headers);
    hop::strip(headers);
    if parts.version == Version::HTTP_2 {
        hop::join_cookies(headers);
        hop::say_length_once(headers);
    }
    peer.client.provenance.stamp(headers, parts.version);
    if let Some(protocols) = upgrade {
        hop::set_upgrade(headers, protocols.clone());
    }
    if takes_trailers {
        hop::set_takes_trailers(headers, Version::HTTP_11);
    }
    parts.version = Version::HTTP_11;
    // The client connection's own matters.
    parts.extensions.clear();
    Ok(())
}

/// What goes with a request.
#[derive(Clone, Copy)]
struct Way<'a> {
    progress: &'a Progress,
    interim: &'a Interim,
    /// Whether it asks for another protocol.
    upgrade: bool,
}

/// Sends the request, once more where that is safe.
async fn exchange(
    peer: &Peer,
    request: Request<RequestBody>,
    way: Way<'_>,
) -> Result<(Response<IncomingBody>, Lease), Reason> {
    let counters = &peer.worker.counters;
    counters.add(Counter::Forwarded);
    let group = peer
        .routes()
        .find(peer.port(), request.uri(), request.headers());
    let (pool, mut lease) = lease(group.ok_or(Reason::NoUpstream)?, way.upgrade).await?;
    let copy = (lease.is_reused() && is_repeatable(&request)).then(|| copy(&request));
    let failure = match attempt(peer, &pool, &mut lease, request, way).await {
        Ok(response) => return Ok((response, lease)),
        Err(failure) => failure,
    };
    let again = failure.unsent.or(copy);
    let Some(request) = again.filter(|_| lease.is_reused() && failure.may_retry) else {
        return Err(failure.reason);
    };
    counters.add(Counter::UpstreamRetries);
    let mut lease = pool
        .connect(way.upgrade)
        .await
        .inspect_err(|_| pool.on_failure())?;
    match attempt(peer, &pool, &mut lease, request, way).await {
        Ok(response) => Ok((response, lease)),
        Err(failure) => Err(failure.reason),
    }
}

/// A connection to one of the servers; who can't be connected to has been sent nothing, so the next is asked.
async fn lease(group: &Group, upgrade: bool) -> Result<(Rc<Pool>, Lease), Reason> {
    let mut failed = Reason::NoUpstream;
    for _ in 0..group.len() {
        let Some(pool) = group.pick() else { break };
        match pool.lease(upgrade).await {
            Ok(lease) => return Ok((Rc::clone(pool), lease)),
            Err(reason) => {
                pool.on_failure();
                failed = reason;
            }
        }
    }
    Err(group.exhausted(failed))
}

/// Why an attempt gave no response.
struct Failure {
    reason: Reason,
    /// Whether a new connection may bring what this one didn't.
    may_retry: bool,
    /// Whether it tells of the upstream's health; what a client breaks off doesn't.
    blames_upstream: bool,
    /// The request, where none of it was sent.
    unsent: Option<Request<RequestBody>>,
}

async fn attempt(
    peer: &Peer,
    pool: &Pool,
    lease: &mut Lease,
    request: Request<RequestBody>,
    way: Way<'_>,
) -> Result<Response<IncomingBody>, Failure> {
    let timeouts = &peer.worker.settings.timeouts;
    let progress = way.progress;
    progress.at.set(Instant::now());
    let failure = match within(timeouts, progress, lease.send(request, way.interim)).await {
        Some(Ok(response)) => {
            progress.answered.set(true);
            pool.on_success();
            return Ok(response);
        }
        Some(Err(error)) => broken(pool, error, progress),
        None if progress.waits_for_client() => Failure {
            reason: Reason::SlowBody,
            may_retry: false,
            blames_upstream: false,
            unsent: None,
        },
        None => {
            let limit = timeouts.upstream_response;
            tracing::warn!(upstream = %pool.upstream(), ?limit, "no response in time");
            Failure {
                reason: Reason::UpstreamTimeout,
                may_retry: false,
                blames_upstream: true,
                unsent: None,
            }
        }
    };
    // A kept connection that was closed tells nothing either.
    if failure.blames_upstream && !(failure.may_retry && lease.is_reused()) {
        pool.on_failure();
    }
    Err(failure)
}

fn broken(pool: &Pool, unanswered: Unanswered, progress: &Progress) -> Failure {
    let Unanswered { unsent, error } = unanswered;
    if let Some(reason) = progress.refused.get() {
        return Failure {
            reason,
            may_retry: false,
            blames_upstream: false,
            unsent: None,
        };
    }
    if error.is_of_the_body() {
        return Failure {
            reason: Reason::BrokenBody,
            may_retry: false,
            blames_upstream: false,
            unsent: None,
        };
    }
    if unsent.is_none() {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        tracing::warn!(upstream = %pool.upstream(), %error, cause, "no response");
    }
    Failure {
        reason: Reason::UpstreamFailed,
        may_retry: !error.is_nonsense(),
        blames_upstream: true,
        unsent,
    }
}

/// Runs `future` until nothing of the request body has moved for as long as the one may take whose turn it is.
async fn within<F: Future>(
    timeouts: &Timeouts,
    progress: &Progress,
    future: F,
) -> Option<F::Output> {
    let mut future = pin!(future);
    let deadline = || {
        let limit = if progress.waits_for_client() {
            timeouts.body
        } else {
            timeouts.upstream_response
        };
        progress.at.get() + limit
    };
    let first = timeouts.upstream_response.min(timeouts.body);
    let mut alarm = pin!(sleep_until(progress.at.get() + first));
    loop {
        tokio::select! {
            biased;
            output = &mut future => return Some(output),
            () = &mut alarm => {
                let deadline = deadline();
                if deadline <= Instant::now() {
                    return None;
                }
                alarm.as_mut().reset(deadline);
            }
        }
    }
}

/// Whether sending it twice does no more than sending it once (RFC 9110 section 9.2.2).
fn is_repeatable(request: &Request<RequestBody>) -> bool {
    request.body().is_empty() && fast::is_repeatable(request.method().as_str())
}

fn copy(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// Makes the head of a response ours, and sees to what follows it.
fn answer(
    peer: &Peer,
    mut response: Response<IncomingBody>,
    lease: Lease,
    client: Option<OnUpgrade>,
) -> Result<Response<ResponseBody>, Reason> {
    let protocols = hop::upgrade(Version::HTTP_11, response.headers());
    hop::strip(response.headers_mut());
    *response.version_mut() = Version::HTTP_11;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response.map(|incoming| ResponseBody::upstream(incoming, Some(lease))));
    }
    // Nobody asked for another protocol, or the upstream doesn't say which.
    let (Some(client), Some(protocols)) = (client, protocols) else {
        return Err(Reason::UpstreamFailed);
    };
    hop::set_upgrade(response.headers_mut(), protocols);
    peer.worker.counters.add(Counter::Upgrades);
    tunnel::spawn(&peer.worker, client, lease);
    Ok(response.map(|incoming| ResponseBody::upstream(incoming, None)))
}
