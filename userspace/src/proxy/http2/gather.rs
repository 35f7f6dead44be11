//! Frames on their way to a client, gathered.
//!
//! The library flushes at each DATA frame of some size, and each flush would be a TLS record and a call of the system.
//! So nothing is written when it flushes: the connection writes what has come together once all its streams that are
//! ready have had their turn.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::proxy::{
    fast::{Buffer, Buffers},
    stream::ClientStream,
};

/// Bytes that are held at most: a TLS record.
const HELD: usize = 16 * 1024;

/// A client connection and what is to be written to it.
struct Gathered {
    client: ClientStream,
    held: Buffer,
    /// How many of these were written.
    written: usize,
}

/// The library's and the connection's hold on it.
#[derive(Clone)]
pub(super) struct Gather(Rc<RefCell<Gathered>>);

impl Gather {
    /// Gathers what is written to `client`.
    pub(super) fn new(client: ClientStream, buffers: &Buffers) -> Self {
        Self(Rc::new(RefCell::new(Gathered {
            client,
            held: Buffer::empty(buffers),
            written: 0,
        })))
    }

    /// Writes what is held.
    pub(super) fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_drain(cx)
    }
}

impl Gathered {
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
            self.held.filling().extend_from_slice(taken);
        }
        Poll::Ready(Ok(self.held.len() - before))
    }
}

impl AsyncRead for Gather {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().client).poll_read(cx, buf)
    }
}

impl AsyncWrite for Gather {
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
