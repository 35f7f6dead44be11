//! New connections to an upstream.

use std::{io, net::SocketAddr};

use tokio::net::{TcpStream, UnixStream, lookup_host};

use crate::proxy::{
    settings::{Host, Upstream},
    stream::Transport,
    tls::UpstreamTls,
};

/// Connects, and makes the TLS handshake where there is one.
///
/// # Errors
/// Why there is no connection.
pub(super) async fn connect(
    upstream: &Upstream,
    tls: Option<&UpstreamTls>,
    http1_only: bool,
) -> io::Result<Transport> {
    let stream = match upstream.host() {
        Host::Address(address) => {
            TcpStream::connect(SocketAddr::new(*address, upstream.port())).await?
        }
        Host::Unix(path) => return Ok(Transport::Unix(UnixStream::connect(path).await?)),
        Host::Name(name) => connect_to_name(name, upstream.port()).await?,
    };
    stream.set_nodelay(true)?;
    let Some(tls) = tls else {
        return Ok(Transport::Plain(stream));
    };
    let stream = tls.connect(stream, http1_only).await?;
    Ok(Transport::Tls(Box::new(stream.into())))
}

/// Resolves the name anew each time, so that a changed record is followed; the first address that takes the
/// connection is it.
async fn connect_to_name(name: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host((name, port)).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}
