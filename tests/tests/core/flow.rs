//! The flow engine against a model of a TCP receiver.

use proptest::prelude::*;
use tokenblock_ebpf::verdict::{Counter, Policy};
use tokenblock_tests::{
    engine::{Engine, Fate},
    fixtures::Token,
    receiver::Receiver,
    trace::{
        Act, Inspector, Listing, START, Streams, TRUST_AFTER, TRUSTED_BODY, behind_body, play,
        sequence, trusted_body,
    },
};

fn act(len: usize) -> impl Strategy<Value = Act> {
    let variant = prop_oneof![6 => Just(0_usize), 2 => Just(1), 1 => Just(2)];
    let decoy = prop::bool::weighted(0.2);
    prop_oneof![
        4 => (0..len, 1..60_usize, variant.clone(), decoy)
            .prop_map(|(from, len, variant, decoy)| Act::Send { from, len, variant, decoy }),
        8 => (1..60_usize, variant, decoy)
            .prop_map(|(len, variant, decoy)| Act::Continue { len, variant, decoy }),
        4 => Just(Act::Ack),
        2 => (0..400_u64).prop_map(|milliseconds| Act::Wait { milliseconds }),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    prop_oneof![Just(Policy::Pass), Just(Policy::Drop), Just(Policy::Reset)]
}

/// How a connection of HTTP/2 begins (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Nothing is seen of what the receiver says: the connection is first seen in its middle.
struct Unheard<'a, 'b>(&'a mut Engine<'b>);

impl Inspector for Unheard<'_, '_> {
    fn accept(&mut self, _: u32) {}

    fn settle(&mut self, _: u32, _: u32) {}

    fn segment(&mut self, start: u32, bytes: &[u8], stamp: u32, now: u64) -> Counter {
        self.0.segment_stamped(start, bytes, stamp, now).counter()
    }
}

fn listing() -> Listing {
    Listing::new().unwrap()
}

/// What an application reads after these acts brings no listed token.
pub(crate) fn check(streams: &Streams, acts: &[Act], first: u32) -> Result<(), TestCaseError> {
    check_trusting(0, streams, acts, first)
}

/// The same where declared bodies are trusted after so many bytes.
fn check_trusting(
    after: u32,
    streams: &Streams,
    acts: &[Act],
    first: u32,
) -> Result<(), TestCaseError> {
    let listing = listing();
    let listed = |digest: &_| listing.has(digest);
    for sends in [false, true] {
        let mut engine = Engine::new(&listing.rules, &listed).trusting(after);
        if sends {
            engine = engine.sending(13);
        }
        let stream = play(&mut engine, streams, acts, first).stream;
        prop_assert!(
            !streams.bring_token(&listing, &stream),
            "{sends}, {:?}",
            String::from_utf8_lossy(&stream)
        );
    }
    Ok(())
}

/// So many cases, unless the environment says how many.
pub(crate) fn cases(usual: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|n| n.parse().ok());
    ProptestConfig {
        cases: cases.unwrap_or(usual),
        failure_persistence: None,
        max_shrink_iters: 500,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(4_000))]

    /// Whatever the receiver delivers bears no listed token.
    #[test]
    fn no_listed_token_is_delivered(
        acts in prop::collection::vec(act(320), 1..60),
        first in prop_oneof![Just(1_u32), Just(u32::MAX - 100), any::<u32>()],
    ) {
        check(&Streams::by_lines(0), &acts, first)?;
    }

    /// The same behind a body that is long enough for data ahead of a gap to be passed.
    #[test]
    fn no_listed_token_is_delivered_behind_a_body(
        acts in prop::collection::vec(act(900), 1..80),
        from in 0..900_usize,
    ) {
        let streams = Streams::by_lines(20_000);
        check(&streams, &behind_body(&streams, acts, from), 7)?;
    }

    /// The same where only the framing says that a request begins.
    #[test]
    fn no_listed_token_is_delivered_by_framing(
        acts in prop::collection::vec(act(320), 1..60),
        body in 0..120_usize,
    ) {
        check(&Streams::by_framing(body), &acts, u32::MAX - 100)?;
    }

    /// The same where much of it looks as if it were of no head, and overtakes one.
    #[test]
    fn no_listed_token_is_delivered_under_a_guess(
        acts in prop::collection::vec(act(360), 1..60),
        body in 0..120_usize,
        kind in 0..3_usize,
    ) {
        let streams = match kind {
            0 => Streams::overtaken(body),
            kind => Streams::in_odd_head(kind == 1),
        };
        check(&streams, &acts, u32::MAX - 100)?;
    }

    /// The same behind a body that is long enough for data ahead of a gap to be passed.
    #[test]
    fn no_listed_token_is_delivered_by_framing_behind_a_body(
        acts in prop::collection::vec(act(900), 1..80),
        from in 0..900_usize,
    ) {
        let streams = Streams::by_framing(20_000);
        check(&streams, &behind_body(&streams, acts, from), 7)?;
    }

    /// The same where the framing hides that a request begins.
    #[test]
    fn no_listed_token_is_delivered_adrift(
        acts in prop::collection::vec(act(420), 1..60),
        body in 0..120_usize,
    ) {
        check(&Streams::adrift(body), &acts, u32::MAX - 100)?;
    }

    /// The same behind a body that is long enough for data ahead of a gap to be passed.
    #[test]
    fn no_listed_token_is_delivered_adrift_behind_a_body(
        acts in prop::collection::vec(act(900), 1..80),
        from in 0..900_usize,
    ) {
        let streams = Streams::adrift(20_000);
        check(&streams, &behind_body(&streams, acts, from), 7)?;
    }

    /// The same behind and around what is passed unread.
    #[test]
    fn no_listed_token_is_delivered_behind_a_trusted_body(
        begin in prop::collection::vec(act(900), 1..30),
        end in prop::collection::vec(act(900), 1..60),
        from in 0..900_usize,
        by_lines: bool,
        first in prop_oneof![Just(7_u32), Just(u32::MAX - 3000)],
    ) {
        let streams = if by_lines {
            Streams::by_lines(TRUSTED_BODY)
        } else {
            Streams::by_framing(TRUSTED_BODY)
        };
        let acts = trusted_body(&streams, begin, end, from);
        check_trusting(TRUST_AFTER, &streams, &acts, first)?;
    }

    /// A connection that follows another of the same ends, in the same sequence numbers, is judged as if none had been.
    #[test]
    fn nothing_is_left_of_an_older_connection(
        older in prop::collection::vec(act(900), 1..60),
        acts in prop::collection::vec(act(900), 1..60),
        from in 0..900_usize,
        first in 0..40_u32,
    ) {
        let streams = Streams::by_lines(20_000);
        let listing = listing();
        let listed = |digest: &_| listing.has(digest);
        let [older, acts] = [older, acts].map(|acts| behind_body(&streams, acts, from));
        let mut used = Engine::new(&listing.rules, &listed);
        play(&mut used, &streams, &older, first);
        let again = play(&mut used, &streams, &acts, 7);
        let alone = play(&mut Engine::new(&listing.rules, &listed), &streams, &acts, 7);
        prop_assert_eq!(again.ways, alone.ways);
    }

    /// The same whatever becomes of connections that are first seen in their middle and of HTTP/2; and where that does not
    /// pass, none of it is delivered.
    #[test]
    fn no_listed_token_is_delivered_whatever_the_policies(
        acts in prop::collection::vec(act(320), 1..60),
        body in 0..120_usize,
        adrift: bool,
        mid_stream in policy(),
        http2 in policy(),
        begins: bool,
    ) {
        let mut streams = if adrift { Streams::adrift(body) } else { Streams::by_framing(body) };
        // Nobody's server takes the first line of HTTP/2 for anything else; the lines behind it are read as ever.
        for stream in &mut streams.variants {
            stream.splice(0..0, PREFACE.iter().copied());
        }
        let listing = listing();
        let listed = |digest: &_| listing.has(digest);
        let mut engine = Engine::new(&listing.rules, &listed)
            .in_mid_stream(mid_stream)
            .before_http2(http2);
        let first = u32::MAX - 100;
        let played = if begins {
            play(&mut engine, &streams, &acts, first)
        } else {
            play(&mut Unheard(&mut engine), &streams, &acts, first)
        };
        prop_assert!(!streams.bring_token(&listing, &played.stream));
        if mid_stream != Policy::Pass && !begins {
            prop_assert_eq!(played.stream.len(), 0);
        }
        if http2 != Policy::Pass {
            prop_assert!(!played.stream.starts_with(PREFACE));
        }
    }

    /// Where segments are lost behind the hook as well, a clean stream comes through, or its flow is reset; it does
    /// not hang, and nothing of it is blocked.
    #[test]
    fn clean_streams_never_hang(
        sizes in prop::collection::vec(1..1500_usize, 1..40),
        seed in 1..u64::MAX,
        body in 0..40_000_usize,
        cut in prop::sample::select(&[0_u64, 30][..]),
    ) {
        let [_, clean, _] = Streams::by_lines(body).variants;
        let (delivered, fates) = send(&clean, &sizes, seed, 3, cut);
        let reset = fates.iter().any(|fate| matches!(fate, Fate::Reset(_)));
        prop_assert!(!fates.contains(&Fate::Blocked));
        prop_assert!(reset || delivered == clean, "stuck at {} of {}: {:?}", delivered.len(), clean.len(), &fates[fates.len().saturating_sub(60)..]);
    }

    /// An honest client whose segments are lost, doubled and reordered on the way gets its clean stream
    /// through, and no flow is reset.
    #[test]
    fn clean_streams_come_through(
        sizes in prop::collection::vec(1..1500_usize, 1..40),
        seed in 1..u64::MAX,
        body in 0..40_000_usize,
    ) {
        let [_, clean, _] = Streams::by_lines(body).variants;
        let (delivered, fates) = send(&clean, &sizes, seed, 0, 0);
        let harmed = fates.iter().position(|fate| !matches!(fate, Fate::Passed(_) | Fate::Trusted | Fate::Dropped(_)));
        prop_assert_eq!(harmed, None, "{:?} of {}", fates, clean.len());
        prop_assert_eq!(delivered, clean);
    }
}

/// What the receiver is without is read otherwise than it was, while copies of all that follows pass around it.
#[test]
fn what_differs_among_copies_comes_through() {
    let [_, clean, _] = Streams::by_lines(10_024).variants;
    let sizes = [18, 37, 71, 323, 141, 1177, 965];
    let (delivered, fates) = send(&clean, &sizes, 15_567_595_342_288_392_325, 3, 0);
    let reset = fates.iter().any(|fate| matches!(fate, Fate::Reset(_)));
    assert!(reset || delivered == clean, "{}", delivered.len());
}

/// Sends a stream through the engine in segments of these sizes, over and over; of them 5 % are lost in front of it,
/// some `behind` it (per cent), and 25 % late; `cut` per cent come in two, anew each time. Gives what was delivered
/// and what became of each segment.
fn send(stream: &[u8], sizes: &[usize], seed: u64, behind: u64, cut: u64) -> (Vec<u8>, Vec<Fate>) {
    const FIRST: u32 = 5;
    let listing = listing();
    let listed = |digest: &_| listing.has(digest);
    let mut engine = Engine::new(&listing.rules, &listed)
        .in_mid_stream(Policy::Reset)
        .before_http2(Policy::Reset);
    engine.accept(FIRST);
    let mut receiver = Receiver::default();
    let (mut now, mut fates) = (START, Vec::new());
    let mut segments = Vec::new();
    let mut from = 0;
    for size in sizes.iter().cycle() {
        if from >= stream.len() {
            break;
        }
        let end = (from + size).min(stream.len());
        segments.push((from, end));
        from = end;
    }
    let mut random = seed;
    let mut percent = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % 100
    };
    for _round in 0..40_000 {
        if receiver.next() >= stream.len() {
            break;
        }
        // A window of segments, each perhaps lost, perhaps late.
        let unsettled = segments.iter().filter(|(_, end)| *end > receiver.next());
        let mut flight: Vec<_> = unsettled
            .take(20)
            .map(|(start, end)| ((*start).max(receiver.next()), *end))
            .collect();
        for (i, (start, end)) in flight.clone().into_iter().enumerate() {
            if end - start > 1 && percent() < cut {
                let middle = start + 1 + (end - start - 1) * i / flight.len();
                flight[i] = (start, middle);
                flight.push((middle, end));
            }
        }
        for i in 1..flight.len() {
            if percent() < 25 {
                flight.swap(i - 1, i);
            }
        }
        for (start, end) in flight {
            now += 10_000;
            if percent() < 5 {
                continue;
            }
            let fate = engine.segment(sequence(FIRST, start), &stream[start..end], now);
            fates.push(fate);
            match fate {
                Fate::Passed(_) | Fate::Trusted | Fate::Copied if percent() < behind => {}
                Fate::Passed(_) | Fate::Trusted | Fate::Copied => {
                    receiver.take(start, &stream[start..end]);
                }
                Fate::Dropped(_) => {}
                Fate::Blocked
                | Fate::Reset(_)
                | Fate::Ambiguous
                | Fate::Refused(_)
                | Fate::Dead => {
                    return (receiver.stream, fates);
                }
            }
            engine.settle(sequence(FIRST, receiver.next()));
        }
        now += 300 * 1_000_000;
    }
    (receiver.stream, fates)
}

/// What is acknowledged ends inside a segment that says where a message ends: it was passed, and did not come through.
#[test]
fn a_length_is_not_read_on_top_of_another() {
    let send = |from, len, variant| Act::Send {
        from,
        len,
        variant,
        decoy: true,
    };
    let next = |len| Act::Continue {
        len,
        variant: 0,
        decoy: false,
    };
    let wait = |milliseconds| Act::Wait { milliseconds };
    // To the first digit, or in front of it.
    for first in [43, 44, 45] {
        for end in 44..52 {
            let acts = [
                next(first),
                wait(172),
                wait(125),
                send(0, end, 0),
                wait(309),
                next(59),
                next(48),
                next(48),
                next(48),
            ];
            for body in 0..60 {
                check(&Streams::by_framing(body), &acts, 7).unwrap();
            }
        }
    }
}

/// Passed ahead of a gap: the rest of a header line that begins in the gap. That a later word of it is no header's name
/// says nothing of its first.
#[test]
fn a_header_cut_by_a_gap_is_not_passed() {
    const FIRST: u32 = 5;
    let listing = listing();
    let listed = |digest: &_| listing.has(digest);
    let token = Token::Opaque.text();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n";
    // A word that is longer than what is read of a line at once.
    let long = "z".repeat(40);
    for (begin, rest, has_token) in [
        (
            "text\r\nAuthor",
            format!("ization: {token}\r\n{long} a\r\n"),
            true,
        ),
        (
            "text\r\nAuthor",
            format!("s of text\r\n{long}: a\r\n"),
            false,
        ),
        (
            "text\r\nAuthor",
            " of text\r\nand more of it\r\n".to_owned(),
            false,
        ),
    ] {
        let mut engine = Engine::new(&listing.rules, &listed);
        engine.accept(FIRST);
        let mut now = START;
        let mut at = 0;
        let mut send = |offset: usize, bytes: &str| {
            now += 10_000;
            engine.segment(sequence(FIRST, offset), bytes.as_bytes(), now)
        };
        for piece in [head, "some text\r\n"] {
            assert!(matches!(send(at, piece), Fate::Passed(_)));
            at += piece.len();
        }
        let ahead = send(at + begin.len(), &rest);
        let filler = send(at, begin);
        let both = matches!(ahead, Fate::Passed(_)) && matches!(filler, Fate::Passed(_));
        assert_eq!(both, !has_token, "{rest}: {ahead:?}, {filler:?}");
    }
}

/// A method that begins beyond ASCII, cut among those bytes: the flow keeps no name of it, so what is behind the cut may end it.
#[test]
fn a_method_beyond_ascii_hides_no_target_wherever_it_is_cut() {
    const FIRST: u32 = 5;
    let listing = listing();
    let listed = |digest: &_| listing.has(digest);
    let token = Token::Opaque.text();
    let methods: [&[u8]; 5] = [
        b"\xe9\xe8\xe7GET",
        b"\xe9\xe8\xe7",
        b"\xe9\xe8G\xe7ET",
        b"\xe9\xe8\xe7G\xe6",
        b"\xe9\xe8\xe7G:T",
    ];
    for method in methods {
        for target in [" /", "  /", "\t*", " http://a/"] {
            let behind = format!("{target}?access_token={token} HTTP/1.1\r\nHost: a\r\n\r\n");
            let request = [method, behind.as_bytes()].concat();
            for first in 1..method.len() + 2 {
                for second in first + 1..method.len() + 3 {
                    let mut engine = Engine::new(&listing.rules, &listed);
                    engine.accept(FIRST);
                    let cuts = [(0, first), (first, second), (second, request.len())];
                    let blocked = cuts.iter().any(|(from, to)| {
                        let at = sequence(FIRST, *from);
                        matches!(
                            engine.segment(at, &request[*from..*to], START),
                            Fate::Blocked
                        )
                    });
                    let text = request.escape_ascii();
                    assert!(blocked, "{text} cut at {first} and {second}");
                }
            }
        }
    }
}
