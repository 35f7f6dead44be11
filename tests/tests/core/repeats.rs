//! What passed the flow engine and is missing at the receiver all the same: it is sent again, and nothing else comes in its
//! place.

use tokenblock_ebpf::{flow::Place, verdict::Counter};
use tokenblock_tests::{
    bodies::{Body, Framing},
    engine::{Engine, Fate},
    fixtures::Token,
    trace::{Listing, START, copies_from_open_states, sequence},
};

pub(crate) const FIRST: u32 = 7;

/// A connection on which a declared body of lines has begun.
pub(crate) struct Upload<'a> {
    pub(crate) engine: Engine<'a>,
    pub(crate) now: u64,
    /// Behind what was sent.
    pub(crate) end: usize,
}

impl<'a> Upload<'a> {
    fn whole(
        listing: &'a Listing,
        listed: &'a dyn Fn(&tokenblock_ebpf::digest::TokenDigest) -> bool,
    ) -> Self {
        let mut engine = Engine::new(&listing.rules, listed);
        engine.accept(FIRST);
        let request = Framing::Declared.request(&Body::Text.bytes(60_000));
        let mut upload = Self {
            engine,
            now: START,
            end: 0,
        };
        for piece in request[..20_000].chunks(1000) {
            let at = upload.end;
            assert!(matches!(upload.send(at, piece), Fate::Passed(Place::Next)));
            upload.engine.settle(sequence(FIRST, upload.end));
        }
        upload
    }

    /// The same with a first gap.
    pub(crate) fn begin(
        listing: &'a Listing,
        listed: &'a dyn Fn(&tokenblock_ebpf::digest::TokenDigest) -> bool,
    ) -> Self {
        let mut upload = Self::whole(listing, listed);
        // Lost, for good.
        upload.end += 500;
        upload
    }

    pub(crate) fn send(&mut self, at: usize, bytes: impl AsRef<[u8]>) -> Fate {
        let bytes = bytes.as_ref();
        self.now += 1_000_000;
        self.end = self.end.max(at + bytes.len());
        self.engine.segment(sequence(FIRST, at), bytes, self.now)
    }
}

/// What was passed was none of the sender's, and the receiver did not take it: what the sender has sent waits once, and is then
/// judged anew, however often something else was passed in its place.
#[test]
fn what_differs_from_its_first_copy_comes_in_its_place() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let token = format!("\nAuthorization: Bearer {}\n", Token::Opaque.text());
    for (first, second, last) in [
        (
            "some lines\n",
            "\nsome: lines\n",
            Fate::Passed(Place::Recovery),
        ),
        (
            "a value of it and no more of what comes here\nor there\n",
            &token,
            Fate::Blocked,
        ),
    ] {
        let first = format!("{first:>80}");
        let second = format!("{second:>80}");
        let mut upload = Upload::begin(&listing, &listed);
        let (at, early) = (upload.end - 500, upload.end);
        let more = upload.send(early, "more of it\n");
        assert_eq!(more, Fate::Passed(Place::Ahead));
        assert_eq!(upload.send(at, &first), Fate::Passed(Place::Filler));
        for expected in [Fate::Dropped(Place::Duplicate), last] {
            upload.now += 300_000_000;
            assert_eq!(upload.send(at, &second), expected);
        }
    }
}

/// Each of the pieces is sent twice, the second time as it was or otherwise.
fn twice(first: &[&str], second: &[&str]) -> Vec<Fate> {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let mut upload = Upload::begin(&listing, &listed);
    let mut at = Vec::new();
    for piece in first {
        at.push(upload.end);
        let fate = upload.send(upload.end, piece);
        assert!(matches!(fate, Fate::Passed(_)), "{piece:?}: {fate:?}");
    }
    at.iter()
        .zip(second)
        .map(|(at, piece)| upload.send(*at, piece))
        .collect()
}

#[test]
fn a_second_copy_passes() {
    // The first is ahead of the gap; the others end in a line, in a name, in a query and in a value.
    let pieces = [
        "some text of a line\n",
        "and of two\nAuth",
        "or: me\nsee /?",
        "access_token=abcdef",
        "gh and so on\n",
    ];
    let fates = twice(&pieces, &pieces);
    assert_eq!(fates, [Fate::Passed(Place::Repeat); 5]);
}

#[test]
fn another_that_says_the_same_passes() {
    let first = ["some text of a line\n", "and of two\nAuth", "or: me\n"];
    let second = ["some text of a line\n", "and of 2 !\nAuth", "or: it\n"];
    assert_eq!(twice(&first, &second), [Fate::Passed(Place::Repeat); 3]);
}

#[test]
fn another_that_says_something_else_is_dropped() {
    const DROPPED: Fate = Fate::Dropped(Place::Duplicate);
    let token = Token::Opaque.text();
    let name = "Authorization: Bearer ";
    let line = "and so it went on, and on, and\n";
    for second in [
        // It ends in another state, or further on.
        "and so it went on, and on, and ",
        "and so it went on, and on, \nAut",
        "and so it went on, and on, and\nx",
    ] {
        assert_eq!(twice(&[line], &[second]), [DROPPED], "{second:?}");
        let fates = twice(&["and on\n", line], &["and on\n", second]);
        assert_eq!(fates, [Fate::Passed(Place::Repeat), DROPPED], "{second:?}");
    }
    // What fills the gap may be read on in the first bytes of what is behind it.
    let other = "and so he went on, and on, and\n";
    assert_eq!(twice(&[line], &[other]), [DROPPED]);
    // It bears the token itself.
    let filler = "x".repeat(name.len() + token.len());
    let evil = format!("{name}{token}");
    assert_eq!(
        twice(
            &["and on\n", &format!("{filler}\n")],
            &["and on\n", &format!("{evil}\n")]
        )[1],
        DROPPED
    );
}

/// Pieces of a segment that was passed, each at its offset.
fn pieces(whole: &str, pieces: &[(usize, &str)]) -> Vec<Fate> {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let mut upload = Upload::begin(&listing, &listed);
    let ahead = "of a line that ends\n".repeat(10);
    let (first, at) = (upload.end, upload.end + ahead.len());
    assert_eq!(upload.send(first, &ahead), Fate::Passed(Place::Ahead));
    assert_eq!(upload.send(at, whole), Fate::Passed(Place::Next));
    // What stands ahead of a gap may be read on in its first bytes, which stay together.
    let other = format!("x{}", ahead.split_at(140).0.split_at(1).1);
    assert_eq!(upload.send(first, other), DUPLICATE);
    let cut = [(100, DUPLICATE), (140, REPEAT)];
    for (len, fate) in cut {
        assert_eq!(upload.send(first, ahead.split_at(len).0), fate, "{len}");
    }
    assert_eq!(upload.send(first + 140, ahead.split_at(140).1), REPEAT);
    pieces
        .iter()
        .map(|(offset, piece)| upload.send(at + offset, piece))
        .collect()
}

const REPEAT: Fate = Fate::Passed(Place::Repeat);
const DUPLICATE: Fate = Fate::Dropped(Place::Duplicate);

/// Who sends again cuts elsewhere: what the receiver has of it leaves the scanner as the whole did.
#[test]
fn a_second_copy_passes_in_pieces() {
    let whole = "and so it went on\nAuthor: me\nand on\n/?a=b\nsee it\nAuth";
    for first in 1..whole.len() {
        for second in first + 1..whole.len() {
            let (front, three) = whole.split_at(second);
            let (one, two) = front.split_at(first);
            let copies = [
                (0, front),
                (0, one),
                (0, one),
                (first, two),
                (second, three),
                (first, two),
            ];
            assert_eq!(pieces(whole, &copies), [REPEAT; 6], "{first}, {second}");
        }
    }
}

/// What is left behind a shorter copy is read from where that one ended, and leaves the scanner as the whole did.
#[test]
fn what_is_left_behind_a_shorter_copy_ends_as_the_whole_did() {
    let token = Token::Opaque.text();
    let whole = "and so it went on, line by line, and on, and no end of it was seen\n";
    let first = (0, "and so\nAuth");
    let (_, rest) = whole.split_at(first.1.len());
    assert_eq!(pieces(whole, &[first, (first.1.len(), rest)]), [REPEAT; 2]);
    // It ends in another state.
    let other = format!("{}\nAuth", rest.split_at(rest.len() - 5).0);
    assert_eq!(
        pieces(whole, &[first, (first.1.len(), &other)]),
        [REPEAT, DUPLICATE]
    );
    // The name goes on in it.
    let evil = format!("orization: {token}\n{:41}\n", "");
    let (evil, _) = evil.split_at(rest.len());
    let fates = pieces(whole, &[first, (first.1.len(), evil)]);
    assert_eq!(fates, [REPEAT, DUPLICATE], "{evil:?}");
    // It is more than was left, or begins elsewhere.
    let more = format!("{rest}and on");
    for (at, piece) in [(first.1.len(), more.as_str()), (3, whole.split_at(3).1)] {
        assert_eq!(pieces(whole, &[first, (at, piece)]), [REPEAT, DUPLICATE]);
    }
    // What it says is new: a line like a header's, an empty line.
    for new in ["Cookie: a=b\n", "and so\n\nan"] {
        assert_eq!(pieces(whole, &[(0, new)]), [DUPLICATE], "{new:?}");
    }
}

/// The state at the end of a recovery is kept for who goes on there, whatever comes twice on the way.
#[test]
fn a_second_copy_within_a_recovery_takes_no_other_state() {
    let token = Token::Opaque.text();
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let mut upload = Upload::whole(&listing, &listed);
    let pieces = ["and so on\n", "and on, and on\n", "and on\nAuth"];
    let at = in_order(&mut upload, &pieces);
    let end = upload.end;
    // What passes is noted from now on.
    assert_eq!(upload.send(at[2], pieces[2]), DUPLICATE);
    upload.engine.settle(sequence(FIRST, at[0]));
    upload.now += 300_000_000;
    let fate = upload.send(at[0], pieces[0]);
    assert_eq!(fate, Fate::Passed(Place::Recovery));
    assert_eq!(upload.send(at[1], pieces[1]), Fate::Passed(Place::Next));
    let (one, two) = pieces[1].split_at(6);
    assert_eq!(upload.send(at[1], one), REPEAT);
    assert_eq!(upload.send(at[1] + 6, two), DUPLICATE);
    // The receiver has the rest.
    upload.engine.settle(sequence(FIRST, end));
    let evil = format!("orization: {token}\r\n");
    assert_eq!(upload.send(end, evil), Fate::Blocked);
}

/// What says where a message ends comes as it came first, or later.
#[test]
fn a_second_copy_of_a_head_comes_whole() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let first = "POST / HTTP/1.1\r\nHost: h\r\n";
    let (other, second) = (
        "Xontent-Length: 7\r\nX: y\r\n",
        "Content-Length: 7\r\nX: y\r\n",
    );
    for body in [false, true] {
        let mut engine = Engine::new(&listing.rules, &listed);
        engine.accept(FIRST);
        let mut at = 0;
        let mut send =
            |at: usize, bytes: &str| engine.segment(sequence(FIRST, at), bytes.as_bytes(), START);
        // Something comes late.
        assert_eq!(send(500, "a"), Fate::Dropped(Place::TooEarly));
        for piece in [first, if body { "\r\n" } else { "A: b\r\n" }, other] {
            assert_eq!(send(at, piece), Fate::Passed(Place::Next));
            at += piece.len();
        }
        at -= other.len();
        let (piece, _) = second.split_at(20);
        assert_eq!(send(at, piece), DUPLICATE, "{body}");
    }
}

/// A second copy that says something else of where the message ends takes no place of the first: what follows was read by that one.
#[test]
fn a_second_copy_says_the_same_of_where_a_message_ends() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let line = "POST / HTTP/1.1\r\n";
    for rest in ["\r\nand so on", "X: y\r\n"] {
        let head = |length: u32| format!("Content-Length: {length:03}\r\n{rest}");
        let mut engine = Engine::new(&listing.rules, &listed);
        engine.accept(FIRST);
        let mut send =
            |at: usize, bytes: &str| engine.segment(sequence(FIRST, at), bytes.as_bytes(), START);
        assert_eq!(send(500, "late"), Fate::Dropped(Place::TooEarly));
        for (at, piece) in [(0, line), (line.len(), &head(100))] {
            assert_eq!(send(at, piece), Fate::Passed(Place::Next));
        }
        assert_eq!(send(line.len(), &head(90)), DUPLICATE, "{rest:?}");
        assert_eq!(send(line.len(), &head(100)), REPEAT, "{rest:?}");
    }
}

/// Who comes back to where a shorter copy ended stands behind that; who comes up to there may have taken the whole.
#[test]
fn a_recovery_where_a_shorter_copy_ended() {
    let token = Token::Opaque.text();
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let (one, other) = ("so it goes, and\n", "so it goes\nAuth");
    let whole = format!("{one}orization: {token}\nand so it went on\n");
    let whole = whole.replace("\norization", "\nyorization");
    let begin = || {
        let mut upload = Upload::begin(&listing, &listed);
        let first = upload.end;
        assert_eq!(upload.send(first, "a line\n"), Fate::Passed(Place::Ahead));
        let at = upload.end;
        assert_eq!(upload.send(at, &whole), Fate::Passed(Place::Next));
        assert_eq!(upload.send(at, other), REPEAT);
        (upload, first, at)
    };
    // It took the shorter copy, whatever the maps have forgotten.
    for forgotten in [false, true] {
        let (mut upload, _, at) = begin();
        let settled = at + other.len();
        upload.engine.settle(sequence(FIRST, settled));
        upload.now += 300_000_000;
        if forgotten {
            upload.engine.forget_notes();
        }
        let evil = format!("orization: {token}\n");
        assert_eq!(upload.send(settled, evil), Fate::Blocked);
    }
    // It holds the whole, which begins in a line of its own there.
    let (mut upload, first, at) = begin();
    upload.engine.settle(sequence(FIRST, first));
    upload.now += 300_000_000;
    let both = format!("a line\n{other}");
    assert_eq!(first + both.len(), at + other.len());
    let fate = upload.send(first, both);
    assert!(matches!(fate, Fate::Reset(_)), "{fate:?}");
}

/// Behind a recovery the receiver may hold what was passed before. What says something else in its place does not pass, for what follows
/// would be read from one of them alone; nor does what is longer, of which the receiver would read the end alone.
#[test]
fn what_follows_a_recovery_takes_no_place_of_what_is_held() {
    const CROSSES: Fate = Fate::Dropped(Place::Duplicate);
    const DIFFERS: Fate = Fate::Dropped(Place::TooEarly);
    const NEXT: Fate = Fate::Passed(Place::Next);
    let token = Token::Opaque.text();
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let (head, lost) = ("GET / HTTP/1.1\r\n", "Host: h\r\n");
    let line = format!("Authorization: {token}\r\n\r\n");
    let at = [0, head.len(), head.len() + lost.len()];
    let begin = |held: &str| {
        let mut engine = Engine::new(&listing.rules, &listed);
        engine.accept(FIRST);
        for (at, piece) in at.into_iter().zip([head, lost, held]) {
            assert_eq!(
                engine.segment(sequence(FIRST, at), piece.as_bytes(), START),
                NEXT
            );
        }
        engine.settle(sequence(FIRST, at[1]));
        let now = START + 300_000_000;
        let fate = engine.segment(sequence(FIRST, at[1]), lost.as_bytes(), now);
        assert_eq!(fate, Fate::Passed(Place::Recovery));
        (engine, now)
    };
    for (held, other, fate) in [
        ("Autho", "Xutho", DIFFERS),
        ("Autho", "Autho", NEXT),
        // A line begins behind the one, and none behind the other.
        ("A: b\n", "A: bc", DIFFERS),
        ("A: b\n", "C: d\n", NEXT),
        ("A: b ", "A: bc", NEXT),
    ] {
        let (mut engine, now) = begin(held);
        let mut send =
            |at: usize, bytes: &str| engine.segment(sequence(FIRST, at), bytes.as_bytes(), now);
        let whole = format!("{}{}\r\n", "X".repeat(held.len()), "y: z");
        assert_eq!(send(at[2], &whole), CROSSES, "{held:?}");
        assert_eq!(send(at[2], other), fate, "{held:?} {other:?}");
        if held == "Autho" {
            // Whichever of them the receiver has.
            let end = at[2] + held.len();
            engine.settle(sequence(FIRST, end));
            let rest = line.split_at(held.len()).1;
            let fate = engine.segment(sequence(FIRST, end), rest.as_bytes(), now);
            assert_eq!(fate, Fate::Blocked, "{other:?}");
        }
    }
    // The receiver has no more than that: what it gets now is what counts.
    let (mut engine, now) = begin("Autho");
    engine.settle(sequence(FIRST, at[2]));
    let fate = engine.segment(sequence(FIRST, at[2]), line.as_bytes(), now);
    assert_eq!(fate, Fate::Blocked);
}

/// Nor does a recovery, which may be a decoy: the receiver keeps what it holds for the next one.
#[test]
fn a_recovery_takes_no_place_of_what_is_held() {
    let token = Token::Opaque.text();
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let (head, lost) = ("GET / HTTP/1.1\r\n", "Host: h\r\n");
    let rest = format!("rization: {token}\r\n\r\n");
    for other in ["Autho", "Xutho", "X: yz"] {
        let mut engine = Engine::new(&listing.rules, &listed);
        engine.accept(FIRST);
        let at = [0, head.len(), head.len() + lost.len()];
        let mut now = START;
        for (at, piece) in at.into_iter().zip([head, lost, "Autho"]) {
            let fate = engine.segment(sequence(FIRST, at), piece.as_bytes(), now);
            assert_eq!(fate, Fate::Passed(Place::Next));
        }
        engine.settle(sequence(FIRST, at[1]));
        let mut stopped = false;
        for piece in [&format!("{lost}{other}"), lost] {
            now += 300_000_000;
            let fate = engine.segment(sequence(FIRST, at[1]), piece.as_bytes(), now);
            stopped |= !matches!(fate, Fate::Passed(Place::Recovery));
        }
        let end = sequence(FIRST, at[2] + "Autho".len());
        engine.settle(end);
        let fate = engine.segment(end, rest.as_bytes(), now);
        assert!(stopped || fate == Fate::Blocked, "{other}: {fate:?}");
        assert!(!stopped || other != "Autho");
    }
}

/// Of what comes in the place of two segments the receiver may take the beginning alone: where the first of them ended is
/// another state then.
#[test]
fn a_recovery_of_two_segments_is_taken_in_part() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let mut engine = Engine::new(&listing.rules, &listed);
    engine.accept(FIRST);
    let (head, line) = ("GET / HTTP/1.1\r\n", "Host: h\r\n");
    let at = [0, head.len(), head.len() + line.len()].map(|at| sequence(FIRST, at));
    let mut now = START;
    for (at, piece) in at.into_iter().zip([head, line, "it is"]) {
        let fate = engine.segment(at, piece.as_bytes(), now);
        assert_eq!(fate, Fate::Passed(Place::Next));
    }
    let rest = format!("&access_token={} HTTP/1.1\r\n", Token::Opaque.text());
    let passed = Fate::Passed(Place::Recovery);
    for (at, piece, expected) in [
        (at[1], "GET /a?bc\nt is", passed),
        (at[2], &rest, Fate::Blocked),
    ] {
        engine.settle(at);
        now += 300_000_000;
        assert_eq!(engine.segment(at, piece.as_bytes(), now), expected);
    }
}

/// What fills a gap is read from one state, which is that of the copy that the receiver may have.
#[test]
fn a_gap_is_filled_once() {
    let token = Token::Opaque.text();
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let mut upload = Upload::begin(&listing, &listed);
    let late = format!("Authorization: Bearer {token}\r\n");
    let at = upload.end;
    assert_eq!(
        upload.send(at, "of a line that ends\n"),
        Fate::Passed(Place::Ahead)
    );
    let gap = upload.end;
    let piece = "a line that ends  \r\n";
    let behind = gap + piece.len() + late.len();
    assert_eq!(
        upload.send(behind, "more of it\n"),
        Fate::Passed(Place::Ahead)
    );
    assert_eq!(upload.send(gap, piece), Fate::Passed(Place::Filler));
    assert_eq!(
        upload.send(gap, "a line that ends not"),
        Fate::Dropped(Place::Duplicate)
    );
    assert_eq!(upload.send(gap, "another"), REPEAT);
    assert_eq!(upload.send(gap + piece.len(), late), Fate::Blocked);
}

/// What fills a gap ends in a name, and what stood behind it was never taken: who goes on there goes on in that name.
#[test]
fn a_recovery_goes_on_in_what_filled_a_gap() {
    let token = Token::Opaque.text();
    for whole in [true, false] {
        let listing = Listing::new().unwrap();
        let listed = |digest: &_| listing.has(digest);
        let mut upload = Upload::begin(&listing, &listed);
        let gap = upload.end - 500;
        let filler = "x y\nAuth";
        let right = gap + filler.len();
        // Closed by what fills it, or by what lies in its middle and what fills the rest.
        let behind = if whole { right } else { right + 100 };
        assert_eq!(upload.send(behind, "or: abc\n"), Fate::Passed(Place::Ahead));
        if !whole {
            assert_eq!(upload.send(right, "or: abc\n"), Fate::Passed(Place::Inside));
        }
        assert_eq!(upload.send(gap, filler), Fate::Passed(Place::Filler));
        upload.engine.settle(sequence(FIRST, right));
        upload.now += 240_000_000;
        let evil = format!("orization: Bearer {token}\r\n\r\n");
        assert_eq!(upload.send(right, evil), Fate::Blocked);
    }
}

/// Open states are kept by their places, so that gaps behind several of them are filled in any order.
#[test]
fn gaps_behind_open_states_are_filled_in_any_order() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let mut upload = Upload::begin(&listing, &listed);
    let line = "uthor of it\nand more\nA";
    let first = upload.end;
    assert_eq!(upload.send(first, "text\nA"), Fate::Passed(Place::Ahead));
    let start = upload.end;
    for n in (1..9).step_by(2) {
        assert_eq!(
            upload.send(start + n * line.len(), line),
            Fate::Passed(Place::Ahead),
            "{n}"
        );
    }
    for n in [6, 2, 4, 0] {
        assert_eq!(
            upload.send(start + n * line.len(), line),
            Fate::Passed(Place::Filler),
            "{n}"
        );
    }
}

/// Each piece of a declared body, in order; the states that are left where they end.
fn in_order(upload: &mut Upload<'_>, pieces: &[&str]) -> Vec<usize> {
    let mut at = Vec::new();
    for piece in pieces {
        at.push(upload.end);
        let fate = upload.send(upload.end, piece);
        assert_eq!(fate, Fate::Passed(Place::Next), "{piece:?}");
    }
    at
}

/// Of more open states than are held, the receiver may turn out to stand between two, where nothing was open: that it
/// stands so is remembered.
#[test]
fn a_recovery_among_states_that_were_given_up_comes_through() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let mut upload = Upload::whole(&listing, &listed);
    let pieces = [
        "a line\nAuth",
        "or: me\nAuth",
        "or: it\nAuth",
        "or: he\nand words that go on",
        " and on\nAuth",
        "or: we\nand so on\n",
    ];
    let at = in_order(&mut upload, &pieces);
    upload.engine.settle(sequence(FIRST, at[4]));
    upload.now += 300_000_000;
    assert_eq!(upload.send(at[4], pieces[4]), Fate::Passed(Place::Recovery));
    assert_eq!(upload.send(at[5], pieces[5]), Fate::Passed(Place::Next));
}

/// White space that a line begins with is no state that has to be kept: what fills a gap may end in it.
#[test]
fn a_gap_is_filled_to_within_the_indentation_of_a_line() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let mut upload = Upload::whole(&listing, &listed);
    let gap = upload.end;
    let filler = "a line\n    ";
    // Longer than what is kept of what stands behind a gap.
    let behind = format!("{}and text\n", " ".repeat(300));
    assert_eq!(
        upload.send(gap + filler.len(), behind),
        Fate::Passed(Place::Ahead)
    );
    assert_eq!(upload.send(gap, filler), Fate::Passed(Place::Filler));
}

/// Copies of what was passed from open states, where all was settled before.
#[test]
fn second_copies_from_open_states_pass() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let fates = copies_from_open_states(&mut Engine::new(&listing.rules, &listed));
    assert_eq!(&fates[fates.len() - 2..], [Counter::Clean; 2], "{fates:?}");
}

/// What the receiver would refuse is dropped; a decoy's timestamp counts until the receiver says otherwise.
#[test]
fn what_is_too_old_is_dropped() {
    const OLD: Fate = Fate::Dropped(Place::Old);
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let mut engine = Engine::new(&listing.rules, &listed);
    engine.accept(FIRST);
    let request = Framing::Declared.request(&Body::Line.bytes(2000));
    let mut at = 0;
    let mut now = START;
    let mut send = |engine: &mut Engine<'_>, at: usize, stamp: u32| {
        now += 1_000_000;
        engine.segment_stamped(sequence(FIRST, at), &request[at..at + 100], stamp, now)
    };
    // Nothing is known of what the receiver has taken.
    assert_eq!(send(&mut engine, at, 90), Fate::Passed(Place::Next));
    at += 100;
    engine.settle_stamped(sequence(FIRST, at), 90);
    assert_eq!(send(&mut engine, at, 88), OLD);
    assert_eq!(send(&mut engine, at, 89), Fate::Passed(Place::Next));
    at += 100;
    engine.settle_stamped(sequence(FIRST, at), 90);
    // It will take this one first, though it has not said so.
    assert_eq!(send(&mut engine, at, 95), Fate::Passed(Place::Next));
    assert_eq!(send(&mut engine, at + 100, 93), OLD);
    assert_eq!(send(&mut engine, at + 100, 94), Fate::Passed(Place::Next));
    at += 200;
    engine.settle_stamped(sequence(FIRST, at), 95);
    // A decoy, which it ignores: it goes on where it stood.
    assert_eq!(send(&mut engine, at, 1 << 30), Fate::Passed(Place::Next));
    assert_eq!(send(&mut engine, at + 100, 96), OLD);
    now += 230_000_000;
    let send = |engine: &mut Engine<'_>, at: usize, stamp: u32| {
        engine.segment_stamped(sequence(FIRST, at), &request[at..at + 100], stamp, now)
    };
    assert_eq!(send(&mut engine, at, 97), Fate::Passed(Place::Repeat));
    // Without timestamps nothing is too old, nor where the receiver knows none.
    engine.settle_stamped(sequence(FIRST, at + 100), 97);
    assert_eq!(send(&mut engine, at + 100, 0), Fate::Passed(Place::Next));
}

/// Before a segment has passed where the receiver stands there is none whose timestamp another could be too old for.
#[test]
fn what_comes_first_is_not_too_old() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    for first in [7, 1 << 31, u32::MAX - 9999] {
        for clock in [1000, 1 << 31, u32::MAX - 1000] {
            // The connection is first seen in its middle, and not where the receiver stands.
            let mut engine = Engine::new(&listing.rules, &listed);
            engine.settle_stamped(first, clock);
            for n in 1..5 {
                let start = sequence(first, n * 100);
                let fate = engine.segment_stamped(start, &[b'a'; 100], clock, START);
                assert!(
                    matches!(fate, Fate::Passed(_)),
                    "{first}, {clock}, {n}: {fate:?}"
                );
            }
        }
    }
}

/// What is known of gaps is of this connection's: none of them reaches half the sequence space away.
#[test]
fn a_gap_is_filled_in_the_middle_of_the_sequence_space() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let request = Framing::Declared.request(&Body::Text.bytes(60_000));
    let mut engine = Engine::new(&listing.rules, &listed);
    let first = (1 << 31) - 20_250;
    engine.accept(first);
    let mut send =
        |from: usize, to: usize| engine.segment(sequence(first, from), &request[from..to], START);
    assert_eq!(send(0, 20_000), Fate::Passed(Place::Next));
    assert_eq!(send(20_500, 21_000), Fate::Passed(Place::Ahead));
    assert_eq!(send(20_000, 20_500), Fate::Passed(Place::Filler));
}
