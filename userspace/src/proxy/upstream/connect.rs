//! New connections to an upstream.

use std::{io, net::SocketAddr};

use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream, UnixStream, lookup_host},
};

use crate::proxy::{
    settings::{Host, OwnConnections, Upstream},
    stream::Transport,
    tls::UpstreamTls,
};

/// How an upstream is reached.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) upstream: &'a Upstream,
    pub(super) tls: Option<&'a UpstreamTls>,
    pub(super) own: Option<&'a dyn OwnConnections>,
    /// What is sent before anything else.
    pub(super) preamble: Option<&'a [u8]>,
}

/// Connects, and makes the TLS handshake where there is one.
///
/// # Errors
/// Why there is no connection.
pub(super) async fn connect(way: Way<'_>, http1_only: bool) -> io::Result<Transport> {
    let Way { upstream, own, .. } = way;
    let mut stream = match upstream.host() {
        Host::Address(address) => {
            connect_to(SocketAddr::new(*address, upstream.port()), own).await?
        }
        Host::Unix(path) => {
            let mut stream = UnixStream::connect(path).await?;
            stream.write_all(way.preamble.unwrap_or_default()).await?;
            return Ok(Transport::Unix(stream));
        }
        Host::Name(name) => connect_to_name(name, upstream.port(), own).await?,
    };
    stream.set_nodelay(true)?;
    stream.write_all(way.preamble.unwrap_or_default()).await?;
    let Some(tls) = way.tls else {
        return Ok(Transport::Plain(stream));
    };
    let stream = tls.connect(stream, http1_only).await?;
    Ok(Transport::Tls(Box::new(stream.into())))
}

/// Resolves the name anew each time, so that a changed record is followed; the first address that takes the
/// connection is it.
async fn connect_to_name(
    name: &str,
    port: u16,
    own: Option<&dyn OwnConnections>,
) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host((name, port)).await? {
        match connect_to(address, own).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect_to(
    address: SocketAddr,
    own: Option<&dyn OwnConnections>,
) -> io::Result<TcpStream> {
    match own.filter(|own| own.are_to(address)) {
        Some(own) => connect_unseen(address, own).await,
        None => TcpStream::connect(address).await,
    }
}

/// Connects to a service of this host whose port is intercepted. Such a connection comes from the address that it goes
/// to, so its near end is known before it is made.
async fn connect_unseen(address: SocketAddr, own: &dyn OwnConnections) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    match socket.bind(SocketAddr::new(address.ip(), 0)) {
        Ok(()) => {}
        // Another host's: nothing stands before it here.
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            return TcpStream::connect(address).await;
        }
        Err(error) => return Err(error),
    }
    let note = Note::begin(own, socket.local_addr()?, address)?;
    let connected = socket.connect(address).await;
    drop(note);
    connected
}

/// Taken back when dropped, also where nobody waits for the connection any more.
struct Note<'a> {
    own: &'a dyn OwnConnections,
    source: SocketAddr,
    destination: SocketAddr,
}

impl<'a> Note<'a> {
    fn begin(
        own: &'a dyn OwnConnections,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> io::Result<Self> {
        own.begin(source, destination)?;
        Ok(Self {
            own,
            source,
            destination,
        })
    }
}

impl Drop for Note<'_> {
    fn drop(&mut self) {
        self.own.end(self.source, self.destination);
    }
}
