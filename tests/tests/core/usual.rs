//! Lines that say nothing are taken at once, and mean what they mean to the units.

use proptest::prelude::*;
use tokenblock_ebpf::{
    digest::TokenDigest,
    filter::NoFilter,
    location::LocationId,
    rules::Rules,
    scan::{Scan, Source, Step, unread_value},
    sums::{SumKeys, Sums},
};
use tokenblock_tests::{scanned::rules, trace::Listing};

use crate::generate::{many_cases, sizes, stream};

/// Bytes of which each line is read by units.
struct ByUnits<'a>(Held<'a>);

impl Source for ByUnits<'_> {
    type Chunk<'a>
        = &'a [u8]
    where
        Self: 'a;

    fn chunk(&self, at: u32) -> &[u8] {
        self.0.chunk(at)
    }

    fn end(&self) -> u32 {
        self.0.end()
    }

    fn line_end(&self, from: u32, end: u32) -> u32 {
        self.0.line_end(from, end)
    }

    fn whole_lines(&self, scan: &mut Scan, rules: &Rules) {
        if scan.is_closed() {
            scan.whole_line(rules, self);
        }
    }

    fn request_line(&self, _scan: &mut Scan, _rules: &Rules) {}

    fn find_part(&self, scan: &mut Scan, rules: &Rules) {
        scan.find_part(rules, self);
    }

    fn unread_value(&self, at: u32, rules: &Rules) -> Option<[u32; 2]> {
        unread_value(self, at, rules)
    }

    fn sums(&self, keys: &SumKeys, from: u32, len: u32) -> Sums {
        self.0.sums(keys, from, len)
    }

    fn part_sums(&self, keys: &SumKeys, from: u32, part: [u32; 2]) -> Option<Sums> {
        self.0.part_sums(keys, from, part)
    }
}

/// The first bytes of those that lie there, as the window of the programs holds them: what is behind them may be anything.
#[derive(Clone, Copy)]
struct Held<'a>(&'a [u8], u32);

impl Source for Held<'_> {
    type Chunk<'a>
        = &'a [u8]
    where
        Self: 'a;

    fn chunk(&self, at: u32) -> &[u8] {
        self.0.chunk(at)
    }

    fn end(&self) -> u32 {
        self.1
    }

    fn line_end(&self, from: u32, end: u32) -> u32 {
        self.0.line_end(from, end)
    }

    fn whole_lines(&self, scan: &mut Scan, rules: &Rules) {
        while scan.whole_line(rules, self) {}
        if scan.is_body_line() {
            while scan.body_line(rules, self) {}
        }
    }

    fn request_line(&self, scan: &mut Scan, rules: &Rules) {
        scan.request_line(rules, self);
    }

    fn find_part(&self, scan: &mut Scan, rules: &Rules) {
        scan.find_part(rules, self);
    }

    fn unread_value(&self, at: u32, rules: &Rules) -> Option<[u32; 2]> {
        unread_value(self, at, rules)
    }

    fn sums(&self, keys: &SumKeys, from: u32, len: u32) -> Sums {
        self.0.sums(keys, from, len)
    }

    fn part_sums(&self, keys: &SumKeys, from: u32, part: [u32; 2]) -> Option<Sums> {
        self.0.part_sums(keys, from, part)
    }
}

/// What a piece of a stream leaves behind: all that the flow engine asks for.
#[derive(Debug, PartialEq)]
struct Left {
    looked_up: Vec<(LocationId, TokenDigest)>,
    signature: u64,
    signs: [bool; 10],
    forks: (u32, u32),
    body: u64,
    framing: u64,
}

/// Reads a piece to its end: what was looked up.
fn look_up<S: Source + ?Sized>(
    scan: &mut Scan,
    rules: &Rules,
    piece: &S,
) -> Vec<(LocationId, TokenDigest)> {
    let mut looked_up = Vec::new();
    loop {
        match scan.step(rules, piece, &NoFilter) {
            Step::More => {}
            Step::Lookup(digest) => looked_up.push((scan.location(), digest)),
            Step::End => return looked_up,
        }
    }
}

fn read<S: Source + ?Sized>(scan: &mut Scan, rules: &Rules, piece: &S) -> Left {
    let looked_up = look_up(scan, rules, piece);
    let left = Left::of(scan, looked_up);
    scan.rebase();
    left
}

impl Left {
    fn of(scan: &Scan, looked_up: Vec<(LocationId, TokenDigest)>) -> Self {
        Self {
            looked_up,
            signature: scan.signature(),
            signs: [
                scan.saw_header(),
                scan.saw_blank(),
                scan.saw_word(),
                scan.saw_http2(),
                scan.began_plain(),
                scan.ended_headers(),
                scan.is_doubtful(),
                scan.is_odd(),
                scan.is_ambiguous(),
                scan.is_adrift(),
            ],
            forks: scan.forks(),
            body: scan.body_left(),
            framing: scan.framing.bytes(),
        }
    }
}

/// The head of a request with a long body.
const HEAD: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 4000\r\n\r\n";

/// Lines of headers and of text, of which many are usual, with what the generator makes between them.
fn lines() -> impl Strategy<Value = Vec<u8>> {
    /// What may follow a word.
    const ENDS: &[&str] = &[
        "",
        ":",
        " b",
        ":session=abcdefghijklmno",
        " /?session=abcdefghijklmno",
        "\u{e9} b /c",
        "\u{e9}?session=abcdefghijklmno d",
    ];
    const LINES: &[&str] = &[
        "Host: api.example.org\r\n",
        "Accept: */*\r\n",
        "X: \t \r\n",
        "Accept-Encoding: gzip,\r\n\tdeflate\r\n",
        "Accept-Language:en\n",
        "User-Agent: a\rb: c\r\n",
        "Content-Length: 70\r\n",
        "Content-Length: 7\r\n",
        "Transfer-Encoding: chunked\r\n",
        "content_length: 9\r\n",
        "Upgrade-Insecure-Requests: 1\r\n",
        "X-Name-\u{e9}: 1\r\n",
        "Cookie: a=b\r\n",
        "GET /?a=b HTTP/1.1\r\n",
        "GET /items?page=2&sort=asc;a=b HTTP/1.1\r\n",
        "POST /items/a-long-path/with/parts HTTP/1.1\r\n",
        "GET /?access_token=abcdefghijklmno&page=2 HTTP/1.1\r\n",
        "GET /?a=b&c&=d&e%20=f&g[h]=i&j+=k HTTP/1.1\r\n",
        "GET /?a=b& HTTP/1.1\r\n",
        "GET /? HTTP/1.0\r\n",
        "GET / HTTP/1.1\n",
        "GET  /  HTTP/1.1\r\n",
        "GET /a b HTTP/1.1\r\n",
        "GET /a?b=c d HTTP/1.1\r\n",
        "GET /a?b=c\r\n",
        "HTTP /a HTTP/1.1\r\n",
        "PRI /a HTTP/1.1\r\n",
        "G\u{e9}T /a HTTP/1.1\r\n",
        "GET: /a HTTP/1.1\r\n",
        "GET /a HTTP/1.1\r\r\n",
        "PRI * HTTP/2.0\r\n",
        "\r\n",
        "\r\r\n",
        ": x\r\n",
        "a b: c\r\n",
        "a line of text\r\n",
        "another, longer one with a question?\n",
        "which ends\rin a bare CR\r",
        "word\n",
        "  indented: x\n",
        "\t\x01 indented\r",
        "        far indented\n",
        "held here\n",
        "a * b\n",
        "say HTTP/1.1 GET\n",
        "GET HTTP/1.1\n",
        "a b HTTP/1.1\r\n",
        "a /b c\n",
        "a http://b c\n",
        "a ?session=b c\n",
        "a b?session=c\n",
        "a  b c\n",
        " PRI x\n",
        "pri: x\n",
        "HTTP/1.1 200 OK\r\n",
        "content\u{ad}length: 9\n",
        "content-length 9\n",
        "transfer-encoding\n",
        "a\u{e9} b\n",
        "a b\u{e9}\n",
        "a\u{e9}/b c d\n",
        "a\u{e9}b /c d\n",
        "a\u{e9}b c d\r\n",
        "content-length\u{e9} b c\n",
        "\u{e9}\u{ad}a\u{e9} http b\n",
        "a http b?session=c\n",
        "a some/path HTTP/1.1\n",
        "a b/c\r",
        "considerably longer words, withoutconsideration of anybody\n",
        "a considerationwithouttheslightestbreak b\n",
        "a considerationofthirtytwobytesinall?access_token=abcdefghijklmno\n",
        "a b?c d\n",
        "a b?c session=abcdefghijklmno\n",
        "a b?session\t=abcdefghijklmno\n",
        "a b?c\rsession=abcdefghijklmno\n",
        "a b?access_token%3Dabcdefghijklmno\n",
        "a b?c&access_token=abcdefghijklmno\n",
        "a b?c;session=abcdefghijklmno d\n",
        "a b??access_token=abcdefghijklmno\n",
        "a b?[session]=abcdefghijklmno\n",
        "a b?considerationwithouttheslightestbreak&session=abcdefghijklmno\n",
        "a b?considerationwithouttheslightestbreak c\n",
        "a b? ?session=abcdefghijklmno\n",
        "a b?c HTTP/1.1\n",
        "a b c?session=abcdefghijklmno\n",
        "a b  c\n",
        "a b /c\n",
        "a\u{e9}b?c d\n",
        "a\u{e9}b?c d?session=abcdefghijklmno\n",
        "a\u{e9}b c?access_token=abcdefghijklmno\n",
        "a\u{e9}b?session=abcdefghijklmno c\n",
        "a\u{e9}b  c\n",
        "a\u{e9}b\n/c d\n",
        "a\u{e9}b c HTTP/1.1\n",
        "a\u{e9}b HTTP/1.1\n",
        "a b?c\n?session=abcdefghijklmno\n",
        "a b\n/session\n",
        "                \n",
        "                            GET /?session=abcdefghijklmno d\n",
        "                            cookie: session=abcdefghijklmno\n",
        "\t\t\t\t\t\t\t\t\t\t\t\r\n",
        "            a b\rsession: c\n",
        "Content-Length: 400\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 4000\r\n\r\n",
    ];
    let line = proptest::sample::select(LINES).prop_map(|line| line.as_bytes().to_vec());
    let long = (1_usize..1200).prop_map(|len| format!("Via: {}\r\n", "x".repeat(len)).into_bytes());
    // A long word, perhaps far to the right.
    let word = (
        0_usize..40,
        1_usize..160,
        any::<bool>(),
        proptest::sample::select(ENDS),
    );
    let word = word.prop_map(|(indent, len, front, end)| {
        let word = if front {
            "\u{e9}".repeat(len / 2)
        } else {
            "x".repeat(len)
        };
        format!("{}{word}{end}\n", " ".repeat(indent)).into_bytes()
    });
    let odd = proptest::sample::select(&b"\xe9\xa0ab/?: \t\x01=\n\r"[..]);
    let odd = prop::collection::vec(odd, 0..30);
    let any = prop_oneof![8 => line, 1 => long, 2 => word, 1 => odd, 1 => any::<Vec<u8>>()];
    prop::collection::vec(any, 0..24).prop_map(|lines| lines.concat())
}

proptest! {
    #![proptest_config(many_cases())]

    #[test]
    fn they_leave_what_units_leave(
        (config, bytes) in stream(),
        lines in lines(),
        sizes in sizes(),
        restarts: bool,
        in_body: bool,
    ) {
        let rules = rules(&config).unwrap();
        let head: &[u8] = if in_body { HEAD } else { b"" };
        let bytes = [head, &lines, &bytes].concat();
        let (mut usual, mut units) = (Scan::new(&rules), Scan::new(&rules));
        let mut rest = &bytes[..];
        for size in sizes.iter().cycle() {
            let mut size = rest.len().min(*size);
            if restarts {
                // To the end of a line, where a message may begin.
                let line = rest[size..].iter().position(|byte| *byte == b'\n');
                size = line.map_or(rest.len(), |line| size + line + 1);
            }
            let behind = &rest[size..];
            let held = Held(rest, u32::try_from(size).unwrap());
            prop_assert_eq!(
                read(&mut usual, &rules, &held),
                read(&mut units, &rules, &ByUnits(held)),
                "{:?} in pieces of {:?}", bytes.escape_ascii().to_string(), sizes
            );
            if restarts && usual.is_plain_line() {
                // As the flow engine does it from one segment to the next.
                for scan in [&mut usual, &mut units] {
                    let (framing, body) = (scan.framing, scan.body_left());
                    scan.restart();
                    scan.continue_message(0, framing, body);
                }
            }
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
    }
}

proptest! {
    #![proptest_config(many_cases())]

    /// Where a header block is known, the scanner is set as reading it would have left it.
    #[test]
    fn a_known_block_is_left_as_a_read_one(lines in lines()) {
        let listing = Listing::new().unwrap();
        let rules = &listing.rules;
        let line = &b"GET /items HTTP/1.1\r\n"[..];
        // As far as a message without a body reaches.
        let bytes = [line, &lines, b"\r\n"].concat();
        let end = bytes.windows(4).position(|end| end == b"\r\n\r\n");
        let request = &bytes[..end.map_or(bytes.len(), |end| end + 4)];
        let mut reads = Scan::new(rules);
        let looked_up = look_up(&mut reads, rules, request);
        prop_assume!(reads.ended_block());
        let mut knows = Scan::new(rules);
        look_up(&mut knows, rules, line);
        prop_assert!(knows.begins_block());
        knows.end_block(u32::try_from(request.len()).unwrap());
        prop_assert!(knows.ended_block());
        let left = |scan| Left::of(scan, looked_up.clone());
        prop_assert_eq!(left(&knows), left(&reads));
        prop_assert_eq!(knows.pos, reads.pos);
    }
}

#[test]
fn a_usual_request_takes_one_unit_up_to_its_first_location() {
    let listing = Listing::new().unwrap();
    let rules = &listing.rules;
    for (request, units) in [
        ("GET / HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n", 2),
        ("GET /items?page=2&sort=asc HTTP/1.1\r\nHost: a\r\n", 1),
    ] {
        let mut scan = Scan::new(rules);
        let steps = (0..)
            .take_while(|_| !matches!(scan.step(rules, request.as_bytes(), &NoFilter), Step::End));
        assert_eq!(steps.count(), units, "{request:?}");
    }
}

#[test]
fn lines_of_a_body_take_one_unit_up_to_a_value() {
    // The first line is taken by units.
    const FEW: usize = 25;
    let listing = Listing::new().unwrap();
    let rules = &listing.rules;
    for (line, few) in [
        ("a word of text\n", true),
        ("is that so?then it is\n", true),
        ("                    far to the right\n", true),
        ("        \n", true),
        (
            "bm90aGluZyBidXQgYSBsb25nIHdvcmQgYXMgdGhleSBhcmUgaW4gYmFzZTY0LCBhbmQgbm8gZW5k\r\n",
            true,
        ),
        ("is that?so = it is\n", true),
        ("is that?so&then;[x]%3d it\n", true),
        ("a\u{e9}b?c d?e f\n", true),
        ("a\u{e9}b\n", true),
        ("\u{e9}\u{e9} a b c\r", true),
        ("is that?so=\n", false),
    ] {
        let mut scan = Scan::new(rules);
        look_up(&mut scan, rules, &[HEAD, b"a\n"].concat()[..]);
        scan.rebase();
        let body = line.repeat(30);
        let steps = (0..)
            .take_while(|_| !matches!(scan.step(rules, body.as_bytes(), &NoFilter), Step::End));
        let steps = steps.count();
        assert_eq!(steps < FEW, few, "{line:?} takes {steps}");
    }
}
