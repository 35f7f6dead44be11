//! Declared bodies that the server is known to read as bodies are passed unread, and nothing else is.

use tokenblock_ebpf::{
    digest::TokenDigest,
    flow::{Conflict, Place},
    framing::Framing,
    scan::Scan,
};
use tokenblock_tests::{
    engine::{Engine, Fate},
    fixtures::Token,
    trace::{Listing, START, sequence},
};

/// Bytes that the server must take without a word.
const AFTER: u32 = 4000;
/// Bytes before the end of a body that are always read.
const MARGIN: usize = 64 * 1024;
const PIECE: usize = 1000;
const LENGTH: usize = 200_000;

/// A client that sends in order, and its server's TCP.
struct Talk<'a> {
    engine: Engine<'a>,
    first: u32,
    sent: usize,
    now: u64,
    /// Whether the server's packets are seen.
    heard: bool,
}

impl<'a> Talk<'a> {
    fn new(listing: &'a Listing, listed: &'a dyn Fn(&TokenDigest) -> bool) -> Self {
        Self::at(listing, listed, 7)
    }

    fn at(listing: &'a Listing, listed: &'a dyn Fn(&TokenDigest) -> bool, first: u32) -> Self {
        let mut engine = Engine::new(&listing.rules, listed).trusting(AFTER);
        engine.accept(first);
        Self {
            engine,
            first,
            sent: 0,
            now: START,
            heard: true,
        }
    }

    /// Sends a segment, which the server takes where it is passed.
    fn send(&mut self, bytes: &[u8]) -> Fate {
        self.now += 10_000;
        let fate = self.segment(self.sent, bytes);
        if matches!(fate, Fate::Passed(_) | Fate::Trusted) {
            self.sent += bytes.len();
            if self.heard {
                self.engine.answer(1, 0, sequence(self.first, self.sent));
            }
        }
        fate
    }

    fn segment(&mut self, offset: usize, bytes: &[u8]) -> Fate {
        self.engine
            .segment(sequence(self.first, offset), bytes, self.now)
    }

    /// Sends so many bytes of a body; how many of them were passed unread.
    fn send_body(&mut self, length: usize, of: impl Fn(usize) -> u8) -> usize {
        let body: Vec<u8> = (0..length).map(of).collect();
        let mut unread = 0;
        for piece in body.chunks(PIECE) {
            let fate = self.send(piece);
            if fate == Fate::Trusted {
                unread += piece.len();
            } else {
                assert_eq!(fate, Fate::Passed(Place::Next));
            }
        }
        unread
    }

    /// The server says something.
    fn answer(&mut self) {
        self.engine.answer(1, 100, sequence(self.first, self.sent));
    }
}

/// A header block with these lines besides.
fn head(lines: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
}

fn declared(length: usize) -> Vec<u8> {
    head(&format!("Content-Length: {length}\r\n"))
}

/// Text with lines and words, and some empty ones.
fn text(at: usize) -> u8 {
    b"some words of text\r\n\r\nmore of it /x\n"[at % 36]
}

fn bearing() -> Vec<u8> {
    format!("Authorization: Bearer {}\r\n", Token::Opaque.text()).into_bytes()
}

fn with(check: impl Fn(&Listing, &dyn Fn(&TokenDigest) -> bool)) {
    let listing = Listing::new().unwrap();
    check(&listing, &|digest| listing.has(digest));
}

#[test]
fn a_body_that_the_server_reads_is_trusted_up_to_its_margin() {
    // From sequence numbers that wrap in the head, in the body, in what is passed unread.
    for first in [
        7,
        u32::MAX - 20,
        u32::MAX - 2000,
        u32::MAX - 50_000,
        u32::MAX - 190_000,
    ] {
        with(|listing, listed| {
            let request = [&b"GET / HTTP/1.1\r\n"[..], &bearing(), b"\r\n"].concat();
            for cut in (0..request.len()).step_by(5) {
                let mut talk = Talk::at(listing, listed, first);
                assert_eq!(talk.send(&declared(LENGTH)), Fate::Passed(Place::Next));
                let unread = talk.send_body(LENGTH, text);
                let most = LENGTH - MARGIN - AFTER as usize;
                assert!(
                    (most - 3 * PIECE..=most).contains(&unread),
                    "{first}: {unread}"
                );
                // What follows is read from its first byte, though the body did not end its line.
                let (one, two) = request.split_at(cut);
                let fates = [talk.send(one), talk.send(two)];
                assert!(fates.contains(&Fate::Blocked), "cut at {cut}: {fates:?}");
            }
        });
    }
}

#[test]
fn trust_is_earned_first_and_ends_with_a_word_of_the_server() {
    with(|listing, listed| {
        for (length, fate) in [(3000, Fate::Blocked), (20_000, Fate::Trusted)] {
            let mut talk = Talk::new(listing, listed);
            talk.send(&declared(LENGTH));
            talk.send_body(length, text);
            assert_eq!(talk.send(&bearing()), fate, "after {length}");
        }
        for cut in 0..40 {
            let mut talk = Talk::new(listing, listed);
            talk.send(&declared(LENGTH));
            assert!(talk.send_body(20_000, text) > 10_000);
            talk.answer();
            let request = format!(
                "GET /?access_token={} HTTP/1.1\r\n\r\n",
                Token::Opaque.text()
            );
            // What is before it was not read: it may be a line's first byte, or a target's.
            let rest = &request.as_bytes()[if cut % 2 == 0 { 0 } else { 4 }..];
            let (one, two) = rest.split_at(cut.min(rest.len()));
            let fates = [talk.send(one), talk.send(two)];
            // A query as well as a line: what can't be told apart is not passed.
            let ended = |fate: &Fate| matches!(fate, Fate::Blocked | Fate::Reset(_));
            assert!(fates.iter().any(ended), "cut at {cut}: {fates:?}");
        }
        // It may be earned again.
        let mut talk = Talk::new(listing, listed);
        talk.send(&declared(LENGTH));
        talk.send_body(20_000, text);
        talk.answer();
        assert!(talk.send_body(20_000, text) > 10_000);
    });
}

#[test]
fn second_copies_and_gaps_of_what_is_trusted_pass() {
    with(|listing, listed| {
        let mut talk = Talk::new(listing, listed);
        talk.send(&declared(LENGTH));
        talk.send_body(20_000, text);
        let at = talk.sent;
        // Ahead of a gap, again with other bytes, then what was missing.
        for (offset, len) in [
            (3000, 1000),
            (3000, 1000),
            (1000, 2000),
            (0, 1000),
            (500, 3500),
        ] {
            assert_eq!(talk.segment(at + offset, &vec![b'x'; len]), Fate::Trusted);
        }
        // After a word of the server no gap is filled unread.
        assert_eq!(talk.segment(at + 9000, b"text"), Fate::Trusted);
        talk.answer();
        assert_ne!(talk.segment(at + 4000, &bearing()), Fate::Trusted);
    });
}

#[test]
fn a_server_that_reads_no_body_is_never_trusted() {
    with(|listing, listed| {
        // It answers each request at once, and what follows as well.
        let mut talk = Talk::new(listing, listed);
        talk.send(&declared(LENGTH));
        for round in 1..100 {
            assert_eq!(talk.send(&[b'x'; PIECE]), Fate::Passed(Place::Next));
            talk.engine
                .answer(round * 100, 100, sequence(talk.first, talk.sent));
        }
        assert_eq!(
            talk.send(&[b"\r\n", &bearing()[..]].concat()),
            Fate::Blocked
        );
        // It waits for the end of empty lines, and doesn't answer.
        let mut talk = Talk::new(listing, listed);
        talk.send(&declared(LENGTH));
        assert_eq!(talk.send_body(100_000, |at| b"\r\n"[at % 2]), 0);
        // Its packets are not seen.
        let mut talk = Talk::new(listing, listed);
        talk.heard = false;
        talk.send(&declared(LENGTH));
        assert_eq!(talk.send_body(LENGTH, text), 0);
    });
}

/// What may make a server end messages elsewhere.
#[test]
fn no_body_is_trusted_after_doubtful_framing() {
    with(|listing, listed| {
        for lines in [
            "Content-Length: 200000\r\nContent-Length: 200000\r\n",
            "Content-Length: +200000\r\n",
            "Content-Length: 200000, 200000\r\n",
            "Content-Length:\r\n 200000\r\n",
            "Content-Length: 200000\r\nTransfer-Encoding : chunked\r\n",
            "Content-Length: 200000\r\nTransfer-Encoding\t: chunked\r\n",
            "Content-Length: 200000\r\nTransfer-Encoding\r: chunked\r\n",
            "Content-Length: 200000\r\nTransfer-Encoding\u{a0}: chunked\r\n",
            "Content-Length: 200000\r\n\u{b}Transfer-Encoding: chunked\r\n",
            "Content-Length: 200000\r\n Transfer-Encoding: chunked\r\n",
            "Content-Length: 200000\r\nContent-Length : 5\r\n",
        ] {
            let head = head(lines);
            for cut in 0..head.len() {
                let mut talk = Talk::new(listing, listed);
                let (one, two) = head.split_at(cut);
                if ![talk.send(one), talk.send(two)].contains(&Fate::Ambiguous) {
                    assert_eq!(talk.send_body(100_000, text), 0, "{lines:?} cut at {cut}");
                }
            }
        }
        // A chunked body may hold what looks like a header block with a length.
        let mut talk = Talk::new(listing, listed);
        talk.send(&head("Transfer-Encoding: chunked\r\n"));
        talk.send(&declared(LENGTH));
        assert_eq!(talk.send_body(100_000, text), 0);
    });
}

/// The word at which a server that reads no body would answer must have come to it.
#[test]
fn a_decoy_is_no_word() {
    with(|listing, listed| {
        let mut talk = Talk::new(listing, listed);
        talk.send(&declared(LENGTH));
        assert_eq!(talk.segment(talk.sent, b"a\n"), Fate::Passed(Place::Next));
        talk.now += 300_000_000;
        assert_eq!(talk.send(b"\r\n"), Fate::Passed(Place::Recovery));
        assert_eq!(talk.send_body(100_000, |at| b"\r\n"[at % 2]), 0);
        // Behind a word that it got.
        assert!(talk.send_body(20_000, text) > 0);
    });
}

/// What came before it was seen may have been the head of a chunked body.
#[test]
fn no_body_is_trusted_in_mid_stream() {
    with(|listing, listed| {
        let mut talk = Talk::new(listing, listed);
        talk.engine = Engine::new(&listing.rules, listed).trusting(AFTER);
        assert_eq!(talk.send(&declared(LENGTH)), Fate::Passed(Place::First));
        assert_eq!(talk.send_body(100_000, text), 0);
    });
}

/// A loss before the body is trusted costs no trust, whatever the bytes are.
#[test]
fn a_body_is_trusted_in_spite_of_a_loss() {
    with(|listing, listed| {
        let mut talk = Talk::new(listing, listed);
        talk.send(&declared(LENGTH));
        let noise = |at: usize| b"\x80\x90\n\xff \xfe z\n"[at % 9];
        talk.send_body(2000, noise);
        let body: Vec<u8> = (0..PIECE).map(noise).collect();
        let ahead = talk.segment(talk.sent + PIECE, &body);
        assert_eq!(ahead, Fate::Passed(Place::Ahead));
        assert_eq!(talk.send(&body), Fate::Passed(Place::Filler));
        talk.sent += PIECE;
        assert!(talk.send_body(100_000, noise) > 0);
    });
}

/// To a server that reads no body here these are requests which it may take without a word.
#[test]
fn no_body_is_trusted_that_holds_a_request() {
    with(|listing, listed| {
        for line in [
            "\nContent-Length: 100000\r\n",
            "\nContent-Length : 100000\r\n",
            "\nTransfer-Encoding: chunked\r\n",
            "\nTransfer_Encoding\u{b}: chunked\r\n",
            "\nAuthorization: Basic dTpw\r\n",
            "\nCookie: a=b\r\n",
            "\nGET http://a/ HTTP/1.1\r\n",
            "\nGET x HTTP/1.0\r\n",
        ] {
            for cut in [0, 1, 5, line.len() - 3, line.len()] {
                let mut talk = Talk::new(listing, listed);
                talk.send(&declared(LENGTH));
                talk.send_body(2000, text);
                let cut = if line.ends_with(".1\r\n") || line.ends_with(".0\r\n") {
                    1
                } else {
                    cut
                };
                let (one, two) = line.as_bytes().split_at(cut);
                talk.send(one);
                talk.send(two);
                assert_eq!(talk.send_body(100_000, text), 0, "{line:?} cut at {cut}");
            }
        }
    });
}

/// A length is 48 bits, and no part of it is lost.
#[test]
fn bodies_beyond_four_gigabytes_end_where_they_say() {
    const LONG: usize = 5 << 30;
    with(|listing, listed| {
        let mut scan = Scan::new(&listing.rules);
        scan.continue_message(0, Framing::NONE, LONG as u64);
        scan.pos = 100;
        scan.rebase();
        assert_eq!(scan.body_left(), LONG as u64 - 100);
        // Read to its end, from a place far behind its beginning.
        scan.continue_message(0, Framing::NONE, (1 << 32) + 7);
        assert_eq!(scan.body_left(), (1 << 32) + 7);

        let mut talk = Talk::new(listing, listed);
        talk.send(&declared(LONG));
        assert!(talk.send_body(20_000, text) > 10_000);
        // As many sequence numbers as there are, and more.
        let piece = vec![b'x'; 64 << 20];
        while LONG - (talk.sent - declared(LONG).len()) > piece.len() + MARGIN {
            assert_eq!(talk.send(&piece), Fate::Trusted);
        }
        let left = LONG - (talk.sent - declared(LONG).len());
        talk.send_body(left, |_| b'x');
        let request = format!(
            "GET /?access_token={} HTTP/1.1\r\n\r\n",
            Token::Opaque.text()
        );
        assert_eq!(talk.send(request.as_bytes()), Fate::Blocked);
    });
}

/// Where a body ends within a line, the next request begins there, however its length is said.
#[test]
fn a_request_behind_a_length_is_read() {
    with(|listing, listed| {
        let token = Token::Opaque.text();
        let behind = format!("aaaa:GET /?access_token={token} HTTP/1.1\r\n\r\n");
        for lines in [
            "Content-Length: 5\r\n",
            "content-length:\t005 \t\n",
            // nginx and Node.js take several CR before an LF for one line end.
            "Content-Length: 5\r\r\n",
            "Content-Length: 5\r\r\r\nX: y\r\n",
            // Cheroot strips names.
            "\u{b}Content-Length: 5\r\n",
        ] {
            let stream = [&head(lines)[..], behind.as_bytes()].concat();
            for cut in 0..stream.len() {
                let mut talk = Talk::new(listing, listed);
                let (one, two) = stream.split_at(cut);
                let fates = [talk.send(one), talk.send(two)];
                assert!(fates.contains(&Fate::Blocked), "{lines:?} cut at {cut}");
            }
        }
    });
}

/// Both say where the message ends, in either order, wherever they are cut; so do two lengths.
#[test]
fn ambiguous_framing_is_told() {
    with(|listing, listed| {
        let told = |lines: &str| {
            let head = head(lines);
            let fates = (0..head.len()).map(|cut| {
                let mut talk = Talk::new(listing, listed);
                let (one, two) = head.split_at(cut);
                let fates = [talk.send(one), talk.send(two)];
                assert!(
                    !fates.contains(&Fate::Reset(Conflict::Gap))
                        && !fates.contains(&Fate::Reset(Conflict::Ambiguous)),
                    "{lines:?} cut at {cut}"
                );
                fates.contains(&Fate::Ambiguous)
            });
            let told: Vec<bool> = fates.collect();
            assert!(
                told.iter().all(|one| *one == told[0]),
                "{lines:?}: {told:?}"
            );
            told[0]
        };
        for lines in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "transfer-encoding:gzip, chunked\nX: y\nCONTENT-LENGTH:0\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 0\r\nX: y\r\nContent-Length: 100000\r\n",
            // h11, HAProxy, Tornado and hyper take the first of a list.
            "Content-Length: 5, 5\r\n",
            "Content-Length: 5x6\r\n",
            "Content-Length: 5 6\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 99999999999999999999\r\n",
            // Half of all servers join folded lines.
            "Content-Length:\r\n 5\r\n",
            "Content-Length: 0\n\t5\n",
            // Node.js, where it is lax, and Cheroot.
            "Content-Length : 5\r\n",
            "Content-Length\u{b}: 5\r\n",
            "Content-Length: 5\r\nTransfer-Encoding\t: chunked\r\n",
            "Content-Length: 5\r\n\u{b}Transfer-Encoding: chunked\r\n",
        ] {
            assert!(told(lines), "{lines:?}");
        }
        for lines in [
            "",
            "Content-Length: 5\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "X-Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length:\t5 \t\r\n",
            "Content-Length: 5\r\nX: y\r\n z\r\n",
            "Content-Length: 5\r\r\nX: y\r\n",
            "X: y\rZ: y\r\n",
            // No server takes these for framing.
            "Content_Length: 5\r\nContent-Length: 6\r\n",
            "Content.Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 5\r\nTransfer~Encoding: chunked\r\n",
            "Content-Length: 5\r\nTransfer_Encoding: chunked\r\n",
        ] {
            assert!(!told(lines), "{lines:?}");
        }
        // Each in a message of its own, and both in a body.
        let mut talk = Talk::new(listing, listed);
        let both = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
        for message in [
            head("Transfer-Encoding: chunked\r\n"),
            b"3\r\nabc\r\n0\r\n\r\n".to_vec(),
            head("Content-Length: 0\r\n"),
            head("Transfer-Encoding: chunked\r\n"),
            b"0\r\n\r\n".to_vec(),
            declared(head(both).len()),
            head(both),
            head("Content-Length: 5\r\n"),
            b"abcde".to_vec(),
            head("Transfer-Encoding: chunked\r\n"),
        ] {
            assert_eq!(talk.send(&message), Fate::Passed(Place::Next));
        }
    });
}

/// The word from which on the server's silence counts is one that the server has: nothing that is without it takes its place.
#[test]
fn no_second_copy_takes_the_word_of_a_trusted_body_away() {
    with(|listing, listed| {
        let mut talk = Talk::at(listing, listed, 7);
        assert_eq!(talk.send(&declared(LENGTH)), Fate::Passed(Place::Next));
        let at = talk.sent;
        // Something comes late, so that what passes is noted.
        let late = talk.segment(at + LENGTH, b"a");
        assert_eq!(late, Fate::Dropped(Place::TooEarly));
        let word = b"\r\nword\r\n\r\n";
        assert_eq!(talk.segment(at, word), Fate::Passed(Place::Next));
        let blank = talk.segment(at, b"\r\n\r\n\r\n\r\n\r\n");
        assert_eq!(blank, Fate::Dropped(Place::Duplicate));
        assert_eq!(talk.segment(at, word), Fate::Passed(Place::Repeat));
    });
}
