//! Connections to the upstream, kept for the next request of the same worker.
//!
//! A connection has no task of its own: whoever has leased it drives it, first the request that waits for its
//! response, then the response's body. So an upstream's bytes wake the client connection's task directly.

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout},
};

use super::{
    body::RequestBody,
    counters::{Counter, Counters},
    refuse::Reason,
    settings::{Host, ProxySettings},
};

/// An upstream's connections that one worker keeps.
pub(super) struct Pool {
    settings: Arc<ProxySettings>,
    counters: Arc<Counters>,
    /// The one used last is on top, so that those not needed grow old.
    idle: RefCell<Vec<Idle>>,
}

struct Idle {
    link: Box<Link>,
    since: Instant,
}

/// One HTTP/1.1 connection.
struct Link {
    sender: http1::SendRequest<RequestBody>,
    connection: http1::Connection<TokioIo<TcpStream>, RequestBody>,
    /// Whether `connection` has come to its end; it must not be polled any more.
    ended: bool,
}

/// A connection that belongs to one request until it is given back. Dropped, it is closed.
pub(super) struct Lease {
    link: Box<Link>,
    pool: Rc<Pool>,
    /// Whether it served a request before, so that the upstream may have closed it by now.
    reused: bool,
}

/// What [`Lease::into_stream`] takes apart.
pub(super) type UpgradedUpstream = http1::Parts<TokioIo<TcpStream>>;

impl Pool {
    /// A pool without connections.
    pub(super) fn new(settings: Arc<ProxySettings>, counters: Arc<Counters>) -> Rc<Self> {
        Rc::new(Self {
            settings,
            counters,
            idle: RefCell::default(),
        })
    }

    /// A connection that was kept, or a new one.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn lease(self: &Rc<Self>) -> Result<Lease, Reason> {
        let kept = std::future::poll_fn(|cx| Poll::Ready(self.take_idle(cx))).await;
        match kept {
            Some(link) => Ok(Lease {
                link,
                pool: Rc::clone(self),
                reused: true,
            }),
            None => self.connect().await,
        }
    }

    /// A new connection.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn connect(self: &Rc<Self>) -> Result<Lease, Reason> {
        let upstream = &self.settings.upstream;
        let limit = self.settings.timeouts.upstream_connect;
        let link = match timeout(limit, self.open()).await {
            Ok(Ok(link)) => link,
            Ok(Err(error)) => {
                tracing::warn!(%upstream, %error, "can't connect to the upstream");
                return Err(Reason::UpstreamConnect);
            }
            Err(_elapsed) => {
                tracing::warn!(%upstream, ?limit, "the upstream takes no connection in time");
                return Err(Reason::UpstreamConnectTimeout);
            }
        };
        self.counters.add(Counter::UpstreamConnects);
        Ok(Lease {
            link: Box::new(link),
            pool: Rc::clone(self),
            reused: false,
        })
    }

    async fn open(&self) -> io::Result<Link> {
        let upstream = &self.settings.upstream;
        let stream = connect(upstream.host(), upstream.port()).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::Builder::new()
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        Ok(Link {
            sender,
            connection,
            ended: false,
        })
    }

    /// Takes the connection used last; those that were closed meanwhile, or are too old, go.
    fn take_idle(&self, cx: &mut Context<'_>) -> Option<Box<Link>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { mut link, since }) = idle.pop() {
            if since.elapsed() > self.settings.timeouts.upstream_idle {
                // All below it are older.
                idle.clear();
                return None;
            }
            link.drive(cx);
            if link.sender.is_ready() && !link.ended {
                return Some(link);
            }
        }
        None
    }

    fn keep(&self, link: Box<Link>) {
        let mut idle = self.idle.borrow_mut();
        if !link.ended && idle.len() < self.settings.limits.upstream_idle {
            let since = Instant::now();
            idle.push(Idle { link, since });
        }
    }

    /// Closes kept connections that the upstream has closed or that are too old; never returns.
    pub(super) async fn sweep(&self) {
        let limit = self.settings.timeouts.upstream_idle;
        let mut pause = tokio::time::interval((limit / 4).max(Duration::from_millis(100)));
        loop {
            pause.tick().await;
            std::future::poll_fn(|cx| {
                self.idle.borrow_mut().retain_mut(|kept| {
                    kept.link.drive(cx);
                    !kept.link.ended && kept.since.elapsed() <= limit
                });
                Poll::Ready(())
            })
            .await;
        }
    }
}

/// Resolves the name anew each time, so that a changed record is followed; the first address that takes the
/// connection is it.
async fn connect(host: &Host, port: u16) -> io::Result<TcpStream> {
    match host {
        Host::Address(address) => TcpStream::connect(SocketAddr::new(*address, port)).await,
        Host::Name(name) => {
            let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            for address in lookup_host((name.as_str(), port)).await? {
                match TcpStream::connect(address).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
    }
}

impl Link {
    /// Lets the connection read and write what it can.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if !self.ended {
            // An error reaches whoever waits for the response or its body.
            self.ended = self.connection.poll_without_shutdown(cx).is_ready();
        }
    }
}

impl Lease {
    /// Whether the connection served a request before.
    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Sends a request; gives the response as soon as its head has come.
    ///
    /// # Errors
    /// Where no response came; with the request, if nothing of it was sent.
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        let Link { sender, .. } = &mut *self.link;
        let mut reply = pin!(sender.try_send_request(request));
        std::future::poll_fn(|cx| {
            self.link.drive(cx);
            reply.as_mut().poll(cx)
        })
        .await
    }

    /// Lets the connection read and write what it can.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        self.link.drive(cx);
    }

    /// Keeps the connection for the next request.
    pub(super) fn give_back(self) {
        self.pool.keep(self.link);
    }

    /// The bare connection, after a response that changed its protocol, with what was read beyond it.
    pub(super) async fn into_stream(mut self) -> UpgradedUpstream {
        std::future::poll_fn(|cx| {
            self.link.drive(cx);
            if self.link.ended {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        self.link.connection.into_parts()
    }
}
