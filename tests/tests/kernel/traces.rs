//! The traces of the flow engine's property test on the real program: verdict by verdict what the engine on the host
//! says.

use anyhow::Result;
use arbitrary::{Arbitrary as _, Unstructured};
use sha2::{Digest as _, Sha256};
use tokenblock_ebpf::verdict::{COUNTERS, Counter};
use tokenblock_tests::{
    bodies::{Body, Framing},
    bpf::{Programs, Setup, frame::Frame},
    engine::Engine,
    gate,
    netns::Netns,
    sender::{Path, send},
    trace::{Act, Inspector, Listing, START, Streams, copies_from_open_states, play, reaches},
};

const REQUESTS: &str = "ingress_ethernet";
const ANSWERS: &str = "egress_ethernet";
/// The ways by which a segment of a request may leave.
const WAYS: [Counter; 12] = [
    Counter::Settled,
    Counter::Trusted,
    Counter::Clean,
    Counter::TooEarly,
    Counter::OutOfWindow,
    Counter::Duplicate,
    Counter::OldTimestamp,
    Counter::Blocked,
    Counter::GapConflict,
    Counter::AmbiguousFraming,
    Counter::BlockedAgain,
    Counter::Malformed,
];
/// Traces of each kind.
const TRACES: u32 = 150;
/// Most acts of a trace.
const ACTS: usize = 60;

/// The real program.
struct Real<'a> {
    programs: &'a mut Programs,
    /// When a segment was last passed, on the clock of the trace.
    passed_at: u64,
}

impl Real<'_> {
    fn answer(&mut self, frame: &Frame) {
        let bytes = frame.ethernet().unwrap();
        self.programs.repeat(ANSWERS, &bytes, 1).unwrap();
    }

    /// Runs a segment; which of [`WAYS`] was counted.
    fn run(&mut self, frame: &[u8]) -> Result<Counter> {
        let before = self.programs.totals()?;
        self.programs.repeat(REQUESTS, frame, 1)?;
        let after = self.programs.totals()?;
        let name = |way: Counter| COUNTERS.get(way as usize).copied().unwrap_or("?");
        let moved = |way: &Counter| before.get(name(*way)) != after.get(name(*way));
        let mut ways = WAYS.into_iter().filter(moved);
        Ok(ways.next().unwrap_or(Counter::NotIp))
    }
}

impl Inspector for Real<'_> {
    fn accept(&mut self, ack: u32) {
        self.answer(&Frame::v4("").answer(ack).syn());
    }

    fn settle(&mut self, ack: u32, echo: u32) {
        let own = u32::from(echo != 0);
        self.answer(&Frame::v4("").answer(ack).stamped(own, echo));
    }

    fn segment(&mut self, start: u32, bytes: &[u8], stamp: u32, now: u64) -> Counter {
        self.programs.age_flows(now - self.passed_at).unwrap();
        let frame = Frame::v4(bytes).at(start).stamped(stamp, 1);
        let frame = frame.ethernet().unwrap();
        let way = self.run(&frame).unwrap();
        if reaches(way) && way != Counter::Settled {
            self.passed_at = now;
        }
        way
    }
}

/// The `n`th trace: the same in every run.
fn acts(kind: &str, n: u32) -> Vec<Act> {
    let seeds = (0..32).flat_map(|part| Sha256::digest(format!("{kind} {n} {part}")));
    let bytes: Vec<u8> = seeds.collect();
    let mut bytes = Unstructured::new(&bytes);
    (0..ACTS)
        .map_while(|_| Act::arbitrary(&mut bytes).ok())
        .collect()
}

fn check(programs: &mut Programs, trust_after: u32, kind: &str, streams: &Streams) {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let mut seen = std::collections::BTreeSet::new();
    for n in 0..TRACES {
        let mut acts = acts(kind, n);
        // A short stream from its start; of a long one the end.
        let skip = streams.variants[0].len().saturating_sub(700);
        for act in &mut acts {
            match act {
                Act::Send { from, .. } => *from += skip,
                // Far from what counts as a loss: the program's clock goes on while it is set.
                Act::Wait { milliseconds } => {
                    *milliseconds = if *milliseconds < 200 { 1 } else { 400 };
                }
                Act::Continue { .. } | Act::Ack => {}
            }
        }
        for at in (0..skip).step_by(1400) {
            let len = (skip - at).min(1400);
            acts.insert(0, Act::Ack);
            acts.insert(
                0,
                Act::Continue {
                    len,
                    variant: 0,
                    decoy: false,
                },
            );
        }
        let mut engine = Engine::new(&listing.rules, &listed).trusting(trust_after);
        let host = play(&mut engine, streams, &acts, u32::MAX - 200);
        let mut run = || {
            programs.forget_flows().unwrap();
            let mut real = Real {
                programs,
                passed_at: START,
            };
            play(&mut real, streams, &acts, u32::MAX - 200)
        };
        let mut kernel = run();
        // Its clock goes on: a run that was held up for long may see a loss where there is none.
        for _ in 0..3 {
            if kernel.ways != host.ways {
                kernel = run();
            }
        }
        assert_eq!(kernel.ways, host.ways, "{kind} {n}: {acts:?}");
        assert_eq!(kernel.stream, host.stream, "{kind} {n}");
        seen.extend(host.ways.into_iter().map(|way| way as u32));
    }
    let trusted = seen.contains(&(Counter::Trusted as u32));
    assert_eq!(trusted, trust_after != 0, "{kind}");
    assert!(
        seen.len() >= 6,
        "{kind}: too few kinds of verdicts: {seen:?}"
    );
}

/// Uploads over paths that lose and reorder, on both.
fn check_paths(programs: &mut Programs) {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let mut seen = std::collections::BTreeSet::new();
    for (n, body) in (1..).zip([Body::Text, Body::Json, Body::Binary, Body::Settings]) {
        for (lost, early) in [(5, 0), (0, 25)] {
            let path = Path {
                lost,
                lost_behind: 0,
                early,
                seed: n * 0x9e37_79b9,
            };
            let request = [Framing::Declared.request(&body.bytes(100_000))];
            let mut engine = Engine::new(&listing.rules, &listed);
            let host = send(&mut engine, &request, &[1448], path);
            let mut run = || {
                programs.forget_flows().unwrap();
                let mut real = Real {
                    programs,
                    passed_at: START,
                };
                send(&mut real, &request, &[1448], path)
            };
            let mut kernel = run();
            for _ in 0..3 {
                if kernel.ways != host.ways {
                    kernel = run();
                }
            }
            assert_eq!(kernel.ways, host.ways, "{body:?}, {path:?}");
            assert!(kernel.stream == request.concat(), "{body:?}, {path:?}");
            seen.extend(host.ways.into_iter().map(|(_, _, way)| way as u32));
        }
    }
    assert!(seen.contains(&(Counter::OldTimestamp as u32)), "{seen:?}");
}

#[test]
fn the_program_judges_lossy_paths_as_the_engine_on_the_host() {
    let name = "the_program_judges_lossy_paths_as_the_engine_on_the_host";
    if !gate::programs(name) {
        return;
    }
    let mut programs = Programs::with_fixtures(&Setup::default()).unwrap();
    check_paths(&mut programs);
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    programs.forget_flows().unwrap();
    let mut real = Real {
        programs: &mut programs,
        passed_at: START,
    };
    let host = copies_from_open_states(&mut Engine::new(&listing.rules, &listed));
    assert_eq!(copies_from_open_states(&mut real), host);
}

#[test]
fn the_program_judges_as_the_engine_on_the_host() {
    let name = "the_program_judges_as_the_engine_on_the_host";
    if !gate::programs(name) || !gate::namespaces(name) {
        return;
    }
    // Answers to what is reset leave through a loopback interface of their own.
    let netns = Netns::new().unwrap();
    netns
        .enter(|| {
            let mut programs = Programs::with_fixtures(&Setup::default()).unwrap();
            check(&mut programs, 0, "lines", &Streams::by_lines(0));
            check(&mut programs, 0, "framing", &Streams::by_framing(60));
            check(&mut programs, 0, "in body", &Streams::in_body());
            check(&mut programs, 0, "in chunk", &Streams::in_chunk());
            check(&mut programs, 0, "long lines", &Streams::by_lines(20_000));
            check(
                &mut programs,
                0,
                "long framing",
                &Streams::by_framing(20_000),
            );
            let trust_after = 3000;
            let mut programs = Programs::with_fixtures(&Setup {
                trust_after,
                ..Setup::default()
            })
            .unwrap();
            let streams = Streams::by_lines(80_000);
            check(&mut programs, trust_after, "trusted lines", &streams);
            let streams = Streams::by_framing(80_000);
            check(&mut programs, trust_after, "trusted framing", &streams);
        })
        .unwrap();
}
