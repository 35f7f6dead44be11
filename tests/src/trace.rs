//! What an attacker, a lossy path or an honest client sends, played before a model of the receiver.

use arbitrary::{Arbitrary, Result, Unstructured};
use tokenblock_ebpf::{digest::TokenDigest, inspect, rules::Rules, scan::Scan, verdict::Counter};

use crate::{
    bpf::{KEY, rules},
    engine::Engine,
    fixtures::{Token, digests},
    origin::take_request,
    receiver::Receiver,
};

const MILLISECOND: u64 = 1_000_000;
/// The clock at the first act, in nanoseconds.
pub const START: u64 = 1000 * MILLISECOND;
/// Longest delayed acknowledgment of Linux (`TCP_DELACK_MAX`), in milliseconds.
const DELAYED: u64 = 200;
/// Longest piece that an arbitrary act sends.
const LONGEST: usize = 60;

/// Bytes after which the bodies of [`trusted_body`] are trusted.
pub const TRUST_AFTER: u32 = 400;
/// Length of a body that is trusted for some of it.
pub const TRUSTED_BODY: usize = 68_000;

/// Bytes of [`Streams::in_body`] behind its head that are plain text.
const PLAIN_BODY: usize = 2000;

/// How a body may end: within a word, a target, a query, a header's name or value, a line, or with it.
const ENDS: [&str; 11] = [
    "",
    "a",
    "\na b",
    "\na ",
    "\na ?b",
    "\na /b?access_token=c",
    "\nAuthoriz",
    "\nAuthorization: d",
    "\nCookie: session=e",
    "\r",
    "\r\n",
];

/// One thing that happens to a connection.
#[derive(Clone, Debug)]
pub enum Act {
    /// The bytes `from..from + len` of a stream are sent.
    Send {
        /// Offset of the first.
        from: usize,
        /// How many.
        len: usize,
        /// Of which of the streams.
        variant: usize,
        /// The receiver does not get it, or ignores it.
        decoy: bool,
    },
    /// The next bytes that the receiver awaits are sent.
    Continue {
        /// How many.
        len: usize,
        /// Of which of the streams.
        variant: usize,
        /// As for `Send`.
        decoy: bool,
    },
    /// The receiver's acknowledgment is seen.
    Ack,
    /// Time passes.
    Wait {
        /// How much.
        milliseconds: u64,
    },
}

impl Arbitrary<'_> for Act {
    fn arbitrary(bytes: &mut Unstructured<'_>) -> Result<Self> {
        let kind = bytes.int_in_range(0..=17)?;
        let len = bytes.int_in_range(1..=LONGEST)?;
        let variant = match bytes.int_in_range(0..=8)? {
            0..=5 => 0,
            6 | 7 => 1,
            _ => 2,
        };
        let decoy = bytes.ratio(1_u8, 5)?;
        Ok(match kind {
            0..=3 => Self::Send {
                from: bytes.int_in_range(0..=1023)?,
                len,
                variant,
                decoy,
            },
            4..=11 => Self::Continue {
                len,
                variant,
                decoy,
            },
            12..=15 => Self::Ack,
            _ => Self::Wait {
                milliseconds: bytes.int_in_range(0..=400)?,
            },
        })
    }
}

/// What stands between sender and receiver.
pub trait Inspector {
    /// The receiver accepted the connection, and awaits the byte of this sequence number.
    fn accept(&mut self, ack: u32);

    /// The receiver acknowledges all before `ack`, and echoes this timestamp (RFC 7323 section 3); 0: none.
    fn settle(&mut self, ack: u32, echo: u32);

    /// A segment with this timestamp (0: none) comes at `now`, in nanoseconds: by which way it leaves the programs.
    fn segment(&mut self, start: u32, bytes: &[u8], stamp: u32, now: u64) -> Counter;
}

impl Inspector for Engine<'_> {
    fn accept(&mut self, ack: u32) {
        Engine::accept(self, ack);
    }

    fn settle(&mut self, ack: u32, echo: u32) {
        Engine::settle_stamped(self, ack, echo);
    }

    fn segment(&mut self, start: u32, bytes: &[u8], stamp: u32, now: u64) -> Counter {
        Engine::segment_stamped(self, start, bytes, stamp, now).counter()
    }
}

/// Whether a segment that leaves by this way reaches the receiver.
#[must_use]
pub fn reaches(way: Counter) -> bool {
    matches!(
        way,
        Counter::Clean | Counter::Settled | Counter::Trusted | Counter::Copied
    )
}

/// The rules and the denylist of the fixtures.
pub struct Listing {
    /// The rules.
    pub rules: Rules,
    listed: Vec<TokenDigest>,
}

impl Listing {
    /// Those of the fixtures.
    ///
    /// # Errors
    /// Where the locations can't be.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            rules: rules()?,
            listed: digests(&KEY)
                .into_iter()
                .map(|(digest, _)| digest)
                .collect(),
        })
    }

    /// Whether a digest is listed.
    #[must_use]
    pub fn has(&self, digest: &TokenDigest) -> bool {
        self.listed.contains(digest)
    }
}

/// Streams of one length that may be sent in each other's place, and what none of them may bring to an application.
#[derive(Clone, Debug)]
pub struct Streams {
    /// The first bears a listed token.
    pub variants: [Vec<u8>; 3],
    by_lines: bool,
}

impl Streams {
    /// A request with a body, and one with a listed token behind it; the same without; the same shifted by a byte.
    #[must_use]
    pub fn by_lines(body: usize) -> Self {
        let token = Token::Opaque.text();
        let filler = "lorem ipsum dolor sit amet\r\n".repeat(body / 28);
        let request = |token: &str| {
            format!(
                "POST /a?x=1 HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{filler}GET /b?access_token=x HTTP/1.1\r\n\
                 Cookie: a=b; session=y\r\nAuthorization: Bearer {token}\r\n\r\nGET / HTTP/1.1\r\n\r\n",
                filler.len()
            )
            .into_bytes()
        };
        let evil = request(&token);
        let clean = request(&token.chars().rev().collect::<String>());
        let mut shifted = evil.clone();
        shifted.rotate_right(1);
        Self {
            variants: [evil, clean, shifted],
            by_lines: true,
        }
    }

    /// A request with a long body, of which some lines are like those that bear a listed token, from [`Streams::lines_at`] on;
    /// the same with a letter of each name changed; the same with that in the names' middle, and the lines indented.
    #[must_use]
    pub fn in_body() -> Self {
        Self::inside("Content-Length: 100000\r\n\r\n")
    }

    /// The same in a chunk.
    #[must_use]
    pub fn in_chunk() -> Self {
        Self::inside("Transfer-Encoding: chunked\r\n\r\n186a0\r\n")
    }

    fn inside(framing: &str) -> Self {
        let token = Token::Opaque.text();
        let text = |len: usize| "lorem ipsum dolor sit amet\r\n".repeat(len / 28);
        let request = |header: &str, query: &str, cookie: &str, before: &str| {
            let body = format!(
                "{}{before}{header}: {token}\r\nand more of it\r\nsee /b?{query}={token} there\r\n\
                 {before}Cookie: a=b; {cookie}={token}\r\nand so on\r\n{}",
                text(PLAIN_BODY),
                text(420)
            );
            format!("POST /a HTTP/1.1\r\nHost: h\r\n{framing}{body}").into_bytes()
        };
        Self {
            variants: [
                request("Authorization", "access_token", "session", ""),
                request("Buthorization", "bccess_token", "tession", ""),
                request("Authorixation", "access_tolen", "sessiom", "x"),
            ],
            by_lines: true,
        }
    }

    /// Where the lines of [`Streams::in_body`] begin.
    #[must_use]
    pub fn lines_at(&self) -> usize {
        let text = self.variants[0].windows(5).position(|at| at == b"lorem");
        text.map_or(0, |text| text + PLAIN_BODY / 28 * 28)
    }

    /// A request whose body ends within a line, behind which another bears a listed token; the same with a body of
    /// another length; the same without a declared length.
    #[must_use]
    pub fn by_framing(body: usize) -> Self {
        Self::with_body("a b c ", body)
    }

    /// The same with a body that can't be taken for a head, wherever it is cut.
    #[must_use]
    pub fn overtaken(body: usize) -> Self {
        Self::with_body("a \x01 c ", body)
    }

    fn with_body(words: &str, body: usize) -> Self {
        let token = Token::Opaque.text();
        let mut filler = words.repeat(body / words.len());
        filler.push_str(ENDS.get(body % ENDS.len()).copied().unwrap_or_default());
        let request = |name: &str, length: usize| {
            format!(
                "POST /a HTTP/1.1\r\nHost: h\r\n{name}: {length:06}\r\nX: y\r\n\r\n{filler}\
                 GET /b?access_token={token} HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\n\r\n"
            )
            .into_bytes()
        };
        Self {
            variants: [
                request("Content-Length", filler.len()),
                request("Content-Length", filler.len() + 30),
                request("Xontent-Length", filler.len()),
            ],
            by_lines: false,
        }
    }

    /// A head with a listed token in its target, its lines and its cookie, in front of each of which stands what no honest head
    /// has; the same without; the same shifted by a byte. Or, `framed`, with a length.
    #[must_use]
    pub fn in_odd_head(framed: bool) -> Self {
        let token = Token::Opaque.text();
        let length = if framed { "Content-Length: 60\r\n" } else { "" };
        let request = |token: &str| {
            format!(
                "POST /a?x=\x01&access_token={token} HTTP/1.1\r\n{length}no field\r\n\x01: b\r\nAuthorization: {token}\r\n\
                 no field\r\nX: \x01\r\nCookie: a=\x01; session={token}\r\n\r\nno field\r\n\x01 \
                 GET /b HTTP/1.1\r\nAuthorization: \r\n {token}\r\n\r\n"
            )
            .into_bytes()
        };
        let evil = request(&token);
        let clean = request(&token.chars().rev().collect::<String>());
        let mut shifted = evil.clone();
        shifted.rotate_right(1);
        Self {
            variants: [evil, clean, shifted],
            by_lines: true,
        }
    }

    /// Chunks that hold the head of a message that is none, behind them one whose body ends within a line, and a request that
    /// bears a listed token; the same without chunks; the same with another length in them.
    #[must_use]
    pub fn adrift(body: usize) -> Self {
        let token = Token::Opaque.text();
        let mut end = "a b c ".repeat(body / 6);
        end.push_str(ENDS.get(body % ENDS.len()).copied().unwrap_or_default());
        let length = end.len();
        let request = |name: &str, hidden: usize| {
            let chunk = format!("GET /e HTTP/1.1\r\nContent-Length: {hidden:06}\r\n\r\n");
            format!(
                "POST /a HTTP/1.1\r\nHost: h\r\n{name}: chunked\r\n\r\n{:x}\r\n{chunk}\r\n0\r\n\r\n\
                 POST /c HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{end}\
                 GET /b?access_token={token} HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\n\r\n",
                chunk.len()
            )
            .into_bytes()
        };
        Self {
            variants: [
                request("Transfer-Encoding", length + 1000),
                request("Xransfer-Encoding", length + 1000),
                request("Transfer-Encoding", 20),
            ],
            by_lines: false,
        }
    }

    /// Whether an application that reads this stream gets a listed token.
    #[must_use]
    pub fn bring_token(&self, listing: &Listing, stream: &[u8]) -> bool {
        if self.by_lines {
            let mut scan = Scan::new(&listing.rules);
            let listed = &mut |_, digest: &TokenDigest| listing.has(digest);
            return inspect::stream(&mut scan, &listing.rules, stream, listed).is_some();
        }
        let mut rest = stream;
        while let Some((request, length)) = take_request(rest) {
            let mut words = request.line.split(' ');
            let target = words.nth(1);
            if words.count() == 1
                && target.is_some_and(|target| target.contains(&Token::Opaque.text()))
            {
                return true;
            }
            rest = rest.get(length..).unwrap_or(&[]);
        }
        false
    }
}

/// What came of a trace.
#[derive(Clone, Debug, Default)]
pub struct Played {
    /// What the application read.
    pub stream: Vec<u8>,
    /// By which way each segment left.
    pub ways: Vec<Counter>,
}

/// Plays acts; `first` is the sequence number of the first byte.
pub fn play(inspector: &mut impl Inspector, streams: &Streams, acts: &[Act], first: u32) -> Played {
    let mut receiver = Receiver::default();
    let mut ways = Vec::new();
    let mut now = START;
    // The receiver waits no longer before it acknowledges what it has taken since.
    let mut settled_at = now;
    inspector.accept(first);
    for act in acts {
        now += MILLISECOND;
        if let Act::Wait { milliseconds } = act {
            now += milliseconds * MILLISECOND;
        }
        if matches!(act, Act::Ack) || now - settled_at >= DELAYED * MILLISECOND {
            inspector.settle(sequence(first, receiver.next()), 0);
            settled_at = now;
        }
        let (from, len, variant, decoy) = match *act {
            Act::Send {
                from,
                len,
                variant,
                decoy,
            } => (from, len, variant, decoy),
            Act::Continue {
                len,
                variant,
                decoy,
            } => (receiver.next(), len, variant, decoy),
            Act::Ack | Act::Wait { .. } => continue,
        };
        let bytes = streams.variants.get(variant).map_or(&[][..], Vec::as_slice);
        let from = from.min(bytes.len());
        let bytes = bytes.get(from..bytes.len().min(from + len)).unwrap_or(&[]);
        if bytes.is_empty() {
            continue;
        }
        let way = inspector.segment(sequence(first, from), bytes, 0, now);
        ways.push(way);
        if reaches(way) && !decoy {
            receiver.take(from, bytes);
        }
    }
    Played {
        stream: receiver.stream,
        ways,
    }
}

/// A declared body on a path that loses, all of it settled; two pieces that are passed from open states, and then copies of them,
/// the second one first. By which way each segment leaves.
pub fn copies_from_open_states(inspector: &mut impl Inspector) -> Vec<Counter> {
    const FIRST: u32 = 7;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\nsome text\n";
    let (gap, behind) = ("that was\n", "late on its way\n");
    let (open, one, two) = ("and on\nAuth", "or: me\nAuth", "or: it\nand on\n");
    let mut now = START;
    let mut ways = Vec::new();
    let mut send = |inspector: &mut _, at: usize, text: &str| {
        now += MILLISECOND;
        ways.push(Inspector::segment(
            inspector,
            sequence(FIRST, at),
            text.as_bytes(),
            0,
            now,
        ));
        at + text.len()
    };
    inspector.accept(FIRST);
    let at = send(inspector, 0, head);
    send(inspector, at + gap.len(), behind);
    let at = send(inspector, at, gap) + behind.len();
    let at = send(inspector, at, open);
    inspector.settle(sequence(FIRST, at), 0);
    let between = send(inspector, at, one);
    send(inspector, between, two);
    send(inspector, between, two);
    send(inspector, at, one);
    ways
}

/// The acts with what is sent from other places.
fn moved(acts: Vec<Act>, place: impl Fn(usize) -> usize) -> impl Iterator<Item = Act> {
    acts.into_iter().map(move |act| match act {
        Act::Send {
            from,
            len,
            variant,
            decoy,
        } => Act::Send {
            from: place(from),
            len,
            variant,
            decoy,
        },
        other @ (Act::Continue { .. } | Act::Ack | Act::Wait { .. }) => other,
    })
}

/// The acts where a long body ends, after all before was sent.
#[must_use]
pub fn behind_body(streams: &Streams, acts: Vec<Act>, from: usize) -> Vec<Act> {
    let skip = streams
        .variants
        .first()
        .map_or(0, Vec::len)
        .saturating_sub(900)
        + from % 400;
    let shifted = moved(acts, move |from| skip + from);
    let all = Act::Continue {
        len: skip,
        variant: 0,
        decoy: false,
    };
    [all, Act::Ack].into_iter().chain(shifted).collect()
}

/// A body that is long enough to be trusted: acts where its trust begins, and where it ends.
#[must_use]
pub fn trusted_body(streams: &Streams, begin: Vec<Act>, end: Vec<Act>, from: usize) -> Vec<Act> {
    let part = |len| {
        let send = Act::Continue {
            len,
            variant: 0,
            decoy: false,
        };
        [send, Act::Ack]
    };
    let earned = (0..10).flat_map(|_| part(150));
    let begin = moved(begin, |from| 1200 + from * 4);
    earned
        .chain(begin)
        .chain(behind_body(streams, end, from))
        .collect()
}

/// The sequence number at `offset` of a stream.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "sequence numbers wrap")]
pub fn sequence(first: u32, offset: usize) -> u32 {
    first.wrapping_add(offset as u32)
}
