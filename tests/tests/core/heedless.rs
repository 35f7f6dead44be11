//! Trust against a model of a server that heeds no declared length of the first message: whatever is sent to it, no
//! request with a listed token comes through unread.

use proptest::prelude::*;
use tokenblock_ebpf::digest::TokenDigest;
use tokenblock_tests::{
    engine::{Engine, Fate},
    fixtures::Token,
    receiver::Receiver,
    trace::{Listing, START, sequence},
};

use crate::flow::cases;

/// Bytes after which a body is trusted: more than the model ever holds back, which is nothing.
const AFTER: u32 = 300;
/// Longest header block that the model waits for: less, as with real servers.
const LIMIT: usize = 250;
const ANSWER: usize = 100;

/// What an application makes of its stream.
#[derive(Default)]
struct Read {
    answers: usize,
    closed: bool,
    got_token: bool,
}

/// A server that takes what follows the first header block for the next message, and heeds the framing of all others.
/// It skips empty lines, and answers all else; what is no request ends the connection unless it is `lax`.
fn read(stream: &[u8], lax: bool) -> Read {
    let mut read = Read::default();
    let mut rest = stream;
    while !read.closed {
        while let [b'\r' | b'\n', more @ ..] = rest {
            rest = more;
        }
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            if rest.len() > LIMIT {
                read.answers += 1;
                read.closed = true;
            }
            break;
        };
        if !is_request_line(&rest[..end]) {
            read.answers += 1;
            read.closed = !lax;
            rest = &rest[end..];
            continue;
        }
        let Some(length) = rest.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            if rest.len() > LIMIT {
                read.answers += 1;
                read.closed = true;
            }
            break;
        };
        let (head, behind) = rest.split_at(length + 4);
        let head = String::from_utf8_lossy(head);
        let field = field(&head, "authorization");
        read.got_token |= field.is_some_and(|value| value.contains(&Token::Opaque.text()));
        let body = if read.answers == 0 {
            Some(0)
        } else {
            body(&head, behind)
        };
        // Else it waits for the rest of the body.
        let Some(behind) = body.and_then(|length| behind.get(length..)) else {
            break;
        };
        read.answers += 1;
        rest = behind;
    }
    read
}

fn is_request_line(line: &[u8]) -> bool {
    let line = String::from_utf8_lossy(line);
    let words: Vec<_> = line.trim_end().split(' ').collect();
    matches!(words[..], ["GET" | "POST", _, version] if version.starts_with("HTTP/1."))
}

/// The value of a header field. Some servers take white space in front of the colon.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(given, _)| given.trim_end().eq_ignore_ascii_case(name))?;
    Some(value)
}

/// How long the body is; `None` where it is not there.
fn body(head: &str, behind: &[u8]) -> Option<usize> {
    if field(head, "transfer-encoding").is_some() {
        let end = behind.windows(5).position(|bytes| bytes == b"0\r\n\r\n")?;
        return Some(end + 5);
    }
    Some(field(head, "content-length").map_or(0, |length| length.trim().parse().unwrap_or(0)))
}

/// A piece of what an attacker makes up.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let text = |text: &str| Just(text.as_bytes().to_vec());
    let token = format!("Authorization: Bearer {}\r\n", Token::Opaque.text());
    prop_oneof![
        (1..400_usize).prop_map(|times| b"\r\n".repeat(times)),
        (1..900_usize).prop_map(|length| vec![b'x'; length]),
        (1..900_usize).prop_map(|length| b"a b\r\n".repeat(length / 5)),
        (0..2000_usize).prop_map(|length| format!("Content-Length: {length}\r\n").into_bytes()),
        (0..2000_usize).prop_map(|length| format!("Content-Length : {length}\r\n").into_bytes()),
        text("Transfer-Encoding: chunked\r\n"),
        text("Transfer-Encoding\t: chunked\r\n"),
        text("0\r\n\r\n"),
        text("GET / HTTP/1.1\r\n"),
        text("POST http://a/ HTTP/1.1\r\n"),
        text("POST * HTTP/1.1\r\n"),
        text("X: y\r\n"),
        ("[ \t]?", 300..1500_usize).prop_map(|(space, length)| {
            let body = "x".repeat(length);
            let head = format!("POST x HTTP/1.1\r\nContent-Length{space}: {length}\r\n\r\n");
            (head + &body).into_bytes()
        }),
        Just(token.into_bytes()),
    ]
}

/// How the next bytes are sent: how many, whether they get lost, and how long it takes, in milliseconds.
fn send() -> impl Strategy<Value = (usize, bool, u64)> {
    let wait = prop_oneof![8 => Just(0_u64), 1 => Just(1), 1 => Just(300)];
    (1..600_usize, prop::bool::weighted(0.1), wait)
}

proptest! {
    #![proptest_config(cases(4_000))]

    #[test]
    fn a_heedless_server_is_never_trusted_too_far(
        pieces in prop::collection::vec(piece(), 1..12),
        decoy in prop::collection::vec(piece(), 1..12),
        sends in prop::collection::vec(send(), 1..120),
        lax: bool,
        first in prop_oneof![Just(7_u32), Just(u32::MAX - 1000)],
    ) {
        let head = b"POST / HTTP/1.1\r\nContent-Length: 10000000\r\n\r\n";
        let request = format!("\r\nGET / HTTP/1.1\r\nAuthorization: Bearer {}\r\n\r\n", Token::Opaque.text());
        let stream = [&head[..], &pieces.concat(), request.as_bytes()].concat();
        let decoys = [&head[..], &decoy.concat(), &vec![b'z'; stream.len()]].concat();
        let listing = Listing::new().unwrap();
        let listed = |digest: &TokenDigest| listing.has(digest);
        let mut engine = Engine::new(&listing.rules, &listed).trusting(AFTER);
        engine.accept(first);
        let mut receiver = Receiver::default();
        let mut now = START;
        for (length, lost, wait) in sends.iter().cycle().take(600) {
            now += wait * 1_000_000 + 1000;
            let at = receiver.next();
            let of = if *lost { &decoys } else { &stream };
            let bytes = &of[at..of.len().min(at + length).max(at)];
            if bytes.is_empty() {
                break;
            }
            match engine.segment(sequence(first, at), bytes, now) {
                Fate::Passed(_) | Fate::Trusted | Fate::Copied if !lost => receiver.take(at, bytes),
                Fate::Passed(_) | Fate::Trusted | Fate::Copied | Fate::Dropped(_) => {}
                Fate::Blocked
 | Fate::Reset(_)
 | Fate::Ambiguous
 | Fate::Refused(_)
 | Fate::Dead => break,
            }
            let seen = read(&receiver.stream, lax);
            prop_assert!(!seen.got_token, "{:?}", String::from_utf8_lossy(&receiver.stream));
            if seen.closed {
                break;
            }
            let said = sequence(1, seen.answers * ANSWER);
            engine.answer(said, 0, sequence(first, receiver.next()));
        }
    }
}
