//! The word-wise scanner and the naive reference look up the same candidates, in the same order.

use proptest::prelude::*;
use tokenblock_ebpf::{inspect, location::LocationKind, scan::Scan};
use tokenblock_tests::reference::{self, Config, Lookup};

use crate::generate::{config, many_cases, rules, stream};

/// What the scanner looks up in a stream that comes in pieces of these sizes.
fn scanned(config: &Config, bytes: &[u8], sizes: &[usize]) -> Vec<Lookup> {
    let rules = rules(config).unwrap();
    let mut scan = Scan::new(&rules);
    let mut seen = Vec::new();
    let mut rest = bytes;
    for size in sizes.iter().cycle() {
        let (piece, behind) = rest.split_at(rest.len().min(*size));
        let hit = inspect::stream(&mut scan, &rules, piece, &mut |location, digest| {
            seen.push((location, *digest));
            false
        });
        assert!(hit.is_none());
        rest = behind;
        if rest.is_empty() {
            break;
        }
    }
    seen
}

fn check(config: &Config, bytes: &[u8], sizes: &[usize]) -> Result<(), TestCaseError> {
    let want = reference::stream(config, bytes);
    prop_assert_eq!(
        scanned(config, bytes, &[usize::MAX]),
        want.clone(),
        "whole: {:?}",
        String::from_utf8_lossy(bytes)
    );
    prop_assert_eq!(
        scanned(config, bytes, sizes),
        want,
        "in pieces: {:?}",
        String::from_utf8_lossy(bytes)
    );
    Ok(())
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1usize..40, 1..6)
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
        bytes in prop::collection::vec(prop::sample::select(&b"\r\n \t:;,=&?%\\\".#+[]-x24aGE"[..]), 0..120),
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
            prop_assert_eq!(seen, want, "{:?} {}: {:?}", kind, name, String::from_utf8_lossy(&bytes));
        }
    }
}
