//! Requests that two readers could read differently: whatever the proxy makes of them, no listed token comes to the origin,
//! neither in a field nor as a part of what it takes for something else.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use tokenblock::proxy::UpstreamHttp;

use crate::support::{LISTED, Origin, Tier, raw_origin};

const SOON: Duration = Duration::from_millis(700);

/// An origin that notes every byte, and answers whatever looks like the end of a head or of a body in chunks.
struct Listener {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Listener {
    fn new() -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&heard);
        let address = raw_origin(move |_, mut upstream| {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = upstream.0.read(&mut buffer) {
                notes.lock().unwrap().extend_from_slice(&buffer[..n]);
                if buffer[..n].ends_with(b"\r\n\r\n") {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                    drop(upstream.0.write_all(answer));
                }
            }
        });
        Self { address, heard }
    }

    fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }
}

/// A proxy that soon has enough of a client that says no more.
fn impatient(origin: SocketAddr, http: UpstreamHttp) -> Tier {
    Tier::plain(origin, |s| {
        s.upstream_http = http;
        s.timeouts.idle = SOON;
        s.timeouts.header = SOON;
        s.timeouts.body = SOON;
        s.timeouts.upstream_continue = SOON / 2;
    })
}

/// Sends the bytes and no more; gives all that comes back until the proxy has had enough.
fn send(tier: &Tier, bytes: &[u8]) -> Vec<u8> {
    let mut stream = tier.connect().0;
    // It may have had enough before the end, and a reset is an end too.
    drop(stream.write_all(bytes));
    let mut got = Vec::new();
    drop(stream.read_to_end(&mut got));
    got
}

/// Does this for each case, all at once.
fn each<T: Sync>(cases: &[T], check: impl Fn(&T) + Sync) {
    thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| check(case));
        }
    });
}

fn statuses(answers: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answers);
    text.split("HTTP/1.1 ")
        .skip(1)
        .map(|answer| answer[..3].parse().unwrap())
        .collect()
}

#[test]
fn what_is_framed_in_two_ways_of_http_1_hides_no_request() {
    let listener = Listener::new();
    let tier = impatient(listener.address, UpstreamHttp::Http1);
    let inner = format!("GET /inner HTTP/1.1\r\nHost: h\r\nX-API-Key: {LISTED}\r\n\r\n");
    let len = inner.len();
    let post = |fields: &str, body: &str| {
        format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n{body}{inner}")
    };
    let chunked = |fields: &str| post(fields, "0\r\n\r\n");
    let length_and_chunks = format!("Content-Length: {len}\r\nTransfer-Encoding: chunked");
    let lengths = format!("Content-Length: 0\r\nContent-Length: {len}");
    let not_a_length = format!("Content_Length: {len}\r\nContent-Length: 0");
    let requests = [
        chunked(&length_and_chunks),
        chunked("Transfer-Encoding: chunked\r\nContent-Length: 5"),
        chunked("Transfer-Encoding: xchunked"),
        chunked("Transfer-Encoding: chunked, identity"),
        chunked("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
        chunked("Transfer-Encoding : chunked"),
        chunked("Transfer-Encoding: \u{b}chunked"),
        chunked("Transfer-Encoding:\r\n chunked"),
        chunked("Transfer-Encoding:\tchunked"),
        chunked("Transfer-Encoding: chunked")
            .replace("HTTP/1.1\r\nHost: h\r\nT", "HTTP/1.0\r\nHost: h\r\nT"),
        post(&lengths, ""),
        post(&not_a_length, ""),
        post("Content-Length: 0, 0", ""),
        post("Content-Length: +0", ""),
        post("Content-Length: 0x0", ""),
        post("Content-Length: -1", ""),
        post("Content-Length : 0", ""),
        post("Transfer-Encoding: chunked", "0\n\n"),
        post("Transfer-Encoding: chunked", "0;a=\n\n\r\n"),
        post("Transfer-Encoding: chunked", "-1\r\n\r\n"),
        post("Transfer-Encoding: chunked", "10000000000000000\r\n"),
        post("Transfer-Encoding: chunked", "0\r\nX: y\r\n z: a\r\n\r\n"),
        post("Expect: 100-continue\r\nContent-Length: 5", "hello"),
        post("Connection: close\r\nContent-Length: 0", ""),
        post(
            "Connection: Upgrade\r\nUpgrade: foo\r\nContent-Length: 0",
            "",
        ),
        post(
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: 0",
            "",
        ),
        format!("CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n{inner}"),
    ];
    each(&requests, |request| {
        let answers = send(&tier, request.as_bytes());
        let statuses = statuses(&answers);
        // What comes behind was read as a request, or not at all.
        let refused = statuses.last().is_none_or(|last| *last != 200);
        let ended = request.contains("close") || request.contains("100-c");
        let chunks_win = request.contains("chunked") && request.contains("Content-Length: ");
        assert!(refused || ended || chunks_win, "{request}: {statuses:?}");
    });
    let heard = listener.heard();
    assert!(
        !heard.contains(LISTED) && !heard.contains("/inner"),
        "{heard}"
    );
    assert_eq!(tier.curl("/", &[]).status, 200);
}

#[test]
fn what_is_no_field_of_http_1_hides_no_token() {
    let listener = Listener::new();
    let tier = impatient(listener.address, UpstreamHttp::Http1);
    let of_fields = [
        format!("X-API-Key : {LISTED}"),
        format!("X-API-Key\u{0}: {LISTED}"),
        format!("X: a\n X-API-Key: {LISTED}"),
        format!("X: a\nX-API-Key: {LISTED}"),
        format!("X: a\rX-API-Key: {LISTED}"),
        format!("X-API-Key:\r\n {LISTED}"),
        format!("X-API-Key:\r\n\t{LISTED}"),
        format!(" X-API-Key: {LISTED}"),
        format!(": a\r\nX-API-Key: {LISTED}"),
        format!("X_API_Key: {LISTED}"),
        format!("Connection: X-API-Key\r\nX-API-Key: {LISTED}"),
        format!("X-API-Key: a\u{0}\r\nX-API-Key: {LISTED}"),
    ]
    .map(|fields| format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n"));
    let of_targets = [
        format!("/ ?access_token={LISTED}"),
        format!("/\t?access_token={LISTED}"),
        format!("http://other?access_token={LISTED}"),
        format!("http://{LISTED}@h/"),
        format!("/?a=b&acc%65ss_token={LISTED}"),
    ]
    .map(|target| format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
    let requests = [&of_fields[..], &of_targets].concat();
    each(&requests, |request| {
        let statuses = statuses(&send(&tier, request.as_bytes()));
        assert!(
            matches!(statuses[..], [400 | 403]),
            "{request:?}: {statuses:?}"
        );
    });
    assert_eq!(listener.heard(), "");
}

/// What is upgraded passes unread, so no protocol is upgraded to that carries requests (RFC 9113 section 3.1, RFC 2817).
#[test]
fn no_upgrade_leads_to_requests_that_nobody_reads() {
    let inner = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&inner);
    let upstream = raw_origin(move |_, mut upstream| {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = upstream.0.read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
            notes.lock().unwrap().push(text.clone());
            let head = text.to_lowercase();
            upstream.send(if head.contains("upgrade: ") || head.contains("/eager ") {
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
            } else {
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
            });
        }
    });
    let tier = impatient(upstream, UpstreamHttp::Http1);
    let upgrade = |path: &str, to: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\
             {to}\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\nX-API-Key: {LISTED}\r\n\r\n"
        )
    };
    let offers = [
        "Upgrade: h2c",
        "Upgrade: H2C ",
        "Upgrade: HTTP/2.0",
        "Upgrade: TLS/1.0, HTTP/1.1",
        "Upgrade: x/1\r\nUpgrade: h2c",
    ]
    .map(|offer| upgrade("/", offer));
    each(&offers[..4], |request| {
        assert_eq!(
            statuses(&send(&tier, request.as_bytes())).first(),
            Some(&200),
            "{request}"
        );
    });
    // Nor to what was not asked for.
    for request in [&offers[4], &upgrade("/eager", "Upgrade: websocket")] {
        assert_eq!(
            statuses(&send(&tier, request.as_bytes())).first(),
            Some(&502),
            "{request}"
        );
    }
    let heard = inner.lock().unwrap().concat().to_lowercase();
    assert!(!heard.contains(&LISTED.to_lowercase()), "{heard}");
    assert!(
        !heard.contains("h2c") && !heard.contains("http2-settings"),
        "{heard}"
    );
    assert_eq!(heard.matches("upgrade: ").count(), 2, "{heard}");
}

type Field<'a> = (&'a str, &'a str);

/// A string literal of HPACK, not compressed (RFC 7541 section 5.2).
fn literal(text: &str) -> Vec<u8> {
    let len = text.len();
    let mut coded = Vec::new();
    if len < 127 {
        coded.push(u8::try_from(len).unwrap());
    } else {
        let mut rest = len - 127;
        coded.push(127);
        while rest > 127 {
            coded.push(u8::try_from(rest % 128).unwrap() | 128);
            rest /= 128;
        }
        coded.push(u8::try_from(rest).unwrap());
    }
    coded.extend_from_slice(text.as_bytes());
    coded
}

fn block(fields: &[Field<'_>]) -> Vec<u8> {
    let field = |(name, value): &Field<'_>| [vec![0], literal(name), literal(value)].concat();
    fields.iter().flat_map(field).collect()
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&len[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const USUAL: [Field<'_>; 4] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "h"),
];

/// What becomes of the only request of an HTTP/2 connection.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Answered(u16),
    Reset,
    Silence,
}

fn fate(tier: &Tier, frames: &[Vec<u8>]) -> Fate {
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..]].concat();
    let answers = send(tier, &[preface, frames.concat()].concat());
    let mut rest = &answers[..];
    while let [a, b, c, kind, _, _, _, _, _, more @ ..] = rest {
        let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let (payload, next) = more.split_at(len.min(more.len()));
        match *kind {
            HEADERS => return Fate::Answered(status(payload)),
            RST_STREAM => return Fate::Reset,
            // Without an error it is the end of the proxy's patience.
            GOAWAY if payload[4..8] != [0; 4] => return Fate::Reset,
            _ => rest = next,
        }
    }
    Fate::Silence
}

/// The `:status` that a block begins with (RFC 7541 appendix A and, for those that aren't there, appendix B).
fn status(block: &[u8]) -> u16 {
    match block {
        [0x88, ..] => 200,
        [0x8c, ..] => 400,
        [0x48, 0x83, 0x68, 0x0c, 0xff, ..] => 403,
        [0x48, 0x83, 0x68, 0x0d, 0xff, ..] => 405,
        other => panic!("{other:x?}"),
    }
}

/// The head of a request: the usual fields, one of them `replaced`, and `more`.
fn head(replaced: Field<'_>, more: &[Field<'_>], flags: u8) -> Vec<u8> {
    let mut fields = USUAL.to_vec();
    for field in &mut fields {
        if field.0 == replaced.0 {
            field.1 = replaced.1;
        }
    }
    frame(
        HEADERS,
        END_HEADERS | flags,
        &block(&[&fields, more].concat()),
    )
}

/// Nothing replaced.
const USUALLY: Field<'_> = ("", "");

fn injected() -> String {
    format!("a\r\nX-API-Key: {LISTED}")
}

fn inner() -> String {
    format!("GET /inner HTTP/1.1\r\nHost: h\r\nX-API-Key: {LISTED}\r\n\r\n")
}

/// Heads that are no heads (RFC 9113 section 8.2.1 to 8.3.1).
fn heads() -> Vec<Vec<Vec<u8>>> {
    let replaced = |name: &str, value: &str| vec![head((name, value), &[], END_STREAM)];
    let added = |name: &str, value: &str| vec![head(USUALLY, &[(name, value)], END_STREAM)];
    let pseudo_last = [&[("x", "y")], &USUAL[..]].concat();
    let mut heads = vec![
        added("X-API-Key", LISTED),
        added("x-api-key ", LISTED),
        added(&format!("x-api-key: {LISTED}\r\nx"), "v"),
        added("", LISTED),
        added("x", &injected()),
        replaced(
            ":path",
            &format!("/ HTTP/1.1\r\nX-API-Key: {LISTED}\r\nX: "),
        ),
        replaced(":path", &format!("/ ?access_token={LISTED}")),
        replaced(":path", &format!("http://other/?access_token={LISTED}")),
        replaced(
            ":method",
            &format!("GET /?access_token={LISTED} HTTP/1.1\r\nX:"),
        ),
        replaced(":authority", &injected()),
        replaced(":authority", &format!("{LISTED}@h")),
        replaced(":scheme", &injected()),
        added(":path", "/inner"),
        added(":other", LISTED),
        added("transfer-encoding", "chunked"),
        added("connection", "x-api-key"),
        added("upgrade", "websocket"),
        added("te", "gzip"),
        added("host", &format!("other?{LISTED}")),
        vec![frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            &block(&pseudo_last),
        )],
    ];
    for end in ["\r", "\n", "\0"] {
        heads.push(added("x", &format!("a{end}x-api-key: {LISTED}")));
    }
    heads
}

/// Heads whose bodies are none of theirs (RFC 9113 section 8.1 and 8.5).
fn bodies() -> Vec<Vec<Vec<u8>>> {
    let inner = inner();
    let body = |fields: &[Field<'_>], bodies: &[&str]| {
        let mut frames = vec![head(USUALLY, fields, 0)];
        for (n, text) in bodies.iter().enumerate() {
            let flags = if n + 1 == bodies.len() { END_STREAM } else { 0 };
            frames.push(frame(DATA, flags, text.as_bytes()));
        }
        frames
    };
    let trailers = |field: Field<'_>| {
        let trailers = frame(HEADERS, END_HEADERS | END_STREAM, &block(&[field]));
        vec![head(USUALLY, &[], 0), frame(DATA, 0, b"hello"), trailers]
    };
    let connect = block(&[(":method", "CONNECT"), (":authority", "h:80")]);
    let tunnelled = frame(DATA, 0, inner.as_bytes());
    let length = |length| ("content-length", length);
    vec![
        body(&[("transfer-encoding", "chunked")], &["0\r\n\r\n", &inner]),
        body(&[length("0")], &[&inner]),
        body(&[length("5")], &[&format!("hello{inner}")]),
        body(&[length("5")], &["hello", &inner]),
        body(&[length("5"), length("6")], &["hello"]),
        body(&[length("+5")], &["hello"]),
        trailers(("x-api-key", LISTED)),
        trailers(("x", &injected())),
        trailers(("transfer-encoding", "chunked")),
        vec![frame(HEADERS, END_HEADERS, &connect), tunnelled.clone()],
        vec![
            head((":method", "CONNECT"), &[(":protocol", "websocket")], 0),
            tunnelled,
        ],
    ]
}

#[test]
fn what_http_2_may_not_carry_comes_to_no_origin() {
    let listener = Listener::new();
    let echo = Origin::echo();
    let to_http1 = impatient(listener.address, UpstreamHttp::Http1);
    let to_http2 = impatient(echo.address, UpstreamHttp::Http2);
    let cases = [heads(), bodies()].concat();
    each(&cases, |frames| {
        for (tier, of) in [(&to_http1, 1), (&to_http2, 2)] {
            let fate = fate(tier, frames);
            let shown = frames.concat();
            let shown = shown.escape_ascii();
            assert!(
                matches!(fate, Fate::Reset | Fate::Answered(400 | 403 | 405)),
                "HTTP/{of} upstream: {fate:?} {shown}"
            );
        }
    });
    let heard = [listener.heard(), echo.seen().concat()].concat();
    assert!(
        !heard.contains(LISTED) && !heard.contains("/inner"),
        "{heard}"
    );
    for tier in [&to_http1, &to_http2] {
        let get = [head((":method", "GET"), &[("accept", "*/*")], END_STREAM)];
        assert_eq!(fate(tier, &get), Fate::Answered(200));
    }
}
