//! What the tiers need of the additions, in little memory: 32 bytes an entry.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
};

use rayon::slice::ParallelSliceMut as _;

use crate::denylist::{
    Action, Expires, Fingerprint, Listed, Record, ShortTokenId, TokenDigest,
    overlay::{changed, keep_last},
};

/// So many changes are always held apart, and one for so many entries besides.
const RECENT: usize = 1024;
const SHARE: usize = 64;

/// Records by their digests.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Ascending.
    settled: Vec<Packed>,
    /// Changes since; they count before `settled`. `None` of what was removed.
    recent: BTreeMap<TokenDigest, Option<Packed>>,
    /// Of those that leave by themselves.
    expires: HashMap<TokenDigest, Expires>,
    len: usize,
}

/// A record without its expiry.
#[derive(Clone, Copy, Debug)]
struct Packed {
    digest: TokenDigest,
    fingerprint: Fingerprint,
    token: ShortTokenId,
    action: Action,
}

impl From<&Record> for Packed {
    fn from(record: &Record) -> Self {
        Self {
            digest: record.digest,
            fingerprint: record.listed.fingerprint,
            token: record.listed.token,
            action: record.listed.action,
        }
    }
}

impl Held {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn contains(&self, digest: &TokenDigest) -> bool {
        self.packed(digest).is_some()
    }

    pub(super) fn get(&self, digest: &TokenDigest) -> Option<Record> {
        self.packed(digest).map(|packed| self.record(packed))
    }

    fn packed(&self, digest: &TokenDigest) -> Option<&Packed> {
        match self.recent.get(digest) {
            Some(changed) => changed.as_ref(),
            None => self.settled(digest),
        }
    }

    fn settled(&self, digest: &TokenDigest) -> Option<&Packed> {
        let at = self
            .settled
            .binary_search_by_key(digest, |held| held.digest);
        at.ok().and_then(|at| self.settled.get(at))
    }

    fn record(&self, packed: &Packed) -> Record {
        let expires = self.expires.get(&packed.digest);
        Record {
            digest: packed.digest,
            listed: Listed {
                token: packed.token,
                action: packed.action,
                fingerprint: packed.fingerprint,
            },
            expires: expires.copied().unwrap_or(Expires::NEVER),
        }
    }

    /// All records.
    pub(super) fn records(&self) -> impl Iterator<Item = Record> {
        let settled = self.settled.iter();
        let settled = settled.filter(|packed| !self.recent.contains_key(&packed.digest));
        let all = settled.chain(self.recent.values().flatten());
        all.map(|packed| self.record(packed))
    }

    /// Holds a record; gives what was held under its digest.
    pub(super) fn insert(&mut self, record: &Record) -> Option<Record> {
        let before = self.get(&record.digest);
        self.len += usize::from(before.is_none());
        self.note_expiry(record);
        let packed = Packed::from(record);
        self.recent.insert(record.digest, Some(packed));
        before
    }

    /// Lets a record go, and gives it.
    pub(super) fn remove(&mut self, digest: &TokenDigest) -> Option<Record> {
        let before = self.get(digest)?;
        self.len -= 1;
        self.expires.remove(digest);
        if self.settled(digest).is_some() {
            self.recent.insert(*digest, None);
        } else {
            self.recent.remove(digest);
        }
        Some(before)
    }

    fn note_expiry(&mut self, record: &Record) {
        if record.expires == Expires::NEVER {
            self.expires.remove(&record.digest);
        } else {
            self.expires.insert(record.digest, record.expires);
        }
    }

    /// Takes a record of the database, unlike any other; [`Held::gathered`] comes before all else.
    pub(super) fn gather(&mut self, record: &Record) {
        self.note_expiry(record);
        self.settled.push(Packed::from(record));
    }

    /// After the last of them.
    pub(super) fn gathered(&mut self) {
        let number = |packed: &Packed| u128::from_be_bytes(packed.digest.0);
        self.settled.par_sort_unstable_by_key(number);
        self.settled.dedup_by_key(|packed| packed.digest);
        self.settled.shrink_to_fit();
        self.len = self.settled.len();
    }

    /// Holds very many records, the last of a digest.
    pub(super) fn extend(&mut self, records: impl Iterator<Item = Record>) {
        let mut new = Vec::with_capacity(records.size_hint().0);
        for record in records {
            self.note_expiry(&record);
            new.push(Packed::from(&record));
        }
        // Stable, so that the last given stays the last.
        new.par_sort_by_key(|packed| u128::from_be_bytes(packed.digest.0));
        keep_last(&mut new, |packed| packed.digest);
        let recent = mem::take(&mut self.recent);
        self.settle(recent.into_iter());
        let new = new.into_iter().map(|packed| (packed.digest, Some(packed)));
        self.settle(new);
    }

    /// Takes changes in, each of another digest; they ascend.
    fn settle(&mut self, changes: impl Iterator<Item = (TokenDigest, Option<Packed>)>) {
        let old = mem::take(&mut self.settled);
        let mut settled = Vec::with_capacity(old.len() + changes.size_hint().0);
        let old = old.into_iter().map(|packed| (packed.digest, packed));
        settled.extend(changed(old, changes).map(|(_, packed)| packed));
        settled.shrink_to_fit();
        self.len = settled.len();
        self.settled = settled;
    }

    /// Takes the changes in that are held apart, once they are many; to be called when nobody waits.
    pub(super) fn tidy(&mut self) {
        if self.recent.len() > RECENT + self.settled.len() / SHARE {
            let recent = mem::take(&mut self.recent);
            self.settle(recent.into_iter());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u8, Option<u8>),
        Remove(u8),
        Extend(Vec<(u8, Option<u8>)>),
        Settle,
    }

    fn step() -> impl Strategy<Value = Step> {
        let entry = || (0..20_u8, any::<Option<u8>>());
        prop_oneof![
            entry().prop_map(|(n, expires)| Step::Insert(n, expires)),
            (0..20_u8).prop_map(Step::Remove),
            prop::collection::vec(entry(), 0..10).prop_map(Step::Extend),
            Just(Step::Settle),
        ]
    }

    fn record(n: u8, expires: Option<u8>) -> Record {
        let at = |seconds: u8| UNIX_EPOCH + Duration::from_secs(seconds.into());
        Record {
            digest: TokenDigest([n; 16]),
            listed: Listed {
                token: ShortTokenId([n; 6]),
                action: if n.is_multiple_of(2) {
                    Action::Block
                } else {
                    Action::Alert
                },
                fingerprint: Fingerprint(n.into()),
            },
            expires: expires.map_or(Expires::NEVER, |seconds| Expires::at(at(seconds))),
        }
    }

    #[test]
    fn an_entry_takes_32_bytes() {
        assert_eq!(size_of::<Packed>(), 32);
    }

    proptest! {
        #[test]
        fn holds_what_a_plain_map_holds(steps in prop::collection::vec(step(), 0..40)) {
            let (mut held, mut plain) = (Held::default(), BTreeMap::new());
            for step in steps {
                match step {
                    Step::Insert(n, expires) => {
                        let record = record(n, expires);
                        prop_assert_eq!(held.insert(&record), plain.insert(record.digest, record));
                    }
                    Step::Remove(n) => {
                        let digest = TokenDigest([n; 16]);
                        prop_assert_eq!(held.remove(&digest), plain.remove(&digest));
                    }
                    Step::Extend(entries) => {
                        let records: Vec<_> = entries.iter().map(|(n, e)| record(*n, *e)).collect();
                        held.extend(records.iter().copied());
                        plain.extend(records.into_iter().map(|record| (record.digest, record)));
                    }
                    Step::Settle => {
                        let recent = mem::take(&mut held.recent);
                        held.settle(recent.into_iter());
                    }
                }
                prop_assert_eq!(held.len(), plain.len());
                let all: BTreeMap<_, _> = held.records().map(|r| (r.digest, r)).collect();
                prop_assert_eq!(&all, &plain);
                for n in 0..20 {
                    let digest = TokenDigest([n; 16]);
                    prop_assert_eq!(held.get(&digest), plain.get(&digest).copied());
                }
            }
        }
    }
}
