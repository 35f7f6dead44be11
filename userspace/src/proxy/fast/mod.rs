//! The usual requests of HTTP/1.1, without a library: no body, nothing asked of the connection but to stay open.
//!
//! What such a request costs is what the proxy's speed is made of. It is read, judged, written to the upstream and
//! answered with a handful of buffers that all connections of a worker share, and no map of its fields is made.
//! Whatever is not plain (a body, an upgrade, an expectation, another form of target, another version, anything
//! malformed or large) is left to hyper with every byte that was read, and the connection stays there. So one
//! place alone decides what odd messages mean, and nothing here has to guess.

mod answer;
mod buffers;
mod chunks;
mod exchange;
mod framing;
mod request;
mod response;

use std::{
    cell::Cell,
    io,
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, Sleep, sleep_until},
};

use self::{
    answer::Answered,
    request::{Plain, Reading},
};
pub(super) use self::{
    buffers::{Buffer, Buffers},
    chunks::Malformed,
    exchange::{Answer, Asker, Broken, Failure, ask, read},
    framing::Framing,
    request::{Forward, Kind, is_repeatable, kind, write_line},
    response::{Head, Parsed},
};
use super::{
    body::Answering,
    connection::Peer,
    counters::Closed,
    refuse::{self, Reason},
    seldom::once_more,
    stream::ClientStream,
};

/// Bytes of a head that are read here; one that is longer goes to hyper.
const HEAD: usize = 16 * 1024;

/// How serving came to its end.
pub(super) enum Outcome {
    /// The connection is over.
    Over,
    /// A request came that is not plain; it is the next to be read.
    NotPlain(Box<ClientStream>),
}

/// A client connection of which all requests were plain so far.
struct Lane<'a> {
    peer: Rc<Peer>,
    client: ClientStream,
    /// What came from the client and was not used yet.
    input: Buffer,
    /// True once no further request is to be read.
    ending: &'a Cell<bool>,
}

/// Serves requests while they are plain.
///
/// # Errors
/// Why the connection broke.
pub(super) async fn serve(
    peer: &Rc<Peer>,
    client: ClientStream,
    ending: &Cell<bool>,
) -> Result<Outcome, Closed> {
    let mut lane = Lane {
        peer: Rc::clone(peer),
        client,
        input: Buffer::empty(&peer.worker.buffers),
        ending,
    };
    // Wakes for what an upstream owes; armed once, and moved when it fires too early.
    let mut alarm = pin!(sleep_until(Instant::now()));
    loop {
        let request = match lane.next().await? {
            Next::Request(request) => request,
            Next::End => return Ok(Outcome::Over),
            Next::NotPlain => return Ok(Outcome::NotPlain(Box::new(lane.into_client()))),
        };
        lane.peer.worker.linger.note();
        lane.answer(request, alarm.as_mut()).await?;
        if lane.ending.get() {
            lane.close().await;
            return Ok(Outcome::Over);
        }
    }
}

/// What comes next on a connection.
enum Next {
    Request(Plain),
    NotPlain,
    /// Nothing more.
    End,
}

impl Lane<'_> {
    /// Reads the next request.
    async fn next(&mut self) -> Result<Next, Closed> {
        loop {
            if !self.input.is_empty() {
                if let Some(newer) = self.peer.newer() {
                    self.peer = newer;
                }
                match request::read(&self.peer, &self.input) {
                    Reading::Plain(plain, len) => {
                        self.input.consume(len);
                        return Ok(Next::Request(plain));
                    }
                    Reading::Partial if self.input.len() < HEAD => {}
                    Reading::Partial | Reading::NotPlain => return Ok(Next::NotPlain),
                }
            } else if self.ending.get() {
                self.close().await;
                return Ok(Next::End);
            }
            match self.read().await {
                Ok(0) if self.input.is_empty() => {
                    self.close().await;
                    return Ok(Next::End);
                }
                Ok(0) => return Err(Closed::Protocol),
                Ok(_) => {}
                Err(error) => return Err(self.broken(&error)),
            }
        }
    }

    /// Reads more from the client; 0 bytes at its end, and where none is to be read any more.
    async fn read(&mut self) -> io::Result<usize> {
        std::future::poll_fn(|cx| {
            if self.ending.get() && self.input.is_empty() {
                return Poll::Ready(Ok(0));
            }
            self.poll_read(cx)
        })
        .await
    }

    /// Keeps no buffer while there is nothing in it.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let into = self.input.filling();
        let polled = pin!(self.client.read_buf(into)).poll(cx);
        self.input.settle();
        polled
    }

    /// Answers a request.
    async fn answer(
        &mut self,
        request: Plain,
        alarm: std::pin::Pin<&mut Sleep>,
    ) -> Result<(), Closed> {
        let _answering = Answering::begin(&self.peer.client.activity);
        if self.peer.on_request() {
            self.ending.set(true);
        }
        let Plain { is_head, judged } = request;
        let reason = match judged {
            Err(reason) => reason,
            Ok(forward) => match (Answered { lane: self, alarm }).exchange(forward).await {
                Ok(()) => return Ok(()),
                Err(Broken::Upstream(reason)) => reason,
                Err(Broken::Client(closed)) => return Err(closed),
            },
        };
        let worker = &self.peer.worker;
        worker.counters.refuse(reason);
        let mut out = Buffer::empty(&worker.buffers);
        let listed = &worker.settings.refusal;
        let closes = self.ending.get();
        if reason == Reason::ListedToken && !closes {
            worker.written.write(listed, is_head, out.filling());
        } else {
            let response = refuse::response(reason, listed);
            refuse::write(&response, is_head, closes, out.filling());
        }
        // What others have asked meanwhile is read first: so the answers leave one behind the other, and whoever sits
        // at the other end of several connections is not woken for each.
        once_more().await;
        self.write(&out).await
    }

    /// Writes to the client.
    async fn write(&mut self, bytes: &[u8]) -> Result<(), Closed> {
        let written = async {
            self.client.write_all(bytes).await?;
            self.client.flush().await
        };
        match written.await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.broken(&error)),
        }
    }

    fn broken(&self, error: &io::Error) -> Closed {
        tracing::debug!(%error, "a connection broke");
        self.peer
            .client
            .activity
            .fault()
            .unwrap_or(Closed::Protocol)
    }

    /// Says good-bye; the client may be gone already.
    async fn close(&mut self) {
        if let Err(error) = self.client.shutdown().await {
            tracing::debug!(%error, "a client was gone");
        }
    }

    /// The connection, with what was read of it.
    fn into_client(self) -> ClientStream {
        let mut client = self.client;
        client.unread(&self.input);
        client
    }
}
