//! The table of digests that the programs look up; it grows by another that takes its place.

use std::{
    collections::BTreeMap,
    hint::black_box,
    sync::atomic::{
        AtomicU64,
        Ordering::{Relaxed, SeqCst},
        fence,
    },
};

use aya::{
    Ebpf,
    maps::{Array, ArrayOfMaps, HashMap, MapData},
};
use tokenblock_ebpf::{
    table::{Bucket, SLOTS, WORDS, places, words},
    verdict::MapEntry,
};

use super::{
    error::{KernelError, removed},
    shared::{INNER, Shared},
};
use crate::denylist::TokenDigest;

/// Least buckets: a list that is written by hand never grows.
const SMALLEST: u32 = 512;
/// How full a new table is, and how full one becomes, in hundredths.
const NEW: usize = 70;
const FULL: usize = 80;
/// Most entries beside the table before it grows: so many, or one of so many, as a long list that comes in the order of
/// its digests leaves a few hundred of a million without a place.
const MOST_OVERFLOW: usize = 1024;
const OVERFLOW_SHARE: usize = 2048;
/// Entries whose buckets are brought into the cache together, before the first of them is written: a large table is no
/// place for one miss after the other.
const BATCH: usize = 32;

/// The table, and the map beside it for entries that find no place in their buckets.
pub(super) struct Table {
    outer: ArrayOfMaps<MapData, Array<MapData, Bucket>>,
    elements: Elements,
    overflow: HashMap<MapData, TokenDigest, u64>,
    overflowed: BTreeMap<TokenDigest, u64>,
}

/// One table, in force or on its way there.
struct Elements {
    shared: Shared,
    buckets: u32,
    held: usize,
}

/// A bucket's words, as [`Bucket`] has them.
struct Slots<'a>(&'a [AtomicU64; WORDS]);

impl Table {
    /// Takes the maps out of the loaded object, and puts a small table into them.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let mut take = |what| ebpf.take_map(what).ok_or(KernelError::BadObject { what });
        let mut outer = ArrayOfMaps::try_from(take("TABLE")?)?;
        let overflow = HashMap::try_from(take("OVERFLOW")?)?;
        let (elements, array) = Elements::create(0)?;
        outer.set(0, &array, 0)?;
        Ok(Self {
            outer,
            elements,
            overflow,
            overflowed: BTreeMap::new(),
        })
    }

    /// How many entries it holds.
    pub(super) fn len(&self) -> usize {
        self.elements.held + self.overflowed.len()
    }

    /// Lists these, or lists them otherwise; those that are listed already stay so at any moment.
    pub(super) fn add(
        &mut self,
        entries: impl ExactSizeIterator<Item = (TokenDigest, MapEntry)>,
    ) -> Result<(), KernelError> {
        self.reserve(entries.len())?;
        let mut entries = entries.map(|(digest, entry)| (digest, entry.to_word()));
        loop {
            let batch: Vec<_> = entries.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return Ok(());
            }
            self.elements.touch(&batch);
            for (digest, entry) in batch {
                self.insert(&digest, entry)?;
            }
        }
    }

    /// Takes these off; one that is not listed is no error.
    pub(super) fn remove(&mut self, digests: &[TokenDigest]) -> Result<(), KernelError> {
        for digest in digests {
            if !self.elements.remove(digest) && self.overflowed.contains_key(digest) {
                removed(self.overflow.remove(digest))?;
                self.overflowed.remove(digest);
            }
        }
        Ok(())
    }

    /// All that is listed.
    pub(super) fn entries(&self) -> impl Iterator<Item = (TokenDigest, u64)> {
        let beside = self.overflowed.iter();
        let beside = beside.map(|(digest, entry)| (*digest, *entry));
        self.elements.entries().chain(beside)
    }

    fn insert(&mut self, digest: &TokenDigest, entry: u64) -> Result<(), KernelError> {
        let beside = !self.overflowed.is_empty() && self.overflowed.contains_key(digest);
        if !beside && self.elements.insert(digest, entry) {
            return Ok(());
        }
        // Before the entry: the programs look beside the table from now on.
        self.elements.say_overflows();
        self.overflow.insert(*digest, entry, 0)?;
        self.overflowed.insert(*digest, entry);
        let most = MOST_OVERFLOW.max(self.elements.held / OVERFLOW_SHARE);
        if !beside && self.overflowed.len() > most {
            self.grow(self.len() / 4 * 5)?;
        }
        Ok(())
    }

    /// Makes room for `more` entries, where there is none.
    fn reserve(&mut self, more: usize) -> Result<(), KernelError> {
        let wanted = self.len().saturating_add(more);
        // What is listed already would be counted twice.
        if wanted > self.elements.slots() / 100 * FULL {
            self.grow(wanted)?;
        }
        Ok(())
    }

    /// Puts a table with room for `entries` in the place of this one. Programs that read the old one meanwhile find what
    /// was listed; once this returns none does.
    fn grow(&mut self, entries: usize) -> Result<(), KernelError> {
        let (mut elements, array) = Elements::create(entries)?;
        let mut beside = BTreeMap::new();
        let mut entries = self.entries();
        loop {
            let batch: Vec<_> = entries.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            elements.touch(&batch);
            for (digest, entry) in batch {
                if !elements.insert(&digest, entry) {
                    elements.say_overflows();
                    beside.insert(digest, entry);
                }
            }
        }
        drop(entries);
        for (digest, entry) in &beside {
            self.overflow.insert(*digest, *entry, 0)?;
        }
        self.outer.set(0, &array, 0)?;
        self.elements = elements;
        let before = std::mem::replace(&mut self.overflowed, beside);
        for digest in before.keys() {
            if !self.overflowed.contains_key(digest) {
                removed(self.overflow.remove(digest))?;
            }
        }
        Ok(())
    }
}

impl Elements {
    /// An empty table with room for that many entries.
    fn create(entries: usize) -> Result<(Self, Array<MapData, Bucket>), KernelError> {
        let buckets = entries.saturating_mul(100).div_ceil(NEW * SLOTS);
        let buckets = u32::try_from(buckets).unwrap_or(u32::MAX - 1).max(SMALLEST);
        let (shared, array) = Shared::create::<Bucket>(buckets.saturating_add(1), INNER)?;
        let elements = Self {
            shared,
            buckets,
            held: 0,
        };
        // As `Header::of` reads it.
        elements.header(0, u64::from(buckets));
        Ok((elements, array))
    }

    fn slots(&self) -> usize {
        self.buckets as usize * SLOTS
    }

    fn header(&self, index: usize, value: u64) {
        if let Some(word) = self
            .bucket(0)
            .and_then(|header| header.0.get(ENTRIES + index))
        {
            word.store(value, Relaxed);
        }
    }

    fn say_overflows(&self) {
        self.header(1, 1);
    }

    fn bucket(&self, place: u32) -> Option<Slots<'_>> {
        let (elements, _) = self.shared.words().as_chunks();
        elements.get(place as usize).map(Slots)
    }

    /// The buckets in which a digest can stand.
    fn buckets(&self, digest: [u64; 2]) -> impl Iterator<Item = Slots<'_>> {
        let places = places(digest, self.buckets);
        places.into_iter().filter_map(|place| self.bucket(place))
    }

    /// Reads what is going to be written, without waiting for one read before the next.
    fn touch(&self, entries: &[(TokenDigest, u64)]) {
        let words = entries.iter().flat_map(|(digest, _)| {
            let buckets = self.buckets(words(digest));
            buckets.flat_map(|bucket| bucket.0.iter().step_by(CACHE_LINE))
        });
        let read = words.fold(0, |sum: u64, word| sum.wrapping_add(word.load(Relaxed)));
        // Else the compiler sees that nobody needs it.
        black_box(read);
    }

    /// Lists an entry, or lists it otherwise; false where there is no place for it.
    fn insert(&mut self, digest: &TokenDigest, entry: u64) -> bool {
        let digest = words(digest);
        let (place, new) = match self.find(digest) {
            Some(place) => (Some(place), 0),
            None => (self.free(digest), 1),
        };
        let Some((bucket, index)) = place else {
            return false;
        };
        bucket.set(index, digest, entry);
        self.held += new;
        true
    }

    /// Takes an entry off; false where it is not listed here.
    fn remove(&mut self, digest: &TokenDigest) -> bool {
        let Some((bucket, index)) = self.find(words(digest)) else {
            return false;
        };
        bucket.set(index, [0; 2], 0);
        self.held -= 1;
        true
    }

    fn find(&self, digest: [u64; 2]) -> Option<(Slots<'_>, usize)> {
        self.buckets(digest)
            .find_map(|bucket| bucket.find(digest).map(|index| (bucket, index)))
    }

    /// A free place, in the emptier of two buckets: so hardly one is full before nearly all are.
    fn free(&self, digest: [u64; 2]) -> Option<(Slots<'_>, usize)> {
        let emptier = self.buckets(digest).min_by_key(Slots::held)?;
        emptier.free().map(|index| (emptier, index))
    }

    fn entries(&self) -> impl Iterator<Item = (TokenDigest, u64)> {
        (1..=self.buckets)
            .filter_map(|place| self.bucket(place))
            .flat_map(|bucket| bucket.entries().collect::<Vec<_>>())
    }
}

/// Words of a line of the cache.
const CACHE_LINE: usize = 8;

/// Where the entries stand among a bucket's words, behind the digests.
const ENTRIES: usize = 2 * SLOTS;

impl Slots<'_> {
    fn get(&self, index: usize) -> ([u64; 2], u64) {
        let word = |at: usize| self.0.get(at).map_or(0, |word| word.load(Relaxed));
        (
            [word(2 * index), word(2 * index + 1)],
            word(ENTRIES + index),
        )
    }

    /// A program that reads meanwhile finds what was there or what comes; or nothing, where one of both is nothing.
    fn set(&self, index: usize, digest: [u64; 2], entry: u64) {
        let set = |at: usize, value| {
            if let Some(word) = self.0.get(at) {
                word.store(value, Relaxed);
            }
        };
        if entry == 0 {
            set(ENTRIES + index, 0);
        }
        set(2 * index, digest[0]);
        set(2 * index + 1, digest[1]);
        set(ENTRIES + index, entry);
        // In force before the change is answered.
        fence(SeqCst);
    }

    fn find(&self, digest: [u64; 2]) -> Option<usize> {
        (0..SLOTS).find(|index| {
            let (held, entry) = self.get(*index);
            held == digest && entry != 0
        })
    }

    fn held(&self) -> usize {
        (0..SLOTS).filter(|index| self.get(*index).1 != 0).count()
    }

    fn free(&self) -> Option<usize> {
        (0..SLOTS).find(|index| self.get(*index).1 == 0)
    }

    fn entries(&self) -> impl Iterator<Item = (TokenDigest, u64)> {
        let all = (0..SLOTS).map(|index| self.get(index));
        all.filter(|(_, entry)| *entry != 0)
            .map(|(digest, entry)| (digest_of(digest), entry))
    }
}

/// The opposite of [`words`].
fn digest_of([low, high]: [u64; 2]) -> TokenDigest {
    let mut digest = [0; 16];
    let (halves, _) = digest.as_chunks_mut();
    for (half, word) in halves.iter_mut().zip([low, high]) {
        *half = word.to_ne_bytes();
    }
    TokenDigest(digest)
}
