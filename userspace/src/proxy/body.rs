//! Bodies on their way through: passed on frame by frame as the other side takes them, never gathered.

use std::{
    cell::{Cell, OnceCell},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::{
    activity::Activity,
    connection::Peer,
    incoming::IncomingBody,
    inspect::{Form, Verdict},
    interim::Interim,
    refuse::{self, Reason},
    stalls::Stall,
    upstream::Lease,
};

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// The client or the upstream broke it off.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    /// The same, on a stream of HTTP/2.
    #[error(transparent)]
    Stream(#[from] h2::Error),
    /// A listed token was found in it.
    #[error("a listed token")]
    ListedToken,
    /// The client sends it too slowly.
    #[error("it comes too slowly")]
    TooSlow,
}

impl BodyError {
    /// Whether this is the reset by which a stream of HTTP/2 ends in order before its upload does.
    fn wants_no_more(&self) -> bool {
        let Self::Stream(error) = self else {
            return false;
        };
        error.is_reset() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
    }
}

/// The body of a request, on its way to an upstream.
pub(super) struct RequestBody(Option<Box<Upload>>);

struct Upload {
    /// Until this is dropped.
    incoming: Option<IncomingBody>,
    /// Whether what is left of it is read when nobody wants it any more.
    lingers: bool,
    peer: Rc<Peer>,
    /// What is woken when bytes have come, and the same as a waker.
    bell: Arc<Bell>,
    waker: Waker,
    /// Bytes that came.
    received: u64,
    progress: Rc<Progress>,
    /// Where the client waits to be told to send it.
    hold: Option<Hold>,
    form: Option<Form>,
}

/// Holds a body back until the upstream has asked for it, or for a while.
///
/// Reading it would make the client send it, though the upstream may be about to refuse the request.
pub(super) struct Hold {
    /// Where the upstream asks for it.
    interim: Interim,
    /// Upstreams that know nothing of that never ask.
    patience: Pin<Box<Sleep>>,
    /// Whether the client is to be told: the library of HTTP/1.1 does so itself.
    tells: bool,
}

impl Hold {
    /// Until the upstream asks by way of `interim`, or for `patience`; then the client is asked in turn, where `tells`
    /// says so.
    pub(super) fn new(interim: &Interim, patience: Duration, tells: bool) -> Self {
        Self {
            interim: interim.clone(),
            patience: Box::pin(sleep(patience)),
            tells,
        }
    }

    /// Ready when the body may go.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.interim.poll_wants_body(cx).is_pending() {
            ready!(self.patience.as_mut().poll(cx));
        }
        if self.tells {
            self.interim.ask_for_body();
        }
        Poll::Ready(())
    }
}

/// How far a request body has come, as who waits for the response sees it.
#[derive(Debug)]
pub(super) struct Progress {
    /// When the last frame of the body was passed on.
    pub(super) at: Cell<Instant>,
    /// Why the request is refused after all.
    pub(super) refused: Cell<Option<Reason>>,
    /// Tells whether it is the client's turn, of an HTTP/2 stream: one of HTTP/1.1 is held to its time by its connection.
    bell: OnceCell<Arc<Bell>>,
    /// Whether the response has begun: what the client sends now may wait for what it reads.
    pub(super) answered: Cell<bool>,
}

impl Progress {
    /// Nothing was passed on yet.
    pub(super) fn new() -> Self {
        Self {
            at: Cell::new(Instant::now()),
            refused: Cell::new(None),
            bell: OnceCell::new(),
            answered: Cell::new(false),
        }
    }
}

impl Progress {
    /// Whether the next bytes of an HTTP/2 stream's body are still to come from its client.
    pub(super) fn waits_for_client(&self) -> bool {
        self.bell.get().is_some_and(|bell| bell.hangs())
    }
}

impl RequestBody {
    /// No body.
    pub(super) fn empty() -> Self {
        Self(None)
    }

    /// What `incoming` brings, noted in `progress`, and not before `hold` is over. On an HTTP/2 stream the rest of it
    /// `lingers`.
    pub(super) fn new(
        (incoming, lingers): (IncomingBody, bool),
        peer: &Rc<Peer>,
        progress: &Rc<Progress>,
        hold: Option<Hold>,
        form: Option<Form>,
    ) -> Self {
        if incoming.is_end_stream() {
            return Self::empty();
        }
        let bell = Arc::new(Bell::new(&peer.client.activity));
        if lingers {
            // Each progress is one body's.
            let _first = progress.bell.set(Arc::clone(&bell));
        } else {
            let patience = peer.worker.settings.timeouts.body;
            peer.client.activity.on_body_left(patience);
        }
        Self(Some(Box::new(Upload {
            incoming: Some(incoming),
            lingers,
            peer: Rc::clone(peer),
            waker: Arc::clone(&bell).into(),
            bell,
            received: 0,
            progress: Rc::clone(progress),
            hold,
            form,
        })))
    }

    /// Whether there is none, so that the request can be sent again.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl Upload {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(hold) = &mut self.hold {
            ready!(hold.poll(cx));
            self.hold = None;
        }
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        self.bell.waker.register(cx.waker());
        let polled = Pin::new(incoming).poll_frame(&mut Context::from_waker(&self.waker));
        if polled.is_pending() {
            self.bell.hang();
        } else {
            self.bell.ring();
        }
        if polled.is_ready() && self.is_end_stream() {
            self.peer.client.activity.on_body_done();
        }
        polled.map(|frame| {
            if let Some(frame) = frame {
                return Some(self.pass(frame));
            }
            self.incoming = None;
            self.peer.client.activity.on_body_done();
            self.ends_in_token().then(|| Err(self.block()))
        })
    }

    /// Whether the form's last value, which nothing but its end has ended, is a listed token.
    fn ends_in_token(&mut self) -> bool {
        let form = self.form.take();
        form.is_some_and(|mut form| self.peer.inspect_form(&mut form, &[], true) == Verdict::Block)
    }

    fn block(&self) -> BodyError {
        self.progress.refused.set(Some(Reason::ListedToken));
        BodyError::ListedToken
    }

    fn pass(&mut self, frame: Result<Frame<Bytes>, BodyError>) -> Result<Frame<Bytes>, BodyError> {
        let frame = frame?;
        self.progress.at.set(Instant::now());
        if self.is_too_slow(&frame) {
            self.progress.refused.set(Some(Reason::SlowBody));
            return Err(BodyError::TooSlow);
        }
        if let Some(trailers) = frame.trailers_ref()
            && self.peer.inspect_trailers(trailers) == Verdict::Block
        {
            return Err(self.block());
        }
        if let Some(bytes) = frame.data_ref()
            && let Some(form) = &mut self.form
        {
            // The last bytes must not go before the end is known to be clean.
            let last = self.incoming.as_ref().is_none_or(Body::is_end_stream);
            if self.peer.inspect_form(form, bytes, last) == Verdict::Block {
                return Err(self.block());
            }
        }
        Ok(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    /// Whether the client takes its time. What an upstream takes doesn't count.
    fn is_too_slow(&mut self, frame: &Frame<Bytes>) -> bool {
        self.received += frame.data_ref().map_or(0, |data| data.len() as u64);
        let settings = &self.peer.worker.settings;
        let rate = u128::from(settings.limits.body_rate);
        let waited = self.bell.waited();
        let owed = rate * waited.as_millis() / 1000;
        waited > settings.timeouts.body
            && u128::from(self.received) < owed
            && !self.progress.answered.get()
    }
}

/// Rings when the next bytes of a body have come, though whoever wants them may have no time for them yet: an upstream
/// that takes its time is not the client's fault.
#[derive(Debug)]
struct Bell {
    activity: Arc<Activity>,
    waker: AtomicWaker,
    /// Since when bytes are waited for, in the milliseconds of the connection's activity; 0 while they aren't.
    since: AtomicU64,
    /// Milliseconds for which they were waited for before.
    waited: AtomicU64,
}

impl Bell {
    fn new(activity: &Arc<Activity>) -> Self {
        Self {
            activity: Arc::clone(activity),
            waker: AtomicWaker::new(),
            since: AtomicU64::new(0),
            waited: AtomicU64::new(0),
        }
    }

    /// Bytes are waited for.
    fn hang(&self) {
        if self.since.load(Ordering::Relaxed) == 0 {
            self.since.store(self.activity.now(), Ordering::Relaxed);
            self.activity.on_body_waiting(true);
        }
    }

    fn hangs(&self) -> bool {
        self.since.load(Ordering::Relaxed) != 0
    }

    /// They have come, or are waited for no longer.
    fn ring(&self) {
        let since = self.since.swap(0, Ordering::Relaxed);
        if since != 0 {
            let more = self.activity.now().saturating_sub(since);
            self.waited.fetch_add(more, Ordering::Relaxed);
            self.activity.on_body_waiting(false);
        }
    }

    fn waited(&self) -> Duration {
        Duration::from_millis(self.waited.load(Ordering::Relaxed))
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
        self.waker.wake();
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.bell.ring();
        let Some(rest) = self.incoming.take().filter(|rest| !rest.is_end_stream()) else {
            return;
        };
        if self.lingers {
            refuse::linger(&self.peer.worker, rest);
        } else if self.progress.refused.get() == Some(Reason::SlowBody) {
            // Its client has had its time.
            self.peer.client.activity.on_body_done();
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Some(upload) => upload.poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|upload| upload.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Some(upload) => upload
                .incoming
                .as_ref()
                .map_or_else(|| SizeHint::with_exact(0), Body::size_hint),
            None => SizeHint::with_exact(0),
        }
    }
}

/// The body of a response, on its way to the client.
pub(super) struct ResponseBody {
    source: Source,
    /// Ends the request in the connection's notes when the body is done with.
    answering: Option<Answering>,
    /// Of HTTP/2 alone: the stream of HTTP/1.1 itself blocks.
    stall: Option<Stall>,
}

enum Source {
    /// Our own words.
    Own(Option<Bytes>),
    /// An upstream's.
    Upstream(Download),
}

/// What comes from an upstream, with the connection that it comes from.
struct Download {
    incoming: IncomingBody,
    lease: Option<Lease>,
}

impl ResponseBody {
    /// Passes on what an upstream sends; gives the connection back when all of it has come.
    pub(super) fn upstream(incoming: IncomingBody, lease: Option<Lease>) -> Self {
        Self {
            source: Source::Upstream(Download { incoming, lease }),
            answering: None,
            stall: None,
        }
    }

    /// The request is over when this body is.
    pub(super) fn answering(mut self, answering: Answering, stall: Option<Stall>) -> Self {
        self.answering = Some(answering);
        self.stall = stall;
        self
    }
}

impl From<Bytes> for ResponseBody {
    fn from(bytes: Bytes) -> Self {
        Self {
            source: Source::Own(Some(bytes)),
            answering: None,
            stall: None,
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = match &mut self.source {
            Source::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Source::Upstream(download) => download.poll_frame(cx),
        };
        match &self.stall {
            Some(stall) if polled.is_pending() => stall.moves(),
            Some(stall) => stall.waits(),
            None => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(bytes) => bytes.is_none(),
            Source::Upstream(download) => download.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Source::Upstream(download) => download.incoming.size_hint(),
        }
    }
}

impl Download {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = match &mut self.lease {
            Some(lease) => Self::poll_leased(&mut self.incoming, lease, cx),
            None => Pin::new(&mut self.incoming).poll_frame(cx),
        };
        match &polled {
            Poll::Ready(None) => self.end(),
            // The upstream wants no more of the request, and has said all (RFC 9113 section 8.1).
            Poll::Ready(Some(Err(error))) if error.wants_no_more() && self.has_come_whole() => {
                self.end();
                return Poll::Ready(None);
            }
            Poll::Ready(Some(Err(_broken))) => {
                if let Some(lease) = self.lease.take() {
                    lease.on_broken();
                }
            }
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }

    /// What an HTTP/1.1 connection brings comes out of driving it or not at all, so that nobody needs to be
    /// woken for it by the body's channel: its own stream does that.
    fn poll_leased(
        incoming: &mut IncomingBody,
        lease: &mut Lease,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut quiet = Context::from_waker(Waker::noop());
        let polled = Pin::new(&mut *incoming).poll_frame(&mut quiet);
        if polled.is_ready() {
            return polled;
        }
        if lease.drive(cx) {
            Pin::new(incoming).poll_frame(&mut quiet)
        } else {
            Pin::new(incoming).poll_frame(cx)
        }
    }

    /// Whether nothing is missing of what was said to come.
    fn has_come_whole(&self) -> bool {
        self.incoming.size_hint().lower() == 0
    }

    /// All has come: the connection can serve the next request.
    fn end(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // Whoever sends a body of known length does not ask for more.
        if self.incoming.is_end_stream() {
            self.end();
        }
    }
}

/// Notes the begin and the end of a request in its connection's [`Activity`].
pub(super) struct Answering(Arc<Activity>);

impl Answering {
    /// A request's head was read.
    pub(super) fn begin(activity: &Arc<Activity>) -> Self {
        activity.on_request();
        Self(Arc::clone(activity))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.on_answered();
    }
}
