//! What is said of a client before its first byte: by a load balancer in front, and to an upstream (PROXY protocol,
//! versions 1 and 2).

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use ppp::{HeaderResult, PartialResult as _, v1, v2};
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::sleep};

use super::{counters::Closed, settings::Preamble};

/// The longest header that is read: version 2 with addresses and a few extensions.
const LONGEST: usize = 1024;
/// Between looks at a header of which a part has come. It travels in one segment as good as always.
const PAUSE: Duration = Duration::from_millis(5);

/// Reads the header off `stream`; gives the client that it names, if it names one.
///
/// # Errors
/// Where there is no such header.
pub(super) async fn read(stream: &mut TcpStream) -> Result<Option<SocketAddr>, Closed> {
    let failed = |_: io::Error| Closed::Preamble;
    let mut seen = [0; LONGEST];
    loop {
        let have = stream.peek(&mut seen).await.map_err(failed)?;
        let header = HeaderResult::parse(seen.get(..have).unwrap_or_default());
        if have > 0 && have < LONGEST && header.is_incomplete() {
            sleep(PAUSE).await;
            continue;
        }
        let (len, client) = match header {
            HeaderResult::V1(Ok(header)) => (header.header.len(), client_v1(&header)),
            HeaderResult::V2(Ok(header)) => (header.header.len(), client_v2(&header)),
            HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => return Err(Closed::Preamble),
        };
        let header = seen.get_mut(..len).ok_or(Closed::Preamble)?;
        stream.read_exact(header).await.map_err(failed)?;
        return Ok(client);
    }
}

/// What tells an upstream that a connection is for a client at `source`, which has connected to `destination`; nothing
/// where nothing is to be told.
pub(super) fn header(
    version: Preamble,
    source: SocketAddr,
    destination: SocketAddr,
) -> Option<Bytes> {
    let ends = of_one_family(source, destination);
    match version {
        Preamble::Off => None,
        Preamble::V1 => Some(v1::Addresses::from(ends).to_string().into()),
        Preamble::V2 => {
            let proxied = v2::Version::Two | v2::Command::Proxy;
            let header = v2::Builder::with_addresses(proxied, v2::Protocol::Stream, ends).build();
            // Addresses alone are never too long.
            Some(header.unwrap_or_default().into())
        }
    }
}

/// The same for a connection that is for nobody but us (a health check).
pub(super) fn of_our_own(version: Preamble) -> Option<Bytes> {
    match version {
        Preamble::Off => None,
        Preamble::V1 => Some(v1::Addresses::Unknown.to_string().into()),
        Preamble::V2 => {
            let local = v2::Version::Two | v2::Command::Local;
            let nobody = v2::Addresses::Unspecified;
            let header =
                v2::Builder::with_addresses(local, v2::Protocol::Unspecified, nobody).build();
            Some(header.unwrap_or_default().into())
        }
    }
}

/// A balancer may speak for a client of another family than its own connection's.
fn of_one_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    if source.is_ipv4() == destination.is_ipv4() {
        return (source, destination);
    }
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    (mapped(source), mapped(destination))
}

fn client_v1(header: &v1::Header<'_>) -> Option<SocketAddr> {
    match &header.addresses {
        v1::Addresses::Tcp4(ends) => Some((ends.source_address, ends.source_port).into()),
        v1::Addresses::Tcp6(ends) => Some((ends.source_address, ends.source_port).into()),
        v1::Addresses::Unknown => None,
    }
}

/// A connection that the balancer made itself (a health check) has no client.
fn client_v2(header: &v2::Header<'_>) -> Option<SocketAddr> {
    if header.command == v2::Command::Local {
        return None;
    }
    match &header.addresses {
        v2::Addresses::IPv4(ends) => Some((ends.source_address, ends.source_port).into()),
        v2::Addresses::IPv6(ends) => Some((ends.source_address, ends.source_port).into()),
        v2::Addresses::Unix(_) | v2::Addresses::Unspecified => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        for (source, destination) in [
            ("192.0.2.1:7", "192.0.2.2:443"),
            ("[2001:db8::1]:7", "[2001:db8::2]:443"),
            ("[2001:db8::1]:7", "192.0.2.2:443"),
        ] {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            for version in [Preamble::V1, Preamble::V2] {
                let header = header(version, source, destination).unwrap();
                let client = match HeaderResult::parse(&header) {
                    HeaderResult::V1(Ok(header)) => client_v1(&header),
                    HeaderResult::V2(Ok(header)) => client_v2(&header),
                    HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => None,
                };
                assert_eq!(client, Some(source), "{version:?}");
            }
        }
    }

    #[test]
    fn a_connection_of_our_own_has_no_client() {
        for version in [Preamble::V1, Preamble::V2] {
            let header = of_our_own(version).unwrap();
            let client = match HeaderResult::parse(&header) {
                HeaderResult::V1(header) => client_v1(&header.unwrap()),
                HeaderResult::V2(header) => client_v2(&header.unwrap()),
            };
            assert_eq!(client, None, "{version:?}");
        }
        assert_eq!(of_our_own(Preamble::Off), None);
    }
}
