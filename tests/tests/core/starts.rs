//! A message begins where a declared body ends, in the middle of whatever is being read there: also where that place is come
//! back to, filled up to, or caught up with.

use tokenblock_ebpf::flow::Place;
use tokenblock_tests::{
    engine::{Engine, Fate},
    fixtures::Token,
    trace::{Listing, START, sequence},
};

const FIRST: u32 = u32::MAX - 70;
/// Longer than a receiver holds an acknowledgment back.
const LONG: u64 = 300_000_000;

/// How a body may end, so that what follows would not be read as the beginning of a message for that alone.
const ENDS: [&str; 8] = [
    "\na /b?c",
    "\nGET /b?c=d",
    "\na ?b",
    "\na /b?access_token=c",
    "\na /b?acc",
    "\nAuthorization: d",
    "\nAuthorization: Basic d",
    "\nCookie: session=e",
];

/// A connection, with what was sent of it.
struct Talk<'a> {
    engine: Engine<'a>,
    now: u64,
    end: usize,
}

impl Talk<'_> {
    fn send(&mut self, at: usize, bytes: impl AsRef<[u8]>) -> Fate {
        let bytes = bytes.as_ref();
        self.now += 1_000_000;
        self.end = self.end.max(at + bytes.len());
        self.engine.segment(sequence(FIRST, at), bytes, self.now)
    }

    /// What follows all before.
    fn next(&mut self, bytes: impl AsRef<[u8]>) {
        assert_eq!(self.send(self.end, bytes), Fate::Passed(Place::Next));
    }

    /// Whether all of these pieces pass, one behind the other from `at` on.
    fn passes(&mut self, mut at: usize, pieces: [&str; 2]) -> bool {
        pieces
            .iter()
            .filter(|piece| !piece.is_empty())
            .all(|piece| {
                let fate = self.send(at, piece);
                at += piece.len();
                matches!(fate, Fate::Passed(_))
            })
    }

    fn settle(&mut self, end: usize) {
        self.engine.settle(sequence(FIRST, end));
    }
}

/// Runs on a new connection, for each end of a body; it gets a request with a listed token besides, in two pieces.
fn each_end(run: impl Fn(&mut Talk<'_>, &str, [&str; 2])) {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let token = Token::Opaque.text();
    let request = format!("GET /b?access_token={token} HTTP/1.1\r\nHost: h\r\n\r\n");
    for end in ENDS {
        for cut in 1..request.len() {
            let mut engine = Engine::new(&listing.rules, &listed);
            engine.accept(FIRST);
            let mut talk = Talk {
                engine,
                now: START,
                end: 0,
            };
            run(&mut talk, end, request.split_at(cut).into());
        }
    }
}

fn head(name: &str, length: usize) -> String {
    format!("POST /a HTTP/1.1\r\nHost: h\r\n{name}: {length:06}\r\n\r\n")
}

/// What came first, and was never taken, said that no message ends there; so what follows was not read as one.
#[test]
fn a_recovery_does_not_begin_a_message_behind_it() {
    each_end(|talk, end, request| {
        let [decoy, other] =
            ["Xontent-Length", "Content-Length"].map(|name| head(name, end.len()) + end);
        talk.next(&decoy);
        let followed = talk.passes(talk.end, request);
        talk.now += LONG;
        let recovered = talk.passes(0, [&other, ""]);
        assert!(!followed || !recovered, "{end:?}, {request:?}");
    });
    // Where it was read so, the same passes again.
    each_end(|talk, end, _| {
        let head = head("Content-Length", end.len()) + end;
        talk.next(&head);
        talk.next("GET / HTTP/1.1\r\n\r\n");
        talk.now += LONG;
        assert!(talk.passes(0, [&head, ""]), "{end:?}");
    });
}

/// The receiver held what was passed before a recovery, up to the end of a body.
#[test]
fn a_message_begins_where_a_recovery_was_caught_up_with() {
    for recovered in [false, true] {
        each_end(|talk, end, request| {
            let line = "a line of text";
            talk.next(head("Content-Length", line.len() + end.len()));
            let at = talk.end;
            talk.settle(at);
            talk.next(line);
            talk.next(end);
            if recovered {
                talk.now += LONG;
                assert_eq!(talk.send(at, line), Fate::Passed(Place::Recovery));
            }
            talk.settle(talk.end);
            assert!(
                !talk.passes(talk.end, request),
                "{recovered}, {end:?}, {request:?}"
            );
        });
    }
}

/// The end of the body is taken, and the message behind it lost: it is another that comes again.
#[test]
fn a_message_begins_where_a_recovery_does() {
    each_end(|talk, end, request| {
        talk.next(head("Content-Length", end.len()));
        talk.next(end);
        let at = talk.end;
        talk.next("GET / HTTP/1.1\r\n\r\n");
        talk.settle(at);
        talk.now += LONG;
        assert!(!talk.passes(at, request), "{end:?}, {request:?}");
    });
}

/// The body ends at the left end of a gap. It had a line that looks like a header's, so that it is the lines behind that which
/// let data ahead of the gap pass.
#[test]
fn a_message_begins_in_what_fills_a_gap() {
    let text = "and so it goes on, line by line\n".repeat(600);
    let line = "Cookie: a=b\n";
    each_end(|talk, end, request| {
        talk.next(head("Content-Length", line.len() + text.len() + end.len()));
        for piece in [line, &text] {
            talk.next(piece);
            talk.settle(talk.end);
        }
        talk.next(end);
        let at = talk.end;
        let behind = at + request.concat().len();
        talk.send(behind, "more of it\n");
        assert!(!talk.passes(at, request), "{end:?}, {request:?}");
    });
}

/// What fills a gap in part holds a whole message.
#[test]
fn a_message_begins_behind_one_that_fills_a_gap() {
    let text = "and so it goes on, line by line\n".repeat(600);
    each_end(|talk, end, request| {
        talk.next("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        talk.settle(talk.end);
        talk.next(&text);
        talk.settle(talk.end);
        let at = talk.end;
        let message = head("Content-Length", end.len()) + end;
        let behind = at + message.len() + request.concat().len();
        assert_eq!(
            talk.send(behind, "more of it\n"),
            Fate::Passed(Place::Ahead)
        );
        let passed = talk.passes(at, [&message, ""]) && talk.passes(at + message.len(), request);
        assert!(!passed, "{end:?}, {request:?}");
    });
}
