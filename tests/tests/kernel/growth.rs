//! The denylist grows under the programs, and holds what was put into it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tokenblock::denylist::{Action, Fingerprint, Listed, ShortTokenId, TokenDigest};
use tokenblock_ebpf::digest::Domain;
use tokenblock_tests::{
    bpf::{Fate, KEY, Programs, Setup, frame::Frame},
    fixtures::listed,
    gate,
};

use crate::compromised;

fn entry(token: &str, action: Action) -> (TokenDigest, Listed) {
    let listed = Listed {
        token: ShortTokenId([7; 6]),
        action,
        fingerprint: Fingerprint::of(&KEY, Domain::Exact, token.as_bytes()),
    };
    let digest = TokenDigest::of(&KEY, Domain::Exact, token.as_bytes());
    (digest, listed)
}

/// A request with a token, as `ingress_ethernet` gets it.
fn request(token: &str) -> Vec<u8> {
    let request = format!("GET / HTTP/1.1\r\nAuthorization: Bearer {token}\r\n\r\n");
    Frame::v4(request).ethernet().unwrap()
}

#[test]
fn what_is_listed_stays_listed_while_the_list_grows_a_thousandfold() {
    if !gate::programs("what_is_listed_stays_listed_while_the_list_grows_a_thousandfold") {
        return;
    }
    let mut programs = Programs::load(&Setup::default()).unwrap();
    let fate = |programs: &mut Programs, token: &str| {
        programs.run("ingress_ethernet", &request(token)).unwrap()
    };
    let (mut first, mut size) = (0, 1000);
    // Beyond the first table, what it holds beside it, and the first page of the filter.
    while first < 1_000_000 {
        let new: Vec<_> = (first..first + size)
            .map(|n| entry(&format!("token-{n:09}"), Action::Block))
            .collect();
        programs.list(&new).unwrap();
        for n in [0, 1, first / 2, first, first + size - 1] {
            let token = format!("token-{n:09}");
            assert_eq!(
                fate(&mut programs, &token),
                Fate::Dropped,
                "{token} of {}",
                first + size
            );
        }
        assert_eq!(fate(&mut programs, "token-none"), Fate::Passed);
        first += size;
        size *= 3;
    }
    let held = programs.entries();
    assert_eq!(held.len(), first);
    let gone: Vec<_> = held.keys().copied().collect();
    programs.unlist(&gone).unwrap();
    assert!(programs.entries().is_empty());
    assert_eq!(fate(&mut programs, "token-000000000"), Fate::Passed);
    programs.list(&listed(&KEY)).unwrap();
    let frame = Frame::v4(compromised()).ethernet().unwrap();
    let fate = programs.run("ingress_ethernet", &frame).unwrap();
    assert_eq!(fate, Fate::Dropped);
}

/// Digests whose places in any table are few, so that they meet there.
fn digests() -> impl Strategy<Value = TokenDigest> {
    (0..3_u8, 0..3_u8, 0..40_u8).prop_map(|(first, second, last)| {
        let mut digest = [0; 16];
        (digest[0], digest[7], digest[15]) = (first, second, last);
        TokenDigest(digest)
    })
}

#[derive(Clone, Debug)]
enum Step {
    Add(Vec<(TokenDigest, bool)>),
    Remove(Vec<TokenDigest>),
}

#[test]
fn the_table_is_a_map() {
    if !gate::programs("the_table_is_a_map") {
        return;
    }
    let step = prop_oneof![
        2 => prop::collection::vec((digests(), any::<bool>()), 0..200).prop_map(Step::Add),
        1 => prop::collection::vec(digests(), 0..100).prop_map(Step::Remove),
    ];
    let config = ProptestConfig {
        cases: 20,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let check = |steps: Vec<Step>| {
        let mut programs = Programs::load(&Setup::default()).unwrap();
        let mut model = BTreeMap::new();
        for step in steps {
            match step {
                Step::Add(entries) => {
                    let entries: Vec<_> = entries
                        .into_iter()
                        .map(|(digest, block)| {
                            let action = if block { Action::Block } else { Action::Alert };
                            (
                                digest,
                                Listed {
                                    action,
                                    ..entry("any", action).1
                                },
                            )
                        })
                        .collect();
                    programs.list(&entries).unwrap();
                    let held = entries.iter().map(|(digest, l)| (*digest, l.action as u8));
                    model.extend(held);
                }
                Step::Remove(digests) => {
                    programs.unlist(&digests).unwrap();
                    model.retain(|digest, _| !digests.contains(digest));
                }
            }
            let held = programs.entries();
            let held: BTreeMap<_, _> = held.iter().map(|(digest, e)| (*digest, e.action)).collect();
            prop_assert_eq!(&held, &model);
        }
        Ok(())
    };
    if let Err(error) = runner.run(&prop::collection::vec(step, 1..12), check) {
        panic!("{error}");
    }
}
