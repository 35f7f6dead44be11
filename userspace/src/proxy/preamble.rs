//! What a load balancer in front says of a client, before the client's own first byte (PROXY protocol,
//! versions 1 and 2).

use std::{io, net::SocketAddr, time::Duration};

use ppp::{HeaderResult, PartialResult as _, v1, v2};
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::sleep};

use super::counters::Closed;

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
