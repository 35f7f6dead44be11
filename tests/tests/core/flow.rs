//! The flow engine against a model of a TCP receiver.

use proptest::prelude::*;
use tokenblock_ebpf::{inspect, scan::Scan};
use tokenblock_tests::{
    engine::{Engine, Fate},
    fixtures::Token,
    receiver::Receiver,
};

use crate::cuts::Judge;

const SECOND: u64 = 1_000_000_000;

/// What an attacker, a lossy path or an honest client does.
#[derive(Clone, Debug)]
enum Act {
    /// Sends the bytes `from..from + len` of the stream, or of its variant.
    Send {
        from: usize,
        len: usize,
        variant: usize,
        decoy: bool,
    },
    /// Sends on from where the receiver stands.
    Continue {
        len: usize,
        variant: usize,
        decoy: bool,
    },
    /// The receiver's acknowledgment is seen.
    Ack,
    /// Time passes.
    Wait { milliseconds: u64 },
}

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

/// Three streams of one length: one with a listed token, one without, one that is shifted by a byte.
fn variants(body: usize) -> [Vec<u8>; 3] {
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
    [evil, clean, shifted]
}

fn has_hit(judge: &Judge, stream: &[u8]) -> bool {
    let mut scan = Scan::new(&judge.rules);
    inspect::stream(&mut scan, &judge.rules, stream, &mut |_, digest| {
        judge.is_listed(digest)
    })
    .is_some()
}

/// Plays acts; gives what the application read.
fn play(
    judge: &Judge,
    variants: &[Vec<u8>; 3],
    acts: &[Act],
    first: u32,
    attached_late: bool,
) -> Vec<u8> {
    let listed = |digest: &_| judge.is_listed(digest);
    let mut engine = Engine::new(&judge.rules, &listed);
    let mut receiver = Receiver::default();
    let mut now = SECOND;
    if !attached_late {
        engine.accept(first);
    }
    for act in acts {
        now += 1_000_000;
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
            Act::Ack => {
                engine.settle(at(first, receiver.next()));
                continue;
            }
            Act::Wait { milliseconds } => {
                now += milliseconds * 1_000_000;
                if milliseconds >= 200 {
                    // A receiver's delayed acknowledgment has come by then.
                    engine.settle(at(first, receiver.next()));
                }
                continue;
            }
        };
        let bytes = &variants[variant];
        let from = from.min(bytes.len());
        let bytes = &bytes[from..(from + len).min(bytes.len())];
        if bytes.is_empty() {
            continue;
        }
        if let Fate::Passed(_) = engine.segment(at(first, from), bytes, now)
            && !decoy
        {
            receiver.take(from, bytes);
        }
    }
    receiver.stream
}

fn at(first: u32, offset: usize) -> u32 {
    first.wrapping_add(u32::try_from(offset).unwrap())
}

fn cases() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|n| n.parse().ok());
    ProptestConfig {
        cases: cases.unwrap_or(4_000),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases())]

    /// Whatever the receiver delivers bears no listed token.
    #[test]
    fn no_listed_token_is_delivered(
        acts in prop::collection::vec(act(320), 1..60),
        first in prop_oneof![Just(1_u32), Just(u32::MAX - 100), any::<u32>()],
    ) {
        let judge = Judge::new();
        let variants = variants(0);
        let stream = play(&judge, &variants, &acts, first, false);
        prop_assert!(!has_hit(&judge, &stream), "{:?}", String::from_utf8_lossy(&stream));
    }

    /// The same behind a body that is long enough for data ahead of a gap to be passed.
    #[test]
    fn no_listed_token_is_delivered_behind_a_body(
        acts in prop::collection::vec(act(900), 1..80),
        from in 0..900_usize,
    ) {
        let judge = Judge::new();
        let variants = variants(20_000);
        let skip = variants[0].len() - 900 + from % 400;
        let mut all = vec![Act::Continue { len: skip, variant: 0, decoy: false }, Act::Ack];
        all.extend(acts.into_iter().map(|act| match act {
            Act::Send { from, len, variant, decoy } => {
                Act::Send { from: skip + from, len, variant, decoy }
            }
            other @ (Act::Continue { .. } | Act::Ack | Act::Wait { .. }) => other,
        }));
        let stream = play(&judge, &variants, &all, 7, false);
        prop_assert!(!has_hit(&judge, &stream), "{:?}", String::from_utf8_lossy(&stream));
    }

    /// An honest client whose segments are lost, doubled and reordered on the way gets its clean stream
    /// through, and no flow is reset.
    #[test]
    fn clean_streams_come_through(
        sizes in prop::collection::vec(1..1500_usize, 1..40),
        seed in 1..u64::MAX,
        body in 0..40_000_usize,
    ) {
        let judge = Judge::new();
        let [_, clean, _] = variants(body);
        let listed = |digest: &_| judge.is_listed(digest);
        let mut engine = Engine::new(&judge.rules, &listed);
        engine.accept(5);
        let mut receiver = Receiver::default();
        let mut now = SECOND;
        let mut segments = Vec::new();
        let mut from = 0;
        for size in sizes.iter().cycle() {
            if from >= clean.len() {
                break;
            }
            let end = (from + size).min(clean.len());
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
        let mut rounds = 0;
        let mut history = Vec::new();
        while receiver.next() < clean.len() {
            rounds += 1;
            prop_assert!(rounds < 40_000, "stuck at {} of {}", receiver.next(), clean.len());
            // A window of segments, each perhaps lost, perhaps late.
            let unsettled = segments.iter().filter(|(_, end)| *end > receiver.next()).take(20);
            let mut flight: Vec<_> = unsettled.copied().collect();
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
                let fate = engine.segment(at(5, start), &clean[start..end], now);
                history.push((start, end, fate));
                match fate {
                    Fate::Passed(_) => receiver.take(start, &clean[start..end]),
                    Fate::Dropped(_) => {}
                    Fate::Blocked | Fate::Reset(_) | Fate::Dead => prop_assert!(false, "{:?} of {}", history.rchunks(30).next(), clean.len()),
                }
                engine.settle(at(5, receiver.next()));
            }
            now += 300 * 1_000_000;
        }
        prop_assert_eq!(receiver.stream, clean);
    }
}
