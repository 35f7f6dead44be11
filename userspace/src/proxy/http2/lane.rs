//! Streams whose requests are plain: judged and answered without the library.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Buf as _;
use h2::Reason as Code;

use super::{
    frame::{self, Head},
    gather::Gather,
    hpack,
    piece::Piece,
    plain::{Respond, SendBody},
    reply::Gone,
};
use crate::proxy::{
    body::Answering,
    connection::Peer,
    date,
    fast::{Buffer, Buffers, Forward, Parsed},
    refuse::Reason,
};

/// One stream, as both sides of the connection see it.
pub(super) struct Stream {
    id: u32,
    /// What the client takes on it; less than nothing where it has thought better of it (RFC 9113 section 6.9.2).
    window: Cell<i64>,
    /// Whether the client wants no more.
    is_reset: Cell<bool>,
    /// Whether its end was sent.
    is_over: Cell<bool>,
    /// Woken when one of these changes.
    waker: RefCell<Option<Waker>>,
}

/// A request whose answer is to be begun.
pub(super) struct Begun {
    pub(super) stream: Rc<Stream>,
    pub(super) peer: Rc<Peer>,
    pub(super) answering: Answering,
    pub(super) asked: Asked,
}

/// What comes of a request that is clean.
pub(super) struct Asked {
    /// What is sent to an upstream, or why nothing is.
    pub(super) judged: Result<Forward, Reason>,
    /// Whether the answer has no body.
    pub(super) is_head: bool,
}

/// All such streams of a connection that are open.
#[derive(Default)]
pub(super) struct Lane {
    open: Vec<Rc<Stream>>,
    /// Whether some wait for what all of them share.
    has_waiting: bool,
    begun: VecDeque<Begun>,
}

impl Lane {
    /// How many are open.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Opens one.
    pub(super) fn open(&mut self, id: u32, window: u32) -> Rc<Stream> {
        let stream = Rc::new(Stream {
            id,
            window: Cell::new(i64::from(window)),
            is_reset: Cell::new(false),
            is_over: Cell::new(false),
            waker: RefCell::new(None),
        });
        self.open.push(Rc::clone(&stream));
        stream
    }

    /// Its answer is to be begun.
    pub(super) fn begin(&mut self, begun: Begun) {
        self.begun.push_back(begun);
    }

    /// The next one to begin.
    pub(super) fn begun(&mut self) -> Option<Begun> {
        self.begun.pop_front()
    }

    /// The open one with this number.
    pub(super) fn find(&self, id: u32) -> Option<&Stream> {
        let found = self.open.iter().find(|stream| stream.id == id);
        found.map(|stream| &**stream)
    }

    /// It is over.
    fn close(&mut self, id: u32) {
        if let Some(place) = self.open.iter().position(|stream| stream.id == id) {
            self.open.swap_remove(place);
        }
    }

    /// The client takes so much more on each.
    pub(super) fn add(&self, more: i64) {
        for stream in &self.open {
            stream.window.set(stream.window.get() + more);
            stream.wake();
        }
    }

    /// There is more of what all of them share: those that wait look again.
    pub(super) fn on_room(&mut self) {
        if std::mem::take(&mut self.has_waiting) {
            self.open.iter().for_each(|stream| stream.wake());
        }
    }
}

impl Stream {
    /// The client takes so many bytes more; where that is nothing, or more than can be, the stream is over.
    pub(super) fn add(&self, more: u32) {
        let window = self.window.get() + i64::from(more);
        self.window.set(window);
        if more == 0 || window > i64::from(u32::MAX >> 1) {
            self.reset();
        }
        self.wake();
    }

    /// The client wants no more.
    pub(super) fn reset(&self) {
        self.is_reset.set(true);
        self.wake();
    }

    /// Whether it wants no more.
    pub(super) fn is_reset(&self) -> bool {
        self.is_reset.get()
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn wait<T>(&self, cx: &Context<'_>) -> Poll<T> {
        let mut waker = self.waker.borrow_mut();
        match &mut *waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

/// The way out of one stream. Dropped before its end, it resets the stream.
pub(super) struct Way<'a> {
    gather: Gather<'a>,
    stream: Rc<Stream>,
}

/// The answer on one stream, until its head is sent.
pub(super) struct OwnReply<'a>(Option<Way<'a>>);

impl<'a> OwnReply<'a> {
    /// The answer on `stream` of the connection behind `gather`.
    pub(super) fn new(gather: Gather<'a>, stream: Rc<Stream>) -> Self {
        Self(Some(Way { gather, stream }))
    }
}

impl<'a> Respond for OwnReply<'a> {
    /// As a block.
    type Head = Buffer;
    type Body = Way<'a>;

    fn make_head(&self, buffers: &Buffers, parsed: &Parsed<'_>) -> Option<Buffer> {
        let mut block = begin(buffers, parsed);
        let out = block.filling();
        if let Some(length) = parsed.length() {
            hpack::write_response("content-length", length.to_string().as_bytes(), out);
        }
        if !parsed.has_date() {
            hpack::write_response("date", &date::now(), out);
        }
        Some(block)
    }

    fn interim(&mut self, buffers: &Buffers, parsed: &Parsed<'_>) {
        if let Some(way) = &self.0 {
            way.write_head(&begin(buffers, parsed), false);
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.0 {
            Some(way) => way.poll_reset(cx),
            None => Poll::Ready(()),
        }
    }

    fn head(&mut self, head: Buffer, last: bool) -> Result<Way<'a>, Gone> {
        let way = self.0.take().filter(|way| !way.stream.is_reset());
        let way = way.ok_or(Gone)?;
        way.write_head(&head, last);
        Ok(way)
    }
}

/// Status and fields, but those that end here and those of the length.
fn begin(buffers: &Buffers, parsed: &Parsed<'_>) -> Buffer {
    let mut block = Buffer::empty(buffers);
    let out = block.filling();
    hpack::write_status(parsed.status, out);
    for field in parsed.passed_on() {
        hpack::write_response(field.name, field.value, out);
    }
    block
}

impl Way<'_> {
    fn write_head(&self, block: &[u8], last: bool) {
        let id = self.stream.id;
        self.gather
            .write(|out| frame::write_head(id, block, last, out));
        self.stream.is_over.set(last);
    }

    fn write_data(&self, bytes: &[u8], last: bool) {
        let head = Head {
            len: bytes.len(),
            flags: if last { frame::END_STREAM } else { 0 },
            ..Head::of(frame::DATA, self.stream.id)
        };
        self.gather.write(|out| {
            head.write(out);
            out.extend_from_slice(bytes);
        });
        self.gather.spend(bytes.len());
        let window = &self.stream.window;
        window.set(window.get() - i64::try_from(bytes.len()).unwrap_or(i64::MAX));
        self.stream.is_over.set(last);
    }

    fn poll_reset(&self, cx: &Context<'_>) -> Poll<()> {
        if self.stream.is_reset() {
            return Poll::Ready(());
        }
        self.stream.wait(cx)
    }

    /// Bytes that can be sent now.
    fn room(&self) -> usize {
        let window = usize::try_from(self.stream.window.get()).unwrap_or(0);
        window.min(frame::MOST).min(self.gather.room())
    }
}

impl SendBody for Way<'_> {
    fn takes(&mut self, bytes: usize) -> bool {
        !self.stream.is_reset() && bytes <= self.room()
    }

    fn poll_put(
        &mut self,
        piece: &mut Piece,
        last: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Gone>> {
        loop {
            if self.stream.is_reset() {
                return Poll::Ready(Err(Gone));
            }
            let left = piece.remaining();
            if left == 0 {
                if last && !self.stream.is_over.get() {
                    self.write_data(&[], true);
                }
                return Poll::Ready(Ok(()));
            }
            let len = left.min(self.room());
            if len == 0 {
                self.gather.with_lane(|lane| lane.has_waiting = true);
                ready!(self.stream.wait(cx));
            }
            let bytes = piece.chunk().get(..len).unwrap_or_default();
            self.write_data(bytes, last && len == left);
            piece.advance(len);
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_reset(cx)
    }

    fn break_off(&mut self) -> Gone {
        Gone
    }
}

impl Drop for Way<'_> {
    fn drop(&mut self) {
        let Stream {
            id,
            is_over,
            is_reset,
            ..
        } = &*self.stream;
        if !is_over.get() && !is_reset.get() {
            self.gather
                .write(|out| frame::write_reset(*id, Code::INTERNAL_ERROR.into(), out));
        }
        self.gather.with_lane(|lane| lane.close(*id));
    }
}
