//! What is in force, and the way from there to a new list: additions first, then removals, in every tier.

use std::{collections::BTreeSet, time::SystemTime};

use super::{
    Expires, HashedChange, HashedReader, HashedRecord, HashedSet, List, Listed, ProxySet, Record,
    SetReader, Snapshot, Tier, TokenDigest, TokenId, expiries::Expiries,
};

/// The denylist in force. The proxy's set is the record of it, so that it is held once.
#[derive(Debug)]
pub struct Denylist<K> {
    set: ProxySet,
    hashed: HashedReader,
    kernel: Option<K>,
    expiries: Expiries,
    /// Whether the kernel tier failed to take additions that the set has.
    kernel_behind: bool,
    /// Whether single entries are missing in the kernel tier, which will be listed again.
    kernel_owes: bool,
    /// The same of those that are known by their SHA-256 alone.
    hashed_behind: bool,
}

/// How much a new list changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Entries that came, or whose action is another.
    pub added: usize,
    /// Entries that left.
    pub removed: usize,
}

impl<K: Tier> Denylist<K> {
    /// An empty denylist for the proxy and, where there is one, the kernel tier.
    #[must_use]
    pub fn new(kernel: Option<K>) -> Self {
        Self {
            set: ProxySet::default(),
            hashed: HashedReader::default(),
            kernel,
            expiries: Expiries::default(),
            kernel_behind: false,
            kernel_owes: false,
            hashed_behind: false,
        }
    }

    /// For the proxy to read.
    #[must_use]
    pub fn reader(&self) -> SetReader {
        self.set.reader().with_hashed(self.hashed.clone())
    }

    /// The records in force, to be merged into a list that may only add.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        let expiries = self.expiries.all();
        let record = |(digest, listed)| Record {
            digest,
            listed,
            expires: expiries.get(&digest).copied().unwrap_or(Expires::NEVER),
        };
        self.set.snapshot().iter().map(record).collect()
    }

    /// The entries in force that are known by their SHA-256 alone.
    #[must_use]
    pub fn hashed(&self) -> HashedSet {
        HashedSet::clone(&self.hashed.set())
    }

    /// Brings `list` into force. At no moment does a token pass that is on both the old and the new list.
    ///
    /// # Errors
    /// Where the kernel tier did not take all of it. Then nothing was removed from either tier, the set has all
    /// additions, and the next call tries all again.
    pub fn apply(&mut self, list: &List) -> Result<Changed, K::Error> {
        let difference = Difference::between(&self.set.snapshot(), list.records());
        self.expiries = Expiries::of(list.records());
        let added = self.add(list, &difference.added);
        self.set.add(&difference.added);
        let hashed = self.replace_hashed(list.hashed().clone());
        added?;
        let hashed = hashed?;
        self.remove(&difference.removed)?;
        Ok(Changed {
            added: difference.added.len() + hashed.added,
            removed: difference.removed.len() + hashed.removed,
        })
    }

    /// Brings entries that are known by their SHA-256 alone into force, in place of all others of that kind; what is on
    /// both sets is in force all the time.
    ///
    /// # Errors
    /// Where the kernel tier did not take all of it. The proxy has both sets then, and the next call tries all again.
    pub fn replace_hashed(&mut self, set: HashedSet) -> Result<Changed, K::Error> {
        let change = self.hashed.set().change(&set);
        self.put_hashed(set, change)
    }

    /// The same of these ids, without a look at the rest: `records` of them come in place of all that is in force.
    ///
    /// # Errors
    /// As [`Denylist::replace_hashed`].
    pub fn change_hashed(
        &mut self,
        ids: &BTreeSet<TokenId>,
        records: &[HashedRecord],
    ) -> Result<Changed, K::Error> {
        let (set, change) = self.hashed.set().replaced(ids, records);
        self.put_hashed(set, change)
    }

    fn put_hashed(&mut self, set: HashedSet, change: HashedChange) -> Result<Changed, K::Error> {
        let HashedChange {
            added,
            removed,
            ids: changed,
        } = change;
        if let Some(kernel) = &mut self.kernel {
            let behind = self.hashed_behind;
            let added = if behind { set.entries() } else { added };
            if behind || changed != Changed::default() {
                let result = kernel.change_hashed(&added, &removed, !set.is_empty());
                self.hashed_behind = result.is_err();
                if let Err(error) = result {
                    let both = self.hashed.set().joined(&set, SystemTime::UNIX_EPOCH);
                    self.hashed.store(both);
                    return Err(error);
                }
            }
        }
        self.hashed.store(set);
        Ok(changed)
    }

    fn add(&mut self, list: &List, added: &[(TokenDigest, Listed)]) -> Result<(), K::Error> {
        let Some(kernel) = &mut self.kernel else {
            return Ok(());
        };
        let result = if self.kernel_behind || self.kernel_owes {
            let all: Vec<_> = list
                .records()
                .iter()
                .map(|r| (r.digest, r.listed))
                .collect();
            kernel.add(&all, &self.set.snapshot())
        } else if added.is_empty() {
            Ok(())
        } else {
            kernel.add(added, &self.set.snapshot())
        };
        self.kernel_behind = result.is_err();
        self.kernel_owes &= self.kernel_behind;
        result
    }

    /// The set last: what the kernel tier could not remove stays on record, and is tried again.
    fn remove(&mut self, digests: &[TokenDigest]) -> Result<(), K::Error> {
        if digests.is_empty() {
            return Ok(());
        }
        if let Some(kernel) = &mut self.kernel {
            kernel.remove(digests)?;
        }
        self.set.remove(digests);
        Ok(())
    }

    /// The record in force under this digest.
    ///
    /// Takes time with the number of entries that leave by themselves, where the digest is listed.
    #[must_use]
    pub fn get(&self, digest: &TokenDigest) -> Option<Record> {
        self.set.snapshot().get(digest).map(|listed| Record {
            digest: *digest,
            listed,
            expires: self.expiries.get(digest),
        })
    }

    /// How many entries are in force.
    #[must_use]
    pub fn len(&self) -> usize {
        self.set.snapshot().len() + self.hashed.set().len()
    }

    /// Whether nothing is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the kernel tier holds all that the set holds, as far as is known.
    #[must_use]
    pub fn is_level(&self) -> bool {
        !self.kernel_behind && !self.kernel_owes && !self.hashed_behind
    }

    /// All that [`Denylist::insert`] could not bring into the kernel tier was listed again.
    pub fn owes_nothing(&mut self) {
        self.kernel_owes = false;
    }

    /// Lists these besides the rest, each in place of what is listed under its digest; without a look at the rest.
    ///
    /// # Errors
    /// Where the kernel tier did not take all of them; the set has.
    pub fn insert(&mut self, records: &[Record]) -> Result<(), K::Error> {
        if records.is_empty() {
            return Ok(());
        }
        let entries: Vec<_> = records.iter().map(|r| (r.digest, r.listed)).collect();
        for record in records {
            self.expiries.set(record.digest, record.expires);
        }
        let taken = match &mut self.kernel {
            Some(kernel) => kernel.add(&entries, &self.set.snapshot()),
            None => Ok(()),
        };
        self.kernel_owes |= taken.is_err();
        self.set.add(&entries);
        taken
    }

    /// Does what makes later changes quick; to be called when nobody waits.
    pub fn tidy(&self) {
        self.set.tidy();
        if let Some(hashed) = self.hashed.set().tidied() {
            self.hashed.store(hashed);
        }
    }

    /// Takes these off; one that is not listed is no error.
    ///
    /// # Errors
    /// Where the kernel tier could not remove them; they stay listed in both tiers.
    pub fn withdraw(&mut self, digests: &[TokenDigest]) -> Result<(), K::Error> {
        self.remove(digests)?;
        for digest in digests {
            self.expiries.set(*digest, Expires::NEVER);
        }
        Ok(())
    }

    /// When the next entry leaves by itself; at times earlier.
    #[must_use]
    pub fn next_expiry(&self) -> Option<SystemTime> {
        let hashed = self.hashed.current().and_then(|set| set.next_expiry());
        self.expiries.next().into_iter().chain(hashed).min()
    }

    /// Takes off what has expired by `now`; says how many.
    ///
    /// # Errors
    /// Where the kernel tier could not remove them; they stay due.
    pub fn expire(&mut self, now: SystemTime) -> Result<usize, K::Error> {
        let due = self.expiries.due(now);
        self.remove(&due)?;
        self.expiries.forget(&due, now);
        let hashed = match self.hashed.current() {
            Some(set) if set.next_expiry().is_some_and(|at| at <= now) => {
                let left = set.left(now);
                let gone = set.len() - left.len();
                self.replace_hashed(left)?;
                gone
            }
            _ => 0,
        };
        Ok(due.len() + hashed)
    }
}

struct Difference {
    added: Vec<(TokenDigest, Listed)>,
    removed: Vec<TokenDigest>,
}

impl Difference {
    /// Both sides ascend by digest.
    fn between(old: &Snapshot, new: &[Record]) -> Self {
        // All of a first list comes.
        let most = if old.is_empty() { new.len() } else { 0 };
        let mut old = old.iter().peekable();
        let mut difference = Self {
            added: Vec::with_capacity(most),
            removed: Vec::new(),
        };
        for record in new {
            while let Some((gone, _)) = old.next_if(|(digest, _)| *digest < record.digest) {
                difference.removed.push(gone);
            }
            let same = old.next_if(|(digest, _)| *digest == record.digest);
            if same.is_none_or(|(_, listed)| listed != record.listed) {
                difference.added.push((record.digest, record.listed));
            }
        }
        difference.removed.extend(old.map(|(digest, _)| digest));
        difference
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;
    use crate::denylist::{
        Action, Fingerprint, HashedRecord, ShortTokenId, TokenId,
        model::{Map, Model},
    };

    fn record(digest: u8, block: bool, expires: Option<u8>) -> Record {
        Record {
            digest: TokenDigest([digest; 16]),
            listed: Listed {
                token: ShortTokenId([digest; 6]),
                action: if block { Action::Block } else { Action::Alert },
                fingerprint: Fingerprint(0),
            },
            expires: expires.map_or(Expires::NEVER, |at| Expires::at(second(at))),
        }
    }

    fn second(n: u8) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(n.into())
    }

    #[derive(Clone, Debug)]
    enum Step {
        Apply(Vec<(u8, bool, Option<u8>)>),
        Fail(Vec<(u8, bool, Option<u8>)>),
        Pass(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let list = || prop::collection::vec((0..30_u8, any::<bool>(), any::<Option<u8>>()), 0..30);
        prop_oneof![
            list().prop_map(Step::Apply),
            list().prop_map(Step::Fail),
            (0..40_u8).prop_map(Step::Pass)
        ]
    }

    fn as_map(list: &List) -> Map {
        list.records()
            .iter()
            .map(|r| (r.digest, r.listed))
            .collect()
    }

    proptest! {
        /// Both tiers hold what a plain model holds, through reloads, expiries and failures of the kernel.
        #[test]
        fn tiers_agree_with_a_model(steps in prop::collection::vec(step(), 1..20)) {
            let kernel = Model::default();
            let mut denylist = Denylist::new(Some(kernel.clone()));
            let (mut now, mut list, mut behind) = (0_u8, List::default(), false);
            for step in steps {
                kernel.fail(matches!(step, Step::Fail(_)));
                match step {
                    Step::Apply(entries) | Step::Fail(entries) => {
                        let records = entries.into_iter().map(|(d, b, e)| record(d, b, e)).collect();
                        let before = kernel.map();
                        let old: Vec<_> = denylist.set.snapshot().iter().map(|(d, _)| d).collect();
                        list = List::merge(records, second(now));
                        let result = denylist.apply(&list);
                        behind = result.is_err();
                        if behind {
                            // Nothing that was or is listed passes in the set; nothing old in the kernel.
                            let set = denylist.reader();
                            let in_kernel = kernel.map();
                            prop_assert!(as_map(&list).iter().all(|(d, l)| set.get(d) == Some(*l)));
                            prop_assert!(old.iter().all(|d| set.get(d).is_some()));
                            prop_assert!(before.keys().all(|d| in_kernel.contains_key(d)));
                        }
                    }
                    Step::Pass(seconds) => {
                        now = now.saturating_add(seconds);
                        denylist.expire(second(now)).unwrap();
                        list = List::merge(list.records().to_vec(), second(now));
                    }
                }
                if !behind {
                    let expected = as_map(&list);
                    prop_assert_eq!(&kernel.map(), &expected);
                    prop_assert!(denylist.set.snapshot().iter().eq(expected));
                    prop_assert_eq!(denylist.records(), list.records());
                }
            }
        }
    }

    #[test]
    fn the_next_expiry_is_the_earliest() {
        let mut denylist = Denylist::<Model>::new(None);
        let records = vec![
            record(1, true, Some(20)),
            record(2, true, Some(10)),
            record(3, true, None),
        ];
        let list = List::merge(records, second(0));
        assert_eq!(
            denylist.apply(&list).unwrap(),
            Changed {
                added: 3,
                removed: 0
            }
        );
        assert_eq!(denylist.next_expiry(), Some(second(10)));
        assert_eq!(denylist.expire(second(9)).unwrap(), 0);
        assert_eq!(denylist.expire(second(10)).unwrap(), 1);
        assert_eq!(denylist.next_expiry(), Some(second(20)));
        assert_eq!(denylist.records().len(), 2);
    }

    #[test]
    fn entries_known_by_their_sha256_are_in_both_tiers_until_they_leave() {
        let hashed = |id: u8, expires: Option<u8>| HashedRecord {
            id: TokenId([id; 32]),
            domain: None,
            action: Action::Block,
            expires: expires.map_or(Expires::NEVER, |at| Expires::at(second(at))),
        };
        let set = |records: &[HashedRecord]| HashedSet::merge(records.to_vec(), second(0));
        let kernel = Model::default();
        let mut denylist = Denylist::new(Some(kernel.clone()));
        let two = set(&[hashed(1, Some(10)), hashed(2, None)]);
        let list = List::merge(Vec::new(), second(0)).with_hashed(two.clone());
        denylist.apply(&list).unwrap();
        assert_eq!(kernel.hashed(), two.entries());
        assert_eq!(denylist.next_expiry(), Some(second(10)));

        kernel.fail(true);
        denylist.expire(second(10)).expect_err("full");
        kernel.fail(false);
        assert_eq!(denylist.next_expiry(), Some(second(10)));
        assert_eq!(denylist.expire(second(10)).unwrap(), 1);
        let one = set(&[hashed(2, None)]);
        assert_eq!(kernel.hashed(), one.entries());
        assert_eq!(denylist.hashed(), one);
        assert_eq!(denylist.next_expiry(), None);
    }
}
