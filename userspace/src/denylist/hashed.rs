//! Entries that are known by their SHA-256 alone.
//!
//! Their keyed digest can't be told from that, so both tiers digest candidates a second time while there are any.

use std::{collections::BTreeSet, sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use rayon::slice::ParallelSliceMut as _;
use tokenblock_ebpf::digest::Domain;
pub use tokenblock_ebpf::sha256::digest::TokenDigest as Sha256Digest;

use super::{Action, Changed, Expires, Fingerprint, Identity, Listed, Record, TokenId};

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

/// Many of them, in the order of their ids; a clone shares them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashedSet {
    records: Arc<Vec<HashedRecord>>,
    /// When the first of them leaves by itself.
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
    fn lets_go(&mut self, of_id: &[HashedRecord]) {
        self.removed.extend(entries(of_id).map(|entry| entry.0));
        self.ids.removed += 1;
    }
}

impl HashedRecord {
    fn key(&self) -> (TokenId, u8) {
        key(&self.id, self.domain)
    }

    fn covers(&self, domain: Domain) -> bool {
        self.domain.is_none_or(|own| own == domain)
    }
}

fn key(id: &TokenId, domain: Option<Domain>) -> (TokenId, u8) {
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
            let listed = listed(of_id.iter().filter(|record| record.covers(domain)))?;
            let id = of_id.first()?.id;
            Some((Sha256Digest::new(id.0, domain), listed))
        })
}

/// What records of one id say together; block comes before alert.
fn listed<'a>(records: impl Iterator<Item = &'a HashedRecord>) -> Option<Listed> {
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
            records: Arc::new(records),
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
        Self::merge([self.records(), other.records()].concat(), now)
    }

    /// The set with these in it, each in place of the one under its key, the last of those that are given twice.
    #[must_use]
    pub fn with(&self, new: impl Iterator<Item = HashedRecord>) -> Self {
        let mut new: Vec<_> = new.collect();
        new.reverse();
        new.extend_from_slice(&self.records);
        // Stable, so that what comes last comes before what is there.
        new.par_sort_by_key(HashedRecord::key);
        new.dedup_by_key(|record| record.key());
        Self::new(new)
    }

    /// The set without those of these ids, read so.
    #[must_use]
    pub fn without(&self, gone: impl Iterator<Item = (TokenId, Option<Domain>)>) -> Self {
        let gone: BTreeSet<_> = gone.map(|(id, domain)| key(&id, domain)).collect();
        let left = self.records.iter().copied();
        Self::new(
            left.filter(|record| !gone.contains(&record.key()))
                .collect(),
        )
    }

    /// The entries.
    #[must_use]
    pub fn records(&self) -> &[HashedRecord] {
        &self.records
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What a tier is to hold.
    #[must_use]
    pub fn entries(&self) -> Vec<(Sha256Digest, Listed)> {
        self.by_id().flat_map(entries).collect()
    }

    fn by_id(&self) -> impl Iterator<Item = &[HashedRecord]> {
        self.records.chunk_by(|one, next| one.id == next.id)
    }

    /// What makes a tier that holds this set hold the `next`.
    #[must_use]
    pub fn change(&self, next: &Self) -> HashedChange {
        let mut change = HashedChange::default();
        if Arc::ptr_eq(&self.records, &next.records) {
            return change;
        }
        let id = |records: &[HashedRecord]| records.first().map(|record| record.id);
        let mut old = self.by_id().peekable();
        for new in next.by_id() {
            while let Some(gone) = old.next_if(|old| id(old) < id(new)) {
                change.lets_go(gone);
            }
            let Some(old) = old.next_if(|old| id(old) == id(new)) else {
                change.added.extend(entries(new));
                change.ids.added += 1;
                continue;
            };
            let (before, after): (Vec<_>, Vec<_>) =
                (entries(old).collect(), entries(new).collect());
            change.ids.added += usize::from(before != after);
            let came = after.iter().filter(|entry| !before.contains(entry));
            change.added.extend(came);
            let is_left = |digest: &Sha256Digest| after.iter().any(|entry| entry.0 == *digest);
            let gone = before.iter().map(|entry| entry.0);
            change
                .removed
                .extend(gone.filter(|digest| !is_left(digest)));
        }
        old.for_each(|gone| change.lets_go(gone));
        change
    }

    /// When the next entry leaves by itself.
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
        let left = self.records.iter().copied();
        Self::new(left.filter(|record| !record.expires.is_past(now)).collect())
    }

    /// Those of this id.
    pub fn of_id(&self, id: &TokenId) -> impl Iterator<Item = &HashedRecord> {
        let from = self.records.partition_point(|record| record.id < *id);
        let records = self.records.iter().skip(from);
        let id = *id;
        records.take_while(move |record| record.id == id)
    }

    /// The one of this id that is read so.
    #[must_use]
    pub fn find(&self, id: &TokenId, domain: Option<Domain>) -> Option<&HashedRecord> {
        self.of_id(id).find(|record| record.domain == domain)
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
        listed(
            self.of_id(&id)
                .filter(|record| record.covers(digest.domain()) && !record.expires.is_past(now)),
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
    pub(super) fn set(&self) -> HashedSet {
        HashedSet::clone(&self.0.load())
    }

    /// Puts another set in force.
    pub(super) fn store(&self, set: HashedSet) {
        self.0.store(Arc::new(set));
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

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
        assert_eq!(set.records().len(), 4);
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
}
