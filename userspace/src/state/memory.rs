//! The additions in memory: what the tiers need of them, and what files say of the same tokens.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    time::SystemTime,
};

use super::{EntryKey, StoredEntry, Subject, held::Held};
use crate::denylist::{Claims, Conditions, Expires, HashedSet, Record, TokenDigest};

/// More entries than this are held at once, not one by one.
const MANY: usize = 1024;

/// What is held of the additions.
#[derive(Default)]
pub struct Memory {
    pub(super) records: Held,
    /// Those that are known by their SHA-256 alone.
    pub(super) hashed: HashedSet,
    /// What the files say of the same tokens.
    files: HashMap<TokenDigest, Record>,
    /// What leads to those that name claims of JWTs.
    pub(super) claims: HashMap<TokenDigest, Conditions>,
    /// Those that leave, the next one first.
    pub(super) queue: BTreeMap<(Expires, TokenDigest), EntryKey>,
}

/// What was held before entries were held besides.
pub struct Before {
    records: Vec<Option<Record>>,
    hashed: HashedSet,
}

impl Memory {
    /// Whether the entry is among those that are held, as it is or otherwise.
    pub(super) fn holds(&self, entry: &StoredEntry) -> bool {
        match entry.hashed() {
            Some(hashed) => self.hashed.find(&hashed.id, hashed.domain).is_some(),
            None => self.records.contains(&entry.identity.digest),
        }
    }

    /// Notes what an entry needs besides its record, where `before` was held.
    pub(super) fn note(&mut self, entry: &StoredEntry, before: Option<&Record>) {
        let digest = entry.identity.digest;
        if let Subject::Claims(conditions) = &entry.subject {
            self.claims.insert(digest, **conditions);
        }
        if let Some(before) = before {
            self.queue.remove(&(before.expires, digest));
        }
        if entry.expires != Expires::NEVER {
            self.queue.insert((entry.expires, digest), entry.key());
        }
    }

    pub(super) fn release(&mut self, digest: &TokenDigest) {
        self.claims.remove(digest);
        if let Some(record) = self.records.remove(digest) {
            self.queue.remove(&(record.expires, record.digest));
        }
    }

    /// Holds entries besides the rest; gives what was held of each before.
    pub fn hold_all<'a>(
        &mut self,
        entries: impl IntoIterator<Item = &'a StoredEntry>,
        in_force: impl Fn(&TokenDigest) -> Option<Record>,
    ) -> Before {
        let entries: Vec<_> = entries.into_iter().collect();
        let held = entries.iter().map(|entry| {
            let record = entry.record()?;
            self.records.get(&record.digest)
        });
        let before = Before {
            records: held.collect(),
            hashed: self.hashed.clone(),
        };
        for (entry, before) in entries.iter().zip(&before.records) {
            if entry.record().is_none() {
                continue;
            }
            let digest = entry.identity.digest;
            if let (None, Some(record)) = (before, in_force(&digest)) {
                self.files.insert(digest, record);
            }
            self.note(entry, before.as_ref());
        }
        let records = entries.iter().filter_map(|entry| entry.record());
        if entries.len() > MANY {
            self.records.extend(records);
        } else {
            for record in records {
                self.records.insert(&record);
            }
        }
        let mut hashed = entries.iter().filter_map(|entry| entry.hashed()).peekable();
        if hashed.peek().is_some() {
            self.hashed = self.hashed.with(hashed);
        }
        before
    }

    /// Takes back what [`Memory::hold_all`] did with the same entries.
    pub fn take_back(&mut self, entries: &[StoredEntry], before: Before) {
        self.hashed = before.hashed;
        for (entry, before) in entries.iter().zip(before.records) {
            if entry.record().is_none() {
                continue;
            }
            self.release(&entry.identity.digest);
            if let Some(record) = before {
                self.records.insert(&record);
                if let Subject::Claims(conditions) = &entry.subject {
                    self.claims.insert(record.digest, **conditions);
                }
                if record.expires != Expires::NEVER {
                    let key = entry.key();
                    self.queue.insert((record.expires, record.digest), key);
                }
            }
        }
    }

    /// Takes over what another knows of the files.
    pub(super) fn keep_files_of(&mut self, other: &mut Self) {
        self.files = mem::take(&mut other.files);
    }

    /// Does what keeps memory small; to be called when nobody waits.
    pub fn tidy(&mut self) {
        self.records.tidy();
        if let Some(hashed) = self.hashed.tidied() {
            self.hashed = hashed;
        }
    }

    /// What leads to those that name claims of JWTs.
    pub fn claims(&self) -> impl Iterator<Item = Claims> {
        self.claims.iter().map(|(digest, conditions)| Claims {
            conditions: *conditions,
            digest: *digest,
        })
    }

    /// Whether the token was added here.
    #[must_use]
    pub fn has(&self, digest: &TokenDigest) -> bool {
        self.records.contains(digest)
    }

    /// Whether the files list a token that was added here.
    #[must_use]
    pub fn in_files(&self, digest: &TokenDigest, now: SystemTime) -> bool {
        let record = self.files.get(digest);
        record.is_some_and(|record| !record.expires.is_past(now))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len() + self.hashed.len()
    }

    /// Those that are known by their SHA-256 alone.
    #[must_use]
    pub fn hashed(&self) -> &HashedSet {
        &self.hashed
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The records of all files, and besides them those of the additions.
    #[must_use]
    pub fn merged(&mut self, mut records: Vec<Record>) -> Vec<Record> {
        self.files.clear();
        if self.records.len() == 0 {
            return records;
        }
        for record in &records {
            if self.records.contains(&record.digest) {
                let held = self.files.entry(record.digest).or_insert(*record);
                held.join(record);
            }
        }
        records.extend(self.records.records());
        records
    }

    /// What of the records in force the files have given.
    pub fn without(&self, in_force: Vec<Record>) -> impl Iterator<Item = Record> {
        in_force
            .into_iter()
            .filter(|record| !self.records.contains(&record.digest))
            .chain(self.files.values().copied())
    }

    /// What is to be in force of a token that was added here at some time.
    #[must_use]
    pub fn effective(&self, digest: &TokenDigest, now: SystemTime) -> Option<Record> {
        self.joined(self.records.get(digest), digest, now)
    }

    /// What is to be in force of an entry that is held, under its keyed digest.
    #[must_use]
    pub fn effective_of(&self, entry: &StoredEntry, now: SystemTime) -> Option<Record> {
        let record = entry.record()?;
        self.joined(Some(record), &record.digest, now)
    }

    fn joined(
        &self,
        here: Option<Record>,
        digest: &TokenDigest,
        now: SystemTime,
    ) -> Option<Record> {
        let of_both = here.into_iter().chain(self.files.get(digest).copied());
        let current = of_both.filter(|record| !record.expires.is_past(now));
        current.reduce(|mut one, other| {
            one.join(&other);
            one
        })
    }

    /// Forgets what the files said of tokens that are not added here any more, once that is in force.
    pub fn settled(&mut self, digests: &[TokenDigest]) {
        for digest in digests {
            if !self.records.contains(digest) {
                self.files.remove(digest);
            }
        }
    }

    /// When the next one leaves by itself.
    #[must_use]
    pub fn next_expiry(&self) -> Option<SystemTime> {
        let of_tokens = self.queue.first_key_value();
        let of_tokens = of_tokens.and_then(|((at, _), _)| at.time());
        of_tokens.into_iter().chain(self.hashed.next_expiry()).min()
    }
}
