//! A compact immutable map from digests: the entries sorted, and an index over their leading bits.
//!
//! Digests are uniformly distributed (a keyed hash), so the leading bits lead to a handful of entries: a lookup
//! touches one place of the index and one of the entries, and an entry costs 25 bytes.

use super::{Listed, TokenDigest};

/// Entries that share one place of the index, on average.
const SHARING: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Table {
    entries: Box<[(TokenDigest, Listed)]>,
    /// For each value of the leading `bits` bits the index of the first entry that is not below it, and the
    /// number of entries at the end. Empty where there are no entries.
    index: Box<[u32]>,
    bits: u32,
}

impl Table {
    pub(super) fn get(&self, digest: &TokenDigest) -> Option<Listed> {
        let place = leading(digest, self.bits);
        let (from, to) = (self.index.get(place)?, self.index.get(place + 1)?);
        self.entries
            .get(*from as usize..*to as usize)?
            .iter()
            .find(|entry| entry.0 == *digest)
            .map(|entry| entry.1)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (TokenDigest, Listed)> {
        self.entries.iter().copied()
    }
}

/// From entries in ascending order.
impl FromIterator<(TokenDigest, Listed)> for Table {
    fn from_iter<I: IntoIterator<Item = (TokenDigest, Listed)>>(entries: I) -> Self {
        let entries: Box<[_]> = entries.into_iter().collect();
        if entries.is_empty() {
            return Self::default();
        }
        let bits = (entries.len() / SHARING).max(1).ilog2();
        let mut index = Vec::with_capacity((1 << bits) + 1);
        for (at, (digest, _)) in (0_u32..).zip(&entries) {
            let place = leading(digest, bits);
            while index.len() <= place {
                index.push(at);
            }
        }
        index.resize(
            (1 << bits) + 1,
            u32::try_from(entries.len()).unwrap_or(u32::MAX),
        );
        Self {
            entries,
            index: index.into(),
            bits,
        }
    }
}

/// The first `bits` (0..=32) bits of a digest, as a number; its order is the order of the digests.
fn leading(digest: &TokenDigest, bits: u32) -> usize {
    let [a, b, c, d, ..] = digest.0;
    let leading = u64::from(u32::from_be_bytes([a, b, c, d])) >> (32 - bits.min(32));
    usize::try_from(leading).unwrap_or(usize::MAX)
}
