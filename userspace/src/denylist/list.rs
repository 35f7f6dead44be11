//! The entries of all sources, merged: sorted by digest, one record a token.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rayon::slice::ParallelSliceMut as _;

use super::{Action, HashedSet, Listed, TokenDigest, canonical::Identity};

/// When an entry leaves the list, to the second; [`Expires::NEVER`] is later than any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expires(u64);

impl Expires {
    /// It stays until it is taken off.
    pub const NEVER: Self = Self(u64::MAX);

    /// The second that `time` is in, or, with a fraction, the next: never earlier than asked for.
    #[must_use]
    pub fn at(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Self(since.as_secs() + u64::from(since.subsec_nanos() > 0)),
            Err(_before_1970) => Self(0),
        }
    }

    /// As stored: seconds since 1970, the greatest number for [`Expires::NEVER`].
    pub(crate) fn to_stored(self) -> u64 {
        self.0
    }

    /// The opposite of [`Expires::to_stored`].
    pub(crate) fn from_stored(seconds: u64) -> Self {
        Self(seconds)
    }

    /// Whether the entry is off the list at `now`.
    #[must_use]
    pub fn is_past(self, now: SystemTime) -> bool {
        self.time().is_some_and(|time| time <= now)
    }

    /// The instant, or `None` for [`Expires::NEVER`].
    #[must_use]
    pub fn time(self) -> Option<SystemTime> {
        if self == Self::NEVER {
            return None;
        }
        UNIX_EPOCH.checked_add(Duration::from_secs(self.0))
    }
}

/// One entry as a source gives it.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The token.
    pub identity: Identity,
    /// What to do with a request that bears it.
    pub action: Action,
    /// When it leaves the list.
    pub expires: Expires,
    /// Why it is listed, as the list says.
    pub reason: Option<&'a str>,
    /// Where it was found, as the list says.
    pub source: Option<&'a str>,
}

/// What enforcement needs of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Under what the tiers hold it.
    pub digest: TokenDigest,
    /// What the tiers hold.
    pub listed: Listed,
    /// When it leaves the tiers.
    pub expires: Expires,
}

impl Record {
    /// Takes in another record of the same token: block wins over alert, and the later expiry wins.
    pub fn join(&mut self, other: &Self) {
        if other.listed.action == Action::Block {
            self.listed.action = Action::Block;
        }
        self.expires = self.expires.max(other.expires);
    }
}

impl From<&Entry<'_>> for Record {
    fn from(entry: &Entry<'_>) -> Self {
        Self {
            digest: entry.identity.digest,
            listed: Listed {
                token: entry.identity.id.short(),
                action: entry.action,
                fingerprint: entry.identity.fingerprint,
            },
            expires: entry.expires,
        }
    }
}

/// A merged list: ascending digests, each once, none expired when it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    records: Vec<Record>,
    hashed: HashedSet,
}

impl List {
    /// Merges the records of all sources. Of a token that is given twice, block wins over alert and the later
    /// expiry wins; what has expired by `now` doesn't count.
    #[must_use]
    pub fn merge(mut records: Vec<Record>, now: SystemTime) -> Self {
        records.retain(|record| !record.expires.is_past(now));
        records.par_sort_unstable_by_key(|record| u128::from_be_bytes(record.digest.0));
        records.dedup_by(|later, first| {
            let same = later.digest == first.digest;
            if same {
                first.join(later);
            }
            same
        });
        Self {
            records,
            hashed: HashedSet::default(),
        }
    }

    /// The records, in the order of their digests.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The same list with these entries besides.
    #[must_use]
    pub fn with_hashed(self, hashed: HashedSet) -> Self {
        Self { hashed, ..self }
    }

    /// The entries that are known by their SHA-256 alone.
    #[must_use]
    pub fn hashed(&self) -> &HashedSet {
        &self.hashed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::denylist::{Fingerprint, ShortTokenId};

    const NOW: Duration = Duration::from_secs(1_000);

    fn record(digest: u8, action: Action, expires: Expires) -> Record {
        Record {
            digest: TokenDigest([digest; 16]),
            listed: Listed {
                token: ShortTokenId([digest; 6]),
                action,
                fingerprint: Fingerprint(0),
            },
            expires,
        }
    }

    #[test]
    fn block_and_the_later_expiry_win() {
        let (soon, later) = (Expires(1_010), Expires(1_020));
        let merged = List::merge(
            vec![
                record(2, Action::Alert, later),
                record(1, Action::Block, soon),
                record(2, Action::Block, soon),
                record(1, Action::Alert, Expires::NEVER),
                record(3, Action::Block, Expires(1_000)),
            ],
            UNIX_EPOCH + NOW,
        );
        assert_eq!(
            merged.records(),
            [
                record(1, Action::Block, Expires::NEVER),
                record(2, Action::Block, later)
            ]
        );
    }

    #[test]
    fn an_expiry_is_exact_to_the_second_and_never_early() {
        let at = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        assert_eq!(Expires::at(at(1_999)), Expires(2));
        assert_eq!(Expires::at(at(2_000)), Expires(2));
        assert!(!Expires(2).is_past(at(1_999)));
        assert!(Expires(2).is_past(at(2_000)));
        assert!(!Expires::NEVER.is_past(at(u64::MAX / 4)));
    }
}
