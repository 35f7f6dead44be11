//! Sockets that clients connect to, one a worker.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    time::Duration,
};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::{
    error::ProxyError,
    settings::{Listen, ProxySettings},
};

/// Connections that the kernel holds for a worker that has no time to take them.
const BACKLOG: i32 = 4096;
/// How long a connection may be silent until the other end is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_mins(1);

/// One listener a worker, all at the same address: the kernel spreads the connections (`SO_REUSEPORT`).
///
/// # Errors
/// Where the address can't be listened on, or another process does and `takeover` is not set.
pub(super) fn listeners(settings: &ProxySettings) -> Result<Vec<TcpListener>, ProxyError> {
    let address = match settings.listen {
        Listen::Address(address) => address,
        Listen::Passed => return shared(passed()?, settings),
        Listen::Intercepted => any(),
    };
    let failed = |source: io::Error| {
        if source.kind() == io::ErrorKind::AddrInUse {
            ProxyError::AddressInUse(address)
        } else {
            ProxyError::Listen {
                listen: settings.listen,
                source,
            }
        }
    };
    if !settings.takeover {
        // SO_REUSEPORT would share the address with whichever process of the same user holds it: look first.
        drop(bind(address, false).map_err(failed)?);
    }
    let first = bind(address, true).map_err(failed)?;
    // With port 0, the others take the port that the first was given.
    let bound = first.local_addr().map_err(failed)?.as_socket();
    let others = (1..settings.workers.get()).map(|_| bind(bound.unwrap_or(address), true));
    std::iter::once(Ok(first))
        .chain(others)
        .map(|socket| {
            let socket = socket?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect::<io::Result<_>>()
        .map_err(failed)
}

/// A free port, for both families where there are both. A socket that is bound to one address of IPv6 takes no IPv4.
fn any() -> SocketAddr {
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    if bind(v6, false).is_ok() {
        v6
    } else {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
    }
}

/// The one TCP socket that a service manager has passed.
///
/// # Errors
/// Where there is none, or another.
fn passed() -> Result<TcpListener, ProxyError> {
    let mut sockets = ListenFd::from_env();
    let count = sockets.len();
    match sockets.take_tcp_listener(0) {
        Ok(Some(listener)) if count == 1 => Ok(listener),
        Ok(_) => Err(ProxyError::Passed(count)),
        Err(source) => Err(ProxyError::Listen {
            listen: Listen::Passed,
            source,
        }),
    }
}

/// One listener a worker, all the same socket, that another process has made (systemd socket activation).
///
/// # Errors
/// Where the system gives no more file descriptors.
pub(super) fn shared(
    listener: TcpListener,
    settings: &ProxySettings,
) -> Result<Vec<TcpListener>, ProxyError> {
    let failed = |source| ProxyError::Listen {
        listen: settings.listen,
        source,
    };
    listener.set_nonblocking(true).map_err(failed)?;
    let clones = (1..settings.workers.get()).map(|_| listener.try_clone());
    let mut all = clones.collect::<io::Result<Vec<_>>>().map_err(failed)?;
    all.push(listener);
    all.iter()
        .try_for_each(|l| prepare(&SockRef::from(l)))
        .map_err(failed)?;
    Ok(all)
}

/// The address that is listened on.
///
/// # Errors
/// Where the system does not tell.
pub(super) fn address(
    listeners: &[TcpListener],
    settings: &ProxySettings,
) -> Result<SocketAddr, ProxyError> {
    let first = listeners.first().map(TcpListener::local_addr);
    first
        .unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()))
        .map_err(|source| ProxyError::Listen {
            listen: settings.listen,
            source,
        })
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // Whatever `net.ipv6.bindv6only` says: what is intercepted comes over both.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    prepare(&SockRef::from(&socket))?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Sets what the connections inherit. Ends that are gone without a word are found out even in a tunnel.
fn prepare(socket: &SockRef<'_>) -> io::Result<()> {
    let probes = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&probes)
}
