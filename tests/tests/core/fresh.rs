//! Header blocks that repeat but for one value, as a request's id is: known again where nothing reads that value, and nowhere else.

use proptest::prelude::*;
use tokenblock_ebpf::{location::LocationKind, rules::Rules};
use tokenblock_tests::{
    bpf::KEY,
    engine::{Engine, Fate},
    trace::Listing,
};

use crate::{
    flow::cases,
    memo::{Connection, LINE, List, PASSED, TOKEN},
};

/// As many requests as a block here has lines, and some more: within so many the value is found that differs.
const SOON: usize = 12;

/// Header lines, `fresh` among them behind the first `n`, and the end of their block.
fn block(n: usize, fresh: &str) -> String {
    let mut lines = vec![
        "Host: api.example.org",
        "Accept: */*",
        "Authorization: Bearer another-token-that-is-clean_0123456789",
        "Accept-Encoding: gzip, deflate, br",
        "Cookie: session=another-token-that-is-clean_0123456789",
        "Connection: keep-alive",
    ];
    lines.insert(n, fresh);
    lines.join("\r\n") + "\r\n\r\n"
}

/// The lines in front of the value in such a block, its name and colon as well.
fn before(n: usize, name: &str) -> usize {
    block(n, name).find(name).unwrap() + name.len()
}

/// A connection that has learnt which value differs: that of this name behind `n` lines, of `len` bytes.
fn that_knows<'a>(engine: Engine<'a>, n: usize, name: &str, len: usize) -> Connection<'a> {
    let mut connection = Connection::of(engine);
    for id in 0..SOON {
        assert_eq!(connection.send(request(n, name, id, len)), PASSED);
    }
    for id in SOON..SOON + 20 {
        assert!(
            connection.knows(request(n, name, id, len)),
            "{name} {n} {id}"
        );
    }
    connection
}

fn request(n: usize, name: &str, id: usize, len: usize) -> String {
    format!("{LINE}{}", block(n, &format!("{name}{id:0len$x}")))
}

/// Also where a location's name has as many letters, and the same first one, as `X-Api-Key` has of `X-Span-Id`.
#[test]
fn a_value_that_differs_each_time_is_left_out_wherever_it_stands() {
    let listing = Listing::new().unwrap();
    let listed = |_: &_| false;
    for name in [
        "X-Request-Id: ",
        "traceparent:",
        "Date: ",
        "X-Span-Id: ",
        "X-B3-TraceId:\t",
    ] {
        for len in [2, 7, 8, 9, 29, 55, 64, 200, 255] {
            for n in 0..=6 {
                let mut connection = that_knows(Engine::new(&listing.rules, &listed), n, name, len);
                let other = request(n, name, 77, len).replace(LINE, "GET /?a=b HTTP/1.1\r\n");
                assert!(connection.knows(other), "{name} {len} {n}");
            }
        }
    }
}

/// Whatever bytes it has: only the end of a line would mean anything.
#[test]
fn every_other_byte_counts_and_line_ends_do_everywhere() {
    let listing = Listing::new().unwrap();
    let listed = |_: &_| false;
    let (name, len) = ("X-Request-Id:", 21);
    let value = LINE.len() + before(2, name);
    for at in LINE.len()..request(2, name, 0, len).len() {
        for byte in [b'\r', b'\n', b' ', b':', 0, 0x80, 0xff] {
            let mut connection = that_knows(Engine::new(&listing.rules, &listed), 2, name, len);
            let mut other = request(2, name, 0, len).into_bytes();
            let same = std::mem::replace(&mut other[at], byte) == byte;
            let inside = (value..value + len).contains(&at);
            let is_known = same || inside && !matches!(byte, b'\r' | b'\n');
            let before = connection.engine.repeated();
            connection.send(other);
            let known = connection.engine.repeated() > before;
            assert_eq!(known, is_known, "{byte} at {at}");
        }
    }
}

/// What a location holds is read, and so is what is long.
#[test]
fn a_value_that_is_read_is_never_left_out() {
    let listing = Listing::new().unwrap();
    let listed = |_: &_| false;
    for (name, len) in [
        ("Authorization: Bearer ", 40),
        ("X-Api-Key: ", 40),
        ("Cookie: session=", 40),
        ("Cookie: other=", 40),
        ("Content-Type: ", 300),
        ("A-Name-Of-More-Than-23-Characters: ", 40),
        (" folded: ", 40),
        ("no name ", 40),
        (": ", 40),
    ] {
        let mut connection = Connection::of(Engine::new(&listing.rules, &listed));
        for id in 0..400 {
            assert!(!connection.knows(request(3, name, id, len)), "{name} {id}");
        }
    }
}

/// A list that changes costs one reading, and rules that now read the value have it read.
#[test]
fn other_rules_may_read_it() {
    let listing = Listing::new().unwrap();
    let list = List::new();
    list.holds.set(true);
    let listed = |digest: &_| list.has(digest);
    let name = "X-Request-Id: ";
    let reads = Rules::new(&KEY, 8, &[(LocationKind::Header, b"X-Request-Id")]).unwrap();
    for others in 0..3 {
        let mut connection = that_knows(Engine::new(&listing.rules, &listed), 3, name, TOKEN.len());
        connection.engine.change();
        assert!(!connection.knows(request(3, name, 1, TOKEN.len())));
        assert!(connection.knows(request(3, name, 2, TOKEN.len())));
        connection.engine.change_rules(&reads);
        for id in 0..others {
            assert!(!connection.knows(request(3, name, id, TOKEN.len())));
        }
        let evil = format!("{LINE}{}", block(3, &format!("{name}{TOKEN}")));
        assert_eq!(connection.send(evil), Fate::Blocked, "{others}");
    }
}

/// Bytes of each value below.
const LEN: usize = 80;

/// Values that are more than that, if they are read.
fn odd() -> [String; 14] {
    [
        format!("a\r\nAuthorization: Bearer {TOKEN}\r\nX: "),
        format!("a\nAuthorization: Bearer {TOKEN}\n"),
        format!("a\r\n\r\nGET /?access_token={TOKEN} HTTP/1.1\r\n"),
        format!("\r\n {TOKEN}\r\nX: "),
        format!("\rCookie: session={TOKEN}\rX: "),
        format!("\r\nCookie: session={TOKEN}; a"),
        format!("GET /?access_token={TOKEN} HTTP/1.1"),
        format!("/?access_token={TOKEN}&"),
        format!("Authorization: Bearer {TOKEN} "),
        format!("{TOKEN} "),
        "\r\nContent-Length: 70\r\nX: ".to_owned(),
        "\r\nTransfer-Encoding: chunked\r\n".to_owned(),
        "\r\n\r\n".to_owned(),
        "\u{a0}\0\u{7f}".to_owned(),
    ]
}

#[derive(Clone, Debug)]
enum Next {
    /// A request whose value is this number.
    Usual(usize),
    /// One with an odd value.
    Odd(usize),
    /// One in which this byte is another one.
    Changed(prop::sample::Index, u8),
    /// One in which the bytes from here on are those of a line with a listed token.
    Bears(prop::sample::Index),
    /// One that is cut here.
    Cut(prop::sample::Index),
    /// The list changes, and says the same.
    List,
}

fn next() -> impl Strategy<Value = Next> {
    let byte = prop_oneof![prop::sample::select(&b"\r\n :\t?"[..]), any::<u8>()];
    prop_oneof![
        20 => any::<usize>().prop_map(Next::Usual),
        4 => (0..odd().len()).prop_map(Next::Odd),
        4 => (any::<prop::sample::Index>(), byte).prop_map(|(at, byte)| Next::Changed(at, byte)),
        2 => any::<prop::sample::Index>().prop_map(Next::Bears),
        1 => any::<prop::sample::Index>().prop_map(Next::Cut),
        1 => Just(Next::List),
    ]
}

proptest! {
    #![proptest_config(cases(3_000))]

    /// To leave out a value saves its reading, and changes no verdict.
    #[test]
    fn what_is_left_out_would_have_said_nothing(
        n in 0..=6_usize, name in prop::sample::select(&["X-Request-Id: ", "Date:", "X-Span-Id: "][..]),
        learns in 0..SOON + 4, steps in prop::collection::vec(next(), 1..30),
    ) {
        let (listing, list) = (Listing::new().unwrap(), List::new());
        list.holds.set(true);
        let listed = |digest: &_| list.has(digest);
        let reads = Engine::new(&listing.rules, &listed).with_keys(None);
        let mut reads = Connection::of(reads);
        let mut remembers = Connection::of(Engine::new(&listing.rules, &listed));
        let usual = (0..learns).map(Next::Usual).collect::<Vec<_>>();
        for step in usual.into_iter().chain(steps) {
            let mut bytes = request(n, name, 0, LEN).into_bytes();
            let value = LINE.len() + before(n, name);
            let mut cut = 0;
            match step {
                Next::Usual(id) => bytes = request(n, name, id, LEN).into_bytes(),
                Next::Odd(odd_value) => {
                    let odd = odd()[odd_value].clone();
                    bytes[value..value + odd.len()].copy_from_slice(odd.as_bytes());
                }
                Next::Changed(at, byte) => {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
                Next::Bears(at) => {
                    let line = format!("\r\nAuthorization: Bearer {TOKEN}\r\n");
                    let at = at.index(bytes.len() - line.len());
                    bytes[at..at + line.len()].copy_from_slice(line.as_bytes());
                }
                Next::Cut(at) => cut = at.index(bytes.len()),
                Next::List => remembers.engine.change(),
            }
            let (first, rest) = bytes.split_at(cut);
            for piece in [first, rest] {
                if !piece.is_empty() {
                    prop_assert_eq!(reads.send(piece), remembers.send(piece));
                }
            }
        }
    }
}
