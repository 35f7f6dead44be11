//! The bytes of a connection: TLS or cleartext; a client's with notes of what moves.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::{Sleep, sleep},
};
use tokio_rustls::TlsStream;

use super::{
    activity::Activity, counters::Closed, flood::Frames, interim::Outbox, settings::Limits,
};

/// A connection, to a client or to an upstream.
pub(super) enum Transport {
    /// Cleartext.
    Plain(TcpStream),
    /// A socket of this host's file system.
    Unix(UnixStream),
    /// TLS, after its handshake. Boxed: it is twenty times the other's size.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    /// The protocol that the handshake has settled (RFC 7301).
    pub(super) fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) | Self::Unix(_) => None,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }

    /// Reads bytes as they are on the wire: TLS is over, or nobody wants to know what they say.
    fn poll_read_raw(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream.get_mut().0).poll_read(cx, buf),
        }
    }

    /// Whether an unused connection is still open and nobody has spoken. Nobody is woken later.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut unasked = ReadBuf::new(&mut byte);
        let mut quiet = Context::from_waker(Waker::noop());
        Pin::new(self)
            .poll_read(&mut quiet, &mut unasked)
            .is_pending()
    }
}

/// A client connection.
pub(super) struct ClientStream {
    transport: Transport,
    activity: Arc<Activity>,
    frames: Frames,
    /// Read already, and to be read again.
    unread: Vec<u8>,
    rest: Option<Box<Rest>>,
    /// What is written between the responses of who writes here.
    outbox: Option<Arc<Outbox>>,
}

/// What a client goes on sending behind the last response of an HTTP/1 connection.
///
/// A socket that is closed with bytes unread is reset, and the reset takes the response out of the hands of a client
/// that sends a whole body before it reads. So the writing side alone is closed, and what comes is forgotten, until the
/// client closes too (RFC 9112 section 9.6).
struct Rest {
    until: Pin<Box<Sleep>>,
    buffer: Vec<u8>,
}

/// Bytes that are forgotten at a time.
const FORGOTTEN: usize = 16 * 1024;

impl ClientStream {
    /// Notes what moves on `transport` in `activity`.
    pub(super) fn new(transport: Transport, activity: Arc<Activity>, limits: &Limits) -> Self {
        Self {
            transport,
            activity,
            frames: Frames::new(limits),
            unread: Vec::new(),
            rest: None,
            outbox: None,
        }
    }

    /// Writes what is put there whenever nothing else is left to be written.
    pub(super) fn set_outbox(&mut self, outbox: Arc<Outbox>) {
        self.outbox = Some(outbox);
    }

    /// Writes what waits in the outbox; where something else is to be written, the rest of what was begun alone.
    fn poll_outbox(&mut self, only_begun: bool, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(outbox) = &self.outbox else {
            return Poll::Ready(Ok(()));
        };
        let written = outbox.poll_write(&mut self.transport, only_begun, cx);
        if written.is_pending() {
            self.activity.on_write_blocked();
        }
        written
    }

    /// Gives back what was read, to be read again.
    pub(super) fn unread(&mut self, bytes: &[u8]) {
        self.unread = bytes.to_vec();
    }

    /// Notes what came, and sees that it is within limits.
    fn note_read(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let within = self.frames.read(bytes);
        if self.frames.is_http2() {
            self.activity.on_http2();
        }
        self.activity.on_read();
        within.map_err(|why| {
            self.activity.on_fault(why);
            io::Error::new(io::ErrorKind::InvalidData, "more frames than allowed")
        })
    }

    /// Reads as far as it takes to know whether the client speaks HTTP/2; what was read is to be read again.
    ///
    /// # Errors
    /// Where the connection broke.
    pub(super) async fn speaks_http2(&mut self) -> io::Result<bool> {
        let mut seen = Vec::new();
        while !self.frames.is_known() && self.read_buf(&mut seen).await? > 0 {}
        seen.append(&mut self.unread);
        self.unread = seen;
        Ok(self.frames.is_http2())
    }

    /// Reads and forgets what the client sends of a body that was left, until it closes or its time is over.
    fn poll_forget(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(patience) = self.activity.body_left() else {
            return Poll::Ready(Ok(()));
        };
        let rest = self.rest.get_or_insert_with(|| {
            Box::new(Rest {
                until: Box::pin(sleep(patience)),
                buffer: vec![0; FORGOTTEN],
            })
        });
        if rest.until.as_mut().poll(cx).is_ready() {
            self.activity.on_fault(Closed::BodyTimeout);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        loop {
            let mut buffer = ReadBuf::new(&mut rest.buffer);
            let read = ready!(self.transport.poll_read_raw(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn note(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Pending => self.activity.on_write_blocked(),
            Poll::Ready(result) => {
                self.activity.on_write();
                self.frames.on_sent(*result.as_ref().unwrap_or(&0));
            }
        }
        written
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let len = self.unread.len().min(buf.remaining());
            buf.put_slice(self.unread.get(..len).unwrap_or_default());
            self.unread.drain(..len);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.transport).poll_read(cx, buf);
        self.note_read(buf.filled().get(before..).unwrap_or_default())?;
        polled
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_outbox(true, cx))?;
        let written = Pin::new(&mut self.transport).poll_write(cx, buf);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_outbox(true, cx))?;
        let written = Pin::new(&mut self.transport).poll_write_vectored(cx, bufs);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_outbox(false, cx))?;
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.rest.is_none() {
            ready!(Pin::new(&mut self.transport).poll_shutdown(cx))?;
        }
        self.poll_forget(cx)
    }
}
