//! Messages on their way through: heads, bodies, connections.

use std::{
    net::{SocketAddr, TcpStream},
    sync::Mutex,
    time::Duration,
};

use http::Response;
use http_body_util::BodyExt as _;
use socket2::{Domain, Socket, Type};
use tokenblock::proxy::UpstreamHttp;

use crate::support::{LISTED, LOOPBACK, Origin, Tier, full, nobody, raw_origin};

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
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("body");
    let bytes: String = "0123456789abcdef".repeat(1 << 18);
    std::fs::write(&file, &bytes).unwrap();
    let file = format!("@{}", file.display());
    for http in [UpstreamHttp::Http1, UpstreamHttp::Http2] {
        let tier = Tier::tls(origin.address, |s| s.upstream_http = http);
        for version in ["--http1.1", "--http2"] {
            let reply = tier.curl("/", &[version, "--data-binary", &file]);
            assert_eq!(reply.status, 200, "{}", reply.error);
            let body = reply.body.split_once("\n\n").unwrap().1;
            assert!(body == bytes, "{} bytes of {}", body.len(), bytes.len());
        }
    }
}

#[test]
fn an_upstream_that_is_not_there_gives_502() {
    let tier = Tier::plain(nobody(), |_| {});
    let reply = tier.curl("/", &[]);
    assert_eq!(reply.status, 502);
    assert!(reply.head.contains("content-type: application/json"));
    assert_eq!(reply.body, "{\"error\":\"upstream_connect\"}\n");
    assert_eq!(tier.count("proxy_refused_upstream_connect"), 1);
}

#[test]
fn http_1_0_clients_are_served() {
    let origin = Origin::echo();
    let tier = Tier::plain(origin.address, |_| {});
    let mut client = tier.connect();
    client.send("GET /old HTTP/1.0\r\n\r\n");
    let reply = client.rest();
    assert!(reply.starts_with("HTTP/1.0 200 "), "{reply}");
    assert!(!reply.to_lowercase().contains("chunked"), "{reply}");
    assert!(
        reply.contains(&format!("host: {}\n", origin.address)),
        "{reply}"
    );
    assert!(reply.contains("via: 1.0 tokenblock\n"), "{reply}");
    // A body without a length ends with the connection.
    let streaming = raw_origin(|_, mut upstream| {
        upstream.until("\r\n\r\n");
        upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    });
    let tier = Tier::plain(streaming, |_| {});
    let reply = tier.connect().send("GET / HTTP/1.0\r\n\r\n").rest();
    assert!(reply.ends_with("\r\n\r\nabc"), "{reply}");
}

#[test]
fn targets_of_every_form() {
    let origin = Origin::echo();
    let tier = Tier::plain(origin.address, |_| {});
    let mut client = tier.connect();
    let mut ask = |request: &str, end: &str| client.send(request).until(end);
    let reply = ask(
        "GET http://other.example/p?q HTTP/1.1\r\nHost: h\r\n\r\n",
        "tokenblock\n\n",
    );
    assert!(reply.contains("\nhost: other.example\n"), "{reply}");
    assert!(reply.contains("GET /p?q\n"), "{reply}");
    let reply = ask("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "tokenblock\n\n");
    assert!(reply.contains("OPTIONS *\n"), "{reply}");
    let reply = ask("GET / HTTP/1.1\r\n\r\n", "}\n");
    assert!(reply.starts_with("HTTP/1.1 400 ") && reply.contains("\"host\""));
    let reply = ask(
        "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "}\n",
    );
    assert!(reply.starts_with("HTTP/1.1 405 "), "{reply}");
    assert_eq!(tier.count("proxy_refused_connect"), 1);
    assert_eq!(tier.count("proxy_refused_host"), 1);
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn what_names_nothing_here_is_refused() {
    let origin = Origin::echo();
    let tier = Tier::plain(origin.address, |_| {});
    // With a body, and without one.
    for more in ["", "Content-Length: 1\r\n"] {
        for (line, hosts, status) in [
            ("CONNECT /x", "Host: h", "405"),
            ("GET *", "Host: h", "400"),
            ("GET ftp://h/x", "Host: h", "400"),
            ("GET http://user:secret@h/x", "Host: h", "400"),
            ("GET /x", "Host: h\r\nHost: h", "400"),
            ("GET /x", "Host: h\r\nhost: other", "400"),
            ("GET /x", "Host: h/x", "400"),
            ("GET /x", "Host: user@h", "400"),
            ("GET /x", "Host: h h", "400"),
        ] {
            let mut client = tier.connect();
            client.send(&format!("{line} HTTP/1.1\r\n{hosts}\r\n{more}\r\n"));
            let reply = client.until("\r\n");
            let wanted = format!("HTTP/1.1 {status} ");
            assert!(reply.starts_with(&wanted), "{line} {hosts}: {reply}");
        }
    }
    assert_eq!(tier.count("proxy_refused_connect"), 2);
    assert_eq!(tier.count("proxy_refused_target"), 6);
    assert_eq!(tier.count("proxy_refused_host"), 10);
    assert_eq!(origin.seen(), Vec::<String>::new());
}

/// Some APIs take the body of a GET for the question.
#[test]
fn a_body_of_a_get_comes_whatever_frames_it() {
    let origin = Origin::echo();
    for http in [UpstreamHttp::Http1, UpstreamHttp::Http2] {
        let tier = Tier::plain(origin.address, |s| s.upstream_http = http);
        let body = ["-X", "GET", "-d", "the question"];
        let chunked = ["-H", "Transfer-Encoding: chunked"];
        for args in [
            &["--http1.1"][..],
            &[&["--http1.1"], &chunked[..]].concat(),
            &["--http2-prior-knowledge"],
            // Without a length.
            &[
                &["--http2-prior-knowledge", "-H", "Content-Length:"],
                &chunked[..],
            ]
            .concat(),
        ] {
            let reply = tier.curl("/", &[&body[..], args].concat());
            assert_eq!(reply.status, 200, "{http:?} {args:?}: {reply:?}");
            assert!(
                reply.body.ends_with("\n\nthe question"),
                "{http:?} {args:?}: {reply:?}"
            );
        }
    }
}

/// What is sent on is chunked alone: another coding below that would be lost on who reads it, and on who judges forms.
#[test]
fn a_body_in_a_coding_of_its_own_is_refused() {
    let origin = Origin::echo();
    let tier = Tier::plain(origin.address, |_| {});
    let ask = |fields: &str| {
        let mut client = tier.connect();
        let body = "3\r\nabc\r\n0\r\n\r\n";
        client.send(&format!(
            "POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n{body}"
        ));
        client.until("\r\n").split(' ').nth(1).unwrap().to_owned()
    };
    for coding in [
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, chunked",
    ] {
        assert_eq!(ask(coding), "501", "{coding}");
    }
    assert_eq!(tier.count("proxy_refused_transfer_coding"), 4);
    assert_eq!(origin.seen(), Vec::<String>::new());
    for coding in ["Transfer-Encoding: chunked", "transfer-encoding:\tChunked "] {
        assert_eq!(ask(coding), "200", "{coding}");
    }
}

#[test]
fn expect_100_continue_is_asked_of_the_upstream() {
    let upstream = raw_origin(|index, mut upstream| {
        let head = upstream.until("\r\n\r\n");
        assert!(head.contains("expect: 100-continue"), "{head}");
        if index == 0 {
            upstream
                .send("HTTP/1.1 100 Continue\r\n\r\n")
                .until("hello");
            upstream.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
        } else {
            upstream.send("HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno");
        }
        upstream.rest();
    });
    let tier = Tier::plain(upstream, |s| {
        s.timeouts.upstream_continue = Duration::from_mins(1);
    });
    let head = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let mut client = tier.connect();
    let interim = client.send(head).until("\r\n\r\n");
    assert_eq!(interim, "HTTP/1.1 100 Continue\r\n\r\n");
    assert!(
        client
            .send("hello")
            .until("ok")
            .starts_with("HTTP/1.1 200 ")
    );
    // Refused by the upstream, the body is never asked for.
    let mut client = tier.connect();
    let reply = client.send(head).until("no");
    assert!(reply.starts_with("HTTP/1.1 413 "), "{reply}");
}

/// Its client is told so before it has sent anything of it.
#[test]
fn the_body_of_a_refused_request_is_not_asked_for() {
    let origin = Origin::echo();
    let tier = Tier::plain(origin.address, |_| {});
    let mut client = tier.connect();
    client.send(&format!(
        "POST / HTTP/1.1\r\nHost: h\r\nX-API-Key: {LISTED}\r\nContent-Length: 5\r\n\
         Expect: 100-continue\r\n\r\n"
    ));
    let reply = client.until("}\n");
    assert!(reply.starts_with("HTTP/1.1 403 "), "{reply}");
    assert_eq!(origin.seen(), Vec::<String>::new());
}

#[test]
fn a_body_is_sent_to_an_upstream_that_never_asks_for_it() {
    let upstream = raw_origin(|_, mut upstream| {
        upstream.until("hello");
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let tier = Tier::plain(upstream, |s| {
        s.timeouts.upstream_continue = Duration::from_millis(50);
    });
    let mut client = tier.connect();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    client.until("100 Continue\r\n\r\n");
    assert!(
        client
            .send("hello")
            .until("ok")
            .starts_with("HTTP/1.1 200 ")
    );
}

#[test]
fn responses_without_a_body_keep_their_fields() {
    let upstream = raw_origin(|_, mut upstream| {
        loop {
            let head = upstream.until("\r\n\r\n");
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            upstream.send(match &*path {
                "/204" => "HTTP/1.1 204 No Content\r\nX-A: b\r\nContent-Length: 0\r\n\r\n",
                "/304" => "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 7\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
            });
        }
    });
    let tier = Tier::plain(upstream, |s| s.workers = 1.try_into().unwrap());
    let mut client = tier.connect();
    let mut ask = |line: &str| {
        let request = format!("{line} HTTP/1.1\r\nHost: h\r\n\r\n");
        client.send(&request).until("\r\n\r\n").to_lowercase()
    };
    for _ in 0..2 {
        let reply = ask("GET /204");
        assert!(reply.starts_with("http/1.1 204 ") && reply.contains("x-a: b"));
        // RFC 9110 section 8.6.
        assert!(!reply.contains("content-length"), "{reply}");
        let reply = ask("GET /304");
        assert!(reply.starts_with("http/1.1 304 ") && reply.contains("etag: \"x\""));
        let reply = ask("HEAD /");
        assert!(reply.starts_with("http/1.1 200 ") && reply.contains("content-length: 9"));
    }
    assert_eq!(tier.count("proxy_upstream_connects_total"), 1);
}

#[test]
fn trailers_pass_both_ways() {
    let upstream = raw_origin(|_, mut upstream| {
        let request = upstream.until("0\r\nx-sum: 7\r\n\r\n").to_lowercase();
        assert!(request.contains("te: trailers\r\n"), "{request}");
        upstream.send(
            "HTTP/1.1 200 OK\r\nTrailer: X-Back\r\nTransfer-Encoding: chunked\r\n\r\n\
             4\r\nbody\r\n0\r\nX-Back: 7\r\n\r\n",
        );
        upstream.rest();
    });
    let tier = Tier::plain(upstream, |_| {});
    let mut client = tier.connect();
    client.send(
        "POST / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nConnection: TE\r\nTrailer: X-Sum\r\n\
         Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n",
    );
    let reply = client.until("0\r\nx-back: 7\r\n\r\n");
    assert!(reply.contains("\r\n\r\n4\r\nbody\r\n0\r\n"), "{reply}");
}

/// What HTTP/1.1 was not told of is left out, and the rest comes whole.
#[test]
fn trailers_that_were_not_named_end_here() {
    let upstream = raw_origin(|_, mut upstream| {
        let request = upstream.until("0\r\n\r\n");
        assert!(
            request.ends_with("\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
            "{request}"
        );
        upstream.send(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX-Back: 7\r\n\r\n",
        );
        upstream.rest();
    });
    let tier = Tier::plain(upstream, |_| {});
    let mut client = tier.connect();
    client.send(
        "POST / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n",
    );
    let reply = client.until("0\r\n\r\n");
    assert!(reply.ends_with("\r\n\r\n4\r\nbody\r\n0\r\n\r\n"), "{reply}");
}

#[test]
fn a_listed_token_in_a_trailer_is_refused() {
    let origin = Origin::serving(|request| async {
        let body = request.into_body().collect().await;
        Response::new(full(if body.is_ok() { "whole" } else { "broken" }))
    });
    let tier = Tier::plain(origin.address, |_| {});
    let mut client = tier.connect();
    client.send(&format!(
        "POST / HTTP/1.1\r\nHost: h\r\nTrailer: X-Api-Key\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n0\r\nX-Api-Key: {LISTED}\r\n\r\n"
    ));
    let reply = client.until("}\n");
    assert!(reply.starts_with("HTTP/1.1 403 "), "{reply}");
    assert_eq!(tier.count("proxy_blocked_total"), 1);
}

/// What a client does to its body is no fault of the upstream's.
#[test]
fn a_body_that_is_malformed_or_breaks_off_is_its_clients_fault() {
    let origin = Origin::echo();
    for http in [UpstreamHttp::Http1, UpstreamHttp::Http2] {
        let tier = Tier::plain(origin.address, |s| {
            s.upstream_http = http;
            s.health.failures = 1;
        });
        let head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
        for body in [
            "-4\r\nbody\r\n",
            "4;x\nbody\r\n",
            "10000000000000004\r\nbody\r\n",
        ] {
            let reply = tier.connect().send(head).send(body).until("}\n");
            assert!(
                reply.starts_with("HTTP/1.1 400 "),
                "{http:?} {body:?}: {reply}"
            );
        }
        assert_eq!(tier.count("proxy_refused_broken_body"), 3);
        tier.connect().send(head).send("4\r\nbo");
        tier.wait_for("proxy_refused_broken_body", 4);
        assert_eq!(tier.count("proxy_upstreams_ejected_total"), 0);
        assert_eq!(tier.curl("/", &[]).status, 200, "{http:?}");
    }
}

#[test]
fn server_sent_events_come_one_by_one() {
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let upstream = raw_origin(move |_, mut upstream| {
        upstream.until("\r\n\r\n");
        upstream.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n");
        gone.lock().unwrap().recv().unwrap();
        upstream.send("data: 2\n\n");
    });
    let tier = Tier::plain(upstream, |_| {});
    let mut client = tier.connect();
    client
        .send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        .until("data: 1\n\n");
    go.send(()).unwrap();
    client.until("data: 2\n\n");
}

#[test]
fn an_upgraded_connection_is_a_tunnel() {
    let upstream = raw_origin(|_, mut upstream| {
        let head = upstream.until("\r\n\r\n");
        assert!(head.contains("upgrade: websocket\r\n"), "{head}");
        assert!(head.contains("connection: upgrade\r\n"), "{head}");
        upstream.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nfirst",
        );
        upstream.until("ping");
        upstream.send("pong").until("bye");
    });
    let tier = Tier::plain(upstream, |_| {});
    let ask = "GET /chat HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n";
    let mut client = tier.connect();
    let reply = client.send(ask).send("\r\n").until("first");
    assert!(reply.starts_with("HTTP/1.1 101 "), "{reply}");
    let reply = reply.to_lowercase();
    assert!(reply.contains("upgrade: websocket\r\n") && reply.contains("sec-websocket-accept: "));
    client.send("ping").until("pong");
    client.send("bye");
    assert_eq!(client.rest(), "");
    assert_eq!(tier.count("proxy_upgrades_total"), 1);
    // The check comes first.
    let mut client = tier.connect();
    client
        .send(ask)
        .send(&format!("Authorization: {LISTED}\r\n\r\n"));
    assert!(client.until("}\n").starts_with("HTTP/1.1 403 "));
    let mut client = tier.connect();
    client
        .send(ask)
        .send(&format!("Sec-WebSocket-Protocol: bearer, {LISTED}\r\n\r\n"));
    assert!(client.until("}\n").starts_with("HTTP/1.1 403 "));
}

#[test]
fn a_change_of_protocol_that_was_not_asked_for_is_no_answer() {
    let upstream = raw_origin(|_, mut upstream| {
        upstream.until("\r\n\r\n");
        upstream.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n",
        );
        upstream.rest();
    });
    let tier = Tier::plain(upstream, |_| {});
    for args in [
        &["-d", "body"][..],
        &["-d", "body", "--http2-prior-knowledge"],
        &["-d", "body", "-H", "Upgrade: other"],
    ] {
        let reply = tier.curl("/", args);
        assert_eq!(reply.status, 502, "{args:?}: {reply:?}");
    }
    assert_eq!(tier.count("proxy_upgrades_total"), 0);
}

/// Answers one request a connection, and closes it when the next one comes.
fn closes_kept_connections() -> SocketAddr {
    raw_origin(|_, mut upstream| {
        upstream.until("\r\n\r\n");
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        upstream.until("\r\n\r\n");
    })
}

#[test]
fn a_kept_connection_that_was_closed_is_no_error_where_that_is_safe() {
    let tier = Tier::plain(closes_kept_connections(), |s| {
        s.workers = 1.try_into().unwrap();
    });
    let mut client = tier.connect();
    for more in ["", "", "", "TE: trailers\r\n", "TE: trailers\r\n"] {
        let get = format!("GET / HTTP/1.1\r\nHost: h\r\n{more}\r\n");
        let reply = client.send(&get).until("ok");
        assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    }
    assert_eq!(tier.count("proxy_upstream_retries_total"), 4);
    // Nobody knows whether the upstream has acted on these.
    for fields in ["", "Content-Length: 0\r\n", "Content-Length: 1\r\n\r\nx"] {
        let mut client = tier.connect();
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").until("ok");
        let end = if fields.ends_with('x') { "" } else { "\r\n" };
        client.send(&format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}{end}"));
        let reply = client.until("}\n");
        assert!(reply.starts_with("HTTP/1.1 502 "), "{fields:?}: {reply}");
    }
}

#[test]
fn an_upstream_that_says_nothing_gives_504() {
    let tier = Tier::plain(raw_origin(|_, mut upstream| drop(upstream.rest())), |s| {
        s.timeouts.upstream_response = Duration::from_millis(100);
    });
    for args in [&[][..], &["-d", "body"]] {
        let reply = tier.curl("/", args);
        assert_eq!(reply.status, 504);
        assert_eq!(reply.body, "{\"error\":\"upstream_timeout\"}\n");
    }
}

#[test]
fn an_upstream_that_takes_no_connection_gives_504() {
    // One waits to be accepted, for which there is room, and one for that.
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    full.bind(&LOOPBACK.into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let _waiting = TcpStream::connect(address).unwrap();
    let soon = Duration::from_millis(100);
    let _next = TcpStream::connect_timeout(&address, soon);
    let tier = Tier::plain(address, |s| s.timeouts.upstream_connect = soon * 2);
    for body in [&[][..], &["-d", "x"]] {
        let reply = tier.curl("/", body);
        assert_eq!(reply.status, 504);
        assert_eq!(reply.body, "{\"error\":\"upstream_connect_timeout\"}\n");
    }
    assert_eq!(tier.count("proxy_refused_upstream_connect_timeout"), 2);
}

#[test]
fn nonsense_from_an_upstream_gives_502() {
    let tier = Tier::plain(
        raw_origin(|_, mut upstream| {
            upstream.send("ick\r\n\r\n");
        }),
        |_| {},
    );
    let reply = tier.curl("/", &[]);
    assert_eq!(reply.status, 502);
    assert_eq!(tier.count("proxy_refused_upstream_failed"), 1);
}
