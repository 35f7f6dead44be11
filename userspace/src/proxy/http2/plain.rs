//! Requests of HTTP/2 without a body: their upstream leg is that of plain requests of HTTP/1.1.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Buf as _;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, uri::Scheme,
};
use tokio::time::Instant;

use super::{
    deadlines::Deadline,
    piece::Piece,
    reply::{Flow, Gone, Reply},
};
use crate::proxy::{
    connection::Peer,
    counters::Closed,
    date,
    fast::{
        self, Answer, Asker, Broken, Buffer, Buffers, Failure, Forward, Framing, Head, Kind,
        Malformed, Parsed,
    },
    hop,
    refuse::Reason,
    stalls::Stall,
    target,
    upstream::Bare,
};

/// Fields that most responses have no more of.
const FIELDS: usize = 12;

/// What is sent to an upstream for a request that was judged clean; `None` where it asks for more than a response,
/// or may be read in two ways.
pub(super) fn forward<B>(peer: &Peer, request: &Request<B>) -> Option<Result<Forward, Reason>> {
    let uri = request.uri();
    let host = uri.authority()?.as_str();
    let known = [Scheme::HTTP, Scheme::HTTPS];
    let target = uri.path_and_query()?.as_str();
    let headers = request.headers();
    let is_plain = peer.worker.settings.has_plain_upstreams()
        && request.method() != Method::CONNECT
        && uri.scheme().is_some_and(|scheme| known.contains(scheme))
        && target::is_plain(target)
        && target::is_host(host.as_bytes())
        && !host.contains('@')
        && headers
            .keys()
            .all(|name| matches!(fast::kind(name.as_str()), Kind::Other));
    let fields = || {
        let fields = headers.iter();
        fields.map(|(name, value)| (name.as_str(), value.as_bytes()))
    };
    let line = Line {
        method: request.method().as_str(),
        host,
        target,
    };
    is_plain.then(|| ask(peer, line, fields))
}

/// What a plain request asks for.
#[derive(Clone, Copy)]
pub(super) struct Line<'r> {
    pub(super) method: &'r str,
    pub(super) host: &'r str,
    pub(super) target: &'r str,
}

/// What is sent to an upstream for a plain request.
///
/// # Errors
/// Why nothing is.
pub(super) fn ask<'f, I: Iterator<Item = (&'f str, &'f [u8])>>(
    peer: &Peer,
    line: Line<'_>,
    fields: impl Fn() -> I,
) -> Result<Forward, Reason> {
    let Line {
        method,
        host,
        target,
    } = line;
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let group = peer
        .routes()
        .find_for(peer.port(), host.as_bytes(), path)
        .ok_or(Reason::NoUpstream)?;
    let mut head = Buffer::empty(&peer.worker.buffers);
    let out = head.filling();
    fast::write_line(out, method, target);
    hop::write_field(out, "host", host.as_bytes());
    write_fields(out, peer, fields, host);
    Ok(Forward {
        head,
        group: Rc::clone(group),
        is_head: method == "HEAD",
        is_repeatable: fast::is_repeatable(method),
    })
}

fn write_fields<'f, I: Iterator<Item = (&'f str, &'f [u8])>>(
    out: &mut Vec<u8>,
    peer: &Peer,
    fields: impl Fn() -> I,
    host: &str,
) {
    let provenance = &peer.client.provenance;
    let is_crumb = |name: &str| name == header::COOKIE.as_str();
    let mut has_crumbs = false;
    for (name, value) in fields() {
        if is_crumb(name) {
            has_crumbs = true;
        } else if !provenance.replaces(name) {
            hop::write_field(out, name, value);
        }
    }
    // The crumbs are one field in HTTP/1.1 (RFC 9113 section 8.2.3).
    if has_crumbs {
        let mut between = &b"cookie: "[..];
        for (_, crumb) in fields().filter(|(name, _)| is_crumb(name)) {
            out.extend_from_slice(between);
            out.extend_from_slice(crumb);
            between = b"; ";
        }
        out.extend_from_slice(b"\r\n");
    }
    provenance.write(out, fields, host.as_bytes(), "2.0");
    out.extend_from_slice(b"\r\n");
}

/// Where the answer to a plain request goes.
pub(super) trait Respond {
    /// A head as it is sent.
    type Head;
    /// Where a body goes.
    type Body: SendBody;

    /// Makes a head; `None` where HTTP/2 has no way to say it.
    fn make_head(&self, buffers: &Buffers, parsed: &Parsed<'_>) -> Option<Self::Head>;

    /// Says something in between (1xx); whoever is gone hears nothing.
    fn interim(&mut self, buffers: &Buffers, parsed: &Parsed<'_>);

    /// Ready when the client wants no answer any more.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Sends a head, once; `last` says that no body follows.
    fn head(&mut self, head: Self::Head, last: bool) -> Result<Self::Body, Gone>;
}

/// Sends a body.
pub(super) trait SendBody {
    /// Whether so many bytes can be sent without waiting.
    fn takes(&mut self, bytes: usize) -> bool;

    /// Sends a piece as the client takes it; ready when all is sent. `piece` and `last` are the same in all calls
    /// between.
    fn poll_put(
        &mut self,
        piece: &mut Piece,
        last: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Gone>>;

    /// Ready when the client wants no more.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// The response breaks off.
    fn break_off(&mut self) -> Gone;
}

impl Respond for Reply {
    type Head = Response<()>;
    type Body = Flow;

    fn make_head(&self, _buffers: &Buffers, parsed: &Parsed<'_>) -> Option<Response<()>> {
        let mut head = begin(parsed)?;
        let headers = head.headers_mut();
        if let Some(length) = parsed.length() {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        if !parsed.has_date() {
            headers.insert(header::DATE, date::value());
        }
        Some(head)
    }

    fn interim(&mut self, _buffers: &Buffers, parsed: &Parsed<'_>) {
        if let Some(head) = begin(parsed) {
            Self::interim(self, head);
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Self::poll_gone(self, cx)
    }

    fn head(&mut self, head: Response<()>, last: bool) -> Result<Flow, Gone> {
        Self::head(self, head, last)
    }
}

impl SendBody for Flow {
    fn takes(&mut self, _bytes: usize) -> bool {
        self.has_room()
    }

    fn poll_put(
        &mut self,
        piece: &mut Piece,
        last: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Gone>> {
        if piece.has_remaining() {
            ready!(self.poll_room(cx))?;
        } else if !last {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(self.put(std::mem::take(piece), last))
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Self::poll_gone(self, cx)
    }

    fn break_off(&mut self) -> Gone {
        Self::break_off(self)
    }
}

/// A stream whose request is being answered by an upstream.
pub(super) struct Exchange<R> {
    peer: Rc<Peer>,
    reply: R,
    deadline: Deadline,
}

impl<R: Respond> Exchange<R> {
    pub(super) fn new(peer: Rc<Peer>, reply: R, deadline: Deadline) -> Self {
        Self {
            peer,
            reply,
            deadline,
        }
    }

    /// Asks an upstream and passes on what it answers; gives the stream back with the reason where it answers nothing.
    pub(super) async fn run(mut self, forward: Forward) -> Result<(), (R, Reason)> {
        let worker = Rc::clone(&self.peer.worker);
        let rest = match fast::ask(&worker, &mut self, forward).await {
            Ok(answer) => self.begin(answer),
            Err(Broken::Upstream(reason)) => return Err((self.reply, reason)),
            Err(Broken::Client(_gone)) => return Ok(()),
        };
        if let Ok(Some(rest)) = rest {
            // The client has been told what can be told.
            let _passed_or_gone = rest.await;
        }
        Ok(())
    }

    /// Sends the head and what has come with it; gives what is left to do. Most responses have come whole, and what
    /// long ones need takes no room in them.
    fn begin<'r>(&mut self, answer: Answer<R::Head>) -> Result<Option<Passing<'r>>, Gone>
    where
        R::Body: 'r,
    {
        let Answer { bare, input, head } = answer;
        let Head {
            made,
            len,
            framing,
            keeps,
        } = head;
        let mut rest = Rest {
            flow: self.reply.head(made, framing.is_done())?,
            peer: Rc::clone(&self.peer),
            bare: Some(bare),
            framing,
            keeps,
        };
        if rest.framing.is_done() {
            rest.let_go(len < input.len());
            return Ok(None);
        }
        let mut piece = rest.next(input, len)?;
        if rest.framing.is_done() && rest.flow.takes(piece.remaining()) {
            let mut nobody = Context::from_waker(Waker::noop());
            if let Poll::Ready(put) = rest.flow.poll_put(&mut piece, true, &mut nobody) {
                return put.map(|()| None);
            }
        }
        Ok(Some(Box::pin(rest.pass(piece))))
    }
}

/// Passes a body on, as it comes.
type Passing<'r> = Pin<Box<dyn Future<Output = Result<(), Gone>> + 'r>>;

/// A response whose body is on its way.
struct Rest<F> {
    peer: Rc<Peer>,
    /// Where it comes from, until all has come.
    bare: Option<Bare>,
    framing: Framing,
    /// Whether the upstream keeps the connection open.
    keeps: bool,
    flow: F,
}

impl<F: SendBody> Rest<F> {
    /// The data in `read` from `from` on.
    fn next(&mut self, read: Buffer, from: usize) -> Result<Piece, Gone> {
        let buffers = &self.peer.worker.buffers;
        let Ok((piece, more)) = next_piece(&mut self.framing, read, from, buffers) else {
            return Err(self.break_off());
        };
        if self.framing.is_done() {
            self.let_go(more);
        }
        Ok(piece)
    }

    fn break_off(&mut self) -> Gone {
        if let Some(bare) = &self.bare {
            bare.on_broken();
        }
        self.flow.break_off()
    }

    /// The upstream's part is over, however long the client takes; nothing may have followed it.
    fn let_go(&mut self, more: bool) {
        if let Some(bare) = self.bare.take().filter(|_| self.keeps && !more) {
            bare.give_back();
        }
    }

    async fn pass(mut self, first: Piece) -> Result<(), Gone> {
        let mut piece = first;
        loop {
            let last = self.framing.is_done();
            self.put(piece, last).await?;
            let Some(bare) = self.bare.as_mut().filter(|_| !last) else {
                return Ok(());
            };
            let mut input = Buffer::empty(&self.peer.worker.buffers);
            let flow = &mut self.flow;
            let gone = |cx: &mut Context<'_>| flow.poll_gone(cx).map(|()| Failure::Client);
            match fast::read(bare.stream(), &mut input, gone).await {
                Ok(0) if matches!(self.framing, Framing::UntilClose) => {
                    return self.put(Piece::default(), true).await;
                }
                Ok(1..) => {}
                Err(Failure::Client) => return Err(Gone),
                Ok(0) | Err(_) => return Err(self.break_off()),
            }
            piece = self.next(input, 0)?;
        }
    }

    /// Sends a piece as the client takes it.
    async fn put(&mut self, mut piece: Piece, last: bool) -> Result<(), Gone> {
        let Self { flow, peer, .. } = self;
        let mut stall = None;
        std::future::poll_fn(|cx| {
            let put = flow.poll_put(&mut piece, last, cx);
            if put.is_pending() {
                stall.get_or_insert_with(|| Stall::begin(peer));
            }
            put
        })
        .await
    }
}

/// The data in `read` from `from` on, and whether more than the body follows it.
fn next_piece(
    framing: &mut Framing,
    read: Buffer,
    from: usize,
    buffers: &Buffers,
) -> Result<(Piece, bool), Malformed> {
    let rest = read.get(from..).unwrap_or_default();
    if let Some(len) = framing.take_as_it_is(rest) {
        let more = len < rest.len();
        return Ok((Piece::of(read, from, from + len), more));
    }
    let mut data = Buffer::empty(buffers);
    let taken = framing.take_data(rest, |bytes| data.filling().extend_from_slice(bytes))?;
    Ok((Piece::whole(data), taken < rest.len()))
}

/// Status and fields, but those that end here and those of the length; `None` where HTTP/2 has no way to say them.
fn begin(parsed: &Parsed<'_>) -> Option<Response<()>> {
    let mut headers = HeaderMap::with_capacity(FIELDS);
    for field in parsed.passed_on() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    let mut head = Response::new(());
    *head.status_mut() = StatusCode::from_u16(parsed.status).ok()?;
    *head.headers_mut() = headers;
    Some(head)
}

impl<R: Respond> Asker for Exchange<R> {
    type Head = R::Head;

    fn make_head(&mut self, parsed: &Parsed<'_>) -> Option<R::Head> {
        self.reply.make_head(&self.peer.worker.buffers, parsed)
    }

    /// It is queued at once.
    type Interim = ();

    fn make_interim(&mut self, parsed: &Parsed<'_>) {
        self.reply.interim(&self.peer.worker.buffers, parsed);
    }

    async fn pass_interim(&mut self, (): ()) -> Result<(), Closed> {
        Ok(())
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.reply.poll_gone(cx)
    }

    fn poll_late(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        self.deadline.poll(deadline, cx)
    }
}
