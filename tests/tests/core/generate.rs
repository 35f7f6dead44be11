//! Random configurations, and streams in which their names, escapes and delimiters are frequent.

use proptest::{prelude::*, sample::Index};
use tokenblock_ebpf::location::LocationKind;
use tokenblock_tests::{reference::Config, scanned::rules};

/// Sixteen times the cases that proptest is told to run (`PROPTEST_CASES`).
pub(crate) fn many_cases() -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig {
        cases: config.cases.saturating_mul(16),
        max_global_rejects: u32::MAX,
        ..config
    }
}

/// A piece of a stream.
#[derive(Clone, Debug)]
enum Piece {
    Text(&'static str),
    Bytes(Vec<u8>),
    Name(Index),
    Run(u8, usize),
    Credentials(Vec<u8>),
}

const TEXTS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\r\n ",
    "\n\t",
    "\r\r\n",
    "\r\n\r\n",
    ": ",
    ":",
    " ",
    "\t",
    "  ",
    "=",
    ";",
    "; ",
    ",",
    "&",
    "?",
    "\"",
    "\\",
    "%",
    "#",
    ".",
    "+",
    "-",
    "_",
    "[",
    "[]",
    "]",
    "/",
    "%2",
    "%2E",
    "%2e",
    "%41",
    "%5B",
    "%5b%5D",
    "%20",
    "%00",
    "%22",
    "%3D",
    "%%",
    "\\101",
    "\\056",
    "\\1",
    "\\12",
    "\\\"",
    "\\.",
    "\\4",
    "GET /?",
    "GET  /?",
    "POST /a?b&",
    " HTTP/1.1\r\n",
    "Cookie: ",
    "\r\ncookie:",
    "COOKIE",
    "Authorization: ",
    "Authorization \t:",
    "\nCookie : ",
    "\r\nauthorization:",
    "Bearer ",
    "Basic ",
    "basic\t",
    "BASIC",
    "abc",
    "abcdefgh",
    "a.b.c",
    "aaaaaaaa.b",
    "eyJhbGciOiJub25lIn0.e30.",
    "tok-en_A",
    "\u{a0}",
    "GET\u{2003}/?",
    "x",
];

fn piece() -> impl Strategy<Value = Piece> {
    prop_oneof![
        12 => prop::sample::select(TEXTS).prop_map(Piece::Text),
        6 => any::<Index>().prop_map(Piece::Name),
        2 => "[ -~]{1,20}".prop_map(|text| Piece::Bytes(text.into_bytes())),
        1 => prop::collection::vec(any::<u8>(), 1..12).prop_map(Piece::Bytes),
        1 => prop::sample::select(&[0x85u8, 0xa0][..]).prop_map(|white| Piece::Bytes(vec![white])),
        1 => (prop::sample::select(&b"aA0.%_-\"\\ ;["[..]), 1usize..90).prop_map(|(b, n)| Piece::Run(b, n)),
        1 => "[a-z.]{0,12}:?[a-z.:]{0,20}".prop_map(|text| Piece::Credentials(text.into_bytes())),
    ]
}

fn kind() -> impl Strategy<Value = LocationKind> {
    prop::sample::select(
        &[
            LocationKind::Header,
            LocationKind::Cookie,
            LocationKind::Query,
        ][..],
    )
}

/// Names that collide with the grammar, and any others.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(
            &["Authorization", "session", "access_token", "x", "a-b", "X-API-Key", "basic", "Cookie", "token"][..]
        ).prop_map(str::to_owned),
        2 => "[a-zA-Z0-9_.~-]{1,12}",
        1 => "[a-z][a-z-]{61,63}",
        1 => "[!-~]{1,4}",
    ]
}

/// A configuration that [`Rules::new`] takes.
pub(crate) fn config() -> impl Strategy<Value = Config> {
    let locations = prop::collection::vec((kind(), name()), 1..8);
    (any::<[u8; 16]>(), 1usize..14, locations)
        .prop_map(|(key, min_len, locations)| Config {
            key,
            min_len,
            locations,
        })
        .prop_filter("not a name of its kind", |config| rules(config).is_some())
}

/// A configuration and a stream made for it.
pub(crate) fn stream() -> impl Strategy<Value = (Config, Vec<u8>)> {
    (config(), prop::collection::vec(piece(), 0..40)).prop_map(|(config, pieces)| {
        let bytes = pieces
            .iter()
            .flat_map(|piece| render(piece, &config))
            .collect();
        (config, bytes)
    })
}

fn render(piece: &Piece, config: &Config) -> Vec<u8> {
    match piece {
        Piece::Text(text) => text.as_bytes().to_vec(),
        Piece::Bytes(bytes) => bytes.clone(),
        Piece::Run(byte, len) => vec![*byte; *len],
        Piece::Credentials(plain) => {
            use base64::{Engine as _, prelude::BASE64_STANDARD};
            BASE64_STANDARD.encode(plain).into_bytes()
        }
        Piece::Name(index) => {
            let (kind, name) = index.get(&config.locations);
            let mut text = name.clone();
            match kind {
                LocationKind::Header => text.insert_str(0, "\r\n"),
                LocationKind::Cookie | LocationKind::Query => {}
            }
            text.push_str(match kind {
                LocationKind::Header => ": ",
                LocationKind::Cookie | LocationKind::Query => "=",
            });
            text.into_bytes()
        }
    }
}

/// Sizes of pieces.
pub(crate) fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1usize..40, 100usize..300], 1..6)
}
