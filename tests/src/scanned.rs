//! Runs the scanner over a stream that comes in pieces, with any filter.

use tokenblock_ebpf::{
    digest::{InstallationKey, TokenDigest},
    filter::Filter,
    location::{LocationId, LocationKind},
    rules::Rules,
    scan::{Scan, Step},
};

use crate::reference::Config;

/// The scanner's form of a configuration; `None` where it takes none of it.
#[must_use]
pub fn rules(config: &Config) -> Option<Rules> {
    let locations: Vec<(LocationKind, &[u8])> = config
        .locations
        .iter()
        .map(|(kind, name)| (*kind, name.as_bytes()))
        .collect();
    Rules::new(
        &InstallationKey(config.key),
        config.min_len.try_into().ok()?,
        &locations,
    )
    .ok()
}

/// What the scanner looks up; the pieces have `sizes`, over and over.
pub fn scanned(
    rules: &Rules,
    bytes: &[u8],
    sizes: &[usize],
    filter: &impl Filter,
) -> Vec<(LocationId, TokenDigest)> {
    let mut scan = Scan::new(rules);
    let mut seen = Vec::new();
    let mut rest = bytes;
    for size in sizes.iter().cycle() {
        let (piece, behind) = rest.split_at(rest.len().min(*size));
        loop {
            match scan.step(rules, piece, filter) {
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
