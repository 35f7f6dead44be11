//! One request's way to an upstream, and its response's way back.

use std::{
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, Sleep},
};

use super::{
    Lane,
    buffers::Buffer,
    chunks::Malformed,
    request::Forward,
    response::{self, Framing, Head, Reading},
};
use crate::proxy::{
    counters::{Closed, Counter},
    refuse::Reason,
    stream::Transport,
    upstream::{Bare, Group, Pool},
};

/// Bytes of a response's head; as many as hyper takes.
const HEAD: usize = 400 * 1024;

/// Why a request came to no end.
pub(super) enum Broken {
    /// Nothing was answered yet: the client is told.
    Upstream(Reason),
    /// The client is gone, or its response broke off.
    Client(Closed),
}

/// Why an upstream gave no response.
enum Failure {
    /// The client is gone.
    Client,
    /// The connection was closed, or broke, before anything came of it.
    Silent(Option<io::Error>),
    /// What came is no response.
    Malformed,
    /// It took too long.
    Timeout,
}

impl Lane<'_> {
    /// Sends a request, once more where that is safe, and passes on what is answered.
    pub(super) async fn exchange(
        &mut self,
        forward: Forward,
        mut alarm: Pin<&mut Sleep>,
    ) -> Result<(), Broken> {
        let worker = Rc::clone(&self.peer.worker);
        worker.counters.add(Counter::Forwarded);
        let (pool, mut bare) = lease(&forward.group).await.map_err(Broken::Upstream)?;
        let buffers = &worker.buffers;
        let (mut input, mut out) = (Buffer::empty(buffers), Buffer::empty(buffers));
        let head = loop {
            let (input, out) = (&mut input, &mut out);
            let sent = self.send(&mut bare, &forward, input, out, alarm.as_mut());
            let failure = match sent.await {
                Ok(head) => break head,
                Err(failure) => failure,
            };
            let silent = matches!(failure, Failure::Silent(_));
            if !(silent && bare.is_reused() && forward.is_repeatable) {
                return Err(blame(&pool, failure));
            }
            worker.counters.add(Counter::UpstreamRetries);
            bare = Box::pin(pool.connect_bare()).await.map_err(|reason| {
                pool.on_failure();
                Broken::Upstream(reason)
            })?;
        };
        pool.on_success();
        drop(forward);
        if self.pass(&mut bare, head, input, out).await? {
            bare.give_back();
        }
        Ok(())
    }

    /// Sends a request and waits for the head of its response.
    async fn send(
        &mut self,
        bare: &mut Bare,
        forward: &Forward,
        input: &mut Buffer,
        out: &mut Buffer,
        mut alarm: Pin<&mut Sleep>,
    ) -> Result<Head, Failure> {
        let deadline = Instant::now() + self.peer.worker.settings.timeouts.upstream_response;
        let mut answered = pin!(async {
            let sent = async {
                bare.stream().write_all(&forward.head).await?;
                bare.stream().flush().await
            };
            sent.await.map_err(|error| Failure::Silent(Some(error)))?;
            self.head(bare.stream(), forward.is_head, input, out).await
        });
        std::future::poll_fn(|cx| {
            if let Poll::Ready(answer) = answered.as_mut().poll(cx) {
                return Poll::Ready(answer);
            }
            while alarm.as_mut().poll(cx).is_ready() {
                if deadline <= Instant::now() {
                    return Poll::Ready(Err(Failure::Timeout));
                }
                alarm.as_mut().reset(deadline);
            }
            Poll::Pending
        })
        .await
    }

    async fn head(
        &mut self,
        stream: &mut Transport,
        is_head: bool,
        input: &mut Buffer,
        out: &mut Buffer,
    ) -> Result<Head, Failure> {
        loop {
            match self.read_upstream(stream, input).await {
                Ok(0) | Err(Failure::Silent(_)) if !input.is_empty() => {
                    return Err(Failure::Malformed);
                }
                Ok(0) => return Err(Failure::Silent(None)),
                Ok(_) => {}
                Err(failure) => return Err(failure),
            }
            loop {
                match response::read(input, is_head, self.ending.get(), out.filling()) {
                    Reading::Whole(head) => return Ok(head),
                    Reading::Interim(len) => input.consume(len),
                    Reading::Partial if input.len() < HEAD => break,
                    Reading::Partial | Reading::Malformed => return Err(Failure::Malformed),
                }
            }
        }
    }

    /// Passes a response on, whose head stands in `out` already; says whether its connection can be used again.
    async fn pass(
        &mut self,
        bare: &mut Bare,
        head: Head,
        mut input: Buffer,
        mut out: Buffer,
    ) -> Result<bool, Broken> {
        let Head {
            len: mut from,
            mut framing,
            mut keeps,
        } = head;
        // Requests that came meanwhile are sent on first: so the upstream finds several at a time and need not be
        // woken for each, and so do the clients.
        after_others().await;
        loop {
            let rest = input.get(from..).unwrap_or_default();
            // Where nothing is to be put before it, a piece goes as it lies there.
            let as_it_is = out
                .is_empty()
                .then(|| framing.take_as_it_is(rest))
                .flatten();
            let taken = if let Some(len) = as_it_is {
                let piece = rest.get(..len).unwrap_or_default();
                self.write(piece).await.map_err(Broken::Client)?;
                len
            } else {
                let taken = framing.take(rest, out.filling());
                let taken = taken.map_err(|Malformed| Broken::Client(Closed::Protocol))?;
                self.write(&out).await.map_err(Broken::Client)?;
                taken
            };
            out.clear();
            if framing.is_done() {
                let more = from + taken < input.len();
                return Ok(keeps && !more);
            }
            from = 0;
            out.settle();
            input.next();
            match self.read_upstream(bare.stream(), &mut input).await {
                Ok(0) if matches!(framing, Framing::UntilClose) => {
                    keeps = false;
                    framing = Framing::Length(0);
                    out.filling().extend_from_slice(b"0\r\n\r\n");
                }
                Ok(1..) => {}
                Ok(0) | Err(_) => return Err(Broken::Client(Closed::Protocol)),
            }
        }
    }

    /// Reads more from an upstream, for as long as the client is there.
    async fn read_upstream(
        &mut self,
        stream: &mut Transport,
        input: &mut Buffer,
    ) -> Result<usize, Failure> {
        std::future::poll_fn(|cx| {
            let polled = pin!(stream.read_buf(input.filling())).poll(cx);
            input.settle();
            match polled {
                Poll::Ready(read) => {
                    Poll::Ready(read.map_err(|error| Failure::Silent(Some(error))))
                }
                Poll::Pending => self.poll_client_gone(cx).map(|()| Err(Failure::Client)),
            }
        })
        .await
    }

    /// Ready when the client has gone. What it sends meanwhile is its next request.
    fn poll_client_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.input.is_empty() {
            return Poll::Pending;
        }
        match self.poll_read(cx) {
            Poll::Ready(Ok(1..)) | Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(()),
        }
    }
}

impl Framing {
    /// How many of `bytes` belong to this response, where the client gets them as they are.
    fn take_as_it_is(&mut self, bytes: &[u8]) -> Option<usize> {
        let Self::Length(left) = self else {
            return None;
        };
        let len = piece(*left, bytes);
        *left -= len as u64;
        Some(len)
    }

    /// Writes what the client gets of `bytes`; says how many of them belong to this response.
    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, Malformed> {
        match self {
            Self::Length(left) => {
                let len = piece(*left, bytes);
                *left -= len as u64;
                out.extend_from_slice(bytes.get(..len).unwrap_or_default());
                Ok(len)
            }
            Self::UntilClose => {
                write_chunk(out, bytes);
                Ok(bytes.len())
            }
            Self::Chunked(chunks) => {
                let mut from = 0;
                loop {
                    let (data, next) = chunks.next(bytes, from)?;
                    from = next;
                    let Some(data) = data else { break };
                    write_chunk(out, bytes.get(data).unwrap_or_default());
                }
                if chunks.is_done() {
                    out.extend_from_slice(b"0\r\n\r\n");
                }
                Ok(from)
            }
        }
    }

    fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.is_done(),
            Self::UntilClose => false,
        }
    }
}

/// Lets the tasks run first that are ready already.
async fn after_others() {
    let mut waited = false;
    std::future::poll_fn(|cx| {
        if waited {
            return Poll::Ready(());
        }
        waited = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// How many of these bytes belong to a body of which so many are left.
fn piece(left: u64, bytes: &[u8]) -> usize {
    usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()))
}

fn write_chunk(out: &mut Vec<u8>, data: &[u8]) {
    use std::io::Write as _;
    if !data.is_empty() {
        // Writing to memory doesn't fail.
        let _written = write!(out, "{:x}\r\n", data.len()).is_ok();
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    }
}

/// A connection to one of the servers; who can't be connected to has been sent nothing, so the next is asked.
async fn lease(group: &Group) -> Result<(Rc<Pool>, Bare), Reason> {
    let mut failed = Reason::NoUpstream;
    for _ in 0..group.len() {
        let Some(pool) = group.pick() else { break };
        if let Some(bare) = pool.take_bare() {
            return Ok((Rc::clone(pool), bare));
        }
        match Box::pin(pool.connect_bare()).await {
            Ok(bare) => return Ok((Rc::clone(pool), bare)),
            Err(reason) => {
                pool.on_failure();
                failed = reason;
            }
        }
    }
    Err(group.exhausted(failed))
}

/// Notes what a failure says of the upstream.
fn blame(pool: &Pool, failure: Failure) -> Broken {
    let upstream = pool.upstream();
    let reason = match failure {
        Failure::Client => return Broken::Client(Closed::Protocol),
        Failure::Timeout => {
            tracing::warn!(%upstream, "no response in time");
            Reason::UpstreamTimeout
        }
        Failure::Silent(error) => {
            let error = error.map_or_else(|| "closed".to_owned(), |error| error.to_string());
            tracing::warn!(%upstream, error, "no response");
            Reason::UpstreamFailed
        }
        Failure::Malformed => {
            tracing::warn!(%upstream, error = "malformed or cut off", "no response");
            Reason::UpstreamFailed
        }
    };
    pool.on_failure();
    Broken::Upstream(reason)
}
