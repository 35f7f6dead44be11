//! What overtakes the head of its message: passed where it can be of a body alone.

use tokenblock_ebpf::flow::{Conflict, Place};
use tokenblock_tests::{
    bodies::{Body, Framing},
    engine::{Engine, Fate},
    fixtures::Token,
    trace::{Listing, START, sequence},
};

const FIRST: u32 = 7;
const AHEAD: Fate = Fate::Passed(Place::Ahead);
const NEXT: Fate = Fate::Passed(Place::Next);
const FILLER: Fate = Fate::Passed(Place::Filler);
const EARLY: Fate = Fate::Dropped(Place::TooEarly);
/// What is of a body wherever it stands.
const OF_BODY: &str = "some text\nand \x01 more ";

/// A connection of which nothing was sent.
fn connection<'a>(
    listing: &'a Listing,
    listed: &'a dyn Fn(&tokenblock_ebpf::digest::TokenDigest) -> bool,
) -> Engine<'a> {
    let mut engine = Engine::new(&listing.rules, listed);
    engine.accept(FIRST);
    engine
}

/// Runs on such a connection; it gets what sends bytes at an offset.
fn with_connection(run: impl FnOnce(&mut dyn FnMut(usize, &[u8]) -> Fate)) {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let mut engine = connection(&listing, &listed);
    run(&mut |at, bytes| engine.segment(sequence(FIRST, at), bytes, START));
}

/// Sends the first bytes last.
fn overtake(head: &str, bodies: &[&str]) -> (Vec<Fate>, Fate) {
    let mut fates = Vec::new();
    let mut last = AHEAD;
    with_connection(|send| {
        let mut at = head.len();
        for body in bodies {
            fates.push(send(at, body.as_bytes()));
            at += body.len();
        }
        last = send(0, head.as_bytes());
    });
    (fates, last)
}

fn head(length: usize, line: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: h\r\n{line}Content-Length: {length}\r\n\r\n")
}

/// Where one can tell that a flow is adrift: a parameter in the middle of a line.
fn within_a_line() -> String {
    format!("and so;access_token={} on\n", Token::Opaque.text())
}

/// Bodies of an honest client pass before their head, however long that is and in which order they come; then the flow is as any
/// other.
#[test]
fn bodies_overtake_their_heads() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    for body in [Body::Binary, Body::Text, Body::Json] {
        for (cookie, with_body) in [
            (0, 0),
            (100, 0),
            (100, 300),
            (1000, 0),
            (1200, 50),
            (3000, 0),
        ] {
            for order in [[1, 2, 3, 0], [3, 2, 1, 0], [2, 0, 1, 3], [2, 3, 0, 1]] {
                for ends in [true, false] {
                    let cookie = format!("Cookie: a={}\r\n", "b".repeat(cookie));
                    let bytes = body.bytes(3 * 1448 + with_body);
                    let rest = if ends { 0 } else { 1000 };
                    let head = head(bytes.len() + rest, &cookie);
                    let first = head.len() + with_body;
                    let stream = [head.as_bytes(), &bytes].concat();
                    let begins = |n: usize| matches!(stream[first + n * 1448], b'\r' | b'\n');
                    if (0..3).any(begins) {
                        // A head may end there.
                        continue;
                    }
                    let mut engine = connection(&listing, &listed);
                    for n in order {
                        let (from, to) = if n == 0 {
                            (0, first)
                        } else {
                            (first + (n - 1) * 1448, first + n * 1448)
                        };
                        let fate = engine.segment(sequence(FIRST, from), &stream[from..to], START);
                        assert!(
                            matches!(fate, Fate::Passed(_)),
                            "{body:?}, {first}, {n} of {order:?}: {fate:?}"
                        );
                    }
                    engine.settle(sequence(FIRST, stream.len()));
                    let (more, fate) = if ends {
                        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), NEXT)
                    } else {
                        (within_a_line(), NEXT)
                    };
                    let next =
                        engine.segment(sequence(FIRST, stream.len()), more.as_bytes(), START);
                    assert_eq!(next, fate, "{body:?}, {first}, {order:?}, {ends}");
                }
            }
        }
    }
}

/// Where the body ends with what was passed, a message begins behind it, within a line; the flow is as any other.
#[test]
fn a_request_behind_an_overtaken_body_is_read() {
    let token = Token::Opaque.text();
    let text = format!("{OF_BODY}\nx: y");
    let front = "ET /?access_token=";
    for (request, fate) in [
        (format!("G{front}{token} HTTP/1.1\r\n\r\n"), Fate::Blocked),
        (
            format!("GET /a HTTP/1.1\r\nX: a;access_token={token}\r\n\r\n"),
            NEXT,
        ),
    ] {
        with_connection(|send| {
            let head = head(text.len(), "");
            assert_eq!(send(head.len(), text.as_bytes()), AHEAD);
            assert_eq!(send(0, head.as_bytes()), FILLER);
            assert_eq!(send(head.len() + text.len(), request.as_bytes()), fate);
        });
    }
}

/// Until the head has come messages may begin anywhere; where it says nothing of these bytes that stays so.
#[test]
fn parameters_are_read_anywhere_under_a_guess() {
    let within = within_a_line();
    with_connection(|send| {
        assert_eq!(send(100, OF_BODY.as_bytes()), AHEAD);
        assert_eq!(send(100 + OF_BODY.len(), within.as_bytes()), Fate::Blocked);
    });
    for (head, blocked) in [
        (head(1000, ""), false),
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), true),
        (head(5, ""), true),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            true,
        ),
        (
            "POST / HTTP/1.1\r\nContent-Length : 1000\r\n\r\n".to_owned(),
            true,
        ),
    ] {
        with_connection(|send| {
            assert_eq!(send(head.len(), OF_BODY.as_bytes()), AHEAD);
            let fate = send(0, head.as_bytes());
            if head.contains(" :") {
                assert_eq!(fate, Fate::Ambiguous);
                return;
            }
            assert_eq!(fate, FILLER, "{head:?}");
            let fate = send(head.len() + OF_BODY.len(), within.as_bytes());
            assert_eq!(fate == Fate::Blocked, blocked, "{head:?}: {fate:?}");
        });
    }
}

/// Chunks pass ahead of further gaps once their head has come.
#[test]
fn chunks_overtake_their_head() {
    let request = Framing::Chunked.request(&Body::Text.bytes(20_000));
    let first = request.windows(4).position(|at| at == b"\r\n\r\n").unwrap() + 4;
    let at = |n: usize| first + n * 1448;
    with_connection(|send| {
        assert_eq!(send(at(1), &request[at(1)..at(2)]), AHEAD);
        assert_eq!(send(0, &request[..first]), FILLER);
        assert_eq!(send(at(3), &request[at(3)..at(4)]), AHEAD);
        assert_eq!(send(at(0), &request[at(0)..at(1)]), FILLER);
        assert_eq!(send(at(2), &request[at(2)..at(3)]), FILLER);
    });
}

/// What may be of a head waits for what is in front of it, also where something was passed under a guess.
#[test]
fn what_may_be_of_a_head_is_not_guessed() {
    let token = Token::Opaque.text();
    for late in [
        "word".to_owned(),
        "; session=a; b=c".to_owned(),
        "{\"a\": \"b\", \"c\": 1}".to_owned(),
        "me\r\nHost: h\r\n\r\n".to_owned(),
        "\r\nsome text\nand more\n".to_owned(),
        "\x01\r\nAuthorization: me\r\n".to_owned(),
        "\x01\nContent-Length: 5\r\n".to_owned(),
        "\x01\nContent-Length and so on\r\n".to_owned(),
        "\x01\nTransfer-Encoding: chunked\r\n".to_owned(),
        "\x01\nGET /a HTTP/1.1\r\n".to_owned(),
        format!("\x01\nsee?access_token={token}\n"),
    ] {
        with_connection(|send| {
            assert_eq!(send(300, late.as_bytes()), EARLY, "{late:?}");
            assert_eq!(send(600, OF_BODY.as_bytes()), AHEAD);
            assert_eq!(send(900, late.as_bytes()), EARLY, "{late:?}");
            assert_eq!(send(300, late.as_bytes()), EARLY, "{late:?}");
        });
    }
    for next in [
        "\nAuthorization: me\r\n",
        "\nContent-Length: 5\r\n\r\n",
        "\nGET /a HTTP/1.1\r\n",
    ] {
        with_connection(|send| {
            let head = head(1000, "");
            assert_eq!(send(head.len(), OF_BODY.as_bytes()), AHEAD);
            let at = head.len() + OF_BODY.len();
            assert_eq!(send(at, next.as_bytes()), EARLY, "{next:?}");
            assert_eq!(send(0, head.as_bytes()), FILLER);
            assert_eq!(send(at, next.as_bytes()), NEXT, "{next:?}");
        });
    }
}

/// Nothing is guessed where a head is under way, nor where the beginning of the connection was not seen.
#[test]
fn nothing_is_guessed_within_a_message() {
    for before in [
        "POST / HTTP/1.1\r\n",
        "POST / HT",
        "GET / HTTP/1.1\r\n\r\nabc",
    ] {
        with_connection(|send| {
            assert_eq!(send(0, before.as_bytes()), NEXT);
            assert_eq!(send(500, OF_BODY.as_bytes()), EARLY, "{before:?}");
        });
    }
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let mut engine = Engine::new(&listing.rules, &listed);
    let fate = engine.segment(FIRST, b"some text\n", START);
    assert_eq!(fate, Fate::Passed(Place::First));
    assert_eq!(
        engine.segment(FIRST + 500, OF_BODY.as_bytes(), START),
        EARLY
    );
    // Nor before the server has said what it took of the data on the SYN.
    let mut engine = Engine::new(&listing.rules, &listed);
    assert_eq!(engine.segment_on_syn(FIRST, b"", START), NEXT);
    assert_eq!(
        engine.segment(FIRST + 500, OF_BODY.as_bytes(), START),
        EARLY
    );
}

/// A head that goes on in what was passed is none of an honest client: what it says of its message's end would not be known.
#[test]
fn a_head_that_goes_on_behind_a_guess_ends_the_connection() {
    for head in [
        "POST / HTTP/1.1\r\nContent-Length: 5\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\nX: y",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 5",
    ] {
        let (fates, last) = overtake(head, &[OF_BODY]);
        assert_eq!(
            (fates, last),
            (vec![AHEAD], Fate::Reset(Conflict::Gap)),
            "{head:?}"
        );
    }
}

/// What comes again in the middle of a head that was overtaken is never read without what its first part says.
#[test]
fn an_overtaken_head_is_not_read_from_its_middle() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let head = "POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n";
    let middle = head.len() - 2;
    for passed in [true, false] {
        let mut engine = connection(&listing, &listed);
        let fate = engine.segment(sequence(FIRST, head.len()), OF_BODY.as_bytes(), START);
        assert_eq!(fate, AHEAD);
        let (front, end) = head.split_at(middle);
        for (at, piece) in [(0, front), (middle, end)] {
            if at == 0 || passed {
                let fate = engine.segment(sequence(FIRST, at), piece.as_bytes(), START);
                assert_eq!(fate, FILLER);
            }
        }
        engine.settle(sequence(FIRST, middle));
        let again = engine.segment(
            sequence(FIRST, middle),
            b"Content-Length: 7\r\n\r\n",
            START + 500_000_000,
        );
        assert!(!matches!(again, Fate::Passed(_)), "{passed}: {again:?}");
    }
}

/// A head that says in two ways where its message ends is found in pieces as well, whatever was passed behind them.
#[test]
fn an_ambiguous_head_is_found_behind_a_guess() {
    let head = "POST / HTTP/1.1\r\nContent-Length: 500\r\nTransfer-Encoding: chunked\r\n\r\n";
    for cut in 1..head.len() {
        with_connection(|send| {
            let (one, two) = head.split_at(cut);
            assert_eq!(send(head.len(), OF_BODY.as_bytes()), AHEAD);
            let fates = [send(0, one.as_bytes()), send(cut, two.as_bytes())];
            assert!(fates.contains(&Fate::Ambiguous), "{cut}: {fates:?}");
        });
    }
    // Behind a head without a length another may go on.
    let front = "GET / HTTP/1.1\r\n\r\nPOST /x HT";
    let lines = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
    with_connection(|send| {
        assert_eq!(send(front.len(), b"\x01\r\n"), AHEAD);
        assert_eq!(send(0, front.as_bytes()), FILLER);
        assert_eq!(send(front.len() + 3, lines.as_bytes()), Fate::Ambiguous);
    });
}

/// A listed token that is cut by a guess never passes whole: its first part in what was missing, at each byte, its rest passed before.
#[test]
fn a_token_cut_by_a_guess_is_blocked() {
    let token = Token::Opaque.text();
    let front = "POST /a HTTP/1.1\r\n";
    for line in [
        format!("Authorization: Bearer {token}"),
        format!("Authorization:\r\n {token}"),
        format!("Cookie: a=\x01; session={token}; b=c"),
        format!("x /b?c=\x01&access_token={token} HTTP/1.1"),
    ] {
        for end in ["\x01", "\r\nno field\r\n", "\r\n\x01", " \x01\r\n\r\n"] {
            for behind in ["", "Content-Length: 900\r\n"] {
                let stream = format!("{front}{behind}{line}{end}\r\n\r\n").into_bytes();
                for cut in 1..stream.len() - 1 {
                    for more in [1, 8, stream.len()] {
                        let (one, rest) = stream.split_at(cut);
                        let (two, three) = rest.split_at(more.min(rest.len()));
                        let pieces = [(0, one), (cut, two), (cut + two.len(), three)];
                        with_connection(|send| {
                            let mut passed = pieces.map(|(_, piece)| piece.is_empty());
                            for n in [1, 2, 0, 0, 1, 2] {
                                let (at, piece) = pieces[n];
                                if !passed[n] {
                                    passed[n] = matches!(send(at, piece), Fate::Passed(_));
                                }
                            }
                            let bears = end.starts_with('\r') || !line.ends_with(&token);
                            assert!(
                                passed != [true; 3] || !bears,
                                "{cut}, {more}: {:?}",
                                String::from_utf8_lossy(&stream)
                            );
                        });
                    }
                }
            }
        }
    }
}

/// A second copy of what was passed under a guess passes where it says the same, also when the head has come; another never does.
#[test]
fn copies_of_what_overtook() {
    let head = head(1000, "");
    let other = OF_BODY.replace("text", "lies");
    with_connection(|send| {
        let at = head.len();
        assert_eq!(send(at, OF_BODY.as_bytes()), AHEAD);
        for _ in 0..2 {
            assert_eq!(send(at, other.as_bytes()), Fate::Dropped(Place::Duplicate));
            assert_eq!(send(at, OF_BODY.as_bytes()), Fate::Passed(Place::Repeat));
            let fate = send(0, head.as_bytes());
            assert!(
                matches!(fate, Fate::Passed(Place::Filler | Place::Repeat)),
                "{fate:?}"
            );
        }
        let fate = send(at + OF_BODY.len(), within_a_line().as_bytes());
        assert_eq!(fate, NEXT);
    });
}

/// What is lost behind the hook comes again, whatever of it was passed under a guess; what is noted of it may be forgotten.
#[test]
fn what_overtook_and_was_lost_comes_again() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let text = "some text of it\nand \x01 more ".repeat(10);
    for ends in [true, false] {
        let head = head(text.len() + usize::from(!ends) * 100, "");
        let stream = [head.as_bytes(), text.as_bytes()].concat();
        for forgotten in [true, false] {
            for settled in [0, head.len()] {
                let mut engine = connection(&listing, &listed);
                let (at, later) = (head.len(), START + 500_000_000);
                engine.segment(sequence(FIRST, at), text.as_bytes(), START);
                if settled != 0 || !forgotten {
                    engine.segment(sequence(FIRST, 0), head.as_bytes(), START);
                    engine.settle(sequence(FIRST, settled));
                }
                if forgotten {
                    engine.forget_notes();
                }
                let again = if settled == 0 {
                    engine.segment(sequence(FIRST, 0), head.as_bytes(), later)
                } else {
                    Fate::Passed(Place::Settled)
                };
                assert!(
                    matches!(again, Fate::Passed(_)),
                    "{ends}, {forgotten}, {settled}: {again:?}"
                );
                engine.settle(sequence(FIRST, head.len()));
                let fate =
                    engine.segment(sequence(FIRST, at), text.as_bytes(), later + 500_000_000);
                assert!(
                    matches!(fate, Fate::Passed(_)),
                    "{ends}, {forgotten}, {settled}: {fate:?}"
                );
                engine.settle(sequence(FIRST, stream.len()));
                let next = engine.segment(
                    sequence(FIRST, stream.len()),
                    b"GET / HTTP/1.1\r\n\r\n",
                    later + 600_000_000,
                );
                assert_eq!(next, NEXT, "{ends}, {forgotten}, {settled}");
            }
        }
    }
}

/// The first copy of a head is read for parameters anywhere, as all is under a guess; when it has come, nothing is any more. Its
/// second copy is read as the first was: it passes, since it says the same.
#[test]
fn a_head_with_the_start_of_a_parameter_that_was_lost_comes_again() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let text = format!("v of it\n{OF_BODY}");
    for front in [
        "text of it;access_token=",
        "text",
        "access_tok",
        "ä=b&access_token=a",
    ] {
        let head = head(front.len() + text.len() + 1000, "") + front;
        let mut engine = connection(&listing, &listed);
        assert_eq!(
            engine.segment(sequence(FIRST, head.len()), text.as_bytes(), START),
            AHEAD
        );
        assert_eq!(
            engine.segment(sequence(FIRST, 0), head.as_bytes(), START),
            FILLER,
            "{front}"
        );
        for n in 1..3 {
            let fate = engine.segment(sequence(FIRST, 0), head.as_bytes(), START + n * 230_000_000);
            assert_eq!(fate, Fate::Passed(Place::Repeat), "{front}, {n}");
        }
        engine.settle(sequence(FIRST, head.len() + text.len()));
        let behind = engine.segment(
            sequence(FIRST, head.len() + text.len()),
            within_a_line().as_bytes(),
            START + 900_000_000,
        );
        assert_eq!(behind, NEXT, "{front}");
    }
}
