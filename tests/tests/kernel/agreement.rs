//! On one packet the real program and the scanner on the host give the same verdict.
//!
//! The program has the filter of fingerprints in front of its digests, the host has none.

use std::cell::RefCell;

use proptest::{prelude::*, sample::Index, test_runner::TestRunner};
use tokenblock_ebpf::{inspect, scan::Scan};
use tokenblock_tests::{
    bpf::{Fate, KEY, frame::Frame, rules},
    fixtures::{TOKENS, Token, all, listed},
};

use crate::{fixtures_listed, for_each_program, in_one_frame};

/// Bytes of payload that fit beside the longest headers.
const LONGEST: usize = 3400;

/// Fixtures, parts of them, listed tokens and what stands between such things, one behind the other.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let requests: Vec<Vec<u8>> = all().iter().filter_map(in_one_frame).collect();
    let tokens: Vec<String> = TOKENS.iter().map(|token: &Token| token.text()).collect();
    let whole = prop::sample::select(requests.clone());
    let part = (prop::sample::select(requests), any::<[Index; 2]>()).prop_map(|(bytes, ends)| {
        let mut ends = ends.map(|end| end.index(bytes.len() + 1));
        ends.sort_unstable();
        bytes[ends[0]..ends[1]].to_vec()
    });
    let token = prop::sample::select(tokens).prop_map(String::into_bytes);
    let glue = prop::sample::select(
        &[
            "\r\n",
            "\n",
            " ",
            "\t",
            ";",
            "; ",
            ",",
            "&",
            "?",
            "=",
            "\"",
            "%41",
            ".",
            "\r\n ",
            "\r\nAuthorization: ",
            "\r\nX-API-Key:",
            "\r\nCookie: session=",
            "?access_token=",
            "Bearer ",
            "Basic ",
            "x",
        ][..],
    )
    .prop_map(|text| text.as_bytes().to_vec());
    let bytes = prop::collection::vec(any::<u8>(), 1..40);
    let piece = prop_oneof![3 => whole, 3 => part, 4 => token, 6 => glue, 1 => bytes];
    prop::collection::vec(piece, 1..12).prop_map(|pieces| {
        let mut payload = pieces.concat();
        payload.truncate(LONGEST);
        payload
    })
}

#[test]
fn program_and_host_agree() {
    let Some(programs) = fixtures_listed("program_and_host_agree") else {
        return;
    };
    let programs = RefCell::new(programs);
    let (rules, listed) = (rules().unwrap(), listed(&KEY));
    let strategy = (
        payload().prop_filter("empty", |p| !p.is_empty()),
        0..4_usize,
        any::<bool>(),
    );
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let check = |(payload, which, v6): (Vec<u8>, usize, bool)| {
        let mut is_listed = |_, digest: &_| listed.iter().any(|(known, _)| known == digest);
        let mut scan = Scan::new(&rules);
        scan.restart_anywhere();
        let hit = inspect::stream(&mut scan, &rules, &payload, &mut is_listed).or_else(|| {
            // A declared body ended, and another message may begin though no line does.
            let (first, again) = scan.forks();
            for fork in [first, again].into_iter().filter(|fork| *fork != 0) {
                let message = payload.get(fork as usize - 1..).unwrap_or_default();
                scan.restart();
                let hit = inspect::stream(&mut scan, &rules, message, &mut is_listed);
                if hit.is_some() {
                    return hit;
                }
            }
            // Of a flow's first segment the program does not know whether it begins inside a request target.
            let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
            let line = payload.split_inclusive(is_end).next().unwrap_or_default();
            scan.restart_in_last_target();
            inspect::stream(&mut scan, &rules, line, &mut is_listed).or_else(|| {
                // Nor where messages end in it.
                scan.restart();
                scan.read_anywhere();
                inspect::stream(&mut scan, &rules, &payload, &mut is_listed)
            })
        });
        let want = hit.map(|hit| {
            let entry = listed
                .iter()
                .find(|(known, _)| *known == hit.digest)
                .unwrap();
            (hit.location, entry.1.token.0)
        });
        let text = String::from_utf8_lossy(&payload).into_owned();
        let frame = if v6 {
            Frame::v6(payload)
        } else {
            Frame::v4(payload)
        };
        let (program, bytes) = &for_each_program(&frame)[which];
        let mut programs = programs.borrow_mut();
        let fate = programs.run(program, bytes).unwrap();
        let seen: Vec<_> = programs
            .events()
            .iter()
            .map(|e| (e.location, e.token))
            .collect();
        prop_assert_eq!(
            fate == Fate::Dropped,
            want.is_some(),
            "{}: {:?}",
            program,
            text
        );
        prop_assert_eq!(seen, Vec::from_iter(want), "{}: {:?}", program, text);
        Ok(())
    };
    if let Err(error) = runner.run(&strategy, check) {
        panic!("{error}");
    }
}
