//! Messages on their way through: heads, bodies, connections.

use crate::support::{Origin, Tier};

#[test]
fn heads_are_rewritten_for_the_next_hop() {
    let origin = Origin::echo();
    let tier = Tier::tls(origin.address, |_| {});
    let reply = tier.curl(
        "/a?b=c",
        &[
            "--http1.1",
            "-H",
            "Connection: keep-alive, X-Mine",
            "-H",
            "X-Mine: 1",
            "-H",
            "Keep-Alive: timeout=3",
            "-H",
            "X-Forwarded-For: 10.9.8.7",
            "-H",
            "Host: shop.example",
        ],
    );
    let lines: Vec<&str> = reply.body.lines().collect();
    assert_eq!(lines[0], "GET /a?b=c");
    for wanted in [
        "host: shop.example",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: https",
        "x-forwarded-host: shop.example",
        "forwarded: for=127.0.0.1;proto=https",
        "via: 1.1 tokenblock",
    ] {
        assert!(lines.contains(&wanted), "{wanted} in {lines:?}");
    }
    for gone in ["x-mine", "keep-alive", "connection", "10.9.8.7"] {
        assert!(!reply.body.contains(gone), "{gone} in {lines:?}");
    }
}

#[test]
fn upstream_connections_are_kept() {
    let origin = Origin::echo();
    let tier = Tier::plain(origin.address, |s| s.workers = 1.try_into().unwrap());
    let mut client = tier.connect();
    for n in 0..20 {
        client.send(&format!("GET /{n} HTTP/1.1\r\nHost: h\r\n\r\n"));
        client.until("tokenblock\n\n");
    }
    assert_eq!(origin.seen().len(), 20);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn large_bodies_stream_both_ways() {
    let origin = Origin::echo();
    let tier = Tier::tls(origin.address, |_| {});
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("body");
    let bytes: String = "0123456789abcdef".repeat(1 << 18);
    std::fs::write(&file, &bytes).unwrap();
    let file = format!("@{}", file.display());
    for version in ["--http1.1", "--http2"] {
        let reply = tier.curl("/", &[version, "--data-binary", &file]);
        assert_eq!(reply.status, 200, "{}", reply.error);
        let body = reply.body.split_once("\n\n").unwrap().1;
        assert!(body == bytes, "{} bytes of {}", body.len(), bytes.len());
    }
}

#[test]
fn an_upstream_that_is_not_there_gives_502() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let tier = Tier::plain(address, |_| {});
    let reply = tier.curl("/", &[]);
    assert_eq!(reply.status, 502);
    assert!(reply.head.contains("content-type: application/json"));
    assert_eq!(reply.body, "{\"error\":\"upstream_connect\"}\n");
    assert_eq!(tier.count("proxy_refused_upstream_connect"), 1);
}
