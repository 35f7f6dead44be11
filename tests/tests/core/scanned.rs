//! Runs the scanner over a stream that comes in pieces, with any filter.

use tokenblock_ebpf::{
    digest::TokenDigest,
    filter::Filter,
    location::LocationId,
    scan::{Scan, Step},
};
use tokenblock_tests::reference::Config;

use crate::generate::rules;

/// What the scanner looks up; the pieces have `sizes`, over and over.
pub(crate) fn scanned(
    config: &Config,
    bytes: &[u8],
    sizes: &[usize],
    filter: &impl Filter,
) -> Vec<(LocationId, TokenDigest)> {
    let rules = rules(config).unwrap();
    let mut scan = Scan::new(&rules);
    let mut seen = Vec::new();
    let mut rest = bytes;
    for size in sizes.iter().cycle() {
        let (piece, behind) = rest.split_at(rest.len().min(*size));
        loop {
            match scan.step(&rules, piece, filter) {
                Step::More => {}
                Step::Lookup(digest) => seen.push((scan.location(), digest)),
                Step::End => break,
            }
        }
        scan.pos = 0;
        rest = behind;
        if rest.is_empty() {
            break;
        }
    }
    seen
}
