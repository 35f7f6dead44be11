//! Requests without a body on kept-alive connections of HTTP/1.1, which have a path of their own.

use std::sync::mpsc;

use crate::support::{LISTED, Origin, PATIENCE, Raw, Tier, one_worker, raw_origin, scripted};

const GET: &str = "GET /plain HTTP/1.1\r\nHost: h\r\n\r\n";

#[test]
fn plain_and_other_requests_share_a_connection() {
    let origin = Origin::echo();
    let tier = one_worker(origin.address);
    let mut client = tier.connect();
    for _ in 0..3 {
        client.send(GET).until("tokenblock\n\n");
    }
    let post = "POST /other HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody";
    client.send(post).until("\n\nbody");
    client.send(GET).until("tokenblock\n\n");
    assert_eq!(origin.seen().len(), 5);
    // The upstream connection is shared by both paths.
    assert_eq!(origin.connections(), 1);
    assert_eq!(tier.count("proxy_requests_total"), 5);
}

#[test]
fn requests_in_one_segment_are_answered_in_order() {
    let origin = Origin::echo();
    let tier = one_worker(origin.address);
    let listed = format!("GET /listed HTTP/1.1\r\nHost: h\r\nX-API-Key: {LISTED}\r\n\r\n");
    let mut client = tier.connect();
    let post = "POST /last HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody";
    let all = [GET, &listed, GET, post].concat();
    let (head, tail) = all.split_at(all.len() - 20);
    client.send(head);
    let mut answers = client.until("listed_token");
    client.send(tail);
    answers.push_str(&client.until("\n\nbody"));
    let places = ["GET /plain", "listed_token", "POST /last"].map(|text| answers.find(text));
    assert!(places.is_sorted() && places[0].is_some(), "{answers}");
    assert_eq!(answers.matches("GET /plain").count(), 2);
    assert_eq!(tier.count("proxy_blocked_total"), 1);
}

#[test]
fn a_head_in_single_bytes_is_one_request() {
    let origin = Origin::echo();
    let tier = one_worker(origin.address);
    let mut client = tier.connect();
    for byte in GET.chars() {
        client.send(&byte.to_string());
    }
    client.until("tokenblock\n\n");
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn bodies_of_every_framing_come_whole() {
    let origin = scripted(|path| match path {
        "/length" => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "/chunked" => {
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
             2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nX-Trailer: 1\r\n\r\n"
        }
        "/none" => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        _ => "HTTP/1.1 200 Fine By Me\r\n\r\nhello",
    });
    let tier = one_worker(origin);
    let mut client = tier.connect();
    let mut ask = |path: &str, end: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
        client.send(&request).until(end)
    };
    for _ in 0..2 {
        let reply = ask("/length", "hello");
        assert!(reply.contains("\r\ncontent-length: 5\r\n"), "{reply}");
        let reply = ask("/chunked", "0\r\n\r\n");
        assert!(
            reply.ends_with("\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
            "{reply}"
        );
        let reply = ask("/none", "\r\n\r\n");
        assert!(reply.contains("\r\ndate: "), "{reply}");
        let reply = ask("/close", "0\r\n\r\n");
        assert!(reply.starts_with("HTTP/1.1 200 Fine By Me\r\n"), "{reply}");
        assert!(reply.ends_with("\r\n5\r\nhello\r\n0\r\n\r\n"), "{reply}");
    }
    // One more for each that was closed.
    assert_eq!(tier.count("proxy_upstream_connects_total"), 2);
    assert_eq!(tier.count("proxy_upstream_retries_total"), 0);
}

#[test]
fn what_can_be_read_in_two_ways_is_not_passed_on() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5 \x0b\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A: b\r\n folded\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Len",
    ] {
        let tier = one_worker(raw_origin(move |_, mut upstream| {
            upstream.until("\r\n\r\n");
            upstream.send(answer);
        }));
        let mut client = tier.connect();
        let reply = client.send(GET).until("}\n");
        assert!(reply.starts_with("HTTP/1.1 502 "), "{answer:?}: {reply}");
        assert_eq!(tier.count("proxy_refused_upstream_failed"), 1);
    }
}

#[test]
fn what_follows_a_response_unasked_is_nobodys_answer() {
    let origin = scripted(
        |_| "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    );
    let tier = one_worker(origin);
    let mut client = tier.connect();
    for _ in 0..3 {
        let reply = client.send(GET).until("hello");
        assert!(
            reply.ends_with("hello") && !reply.contains("evil"),
            "{reply}"
        );
    }
    assert_eq!(tier.count("proxy_upstream_connects_total"), 3);
}

#[test]
fn a_body_that_breaks_off_breaks_the_response_off() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense",
    ] {
        let tier = one_worker(raw_origin(move |_, mut upstream| {
            upstream.until("\r\n\r\n");
            upstream.send(answer);
        }));
        let mut client = tier.connect();
        let reply = client.send(GET).rest();
        assert!(!reply.ends_with("0\r\n\r\n"), "{reply}");
        tier.wait_for("proxy_closed_protocol", 1);
        assert_eq!(tier.count("proxy_responses_broken_total"), 1);
    }
}

#[test]
fn the_upstream_is_let_go_when_the_client_leaves() {
    let (left, has_left) = mpsc::channel();
    let origin = raw_origin(move |_, mut upstream: Raw| {
        upstream.until("\r\n\r\n");
        upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        upstream.rest();
        left.send(()).unwrap();
    });
    let tier = one_worker(origin);
    let mut client = tier.connect();
    client.send(GET).until("hello");
    drop(client);
    has_left.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn what_proxies_in_front_say_is_kept_where_they_are_trusted() {
    let origin = Origin::echo();
    let said = "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.1\r\nx-forwarded-for: 192.0.2.2\r\n\
                X-Forwarded-Proto: https\r\nForwarded: for=192.0.2.1\r\nVia: 1.1 front\r\n";
    // As a plain request, and as one that isn't.
    for more in ["\r\n", "TE: trailers\r\n\r\n"] {
        what_proxies_say_is_kept(&origin, &format!("{said}{more}"));
    }
}

fn what_proxies_say_is_kept(origin: &Origin, said: &str) {
    for (trusted, wanted) in [
        (
            true,
            [
                "x-forwarded-for: 192.0.2.1, 192.0.2.2, 127.0.0.1",
                "x-forwarded-proto: https",
                "forwarded: for=192.0.2.1, for=127.0.0.1;proto=http",
            ],
        ),
        (
            false,
            [
                "x-forwarded-for: 127.0.0.1",
                "x-forwarded-proto: http",
                "forwarded: for=127.0.0.1;proto=http",
            ],
        ),
    ] {
        let tier = Tier::plain(origin.address, |settings| {
            if trusted {
                settings.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
            }
        });
        let mut client = tier.connect();
        let reply = client.send(said).until("\n\n");
        let lines: Vec<&str> = reply.lines().collect();
        for wanted in wanted
            .iter()
            .chain(&["x-forwarded-host: h", "via: 1.1 front"])
        {
            assert_eq!(
                lines.iter().filter(|l| *l == wanted).count(),
                1,
                "{wanted}: {reply}"
            );
        }
        assert_eq!(reply.matches("x-forwarded-for").count(), 1, "{reply}");
    }
}

/// What follows on the connection is the next response, and no body.
#[test]
fn a_refusal_of_head_has_no_body() {
    let origin = Origin::echo();
    let tier = one_worker(origin.address);
    let mut client = tier.connect();
    for _ in 0..3 {
        client.send(&format!(
            "HEAD / HTTP/1.1\r\nhost: h\r\nx-api-key: {LISTED}\r\n\r\n"
        ));
        let head = client.until("\r\n\r\n");
        assert!(
            head.starts_with("HTTP/1.1 403") && head.contains("content-length: 25\r\n"),
            "{head}"
        );
        assert!(head.ends_with("\r\n\r\n"), "{head}");
        client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
        let clean = client.until("host: h");
        assert!(clean.starts_with("HTTP/1.1 200"), "{head}{clean}");
    }
}

/// Nor has the last answer of a connection.
#[test]
fn a_refusal_of_head_that_ends_the_connection_has_no_body() {
    let origin = Origin::echo();
    let tier = Tier::plain(origin.address, |s| {
        s.limits.requests_per_connection = Some(1);
    });
    let mut client = tier.connect();
    client.send(&format!(
        "HEAD / HTTP/1.1\r\nhost: h\r\nx-api-key: {LISTED}\r\n\r\n"
    ));
    let head = client.rest();
    assert!(head.contains("content-length: 25\r\n"), "{head}");
    assert!(head.contains("connection: close\r\n"), "{head}");
    assert!(head.ends_with("\r\n\r\n"), "{head}");
}

/// `TE` speaks to the next hop alone, whether `Connection` says so or not.
#[test]
fn trailers_are_taken_whatever_connection_says() {
    let origin = raw_origin(|_, mut upstream| {
        let head = upstream.until("\r\n\r\n").to_lowercase();
        assert!(head.contains("\r\nte: trailers\r\n"), "{head}");
        assert!(head.contains("\r\nconnection: te\r\n"), "{head}");
        upstream.send(
            "HTTP/1.1 200 OK\r\nTrailer: X-Back\r\nTransfer-Encoding: chunked\r\n\r\n\
             4\r\nbody\r\n0\r\nX-Back: 7\r\n\r\n",
        );
        upstream.rest();
    });
    let tier = one_worker(origin);
    let mut client = tier.connect();
    client.send("GET / HTTP/1.1\r\nHost: h\r\nTE: trailers, gzip\r\n\r\n");
    let reply = client.until("0\r\nx-back: 7\r\n\r\n");
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
}

/// Whether `Connection` names them or not; in a request with a body, and in one without.
#[test]
fn what_speaks_to_the_next_hop_ends_here() {
    let origin = Origin::echo();
    let tier = one_worker(origin.address);
    for more in ["", "Content-Length: 0\r\n"] {
        for field in [
            "Keep-Alive: timeout=5",
            "Proxy-Connection: keep-alive",
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABkAAQAAP__",
            "TE: gzip",
        ] {
            let mut client = tier.connect();
            client.send(&format!(
                "GET / HTTP/1.1\r\nHost: h\r\n{field}\r\nX-Kept: 1\r\n{more}\r\n"
            ));
            let reply = client.until("tokenblock\n\n");
            let (name, _) = field.split_once(':').unwrap();
            let gone = format!("\n{}:", name.to_lowercase());
            let seen = reply.contains(&gone);
            assert!(reply.contains("\nx-kept: 1\n") && !seen, "{reply}");
        }
    }
}

/// No server gets one; what stands in it is not the query.
#[test]
fn a_fragment_is_not_passed_on() {
    let origin = raw_origin(|_, mut upstream| {
        let head = upstream.until("\r\n\r\n");
        assert!(head.starts_with("GET /a?b HTTP/1.1\r\n"), "{head}");
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let tier = one_worker(origin);
    let mut client = tier.connect();
    client.send("GET /a?b#c HTTP/1.1\r\nHost: h\r\n\r\n");
    let reply = client.until("\r\n");
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
}

#[test]
fn an_upstream_that_closes_is_not_asked_on_the_same_connection() {
    for more in ["Connection: close\r\n", "Transfer-Encoding: chunked\r\n"] {
        let answer =
            format!("HTTP/1.1 200 OK\r\n{more}Content-Length: 12\r\n\r\n2\r\nok\r\n0\r\n\r\n");
        let origin = raw_origin(move |_, mut upstream| {
            upstream.until("\r\n\r\n");
            upstream.send(&answer);
            // Open all the same.
            assert_eq!(upstream.rest(), "");
        });
        let tier = one_worker(origin);
        let mut client = tier.connect();
        for _ in 0..3 {
            client.send(GET).until("0\r\n\r\n");
        }
        assert_eq!(tier.count("proxy_upstream_connects_total"), 3);
        assert_eq!(tier.count("proxy_upstream_retries_total"), 0);
    }
}
