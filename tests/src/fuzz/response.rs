//! What servers answer: a 403 never stands inside of a response.

use arbitrary::{Arbitrary, Result, Unstructured};
use tokenblock_ebpf::{
    response::{HEAD, Head, Said, USUAL_HEAD},
    verdict::Counter,
};

use super::LISTING;
use crate::{
    engine::{Engine, said_within},
    fixtures::OPAQUE,
    trace::{START, sequence},
};

/// Most things that happen in a case.
const ACTS: usize = 120;
/// Milliseconds between two of them, in nanoseconds.
const STEP: u64 = 1_000_000;
/// Where the server's bytes begin.
const SERVER: u32 = u32::MAX - 300;

/// A response, as a server may frame it.
#[derive(Clone, Copy, Debug)]
enum Framed {
    /// By its length.
    Length(u8),
    /// In chunks, with a line of an extension or not.
    Chunks(u8, bool),
    /// By the end of the connection.
    Close,
    /// To `HEAD`: a length, and no body.
    Head(u8),
    /// Without a body, by its status.
    Empty,
    /// An interim one, and another behind it.
    Interim(u8),
}

impl Arbitrary<'_> for Framed {
    fn arbitrary(bytes: &mut Unstructured<'_>) -> Result<Self> {
        Ok(match bytes.int_in_range(0..=7)? {
            0 | 1 => Self::Length(bytes.arbitrary()?),
            2 | 3 => Self::Chunks(bytes.arbitrary()?, bytes.arbitrary()?),
            4 => Self::Head(bytes.arbitrary()?),
            5 => Self::Empty,
            6 => Self::Interim(bytes.arbitrary()?),
            _ => Self::Close,
        })
    }
}

impl Framed {
    /// What the server sends, and whether that is all of it.
    fn bytes(self) -> (Vec<u8>, bool) {
        let long = |name: &str, len: u8| {
            let body = "b".repeat(len.into());
            format!("HTTP/1.1 200 OK\r\n{name}: {len}\r\n\r\n{body}").into_bytes()
        };
        match self {
            Self::Length(len) => (long("Content-Length", len), true),
            Self::Chunks(len, extended) => {
                let len = len.max(1);
                let extension = if extended { ";a=b" } else { "" };
                let body = "c".repeat(len.into());
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n";
                let text = format!("{head}\r\n{len:x}{extension}\r\n{body}\r\n0\r\n\r\n");
                (text.into_bytes(), true)
            }
            Self::Close => (long("X", 40), false),
            Self::Head(len) => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n");
                (head.into_bytes(), true)
            }
            Self::Empty => (b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(), true),
            Self::Interim(len) => {
                let head = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".to_vec();
                ([head, long("Content-Length", len)].concat(), true)
            }
        }
    }
}

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// The client asks, to be answered so.
    Ask(Framed),
    /// The server sends so many bytes.
    Send(u8),
    /// It sends its last ones again.
    Again,
    /// The client has heard so many bytes.
    Hear(u8),
    /// It sends a listed token, on a connection that is another from here on.
    Sin,
}

impl Arbitrary<'_> for Act {
    fn arbitrary(bytes: &mut Unstructured<'_>) -> Result<Self> {
        Ok(match bytes.int_in_range(0..=15)? {
            0..=3 => Self::Ask(bytes.arbitrary()?),
            4..=8 => Self::Send(bytes.arbitrary()?),
            9 => Self::Again,
            10..=14 => Self::Hear(bytes.arbitrary()?),
            _ => Self::Sin,
        })
    }
}

/// A conversation, and what is read of its heads.
///
/// # Panics
/// Where a 403 would be sent inside of a response.
pub fn response(bytes: &[u8]) {
    head(bytes);
    // Bytes that are used up give zeros, and no error.
    converse(&mut Unstructured::new(bytes)).unwrap_or_default();
}

/// Where its first bytes tell the length of a response, more of them tell no other.
fn head(bytes: &[u8]) {
    let said = |most| said_within(&mut Head::default(), bytes, most);
    let first = said(USUAL_HEAD);
    if !matches!(first, Said::Unknown) {
        assert_eq!(first, said(HEAD));
    }
}

/// The server's end of a connection.
#[derive(Default)]
struct Server {
    /// What it has to send, and where in that each response ends; the last may have no end.
    stream: Vec<u8>,
    ends: Vec<usize>,
    sent: usize,
    last: usize,
    closes: bool,
    to_head: bool,
}

impl Server {
    /// Whether it is asked so in this place. Whose answer to `HEAD` has others behind it that were asked for before, of just
    /// the length that it says, can't be told from one with a body.
    fn takes(&self, framed: Framed) -> bool {
        let pipelined = self.sent < self.stream.len();
        !pipelined || !self.to_head && !matches!(framed, Framed::Head(_))
    }

    fn is_between(&self) -> bool {
        self.sent == 0 || self.ends.contains(&self.sent)
    }
}

fn converse(bytes: &mut Unstructured<'_>) -> Result<()> {
    const REQUEST: &[u8] = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
    let listed = |digest: &_| LISTING.has(digest);
    let mut engine = Engine::new(&LISTING.rules, &listed);
    let mut server = Server::default();
    let (first, mut asked, mut heard, mut now): (u32, usize, usize, u64) =
        (bytes.arbitrary()?, 0, 0, START);
    engine.accept(first);
    let mut acts = Vec::new();
    for _ in 0..ACTS {
        if bytes.is_empty() {
            break;
        }
        now += STEP;
        let ack = sequence(first, asked);
        let act = bytes.arbitrary()?;
        acts.push(act);
        match act {
            Act::Ask(framed) if !server.closes && server.takes(framed) => {
                engine.segment(ack, REQUEST, now);
                asked += REQUEST.len();
                let (text, ends) = framed.bytes();
                server.stream.extend(text);
                if ends {
                    server.ends.push(server.stream.len());
                }
                server.closes = !ends;
                server.to_head = matches!(framed, Framed::Head(_));
            }
            Act::Ask(_) => {}
            Act::Send(count) => {
                let end = server.stream.len().min(server.sent + usize::from(count));
                let segment = server.stream.get(server.sent..end).unwrap_or_default();
                engine.respond(sequence(SERVER, server.sent), segment, ack);
                (server.last, server.sent) = (server.sent, end);
            }
            Act::Again => {
                let segment = server.stream.get(server.last..server.sent);
                let segment = segment.unwrap_or_default();
                engine.respond(sequence(SERVER, server.last), segment, ack);
            }
            Act::Hear(count) => heard = server.sent.min(heard + usize::from(count)),
            Act::Sin => {
                let forbids = engine.owes_nothing(sequence(SERVER, heard));
                assert!(
                    !forbids || server.is_between() && (heard == server.sent || server.sent == 0),
                    "403 inside a response: {} bytes sent, {heard} heard, {:?}\n{acts:?}",
                    server.sent,
                    String::from_utf8_lossy(&server.stream)
                );
                let request = format!("GET / HTTP/1.1\r\nAuthorization: {OPAQUE}\r\n\r\n");
                let fate = engine.segment(ack, request.as_bytes(), now);
                assert_eq!(fate.counter(), Counter::Blocked);
                break;
            }
        }
    }
    Ok(())
}
