//! A compact immutable map from digests: the entries sorted, and an index over their leading bits.
//!
//! Digests are uniformly distributed (a keyed hash), so the leading bits lead to a handful of entries: a lookup
//! touches one place of the index and one of the digests, and an entry costs 33 bytes.

use super::{Listed, TokenDigest};

/// Entries that share one place of the index, on average.
const SHARING: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Table {
    /// Ascending; apart from what is listed under them, which only a hit needs.
    digests: Box<[TokenDigest]>,
    listed: Box<[Listed]>,
    /// For each value of the leading `bits` bits the index of the first entry that is not below it, and the
    /// number of entries at the end. Empty where there are no entries.
    index: Box<[u32]>,
    bits: u32,
}

impl Table {
    pub(super) fn get(&self, digest: &TokenDigest) -> Option<Listed> {
        let place = leading(digest, self.bits);
        let (from, to) = (*self.index.get(place)?, *self.index.get(place + 1)?);
        let candidates = self.digests.get(from as usize..to as usize)?;
        let at = candidates
            .iter()
            .position(|candidate| candidate == digest)?;
        self.listed.get(from as usize + at).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.digests.len()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (TokenDigest, Listed)> {
        self.digests
            .iter()
            .copied()
            .zip(self.listed.iter().copied())
    }
}

/// From entries in ascending order.
impl FromIterator<(TokenDigest, Listed)> for Table {
    fn from_iter<I: IntoIterator<Item = (TokenDigest, Listed)>>(entries: I) -> Self {
        let (digests, listed): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
        if digests.is_empty() {
            return Self::default();
        }
        let bits = (digests.len() / SHARING).max(1).ilog2();
        let mut index = Vec::with_capacity((1 << bits) + 1);
        for (at, digest) in (0_u32..).zip(&digests) {
            let place = leading(digest, bits);
            while index.len() <= place {
                index.push(at);
            }
        }
        let end = u32::try_from(digests.len()).unwrap_or(u32::MAX);
        index.resize((1 << bits) + 1, end);
        Self {
            digests: digests.into(),
            listed: listed.into(),
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
