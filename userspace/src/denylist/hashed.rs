//! Entries that are known by their SHA-256 alone.
//!
//! Their keyed digest can't be told from that, so both tiers digest candidates a second time while there are any.

use std::{sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use rayon::slice::ParallelSliceMut as _;
use tokenblock_ebpf::digest::Domain;
pub use tokenblock_ebpf::sha256::digest::TokenDigest as Sha256Digest;

use super::{Action, Expires, Fingerprint, Identity, Listed, Record, TokenId};

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

/// All of them at one moment, in the order of their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HashedSet(Vec<HashedRecord>);

impl HashedRecord {
    fn key(&self) -> (TokenId, u8) {
        let domain = match self.domain {
            None => 0,
            Some(Domain::Exact) => 1,
            Some(Domain::Jws) => 2,
        };
        (self.id, domain)
    }

    fn entries(&self) -> impl Iterator<Item = (Sha256Digest, Listed)> {
        let listed = Listed {
            token: self.id.short(),
            action: self.action,
            fingerprint: Fingerprint(0),
        };
        [Domain::Exact, Domain::Jws]
            .into_iter()
            .filter(|domain| self.covers(*domain))
            .map(move |domain| (Sha256Digest::new(self.id.0, domain), listed))
    }

    fn covers(&self, domain: Domain) -> bool {
        self.domain.is_none_or(|own| own == domain)
    }
}

impl HashedSet {
    /// Merges the records of all sources as [`super::List::merge`] does: of what is given twice, block wins over
    /// alert and the later expiry wins; what has expired by `now` doesn't count.
    #[must_use]
    pub fn merge(mut records: Vec<HashedRecord>, now: SystemTime) -> Self {
        records.retain(|record| !record.expires.is_past(now));
        records.par_sort_unstable_by_key(HashedRecord::key);
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
        Self(records)
    }

    /// The entries.
    #[must_use]
    pub fn records(&self) -> &[HashedRecord] {
        &self.0
    }

    /// What the kernel tier is to hold, ascending: an entry for each way to read a value that a record covers.
    #[must_use]
    pub fn entries(&self) -> Vec<(Sha256Digest, Listed)> {
        let mut entries: Vec<_> = self.0.iter().flat_map(HashedRecord::entries).collect();
        // Block comes before alert.
        entries.sort_unstable_by_key(|(digest, listed)| (*digest, listed.action as u8));
        entries.dedup_by_key(|(digest, _)| *digest);
        entries
    }

    /// When the next entry leaves by itself.
    #[must_use]
    pub fn next_expiry(&self) -> Option<SystemTime> {
        let soonest = self.0.iter().map(|record| record.expires).min();
        soonest.and_then(Expires::time)
    }

    /// Those that are left at `now`.
    #[must_use]
    pub fn left(&self, now: SystemTime) -> Self {
        let left = self.0.iter().filter(|record| !record.expires.is_past(now));
        Self(left.copied().collect())
    }

    fn find(&self, record: &HashedRecord) -> Option<&HashedRecord> {
        let at = self
            .0
            .binary_search_by_key(&record.key(), HashedRecord::key);
        at.ok().and_then(|at| self.0.get(at))
    }

    /// What is listed of a token at `now`, as if it was listed itself.
    #[must_use]
    pub fn record(&self, token: &Identity, now: SystemTime) -> Option<Record> {
        let from = self.0.partition_point(|record| record.id < token.id);
        let records = self.0.get(from..)?.iter();
        let records = records
            .take_while(|record| record.id == token.id)
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

    /// What is listed under this digest at `now`; block comes before alert.
    #[must_use]
    pub fn get(&self, digest: &Sha256Digest, now: SystemTime) -> Option<Listed> {
        let id = TokenId(digest.sha256());
        let from = self.0.partition_point(|record| record.id < id);
        let records = self.0.get(from..)?;
        let action = records
            .iter()
            .take_while(|record| record.id == id)
            .filter(|record| record.covers(digest.domain()) && !record.expires.is_past(now))
            .map(|record| record.action)
            .min_by_key(|action| *action as u8)?;
        Some(Listed {
            token: id.short(),
            action,
            fingerprint: Fingerprint(0),
        })
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
        (!current.0.is_empty()).then(|| Arc::clone(&current))
    }

    /// Whether this set is in force.
    pub(super) fn is(&self, set: &HashedSet) -> bool {
        **self.0.load() == *set
    }

    /// Puts another set in force; says how many entries came or changed, and how many left.
    pub(super) fn store(&self, set: HashedSet) -> (usize, usize) {
        let set = Arc::new(set);
        let old = self.0.swap(Arc::clone(&set));
        let added = set.0.iter().filter(|new| old.find(new) != Some(*new));
        let removed = old.0.iter().filter(|gone| set.find(gone).is_none());
        (added.count(), removed.count())
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
