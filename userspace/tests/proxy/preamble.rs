//! Who the client is: the PROXY protocol in front of its bytes, proxies that speak for it.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixListener,
    thread,
    time::Duration,
};

use tokenblock::proxy::{Preamble, ProxySettings, UpstreamHttp};

use crate::support::{LISTED, LOOPBACK, Origin, Raw, Tier};

#[test]
fn the_client_that_a_balancer_names_is_the_client() {
    let origin = Origin::echo();
    let tier = Tier::plain(origin.address, |s| {
        s.proxy_protocol_from = vec!["127.0.0.1/32".parse().unwrap()];
    });
    let mut client = tier.connect();
    let header = "PROXY TCP4 192.0.2.7 192.0.2.8 4711 443\r\n";
    let (start, end) = header.split_at(10);
    client.send(start);
    thread::sleep(Duration::from_millis(30));
    client.send(end).send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(
        client
            .until("tokenblock\n\n")
            .contains("x-forwarded-for: 192.0.2.7\n")
    );
    // Version 2, over IPv6.
    let mut client = tier.connect();
    let ends = [
        [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9],
        [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8],
    ];
    let head = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24"[..],
        &ends.concat(),
        &[0x12, 0x67, 1, 0xbb],
    ];
    client.0.write_all(&head.concat()).unwrap();
    client.send(&format!(
        "GET / HTTP/1.1\r\nHost: h\r\nX-API-Key: {LISTED}\r\n\r\n"
    ));
    assert!(client.until("}\n").starts_with("HTTP/1.1 403 "));
    let event = &tier.events()[0];
    assert_eq!(event.source, "[2001:db8::9]:4711".parse().unwrap());
}

#[test]
fn a_trusted_proxy_is_added_to_and_others_are_replaced() {
    let origin = Origin::echo();
    let tier = Tier::plain(origin.address, |s| {
        s.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    });
    let claim = ["-H", "X-Forwarded-For: 192.0.2.7", "--interface"];
    let from = |source| tier.curl("/", &[&claim[..], &[source]].concat()).body;
    assert!(from("127.0.0.1").contains("x-forwarded-for: 192.0.2.7, 127.0.0.1\n"));
    let other = from("127.0.0.9");
    assert!(other.contains("x-forwarded-for: 127.0.0.9\n"), "{other}");
}

#[test]
fn it_is_read_before_tls_and_from_its_sources_alone() {
    let origin = Origin::echo();
    let tier = Tier::tls(origin.address, |s| {
        s.proxy_protocol_from = vec!["127.0.0.1/32".parse().unwrap()];
        s.timeouts.handshake = Duration::from_secs(1);
    });
    assert_eq!(tier.curl("/", &["--haproxy-protocol"]).status, 200);
    assert_eq!(tier.curl("/", &[]).status, 0, "it must come");
    tier.wait_for("proxy_closed_preamble", 1);
    assert_eq!(tier.connect().rest(), "");
    tier.wait_for("proxy_closed_preamble_timeout", 1);
    assert_eq!(tier.count("proxy_closed_preamble"), 1);
    let other = ["--interface", "127.0.0.9"];
    assert_eq!(tier.curl("/", &other).status, 200);
    let claims = [&other[..], &["--haproxy-protocol"]].concat();
    assert_eq!(tier.curl("/", &claims).status, 0, "nobody else may claim");
}

/// What is no such header ends its connection, at once or when its time is over, and nobody else's.
#[test]
fn what_is_no_header_ends_its_connection() {
    let origin = Origin::echo();
    let tier = Tier::plain(origin.address, |s| {
        s.proxy_protocol_from = vec!["127.0.0.1/32".parse().unwrap()];
        s.timeouts.handshake = Duration::from_secs(1);
    });
    let request = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    let v2 = |rest: &[u8]| [&b"\r\n\r\n\0\r\nQUIT\n"[..], rest].concat();
    let longest = "1".repeat(200);
    let headers: [Vec<u8>; 12] = [
        request.into(),
        b"\x16\x03\x01\x02\0\x01\0".to_vec(),
        b"PROXY\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 192.0.2.8 99999 443\r\n".to_vec(),
        b"PROXY TCP4 2001:db8::1 192.0.2.8 1 443\r\n".to_vec(),
        b"proxy tcp4 192.0.2.7 192.0.2.8 1 443\r\n".to_vec(),
        format!("PROXY TCP4 {longest} 192.0.2.8 1 443\r\n").into(),
        // Another version, an unknown command, addresses that are cut short, more than is read.
        v2(b"\x11\x11\0\x0c"),
        v2(b"\x2f\x11\0\x0c\xc0\0\x02\x07\xc0\0\x02\x08\0\x01\0\x02"),
        v2(b"\x21\x11\0\x04\xc0\0\x02\x07"),
        [v2(b"\x21\x11\xff\xff"), vec![0; 2000]].concat(),
    ];
    for header in &headers {
        let mut client = tier.connect();
        let _sent_or_cut = client.0.write_all(&[header, request.as_bytes()].concat());
        assert_eq!(client.rest(), "", "{}", header.escape_ascii());
    }
    let closed = || {
        let why = ["preamble", "preamble_timeout"];
        why.iter()
            .map(|why| tier.count(&format!("proxy_closed_{why}")))
            .sum::<u64>()
    };
    assert_eq!(closed(), headers.len() as u64);
    assert_eq!(origin.seen(), Vec::<String>::new());
    // A balancer that names nobody asks for itself; extensions are passed over.
    let unknown = b"PROXY UNKNOWN\r\n".to_vec();
    let local = v2(b"\x20\0\0\0");
    let extended = v2(b"\x21\x11\0\x12\xc0\0\x02\x07\xc0\0\x02\x08\0\x01\0\x02\x01\0\x03abc");
    for (header, address) in [
        (unknown, "127.0.0.1"),
        (local, "127.0.0.1"),
        (extended, "192.0.2.7"),
    ] {
        let mut client = tier.connect();
        client.0.write_all(&header).unwrap();
        let reply = client.send(request).until("\n\n");
        assert!(
            reply.contains(&format!("x-forwarded-for: {address}\n")),
            "{reply}"
        );
    }
}

#[test]
fn upstreams_are_told_whom_a_connection_is_for() {
    let origin = Origin::echo();
    let own = |s: &mut ProxySettings| {
        s.proxy_protocol_from = vec!["127.0.0.1/32".parse().unwrap()];
        s.trusted_proxies = vec!["192.0.2.0/24".parse().unwrap()];
    };
    // A proxy that reads what ours writes.
    let second = Tier::plain(origin.address, own);
    for (version, http) in [
        (Preamble::V1, UpstreamHttp::Http1),
        (Preamble::V2, UpstreamHttp::Http1),
        (Preamble::V2, UpstreamHttp::Http2),
    ] {
        let tier = Tier::plain(second.address, |s| {
            s.workers = 1.try_into().unwrap();
            s.upstream_preamble = version;
            s.upstream_http = http;
        });
        let before = second.count("proxy_connections_total");
        let mut one = tier.connect();
        let mut other = Raw::from("127.0.0.7", tier.address);
        for _ in 0..3 {
            for (client, address) in [(&mut one, "127.0.0.1"), (&mut other, "127.0.0.7")] {
                let reply = client
                    .send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                    .until("\n\n");
                let forwarded = format!("forwarded: for={address};proto=http\n");
                assert!(reply.contains(&forwarded), "{reply}");
            }
        }
        // Each client has its own, and keeps it.
        assert_eq!(second.count("proxy_connections_total"), before + 2);
        drop((one, other));
    }
    assert_eq!(second.count("proxy_closed_preamble"), 0);
}

#[test]
fn upstreams_are_told_before_tls_too() {
    let origin = Origin::echo();
    let second = Tier::tls(origin.address, |s| {
        s.proxy_protocol_from = vec!["127.0.0.1/32".parse().unwrap()];
    });
    let tier = Tier::plain(second.address, |s| {
        s.upstream = second.url("").parse().unwrap();
        s.upstream_tls.ca.clone_from(&second.ca);
        s.upstream_preamble = Preamble::V2;
    });
    let reply = tier.curl("/", &["--interface", "127.0.0.9"]);
    assert!(
        reply.body.contains("for=127.0.0.9;proto=https"),
        "{reply:?}"
    );
}

#[test]
fn a_socket_of_the_file_system_is_told_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("origin.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let origin = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(b"\r\n\r\n") {
            let mut more = [0; 4096];
            let n = stream.read(&mut more).unwrap();
            assert!(n > 0, "closed after {}", heard.escape_ascii());
            heard.extend_from_slice(&more[..n]);
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        stream.write_all(answer).unwrap();
        String::from_utf8(heard).unwrap()
    });
    let tier = Tier::plain(LOOPBACK, |s| {
        s.upstream = format!("unix:{}", path.display()).parse().unwrap();
        s.upstream_preamble = Preamble::V1;
    });
    let reply = tier.curl("/", &["--interface", "127.0.0.9"]);
    assert_eq!(reply.body, "ok", "{reply:?}");
    let heard = origin.join().unwrap();
    let named = heard.starts_with("PROXY TCP4 127.0.0.9 127.0.0.1 ");
    assert!(named, "{heard}");
}
