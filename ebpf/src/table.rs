//! The denylist of the kernel tier as it lies in memory that both sides see: digests in buckets, two places for each.
//!
//! A hash map of the kernel's own takes 112 bytes an entry, a system call a change, and has a size that never changes.
//! Here an entry takes 24 in a table that is filled to three quarters, a change is a few stores, and a larger
//! table takes the place of the one that is full.

use crate::digest::TokenDigest;

/// Entries of a bucket.
pub const SLOTS: usize = 8;

/// An element of the table. The first one is no bucket: it holds the [`Header`].
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Bucket {
    /// The digests, each as two words as they lie in memory; zeros where there is none.
    pub digests: [[u64; 2]; SLOTS],
    /// What is listed under them: [`crate::verdict::MapEntry::to_word`]; 0 where nothing is.
    pub entries: [u64; SLOTS],
}

/// Words of a [`Bucket`].
pub const WORDS: usize = SLOTS * 3;
const _: () = assert!(size_of::<Bucket>() == WORDS * 8);

/// What the table's first element says of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Number of buckets.
    pub buckets: u32,
    /// Whether entries that found no place in their buckets stand in the map beside the table.
    pub overflows: bool,
}

impl Header {
    /// The header in the table's first element.
    #[inline(always)]
    #[must_use]
    pub fn of(element: &Bucket) -> Self {
        Self {
            buckets: element.entries[0] as u32,
            overflows: element.entries[1] != 0,
        }
    }
}

/// The two elements of a table with `buckets` buckets in which a digest may stand.
///
/// Ascending digests have ascending first places, so a sorted list is written from one end to the other.
#[inline(always)]
#[must_use]
pub fn places(digest: [u64; 2], buckets: u32) -> [u32; 2] {
    let place = |part: u32| 1 + ((u64::from(part) * u64::from(buckets)) >> 32) as u32;
    // The digest is the output of a pseudo-random function: any of its bits serve.
    [
        place((digest[0] as u32).swap_bytes()),
        place((digest[0] >> 32) as u32),
    ]
}

/// The digest as two words as they lie in memory.
#[inline(always)]
#[must_use]
pub fn words(digest: &TokenDigest) -> [u64; 2] {
    let (mut low, mut high) = ([0; 8], [0; 8]);
    low.copy_from_slice(&digest.0[..8]);
    high.copy_from_slice(&digest.0[8..]);
    [u64::from_ne_bytes(low), u64::from_ne_bytes(high)]
}

impl Bucket {
    /// What is listed under this digest; 0 where nothing is.
    #[inline(always)]
    #[must_use]
    pub fn find(&self, digest: [u64; 2]) -> u64 {
        let mut found = 0;
        let mut i = 0;
        while i < SLOTS {
            let differs = (self.digests[i][0] ^ digest[0]) | (self.digests[i][1] ^ digest[1]);
            // All ones where it does not; without a branch, each of which is one more way for the verifier.
            let same = ((differs | differs.wrapping_neg()) >> 63).wrapping_sub(1);
            found |= self.entries[i] & same;
            i += 1;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn a_bucket_finds_what_it_holds(
            held in prop::collection::vec((any::<[u64; 2]>(), 1..u64::MAX), 0..=SLOTS), other: [u64; 2],
        ) {
            let mut bucket = Bucket { digests: [[0; 2]; SLOTS], entries: [0; SLOTS] };
            for (i, (digest, entry)) in held.iter().enumerate() {
                (bucket.digests[i], bucket.entries[i]) = (*digest, *entry);
            }
            for (digest, entry) in &held {
                prop_assert_eq!(bucket.find(*digest), *entry);
            }
            prop_assert_eq!(bucket.find(other), 0);
        }

        #[test]
        fn places_are_buckets_and_ascend(mut digests: Vec<[u8; 16]>, buckets in 1..u32::MAX) {
            digests.sort_unstable();
            let places: Vec<_> =
                digests.iter().map(|digest| places(words(&TokenDigest(*digest)), buckets)).collect();
            prop_assert!(places.iter().flatten().all(|place| (1..=buckets).contains(place)));
            prop_assert!(places.is_sorted_by_key(|[first, _]| *first));
        }
    }
}
