//! Several gaps at once, and segments that lie in their middle.

use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use tokenblock_ebpf::{flow::Place, verdict::Counter};
use tokenblock_tests::{
    bodies::{ALL, Framing},
    engine::{Engine, Fate},
    fixtures::Token,
    sender::{Path, send},
    trace::{Act, Inspector, Listing, START, Streams, play, sequence},
};

use crate::{
    flow::cases,
    repeats::{FIRST, Upload},
};

/// Bytes in which what is interesting of a body stands.
const LINES: usize = 260;

/// An engine that counts what it passed in the middle of gaps.
struct Counting<'a> {
    engine: Engine<'a>,
    inside: usize,
}

impl Inspector for Counting<'_> {
    fn accept(&mut self, ack: u32) {
        self.engine.accept(ack);
    }

    fn settle(&mut self, ack: u32, echo: u32) {
        self.engine.settle_stamped(ack, echo);
    }

    fn segment(&mut self, start: u32, bytes: &[u8], stamp: u32, now: u64) -> Counter {
        let fate = self.engine.segment_stamped(start, bytes, stamp, now);
        self.inside += usize::from(fate == Fate::Passed(Place::Inside));
        fate.counter()
    }
}

/// What happens to one of the pieces between two cuts.
#[derive(Clone, Debug)]
enum Event {
    /// So many pieces from this one on are sent in one segment.
    Send(prop::sample::Index, usize, usize, bool),
    Ack,
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let variant = prop_oneof![4 => Just(0_usize), 2 => Just(1), 1 => Just(2)];
    let decoy = prop::bool::weighted(0.15);
    prop_oneof![
        16 => (any::<prop::sample::Index>(), 1..3_usize, variant, decoy)
            .prop_map(|(piece, count, variant, decoy)| Event::Send(piece, count, variant, decoy)),
        2 => Just(Event::Ack),
        1 => (0..300_u64).prop_map(Event::Wait),
    ]
}

/// All up to the lines, then the events.
fn acts(streams: &Streams, cuts: &[usize], events: &[Event]) -> Vec<Act> {
    let from = streams.lines_at() - 30;
    let mut acts = vec![
        Act::Continue {
            len: from,
            variant: 0,
            decoy: false,
        },
        Act::Ack,
    ];
    let mut at: Vec<usize> = cuts.iter().map(|cut| from + cut).collect();
    at.extend([from, from + LINES + 60]);
    at.sort_unstable();
    at.dedup();
    // A gap that is as long as the lines are.
    acts.push(Act::Send {
        from: from + LINES + 60,
        len: 100,
        variant: 0,
        decoy: false,
    });
    acts.extend(events.iter().map(|event| match event {
        Event::Send(piece, count, variant, decoy) => {
            let piece = piece.index(at.len() - 1);
            Act::Send {
                from: at[piece],
                len: at[(piece + count).min(at.len() - 1)] - at[piece],
                variant: *variant,
                decoy: *decoy,
            }
        }
        Event::Ack => Act::Ack,
        Event::Wait(milliseconds) => Act::Wait {
            milliseconds: *milliseconds,
        },
    }));
    // What is still missing, in order.
    for pair in at.windows(2) {
        acts.push(Act::Send {
            from: pair[0],
            len: pair[1] - pair[0],
            variant: 0,
            decoy: false,
        });
        acts.push(Act::Ack);
    }
    acts
}

/// Plays them; gives how many segments were passed in the middle of gaps, and whether a listed token was delivered.
fn played(streams: &Streams, cuts: &[usize], events: &[Event]) -> (usize, bool) {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let mut inspector = Counting {
        engine: Engine::new(&listing.rules, &listed),
        inside: 0,
    };
    let acts = acts(streams, cuts, events);
    let stream = play(&mut inspector, streams, &acts, FIRST).stream;
    (inspector.inside, streams.bring_token(&listing, &stream))
}

proptest! {
    #![proptest_config(cases(4_000))]

    /// Whatever the receiver delivers bears no listed token.
    #[test]
    fn no_listed_token_is_delivered_through_gaps(
        cuts in prop::collection::vec(1..LINES + 60, 4..30),
        events in prop::collection::vec(event(), 4..60),
    ) {
        for streams in [Streams::in_body(), Streams::in_chunk()] {
            let (_, delivered) = played(&streams, &cuts, &events);
            prop_assert!(!delivered);
        }
    }

    /// Nor where an honest sender sends it over a path that loses and reorders.
    #[test]
    fn no_listed_token_is_delivered_by_a_sender(
        sizes in prop::collection::vec(1..80_usize, 1..30),
        early in 10..60_u64,
        lost in 0..4_u64,
        lost_behind in 0..4_u64,
        seed in 1..u64::MAX,
    ) {
        let listing = Listing::new().unwrap();
        let listed = |digest: &_| listing.has(digest);
        for streams in [Streams::in_body(), Streams::in_chunk()] {
            let mut engine = Engine::new(&listing.rules, &listed);
            let path = Path { lost, lost_behind, early, seed };
            let sent = send(&mut engine, &streams.variants[..1], &sizes, path);
            prop_assert!(!streams.bring_token(&listing, &sent.stream));
        }
    }

    /// Where segments are lost behind the hook as well, an upload comes through, or its flow is reset.
    #[test]
    fn uploads_never_hang(
        body in prop::sample::select(&ALL[..]),
        framing in prop::sample::select(&[Framing::Declared, Framing::Chunked][..]),
        sizes in prop::collection::vec(200..1449_usize, 1..20),
        lost_behind in 0..4_u64,
        early in 10..40_u64,
        seed in 1..u64::MAX,
    ) {
        let listing = Listing::new().unwrap();
        let listed = |digest: &_| listing.has(digest);
        let mut engine = Engine::new(&listing.rules, &listed);
        let request = [framing.request(&body.bytes(60_000))];
        let path = Path { lost: 1, lost_behind, early, seed };
        let sent = send(&mut engine, &request, &sizes, path);
        let reset = sent.ways.iter().any(|(_, _, way)| *way == Counter::GapConflict);
        prop_assert!(reset || sent.stream == request[0], "{} {:?}", sent.stream.len(), &sent.ways[sent.ways.len().saturating_sub(30)..]);
    }
}

/// The cases above are about what they say they are.
#[test]
fn segments_pass_in_the_middle_of_gaps() {
    let mut runner = TestRunner::deterministic();
    let inputs = (
        prop::collection::vec(1..LINES + 60, 4..30),
        prop::collection::vec(event(), 4..60),
    );
    for streams in [Streams::in_body(), Streams::in_chunk()] {
        let mut inside = 0;
        for _ in 0..200 {
            let (cuts, events) = inputs.new_tree(&mut runner).unwrap().current();
            inside += played(&streams, &cuts, &events).0;
        }
        assert!(inside >= 200, "{inside}");
    }
}

const PASSED: Fate = Fate::Passed(Place::Filler);
const INSIDE: Fate = Fate::Passed(Place::Inside);
const DUPLICATE: Fate = Fate::Dropped(Place::Duplicate);
const EARLY: Fate = Fate::Dropped(Place::TooEarly);

/// Runs on an upload with a gap of 500 bytes, behind which something was passed; it gets the gap's left end.
fn with_gap(behind: &str, run: impl FnOnce(&mut Upload<'_>, usize)) {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let mut upload = Upload::begin(&listing, &listed);
    let (left, right) = (upload.end - 500, upload.end);
    assert_eq!(upload.send(right, behind), Fate::Passed(Place::Ahead));
    run(&mut upload, left);
}

/// The state that what lies in a gap leaves is gone from the maps, and of where segments ended much is forgotten: it is not
/// read on as the start of a line.
#[test]
fn a_recovery_behind_a_lost_state_is_none() {
    let token = Token::Opaque.text();
    let line = "uthor of it\nand more\nA";
    for (inside, noted) in [(false, 0), (true, 0), (false, 20), (true, 20)] {
        with_gap("more of it\n", |upload, gap| {
            let at = gap + line.len();
            if inside {
                assert_eq!(upload.send(at, line), INSIDE);
                assert_eq!(upload.send(gap, line), PASSED);
            } else {
                assert_eq!(upload.send(gap, line), PASSED);
                assert_eq!(upload.send(at, line), PASSED);
            }
            // Ends of other segments take the place of its own.
            for _ in 0..noted {
                let at = upload.end + 10;
                assert_eq!(upload.send(at, "and more\n"), Fate::Passed(Place::Ahead));
            }
            let at = at + line.len();
            upload.engine.settle(sequence(FIRST, at));
            upload.engine.forget_notes();
            upload.now += 240_000_000;
            let fate = upload.send(
                at,
                format!("uthorization: Bearer {token}\r\n\r\nso it goes on"),
            );
            let passed = matches!(fate, Fate::Passed(_));
            assert!(!passed, "{inside}, {noted}: {fate:?}");
        });
    }
}

/// What was lost behind the hook comes again in other segments, which end where one ended that lay in a gap.
#[test]
fn a_recovery_ends_where_a_segment_lay_in_a_gap() {
    let (front, middle, rest) = ("a line of text\n", "and one more\n", "x".repeat(500 - 28));
    with_gap("more of it\n", |upload, gap| {
        let at = gap + front.len();
        assert_eq!(upload.send(at, middle), INSIDE);
        assert_eq!(upload.send(gap, front), PASSED);
        assert_eq!(upload.send(at + middle.len(), &rest), PASSED);
        upload.now += 240_000_000;
        // In front of the segment, and behind it.
        let (a, b) = front.split_at(9);
        assert_eq!(upload.send(gap, a), Fate::Passed(Place::Recovery));
        assert_eq!(upload.send(gap + 9, b), Fate::Passed(Place::Next));
        let (a, b) = middle.split_at(9);
        assert_eq!(upload.send(at, a), Fate::Passed(Place::Next));
        assert_eq!(upload.send(at + 9, b), Fate::Passed(Place::Next));
        assert_eq!(upload.send(at + 13, rest), Fate::Passed(Place::Next));
    });
}

/// The same with what ends in a name, the rest of which stood behind the gap.
#[test]
fn a_recovery_ends_in_a_name_where_a_segment_did() {
    with_gap("or: me\n", |upload, gap| {
        let filler = format!("{}and x\nAuth", "so on, ".repeat(70));
        let (a, b) = filler.split_at(100);
        assert_eq!(upload.send(gap, &filler), PASSED);
        upload.now += 240_000_000;
        assert_eq!(upload.send(gap, a), Fate::Passed(Place::Recovery));
        assert_eq!(upload.send(gap + 100, b), Fate::Passed(Place::Next));
    });
}

/// What says anything of messages, or ends in a candidate that what stands behind does not end, waits for what is in front.
#[test]
fn what_is_of_more_than_a_body_comes_in_its_place() {
    let token = Token::Opaque.text();
    for late in [
        "\nAuthorization: Bearer somebody-else\n".to_owned(),
        format!("\nAuthorization: Bearer {token}\n"),
        format!("\nsee /?access_token={token} there\n"),
        "\nContent-Length: 10\r\n\r\n".to_owned(),
        "\nTransfer-Encoding: chunked\r\n".to_owned(),
        "\nContent-Length and so on\n".to_owned(),
    ] {
        with_gap("more of it\n", |upload, gap| {
            assert_eq!(upload.send(gap + 20, &late), EARLY, "{late:?}");
        });
    }
    // Where the body has had lines like headers nothing passes early; nor does what was taken in part.
    for noisy in [true, false] {
        with_gap("more of it\n", |upload, gap| {
            if noisy {
                let header = "\nAuthorization: Bearer somebody-else\n";
                assert_eq!(upload.send(gap + 520, header), EARLY);
            } else {
                upload.engine.settle(sequence(FIRST, gap + 25));
            }
            assert_eq!(upload.send(gap + 20, "text of it\n"), DUPLICATE, "{noisy}");
        });
    }
    // Up to the right end, behind which stands the rest of a name, or not.
    let long = format!("orization:{}\n", "x".repeat(200));
    for (behind, fate) in [
        ("or: me\n", INSIDE),
        ("orization of it\n", INSIDE),
        ("orization: me\nor not\n", INSIDE),
        // A folded line may go on with the value.
        ("orization: me\n", EARLY),
        (&long, EARLY),
    ] {
        with_gap(behind, |upload, gap| {
            assert_eq!(upload.send(gap + 495, "\nAuth"), fate, "{behind:?}");
        });
    }
}

/// Behind a name in whose middle a gap ends stands a value on a folded line: it is read on to its end.
#[test]
fn a_folded_value_behind_a_gap_is_read() {
    let token = Token::Opaque.text();
    for fold in ["\r\n ", "\n\t", "", "\r\n \r\n "] {
        let behind = format!("uthorization:{fold}{token}\r\nand more\n");
        with_gap(&behind, |upload, gap| {
            let filler = format!("{}\nA", "x".repeat(498));
            assert_eq!(upload.send(gap, &filler), Fate::Blocked, "{fold:?}");
        });
    }
}

/// A gap that was split is filled in any order, each place once.
#[test]
fn a_split_gap_is_filled_once() {
    let line = "a line of the body, \n";
    let n = line.len();
    with_gap("more of it\n", |upload, gap| {
        for at in [10, 2, 6, 12, 4] {
            assert_eq!(upload.send(gap + at * n, line), INSIDE, "{at}");
        }
        let evil = "Authorization: Beare\n";
        assert_eq!(evil.len(), n);
        for at in [10, 2, 6, 12, 4] {
            assert_eq!(upload.send(gap + at * n, evil), DUPLICATE, "{at}");
            assert_eq!(
                upload.send(gap + at * n, line),
                Fate::Passed(Place::Repeat),
                "{at}"
            );
            // Over an end of what was passed.
            assert_eq!(upload.send(gap + at * n - 5, line), DUPLICATE, "{at}");
            assert_eq!(upload.send(gap + at * n + 5, line), DUPLICATE, "{at}");
        }
        for at in [11, 3, 5, 7] {
            assert_eq!(upload.send(gap + at * n, line), PASSED, "{at}");
        }
        assert_eq!(upload.send(gap, line.repeat(2)), PASSED);
    });
}

/// A name is cut by each of the bounds of what lies in a gap.
#[test]
fn a_token_cut_by_a_split_gap_is_blocked() {
    let token = Token::Opaque.text();
    let whole = format!("some text\nAuthorization: Bearer {token}\nand more\n").into_bytes();
    for first in 8..whole.len() - 2 {
        for second in first + 1..whole.len() - 1 {
            let pieces = [
                (0, &whole[..first]),
                (first, &whole[first..second]),
                (second, &whole[second..]),
            ];
            with_gap("more of it\n", |upload, gap| {
                let mut passed = [false; 3];
                // The middle, the end, the beginning; then what was dropped, in order.
                for n in [1, 2, 0, 0, 1, 2] {
                    let (at, piece) = pieces[n];
                    if !passed[n] {
                        let fate = upload.send(gap + at, piece);
                        passed[n] = matches!(fate, Fate::Passed(_));
                    }
                }
                assert_ne!(passed, [true; 3], "{first}, {second}");
            });
        }
    }
}

/// Gaps of before a recovery are none any more, and hide nothing that was passed since.
#[test]
fn a_recovery_forgets_gaps() {
    let piece = format!("{}on ", "so on, ".repeat(10));
    let n = piece.len();
    // It ends where that does which was passed ahead, and as that does.
    let last = piece.replace("on ", "on\n");
    with_gap("more of it\n", |upload, gap| {
        assert_eq!(upload.end, gap + 7 * n);
        assert_eq!(upload.send(gap, "so on, ".repeat(3)), PASSED);
        upload.now += 240_000_000;
        assert_eq!(upload.send(gap, &piece), Fate::Passed(Place::Recovery));
        for (at, piece) in [&piece, &piece, &piece, &piece, &piece, &last]
            .into_iter()
            .enumerate()
        {
            let fate = upload.send(gap + (at + 1) * n, piece);
            assert_eq!(fate, Fate::Passed(Place::Next));
        }
        let again = |upload: &mut Upload<'_>| {
            let fate = upload.send(gap + 2 * n, &piece);
            assert_eq!(fate, Fate::Passed(Place::Repeat));
        };
        again(upload);
        // Another gap is noted beside them.
        let ahead = upload.send(gap + 8 * n, "more of it\n");
        assert_eq!(ahead, Fate::Passed(Place::Ahead));
        again(upload);
    });
}

/// Behind a body that was passed unread, and is trusted no more, nothing is known of lines: what lies in a gap in front of it
/// comes in its place.
#[test]
fn nothing_passes_inside_a_gap_where_trust_has_ended() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let request = Framing::Declared.request(&b"so it goes on, ".repeat(20_000));
    let mut engine = Engine::new(&listing.rules, &listed).trusting(1000);
    engine.accept(FIRST);
    let mut now = START;
    let mut send = |engine: &mut Engine<'_>, at: usize| {
        now += 1_000_000;
        engine.segment(sequence(FIRST, at), &request[at..at + 100], now)
    };
    for at in (0..1200).step_by(100) {
        assert_eq!(send(&mut engine, at), Fate::Passed(Place::Next), "{at}");
    }
    assert_eq!(send(&mut engine, 1700), Fate::Passed(Place::Ahead));
    engine.settle(sequence(FIRST, 1200));
    assert_eq!(send(&mut engine, 1800), Fate::Trusted);
    assert_eq!(send(&mut engine, 1400), INSIDE);
    engine.answer(1, 10, sequence(FIRST, 1200));
    assert_eq!(send(&mut engine, 1600), DUPLICATE);
}

/// Where no length was declared, what may be the head of a message comes in its place.
#[test]
fn what_is_odd_comes_in_its_place() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let mut engine = Engine::new(&listing.rules, &listed);
    engine.accept(FIRST);
    let body = "and so it goes on\n".repeat(1200);
    let stream = format!("GET / HTTP/1.1\r\nHost: h\r\n\r\n{body}");
    let mut at = 0;
    for piece in stream.as_bytes().chunks(1000) {
        let fate = engine.segment(sequence(FIRST, at), piece, START);
        assert_eq!(fate, Fate::Passed(Place::Next), "{at}");
        at += piece.len();
        engine.settle(sequence(FIRST, at));
    }
    let mut send = |at, bytes: &str| engine.segment(sequence(FIRST, at), bytes.as_bytes(), START);
    assert_eq!(send(at + 500, "more of it\n"), Fate::Passed(Place::Ahead));
    assert_eq!(send(at + 200, "more\rof it all\n"), EARLY);
    assert_eq!(send(at + 200, "more of it\n"), INSIDE);
}

/// White space is a part of a target to some servers: what lies ahead of a gap is read so too, for the target may have begun in the gap.
#[test]
fn a_target_with_white_space_is_read_across_a_gap() {
    let token = Token::Opaque.text();
    for front in ["\nGET /x", "\nGET /x?a=b&c="] {
        for behind in ["a b ?", "a b &", "a b /?", ", a?", ", a&"] {
            let behind = format!("{behind}access_token={token} there\n");
            let listing = Listing::new().unwrap();
            let listed = |digest: &_| listing.has(digest);
            let mut upload = Upload::begin(&listing, &listed);
            let right = upload.end;
            let filler = format!("{}{front}", "x".repeat(500 - front.len()));
            let fates = [
                upload.send(right, &behind),
                upload.send(right - 500, &filler),
            ];
            let passed = fates.iter().all(|fate| matches!(fate, Fate::Passed(_)));
            // Behind a `?`, an `&` separates; in front of one it is a byte of the path.
            let reads = front.contains('?') == behind.contains('&');
            assert!(!passed || !reads, "{front:?} {behind:?}: {fates:?}");
        }
    }
}

/// What is passed of a body in front of a gap is lost behind the hook but for its end, which the receiver holds; it goes on there once
/// the rest has come again, while something else was passed in the place of what it holds.
#[test]
fn what_is_held_in_front_of_a_gap_is_read_on_from() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    for streams in [Streams::in_body(), Streams::in_chunk()] {
        let lines = streams.lines_at() - 30;
        let send = |from: usize, to: usize, variant, decoy| Act::Send {
            from: lines + from,
            len: to - from,
            variant,
            decoy,
        };
        let wait = || Act::Wait { milliseconds: 230 };
        let before = || {
            vec![
                Act::Continue {
                    len: lines,
                    variant: 0,
                    decoy: false,
                },
                Act::Ack,
                send(320, 420, 0, false),
                send(0, 2, 0, true),
                send(2, 44, 0, false),
                send(0, 1, 0, false),
                Act::Ack,
                wait(),
            ]
        };
        let next = || vec![send(1, 14, 0, false), send(14, 44, 1, true)];
        let beyond = || vec![send(1, 14, 0, false), send(14, 96, 1, false)];
        let in_parts = || {
            vec![
                send(1, 2, 1, true),
                Act::Ack,
                wait(),
                send(1, 2, 0, false),
                send(2, 44, 1, true),
            ]
        };
        let recovery = || {
            vec![
                send(1, 44, 1, true),
                Act::Ack,
                wait(),
                send(1, 14, 0, false),
                Act::Ack,
                wait(),
            ]
        };
        for (n, middle) in [next(), beyond(), in_parts(), recovery()]
            .into_iter()
            .enumerate()
        {
            let mut acts = before();
            acts.extend(middle);
            acts.extend([
                send(44, 96, 0, false),
                Act::Ack,
                wait(),
                send(44, 96, 0, false),
            ]);
            let mut engine = Engine::new(&listing.rules, &listed);
            let played = play(&mut engine, &streams, &acts, FIRST);
            let delivered = streams.bring_token(&listing, &played.stream);
            assert!(!delivered, "{n}: {:?}", played.ways);
        }
    }
}
