//! Entries that are known by their SHA-256 alone.
//!
//! Their keyed digest can't be told from that, so both tiers digest candidates a second time while there are any.

use std::{collections::BTreeSet, sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use rayon::slice::ParallelSliceMut as _;
use tokenblock_ebpf::digest::Domain;
pub use tokenblock_ebpf::sha256::digest::TokenDigest as Sha256Digest;

use super::{
    Action, Changed, Expires, Fingerprint, Identity, Listed, Record, TokenId, overlay::Overlay,
};

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashedRecord {
    /// SHA-256 of the canonical form.
    pub id: TokenId,
    /// As what the canonical form was read; `None` where that isn't known.
    pub domain: Option<Domain>,
    /// What to do with a request that bears the token.
    pub action: Action,
    /// When it leaves the list.
    pub expires: Expires,
}

/// What sets one record apart from the others: its id, and as what that was read.
type Key = (TokenId, u8);

/// Many of them, in the order of their ids; a clone shares them.
#[derive(Clone, Debug)]
pub struct HashedSet {
    base: Arc<Vec<HashedRecord>>,
    /// Single changes since, so that one costs no more in a long set.
    overlay: Overlay<Key, HashedRecord>,
    len: usize,
    /// Not after the first of them leaves by itself.
    soonest: Expires,
}

/// How one set becomes another, as a tier holds them.
#[derive(Debug, Default)]
pub struct HashedChange {
    /// What comes, or is listed otherwise.
    pub added: Vec<(Sha256Digest, Listed)>,
    /// What leaves.
    pub removed: Vec<Sha256Digest>,
    /// How many ids that makes: those of which something comes or is listed otherwise, and those that leave.
    pub ids: Changed,
}

impl HashedChange {
    /// Takes in how the records of one id become others.
    fn of_id(&mut self, old: &[HashedRecord], new: &[HashedRecord]) {
        let [before, after] = [old, new].map(|records| entries(records).collect::<Vec<_>>());
        if new.is_empty() {
            self.ids.removed += usize::from(!old.is_empty());
        } else {
            self.ids.added += usize::from(before != after);
        }
        let is_left = |digest: &Sha256Digest| after.iter().any(|entry| entry.0 == *digest);
        let gone = before.iter().map(|entry| entry.0);
        self.removed.extend(gone.filter(|digest| !is_left(digest)));
        let came = after.iter().filter(|entry| !before.contains(entry));
        self.added.extend(came);
    }
}

/// Records in the order of their ids, those of each.
fn by_id(records: &[HashedRecord]) -> impl Iterator<Item = &[HashedRecord]> {
    records.chunk_by(|one, next| one.id == next.id)
}

impl PartialEq for HashedSet {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for HashedSet {}

impl HashedRecord {
    fn key(&self) -> Key {
        key(&self.id, self.domain)
    }

    fn covers(&self, domain: Domain) -> bool {
        self.domain.is_none_or(|own| own == domain)
    }
}

fn key(id: &TokenId, domain: Option<Domain>) -> Key {
    let domain = match domain {
        None => 0,
        Some(Domain::Exact) => 1,
        Some(Domain::Jws) => 2,
    };
    (*id, domain)
}

/// What a tier holds of the records of one id: an entry for each way to read a value that one covers.
fn entries(of_id: &[HashedRecord]) -> impl Iterator<Item = (Sha256Digest, Listed)> {
    [Domain::Exact, Domain::Jws]
        .into_iter()
        .filter_map(move |domain| {
            let of_domain = of_id.iter().filter(|record| record.covers(domain));
            let listed = listed(of_domain.copied())?;
            let id = of_id.first()?.id;
            Some((Sha256Digest::new(id.0, domain), listed))
        })
}

/// What records of one id say together; block comes before alert.
fn listed(records: impl Iterator<Item = HashedRecord>) -> Option<Listed> {
    let first = records.min_by_key(|record| record.action as u8)?;
    Some(Listed {
        token: first.id.short(),
        action: first.action,
        fingerprint: Fingerprint(0),
    })
}

impl Default for HashedSet {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl HashedSet {
    /// Ascending by key, each once.
    fn new(mut records: Vec<HashedRecord>) -> Self {
        records.shrink_to_fit();
        let soonest = records.iter().map(|record| record.expires).min();
        Self {
            len: records.len(),
            base: Arc::new(records),
            overlay: Overlay::default(),
            soonest: soonest.unwrap_or(Expires::NEVER),
        }
    }

    /// Merges the records of all sources as [`super::List::merge`] does: of what is given twice, block wins over
    /// alert and the later expiry wins; what has expired by `now` doesn't count.
    #[must_use]
    pub fn merge(mut records: Vec<HashedRecord>, now: SystemTime) -> Self {
        records.retain(|record| !record.expires.is_past(now));
        // Stable: quick where two sorted sets stand one behind the other.
        records.par_sort_by_key(HashedRecord::key);
        records.dedup_by(|later, first| {
            let same = later.key() == first.key();
            if same {
                if later.action == Action::Block {
                    first.action = Action::Block;
                }
                first.expires = first.expires.max(later.expires);
            }
            same
        });
        Self::new(records)
    }

    /// Both sets merged.
    #[must_use]
    pub fn joined(&self, other: &Self, now: SystemTime) -> Self {
        if other.is_empty() {
            return self.left(now);
        }
        if self.is_empty() {
            return other.left(now);
        }
        Self::merge(self.iter().chain(other.iter()).collect(), now)
    }

    /// The set with these in it, each in place of the one under its key, the last of those that are given twice.
    #[must_use]
    pub fn with(&self, new: impl Iterator<Item = HashedRecord>) -> Self {
        self.changed(new.map(|record| (record.key(), Some(record))).collect())
    }

    /// The set without those of these ids, read so.
    #[must_use]
    pub fn without(&self, gone: impl Iterator<Item = (TokenId, Option<Domain>)>) -> Self {
        self.changed(gone.map(|(id, domain)| (key(&id, domain), None)).collect())
    }

    /// The set with these `records` of some `ids` in place of all that it holds of them, and what that changes in a tier; without
    /// a look at the rest.
    #[must_use]
    pub fn replaced(
        &self,
        ids: &BTreeSet<TokenId>,
        records: &[HashedRecord],
    ) -> (Self, HashedChange) {
        let old = ids.iter().flat_map(|id| self.of_id(id));
        let gone = old.map(|record| (record.key(), None));
        let new = records.iter().map(|record| (record.key(), Some(*record)));
        let next = self.changed(gone.chain(new).collect());
        let mut change = HashedChange::default();
        for id in ids {
            let [before, after] = [self, &next].map(|set| set.of_id(id).collect::<Vec<_>>());
            change.of_id(&before, &after);
        }
        (next, change)
    }

    fn changed(&self, changes: Vec<(Key, Option<HashedRecord>)>) -> Self {
        let changes = Overlay::of(changes);
        let Some(overlay) = self.overlay.with(&changes) else {
            let all = changes.over(self.iter().map(|record| (record.key(), record)));
            return Self::new(all.map(|(_, record)| record).collect());
        };
        let (mut len, mut soonest) = (self.len, self.soonest);
        for (key, record) in changes.iter() {
            len -= usize::from(self.at(key).is_some());
            if let Some(record) = record {
                len += 1;
                soonest = soonest.min(record.expires);
            }
        }
        Self {
            base: Arc::clone(&self.base),
            overlay,
            len,
            soonest,
        }
    }

    /// The same set, quick to change again.
    #[must_use]
    pub fn tidied(&self) -> Option<Self> {
        self.overlay
            .is_long()
            .then(|| Self::new(self.iter().collect()))
    }

    /// All of it, ascending.
    fn flat(&self) -> Arc<Vec<HashedRecord>> {
        if self.overlay.is_empty() {
            Arc::clone(&self.base)
        } else {
            Arc::new(self.iter().collect())
        }
    }

    /// The entries.
    pub fn iter(&self) -> impl Iterator<Item = HashedRecord> {
        let base = self.base.iter().map(|record| (record.key(), *record));
        self.overlay.over(base).map(|(_, record)| record)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What a tier is to hold.
    #[must_use]
    pub fn entries(&self) -> Vec<(Sha256Digest, Listed)> {
        by_id(&self.flat()).flat_map(entries).collect()
    }

    /// What makes a tier that holds this set hold the `next`.
    #[must_use]
    pub fn change(&self, next: &Self) -> HashedChange {
        let mut change = HashedChange::default();
        let id = |records: &[HashedRecord]| records.first().map(|record| record.id);
        let [old, new] = [self, next].map(Self::flat);
        if Arc::ptr_eq(&old, &new) {
            return change;
        }
        let mut old = by_id(&old).peekable();
        for new in by_id(&new) {
            while let Some(gone) = old.next_if(|old| id(old) < id(new)) {
                change.of_id(gone, &[]);
            }
            let before = old.next_if(|old| id(old) == id(new));
            change.of_id(before.unwrap_or_default(), new);
        }
        old.for_each(|gone| change.of_id(gone, &[]));
        change
    }

    /// When the next entry leaves by itself; at times earlier.
    #[must_use]
    pub fn next_expiry(&self) -> Option<SystemTime> {
        self.soonest.time()
    }

    /// Those that are left at `now`.
    #[must_use]
    pub fn left(&self, now: SystemTime) -> Self {
        if !self.soonest.is_past(now) {
            return self.clone();
        }
        let left = self.iter().filter(|record| !record.expires.is_past(now));
        Self::new(left.collect())
    }

    /// Those of this id.
    pub fn of_id(&self, id: &TokenId) -> impl Iterator<Item = HashedRecord> {
        let readings = [None, Some(Domain::Exact), Some(Domain::Jws)];
        let id = *id;
        readings
            .into_iter()
            .filter_map(move |domain| self.find(&id, domain))
    }

    /// The one of this id that is read so.
    #[must_use]
    pub fn find(&self, id: &TokenId, domain: Option<Domain>) -> Option<HashedRecord> {
        self.at(&key(id, domain))
    }

    fn at(&self, key: &Key) -> Option<HashedRecord> {
        self.overlay.get(key, || {
            let at = self.base.binary_search_by_key(key, HashedRecord::key);
            at.ok().and_then(|at| self.base.get(at)).copied()
        })
    }

    /// What is listed of a token at `now`, as if it was listed itself.
    #[must_use]
    pub fn record(&self, token: &Identity, now: SystemTime) -> Option<Record> {
        let records = self
            .of_id(&token.id)
            .filter(|record| record.covers(token.domain) && !record.expires.is_past(now));
        let records = records.map(|record| Record {
            digest: token.digest,
            listed: Listed {
                token: token.id.short(),
                action: record.action,
                fingerprint: token.fingerprint,
            },
            expires: record.expires,
        });
        records.reduce(|mut one, other| {
            one.join(&other);
            one
        })
    }

    /// What is listed under this digest at `now`.
    #[must_use]
    pub fn get(&self, digest: &Sha256Digest, now: SystemTime) -> Option<Listed> {
        let id = TokenId(digest.sha256());
        let of_id = self.of_id(&id);
        listed(
            of_id.filter(|record| record.covers(digest.domain()) && !record.expires.is_past(now)),
        )
    }
}

/// What is in force, for those who read it and for the one who changes it; clones share it.
#[derive(Clone, Debug, Default)]
pub struct HashedReader(Arc<ArcSwap<HashedSet>>);

impl HashedReader {
    /// What is in force; `None` where that is nothing, so that nothing need be digested.
    #[must_use]
    pub fn current(&self) -> Option<Arc<HashedSet>> {
        let current = self.0.load();
        (!current.is_empty()).then(|| Arc::clone(&current))
    }

    /// All that is in force, if only nothing.
    pub(super) fn set(&self) -> Arc<HashedSet> {
        self.0.load_full()
    }

    /// Puts another set in force.
    pub(super) fn store(&self, set: HashedSet) {
        self.0.store(Arc::new(set));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        time::{Duration, UNIX_EPOCH},
    };

    use proptest::prelude::*;

    use super::*;

    fn record(id: u8, domain: Option<Domain>, action: Action, expires: Expires) -> HashedRecord {
        HashedRecord {
            id: TokenId([id; 32]),
            domain,
            action,
            expires,
        }
    }

    #[test]
    fn an_entry_is_found_as_what_it_was_read_until_it_expires() {
        let now = UNIX_EPOCH + Duration::from_secs(100);
        let later = now + Duration::from_secs(1);
        let (never, soon) = (Expires::NEVER, Expires::at(later));
        let set = HashedSet::merge(
            vec![
                record(3, None, Action::Alert, never),
                record(1, Some(Domain::Jws), Action::Block, never),
                record(2, None, Action::Alert, soon),
                record(2, None, Action::Block, Expires::at(now)),
                record(3, Some(Domain::Exact), Action::Block, never),
                record(3, None, Action::Alert, never),
            ],
            now,
        );
        assert_eq!(set.len(), 4);
        let get = |id: u8, domain, now| {
            set.get(&Sha256Digest::new([id; 32], domain), now)
                .map(|listed| listed.action)
        };
        assert_eq!(get(1, Domain::Jws, now), Some(Action::Block));
        assert_eq!(get(1, Domain::Exact, now), None);
        assert_eq!(get(2, Domain::Exact, now), Some(Action::Alert));
        assert_eq!(get(2, Domain::Exact, later), None);
        assert_eq!(get(3, Domain::Exact, now), Some(Action::Block));
        assert_eq!(get(3, Domain::Jws, now), Some(Action::Alert));
        assert_eq!(get(4, Domain::Exact, now), None);
    }

    fn domains() -> impl Strategy<Value = Option<Domain>> {
        prop_oneof![
            Just(None),
            Just(Some(Domain::Exact)),
            Just(Some(Domain::Jws))
        ]
    }

    type Tier = BTreeMap<Sha256Digest, Listed>;

    fn tier(set: &HashedSet) -> Tier {
        set.entries().into_iter().collect()
    }

    fn apply(change: HashedChange, to: &mut Tier) {
        to.extend(change.added);
        to.retain(|digest, _| !change.removed.contains(digest));
    }

    proptest! {
        /// Through single changes and whole sets; a tier that follows each holds what the set says.
        #[test]
        fn agrees_with_a_map(
            steps in prop::collection::vec(
                (any::<bool>(), prop::collection::vec((any::<u8>(), domains(), any::<bool>()), 0..400)), 1..8),
        ) {
            let (mut set, mut model, mut held) = (HashedSet::default(), BTreeMap::new(), Tier::new());
            for (add, changes) in steps {
                let next = if add {
                    let records = changes.iter().map(|(id, domain, block)| {
                        let action = if *block { Action::Block } else { Action::Alert };
                        record(*id, *domain, action, Expires::NEVER)
                    });
                    model.extend(records.clone().map(|record| (record.key(), record)));
                    set.with(records)
                } else {
                    let gone = changes.iter().map(|(id, domain, _)| (TokenId([*id; 32]), *domain));
                    model.retain(|at, _| !gone.clone().any(|(id, domain)| key(&id, domain) == *at));
                    set.without(gone)
                };
                prop_assert_eq!(next.len(), model.len());
                prop_assert!(next.iter().eq(model.values().copied()));
                let ids: BTreeSet<_> = changes.iter().map(|(id, ..)| TokenId([*id; 32])).collect();
                let of_ids: Vec<_> = ids.iter().flat_map(|id| next.of_id(id)).collect();
                let (replaced, change) = set.replaced(&ids, &of_ids);
                prop_assert_eq!(&replaced, &next);
                prop_assert_eq!(change.ids, set.change(&next).ids);
                apply(change, &mut held);
                prop_assert_eq!(&held, &tier(&next));
                let mut again = tier(&set);
                apply(set.change(&next), &mut again);
                prop_assert_eq!(&again, &held);
                set = next.tidied().unwrap_or(next);
            }
        }
    }

    #[test]
    fn a_single_change_of_a_long_set_copies_none_of_it() {
        let of = |n: u32| {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&n.to_be_bytes());
            HashedRecord {
                id: TokenId(id),
                ..record(0, None, Action::Block, Expires::NEVER)
            }
        };
        let set = HashedSet::merge((0..5000).map(of).collect(), UNIX_EPOCH);
        let (one, change) = set.replaced(&[of(7000).id].into(), &[of(7000)]);
        let (two, _) = one.replaced(&[of(17).id].into(), &[]);
        assert!(Arc::ptr_eq(&set.base, &two.base) && change.added.len() == 2);
        assert_eq!((one.len(), two.len()), (5001, 5000));
        assert!(two.find(&of(17).id, None).is_none() && two.find(&of(7000).id, None).is_some());
    }
}
