//! Multipath TCP: what an application reads comes over several connections, in an order that the options of segments tell.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    thread,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokenblock_tests::{
    fixtures::OPAQUE,
    gate,
    netns::{Netns, Pair},
};

use crate::lab::{Bench, LIMIT, Tier};

const PORT: u16 = 8071;

/// A socket of Multipath TCP.
fn socket(domain: Domain) -> io::Result<Socket> {
    Socket::new(domain, Type::STREAM, Some(Protocol::MPTCP))
}

/// A server that sends back what comes, of both families; `None` where the kernel knows no Multipath TCP.
fn listen(netns: &Netns) -> Option<TcpListener> {
    let listen = || -> io::Result<TcpListener> {
        let socket = socket(Domain::IPV6)?;
        socket.set_only_v6(false)?;
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)).into())?;
        socket.listen(16)?;
        Ok(socket.into())
    };
    netns.enter(listen).unwrap().ok()
}

/// Sends these bytes, and gives those that come back before the connection ends.
fn send(pair: &Pair, server: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let connect = || -> io::Result<TcpStream> {
        let socket = socket(Domain::for_address(server))?;
        socket.connect_timeout(&server.into(), LIMIT)?;
        Ok(socket.into())
    };
    let mut stream = pair.client.enter(connect).unwrap().unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    let mut read = 0;
    while let Ok(n @ 1..) = stream.read(&mut back[read..]) {
        read += n;
    }
    back.truncate(read);
    back
}

/// Sends back what comes over each of so many connections.
fn serve(listener: &TcpListener, connections: usize) {
    for _ in 0..connections {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut bytes = [0; 4096];
        while let Ok(n @ 1..) = stream.read(&mut bytes) {
            if stream.write_all(&bytes[..n]).is_err() {
                break;
            }
        }
    }
}

/// How many connections of Multipath TCP were accepted.
fn accepted(netns: &Netns) -> u64 {
    let read = || fs::read_to_string("/proc/thread-self/net/netstat");
    let text = netns.enter(read).unwrap().unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("MPTcpExt:"));
    let names = lines.next().unwrap_or_default().split(' ');
    let values = lines.next().unwrap_or_default().split(' ');
    let mut counters = names.zip(values);
    let counter = counters.find(|(name, _)| *name == "MPCapableACKRX");
    counter.unwrap().1.parse().unwrap()
}

fn request(token: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nAuthorization: Bearer {token}\r\n\r\n").into_bytes()
}

#[test]
fn connections_become_plain_ones() {
    let Some(binary) = gate::product("multipath::connections_become_plain_ones") else {
        return;
    };
    let clean = request("a-token-of-nobody_0123456789");
    let bare = Pair::new().unwrap();
    let Some(listener) = listen(&bare.server) else {
        eprintln!("skipped: the kernel knows no Multipath TCP");
        return;
    };
    let servers = bare.server_addresses(PORT);
    thread::scope(|scope| {
        scope.spawn(|| serve(&listener, servers.len()));
        for server in servers {
            assert_eq!(send(&bare, server, &clean), clean);
        }
    });
    assert_eq!(accepted(&bare.server), 2);

    let port = format!("--port={PORT}");
    let lab = Bench::new(binary).start(Tier::Kernel, &["--on-hit=reset", &port]);
    let pair = &lab.bench.pair;
    let listener = listen(&pair.server).unwrap();
    let servers = pair.server_addresses(PORT);
    thread::scope(|scope| {
        scope.spawn(|| serve(&listener, 2 * servers.len()));
        for server in servers {
            assert_eq!(send(pair, server, &clean), clean);
            assert_eq!(send(pair, server, &request(OPAQUE)), b"");
        }
    });
    assert_eq!(accepted(&pair.server), 0);
    assert!(lab.product.kernel_counter("multipath").unwrap() >= 4);
}
