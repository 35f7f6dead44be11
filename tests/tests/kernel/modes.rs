//! Monitor mode, alert entries, the shortest candidate, changes of the list, a full event buffer.

use tokenblock::denylist::{Action, Fingerprint, Listed, ShortTokenId, TokenDigest};
use tokenblock_ebpf::{digest::Domain, verdict::Counter};
use tokenblock_tests::{
    bpf::{Fate, KEY, Programs, Setup, frame::Frame},
    fixtures::listed,
    gate,
};

use crate::{compromised, fixtures_listed};

const PROGRAM: &str = "ingress_ethernet";

fn entry(token: &str, action: Action) -> (TokenDigest, Listed) {
    let listed = Listed {
        token: ShortTokenId([7; 6]),
        action,
        fingerprint: Fingerprint::of(&KEY, Domain::Exact, token.as_bytes()),
    };
    (
        TokenDigest::of(&KEY, Domain::Exact, token.as_bytes()),
        listed,
    )
}

fn request(tokens: &[&str]) -> Vec<u8> {
    let lines: Vec<String> = tokens
        .iter()
        .map(|t| format!("X-API-Key: {t}\r\n"))
        .collect();
    let payload = format!("GET / HTTP/1.1\r\n{}\r\n", lines.concat());
    Frame::v4(payload).ethernet().unwrap()
}

#[test]
fn monitor_reports_and_passes() {
    if !gate::programs("monitor_reports_and_passes") {
        return;
    }
    let mut programs = Programs::with_fixtures(&Setup {
        monitor: true,
        ..Setup::default()
    })
    .unwrap();
    let frame = Frame::v4(compromised()).ethernet().unwrap();
    let (fate, counts) = programs.counted(PROGRAM, &frame).unwrap();
    assert_eq!(fate, Fate::Passed);
    assert_eq!(counts.get(Counter::Alerted.name()), Some(&1));
    assert_eq!(counts.get(Counter::Blocked.name()), None);
    let blocked: Vec<u8> = programs
        .events()
        .iter()
        .map(|event| event.blocked)
        .collect();
    assert_eq!(blocked, [0]);
}

#[test]
fn an_alert_passes_and_the_scan_goes_on() {
    if !gate::programs("an_alert_passes_and_the_scan_goes_on") {
        return;
    }
    let mut programs = Programs::load(&Setup::default()).unwrap();
    let (watched, refused) = ("watched-token", "refused-token");
    programs
        .list(&[entry(watched, Action::Alert), entry(refused, Action::Block)])
        .unwrap();
    assert_eq!(
        programs.run(PROGRAM, &request(&[watched])).unwrap(),
        Fate::Passed
    );
    assert_eq!(programs.events().len(), 1);
    let (fate, counts) = programs
        .counted(PROGRAM, &request(&[watched, refused]))
        .unwrap();
    assert_eq!(fate, Fate::Dropped);
    assert_eq!(counts.get(Counter::Alerted.name()), Some(&1));
    assert_eq!(counts.get(Counter::Blocked.name()), Some(&1));
    let blocked: Vec<u8> = programs
        .events()
        .iter()
        .map(|event| event.blocked)
        .collect();
    assert_eq!(blocked, [0, 1]);
}

#[test]
fn short_candidates_are_not_looked_up() {
    if !gate::programs("short_candidates_are_not_looked_up") {
        return;
    }
    let mut programs = Programs::load(&Setup::default()).unwrap();
    programs
        .list(&[
            entry("7-bytes", Action::Block),
            entry("8-bytes!", Action::Block),
        ])
        .unwrap();
    let (fate, counts) = programs.counted(PROGRAM, &request(&["7-bytes"])).unwrap();
    assert_eq!(
        (fate, counts.get(Counter::Candidates.name())),
        (Fate::Passed, None)
    );
    assert_eq!(
        programs.run(PROGRAM, &request(&["8-bytes!"])).unwrap(),
        Fate::Dropped
    );
}

#[test]
fn an_addition_and_a_removal_take_effect() {
    if !gate::programs("an_addition_and_a_removal_take_effect") {
        return;
    }
    let mut programs = Programs::load(&Setup::default()).unwrap();
    let frame = Frame::v6(compromised()).ethernet().unwrap();
    let entries = listed(&KEY);
    let digests: Vec<TokenDigest> = entries.iter().map(|(digest, _)| *digest).collect();
    for _ in 0..2 {
        assert_eq!(programs.run(PROGRAM, &frame).unwrap(), Fate::Passed);
        programs.list(&entries).unwrap();
        assert_eq!(programs.run(PROGRAM, &frame).unwrap(), Fate::Dropped);
        programs.unlist(&digests).unwrap();
    }
    assert_eq!(programs.run(PROGRAM, &frame).unwrap(), Fate::Passed);
}

#[test]
fn a_full_buffer_loses_events_and_no_blocks() {
    const RUNS: u32 = 20_000;
    let Some(mut programs) = fixtures_listed("a_full_buffer_loses_events_and_no_blocks") else {
        return;
    };
    let frame = Frame::v4(compromised()).ethernet().unwrap();
    for _ in 0..RUNS {
        programs.run(PROGRAM, &frame).unwrap();
    }
    let (fate, counts) = programs.counted(PROGRAM, &frame).unwrap();
    assert_eq!(fate, Fate::Dropped);
    assert_eq!(
        counts.get(Counter::EventLost.name()),
        Some(&1),
        "{counts:?}"
    );
    let totals = programs.totals().unwrap();
    let total = |counter: Counter| totals.get(counter.name()).copied().unwrap_or(0);
    assert_eq!(total(Counter::Blocked), u64::from(RUNS) + 1);
    let read = programs.events().len() as u64;
    assert!(read > 1000, "{read}");
    assert_eq!(read + total(Counter::EventLost), u64::from(RUNS) + 1);
    // Read, it has room again.
    programs.run(PROGRAM, &frame).unwrap();
    assert_eq!(programs.events().len(), 1);
}
