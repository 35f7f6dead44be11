//! What was noted of a place in the stream is none of another, four gigabytes behind it, that has the same sequence number.

use tokenblock_ebpf::flow::Place;
use tokenblock_tests::{
    engine::{Engine, Fate},
    fixtures::Token,
    trace::{Listing, START, TRUST_AFTER, sequence},
};

const FIRST: u32 = 7;
/// All sequence numbers.
const ROUND: usize = 1 << 32;
/// Bytes of a segment that is passed unread, fewer than fit a window.
const STRIDE: usize = 1 << 28;
/// Bytes at the end of a body that are read.
const MARGIN: usize = 1 << 16;
/// More than a delayed acknowledgment takes.
const LATE: u64 = 240_000_000;

/// A connection whose server acknowledges each segment when the next one has come.
struct Upload<'a> {
    engine: Engine<'a>,
    now: u64,
    end: usize,
}

impl<'a> Upload<'a> {
    fn new(engine: Engine<'a>) -> Self {
        let mut engine = engine.trusting(TRUST_AFTER);
        engine.accept(FIRST);
        Self {
            engine,
            now: START,
            end: 0,
        }
    }

    fn send_at(&mut self, at: usize, bytes: &[u8]) -> Fate {
        self.now += 1_000_000;
        self.engine.segment(sequence(FIRST, at), bytes, self.now)
    }

    /// The next bytes, which pass.
    fn send(&mut self, bytes: &[u8]) {
        let at = self.end;
        let fate = self.send_at(at, bytes);
        assert!(
            matches!(fate, Fate::Passed(Place::Next) | Fate::Trusted),
            "{fate:?} at {at}"
        );
        self.engine.settle(sequence(FIRST, at));
        self.end += bytes.len();
    }

    /// A request whose body ends at `to`, up to so many bytes in front of that.
    fn send_body(&mut self, to: usize, left: usize) {
        let head = |length: usize| {
            format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")
        };
        let length = (to - self.end) - head(ROUND).len();
        assert_eq!(head(length).len(), head(ROUND).len());
        self.send(head(length).as_bytes());
        for _ in 0..10 {
            self.send(&[b'x'; TRUST_AFTER as usize / 4]);
        }
        let unread = vec![0; STRIDE];
        while to - self.end > MARGIN {
            let len = (to - self.end - MARGIN).min(STRIDE);
            self.send(&unread[..len]);
        }
        self.send(&vec![b'x'; to - self.end - left]);
    }

    /// What was sent from `at` on was lost.
    fn loses(&mut self, at: usize) {
        self.engine.settle(sequence(FIRST, at));
        self.now += LATE;
    }
}

#[test]
fn where_a_body_ends_is_known_behind_the_half_of_all_sequence_numbers() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let request = |name| {
        format!(
            "\r\nx:aaaGET /?{name}={} HTTP/1.1\r\n\r\n",
            Token::Opaque.text()
        )
    };
    let (evil, clean) = (request("access_token"), request("bccess_token"));
    for to in [ROUND / 4, ROUND * 3 / 4, ROUND * 5 / 4].map(|to| to + ROUND) {
        let mut upload = Upload::new(Engine::new(&listing.rules, &listed));
        upload.send_body(to, 7);
        let at = upload.end;
        upload.send(clean.as_bytes());
        upload.loses(at);
        let fate = upload.send_at(at, evil.as_bytes());
        assert!(!matches!(fate, Fate::Passed(_)), "{to}: {fate:?}");
    }
}

/// The beginning of a request that bears a listed token, cut in that.
fn cut_token() -> [String; 2] {
    let line = format!(
        "GET / HTTP/1.1\r\nAuthorization: Bearer {}",
        Token::Opaque.text()
    );
    let (begun, rest) = line.split_at(line.len() - 9);
    [begun, rest].map(str::to_owned)
}

#[test]
fn a_state_that_was_held_is_not_that_of_another_place() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let [begun, rest] = &cut_token();
    let mut upload = Upload::new(Engine::new(&listing.rules, &listed));
    upload.send(b"GET / HTTP/1.1\r\nX: y\r\nCookie: a");
    let place = upload.end;
    upload.send(b"=b\r\n\r\n");
    upload.send_body(place + ROUND - begun.len(), 0);
    upload.send(begun.as_bytes());
    let at = upload.end;
    assert_eq!(at, place + ROUND);
    upload.send(b"clean\r\n\r\n");
    upload.loses(at);
    let fate = upload.send_at(at, format!("{rest}\r\n\r\n").as_bytes());
    assert!(!matches!(fate, Fate::Passed(_)), "{fate:?}");
}

#[test]
fn where_a_segment_ended_is_not_where_another_did() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let [begun, rest] = &cut_token();
    let mut upload = Upload::new(Engine::new(&listing.rules, &listed));
    upload.send(begun.as_bytes());
    let place = upload.end;
    upload.send(b"clean\r\n\r\n");
    upload.send_body(place + ROUND - begun.len(), 0);
    let at = upload.end;
    let other = begun.replace("Auth", "Buth");
    for (at, bytes) in [(at, other), (place + ROUND, format!("{rest}\r\n\r\n"))] {
        assert_eq!(
            upload.send_at(at, bytes.as_bytes()),
            Fate::Passed(Place::Next)
        );
    }
    upload.loses(at);
    let fate = upload.send_at(at, begun.as_bytes());
    assert!(!matches!(fate, Fate::Passed(_)), "{fate:?}");
}
