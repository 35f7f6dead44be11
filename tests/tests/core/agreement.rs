//! The word-wise scanner and the naive reference look up the same candidates, in the same order.

use proptest::prelude::*;
use tokenblock_ebpf::{
    digest::TokenDigest,
    filter::NoFilter,
    inspect,
    location::{LocationId, LocationKind},
};
use tokenblock_tests::{
    reference::{self, Candidate, Config},
    scanned::{rules, scanned},
};

use crate::generate::{config, many_cases, sizes, stream};

type Lookup = (LocationId, TokenDigest);

fn lookups(config: &Config, candidates: &[Candidate]) -> Vec<Lookup> {
    candidates
        .iter()
        .map(|candidate| (candidate.location, candidate.digest(config)))
        .collect()
}

fn check(config: &Config, bytes: &[u8], sizes: &[usize]) -> Result<(), TestCaseError> {
    let want = lookups(config, &reference::stream(config, bytes));
    let text = String::from_utf8_lossy(bytes);
    let rules = rules(config).unwrap();
    let whole = scanned(&rules, bytes, &[usize::MAX], &NoFilter);
    prop_assert_eq!(&whole, &want, "whole: {:?}", text);
    let pieces = scanned(&rules, bytes, sizes, &NoFilter);
    prop_assert_eq!(&pieces, &want, "in pieces: {:?}", text);
    Ok(())
}

proptest! {
    #![proptest_config(many_cases())]

    #[test]
    fn on_grammar((config, bytes) in stream(), sizes in sizes()) {
        check(&config, &bytes, &sizes)?;
    }

    #[test]
    fn on_bytes(config in config(), bytes: Vec<u8>, sizes in sizes()) {
        check(&config, &bytes, &sizes)?;
    }

    #[test]
    fn on_interesting_bytes(
        config in config(),
        bytes in prop::collection::vec(prop::sample::select(&b"\r\n \t:;,=&?%\\\".#+[]-x240aGE\xa0\x85"[..]), 0..120),
        sizes in sizes(),
    ) {
        check(&config, &bytes, &sizes)?;
    }

    /// The proxy's way in: values and queries that are complete, and that hold no line end.
    #[test]
    fn on_complete_values((config, mut bytes) in stream()) {
        bytes.retain(|byte| !matches!(byte, b'\r' | b'\n'));
        let rules = rules(&config).unwrap();
        for (kind, name) in &config.locations {
            let mut seen = Vec::new();
            let mut collect = |location, digest: &_| {
                seen.push((location, *digest));
                false
            };
            let want = match kind {
                LocationKind::Header => {
                    inspect::header(&rules, name.as_bytes(), &bytes, &mut collect);
                    reference::header(&config, name.as_bytes(), &bytes)
                }
                LocationKind::Cookie => {
                    inspect::header(&rules, b"cookie", &bytes, &mut collect);
                    reference::header(&config, b"cookie", &bytes)
                }
                LocationKind::Query => {
                    inspect::query(&rules, &bytes, &mut collect);
                    reference::query(&config, &bytes)
                }
            };
            let text = String::from_utf8_lossy(&bytes);
            prop_assert_eq!(seen, lookups(&config, &want), "{:?} {}: {:?}", kind, name, text);
        }
    }
}
