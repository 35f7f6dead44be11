//! Requests of HTTP/2 without a body: their upstream leg is that of plain requests of HTTP/1.1.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes};
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
    if !is_plain {
        return None;
    }
    let Some(group) = peer
        .routes()
        .find_for(peer.port(), host.as_bytes(), uri.path())
    else {
        return Some(Err(Reason::NoUpstream));
    };
    let method = request.method().as_str();
    let mut head = Buffer::empty(&peer.worker.buffers);
    let out = head.filling();
    fast::write_line(out, method, target);
    hop::write_field(out, "host", host.as_bytes());
    write_fields(out, peer, headers, host);
    Some(Ok(Forward {
        head,
        group: Rc::clone(group),
        is_head: *request.method() == Method::HEAD,
        is_repeatable: fast::is_repeatable(method),
    }))
}

fn write_fields(out: &mut Vec<u8>, peer: &Peer, headers: &HeaderMap, host: &str) {
    let provenance = &peer.client.provenance;
    let fields = || {
        let fields = headers.iter();
        fields.map(|(name, value)| (name.as_str(), value.as_bytes()))
    };
    for (name, value) in fields() {
        if name != header::COOKIE.as_str() && !provenance.replaces(name) {
            hop::write_field(out, name, value);
        }
    }
    // The crumbs are one field in HTTP/1.1 (RFC 9113 section 8.2.3).
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    if let Some(first) = crumbs.next() {
        out.extend_from_slice(b"cookie: ");
        out.extend_from_slice(first.as_bytes());
        for crumb in crumbs {
            out.extend_from_slice(b"; ");
            out.extend_from_slice(crumb.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
    provenance.write(out, fields, host.as_bytes(), "2.0");
    out.extend_from_slice(b"\r\n");
}

/// A stream whose request is being answered by an upstream.
pub(super) struct Exchange {
    peer: Rc<Peer>,
    reply: Reply,
    deadline: Deadline,
}

impl Exchange {
    pub(super) fn new(peer: Rc<Peer>, reply: Reply, deadline: Deadline) -> Self {
        Self {
            peer,
            reply,
            deadline,
        }
    }

    /// Asks an upstream and passes on what it answers; gives the stream back with the reason where it answers nothing.
    pub(super) async fn run(mut self, forward: Forward) -> Result<(), (Reply, Reason)> {
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
    fn begin(&mut self, answer: Answer<Response<()>>) -> Result<Option<Passing>, Gone> {
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
        let piece = rest.next(input, len)?;
        if rest.framing.is_done() && rest.flow.has_room() {
            rest.flow.put(piece, true)?;
            return Ok(None);
        }
        Ok(Some(Box::pin(rest.pass(piece))))
    }
}

/// Passes a body on, as it comes.
type Passing = Pin<Box<dyn Future<Output = Result<(), Gone>>>>;

/// A response whose body is on its way.
struct Rest {
    peer: Rc<Peer>,
    /// Where it comes from, until all has come.
    bare: Option<Bare>,
    framing: Framing,
    /// Whether the upstream keeps the connection open.
    keeps: bool,
    flow: Flow,
}

impl Rest {
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
                    return self.flow.put(Piece::Bytes(Bytes::new()), true);
                }
                Ok(1..) => {}
                Err(Failure::Client) => return Err(Gone),
                Ok(0) | Err(_) => return Err(self.break_off()),
            }
            piece = self.next(input, 0)?;
        }
    }

    /// Sends a piece once the client takes some of it.
    async fn put(&mut self, piece: Piece, last: bool) -> Result<(), Gone> {
        let Self { flow, peer, .. } = self;
        if piece.has_remaining() {
            let mut stall = None;
            std::future::poll_fn(|cx| {
                let room = flow.poll_room(cx);
                if room.is_pending() {
                    stall.get_or_insert_with(|| Stall::begin(peer));
                }
                room
            })
            .await?;
        } else if !last {
            return Ok(());
        }
        flow.put(piece, last)
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

impl Asker for Exchange {
    type Head = Response<()>;

    fn make_head(&mut self, parsed: &Parsed<'_>) -> Option<Response<()>> {
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

    /// It is queued at once.
    type Interim = ();

    fn make_interim(&mut self, parsed: &Parsed<'_>) {
        if let Some(head) = begin(parsed) {
            self.reply.interim(head);
        }
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
