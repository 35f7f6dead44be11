//! What an upstream says before it responds (1xx), on its way to the client (RFC 9110 section 15.2).

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures_util::task::AtomicWaker;
use http::{HeaderMap, Response, StatusCode, header};
use tokio::io::AsyncWrite as _;

use super::{
    hop::{self, write_field},
    stream::Transport,
};

/// Bytes that wait for a client of HTTP/1.1; one that reads nothing misses what comes beyond.
const WAITING: usize = 64 * 1024;

/// Takes what is said about one request, from wherever that is learned, until who answers the client passes it on.
#[derive(Clone, Default)]
pub(super) struct Interim(Arc<Said>);

#[derive(Default)]
struct Said {
    heads: Mutex<Vec<Response<()>>>,
    /// Wakes who passes them on.
    waker: AtomicWaker,
    /// Whether `100 Continue` was said.
    wants_body: AtomicBool,
    /// Wakes who holds the body back until then.
    body_waker: AtomicWaker,
}

impl Interim {
    /// Says what an upstream has said; `100 Continue` to who holds the body back.
    pub(super) fn say(&self, status: StatusCode, headers: &HeaderMap) {
        match status {
            StatusCode::CONTINUE => {
                self.0.wants_body.store(true, Ordering::Relaxed);
                self.0.body_waker.wake();
            }
            // A change of protocol is a response.
            StatusCode::SWITCHING_PROTOCOLS => {}
            _ => {
                let mut headers = headers.clone();
                hop::strip(&mut headers);
                headers.remove(header::CONTENT_LENGTH);
                self.put(status, headers);
            }
        }
    }

    /// Ready when the upstream has asked for the body.
    pub(super) fn poll_wants_body(&self, cx: &Context<'_>) -> Poll<()> {
        self.0.body_waker.register(cx.waker());
        if self.0.wants_body.load(Ordering::Relaxed) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Asks the client for a body that it holds back.
    pub(super) fn ask_for_body(&self) {
        self.put(StatusCode::CONTINUE, HeaderMap::new());
    }

    fn put(&self, status: StatusCode, headers: HeaderMap) {
        let mut head = Response::new(());
        *head.status_mut() = status;
        *head.headers_mut() = headers;
        lock(&self.0.heads).push(head);
        self.0.waker.wake();
    }

    /// Ready with what was said since the last time.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Vec<Response<()>>> {
        self.0.waker.register(cx.waker());
        let said = std::mem::take(&mut *lock(&self.0.heads));
        if said.is_empty() {
            Poll::Pending
        } else {
            Poll::Ready(said)
        }
    }
}

/// Interim responses for a client of HTTP/1.1, whose library has no way to say them. They are written below it, where it
/// has nothing more to write: between the last response and the next.
#[derive(Default)]
pub(super) struct Outbox {
    /// Whether there is anything in it.
    filled: AtomicBool,
    waiting: Mutex<Waiting>,
    waker: AtomicWaker,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Whether some of it is written already, so that nothing else may come before the rest.
    begun: bool,
}

impl Outbox {
    /// Adds these.
    pub(super) fn put(&self, heads: &[Response<()>]) {
        let mut waiting = lock(&self.waiting);
        let out = &mut waiting.bytes;
        for head in heads {
            if out.len() > WAITING {
                return;
            }
            write(head, out);
            self.filled.store(true, Ordering::Relaxed);
        }
    }

    /// Ready when all is written.
    pub(super) fn poll_empty(&self, cx: &Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.filled.load(Ordering::Relaxed) {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    /// Writes all that waits; where something else is to be written, the rest of what was begun alone.
    pub(super) fn poll_write(
        &self,
        transport: &mut Transport,
        only_begun: bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.filled.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let mut waiting = lock(&self.waiting);
        if only_begun && !waiting.begun {
            return Poll::Ready(Ok(()));
        }
        while !waiting.bytes.is_empty() {
            let written = ready!(Pin::new(&mut *transport).poll_write(cx, &waiting.bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            waiting.begun = true;
            waiting.bytes.drain(..written);
        }
        waiting.begun = false;
        self.filled.store(false, Ordering::Relaxed);
        self.waker.wake();
        Poll::Ready(Ok(()))
    }
}

fn write(head: &Response<()>, out: &mut Vec<u8>) {
    let status = head.status();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in head.headers() {
        write_field(out, name.as_str(), value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// What it guards is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
