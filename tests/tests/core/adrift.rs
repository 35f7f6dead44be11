//! Messages that end where only the server knows: inside of what looks like a body, behind chunks, trailers and odd heads. The
//! query of a request that begins there, in the middle of a line, is read all the same.

use proptest::prelude::*;
use tokenblock_ebpf::digest::TokenDigest;
use tokenblock_tests::{
    engine::{Engine, Fate},
    fixtures::Token,
    trace::{Listing, START, sequence},
};

use crate::flow::cases;

const FIRST: u32 = 7;

/// The end of a line that is no part of a request line, wherever it is cut.
const END: &str = "aaaa: b c:";

/// A request with a length that ends within a line, and a request behind it.
fn evil(end: &str, token: &str) -> String {
    format!(
        "POST /c HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{end}GET /d?a=b&access_token={token} HTTP/1.1\r\nHost: h\r\n\r\n",
        end.len()
    )
}

fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

fn chunked(data: &str, trailers: &str) -> String {
    let chunks: String = if data.is_empty() {
        String::new()
    } else {
        chunk(data)
    };
    format!("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n{trailers}\r\n")
}

fn fake(length: usize) -> String {
    format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n")
}

fn send(listing: &Listing, pieces: &[&[u8]]) -> Vec<Fate> {
    let listed = |digest: &TokenDigest| listing.has(digest);
    let mut engine = Engine::new(&listing.rules, &listed);
    engine.accept(FIRST);
    let (mut at, mut fates) = (0, Vec::new());
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        let now = START + at as u64;
        fates.push(engine.segment(sequence(FIRST, at), piece, now));
        at += piece.len();
        engine.settle(sequence(FIRST, at));
    }
    fates
}

/// What stands in front of the request of [`evil`]; all of it is taken for something else by a reader that follows it.
fn fronts() -> Vec<(&'static str, String)> {
    let block = fake(1000);
    let unread = |body: &str| {
        format!(
            "GET /u HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    vec![
        ("a head in a chunk", chunked(&block, "")),
        (
            "a length in a chunk",
            chunked("Content-Length: 1000\r\n\r\n", ""),
        ),
        ("a head over two chunks", {
            let (one, two) = block.split_at(25);
            chunked("x", "").replace("1\r\nx\r\n", &(chunk(one) + &chunk(two)))
        }),
        (
            "a length in a trailer",
            chunked("", "Content-Length: 1000\r\n"),
        ),
        (
            "an odd length in a trailer",
            chunked("", "Content-Length: +1000\r\n"),
        ),
        ("a head in a body that is not read", unread(&fake(1000))),
        ("chunks in a body that is not read", {
            let chunks = chunked(&block, "");
            // The declared body ends before they do.
            let (inside, behind) = chunks.split_at(60);
            unread(inside) + behind
        }),
        (
            "a length in front of what looks like a request line",
            "POST a HTTP/1.1\r\nContent-Length: 0\r\nA /b: c\r\n\r\n".to_owned(),
        ),
        (
            "a length that few servers see",
            "GET / HTTP/1.1\r\nX: a\rContent-Length: 1000\r\n\r\n".to_owned(),
        ),
        ("an empty line that few servers see", {
            "GET / HTTP/1.1\r\nContent-Length: 1000\r\n\n\rContent-Length: 1000\r\n\r\n".to_owned()
        }),
    ]
}

#[test]
fn a_request_within_a_line_is_read_where_framing_is_hidden() {
    let listing = Listing::new().unwrap();
    let token = Token::Opaque.text();
    for (name, front) in fronts() {
        let stream = front.clone() + &evil(END, &token);
        let whole = send(&listing, &[stream.as_bytes()]);
        assert_eq!(whole, [Fate::Blocked], "{name}: {stream:?}");
        for cut in 1..stream.len() {
            let (one, two) = stream.as_bytes().split_at(cut);
            let fates = send(&listing, &[one, two]);
            assert!(
                fates.contains(&Fate::Blocked),
                "{name}, cut at {cut}: {fates:?}"
            );
            let (two, three) = two.split_at(two.len().min(7));
            let fates = send(&listing, &[one, two, three]);
            assert!(
                fates.contains(&Fate::Blocked),
                "{name}, cut at {cut} and 7 behind: {fates:?}"
            );
        }
        for size in [1, 2, 3, 7, 13] {
            let pieces: Vec<&[u8]> = stream.as_bytes().chunks(size).collect();
            let fates = send(&listing, &pieces);
            assert!(
                fates.contains(&Fate::Blocked),
                "{name}, in pieces of {size}: {fates:?}"
            );
        }
        // Without the token nothing is harmed.
        let clean = stream.replace(&token, &token.chars().rev().collect::<String>());
        for size in [1, 5, 64, 10_000] {
            let pieces: Vec<&[u8]> = clean.as_bytes().chunks(size).collect();
            let fates = send(&listing, &pieces);
            assert!(
                fates.iter().all(|fate| matches!(fate, Fate::Passed(_))),
                "{name}: {fates:?}"
            );
        }
    }
}

/// `http.server` takes a target that is no path, and reads no header behind a line that is none.
#[test]
fn a_length_in_front_of_what_looks_like_a_request_line_is_kept() {
    let listing = Listing::new().unwrap();
    let stream = format!(
        "POST a HTTP/1.1\r\nContent-Length: {}\r\nA /b: c\r\n\r\n{END}GET /?access_token={} HTTP/1.1\r\n\r\n",
        END.len(),
        Token::Opaque.text()
    );
    for cut in 0..stream.len() {
        let (one, two) = stream.as_bytes().split_at(cut);
        let fates = send(&listing, &[one, two]);
        assert!(fates.contains(&Fate::Blocked), "cut at {cut}: {fates:?}");
    }
}

/// A decoy without a length was passed, and what is behind it; then the same with one comes, which a server heeds that
/// reads no body in front of it.
#[test]
fn what_was_read_without_doubt_is_not_left_behind_a_doubt() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &TokenDigest| listing.has(digest);
    let head = "GET /u HTTP/1.1\r\nContent-Length: 1000\r\n\r\nPOST /c HTTP/1.1\r\n";
    let behind = format!(
        "a:GET /d?access_token={} HTTP/1.1\r\n\r\n",
        Token::Opaque.text()
    );
    let first = "Content-Length: 7\r\n\r\naaaaa";
    let (decoy, other) = (first.replace('C', "Z"), first.replace('C', "X"));
    // Something later may have set the flow adrift before.
    let later = "Content-Length: 0\r\n\r\n";
    for (first, last, resets) in [
        (first, "", true),
        (first, later, true),
        (&other, "", false),
        (&other, later, false),
    ] {
        let mut engine = Engine::new(&listing.rules, &listed);
        engine.accept(FIRST);
        let mut at = 0;
        for bytes in [head, &decoy, &behind, last] {
            if !bytes.is_empty() {
                let fate = engine.segment(sequence(FIRST, at), bytes.as_bytes(), START);
                assert!(matches!(fate, Fate::Passed(_)), "{fate:?}");
            }
            at += bytes.len();
            if bytes == head {
                engine.settle(sequence(FIRST, at));
            }
        }
        let at = sequence(FIRST, head.len());
        let fate = engine.segment(at, first.as_bytes(), START + 300_000_000);
        assert_eq!(
            matches!(fate, Fate::Reset(_)),
            resets,
            "{first}, {last}: {fate:?}"
        );
    }
}

/// How a server frames its messages, a bit for each [`Habit`]; none of them reads as all others do.
#[derive(Clone, Copy, Debug)]
struct Server(u8);

/// A way to read that some servers have; any of them go together.
#[derive(Clone, Copy)]
enum Habit {
    /// It reads chunks; else it takes them for what follows.
    Chunks,
    /// It reads the bodies of `GET` requests.
    BodiesOfGet,
    /// It reads declared bodies at all.
    Bodies,
    /// Of a length and a coding the length counts.
    LengthFirst,
    /// Of several lengths the last counts.
    LastLength,
    /// It leaves out white space in front of the colon, and what Latin-1 calls so.
    StripsNames,
    /// A CR without an LF ends a line.
    EndsAtCr,
    /// What is no header ends the header block's reading, as in Python's parser.
    StopsAtJunk,
}

impl Server {
    fn has(self, habit: Habit) -> bool {
        self.0 & 1 << habit as u8 != 0
    }

    /// Whether an application behind this server gets the listed token in a query.
    fn reads_token(self, stream: &[u8], token: &str) -> bool {
        let mut rest = stream;
        loop {
            while let [b'\r' | b'\n', more @ ..] = rest {
                rest = more;
            }
            let Some((lines, head)) = self.head(rest) else {
                return false;
            };
            let Some((line, fields)) = lines.split_first() else {
                return false;
            };
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let [method, target, version] = words[..] else {
                return false;
            };
            if !version.starts_with("HTTP/1.") {
                return false;
            }
            if target.contains(&format!("access_token={token}")) {
                return true;
            }
            let Some(behind) = rest.get(head..) else {
                return false;
            };
            let Some(length) = self.body(method, fields, behind) else {
                return false;
            };
            rest = behind.get(length..).unwrap_or_default();
        }
    }

    /// The lines of a header block, and its length.
    fn head(self, bytes: &[u8]) -> Option<(Vec<String>, usize)> {
        let (mut lines, mut at) = (Vec::new(), 0);
        loop {
            let rest = bytes.get(at..)?;
            let end = rest
                .iter()
                .position(|byte| *byte == b'\n' || self.has(Habit::EndsAtCr) && *byte == b'\r')?;
            let with_lf = rest[end] == b'\r' && rest.get(end + 1) == Some(&b'\n');
            at += end + 1 + usize::from(with_lf);
            let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
            if line.is_empty() {
                return Some((lines, at));
            }
            lines.push(line.iter().map(|byte| char::from(*byte)).collect());
        }
    }

    /// The length of a body; `None` where it waits for more or gives up.
    fn body(self, method: &str, fields: &[String], behind: &[u8]) -> Option<usize> {
        let (mut lengths, mut coded) = (Vec::new(), false);
        for field in fields {
            let Some((name, value)) = field.split_once(':') else {
                if self.has(Habit::StopsAtJunk) {
                    break;
                }
                return None;
            };
            if self.has(Habit::StopsAtJunk) && name.contains([' ', '\t']) {
                break;
            }
            let name = if self.has(Habit::StripsNames) {
                name.trim()
            } else {
                name
            };
            if name.eq_ignore_ascii_case("content-length") {
                lengths.push(value.trim().parse::<usize>().ok()?);
            }
            coded |= name.eq_ignore_ascii_case("transfer-encoding");
        }
        let length = if self.has(Habit::LastLength) {
            lengths.last()
        } else {
            lengths.first()
        };
        if coded && self.has(Habit::Chunks) && !(self.has(Habit::LengthFirst) && length.is_some()) {
            return self.chunked(behind);
        }
        if !self.has(Habit::Bodies) || !self.has(Habit::BodiesOfGet) && method == "GET" {
            return Some(0);
        }
        let length = length.copied().unwrap_or(0);
        (length <= behind.len()).then_some(length)
    }

    /// The length of chunks and their trailers.
    fn chunked(self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..)?;
            let end = rest.iter().position(|byte| *byte == b'\n')?;
            let line = String::from_utf8_lossy(&rest[..end]);
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size.trim_start_matches("0x"), 16).ok()?;
            at += end + 1;
            if size == 0 {
                // Trailers, if any, and an empty line.
                return Some(at + self.head(bytes.get(at..)?)?.1);
            }
            at = at.checked_add(size)?;
            match bytes.get(at..)? {
                [b'\r', b'\n', ..] => at += 2,
                [b'\n', ..] => at += 1,
                _ => return None,
            }
        }
    }
}

fn server() -> impl Strategy<Value = Server> {
    any::<u8>().prop_map(Server)
}

/// A line that says how long a body is, in one of the ways that some server knows.
fn length_line(length: usize, spelling: usize) -> String {
    match spelling {
        0 => format!("Content-Length : {length}\r\n"),
        1 => format!("Content-Length\u{b}: {length}\r\n"),
        2 => format!("\u{b}Content-Length: {length}\r\n"),
        3 => format!(
            "Content-Length: {length}\r\nContent-Length: {}\r\n",
            length + 9
        ),
        4 => format!("A /b: c\r\nContent-Length: {length}\r\n"),
        5 => format!("Content-Length: {length}\r\nA /b: c\r\n"),
        6 => format!("X: a\rContent-Length: {length}\r\n"),
        7 => format!("Content-Length: {length}\n\rX: y\n"),
        8 => format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
        _ => format!("Content-Length: {length}\r\n"),
    }
}

/// A stream of messages as some server sees them, each perhaps inside of what another takes for something else.
fn messages() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        Just(String::new()),
        Just("a: b c".to_owned()),
        Just("aaaa\r\n".to_owned()),
        Just("?a=b&c".to_owned()),
        Just("Cookie: a=b\r\n".to_owned()),
        (0..400_usize).prop_map(fake),
        (0..400_usize).prop_map(|length| format!("Content-Length: {length}\r\n\r\n")),
        (0..400_usize)
            .prop_map(|length| format!("GET x HTTP/1.1\r\nContent-Length: {length}\r\n\r\n")),
        Just("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned()),
    ];
    text.prop_recursive(4, 16, 4, |inner| {
        let parts = prop::collection::vec(inner, 0..4).prop_map(|parts| parts.concat());
        let method = prop::sample::select(vec!["GET /", "POST /", "POST x"]);
        prop_oneof![
            2 => (method.clone(), parts.clone(), 0..24_usize).prop_map(|(method, body, spelling)| {
                format!("{method} HTTP/1.1\r\n{}\r\n{body}", length_line(body.len(), spelling))
            }),
            2 => (method, parts.clone(), parts.clone(), 0..4_usize).prop_map(|(method, one, two, kind)| {
                let line = ["", ";a=b", " ", ";\"a\r\""][kind];
                let chunk = |data: &str| if data.is_empty() {
                    String::new()
                } else {
                    format!("{:x}{line}\r\n{data}\r\n", data.len())
                };
                let trailer = ["", "Content-Length: 30\r\n", "X: y\r\n", ""][kind];
                format!(
                    "{method} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{}{}0\r\n{trailer}\r\n",
                    chunk(&one), chunk(&two)
                )
            }),
            1 => parts,
        ]
    })
}

proptest! {
    #![proptest_config(cases(4_000))]

    /// Whatever a server reads of a stream in order, no query of it has a listed token.
    #[test]
    fn no_server_reads_a_listed_token(
        streams in prop::collection::vec(messages(), 0..4),
        end in prop::sample::select(vec!["", "aaaa", END, "a b?c=d&", "\nCookie: a=", "\nAuthorization: Basic ab "]),
        spelling in 0..24_usize,
        servers in prop::collection::vec(server(), 8),
        sizes in prop::collection::vec(1..90_usize, 1..20),
    ) {
        let listing = Listing::new().unwrap();
        let token = Token::Opaque.text();
        let last = format!("POST /c HTTP/1.1\r\n{}\r\n{end}", length_line(end.len(), spelling));
        let request = format!("GET /d?a=b&access_token={token} HTTP/1.1\r\nHost: h\r\n\r\n");
        let stream = (streams.concat() + &last + &request).into_bytes();
        let mut rest = &stream[..];
        let mut pieces = Vec::new();
        for size in sizes.iter().cycle() {
            let (piece, behind) = rest.split_at((*size).min(rest.len()));
            pieces.push(piece);
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        let fates = send(&listing, &pieces);
        let passed = fates.iter().all(|fate| matches!(fate, Fate::Passed(_)));
        for server in servers {
            prop_assert!(
                !passed || !server.reads_token(&stream, &token),
                "{server:?} of {:?}", String::from_utf8_lossy(&stream)
            );
        }
    }
}
