//! Frames on their way between a client and the library.
//!
//! What comes in is looked at on its way ([`intake`]), and may be answered here ([`desk`]). The library flushes at each DATA frame of some size, and each flush would be a TLS record and a call of the system.
//! So nothing is written when it flushes: the connection writes what has come together once all its streams that are
//! ready have had their turn.
//!
//! [`desk`]: super::desk
//! [`intake`]: super::intake

use std::{
    cell::{Cell, RefCell},
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use super::{
    desk::{self, Desk, Judged},
    frame::{self, Head, Walk},
    intake::{Intake, Step},
};
use crate::proxy::{connection::Peer, fast::Buffer, stream::ClientStream};

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
    outgoing: Outgoing,
    /// Whether something waits here for a turn although nobody will be woken for it.
    waits: bool,
}

/// The frames that the library sends.
#[derive(Default)]
struct Outgoing {
    walk: Walk,
    /// Whether the next frame goes on with a head.
    in_head: bool,
}

/// The library's and the connection's hold on it.
#[derive(Clone)]
pub(super) struct Gather<'a>(Rc<RefCell<Gathered<'a>>>);

impl<'a> Gather<'a> {
    /// Gathers what is written to `client`; requests are judged on their way in until `ending` is set.
    pub(super) fn new(client: ClientStream, peer: &Rc<Peer>, ending: &'a Cell<bool>) -> Self {
        let buffers = &peer.worker.buffers;
        Self(Rc::new(RefCell::new(Gathered {
            client,
            intake: Intake::new(peer.worker.settings.limits.header_bytes, buffers),
            desk: Rc::new(Desk::new(peer, ending)),
            held: Buffer::empty(buffers),
            written: 0,
            outgoing: Outgoing::default(),
            waits: false,
        })))
    }

    /// The client under the settings in force now.
    pub(super) fn peer(&self) -> Rc<Peer> {
        self.0.borrow().desk.peer()
    }

    /// A request with a listed token was refused: the next ones are looked at before they get to the library.
    pub(super) fn on_refused(&self) {
        self.0.borrow_mut().intake.on_refused();
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
    /// Takes the library's next bytes; gives how many of them are announced as bodies.
    fn note(&mut self, mut bytes: &[u8]) -> usize {
        let mut bodies = 0;
        while let Some(head) = self.walk.next(&mut bytes) {
            match head.kind {
                frame::DATA => bodies += head.len,
                frame::HEADERS | frame::PUSH_PROMISE | frame::CONTINUATION => {
                    self.in_head = !head.has(frame::END_HEADERS);
                }
                _ => {}
            }
        }
        bodies
    }

    /// Whether a frame of another stream may come next.
    fn is_between(&self) -> bool {
        self.walk.is_between() && !self.in_head
    }
}

impl Gathered<'_> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while let Some(rest) = self.held.get(self.written..)
            && !rest.is_empty()
        {
            match ready!(Pin::new(&mut self.client).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.written += n,
            }
        }
        self.written = 0;
        self.held.clear();
        self.held.settle();
        Pin::new(&mut self.client).poll_flush(cx)
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
            let room = HELD - self.held.len();
            let taken = buf.get(..room).unwrap_or(buf);
            let bodies = self.outgoing.note(taken);
            self.intake.on_sent(bodies);
            self.held.filling().extend_from_slice(taken);
        }
        Poll::Ready(Ok(self.held.len() - before))
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
                self.waits = self.has_room();
                return Poll::Pending;
            }
            match self.intake.step() {
                Step::Next => {}
                Step::Judge(head) => {
                    self.judge(head);
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

    /// Whether an answer can be written now, where one may come.
    fn may_answer(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        if !self.intake.reads() {
            return Ok(true);
        }
        if !self.has_room()
            && let Poll::Ready(Err(error)) = self.poll_drain(cx)
        {
            return Err(error);
        }
        Ok(self.has_room() && self.outgoing.is_between())
    }

    fn has_room(&self) -> bool {
        self.held.len() + desk::LONGEST <= HELD
    }

    fn judge(&mut self, head: Head) {
        match self.desk.judge(&self.intake) {
            Judged::Refused { is_head } => {
                let out = self.held.filling();
                let refused = self.desk.refuse(head.stream, is_head, out);
                self.intake.refused(refused.body);
                // It was the last that the connection may have.
                self.waits |= refused.is_last;
            }
            judged @ (Judged::Clean | Judged::NotHere) => {
                self.intake.hand_on(head, judged == Judged::Clean);
            }
        }
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
        let mut gathered = self.0.borrow_mut();
        ready!(gathered.poll_drain(cx))?;
        Pin::new(&mut gathered.client).poll_shutdown(cx)
    }
}
