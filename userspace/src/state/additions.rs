//! What was added at run time: in the database, and in memory what the tiers need of it.

use std::{
    collections::{BTreeMap, HashMap},
    time::SystemTime,
};

use super::{EntryKey, StateError, Store, StoredEntry};
use crate::denylist::{Expires, Record, TokenDigest};

/// Entries read at once when the database is opened.
const PAGE: usize = 10_000;

/// The entries that were added at run time.
pub struct Additions {
    store: Store,
    records: HashMap<TokenDigest, Record>,
    /// What the files say of the same tokens.
    files: HashMap<TokenDigest, Record>,
    /// Those that leave, the next one first.
    queue: BTreeMap<(Expires, TokenDigest), EntryKey>,
    /// Why the last write failed.
    failure: Option<String>,
}

/// What an addition did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The token was not among the additions.
    Added,
    /// It was, with other attributes.
    Updated,
    /// It was, as it is.
    Unchanged,
}

/// An entry after an addition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addition {
    /// As it is stored now.
    pub entry: StoredEntry,
    /// What was done.
    pub outcome: Outcome,
}

impl Additions {
    /// Reads all entries of the database that have not expired by `now`; takes the others off it.
    ///
    /// # Errors
    /// Where it can't be read, or not written to.
    pub fn open(store: Store, now: SystemTime) -> Result<Self, StateError> {
        let mut additions = Self {
            store,
            records: HashMap::new(),
            files: HashMap::new(),
            queue: BTreeMap::new(),
            failure: None,
        };
        let (mut after, mut expired) = (None, Vec::new());
        loop {
            let page = additions.store.page(after, PAGE)?;
            let Some(last) = page.last() else { break };
            after = Some(EntryKey::from(&last.identity));
            for entry in &page {
                if entry.expires.is_past(now) {
                    expired.push(EntryKey::from(&entry.identity));
                } else {
                    additions.hold(entry);
                }
            }
        }
        if !expired.is_empty() {
            additions.store.write(&[], &expired)?;
        }
        Ok(additions)
    }

    fn hold(&mut self, entry: &StoredEntry) {
        let record = entry.record();
        if let Some(before) = self.records.insert(record.digest, record) {
            self.queue.remove(&(before.expires, before.digest));
        }
        if record.expires != Expires::NEVER {
            let key = EntryKey::from(&entry.identity);
            self.queue.insert((record.expires, record.digest), key);
        }
    }

    fn release(&mut self, digest: &TokenDigest) {
        if let Some(record) = self.records.remove(digest) {
            self.queue.remove(&(record.expires, record.digest));
        }
    }

    /// Stores entries, on disk when it returns; `in_force` says what is listed under a digest so far.
    ///
    /// An entry that is given twice counts as it is given last.
    ///
    /// # Errors
    /// Where the disk didn't take them; nothing is changed then.
    pub fn add(
        &mut self,
        entries: Vec<StoredEntry>,
        in_force: impl Fn(&TokenDigest) -> Option<Record>,
    ) -> Result<Vec<Addition>, StateError> {
        let mut batch = BTreeMap::<EntryKey, StoredEntry>::new();
        let mut additions = Vec::with_capacity(entries.len());
        for entry in entries {
            let key = EntryKey::from(&entry.identity);
            let before = match batch.get(&key) {
                Some(entry) => Some(entry.clone()),
                None => self.get(&entry)?,
            };
            let (entry, outcome) = match before {
                None => (entry, Outcome::Added),
                Some(before) => {
                    let entry = before.updated(entry);
                    let same = entry == before;
                    let outcome = if same {
                        Outcome::Unchanged
                    } else {
                        Outcome::Updated
                    };
                    (entry, outcome)
                }
            };
            if outcome != Outcome::Unchanged {
                batch.insert(key, entry.clone());
            }
            additions.push(Addition { entry, outcome });
        }
        let changed: Vec<_> = batch.into_values().collect();
        self.write(&changed, &[])?;
        for entry in &changed {
            let digest = entry.identity.digest;
            if let (false, Some(record)) = (self.records.contains_key(&digest), in_force(&digest)) {
                self.files.insert(digest, record);
            }
            self.hold(entry);
        }
        Ok(additions)
    }

    fn get(&mut self, entry: &StoredEntry) -> Result<Option<StoredEntry>, StateError> {
        if !self.records.contains_key(&entry.identity.digest) {
            return Ok(None);
        }
        self.store.get(&EntryKey::from(&entry.identity))
    }

    /// Removes entries, from the disk too when it returns; gives those that were there.
    ///
    /// # Errors
    /// Where the disk didn't take it; nothing is changed then.
    pub fn remove(&mut self, keys: &[EntryKey]) -> Result<Vec<Option<StoredEntry>>, StateError> {
        let mut removed = Vec::with_capacity(keys.len());
        for key in keys {
            removed.push(self.find(key)?);
        }
        if removed.iter().any(Option::is_some) {
            self.write(&[], keys)?;
        }
        for entry in removed.iter().flatten() {
            self.release(&entry.identity.digest);
        }
        Ok(removed)
    }

    fn write(&mut self, put: &[StoredEntry], remove: &[EntryKey]) -> Result<(), StateError> {
        if put.is_empty() && remove.is_empty() {
            return Ok(());
        }
        let result = self.store.write(put, remove);
        self.failure = result.as_ref().err().map(ToString::to_string);
        result
    }

    /// The entry under this key, where it has not expired.
    ///
    /// # Errors
    /// Where the disk can't be read.
    pub fn find(&mut self, key: &EntryKey) -> Result<Option<StoredEntry>, StateError> {
        let found = self.store.get(key)?;
        Ok(found.filter(|entry| self.records.contains_key(&entry.identity.digest)))
    }

    /// Up to `limit` entries behind `after`, ascending by key, and where to go on.
    ///
    /// # Errors
    /// Where the disk can't be read.
    pub fn page(
        &mut self,
        after: Option<EntryKey>,
        limit: usize,
    ) -> Result<(Vec<StoredEntry>, Option<EntryKey>), StateError> {
        let mut page = self.store.page(after, limit)?;
        let next = match page.last() {
            Some(last) if page.len() == limit => Some(EntryKey::from(&last.identity)),
            _ => None,
        };
        page.retain(|entry| self.records.contains_key(&entry.identity.digest));
        Ok((page, next))
    }

    /// Whether the token was added here.
    #[must_use]
    pub fn has(&self, digest: &TokenDigest) -> bool {
        self.records.contains_key(digest)
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
        self.records.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Why the last change could not be stored.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// The records of all files, and besides them those of the additions.
    #[must_use]
    pub fn merged(&mut self, mut records: Vec<Record>) -> Vec<Record> {
        self.files.clear();
        if self.records.is_empty() {
            return records;
        }
        for record in &records {
            if self.records.contains_key(&record.digest) {
                let held = self.files.entry(record.digest).or_insert(*record);
                held.join(record);
            }
        }
        records.extend(self.records.values());
        records
    }

    /// What of the records in force the files have given.
    pub fn without(&self, in_force: Vec<Record>) -> impl Iterator<Item = Record> {
        in_force
            .into_iter()
            .filter(|record| !self.records.contains_key(&record.digest))
            .chain(self.files.values().copied())
    }

    /// What is to be in force of a token that was added here at some time.
    #[must_use]
    pub fn effective(&self, digest: &TokenDigest, now: SystemTime) -> Option<Record> {
        let here = self.records.get(digest).into_iter();
        let of_both = here.chain(self.files.get(digest));
        let current = of_both.filter(|record| !record.expires.is_past(now));
        current.copied().reduce(|mut one, other| {
            one.join(&other);
            one
        })
    }

    /// Forgets what the files said of tokens that are not added here any more, once that is in force.
    pub fn settled(&mut self, digests: &[TokenDigest]) {
        for digest in digests {
            if !self.records.contains_key(digest) {
                self.files.remove(digest);
            }
        }
    }

    /// When the next one leaves by itself.
    #[must_use]
    pub fn next_expiry(&self) -> Option<SystemTime> {
        self.queue
            .first_key_value()
            .and_then(|((at, _), _)| at.time())
    }

    /// Takes off what has expired by `now`. Where the disk doesn't take that, it is taken off at the next start.
    pub fn expire(&mut self, now: SystemTime) -> Vec<TokenDigest> {
        let (mut digests, mut keys) = (Vec::new(), Vec::new());
        while let Some(first) = self.queue.first_entry() {
            let (at, digest) = *first.key();
            if !at.is_past(now) {
                break;
            }
            keys.push(first.remove());
            self.records.remove(&digest);
            digests.push(digest);
        }
        if let Err(error) = self.write(&[], &keys) {
            tracing::error!(%error, "expired entries stay in the database for now");
        }
        digests
    }
}
