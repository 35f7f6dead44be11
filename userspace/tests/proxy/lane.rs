//! Requests over HTTP/2 that are judged, and answered, before the HTTP/2 library sees them; and what it sees of the others.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request};

use crate::{
    limits::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, PRIORITY, RST_STREAM,
        SETTINGS, WINDOW_UPDATE, closes, frame, framed, http2, read_until,
    },
    streams::{Answer, Client, connected, get},
    support::{ALERT, LISTED, Origin, Tier, one_worker, raw_origin, scripted},
};

/// What a client reads of a refusal.
const WORDS: &[u8] = b"{\"error\":\"listed_token\"}\n";

/// `GET http://h/` with a listed token, which no later head is about.
fn listed() -> Vec<u8> {
    let value = format!("Bearer {LISTED}");
    let len = u8::try_from(value.len()).unwrap();
    // Field 23 is `authorization`.
    [GET, &[0x1f, 0x08, len], value.as_bytes()].concat()
}

fn request(stream: u32, block: &[u8]) -> Vec<u8> {
    framed(HEADERS, END_STREAM | END_HEADERS, stream, block)
}

/// A connection of which a request was refused, and that takes more bytes of bodies than it may at first.
fn refused_once(tier: &Tier) -> TcpStream {
    let mut client = http2(tier);
    frame(&mut client, SETTINGS, 0, 0, &[]);
    frame(&mut client, WINDOW_UPDATE, 0, 0, &[0, 1, 0, 0]);
    client.write_all(&request(1, &listed())).unwrap();
    read_until(&mut client, WORDS);
    client
}

/// What the head of a refusal begins with where it is about no other head: the status, in full.
fn answer(stream: u8) -> Vec<u8> {
    [&[HEADERS, END_HEADERS, 0, 0, 0, stream][..], b"\x08\x03403"].concat()
}

impl Client {
    async fn upload(&self, request: Request<()>, body: &'static [u8]) -> Answer {
        let mut sender = self.0.clone().ready().await.unwrap();
        let (response, mut stream) = sender.send_request(request, false).unwrap();
        stream.send_data(Bytes::from_static(body), true).unwrap();
        Self::read(response.await.unwrap()).await
    }
}

fn with(mut request: Request<()>, name: &'static str, value: &str) -> Request<()> {
    request.headers_mut().append(name, value.parse().unwrap());
    request
}

fn head(mut request: Request<()>) -> Request<()> {
    *request.method_mut() = Method::HEAD;
    request
}

/// Heads of all kinds, most of them about others that the library never saw.
#[test]
fn refused_and_clean_requests_share_a_connection() {
    const ROUNDS: usize = 200;
    let origin = Origin::echo();
    let tier = one_worker(origin.address);
    let bearer = format!("Bearer {LISTED}");
    connected(&tier, async |client| {
        for round in 0..ROUNDS {
            let listed = with(get("/listed"), "authorization", &bearer);
            let answer = client.ask(listed).await;
            assert_eq!((answer.status(), answer.text().as_bytes()), (403, WORDS));
            assert_eq!(answer.field("content-length"), Some("25"));
            assert_eq!(answer.field("cache-control"), Some("no-store"));
            assert!(answer.field("date").is_some());
            let value = format!("{round:0>width$}", width = 1 + round % 300);
            let clean = with(get(&format!("/{round}?a={round}")), "x-some", &value);
            let answer = client.ask(with(clean, "x-other", &value)).await;
            let text = answer.text();
            assert!(
                text.contains(&format!("\nx-some: {value}\nx-other: {value}\n")),
                "{text}"
            );
            let answer = client.ask(head(with(get("/"), "x-api-key", LISTED))).await;
            assert_eq!((answer.status(), answer.text()), (403, ""));
            assert_eq!(answer.field("content-length"), Some("25"));
            let cookie = with(
                with(get("/"), "cookie", &value),
                "cookie",
                &format!("session={LISTED}"),
            );
            assert_eq!(client.ask(cookie).await.status(), 403);
            let query = get(&format!("/?b=1&access_token={LISTED}"));
            assert_eq!(client.ask(query).await.status(), 403);
            let posted = Request::post("http://h/post").body(()).unwrap();
            let answer = client
                .upload(with(posted.clone(), "x-some", &value), b"some body")
                .await;
            assert!(answer.text().ends_with("some body"), "{}", answer.text());
            let posted = with(posted, "authorization", &bearer);
            assert_eq!(client.upload(posted, b"some body").await.status(), 403);
        }
    });
    let rounds = ROUNDS as u64;
    assert_eq!(tier.count("proxy_requests_total"), 7 * rounds);
    assert_eq!(tier.count("proxy_blocked_total"), 5 * rounds);
    assert_eq!(tier.count("proxy_refused_listed_token"), 5 * rounds);
    let seen = origin.seen();
    assert_eq!(seen.len(), 2 * ROUNDS);
    assert!(seen.iter().all(|head| !head.contains(LISTED)));
}

#[test]
fn a_token_that_passes_is_reported_once() {
    let origin = Origin::echo();
    let tier = one_worker(origin.address);
    connected(&tier, async |client| {
        let listed = with(get("/"), "x-api-key", LISTED);
        assert_eq!(client.ask(listed).await.status(), 403);
        for count in 1..5 {
            let reported = with(get("/"), "x-api-key", ALERT);
            assert_eq!(client.ask(reported).await.status(), 200);
            assert_eq!(tier.count("proxy_alerted_total"), count);
        }
    });
}

/// Frames on a stream that the library doesn't know, and behind them those on one that it does.
#[test]
fn what_still_comes_on_a_refused_stream_is_no_error() {
    let origin = Origin::echo();
    let tier = one_worker(origin.address);
    let mut client = refused_once(&tier);
    let later = [
        request(3, &listed()),
        framed(WINDOW_UPDATE, 0, 3, &[0, 0, 0, 1]),
        framed(RST_STREAM, 0, 3, &[0, 0, 0, 8]),
        framed(PRIORITY, 0, 3, &[0, 0, 0, 0, 1]),
    ];
    client.write_all(&later.concat()).unwrap();
    read_until(&mut client, &answer(3));
    client.write_all(&request(5, GET)).unwrap();
    read_until(&mut client, b"GET /");
    // Heads in several frames, padded.
    let block = listed();
    let (first, rest) = block.split_at(10);
    frame(
        &mut client,
        HEADERS,
        END_STREAM | 8,
        7,
        &[&[2], first, &[0; 2]].concat(),
    );
    frame(&mut client, CONTINUATION, END_HEADERS, 7, rest);
    read_until(&mut client, &answer(7));
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn what_can_not_be_read_ends_the_connection() {
    let origin = Origin::echo();
    let tier = one_worker(origin.address);
    let harm = [
        // No block; a field that nobody knows; a request on a stream that is over, and one on none.
        request(5, b"\xff\xff\xff\xff\xff\xff"),
        request(5, b"\x82\x86\x84\xff\x20"),
        request(3, &listed()),
        request(0, &listed()),
        // A head that breaks off, and one on a stream of the server's.
        [
            framed(HEADERS, END_STREAM, 5, GET),
            framed(DATA, 0, 5, b"x"),
        ]
        .concat(),
        request(6, GET),
        // A body behind the end.
        framed(DATA, END_STREAM, 3, b"x"),
        // More than a client can take.
        framed(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
    ];
    for harm in harm {
        let mut client = refused_once(&tier);
        client.write_all(&request(3, &listed())).unwrap();
        read_until(&mut client, &answer(3));
        client.write_all(&harm).unwrap();
        let mut rest = Vec::new();
        // It may be reset.
        let _ended = client.read_to_end(&mut rest);
        let goaway = rest.windows(2).any(|at| at == [GOAWAY, 0]);
        assert!(goaway, "{harm:x?}: {rest:x?}");
    }
    assert!(origin.seen().is_empty());
}

#[test]
fn a_head_that_is_too_large_is_so_behind_a_refusal() {
    let origin = Origin::echo();
    let tier = Tier::plain(origin.address, |settings| {
        settings.limits.header_bytes = 10_000;
        settings.limits.header_fields = 50;
    });
    connected(&tier, async |client| {
        for _ in 0..3 {
            let listed = with(get("/"), "x-api-key", LISTED);
            assert_eq!(client.ask(listed).await.status(), 403);
            let large = with(get("/"), "x-large", &"x".repeat(10_500));
            assert_eq!(client.ask(large).await.status(), 431);
            let mut many = get("/");
            for _ in 0..60 {
                many = with(many, "x-many", "1");
            }
            assert_eq!(client.ask(many).await.status(), 431);
        }
        assert_eq!(client.ask(get("/")).await.status(), 200);
    });
    assert_eq!(origin.seen().len(), 1);
}

/// Bytes of bodies are sent as far as the client takes them, whoever sends them.
#[test]
fn no_more_is_sent_than_the_client_takes() {
    let origin = Origin::echo();
    let tier = one_worker(origin.address);
    let mut client = http2(&tier);
    frame(&mut client, SETTINGS, 0, 0, &[]);
    let (mut bodies, mut taken, mut rest) = (0, 65_535, Vec::new());
    let mut read = |client: &mut TcpStream, bodies: &mut usize, until: usize| {
        let mut buffer = [0; 4096];
        while *bodies < until {
            let n = client.read(&mut buffer).unwrap();
            assert!(n > 0);
            rest.extend_from_slice(&buffer[..n]);
            while let [0, a, b, kind, _, _, _, _, _, after @ ..] = &rest[..] {
                let len = usize::from(u16::from_be_bytes([*a, *b]));
                if after.len() < len {
                    break;
                }
                *bodies += if *kind == DATA { len } else { 0 };
                rest.drain(..9 + len);
            }
        }
    };
    let streams = (1..).step_by(2);
    for (count, stream) in (1_usize..).zip(streams).take(6000) {
        client.write_all(&request(stream, &listed())).unwrap();
        let due = count * WORDS.len();
        while taken < due {
            // What there is comes, and no byte more.
            read(&mut client, &mut bodies, taken);
            assert_eq!(bodies, taken);
            let more = 700 + count % 5000;
            frame(
                &mut client,
                WINDOW_UPDATE,
                0,
                0,
                &u32::try_from(more).unwrap().to_be_bytes(),
            );
            taken += more;
        }
        read(&mut client, &mut bodies, due);
        assert_eq!(bodies, due);
    }
}

#[test]
fn refused_requests_count_for_the_limit_of_a_connection() {
    let origin = Origin::echo();
    let tier = Tier::plain(origin.address, |settings| {
        settings.limits.requests_per_connection = Some(3);
    });
    let mut client = refused_once(&tier);
    client.write_all(&request(3, &listed())).unwrap();
    client.write_all(&request(5, &listed())).unwrap();
    let goaway = [
        &[0, 0, 8, GOAWAY, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff][..],
        &[0; 4],
    ]
    .concat();
    read_until(&mut client, &goaway);
    assert_eq!(tier.count("proxy_refused_listed_token"), 3);
}

/// One that sends listed tokens and reads no answer.
#[test]
fn a_client_that_reads_no_refusals() {
    let origin = raw_origin(|_, mut upstream| drop(upstream.rest()));
    let tier = Tier::plain(origin, |settings| {
        settings.timeouts.write = Duration::from_millis(300);
    });
    let mut client = refused_once(&tier);
    frame(&mut client, WINDOW_UPDATE, 0, 0, &[0x10, 0, 0, 0]);
    let batch = |first: u32| -> Vec<u8> {
        let streams = (first..first + 200).step_by(2);
        streams
            .flat_map(|stream| request(stream, &listed()))
            .collect()
    };
    for first in (3..).step_by(200) {
        if client.write_all(&batch(first)).is_err() {
            break;
        }
    }
    tier.wait_for("proxy_closed_write_timeout", 1);
    closes(&mut client);
}

/// A window that is made smaller while a response is on its way, below nothing, and then larger (RFC 9113 section 6.9.2).
#[test]
fn a_window_that_is_made_smaller() {
    let origin =
        scripted(|_| "HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\nabcdefghijklmnopqrstuvwxyz");
    let tier = one_worker(origin);
    let mut client = http2(&tier);
    let window = |size: u8| framed(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, size]);
    let data = |bytes: &[u8], flags| framed(DATA, flags, 1, bytes);
    let first = [
        window(10),
        framed(WINDOW_UPDATE, 0, 0, &[0, 0x10, 0, 0]),
        request(1, GET),
    ];
    client.write_all(&first.concat()).unwrap();
    read_until(&mut client, &data(b"abcdefghij", 0));
    // Nothing is left then, five less than nothing, and five.
    client.write_all(&window(5)).unwrap();
    client
        .write_all(&framed(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 10]))
        .unwrap();
    read_until(&mut client, &data(b"klmno", 0));
    // The stream ends with its last byte.
    client.write_all(&window(100)).unwrap();
    read_until(&mut client, &data(b"pqrstuvwxyz", END_STREAM));
    // One that can't be so large is over, and the connection goes on.
    client.write_all(&window(1)).unwrap();
    client.write_all(&request(3, GET)).unwrap();
    read_until(&mut client, b"a");
    client
        .write_all(&framed(WINDOW_UPDATE, 0, 3, &[0x7f, 0xff, 0xff, 0xff]))
        .unwrap();
    client
        .write_all(&framed(WINDOW_UPDATE, 0, 3, &[0x7f, 0xff, 0xff, 0xff]))
        .unwrap();
    client.write_all(&window(26)).unwrap();
    client.write_all(&request(5, GET)).unwrap();
    read_until(
        &mut client,
        &framed(DATA, END_STREAM, 5, b"abcdefghijklmnopqrstuvwxyz"),
    );
}
