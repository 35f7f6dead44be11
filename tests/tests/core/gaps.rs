//! Several gaps at once, and segments that lie in their middle.

use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use tokenblock_ebpf::{flow::Place, verdict::Counter};
use tokenblock_tests::{
    bodies::{ALL, Framing},
    engine::{Engine, Fate},
    sender::{Path, send},
    trace::{Act, Inspector, Listing, Streams, play},
};

use crate::flow::cases;

const FIRST: u32 = 7;
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
fn played(cuts: &[usize], events: &[Event]) -> (usize, bool) {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let streams = Streams::in_body();
    let mut inspector = Counting {
        engine: Engine::new(&listing.rules, &listed),
        inside: 0,
    };
    let acts = acts(&streams, cuts, events);
    let stream = play(&mut inspector, &streams, &acts, FIRST).stream;
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
        let (_, delivered) = played(&cuts, &events);
        prop_assert!(!delivered);
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
        let streams = Streams::in_body();
        let mut engine = Engine::new(&listing.rules, &listed);
        let path = Path { lost, lost_behind, early, seed };
        let sent = send(&mut engine, &streams.variants[..1], &sizes, path);
        prop_assert!(!streams.bring_token(&listing, &sent.stream));
    }

    /// Where segments are lost behind the hook as well, an upload comes through, or its flow is reset.
    #[test]
    fn uploads_never_hang(
        body in prop::sample::select(&ALL[..]),
        sizes in prop::collection::vec(200..1449_usize, 1..20),
        lost_behind in 0..4_u64,
        early in 10..40_u64,
        seed in 1..u64::MAX,
    ) {
        let listing = Listing::new().unwrap();
        let listed = |digest: &_| listing.has(digest);
        let mut engine = Engine::new(&listing.rules, &listed);
        let request = [Framing::Declared.request(&body.bytes(60_000))];
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
    let mut inside = 0;
    for _ in 0..200 {
        let (cuts, events) = inputs.new_tree(&mut runner).unwrap().current();
        inside += played(&cuts, &events).0;
    }
    assert!(inside >= 200, "{inside}");
}
