//! Second copies on their way out of a host, behind which a path may lose them.

use proptest::prelude::*;
use tokenblock_ebpf::{
    flow::{Conflict, Place},
    verdict::Counter,
};
use tokenblock_tests::{
    bodies::{ALL, Framing},
    engine::{Engine, Fate},
    sender::{Path, send},
    trace::{Listing, START, sequence},
};

use crate::flow::cases;

const FIRST: u32 = 7;
/// Into pieces of so many bytes the sender cuts what it sends.
const PIECE: usize = 100;
/// Pieces of a packet, the last of them a short one.
const PIECES: usize = 6;
const DUPLICATE: Fate = Fate::Dropped(Place::Duplicate);

/// A body whose head was passed and is settled, and of which one packet was passed.
struct Upload<'a> {
    engine: Engine<'a>,
    packet: Vec<u8>,
    at: usize,
}

impl Upload<'_> {
    fn again(&mut self, from: usize, bytes: &[u8]) -> Fate {
        self.again_after(0, from, bytes)
    }

    /// The same so many milliseconds later.
    fn again_after(&mut self, milliseconds: u64, from: usize, bytes: &[u8]) -> Fate {
        let now = START + milliseconds * 1_000_000;
        self.engine
            .segment(sequence(FIRST, self.at + from), bytes, now)
    }

    /// A copy of what was passed.
    fn piece(&mut self, from: usize, to: usize) -> Fate {
        let bytes = self.packet[from..to].to_vec();
        self.again(from, &bytes)
    }
}

fn with_upload(run: impl FnOnce(&mut Upload<'_>)) {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let mut engine = Engine::new(&listing.rules, &listed).sending(100);
    engine.accept(FIRST);
    let head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n";
    assert_eq!(
        engine.segment(FIRST, head, START),
        Fate::Passed(Place::Next)
    );
    engine.settle(sequence(FIRST, head.len()));
    // Where it is cut candidates are under way.
    let line = b"some text of it\nAuthorization: Bearer of-nobody\n";
    let packet: Vec<u8> = line
        .iter()
        .copied()
        .cycle()
        .take(PIECES * PIECE - 30)
        .collect();
    let mut upload = Upload {
        engine,
        packet,
        at: head.len(),
    };
    let all = upload.packet.clone();
    assert_eq!(upload.again(0, &all), Fate::Passed(Place::Next));
    run(&mut upload);
}

/// Where the pieces of the packet begin, and where the last one ends.
fn cuts(packet: &[u8]) -> Vec<usize> {
    (0..PIECES)
        .map(|n| n * PIECE)
        .chain([packet.len()])
        .collect()
}

#[test]
fn pieces_of_what_was_passed_pass_again() {
    with_upload(|upload| {
        let cuts = cuts(&upload.packet);
        for (n, from) in cuts.iter().enumerate() {
            for to in &cuts[n + 1..] {
                assert_eq!(upload.piece(*from, *to), Fate::Copied, "{from}..{to}");
            }
        }
    });
}

/// Each byte counts, and so does where they are cut.
#[test]
fn what_says_something_else_is_no_copy() {
    with_upload(|upload| {
        let len = upload.packet.len();
        for at in 0..len {
            let mut other = upload.packet.clone();
            other[at] ^= 1;
            assert_eq!(upload.again(0, &other), DUPLICATE, "{at}");
        }
        for (from, to) in [(0, PIECE - 1), (1, PIECE), (PIECE, len - 1), (0, 1)] {
            assert_eq!(upload.piece(from, to), DUPLICATE, "{from}..{to}");
        }
        // With bytes behind it that were not passed.
        let longer = [&upload.packet[..], b"more"].concat();
        assert_eq!(upload.again(0, &longer), DUPLICATE);
        assert_eq!(upload.piece(0, len), Fate::Copied);
    });
}

/// A token may be listed after the first copy was passed.
#[test]
fn what_was_judged_by_another_list_is_no_copy() {
    with_upload(|upload| {
        upload.engine.change();
        assert_eq!(upload.piece(0, PIECE), DUPLICATE);
    });
}

/// Where something else was passed in its place, or the connection is another one, it is none any more.
#[test]
fn what_something_else_took_the_place_of_is_no_copy() {
    with_upload(|upload| {
        let len = upload.packet.len();
        let other = vec![b'x'; len + 1];
        let again = upload.again_after(300, 0, &other);
        assert!(
            matches!(
                again,
                Fate::Passed(Place::Recovery) | Fate::Reset(Conflict::Gap)
            ),
            "{again:?}"
        );
        if again == Fate::Passed(Place::Recovery) {
            assert_ne!(upload.piece(0, len), Fate::Copied);
        }
    });
    with_upload(|upload| {
        let at = sequence(FIRST, upload.at);
        upload.engine.accept(at);
        assert_eq!(
            upload.piece(PIECE, 2 * PIECE),
            Fate::Dropped(Place::TooEarly)
        );
    });
}

/// Of what is forgotten nothing passes but what the receiver is known to want.
#[test]
fn what_is_forgotten_is_no_copy() {
    with_upload(|upload| {
        upload.engine.forget_notes();
        assert_eq!(upload.piece(0, PIECE), DUPLICATE);
        let all = upload.packet.clone();
        let fate = upload.again_after(300, 0, &all);
        assert_eq!(fate, Fate::Passed(Place::Recovery));
    });
}

/// What is noted is gone before its sequence number comes round.
#[test]
fn what_is_far_behind_is_no_copy() {
    with_upload(|upload| {
        let (at, len) = (upload.at, upload.packet.len());
        let copies = upload.engine.flow().copies();
        let start = sequence(FIRST, at).wrapping_add(1 << 30);
        upload.engine.flow().begin_copies(start, start + 1);
        assert_ne!(upload.engine.flow().copies(), copies);
        assert_eq!(upload.piece(0, len), DUPLICATE);
    });
}

proptest! {
    #![proptest_config(cases(400))]

    /// Whatever the path behind loses, nothing is reset or blocked, and all comes through.
    #[test]
    fn clean_connections_come_through_losses_behind(
        bodies in prop::collection::vec(
            (prop::sample::select(&ALL[..]), prop::bool::ANY, 0..60_000_usize), 1..4),
        sizes in prop::collection::vec(200..1449_usize, 1..20),
        lost_behind in 1..11_u64,
        seed in 1..u64::MAX,
    ) {
        let listing = Listing::new().unwrap();
        let listed = |digest: &_| listing.has(digest);
        let mut engine = Engine::new(&listing.rules, &listed).sending(0);
        let requests: Vec<_> = bodies
            .into_iter()
            .map(|(body, chunked, len)| {
                let framing = if chunked { Framing::Chunked } else { Framing::Declared };
                framing.request(&body.bytes(len))
            })
            .collect();
        let path = Path { lost: 0, lost_behind, early: 0, seed };
        let sent = send(&mut engine, &requests, &sizes, path);
        let harm = sent.ways.iter().find(|(_, _, way)| matches!(way, Counter::Blocked | Counter::GapConflict));
        prop_assert_eq!(harm, None);
        let ambiguous = sent.ways.iter().any(|(_, _, way)| *way == Counter::AmbiguousFraming);
        prop_assert!(ambiguous || sent.stream == requests.concat(), "{}", sent.stream.len());
    }
}

/// The gap that was filled at its left end is gone from there.
#[test]
fn a_gap_is_filled_once() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let mut upload = crate::repeats::Upload::begin(&listing, &listed);
    upload.engine = upload.engine.sending(0);
    let (left, right) = (upload.end - 500, upload.end);
    assert_eq!(
        upload.send(right, "more of it\n"),
        Fate::Passed(Place::Ahead)
    );
    assert_eq!(upload.send(left, "A"), Fate::Passed(Place::Filler));
    assert_eq!(upload.send(left, "text and more of it\n"), DUPLICATE);
    assert_eq!(upload.send(left, "A"), Fate::Copied);
}
