//! Entries that are known by their SHA-256 alone, as the proxy tier holds them.
//!
//! Their keyed digest can't be told from that, so the kernel tier can't look them up.

use std::{sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use tokenblock_ebpf::{digest::Domain, sha256::digest::TokenDigest};

use super::{Action, Expires, Fingerprint, Listed, TokenId};

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
        records.sort_unstable_by_key(HashedRecord::key);
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

    fn find(&self, record: &HashedRecord) -> Option<&HashedRecord> {
        let at = self
            .0
            .binary_search_by_key(&record.key(), HashedRecord::key);
        at.ok().and_then(|at| self.0.get(at))
    }

    /// What is listed under this digest at `now`; block comes before alert.
    #[must_use]
    pub fn get(&self, digest: &TokenDigest, now: SystemTime) -> Option<Listed> {
        let id = TokenId(digest.sha256);
        let from = self.0.partition_point(|record| record.id < id);
        let records = self.0.get(from..)?;
        let action = records
            .iter()
            .take_while(|record| record.id == id)
            .filter(|record| record.covers(digest.domain) && !record.expires.is_past(now))
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
            let sha256 = [id; 32];
            set.get(&TokenDigest { sha256, domain }, now)
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
