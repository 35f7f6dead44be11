//! Frames on their way between a client and the library.
//!
//! What comes in is looked at by [`intake`](super::intake), and may be answered without the library
//! ([`lane`](super::lane)), whose frames come between the library's. It flushes at each DATA frame of some size, and each
//! flush would be a TLS record and a call of the system. So nothing is written when it flushes: the connection writes what
//! has come together once all its streams that are ready have had their turn.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
};

use h2::Reason as Code;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use super::{
    desk::{self, Desk, Judged},
    frame::{self, Head, Walk},
    intake::{Intake, Step},
    lane::{Begun, Lane},
};
use crate::proxy::{
    body::Answering, connection::Peer, counters::Closed, fast::Buffer, stream::ClientStream,
};

/// Bytes that are held at most: a TLS record.
const HELD: usize = 16 * 1024;
/// Requests that are judged at a time; then others have their turn.
const TURN: usize = 64;

/// A client connection and what is to be written to it.
struct Gathered<'a> {
    client: ClientStream,
    intake: Intake,
    desk: Rc<Desk<'a>>,
    held: Buffer,
    /// How many of these were written.
    written: usize,
    /// Whether TLS may hold some of what was.
    is_unflushed: bool,
    outgoing: Outgoing,
    /// Frames of ours that come as soon as the library's frame at hand has ended.
    next: Vec<u8>,
    /// Streams that the client has opened beyond those that it may.
    too_many: u32,
    /// Whether the library has closed the connection, as far as it goes.
    is_closing: bool,
    /// Whether something waits here for a turn although nobody will be woken for it.
    waits: bool,
}

/// The frames that the library sends.
#[derive(Default)]
struct Outgoing {
    walk: Walk,
    /// Whether the next frame goes on with a head.
    in_head: bool,
    /// What the next bytes are to be, where a number that was raised is cut.
    raised: Vec<u8>,
}

/// The library's and the connection's hold on it.
#[derive(Clone)]
pub(super) struct Gather<'a>(Rc<RefCell<Gathered<'a>>>);

impl<'a> Gather<'a> {
    /// Gathers what is written to `client`; requests are judged on their way in until `ending` is set.
    pub(super) fn new(client: ClientStream, peer: &Rc<Peer>, ending: &'a Cell<bool>) -> Self {
        let buffers = &peer.worker.buffers;
        let head = super::head_bytes(&peer.worker.settings.limits);
        Self(Rc::new(RefCell::new(Gathered {
            client,
            intake: Intake::new(head, buffers),
            desk: Rc::new(Desk::new(peer, ending)),
            held: Buffer::empty(buffers),
            written: 0,
            is_unflushed: false,
            outgoing: Outgoing::default(),
            next: Vec::new(),
            too_many: 0,
            is_closing: false,
            waits: false,
        })))
    }

    /// The client under the settings in force now.
    pub(super) fn peer(&self) -> Rc<Peer> {
        self.0.borrow().desk.peer()
    }

    /// The next request whose answer is to be begun.
    pub(super) fn begun(&self) -> Option<Begun> {
        self.0.borrow_mut().intake.lane.begun()
    }

    /// Writes frames.
    pub(super) fn write(&self, frames: impl FnOnce(&mut Vec<u8>)) {
        frames(self.0.borrow_mut().out());
    }

    /// Bytes of bodies that can be written now, as far as all streams go.
    pub(super) fn room(&self) -> usize {
        let gathered = self.0.borrow();
        let held = gathered.held.len() + gathered.next.len();
        HELD.saturating_sub(held).min(gathered.intake.credit())
    }

    /// So many were.
    pub(super) fn spend(&self, bytes: usize) {
        self.0.borrow_mut().intake.spend(bytes);
    }

    /// Does something to the streams of ours.
    pub(super) fn with_lane(&self, act: impl FnOnce(&mut Lane)) {
        let mut gathered = self.0.borrow_mut();
        act(&mut gathered.intake.lane);
        gathered.waits |= gathered.is_closing && gathered.intake.lane.len() == 0;
    }

    /// Whether the request on this stream was judged on its way; to be asked of each, in their order.
    pub(super) fn was_judged(&self, stream: u32) -> bool {
        self.0.borrow_mut().intake.was_judged(stream)
    }

    /// Writes what is held.
    pub(super) fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = self.0.borrow_mut();
        let drained = gathered.poll_drain(cx);
        if std::mem::take(&mut gathered.waits) || gathered.intake.is_due() {
            cx.waker().wake_by_ref();
        }
        drained
    }
}

impl Outgoing {
    /// Takes the library's next bytes, of which `ahead` come later; gives how many of them are announced as bodies. Where
    /// it says which stream is the last that is answered, that is none before `newest`.
    fn note(&mut self, bytes: &mut [u8], ahead: &[u8], newest: u32) -> usize {
        let cut = self.raised.len().min(bytes.len());
        for (byte, raised) in bytes.iter_mut().zip(self.raised.drain(..cut)) {
            *byte = raised;
        }
        let (mut bodies, mut at) = (0, 0);
        loop {
            let mut rest = bytes.get(at..).unwrap_or_default();
            let Some(head) = self.walk.next(&mut rest) else {
                return bodies;
            };
            at = bytes.len() - rest.len();
            match head.kind {
                frame::DATA => bodies += head.len,
                frame::HEADERS | frame::PUSH_PROMISE | frame::CONTINUATION => {
                    self.in_head = !head.has(frame::END_HEADERS);
                }
                frame::GOAWAY => {
                    self.raise(bytes.get_mut(at..).unwrap_or_default(), ahead, newest);
                }
                _ => {}
            }
        }
    }

    /// Raises the number that `here` begins with and that ends in `ahead`, should it be cut.
    fn raise(&mut self, here: &mut [u8], ahead: &[u8], newest: u32) {
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(here.iter().chain(ahead)) {
            *to = *from;
        }
        let last = u32::from_be_bytes(last).max(newest).to_be_bytes();
        for (to, from) in here.iter_mut().zip(last) {
            *to = from;
        }
        self.raised.extend(last.iter().skip(here.len()));
    }

    /// Whether a frame of another stream may come next.
    fn is_between(&self) -> bool {
        self.walk.is_between() && !self.in_head
    }
}

impl Gathered<'_> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.held.get(self.written..)
            && !rest.is_empty()
        {
            match ready!(Pin::new(&mut self.client).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.written += n,
            }
            self.is_unflushed = true;
        }
        if self.written > 0 {
            self.written = 0;
            self.held.clear();
            self.held.settle();
            self.intake.lane.on_room();
        }
        if self.is_unflushed {
            // A socket that is full leaves records with TLS, and nothing else may be written for long.
            ready!(Pin::new(&mut self.client).poll_flush(cx))?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Holds what there is room for; says how many bytes that is.
    fn poll_hold(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.held.len() >= HELD {
            ready!(self.poll_drain(cx))?;
        }
        let before = self.held.len();
        for buf in bufs {
            let room = HELD.saturating_sub(self.held.len());
            let (taken, ahead) = buf.split_at(room.min(buf.len()));
            let held = self.held.filling();
            let start = held.len();
            held.extend_from_slice(taken);
            let new = held.get_mut(start..).unwrap_or_default();
            let bodies = self.outgoing.note(new, ahead, self.intake.newest_own());
            self.intake.on_sent(bodies);
        }
        let taken = self.held.len() - before;
        if self.outgoing.is_between() && !self.next.is_empty() {
            self.held.filling().append(&mut self.next);
        }
        Poll::Ready(Ok(taken))
    }

    /// Where frames of ours are written.
    fn out(&mut self) -> &mut Vec<u8> {
        if self.outgoing.is_between() {
            self.held.filling()
        } else {
            &mut self.next
        }
    }

    /// Reads what is for the library, and answers what is not.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        library: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, mut left) = (library.filled().len(), TURN);
        loop {
            self.intake.give(library);
            let given = library.filled().len() > before;
            let may_go_on = left > 0 && self.may_answer(cx)?;
            if library.remaining() == 0 || given && !may_go_on {
                return Poll::Ready(Ok(()));
            }
            if !may_go_on {
                // Unless it is the client that has to read first, nobody else wakes the task.
                self.waits |= self.has_room();
                return Poll::Pending;
            }
            match self.intake.step() {
                Step::Next => {}
                Step::Judge(head) => {
                    self.judge(head)?;
                    left -= 1;
                }
                Step::Read if given => return Poll::Ready(Ok(())),
                Step::Read => {
                    let input = self.intake.input();
                    let read = pin!(self.client.read_buf(input.filling())).poll(cx);
                    input.settle();
                    if ready!(read)? == 0 && !self.intake.on_end() {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }

    /// Whether an answer can be written now.
    fn may_answer(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        if !self.has_room()
            && let Poll::Ready(Err(error)) = self.poll_drain(cx)
        {
            return Err(error);
        }
        Ok(self.has_room())
    }

    fn has_room(&self) -> bool {
        self.held.len() + self.next.len() + desk::LONGEST <= HELD
    }

    fn judge(&mut self, head: Head) -> io::Result<()> {
        let stream = head.stream;
        let desk = Rc::clone(&self.desk);
        match desk.judge(&self.intake) {
            Judged::Refused { is_head } => {
                let refused = desk.refuse(stream, is_head, self.out());
                self.intake.refused(stream, refused.body);
                // It was the last that the connection may have.
                self.waits |= refused.is_last;
            }
            Judged::Clean(peer, asked) => {
                let limits = &peer.worker.settings.limits;
                if self.intake.lane.len()
                    >= usize::try_from(limits.http2_streams).unwrap_or(usize::MAX)
                {
                    return self.refuse_stream(&peer, stream);
                }
                let answering = Answering::begin(&peer.client.activity);
                self.waits |= desk.on_request(&peer);
                let stream = self.intake.begin(stream);
                self.intake.lane.begin(Begun {
                    stream,
                    peer,
                    answering,
                    asked,
                });
            }
            Judged::CleanThere => {
                self.intake.hand_on(head, true);
            }
            Judged::NotHere => {
                self.intake.hand_on(head, false);
            }
        }
        Ok(())
    }

    /// One more than a client may open; it has been told so.
    fn refuse_stream(&mut self, peer: &Peer, stream: u32) -> io::Result<()> {
        self.too_many += 1;
        if self.too_many > peer.worker.settings.limits.http2_stream_errors {
            peer.client.activity.on_fault(Closed::Http2Excess);
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "more streams than allowed",
            ));
        }
        self.intake.refused(stream, 0);
        frame::write_reset(stream, Code::REFUSED_STREAM.into(), self.out());
        Ok(())
    }

    /// The library is done with the connection; streams of ours go on.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_closing = true;
        ready!(self.poll_drain(cx))?;
        while self.intake.lane.len() > 0 {
            let mut forgotten = [0; 1024];
            let mut forgotten = ReadBuf::new(&mut forgotten);
            ready!(self.poll_read(cx, &mut forgotten))?;
            if forgotten.filled().is_empty() {
                break;
            }
        }
        Pin::new(&mut self.client).poll_shutdown(cx)
    }
}

impl AsyncRead for Gather<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for Gather<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_hold(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_hold(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_stream_is_raised_wherever_its_number_is_cut() {
        let goaway = |last: u32| {
            let mut bytes = Vec::new();
            let head = Head::of(frame::GOAWAY, 0);
            Head { len: 8, ..head }.write(&mut bytes);
            bytes.extend([last, 2].into_iter().flat_map(u32::to_be_bytes));
            bytes
        };
        for (newest, due) in [(0x0102_0305, 0x0102_0305), (0x0101, 0x0103)] {
            for cut in 0..=goaway(0).len() {
                let mut outgoing = Outgoing::default();
                let mut sent = goaway(0x0103);
                let (first, second) = sent.split_at_mut(cut);
                outgoing.note(first, second, newest);
                outgoing.note(second, &[], newest);
                assert!(outgoing.is_between());
                assert_eq!(sent, goaway(due), "cut at {cut}");
            }
        }
    }
}
