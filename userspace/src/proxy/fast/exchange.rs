//! One request's way to an upstream, up to the head of its response.

use std::{
    io,
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::Instant,
};

use super::{
    buffers::Buffer,
    request::Forward,
    response::{self, Head, Parsed, Reading},
};
use crate::proxy::{
    accept::Worker,
    counters::{Closed, Counter},
    refuse::Reason,
    stream::Transport,
    upstream::{Bare, Group, Pool},
};

/// Bytes of a response's head; as many as hyper takes.
const HEAD: usize = 400 * 1024;

/// Who waits for a response.
pub(in crate::proxy) trait Asker {
    /// A response's head as the client gets it.
    type Head;

    /// Makes that head; `None` where it can't be made.
    fn make_head(&mut self, parsed: &Parsed<'_>) -> Option<Self::Head>;

    /// What is said in between (1xx), on its way to the client.
    type Interim;

    /// Makes that; it is passed on before anything else is.
    fn make_interim(&mut self, parsed: &Parsed<'_>) -> Self::Interim;

    /// Passes it on (RFC 9110 section 15.2); an error says that the client is gone.
    async fn pass_interim(&mut self, interim: Self::Interim) -> Result<(), Closed>;

    /// Ready when the client has gone.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Ready when it is later than `deadline`, which is the same for all calls between two heads.
    fn poll_late(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()>;
}

/// A response of which the head has come.
pub(in crate::proxy) struct Answer<T> {
    /// Where it comes from.
    pub(in crate::proxy) bare: Bare,
    /// What has come: the head, and what follows it.
    pub(in crate::proxy) input: Buffer,
    pub(in crate::proxy) head: Head<T>,
}

/// Why a request came to no end.
pub(in crate::proxy) enum Broken {
    /// Nothing was answered yet: the client is told.
    Upstream(Reason),
    /// The client is gone, or its response broke off.
    Client(Closed),
}

/// Why an upstream gave no response.
pub(in crate::proxy) enum Failure {
    /// The client is gone.
    Client,
    /// The connection was closed, or broke, before anything came of it.
    Silent(Option<io::Error>),
    /// What came is no response.
    Malformed,
    /// It took too long.
    Timeout,
}

/// Sends a request, once more where that is safe, and waits for the head of its response.
pub(in crate::proxy) async fn ask<A: Asker>(
    worker: &Worker,
    asker: &mut A,
    forward: Forward,
) -> Result<Answer<A::Head>, Broken> {
    worker.counters.add(Counter::Forwarded);
    let (pool, mut bare) = lease(&forward.group).await.map_err(Broken::Upstream)?;
    let mut input = Buffer::empty(&worker.buffers);
    let head = loop {
        let failure = match send(worker, asker, &mut bare, &forward, &mut input).await {
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
    Ok(Answer { bare, input, head })
}

/// Sends a request and waits for the head of its response.
async fn send<A: Asker>(
    worker: &Worker,
    asker: &mut A,
    bare: &mut Bare,
    forward: &Forward,
    input: &mut Buffer,
) -> Result<Head<A::Head>, Failure> {
    let deadline = Instant::now() + worker.settings.timeouts.upstream_response;
    {
        let stream = bare.stream();
        let mut sending = pin!(async {
            stream.write_all(&forward.head).await?;
            stream.flush().await
        });
        std::future::poll_fn(|cx| match sending.as_mut().poll(cx) {
            Poll::Ready(sent) => Poll::Ready(sent.map_err(|error| Failure::Silent(Some(error)))),
            Poll::Pending => asker
                .poll_late(deadline, cx)
                .map(|()| Err(Failure::Timeout)),
        })
        .await?;
    }
    loop {
        let read = read(bare.stream(), input, |cx| {
            if asker.poll_gone(cx).is_ready() {
                return Poll::Ready(Failure::Client);
            }
            let late = asker.poll_late(deadline, cx);
            late.map(|()| Failure::Timeout)
        });
        match read.await {
            Ok(0) | Err(Failure::Silent(_)) if !input.is_empty() => {
                return Err(Failure::Malformed);
            }
            Ok(0) => return Err(Failure::Silent(None)),
            Ok(_) => worker.linger.note(),
            Err(failure) => return Err(failure),
        }
        loop {
            let interim = match response::read(input, forward.is_head, |head| asker.make_head(head))
            {
                Reading::Whole(head) => return Ok(head),
                Reading::Interim(len) => {
                    let made = response::read_interim(input, |said| asker.make_interim(said));
                    input.consume(len);
                    made
                }
                Reading::Partial if input.len() < HEAD => break,
                Reading::Partial | Reading::Malformed => return Err(Failure::Malformed),
            };
            if let Some(interim) = interim {
                // Rare: it takes no room in the others.
                let passed = Box::pin(asker.pass_interim(interim)).await;
                passed.map_err(|_gone| Failure::Client)?;
            }
        }
    }
}

/// Reads more from an upstream; `meanwhile` says why that is to be given up.
pub(in crate::proxy) async fn read(
    stream: &mut Transport,
    input: &mut Buffer,
    mut meanwhile: impl FnMut(&mut Context<'_>) -> Poll<Failure>,
) -> Result<usize, Failure> {
    std::future::poll_fn(|cx| {
        let polled = pin!(stream.read_buf(input.filling())).poll(cx);
        input.settle();
        match polled {
            Poll::Ready(read) => Poll::Ready(read.map_err(|error| Failure::Silent(Some(error)))),
            Poll::Pending => meanwhile(cx).map(Err),
        }
    })
    .await
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
