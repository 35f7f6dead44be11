//! Limits, each with a client that goes beyond it and another that is served all the same.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use tokenblock::proxy::ProxySettings;

use crate::support::{LISTED, Origin, PATIENCE, Raw, Tier, raw_origin, read};

/// A limit that is waited for; who is to keep to it has time for that on a busy machine too.
const SOON: Duration = Duration::from_millis(500);
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

/// A proxy before an echo, so adjusted.
fn tier(origin: &Origin, adjust: impl FnOnce(&mut ProxySettings)) -> Tier {
    Tier::plain(origin.address, adjust)
}

/// The counter has come to one, and another client is served.
fn counted_and_served(tier: &Tier, counter: &str) {
    tier.wait_for(counter, 1);
    assert_eq!(tier.curl("/", &[]).status, 200);
}

#[test]
fn connections_at_a_time() {
    let origin = Origin::echo();
    let tier = tier(&origin, |s| s.limits.connections = 2);
    let mut first = tier.connect();
    let second = tier.connect();
    tier.wait_for("proxy_connections_total", 2);
    assert_eq!(tier.connect().rest(), "");
    assert_eq!(tier.count("proxy_closed_too_many_connections"), 1);
    assert!(
        first
            .send(REQUEST)
            .until("\n\n")
            .starts_with("HTTP/1.1 200 ")
    );
    drop(second);
    let start = Instant::now();
    while tier.curl("/", &[]).status != 200 {
        assert!(start.elapsed() < PATIENCE, "there is no place again");
    }
}

#[test]
fn connections_at_a_time_from_one_source() {
    let origin = Origin::echo();
    let tier = tier(&origin, |s| s.limits.connections_per_source = 1);
    let mut first = tier.connect();
    tier.wait_for("proxy_connections_total", 1);
    assert_eq!(tier.connect().rest(), "");
    assert_eq!(tier.count("proxy_closed_too_many_from_source"), 1);
    assert!(
        first
            .send(REQUEST)
            .until("\n\n")
            .starts_with("HTTP/1.1 200 ")
    );
    let port = tier.address.port();
    let other = tier.curl_at(
        &format!("http://127.0.0.1:{port}/"),
        &["--interface", "127.0.0.9"],
    );
    assert_eq!(other.status, 200, "{other:?}");
}

#[test]
fn requests_of_one_connection() {
    let origin = Origin::echo();
    let tier = tier(&origin, |s| s.limits.requests_per_connection = Some(2));
    let mut client = tier.connect();
    let reply = client.send(REQUEST).until("tokenblock\n\n");
    assert!(!reply.to_lowercase().contains("connection: close"));
    let reply = client.send(REQUEST).rest();
    assert!(
        reply.to_lowercase().contains("connection: close"),
        "{reply}"
    );
    assert!(reply.ends_with("tokenblock\n\n"), "{reply}");
    // Of whichever kind they are, and whatever becomes of them.
    let post = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx";
    let refused = post.replace("Content", &format!("X-API-Key: {LISTED}\r\nContent"));
    for (first, last) in [(post, post), (REQUEST, post), (post, &*refused)] {
        let mut client = tier.connect();
        client.send(first).until("tokenblock\n");
        let reply = client.send(last).rest();
        assert!(reply.starts_with("HTTP/1.1 "), "{first}{last}: {reply}");
    }
}

#[test]
fn heads_that_are_too_large() {
    let origin = Origin::echo();
    let tier = tier(&origin, |s| {
        s.limits.header_bytes = 10_000;
        s.limits.header_fields = 20;
    });
    let large = format!("X-Large: {}", "a".repeat(20_000));
    let many: Vec<String> = (0..30).map(|n| format!("X-{n}: a")).collect();
    let many: Vec<&str> = many.iter().flat_map(|field| ["-H", field]).collect();
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        assert_eq!(tier.curl("/", &[version, "-H", &large]).status, 431);
        let args = [&[version], &many[..]].concat();
        assert_eq!(tier.curl("/", &args).status, 431);
    }
    tier.wait_for("proxy_closed_header_too_large", 2);
    assert_eq!(tier.count("proxy_closed_header_too_large"), 2);
    assert_eq!(tier.count("proxy_refused_header_bytes"), 1);
    counted_and_served(&tier, "proxy_refused_header_fields");
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn heads_that_are_larger_than_a_small_limit() {
    let origin = Origin::echo();
    let tier = tier(&origin, |s| s.limits.header_bytes = 3000);
    let (small, large) = (
        format!("X: {}", "a".repeat(2000)),
        format!("X: {}", "a".repeat(4000)),
    );
    for args in [
        &["--http1.1"][..],
        &["--http1.1", "-d", "x"],
        &["--http2-prior-knowledge"],
        &["--http2-prior-knowledge", "-d", "x"],
    ] {
        let status = |field: &str| tier.curl("/", &[args, &["-H", field]].concat()).status;
        assert_eq!((status(&small), status(&large)), (200, 431), "{args:?}");
    }
    assert_eq!(origin.seen().len(), 4);
}

/// Their clients are told, though they have megabytes to send.
#[test]
fn heads_that_are_too_large_before_a_long_body() {
    let origin = Origin::echo();
    let tier = tier(&origin, |s| s.limits.header_bytes = 20_000);
    let large = tier.folder.join("field");
    std::fs::write(&large, format!("X: {}", "a".repeat(40_000))).unwrap();
    let large = format!("@{}", large.display());
    let body = tier.folder.join("body");
    std::fs::write(&body, vec![b'x'; 8 << 20]).unwrap();
    let body = format!("@{}", body.display());
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for expect in ["Expect:", "X-More: 1"] {
            let args = [version, "-H", expect, "-H", &large, "--data-binary", &body];
            let reply = tier.curl("/", &args);
            assert_eq!(reply.status, 431, "{args:?}: {}", reply.error);
        }
    }
    assert_eq!(origin.seen().len(), 0);
}

#[test]
fn a_slow_handshake() {
    let origin = Origin::echo();
    let tier = Tier::tls(origin.address, |s| s.timeouts.handshake = SOON);
    assert_eq!(Raw::new(tier.address).send("\u{16}\u{3}\u{1}").rest(), "");
    counted_and_served(&tier, "proxy_closed_handshake_timeout");
}

#[test]
fn a_slow_head() {
    let origin = Origin::echo();
    let tier = tier(&origin, |s| s.timeouts.header = SOON);
    let mut silent = tier.connect();
    let mut slow = tier.connect();
    slow.send(REQUEST).until("tokenblock\n\n");
    slow.send("GET / HTTP/1.1\r\nHost:");
    silent.rest();
    slow.rest();
    tier.wait_for("proxy_closed_header_timeout", 2);
    assert_eq!(tier.curl("/", &[]).status, 200);
}

#[test]
fn a_slow_body() {
    let origin = Origin::echo();
    let tier = tier(&origin, |s| s.timeouts.body = SOON);
    let mut client = tier.connect();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel");
    client.rest();
    counted_and_served(&tier, "proxy_closed_body_timeout");
}

/// Sends a body of forty bytes, each behind a pause that is shorter than what is allowed; gives the answer.
fn drip(tier: &Tier) -> String {
    let mut client = tier.connect();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 40\r\n\r\n");
    for _ in 0..40 {
        std::thread::sleep(SOON / 20);
        if client.0.write_all(b"x").is_err() {
            break;
        }
    }
    client.rest()
}

#[test]
fn a_body_that_drips() {
    let origin = Origin::echo();
    let dripping = |rate| {
        tier(&origin, |s| {
            s.timeouts.body = SOON;
            s.limits.body_rate = rate;
        })
    };
    let strict = dripping(1000);
    let reply = drip(&strict);
    assert!(reply.starts_with("HTTP/1.1 408 "), "{reply}");
    assert!(reply.contains("slow_body"), "{reply}");
    counted_and_served(&strict, "proxy_refused_slow_body");
    for rate in [0, 1] {
        let reply = drip(&dripping(rate));
        assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    }
}

/// The head of an upload that no buffer on the way holds, with a listed token or without.
fn upload(token: &str) -> String {
    format!(
        "POST / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\nContent-Length: {LARGE}\r\n\r\n"
    )
}

/// More than the sockets on the way hold.
const LARGE: usize = 16 << 20;

/// Clients that send all before they read come to an answer that was given before.
#[test]
fn an_answer_is_not_lost_behind_a_body_that_nobody_reads() {
    let full = raw_origin(|_, mut upstream| {
        head_alone(&mut upstream);
        upstream.send("HTTP/1.1 413 Too Much\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        upstream.0.shutdown(Shutdown::Write).unwrap();
        upstream.rest();
    });
    // How often connections to upstreams are looked through for those that are over.
    let tier = Tier::plain(full, |s| s.timeouts.upstream_idle = SOON);
    for (token, status) in [(LISTED, 403), ("another", 413)] {
        let mut client = tier.connect();
        client.send(&upload(token)).send(&"x".repeat(LARGE));
        let reply = client.rest();
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{reply}");
    }
}

/// The same where the head is refused for itself.
#[test]
fn an_answer_to_a_bad_head_is_not_lost_behind_its_body() {
    let origin = Origin::echo();
    let tier = tier(&origin, |_| {});
    let mut client = tier.connect();
    let head = upload("another").replace("Authorization", "Host: other\r\nX");
    client.send(&head).send(&"x".repeat(LARGE));
    let reply = client.rest();
    assert!(reply.starts_with("HTTP/1.1 400 "), "{reply}");
}

/// The same behind an answer that its upstream gives without wanting to see the body, and keeps the connection open.
#[test]
fn an_upload_does_not_wait_for_who_has_answered_already() {
    let full = raw_origin(|_, mut upstream| {
        head_alone(&mut upstream);
        upstream.send("HTTP/1.1 413 Too Much\r\nContent-Length: 0\r\n\r\n");
        upstream.0.set_read_timeout(None).unwrap();
        std::thread::park();
    });
    let tier = Tier::plain(full, |s| {
        s.timeouts.body = SOON * 3;
        s.timeouts.idle = Duration::from_mins(5);
        s.timeouts.upstream_idle = Duration::from_mins(5);
    });
    let mut client = tier.connect();
    client.send(&upload("another")).send(&"x".repeat(LARGE));
    let reply = client.rest();
    assert!(reply.starts_with("HTTP/1.1 413 "), "{reply}");
    // Of HTTP/2 the stream ends alone: NO_ERROR (RFC 9113 section 8.1).
    let mut client = http2(&tier);
    frame(&mut client, SETTINGS, 0, 0, &[]);
    // What the proxy's windows let it send.
    read_until(&mut client, &[0, 0, 4, WINDOW_UPDATE, 0, 0, 0, 0, 0]);
    frame(&mut client, SETTINGS, ACK, 0, &[]);
    frame(&mut client, HEADERS, END_HEADERS, 1, POST);
    for _ in 0..16 {
        frame(&mut client, DATA, 0, 1, &[b'x'; 1 << 14]);
    }
    read_until(
        &mut client,
        &[0, 0, 4, RST_STREAM, 0, 0, 0, 0, 1, 0, 0, 0, 0],
    );
    tier.wait_for("proxy_requests_total", 2);
}

/// Of one that is longer than what is read of it, nobody waits for the rest.
#[test]
fn a_refused_body_that_is_too_long_is_not_waited_for() {
    let origin = Origin::echo();
    let tier = tier(&origin, |s| {
        s.limits.discard_bytes = 1 << 10;
        s.timeouts.body = Duration::from_mins(5);
    });
    let mut client = tier.connect();
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1 << 10));
    client.send(&format!(
        "POST / HTTP/1.1\r\nHost: h\r\nX-API-Key: {LISTED}\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        chunk.repeat(2)
    ));
    let reply = client.until("listed_token");
    assert!(reply.starts_with("HTTP/1.1 403 "), "{reply}");
}

#[test]
fn a_refused_body_without_an_end() {
    let origin = Origin::echo();
    let tier = tier(&origin, |s| s.timeouts.body = SOON);
    let mut client = tier.connect();
    client.send(&upload(LISTED)).until("listed_token");
    while client.0.write_all(&[b'x'; 1 << 10]).is_ok() {
        std::thread::sleep(SOON / 50);
    }
    counted_and_served(&tier, "proxy_closed_body_timeout");
}

/// Reads a head and nothing that follows it.
fn head_alone(stream: &mut Raw) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.0.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
}

#[test]
fn an_upstream_that_takes_its_time_is_not_the_clients_fault() {
    let upstream = raw_origin(|_, mut upstream| {
        head_alone(&mut upstream);
        std::thread::sleep(SOON * 5 / 2);
        let mut left = LARGE;
        let mut buffer = vec![0; 1 << 16];
        while left > 0 {
            left -= upstream.0.read(&mut buffer).unwrap();
        }
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let tier = Tier::plain(upstream, |s| {
        s.timeouts.body = SOON * 5 / 4;
        s.limits.body_rate = LARGE as u64;
    });
    let body = "x".repeat(LARGE);
    let mut client = tier.connect();
    client.send(&format!(
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {LARGE}\r\n\r\n"
    ));
    client.send(&body);
    assert!(client.until("ok").starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_silent_tunnel() {
    let upstream = raw_origin(|_, mut upstream| {
        upstream.until("\r\n\r\n");
        upstream
            .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
        for _ in 0..6 {
            upstream.until(".");
            upstream.send(".");
        }
        upstream.rest();
    });
    let tier = Tier::plain(upstream, |s| s.timeouts.tunnel = SOON);
    let mut client = tier.connect();
    client.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    client.until("\r\n\r\n");
    // Whoever says something now and then goes on.
    for _ in 0..6 {
        std::thread::sleep(SOON / 5);
        client.send(".").until(".");
    }
    assert_eq!(tier.count("proxy_closed_tunnel_timeout"), 0);
    assert_eq!(client.rest(), "");
    tier.wait_for("proxy_closed_tunnel_timeout", 1);
}

#[test]
fn a_slow_body_of_a_refused_request() {
    let origin = Origin::echo();
    let tier = tier(&origin, |s| s.timeouts.body = SOON);
    let mut client = tier.connect();
    client.send(&format!(
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nX-API-Key: {LISTED}\r\n\r\nhel"
    ));
    let reply = client.rest();
    assert!(reply.starts_with("HTTP/1.1 403 "), "{reply}");
    counted_and_served(&tier, "proxy_refused_listed_token");
}

#[test]
fn an_idle_connection() {
    let origin = Origin::echo();
    let tier = tier(&origin, |s| s.timeouts.idle = SOON);
    let mut client = tier.connect();
    client.send(REQUEST).until("tokenblock\n\n");
    assert_eq!(client.rest(), "");
    counted_and_served(&tier, "proxy_closed_idle_timeout");
}

/// An upstream that sends more than all buffers on the way hold, and then nothing more.
fn endless() -> std::net::SocketAddr {
    raw_origin(|_, mut upstream| {
        let head = upstream.until("\r\n\r\n");
        if head.contains("/endless") {
            upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n");
            let zeros = vec![0; 1 << 16];
            while upstream.0.write_all(&zeros).is_ok() {}
        }
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    })
}

#[test]
fn a_client_that_does_not_read() {
    let tier = Tier::plain(endless(), |s| s.timeouts.write = SOON);
    let mut client = tier.connect();
    client.send("GET /endless HTTP/1.1\r\nHost: h\r\n\r\n");
    counted_and_served(&tier, "proxy_closed_write_timeout");
}

#[test]
fn an_http_2_client_that_keeps_its_window_shut() {
    let tier = Tier::plain(endless(), |s| s.timeouts.write = SOON);
    let mut client = http2(&tier);
    // SETTINGS_INITIAL_WINDOW_SIZE = 0
    frame(&mut client, SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    frame(
        &mut client,
        HEADERS,
        END_STREAM | END_HEADERS,
        1,
        GET_ENDLESS,
    );
    counted_and_served(&tier, "proxy_closed_write_timeout");
}

#[test]
fn streams_that_are_opened_and_reset() {
    let origin = Origin::echo();
    let tier = tier(&origin, |s| s.limits.http2_resets = 10);
    let mut client = http2(&tier);
    frame(&mut client, SETTINGS, 0, 0, &[]);
    for stream in 0..20 {
        let id = stream * 2 + 1;
        let sent = try_frame(&mut client, HEADERS, END_STREAM | END_HEADERS, id, GET);
        if sent
            .and_then(|()| try_frame(&mut client, RST_STREAM, 0, id, &[0, 0, 0, 8]))
            .is_err()
        {
            break;
        }
    }
    counted_and_served(&tier, "proxy_closed_reset_flood");
}

#[test]
fn frames_without_use() {
    let origin = Origin::echo();
    let tier = tier(&origin, |s| s.limits.http2_control_frames = 50);
    let floods: [(u8, u32, &[u8]); 5] = [
        (PING, 0, &[0; 8]),
        (SETTINGS, 0, &[]),
        (PRIORITY, 1, &[0, 0, 0, 0, 1]),
        (WINDOW_UPDATE, 0, &[0, 0, 0, 1]),
        // A kind that nobody knows.
        (0x40, 0, &[]),
    ];
    for (count, (kind, stream, payload)) in (1..).zip(floods) {
        let mut client = http2(&tier);
        frame(&mut client, SETTINGS, 0, 0, &[]);
        for _ in 0..100 {
            if try_frame(&mut client, kind, 0, stream, payload).is_err() {
                break;
            }
        }
        tier.wait_for("proxy_closed_control_flood", count);
    }
    let mut client = http2(&tier);
    frame(&mut client, SETTINGS, 0, 0, &[]);
    frame(&mut client, HEADERS, END_STREAM, 1, GET);
    for _ in 0..100 {
        if try_frame(&mut client, CONTINUATION, 0, 1, &[]).is_err() {
            break;
        }
    }
    // The HTTP/2 library may be the first to have enough of it.
    let ended = |tier: &Tier| {
        let closed = [
            "control_flood",
            "protocol",
            "header_too_large",
            "http2_excess",
        ];
        let sum: u64 = closed
            .iter()
            .map(|why| tier.count(&format!("proxy_closed_{why}")))
            .sum();
        sum == 6
    };
    let start = Instant::now();
    while !ended(&tier) {
        assert!(start.elapsed() < PATIENCE, "it goes on");
        std::thread::sleep(Duration::from_millis(5));
    }
    counted_and_served(&tier, "proxy_closed_control_flood");
}

/// Clients that do nothing but harm, as many as there can be, and one that is served all the while.
#[test]
fn all_at_once_beside_a_client_that_is_served() {
    let origin = Origin::echo();
    let tier = tier(&origin, |s| {
        s.workers = 1.try_into().unwrap();
        s.limits.http2_resets = 10;
        s.limits.http2_control_frames = 200;
    });
    let mut kept = tier.connect();
    std::thread::scope(|scope| {
        let floods: [(u8, u8, &[u8]); 4] = [
            (PING, 0, &[0; 8]),
            (SETTINGS, 0, &[]),
            (HEADERS, END_STREAM | END_HEADERS, GET),
            (CONTINUATION, 0, &[]),
        ];
        for (kind, flags, payload) in floods {
            let tier = &tier;
            scope.spawn(move || {
                for _ in 0..20 {
                    let mut client = http2(tier);
                    frame(&mut client, SETTINGS, 0, 0, &[]);
                    if kind == CONTINUATION {
                        frame(&mut client, HEADERS, END_STREAM, 1, GET);
                    }
                    for n in 0..500 {
                        let id = match kind {
                            HEADERS => n * 2 + 1,
                            CONTINUATION => 1,
                            _ => 0,
                        };
                        let sent = try_frame(&mut client, kind, flags, id, payload);
                        let mut reset = || try_frame(&mut client, RST_STREAM, 0, id, &[0, 0, 0, 8]);
                        if sent.is_err() || (kind == HEADERS && reset().is_err()) {
                            break;
                        }
                    }
                }
            });
        }
        for _ in 0..50 {
            let start = Instant::now();
            let reply = kept.send(REQUEST).until("tokenblock\n\n");
            assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
            assert!(start.elapsed() < PATIENCE);
        }
    });
    assert_eq!(tier.curl("/", &["--http2-prior-knowledge"]).status, 200);
    // The HTTP/2 library may be the first to have enough of one.
    let ended = || -> u64 {
        let why = ["control_flood", "reset_flood", "protocol", "http2_excess"];
        why.iter()
            .map(|why| tier.count(&format!("proxy_closed_{why}")))
            .sum()
    };
    let start = Instant::now();
    while ended() < 80 {
        assert!(start.elapsed() < PATIENCE, "{}", ended());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reads until what came holds these bytes.
pub(crate) fn read_until(stream: &mut TcpStream, wanted: &[u8]) -> Vec<u8> {
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    while !got.windows(wanted.len()).any(|window| window == wanted) {
        let n = read(stream, &mut buffer).unwrap();
        assert!(n > 0, "closed after {}", got.escape_ascii());
        got.extend_from_slice(&buffer[..n]);
    }
    got
}

/// Reads until the proxy has closed the connection.
pub(crate) fn closes(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
}

/// One that is kept alive by other frames: neither does the upstream bear the blame, nor do the connection's other requests.
#[test]
fn a_slow_body_of_one_http_2_stream() {
    let origin = Origin::echo();
    let tier = tier(&origin, |s| {
        s.timeouts.body = SOON;
        s.timeouts.upstream_response = SOON * 20;
        s.health.failures = 1;
        s.more_upstreams = vec![s.upstream.clone()];
    });
    let mut client = http2(&tier);
    let mut pinging = client.try_clone().unwrap();
    frame(&mut client, SETTINGS, 0, 0, &[]);
    frame(&mut client, HEADERS, END_HEADERS, 1, POST);
    frame(&mut client, DATA, 0, 1, b"hel");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut ping = || try_frame(&mut pinging, PING, 0, 0, &[0; 8]).is_ok();
            while !done.load(Relaxed) && ping() {
                std::thread::sleep(SOON / 5);
            }
        });
        read_until(&mut client, b"slow_body");
        frame(&mut client, HEADERS, END_STREAM | END_HEADERS, 3, GET);
        read_until(&mut client, b"via: 2.0 tokenblock");
        done.store(true, Relaxed);
    });
    assert_eq!(tier.count("proxy_upstreams_ejected_total"), 0);
    assert_eq!(tier.count("proxy_refused_upstream_timeout"), 0);
    counted_and_served(&tier, "proxy_refused_slow_body");
}

/// The server's own resets cost what the client's cost: the work of a request, and no place among the open ones.
#[test]
fn streams_that_make_the_server_reset_them() {
    let origin = Origin::echo();
    let tier = tier(&origin, |s| s.limits.http2_stream_errors = 10);
    // A length that the body doesn't keep; a window beyond its bounds.
    let length = [POST, b"\x0f\x0d\x015"].concat();
    let floods: [(&[u8], u8, &[u8]); 2] = [
        (&length, DATA, b"too long"),
        (POST, WINDOW_UPDATE, &[0x7f, 0xff, 0xff, 0xff]),
    ];
    for (count, (head, kind, payload)) in (1..).zip(floods) {
        let mut client = http2(&tier);
        frame(&mut client, SETTINGS, 0, 0, &[]);
        for id in (1..40).step_by(2) {
            let sent = try_frame(&mut client, HEADERS, END_HEADERS, id, head);
            if sent
                .and_then(|()| try_frame(&mut client, kind, 0, id, payload))
                .is_err()
            {
                break;
            }
        }
        closes(&mut client);
        tier.wait_for("proxy_closed_http2_excess", count);
        assert_eq!(tier.curl("/", &[]).status, 200);
    }
}

/// As many requests as are given up at a time by a client that gives up a page: the library's own bound is twenty.
#[test]
fn streams_that_are_reset_in_one_segment() {
    let origin = Origin::echo();
    let tier = tier(&origin, |_| {});
    let mut client = http2(&tier);
    let mut all = framed(SETTINGS, 0, 0, &[]);
    for id in (1..201).step_by(2) {
        all.extend(framed(HEADERS, END_STREAM | END_HEADERS, id, GET));
        all.extend(framed(RST_STREAM, 0, id, &[0, 0, 0, 8]));
    }
    all.extend(framed(HEADERS, END_STREAM | END_HEADERS, 201, GET));
    client.write_all(&all).unwrap();
    read_until(&mut client, b"via: 2.0 tokenblock");
}

/// Frames of a body that carry next to nothing.
#[test]
fn a_body_in_single_bytes() {
    let origin = Origin::echo();
    let tier = tier(&origin, |_| {});
    for payload in [&b"x"[..], b"\x00", b"\xff"] {
        let padding = vec![0; usize::from(payload[0] == 0xff) * 255];
        let flags = if payload == b"x" { 0 } else { PADDED };
        let mut client = http2(&tier);
        frame(&mut client, SETTINGS, 0, 0, &[]);
        frame(&mut client, HEADERS, END_HEADERS, 1, POST);
        let payload = [payload, &padding].concat();
        let mut more = (0..200_000).map(|_| try_frame(&mut client, DATA, flags, 1, &payload));
        // It is over, or all of it waits in the sockets on the way.
        let _over = more.find(Result::is_err);
        closes(&mut client);
        assert_eq!(tier.curl("/", &[]).status, 200);
    }
}

/// A field that stands once in the table of the connection and is named thousands of times in a head.
#[test]
fn a_head_that_grows_when_it_is_read() {
    let origin = Origin::echo();
    let tier = tier(&origin, |_| {});
    // 127 + 3,869 bytes.
    let large = [&b"\x40\x01a\x7f\x9d\x1e"[..], &[b'b'; 3996]].concat();
    let bomb = [GET, &large, &[0xbe; 12_000]].concat();
    let mut client = http2(&tier);
    frame(&mut client, SETTINGS, 0, 0, &[]);
    drop(try_frame(
        &mut client,
        HEADERS,
        END_STREAM | END_HEADERS,
        1,
        &bomb,
    ));
    closes(&mut client);
    assert!(origin.seen().is_empty());
    assert_eq!(tier.curl("/", &[]).status, 200);
}

/// More requests at a time than a connection may have: those beyond it wait for nobody.
/// However many frames are allowed: what is held of it is bounded.
#[test]
fn a_head_without_an_end() {
    let origin = Origin::echo();
    let tier = tier(&origin, |s| {
        s.limits.http2_control_frames = u32::MAX;
        s.limits.header_bytes = 16 * 1024;
    });
    let mut client = http2(&tier);
    frame(&mut client, SETTINGS, 0, 0, &[]);
    frame(&mut client, HEADERS, END_STREAM, 1, GET);
    let more = [0_u8; 1 << 14];
    let refused = (0..4096).any(|_| try_frame(&mut client, CONTINUATION, 0, 1, &more).is_err());
    assert!(refused, "64 MiB of it are taken");
    tier.wait_for("proxy_closed_protocol", 1);
    assert_eq!(tier.curl("/", &[]).status, 200);
}

#[test]
fn streams_at_a_time() {
    for more in MORE {
        let origin = raw_origin(|_, mut upstream| drop(upstream.rest()));
        let tier = Tier::plain(origin, |s| s.limits.http2_streams = 3);
        let mut client = http2(&tier);
        frame(&mut client, SETTINGS, 0, 0, &[]);
        frame(&mut client, WINDOW_UPDATE, 0, 0, &more);
        // SETTINGS_MAX_CONCURRENT_STREAMS, as the proxy says it.
        read_until(&mut client, &[0, 3, 0, 0, 0, 3]);
        for id in [1, 3, 5, 7] {
            frame(&mut client, HEADERS, END_STREAM | END_HEADERS, id, GET);
        }
        // RST_STREAM of the fourth: REFUSED_STREAM.
        read_until(
            &mut client,
            &[0, 0, 4, RST_STREAM, 0, 0, 0, 0, 7, 0, 0, 0, 7],
        );
        assert_eq!(tier.count("proxy_requests_total"), 3);
    }
}

#[test]
fn requests_of_one_http_2_connection() {
    for more in MORE {
        let origin = Origin::echo();
        let tier = tier(&origin, |s| s.limits.requests_per_connection = Some(2));
        let mut client = http2(&tier);
        frame(&mut client, SETTINGS, 0, 0, &[]);
        frame(&mut client, WINDOW_UPDATE, 0, 0, &more);
        for id in [1, 3] {
            frame(&mut client, HEADERS, END_STREAM | END_HEADERS, id, GET);
        }
        // GOAWAY without an error: no more of them, please.
        let last = [0x7f, 0xff, 0xff, 0xff];
        let goaway = [&[0, 0, 8, GOAWAY, 0, 0, 0, 0, 0][..], &last, &[0; 4]].concat();
        read_until(&mut client, &goaway);
    }
}

/// Too many streams at a time, again and again.
#[test]
fn streams_beyond_those_at_a_time() {
    let origin = raw_origin(|_, mut upstream| drop(upstream.rest()));
    for more in MORE {
        let tier = Tier::plain(origin, |s| {
            s.limits.http2_streams = 3;
            s.limits.http2_stream_errors = 20;
        });
        let mut client = http2(&tier);
        frame(&mut client, SETTINGS, 0, 0, &[]);
        frame(&mut client, WINDOW_UPDATE, 0, 0, &more);
        for id in (1..100).step_by(2) {
            if try_frame(&mut client, HEADERS, END_STREAM | END_HEADERS, id, GET).is_err() {
                break;
            }
        }
        tier.wait_for("proxy_closed_http2_excess", 1);
    }
}

/// A response that is on its way when the proxy stops is among those that are said to be answered, and comes whole.
#[test]
fn a_response_on_its_way_when_the_end_is_announced() {
    for more in MORE {
        let (tell, told) = std::sync::mpsc::channel();
        let (go, going) = std::sync::mpsc::channel::<()>();
        let going = std::sync::Mutex::new(going);
        let origin = raw_origin(move |_, mut upstream| {
            upstream.until("\r\n\r\n");
            tell.send(()).unwrap();
            going.lock().unwrap().recv().unwrap();
            upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
            upstream.rest();
        });
        let mut tier = Tier::plain(origin, |_| {});
        let mut client = http2(&tier);
        frame(&mut client, SETTINGS, 0, 0, &[]);
        frame(&mut client, WINDOW_UPDATE, 0, 0, &more);
        frame(&mut client, HEADERS, END_STREAM | END_HEADERS, 1, GET);
        told.recv().unwrap();
        tier.order_stop();
        let goaway = |last: [u8; 4]| [&[0, 0, 8, GOAWAY, 0, 0, 0, 0, 0][..], &last].concat();
        let told = read_until(&mut client, &[0, 0, 8, PING, 0, 0, 0, 0, 0]);
        assert!(
            told.windows(13)
                .any(|at| at == goaway([0x7f, 0xff, 0xff, 0xff]))
        );
        // The last frame, which has come with its end.
        frame(&mut client, PING, ACK, 0, &told[told.len() - 8..]);
        read_until(&mut client, &goaway([0, 0, 0, 1]));
        go.send(()).unwrap();
        read_until(&mut client, b"hello");
        closes(&mut client);
        tier.join();
    }
}

/// One that does not say that it has heard of the end.
#[test]
fn a_client_that_goes_on_after_the_end_was_announced() {
    let origin = Origin::echo();
    let tier = tier(&origin, |s| {
        s.limits.requests_per_connection = Some(1);
        s.timeouts.header = SOON;
    });
    let mut silent = http2(&tier);
    frame(&mut silent, SETTINGS, 0, 0, &[]);
    frame(&mut silent, HEADERS, END_STREAM | END_HEADERS, 1, GET);
    closes(&mut silent);
    let mut busy = http2(&tier);
    frame(&mut busy, SETTINGS, 0, 0, &[]);
    let start = Instant::now();
    for id in (1..).step_by(2) {
        if try_frame(&mut busy, HEADERS, END_STREAM | END_HEADERS, id, GET).is_err() {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "it goes on");
        std::thread::sleep(SOON / 10);
    }
    assert_eq!(tier.curl("/", &[]).status, 200);
}

pub(crate) const DATA: u8 = 0;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
const PADDED: u8 = 8;
const ACK: u8 = 1;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
const PING: u8 = 6;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
/// What a client takes more on all streams: so little that the library answers it, and so much that it need not.
const MORE: [[u8; 4]; 2] = [[0, 0, 0, 1], [0, 0x10, 0, 0]];
/// `GET http://h/`, as HPACK (RFC 7541).
pub(crate) const GET: &[u8] = b"\x82\x86\x84\x41\x01h";
/// `POST http://h/`.
const POST: &[u8] = b"\x83\x86\x84\x41\x01h";
/// `GET http://h/endless`.
const GET_ENDLESS: &[u8] = b"\x82\x86\x04\x08/endless\x41\x01h";

/// A connection that has sent its preface.
pub(crate) fn http2(tier: &Tier) -> TcpStream {
    let mut stream = tier.connect().0;
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .unwrap();
    stream
}

pub(crate) fn frame(stream: &mut TcpStream, kind: u8, flags: u8, id: u32, payload: &[u8]) {
    try_frame(stream, kind, flags, id, payload).unwrap();
}

fn try_frame(
    stream: &mut TcpStream,
    kind: u8,
    flags: u8,
    id: u32,
    payload: &[u8],
) -> std::io::Result<()> {
    stream.write_all(&framed(kind, flags, id, payload))
}

pub(crate) fn framed(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&len[1..], &[kind, flags], &id.to_be_bytes(), payload].concat()
}
