//! The way of a response to a client of HTTP/1.1.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::{Instant, Sleep};

use super::{
    Lane,
    buffers::Buffer,
    chunks::Malformed,
    exchange::{self, Answer, Asker, Broken, Failure},
    framing::{Framing, LAST_CHUNK},
    request::Forward,
    response::{Head, Parsed},
};
use crate::proxy::{counters::Closed, seldom::once_more, upstream::Bare};

/// Requests on their way beside which one more is not put off.
const FEW: usize = 4;

/// A connection whose request is being answered.
pub(super) struct Answered<'l, 'a> {
    pub(super) lane: &'l mut Lane<'a>,
    /// Wakes for what an upstream owes.
    pub(super) alarm: Pin<&'l mut Sleep>,
}

impl Answered<'_, '_> {
    /// Asks an upstream and passes on what it answers.
    pub(super) async fn exchange(&mut self, forward: Forward) -> Result<(), Broken> {
        let worker = std::rc::Rc::clone(&self.lane.peer.worker);
        let answer = exchange::ask(&worker, self, forward).await?;
        self.pass(answer).await
    }

    /// Passes a response on.
    async fn pass(&mut self, answer: Answer<Buffer>) -> Result<(), Broken> {
        let Answer {
            mut bare,
            mut input,
            head,
        } = answer;
        let Head {
            made: mut out,
            len: mut from,
            mut framing,
            mut keeps,
        } = head;
        // Requests that came meanwhile are sent on first: so the upstream finds several at a time and need not be
        // woken for each, and so do the clients. Where there are few, none of them gains by that.
        if bare.others() >= FEW {
            once_more().await;
        }
        loop {
            let rest = input.get(from..).unwrap_or_default();
            // Where nothing is to be put before it, a piece goes as it lies there.
            let as_it_is = out
                .is_empty()
                .then(|| framing.take_as_it_is(rest))
                .flatten();
            let taken = if let Some(len) = as_it_is {
                let piece = rest.get(..len).unwrap_or_default();
                self.lane.write(piece).await.map_err(Broken::Client)?;
                len
            } else {
                let taken = framing.take(rest, out.filling());
                let taken = taken.map_err(|Malformed| broken_off(&bare))?;
                self.lane.write(&out).await.map_err(Broken::Client)?;
                taken
            };
            out.clear();
            if framing.is_done() {
                let more = from + taken < input.len();
                if keeps && !more {
                    bare.give_back();
                }
                return Ok(());
            }
            from = 0;
            out.settle();
            input.next();
            let gone = |cx: &mut Context<'_>| self.poll_gone(cx).map(|()| Failure::Client);
            match exchange::read(bare.stream(), &mut input, gone).await {
                Ok(0) if matches!(framing, Framing::UntilClose) => {
                    keeps = false;
                    framing = Framing::Length(0);
                    out.filling().extend_from_slice(LAST_CHUNK);
                }
                Ok(1..) => {}
                Err(Failure::Client) => return Err(Broken::Client(Closed::Protocol)),
                Ok(0) | Err(_) => return Err(broken_off(&bare)),
            }
        }
    }
}

/// The response breaks off, and the connection to the client with it.
fn broken_off(upstream: &Bare) -> Broken {
    upstream.on_broken();
    Broken::Client(Closed::Protocol)
}

impl Asker for Answered<'_, '_> {
    type Head = Buffer;

    fn make_head(&mut self, parsed: &Parsed<'_>) -> Option<Buffer> {
        let mut out = Buffer::empty(&self.lane.peer.worker.buffers);
        parsed.write(self.lane.ending.get(), out.filling());
        Some(out)
    }

    type Interim = Buffer;

    fn make_interim(&mut self, parsed: &Parsed<'_>) -> Buffer {
        let mut out = Buffer::empty(&self.lane.peer.worker.buffers);
        parsed.write_interim(out.filling());
        out
    }

    async fn pass_interim(&mut self, interim: Buffer) -> Result<(), Closed> {
        self.lane.write(&interim).await
    }

    /// What the client sends meanwhile is its next request.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.lane.input.is_empty() {
            return Poll::Pending;
        }
        match self.lane.poll_read(cx) {
            Poll::Ready(Ok(1..)) | Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(()),
        }
    }

    fn poll_late(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        while self.alarm.as_mut().poll(cx).is_ready() {
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            self.alarm.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}
