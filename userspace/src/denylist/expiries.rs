//! Which entries leave by themselves, and when.

use std::{
    collections::{BTreeSet, HashMap},
    time::SystemTime,
};

use super::{Expires, Record, TokenDigest};

/// The expiries of a list, and over them those of single changes, so that a change costs no more in a long list.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    /// Of the last list, the next one last.
    list: Vec<(Expires, TokenDigest)>,
    /// Of what was changed since; counts before `list`. [`Expires::NEVER`] where it leaves no more.
    changed: HashMap<TokenDigest, Expires>,
    /// Those of `changed` that leave.
    queue: BTreeSet<(Expires, TokenDigest)>,
}

impl Expiries {
    /// Of a whole list.
    pub(super) fn of(records: &[Record]) -> Self {
        let mut list: Vec<_> = records
            .iter()
            .filter(|record| record.expires != Expires::NEVER)
            .map(|record| (record.expires, record.digest))
            .collect();
        list.sort_unstable_by(|a, b| b.cmp(a));
        Self {
            list,
            ..Self::default()
        }
    }

    /// Changes one entry's; [`Expires::NEVER`] for one that is gone.
    pub(super) fn set(&mut self, digest: TokenDigest, expires: Expires) {
        let needless = expires == Expires::NEVER && self.list.is_empty();
        let before = if needless {
            self.changed.remove(&digest)
        } else {
            self.changed.insert(digest, expires)
        };
        if let Some(before) = before {
            self.queue.remove(&(before, digest));
        }
        if expires != Expires::NEVER {
            self.queue.insert((expires, digest));
        }
    }

    /// When this entry leaves.
    pub(super) fn get(&self, digest: &TokenDigest) -> Expires {
        let listed = || self.list.iter().find(|(_, listed)| listed == digest);
        match self.changed.get(digest) {
            Some(expires) => *expires,
            None => listed().map_or(Expires::NEVER, |(expires, _)| *expires),
        }
    }

    /// Those of all entries that leave.
    pub(super) fn all(&self) -> HashMap<TokenDigest, Expires> {
        let list = self
            .list
            .iter()
            .map(|(expires, digest)| (*digest, *expires));
        let changed = self.changed.iter();
        list.chain(changed.map(|(digest, expires)| (*digest, *expires)))
            .collect()
    }

    /// The next; at the latest when an entry leaves, at times for one that was changed since.
    pub(super) fn next(&self) -> Option<SystemTime> {
        let list = self.list.last().map(|(at, _)| *at);
        let queued = self.queue.first().map(|(at, _)| *at);
        list.into_iter().chain(queued).min().and_then(Expires::time)
    }

    /// What has left by `now`.
    pub(super) fn due(&self, now: SystemTime) -> Vec<TokenDigest> {
        let listed = self.list.iter().rev();
        let listed = listed
            .take_while(|(at, _)| at.is_past(now))
            .filter(|(_, digest)| !self.changed.contains_key(digest));
        let queued = self.queue.iter().take_while(|(at, _)| at.is_past(now));
        listed.chain(queued).map(|(_, digest)| *digest).collect()
    }

    /// Forgets what is [`Expiries::due`].
    pub(super) fn forget(&mut self, due: &[TokenDigest], now: SystemTime) {
        for digest in due {
            self.set(*digest, Expires::NEVER);
        }
        let first_due = self.list.partition_point(|(at, _)| !at.is_past(now));
        self.list.truncate(first_due);
    }
}
