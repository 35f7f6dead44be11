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

/// Whether a piece ends within what may be the first four bytes of an absolute target: so cut it is not known for one. The
/// flow engine takes each target that a segment cuts for one, so there it makes no difference.
fn cuts_scheme(piece: &[u8]) -> bool {
    (1..4).any(|n| {
        let end = piece.len().checked_sub(n).map(|at| &piece[at..]);
        end.is_some_and(|end| end.eq_ignore_ascii_case(&b"http"[..n]))
    })
}

/// What the scanner looks up; the pieces have `sizes`, over and over, or are up to three bytes longer where they would cut the beginning of an absolute target.
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
        let wanted = rest.len().min(*size);
        let end = (wanted..rest.len()).find(|end| !cuts_scheme(&rest[..*end]));
        let (piece, behind) = rest.split_at(end.unwrap_or(rest.len()));
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
