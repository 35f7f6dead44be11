//! Connections of HTTP/2: `frames -> streams -> inspect -> forward | refuse`.
//!
//! Heads are read, and plain requests judged, on their way to the library ([`intake`], [`desk`]). What is refused is
//! answered there; what is clean takes the upstream leg of plain requests ([`plain`]) and is answered between the
//! library's frames ([`lane`]). The library reads and writes all other frames, and whatever else there is goes through
//! hyper's client. All streams of a connection are answered in the connection's one task, so that what becomes ready
//! at a time leaves in one TLS record.

mod credit;
mod deadlines;
mod desk;
pub(super) mod frame;
mod gather;
mod hpack;
mod intake;
mod lane;
mod piece;
mod plain;
mod reply;

use std::{
    cell::Cell,
    error::Error,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream as _, future::Either, stream::FuturesUnordered};
use h2::{
    Reason as Code, RecvStream,
    server::{self, SendResponse},
};
use http::{Method, Request};
use tokio::time::{Sleep, sleep};

use self::{
    deadlines::{Deadline, Deadlines},
    gather::Gather,
    lane::{Asked, Begun, OwnReply},
    plain::{Exchange, Respond as _, SendBody as _},
    reply::{Gone, Reply},
};
pub(super) use self::{piece::Piece, reply::Flow};
use super::{
    body::{Answering, ResponseBody},
    connection::Peer,
    fast::{Buffer, Forward},
    forward,
    incoming::{IncomingBody, Received},
    interim::Interim,
    refuse::{self, Reason},
    settings::{Limits, ProxySettings},
    stalls::Stall,
    stream::ClientStream,
};

/// Bytes of a request body that a client may send ahead, on one stream and on all of a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// How many times the limit of a head the library reads, so that larger ones are refused here: where it refuses one itself,
/// it resets the stream as soon as the body comes, which takes the answer from clients that are still sending.
const HEADS_READ: usize = 4;
/// Bytes of a response that are held for one stream.
const SEND_BUFFER: usize = 64 * 1024;

type Connection<'a> = server::Connection<Gather<'a>, Piece>;
/// How a connection broke: a matter of frames or of bytes.
type Broken = Box<dyn Error + Send + Sync>;

/// Serves all requests of a connection; none is taken any more from `ending` on.
///
/// # Errors
/// How the connection broke.
pub(super) async fn serve(
    peer: &Rc<Peer>,
    client: ClientStream,
    ending: &Cell<bool>,
) -> Result<(), Broken> {
    let gather = Gather::new(client, peer, ending);
    let mut connection = handshake(&peer.worker.settings, &gather).await?;
    let mut deadlines = Deadlines::new();
    let mut streams = FuturesUnordered::new();
    let mut farewell = Farewell::new(peer.worker.settings.timeouts.header);
    std::future::poll_fn(|cx| {
        let over = loop {
            if ending.get() {
                farewell.say(&mut connection, streams.is_empty(), cx);
            }
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((_request, mut respond)))) if farewell.is_over => {
                    respond.send_reset(Code::REFUSED_STREAM);
                }
                Poll::Ready(Some(Ok((request, respond)))) => {
                    let work = take(&gather, request, respond, &deadlines, ending);
                    streams.extend(work.map(|work| Either::Right(Box::pin(work.run()))));
                }
                Poll::Ready(Some(Err(error))) => break Poll::Ready(Err(error.into())),
                Poll::Ready(None) => break Poll::Ready(Ok(())),
                Poll::Pending => break Poll::Pending,
            }
        };
        while let Some(begun) = gather.begun() {
            let answering = answer(gather.clone(), begun, deadlines.one());
            streams.push(Either::Left(answering));
        }
        // What they queue has the library wake this task; so it is written when others have had their turn, with what
        // they bring about.
        while let Poll::Ready(Some(())) = Pin::new(&mut streams).poll_next(cx) {}
        deadlines.poll(cx);
        match gather.poll_drain(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Ready(Ok(())) | Poll::Pending => over,
        }
    })
    .await
}

/// The end of a connection as its client is told of it: the library has the client answer a PING, and takes requests
/// that were on their way until it does (RFC 9113 section 6.8).
struct Farewell {
    /// How long it has for that.
    patience: Duration,
    /// From when on it has it no more.
    until: Option<Pin<Box<Sleep>>>,
    is_over: bool,
    is_shut: bool,
}

impl Farewell {
    fn new(patience: Duration) -> Self {
        Self {
            patience,
            until: None,
            is_over: false,
            is_shut: false,
        }
    }

    /// Says it, once; later on ends the connection of a client that has not answered, when it is `idle`.
    fn say(&mut self, connection: &mut Connection<'_>, idle: bool, cx: &mut Context<'_>) {
        let until = self.until.get_or_insert_with(|| {
            connection.graceful_shutdown();
            Box::pin(sleep(self.patience))
        });
        self.is_over = self.is_over || until.as_mut().poll(cx).is_ready();
        if self.is_over && idle && !self.is_shut {
            self.is_shut = true;
            connection.abrupt_shutdown(Code::NO_ERROR);
        }
    }
}

/// Bytes of a head that is read.
fn head_bytes(limits: &Limits) -> usize {
    limits.header_bytes.saturating_mul(HEADS_READ)
}

async fn handshake<'a>(
    settings: &ProxySettings,
    gather: &Gather<'a>,
) -> Result<Connection<'a>, Broken> {
    let limits = &settings.limits;
    let head = head_bytes(limits);
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(limits.http2_streams)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        // Those that come with their request count as all others do.
        .max_pending_accept_reset_streams(limits.http2_resets as usize)
        .max_local_error_reset_streams(Some(limits.http2_stream_errors as usize))
        .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX));
    let mut shaking = std::pin::pin!(builder.handshake(gather.clone()));
    std::future::poll_fn(|cx| {
        let done = shaking.as_mut().poll(cx);
        match gather.poll_drain(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Ready(Ok(())) | Poll::Pending => done.map_err(Broken::from),
        }
    })
    .await
}

/// What is left to do for a request that was read.
struct Work {
    peer: Rc<Peer>,
    answering: Answering,
    kind: Kind,
    /// Whether the answer has no body.
    is_head: bool,
}

enum Kind {
    /// It is forwarded, and bears no body.
    Plain(Exchange<Reply>, Forward),
    /// It is forwarded.
    Other(Box<(Request<IncomingBody>, Reply)>),
    /// The client takes our answer bit by bit.
    Own(Flow, bytes::Bytes),
}

/// Judges a request, and answers it where it is refused.
fn take(
    gather: &Gather<'_>,
    request: Request<RecvStream>,
    respond: SendResponse<Piece>,
    deadlines: &Deadlines,
    ending: &Cell<bool>,
) -> Option<Work> {
    let peer = gather.peer();
    let answering = Answering::begin(&peer.client.activity);
    if peer.on_request() {
        ending.set(true);
    }
    let (uri, headers) = (request.uri(), request.headers());
    let judged = if gather.was_judged(respond.stream_id().as_u32()) {
        peer.within_limits(request.version(), uri, headers)
    } else {
        peer.judge(request.version(), uri, headers)
    };
    let is_head = *request.method() == Method::HEAD;
    let mut reply = Reply::new(respond);
    let plain = match judged {
        Ok(()) if request.body().is_end_stream() => plain::forward(&peer, &request).transpose(),
        Ok(()) => Ok(None),
        Err(reason) => Err(reason),
    };
    let kind = match plain {
        Ok(Some(forward)) => Kind::Plain(
            Exchange::new(Rc::clone(&peer), reply, deadlines.one()),
            forward,
        ),
        Ok(None) => Kind::Other(Box::new((received(request), reply))),
        Err(reason) => {
            if !request.body().is_end_stream() {
                refuse::linger(&peer.worker, received(request).into_body());
            }
            let (flow, rest) = refuse(&peer, &mut reply, reason, is_head).ok()??;
            Kind::Own(flow, rest)
        }
    };
    Some(Work {
        peer,
        answering,
        kind,
        is_head,
    })
}

/// Answers a request that the library never saw, unless its client has thought better of it.
async fn answer(gather: Gather<'_>, begun: Begun, deadline: Deadline) {
    let Begun {
        stream,
        peer,
        answering: _answering,
        asked: Asked { judged, is_head },
    } = begun;
    let is_reset = stream.is_reset();
    let reply = OwnReply::new(gather, stream);
    if is_reset {
        return;
    }
    let refused = match judged {
        Ok(forward) => {
            let exchange = Exchange::new(Rc::clone(&peer), reply, deadline);
            exchange.run(forward).await
        }
        Err(reason) => Err((reply, reason)),
    };
    if let Err((reply, reason)) = refused {
        Box::pin(say(&peer, reply, reason, is_head)).await;
    }
}

fn received(request: Request<RecvStream>) -> Request<IncomingBody> {
    let (head, stream) = request.into_parts();
    let received = Received::new(stream, &head.headers);
    Request::from_parts(head, IncomingBody::Http2(received))
}

/// Says why a request is refused; gives back what the client doesn't take yet.
fn refuse(
    peer: &Peer,
    reply: &mut Reply,
    reason: Reason,
    is_head: bool,
) -> Result<Option<(Flow, bytes::Bytes)>, Gone> {
    peer.worker.counters.refuse(reason);
    let response = refuse::response(reason, &peer.worker.settings.refusal);
    reply.own(response, is_head)
}

impl Work {
    /// Sees it to its end. Whoever is gone then is told nothing.
    async fn run(self) {
        let rest = match self.kind {
            Kind::Plain(exchange, forward) => match exchange.run(forward).await {
                Ok(()) => return,
                Err((mut reply, reason)) => refuse(&self.peer, &mut reply, reason, self.is_head),
            },
            Kind::Other(other) => return Box::pin(any(self.peer, *other, self.answering)).await,
            Kind::Own(flow, rest) => Ok(Some((flow, rest))),
        };
        if let Ok(Some((mut flow, rest))) = rest {
            let stall = Some(Stall::begin(&self.peer));
            let body = ResponseBody::from(rest).answering(self.answering, stall);
            let _passed_or_gone = Box::pin(flow.pass(body)).await;
        }
    }
}

/// Says why a request is refused that the library never saw.
async fn say(peer: &Rc<Peer>, mut reply: OwnReply<'_>, reason: Reason, is_head: bool) {
    peer.worker.counters.refuse(reason);
    let response = refuse::response(reason, &peer.worker.settings.refusal);
    let (head, words) = reply::own(response);
    let mut block = Buffer::empty(&peer.worker.buffers);
    block.filling().extend_from_slice(&desk::block(&head));
    let is_all = is_head || words.is_empty();
    if let Ok(mut way) = reply.head(block, is_all)
        && !is_all
    {
        let (mut words, _stall) = (Piece::Bytes(words), Stall::begin(peer));
        // Whoever is gone is told nothing.
        let _said_or_gone = std::future::poll_fn(|cx| way.poll_put(&mut words, true, cx)).await;
    }
}

/// Forwards a request of any kind, and passes on what is answered.
async fn any(
    peer: Rc<Peer>,
    (request, mut reply): (Request<IncomingBody>, Reply),
    answering: Answering,
) {
    let is_head = *request.method() == Method::HEAD;
    let interim = Interim::default();
    let mut forwarding = std::pin::pin!(forward::forward(&peer, request, &interim));
    let response = std::future::poll_fn(|cx| {
        let response = forwarding.as_mut().poll(cx);
        while let Poll::Ready(said) = interim.poll(cx) {
            for head in said {
                reply.interim(head);
            }
        }
        match response {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            Poll::Pending => reply.poll_gone(cx).map(|()| None),
        }
    });
    let Some(response) = response.await else {
        return;
    };
    let response = response.unwrap_or_else(|reason| {
        peer.worker.counters.refuse(reason);
        let own = refuse::response(reason, &peer.worker.settings.refusal);
        own.map(ResponseBody::from)
    });
    let stall = Some(Stall::begin(&peer));
    let response = response.map(|body| body.answering(answering, stall));
    // The client has been told what can be told.
    let _passed_or_gone = reply.pass(response, is_head).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of what runs `make`.
    fn size<A, B, C, F: Future>(_make: impl FnOnce(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_state_of_a_stream_fits_the_cache_of_the_allocator() {
        // glibc keeps pieces of up to 1,032 bytes for the thread; the set of streams adds its own to each.
        let state = size(answer);
        assert!(state <= 960, "{state}");
    }
}
