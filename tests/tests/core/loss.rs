//! Clean connections over paths that lose and reorder: they come through the flow engine, whatever their bodies.

use std::slice;

use proptest::prelude::*;
use tokenblock_ebpf::{flow::Place, verdict::Counter};
use tokenblock_tests::{
    bench::request::random,
    bodies::{ALL, Body, Framing},
    engine::{Engine, Fate},
    fixtures::Token,
    receiver::Receiver,
    sender::{Path, send},
    trace::{Listing, START, sequence},
};

use crate::flow::cases;

/// A request: without a body, or with one of this length.
fn request() -> impl Strategy<Value = Option<(Body, Framing, usize)>> {
    let body = prop::sample::select(&ALL[..]);
    let framing = prop_oneof![Just(Framing::Declared), Just(Framing::Chunked)];
    prop_oneof![
        1 => Just(None),
        4 => (body, framing, 0..120_000_usize).prop_map(Some),
    ]
}

fn bytes(request: Option<(Body, Framing, usize)>) -> Vec<u8> {
    request.map_or_else(
        || {
            b"GET /a?b=c HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer something-else\r\n\r\n"
                .to_vec()
        },
        |(body, framing, len)| {
            let mut content = body.bytes(len);
            if body == Body::Headers {
                // A length that ends in the CR of one line and the next chunk's is ambiguous, whatever it is in.
                let lines = content.iter().rposition(|byte| *byte == b'\n');
                content.truncate(lines.map_or(0, |at| at + 1));
            }
            framing.request(&content)
        },
    )
}

fn path() -> impl Strategy<Value = Path> {
    let lossy = prop_oneof![
        Just((1_u64, 0_u64)),
        Just((5, 0)),
        Just((0, 25)),
        Just((5, 25))
    ];
    (lossy, 1..u64::MAX).prop_map(|((lost, early), seed)| Path {
        lost,
        lost_behind: 0,
        early,
        seed,
    })
}

proptest! {
    #![proptest_config(cases(2_000))]

    /// What the host itself drops, behind the hook, is sent again, also where the body ends in what was passed.
    #[test]
    fn what_is_lost_behind_the_hook_comes_again(
        framing in prop_oneof![Just(Framing::Declared), Just(Framing::Chunked)],
        len in 0..24_000_usize,
        lost_behind in 1..4_u64,
        path in path(),
    ) {
        let listing = Listing::new().unwrap();
        let listed = |digest: &_| listing.has(digest);
        let mut engine = Engine::new(&listing.rules, &listed);
        // No word of it may begin a location's name.
        let body: Vec<u8> = b"so it goes on, ".iter().copied().cycle().take(len).collect();
        let request = framing.request(&body);
        let path = Path { lost_behind, ..path };
        let sent = send(&mut engine, slice::from_ref(&request), &[1448], path);
        let harm = sent.ways.iter().find(|(_, _, way)| matches!(way, Counter::Blocked | Counter::GapConflict | Counter::AmbiguousFraming));
        prop_assert_eq!(harm, None, "{:?}", &sent.ways[sent.ways.len().saturating_sub(30)..]);
        prop_assert!(sent.stream == request, "{} of {}", sent.stream.len(), request.len());
    }

    /// Nothing is reset or blocked, and all comes through.
    #[test]
    fn clean_connections_come_through(
        requests in prop::collection::vec(request(), 1..5),
        whole in any::<bool>(),
        sizes in prop::collection::vec(536..1449_usize, 1..20),
        path in path(),
    ) {
        let listing = Listing::new().unwrap();
        let listed = |digest: &_| listing.has(digest);
        let mut engine = Engine::new(&listing.rules, &listed);
        let requests: Vec<_> = requests.into_iter().map(bytes).collect();
        let stream = requests.concat();
        let sizes = if whole { vec![1448] } else { sizes };
        let sent = send(&mut engine, &requests, &sizes, path);
        let harm = sent.ways.iter().find(|(_, _, way)| matches!(way, Counter::Blocked | Counter::GapConflict | Counter::AmbiguousFraming));
        if let Some((from, to, way)) = harm {
            let behind = &stream[*to..stream.len().min(*to + 80)];
            prop_assert!(
                false,
                "{way:?} at {from}..{to}: {:?} before {:?}; {:?}",
                String::from_utf8_lossy(&stream[*from..*to]),
                String::from_utf8_lossy(behind),
                &sent.ways[sent.ways.len().saturating_sub(30)..],
            );
        }
        prop_assert_eq!(sent.stream.len(), stream.len(), "{:?}", &sent.ways[sent.ways.len().saturating_sub(30)..]);
        prop_assert!(sent.stream == stream);
    }
}

proptest! {
    #![proptest_config(cases(60))]

    /// Bodies of any bytes in segments as large as a host puts them together: each is lost or late as one, and has many
    /// lines that look like something.
    #[test]
    fn large_segments_of_any_bytes_come_through(
        label in any::<u32>(),
        len in 0..1_500_000_usize,
        sizes in prop::collection::vec(1..46_usize, 1..6),
        path in path(),
    ) {
        let listing = Listing::new().unwrap();
        let listed = |digest: &_| listing.has(digest);
        let mut engine = Engine::new(&listing.rules, &listed);
        let request = Framing::Declared.request(&random(&label.to_string(), len));
        let sizes: Vec<_> = sizes.into_iter().map(|count| count * 1448).collect();
        let sent = send(&mut engine, slice::from_ref(&request), &sizes, path);
        let harm = sent.ways.iter().find(|(_, _, way)| matches!(way, Counter::Blocked | Counter::GapConflict | Counter::AmbiguousFraming));
        prop_assert_eq!(harm, None, "{:?}", &sent.ways[sent.ways.len().saturating_sub(30)..]);
        prop_assert!(sent.stream == request, "{} of {}", sent.stream.len(), request.len());
    }
}

/// Sends `before` in order, then `late` last, behind what follows it. Gives what became of what follows, and of `late`.
fn reorder(before: &[Vec<u8>], late: &[u8], behind: &[Vec<u8>]) -> (Vec<Fate>, Fate) {
    const FIRST: u32 = 7;
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let mut engine = Engine::new(&listing.rules, &listed);
    engine.accept(FIRST);
    let mut at = 0;
    for piece in before {
        assert!(matches!(
            engine.segment(sequence(FIRST, at), piece, START),
            Fate::Passed(_)
        ));
        at += piece.len();
        engine.settle(sequence(FIRST, at));
    }
    let gap = at;
    at += late.len();
    let mut fates = Vec::new();
    for piece in behind {
        fates.push(engine.segment(sequence(FIRST, at), piece, START));
        at += piece.len();
    }
    (fates, engine.segment(sequence(FIRST, gap), late, START))
}

/// Where a chunked body was read up to its end, the request behind it is not taken for more of it: its header block says
/// where a message ends, and what was passed before would have been read without that.
#[test]
fn a_request_behind_chunks_comes_in_order() {
    let chunked = Framing::Chunked.request(&Body::Binary.bytes(60_000));
    let before: Vec<_> = chunked.chunks(1448).map(<[u8]>::to_vec).collect();
    let upload = Framing::Declared.request(&Body::Text.bytes(10_000));
    let (late, behind) = upload.split_at(1448);
    let behind: Vec<_> = behind.chunks(1448).map(<[u8]>::to_vec).collect();
    let (fates, filler) = reorder(&before, late, &behind);
    assert!(
        fates
            .iter()
            .all(|fate| *fate == Fate::Dropped(Place::TooEarly)),
        "{fates:?}"
    );
    assert_eq!(filler, Fate::Passed(Place::Next));
}

/// A declared body in which something looked like a header, and much did not since: what fills a gap in it may have lines that
/// would be an odd head's elsewhere.
#[test]
fn a_gap_in_a_body_with_a_header_like_line_is_filled() {
    let quiet = Body::Text.bytes(20_000);
    let noise = b"\nAuthorization: me\n".as_slice();
    let body = [&quiet, noise, &quiet, b"\nx\xff: y\n", &quiet].concat();
    let request = Framing::Declared.request(&body);
    let pieces: Vec<_> = request.chunks(1448).map(<[u8]>::to_vec).collect();
    let odd = pieces
        .iter()
        .position(|piece| piece.contains(&0xff))
        .unwrap();
    let (fates, filler) = reorder(&pieces[..odd], &pieces[odd], &pieces[odd + 1..]);
    assert_eq!(fates.first(), Some(&Fate::Passed(Place::Ahead)));
    assert_eq!(filler, Fate::Passed(Place::Filler));
}

/// Nor does it harm where both come at once, so that nobody can tell: all that was passed is of the body then.
#[test]
fn a_request_in_one_segment_with_chunks_comes_late() {
    let chunked = Framing::Chunked.request(&Body::Binary.bytes(60_000));
    let (before, last) = chunked.split_at(58_000);
    let before: Vec<_> = before.chunks(1448).map(<[u8]>::to_vec).collect();
    let upload = Framing::Declared.request(&Body::Text.bytes(10_000));
    let (first, behind) = upload.split_at(300);
    let late = [last, first].concat();
    let behind: Vec<_> = behind.chunks(1448).map(<[u8]>::to_vec).collect();
    for passed in 1..behind.len() {
        let (fates, filler) = reorder(&before, &late, &behind[..passed]);
        assert!(
            fates
                .iter()
                .all(|fate| *fate == Fate::Passed(Place::Ahead)
                    || *fate == Fate::Passed(Place::Next)),
            "{fates:?}"
        );
        assert_eq!(filler, Fate::Passed(Place::Filler), "{passed}");
    }
    // Here it is not so: the message behind the body would not have been read from its start.
    let (_, filler) = reorder(
        &before,
        &late,
        &[behind.concat(), b"GET / HTTP/1.1".to_vec()],
    );
    assert!(matches!(filler, Fate::Reset(_)));
}

/// Chunks are a body from their head on, and until they may be over.
#[test]
fn chunks_pass_ahead_of_a_gap() {
    const EARLY: Fate = Fate::Dropped(Place::TooEarly);
    const AHEAD: Fate = Fate::Passed(Place::Ahead);
    let head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let text = "and so on, and o\n";
    let chunk = format!("{:x}\r\n{text}\r\n", text.len());
    let (size, rest) = chunk.split_at(4);
    let (front, end) = head.split_at(head.len() - 2);
    let request = "GET /a HTTP/1.1\r\n";
    for (before, ahead) in [
        (vec![head], AHEAD),
        (vec![front, end], AHEAD),
        (vec![head, &chunk], EARLY),
        (vec![&format!("{head}{chunk}")], EARLY),
        (vec![head, &chunk, size], AHEAD),
        (vec![head, &chunk, size, text], AHEAD),
        (vec![head, &chunk, "0\r\n"], AHEAD),
        (vec![head, &chunk, "0\r\n\r\n"], EARLY),
        (vec![head, &chunk, "0\r\n\r", "\n"], EARLY),
        (vec![head, &chunk, "0\r\n\r", "x"], AHEAD),
        (vec![head, &chunk, "0\r\nX: y\r\n\r\n"], EARLY),
        // Another message.
        (vec![head, "0\r\n\r\n", request], EARLY),
        (vec![head, "0\r\n\r\n", request, "X: y\r\n"], EARLY),
        // It may be the head of one.
        (vec![head, &chunk, "Authorization: me\r\n"], EARLY),
        // It is not told yet, or not told at all.
        (vec![front], EARLY),
        (vec!["Transfer-Encoding: chunked\r\n\r\n", size], EARLY),
        (vec!["POST / HTTP/1.1\r\n\r\n", size], EARLY),
    ] {
        let pieces: Vec<Vec<u8>> = before.iter().map(|piece| piece.as_bytes().into()).collect();
        let (fates, _) = reorder(&pieces, rest.as_bytes(), &[text.into()]);
        assert_eq!(fates, [ahead], "{before:?}");
    }
}

/// The end of a body may be a few bytes of a line. Lost behind the hook, they are read as they were before: from the middle of
/// that line, not also as the rest of a request target.
#[test]
fn a_short_end_of_a_body_is_lost_behind_the_hook() {
    const FIRST: u32 = 7;
    const LATER: u64 = 300_000_000;
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let text = b"so it goes on, ".iter().copied().cycle();
    for shift in 0..15 {
        for end in 1..6 {
            let body: Vec<u8> = text.clone().skip(shift).take(1400 + end).collect();
            let request = Framing::Declared.request(&body);
            let (front, last) = request.split_at(request.len() - end);
            let mut engine = Engine::new(&listing.rules, &listed);
            engine.accept(FIRST);
            let at = sequence(FIRST, front.len());
            let next = Fate::Passed(Place::Next);
            assert_eq!(engine.segment(FIRST, front, START), next);
            assert_eq!(engine.segment(at, last, START), next);
            engine.settle(at);
            let again = engine.segment(at, last, START + LATER);
            assert_eq!(again, Fate::Passed(Place::Recovery), "{shift}, {end}");
        }
    }
}

/// Where the lines of a body look like headers nothing passes ahead of a gap in it, as what fills that is as likely to: also
/// where its head was in the same segment as its first lines.
#[test]
fn a_body_of_requests_comes_in_order() {
    for framing in [Framing::Declared, Framing::Chunked] {
        let body = framing.request(&[Body::Headers.bytes(3000), b"and so on".repeat(9)].concat());
        for first in [200, 300, 900, 1086, 1448] {
            let (before, rest) = body.split_at(first);
            let (late, behind) = rest.split_at(rest.len() - 60);
            let (fates, filler) = reorder(&[before.to_vec()], late, &[behind.to_vec()]);
            let early = Fate::Dropped(Place::TooEarly);
            assert_eq!(fates, [early], "{framing:?}, {first}");
            assert_eq!(filler, Fate::Passed(Place::Next));
        }
    }
}

/// A gap that is filled piece by piece, where a piece ends in what may begin a location's name: its state is kept, whatever
/// other gaps there are.
#[test]
fn gaps_are_filled_piece_by_piece() {
    const FIRST: u32 = 7;
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let head = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n";
    // Each ends in what may begin a name, and begins in the middle of one.
    let line = "uthor of it\nand more\nA";
    let pieces: Vec<&str> = [head, "some text\nA"]
        .into_iter()
        .chain([line; 12])
        .collect();
    let at: Vec<usize> = pieces
        .iter()
        .scan(0, |at, piece| {
            *at += piece.len();
            Some(*at - piece.len())
        })
        .collect();
    let mut engine = Engine::new(&listing.rules, &listed);
    engine.accept(FIRST);
    let mut receiver = Receiver::default();
    let mut now = START;
    // Every third comes; the rest is sent again until it passes.
    let first = (0..pieces.len()).filter(|n| *n < 2 || n % 3 == 1);
    for n in first.chain((0..8).flat_map(|_| (0..pieces.len()).rev())) {
        now += 1_000_000;
        let fate = engine.segment(sequence(FIRST, at[n]), pieces[n].as_bytes(), now);
        assert!(
            !matches!(fate, Fate::Reset(_) | Fate::Blocked),
            "{n}: {fate:?}"
        );
        if matches!(fate, Fate::Passed(_)) {
            receiver.take(at[n], pieces[n].as_bytes());
        }
        engine.settle(sequence(FIRST, receiver.next()));
    }
    assert_eq!(String::from_utf8_lossy(&receiver.stream), pieces.concat());
}

/// What fills a gap may end in the middle of a name or a value: it is read on in what is kept of what stands behind.
#[test]
fn a_gap_may_end_in_a_candidate() {
    let body = Framing::Declared.request(&Body::Line.bytes(40_000));
    let before: Vec<_> = body[..30_000].chunks(1448).map(<[u8]>::to_vec).collect();
    let token = Token::Opaque.text();
    let fill = |late: &str, behind: &str| {
        let (fates, filler) = reorder(&before, late.as_bytes(), &[behind.into()]);
        assert_eq!(fates, [Fate::Passed(Place::Ahead)], "{behind:?}");
        filler
    };
    let listed = format!("\nlorem /b?access_token={token} ipsum dolor");
    let clean = listed.replace(&token, "of-somebody-else");
    let from = listed.find('?').unwrap() + 1;
    for cut in from..clean.find(" ipsum").unwrap() {
        let (late, behind) = clean.split_at(cut);
        assert_eq!(fill(late, behind), Fate::Passed(Place::Filler), "{late:?}");
    }
    for cut in from..listed.find(&token).unwrap() + token.len() {
        let (late, behind) = listed.split_at(cut);
        assert_eq!(fill(late, behind), Fate::Blocked, "{late:?}");
    }
    // Of a value that is longer than what is kept nobody can tell.
    let (late, behind) = ("\nlorem /b?access_token=", format!("{} ", "x".repeat(200)));
    assert!(matches!(fill(late, &behind), Fate::Reset(_)));
    // Of a parameter that is no location's nothing need be kept.
    let (late, behind) = ("\nlorem /b?c=", format!("{} ", "x".repeat(200)));
    assert_eq!(fill(late, &behind), Fate::Passed(Place::Filler));
    // Nor may it be one of the query that began in front.
    let (late, behind) = ("\nlorem /b?c=", format!("d&access_token={token} "));
    let (fates, _) = reorder(&before, late.as_bytes(), &[behind.into()]);
    assert_eq!(fates, [Fate::Dropped(Place::TooEarly)]);
}

/// Uploads in chunks are read for parameters too, wherever they stand: lines of logs and traces with URLs, headers and
/// cookies come through, whatever a segment ends in.
#[test]
fn uploads_that_are_read_twice_come_through() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let kinds: [fn(u64) -> String; 4] = [
        |n| {
            format!(
                "{{\"at\": {n}, \"url\": \"https://h/?page=1&access_token={n:040x}&q=2\", \"from\": \"https://g/?api_key={n:x}\"}}\n"
            )
        },
        |n| {
            format!(
                "GET /a?access_token={n:040x} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {n:040x}\r\n\
             Cookie: theme=dark; session={n:040x}; lang=de\r\nReferer: https://g/?api_key={n:x}&x=y\r\n\r\n"
            )
        },
        |n| format!("name=a&access_token={n:040x}&api_key={n:x}\r\n"),
        |n| {
            format!(
                "- url: https://h/?access_token={n:040x}\n  Authorization: Bearer {n:x}\n  cookie: session={n:x}; b=c\n"
            )
        },
    ];
    for (kind, line) in kinds.iter().enumerate() {
        for (lost, early, seed) in [(0, 0, 1), (5, 0, 2), (0, 25, 3)] {
            for shift in 0..8 {
                let lines: String = (0..600).map(|n| line(n * n * 77)).collect();
                let request = Framing::Chunked.request(lines.as_bytes());
                let path = Path {
                    lost,
                    lost_behind: 0,
                    early,
                    seed,
                };
                let mut engine = Engine::new(&listing.rules, &listed);
                let sizes = [1448 - 13 * shift];
                let sent = send(&mut engine, slice::from_ref(&request), &sizes, path);
                assert!(sent.stream == request, "{kind}, {path:?}, {shift}");
            }
        }
    }
}

/// Uploads in chunks come through as soon as those of a declared length.
#[test]
fn chunks_take_no_longer_than_a_declared_body() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    for body in [Body::Binary, Body::Text, Body::Json, Body::Line] {
        for (lost, early) in [(1, 0), (5, 0), (0, 25)] {
            let took = |framing: Framing| {
                let request = framing.request(&body.bytes(200_000));
                let times = (1..6).map(|seed| {
                    let mut engine = Engine::new(&listing.rules, &listed);
                    let path = Path {
                        lost,
                        lost_behind: 0,
                        early,
                        seed,
                    };
                    let sent = send(&mut engine, slice::from_ref(&request), &[1448], path);
                    assert!(sent.stream == request, "{body:?}, {framing:?}, {path:?}");
                    sent.took
                });
                times.sum::<u64>()
            };
            let (declared, chunked) = (took(Framing::Declared), took(Framing::Chunked));
            assert!(
                chunked * 10 <= declared * 11,
                "{body:?}, {lost}, {early}: {chunked} for {declared}"
            );
        }
    }
}
