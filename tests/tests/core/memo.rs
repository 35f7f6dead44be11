//! Header blocks that repeat: known again where they were judged clean, and nowhere else.

use std::cell::Cell;

use proptest::prelude::*;
use tokenblock_ebpf::{
    digest::{Domain, TokenDigest},
    flow::Place,
    sums::SumKeys,
};
use tokenblock_tests::{
    bpf::KEY,
    engine::{Engine, Fate},
    trace::{Listing, START, sequence},
};

use crate::flow::cases;

pub(crate) const FIRST: u32 = u32::MAX - 300;
pub(crate) const PASSED: Fate = Fate::Passed(Place::Next);
/// A token that is listed later, or is not.
pub(crate) const TOKEN: &str = "a-token-of-this-test_0123456789";
pub(crate) const LINE: &str = "GET /items HTTP/1.1\r\n";

/// Header lines with this token, and the end of their block.
fn block(token: &str) -> String {
    format!("Host: api.example.org\r\nAccept: */*\r\nAuthorization: Bearer {token}\r\n\r\n")
}

/// Under which the sums of all blocks are the same.
fn toy() -> SumKeys {
    SumKeys::new(&[0; SumKeys::BYTES])
}

/// A list of one token, which can be changed.
pub(crate) struct List {
    digest: TokenDigest,
    pub(crate) holds: Cell<bool>,
}

impl List {
    pub(crate) fn new() -> Self {
        Self {
            digest: TokenDigest::of(&KEY, Domain::Exact, TOKEN.as_bytes()),
            holds: Cell::new(false),
        }
    }

    pub(crate) fn has(&self, digest: &TokenDigest) -> bool {
        self.holds.get() && *digest == self.digest
    }
}

/// A connection whose server takes each segment at once.
pub(crate) struct Connection<'a> {
    pub(crate) engine: Engine<'a>,
    now: u64,
    end: usize,
    /// Where the receiver stands, and whether it takes what comes.
    taken: usize,
    takes: bool,
    /// What was sent, and where.
    sent: Vec<(usize, Vec<u8>)>,
}

impl<'a> Connection<'a> {
    pub(crate) fn of(mut engine: Engine<'a>) -> Self {
        engine.accept(FIRST);
        Self {
            engine,
            now: START,
            end: 0,
            taken: 0,
            takes: true,
            sent: Vec::new(),
        }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> Fate {
        let bytes = bytes.as_ref();
        let fate = self.send_at(self.end, bytes);
        self.sent.push((self.end, bytes.to_vec()));
        self.end += bytes.len();
        if self.takes {
            self.take(self.end);
        }
        fate
    }

    fn send_at(&mut self, at: usize, bytes: &[u8]) -> Fate {
        self.now += 1_000_000;
        self.engine.segment(sequence(FIRST, at), bytes, self.now)
    }

    /// What was sent last but so many comes once more.
    fn send_again(&mut self, back: usize) -> Option<Fate> {
        let n = self.sent.len().checked_sub(back + 1)?;
        let (at, bytes) = self.sent.get(n)?.clone();
        Some(self.send_at(at, &bytes))
    }

    /// The receiver acknowledges all up to there.
    fn take(&mut self, end: usize) {
        self.taken = self.taken.max(end);
        self.engine.settle(sequence(FIRST, self.taken));
    }

    /// Whether the block of this segment, which passes, was known.
    pub(crate) fn knows(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let before = self.engine.repeated();
        assert_eq!(self.send(bytes), PASSED);
        self.engine.repeated() > before
    }

    /// A connection that has learnt this block.
    fn that_knows(engine: Engine<'a>, block: &str) -> Self {
        let mut connection = Self::of(engine);
        let request = format!("{LINE}{block}");
        assert!(!connection.knows(&request));
        assert!(!connection.knows(&request));
        assert!(connection.knows(&request));
        connection
    }
}

#[test]
fn a_block_is_known_whatever_the_line_before_it_asks_for() {
    let (listing, list) = (Listing::new().unwrap(), List::new());
    let listed = |digest: &_| list.has(digest);
    let block = block(TOKEN);
    let mut connection = Connection::that_knows(Engine::new(&listing.rules, &listed), &block);
    for line in [
        "GET / HTTP/1.1\r\n",
        "GET /items?page=2&sort=asc HTTP/1.1\r\n",
        "DELETE /items/1234 HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nX-Request-Id: 42\r\n",
        "GET / HTTP/1.1\n",
    ] {
        assert!(connection.knows(format!("{line}{block}")), "{line:?}");
    }
}

#[test]
fn what_is_listed_later_is_found_in_the_next_request() {
    let (listing, list) = (Listing::new().unwrap(), List::new());
    let listed = |digest: &_| list.has(digest);
    let block = block(TOKEN);
    let mut connection = Connection::that_knows(Engine::new(&listing.rules, &listed), &block);
    list.holds.set(true);
    connection.engine.change();
    assert_eq!(connection.send(format!("{LINE}{block}")), Fate::Blocked);
}

#[test]
fn a_block_is_learnt_again_after_a_change() {
    let (listing, list) = (Listing::new().unwrap(), List::new());
    let listed = |digest: &_| list.has(digest);
    let request = format!("{LINE}{}", block(TOKEN));
    let mut connection =
        Connection::that_knows(Engine::new(&listing.rules, &listed), &block(TOKEN));
    connection.engine.change();
    assert!(!connection.knows(&request));
    assert!(connection.knows(&request));
}

#[test]
fn the_line_in_front_of_a_block_is_always_read() {
    let (listing, list) = (Listing::new().unwrap(), List::new());
    let listed = |digest: &_| list.has(digest);
    let block = block("another-token-that-is-clean");
    let mut connection = Connection::that_knows(Engine::new(&listing.rules, &listed), &block);
    list.holds.set(true);
    connection.engine.change();
    for _ in 0..3 {
        connection.send(format!("{LINE}{block}"));
    }
    let evil = format!("GET /?access_token={TOKEN} HTTP/1.1\r\n{block}");
    assert_eq!(connection.send(evil), Fate::Blocked);
}

/// A line may be known as well, and another of its length is not it.
#[test]
fn a_line_that_repeats_stands_for_no_other() {
    let (listing, list) = (Listing::new().unwrap(), List::new());
    let listed = |digest: &_| list.has(digest);
    let block = block("another-token-that-is-clean");
    let evil = format!("GET /?access_token={TOKEN} HTTP/1.1\r\n");
    let path = "p".repeat(evil.len() - "GET / HTTP/1.1\r\n".len());
    let usual = format!("GET /{path} HTTP/1.1\r\n");
    list.holds.set(true);
    for before in 0..6 {
        let mut connection = Connection::that_knows(Engine::new(&listing.rules, &listed), &block);
        for _ in 0..before {
            assert!(connection.knows(format!("{usual}{block}")));
        }
        assert_eq!(connection.send(format!("{evil}{block}")), Fate::Blocked);
    }
}

/// All sums are the same: what is in front of a block, and how it was read, decides alone.
#[test]
fn a_block_is_known_only_behind_the_line_of_a_request() {
    let (listing, list) = (Listing::new().unwrap(), List::new());
    let listed = |digest: &_| list.has(digest);
    let block = block(TOKEN);
    for (before, line) in [
        // No line of a request, or more than one.
        ("", "Host: a\r\n"),
        ("", "GET items HTTP/1.1\r\n"),
        ("", "\r\nGET / HTTP/1.1\r\n\r\n"),
        ("", "GET / HTTP/1.1\r\n\r\n"),
        // A message that does not end with the block.
        ("", "POST / HTTP/1.1\r\nContent-Length: 5\r\n"),
        ("", "POST / HTTP/1.1\r\nContent-Length: 5\r\nX: a\r\n"),
        ("", "word\r\nCookie: a=b\r\n"),
        ("", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"),
        // What another server reads otherwise.
        ("", "GET / HTTP/1.1\r\nX\u{e9} : a\r\n"),
        ("", "GET / HTTP/1.1\r\n folded\r\n"),
        ("", " GET / HTTP/1.1\r\n"),
        // In the middle of a line, a body, a name.
        ("GET /", "items HTTP/1.1\r\n"),
        ("POST / HTTP/1.1\r\nContent-Length: 500\r\n\r\n", LINE),
        ("X-Other", ": GET / HTTP/1.1\r\n"),
        // Where messages end is not known.
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            LINE,
        ),
    ] {
        let engine = Engine::new(&listing.rules, &listed).with_keys(Some(toy()));
        let mut connection = Connection::that_knows(engine, &block);
        if !before.is_empty() {
            assert_eq!(connection.send(before), PASSED, "{before:?}");
        }
        assert!(
            !connection.knows(format!("{line}{block}")),
            "{before:?}, {line:?}"
        );
    }
}

/// What a block leaves behind that is not as usual is no state that a repeat could be set to.
#[test]
fn a_block_that_leaves_more_behind_is_not_learnt() {
    let listing = Listing::new().unwrap();
    let listed = |_: &_| false;
    let padding = "X-Padding: 0123456789012345678901234567890123456789012345678901234\r\n";
    for rest in [
        "Content-Length: 5\r\n\r\nabcde",
        "Content-Length: 0\r\n",
        "Host: a\r\n",
        "\r\nGET",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n",
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "X-Other: a\r\n folded\r\n\r\n",
        "\r\n\r\r\n",
        "PRI * HTTP/2.0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
    ] {
        let mut connection = Connection::of(Engine::new(&listing.rules, &listed));
        for _ in 0..20 {
            // It may be a body, or the rest of a line, to what came before.
            if connection.send(format!("{LINE}{padding}{rest}")) != PASSED {
                break;
            }
        }
        assert_eq!(connection.engine.repeated(), 0, "{rest:?}");
    }
}

#[test]
fn short_and_long_blocks_are_read() {
    let listing = Listing::new().unwrap();
    let listed = |_: &_| false;
    for (len, known) in [(63, false), (64, true), (2048, true), (2049, false)] {
        let block = format!("X-Padding: {}\r\n\r\n", "x".repeat(len - 15));
        assert_eq!(block.len(), len);
        let mut connection = Connection::of(Engine::new(&listing.rules, &listed));
        for _ in 0..5 {
            assert_eq!(connection.send(format!("{LINE}{block}")), PASSED);
        }
        assert_eq!(connection.engine.repeated() > 0, known, "{len}");
    }
}

/// One byte of a block is another one, wherever: nothing is known.
#[test]
fn every_byte_of_a_block_counts() {
    let listing = Listing::new().unwrap();
    let listed = |_: &_| false;
    let block = block(TOKEN);
    for at in 0..block.len() {
        let mut connection = Connection::that_knows(Engine::new(&listing.rules, &listed), &block);
        let mut other = format!("{LINE}{block}").into_bytes();
        other[LINE.len() + at] ^= 0x80;
        let before = connection.engine.repeated();
        connection.send(other);
        assert_eq!(connection.engine.repeated(), before, "{at}");
    }
}

/// A client whose blocks differ each time in more than one line is hardly looked at; one that repeats itself later is known again.
#[test]
fn who_never_repeats_is_left_alone() {
    let listing = Listing::new().unwrap();
    let listed = |_: &_| false;
    let mut connection = Connection::of(Engine::new(&listing.rules, &listed));
    for n in 0..400 {
        let ids = format!("X-Request-Id: {n:09}\r\nX-Span-Id: {n:09}\r\n");
        assert!(
            !connection.knows(format!("{LINE}{ids}{}", block(TOKEN))),
            "{n}"
        );
    }
    let request = format!("{LINE}{}", block(TOKEN));
    let known = (0..2000).position(|_| connection.knows(&request));
    assert!(known.is_some_and(|n| n > 10), "{known:?}");
    assert!((0..100).all(|_| connection.knows(&request)));
}

/// What was known and passed may be lost behind the hook all the same.
#[test]
fn known_requests_that_are_lost_come_again() {
    let listing = Listing::new().unwrap();
    let listed = |_: &_| false;
    let mut connection =
        Connection::that_knows(Engine::new(&listing.rules, &listed), &block(TOKEN));
    connection.takes = false;
    let request = format!("{LINE}{}", block(TOKEN));
    assert!(connection.knows(&request) && connection.knows(&request));
    assert_eq!(
        connection.send_again(1),
        Some(Fate::Dropped(Place::Duplicate))
    );
    connection.now += 300_000_000;
    let recovered = Some(Fate::Passed(Place::Recovery));
    assert_eq!(connection.send_again(1), recovered);
    assert_eq!(connection.send_again(0), Some(PASSED));
}

/// What a client sends next.
#[derive(Clone, Debug)]
enum Next {
    /// A request of this line and this block, cut here.
    Request(usize, usize, Option<usize>),
    /// The list holds the token, or no longer.
    List(bool),
    /// From now on the receiver takes what comes, or nothing of it.
    Take(bool),
    /// What was sent last but so many comes once more.
    Again(usize),
    /// For so many milliseconds nothing happens.
    Wait(u64),
    /// The receiver answers.
    Answer,
}

const LINES: [&str; 7] = [
    "GET /items?a HTTP/1\r\n",
    "GET /access_token=a-token-of-this-test_0123456789& HTTP/1.1\r\n",
    LINE,
    "GET / HTTP/1.1\r\n",
    "GET /?access_token=a-token-of-this-test_0123456789 HTTP/1.1\r\n",
    "POST / HTTP/1.1\r\nContent-Length: 3\r\n",
    "GET / HTTP/1.1\r\nX-Other: a\r\n folded\r\n",
];

fn blocks() -> [String; 5] {
    [
        block(TOKEN),
        block("another-token-that-is-as-long-0"),
        format!("X-Other: {TOKEN}\r\nAccept: text/html, application/json\r\nHost: b\r\n\r\n"),
        format!("Cookie: session={TOKEN}\r\nAccept: text/html, application/json\r\n\r\nabc"),
        format!("Host: api.example.org\r\nAccept: */*\r\nAuthorization: Bearer {TOKEN}\r\n"),
    ]
}

fn next() -> impl Strategy<Value = Next> {
    let cut = prop_oneof![8 => Just(None), 1 => (0..150_usize).prop_map(Some)];
    let line = prop_oneof![8 => Just(2_usize), 2 => 0..LINES.len()];
    let block = prop_oneof![12 => 0..2_usize, 1 => 0..blocks().len()];
    prop_oneof![
        12 => (line, block, cut).prop_map(|(line, block, cut)| Next::Request(line, block, cut)),
        1 => any::<bool>().prop_map(Next::List),
        2 => any::<bool>().prop_map(Next::Take),
        3 => (0..4_usize).prop_map(Next::Again),
        1 => (0..400_u64).prop_map(Next::Wait),
        2 => Just(Next::Answer),
    ]
}

proptest! {
    #![proptest_config(cases(2_000))]

    /// To remember a block saves its reading, and changes no verdict.
    #[test]
    fn what_is_known_again_is_what_would_be_read(
        steps in prop::collection::vec(next(), 1..60), toy_keys: bool,
    ) {
        let (listing, list) = (Listing::new().unwrap(), List::new());
        let listed = |digest: &_| list.has(digest);
        let reads = Engine::new(&listing.rules, &listed).with_keys(None);
        let mut remembers = Engine::new(&listing.rules, &listed);
        // All blocks of a length are one: then none may bear what the other doesn't.
        // All lines of a length are one, too.
        let lines = if toy_keys { &LINES[2..] } else { &LINES[..] };
        let blocks = if toy_keys {
            remembers = remembers.with_keys(Some(toy()));
            blocks().map(|block| block.replace("another-token-that-is-as-long-0", TOKEN))
        } else {
            blocks()
        };
        let (mut reads, mut remembers) = (Connection::of(reads), Connection::of(remembers));
        let mut answered = 7;
        for step in steps {
            prop_assert_eq!(reads.engine.owes_nothing(answered), remembers.engine.owes_nothing(answered));
            match step {
                Next::Take(takes) => {
                    for connection in [&mut reads, &mut remembers] {
                        connection.takes = takes;
                        if takes {
                            connection.take(connection.end);
                        }
                    }
                }
                Next::Again(back) => {
                    prop_assert_eq!(reads.send_again(back), remembers.send_again(back));
                }
                Next::Wait(milliseconds) => {
                    for connection in [&mut reads, &mut remembers] {
                        connection.now += milliseconds * 1_000_000;
                    }
                }
                Next::Answer => {
                    for connection in [&mut reads, &mut remembers] {
                        let taken = sequence(FIRST, connection.taken);
                        connection.engine.answer(answered, 100, taken);
                    }
                    answered += 100;
                }
                Next::List(holds) => {
                    list.holds.set(holds);
                    remembers.engine.change();
                }
                Next::Request(line, block, cut) => {
                    let request = format!("{}{}", lines[line % lines.len()], blocks[block]);
                    let (first, rest) = request.split_at(cut.unwrap_or(0).min(request.len()));
                    for piece in [first, rest] {
                        if !piece.is_empty() {
                            prop_assert_eq!(reads.send(piece), remembers.send(piece));
                        }
                    }
                }
            }
        }
    }
}
