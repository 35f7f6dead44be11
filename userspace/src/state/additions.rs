//! What was added at run time: in the database, and in memory what the tiers need of it.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    time::SystemTime,
};

use super::{EntryKey, StateError, Store, StoredEntry, held::Held};
use crate::denylist::{Claims, Conditions, Expires, Record, TokenDigest};

/// More entries than this are held at once, not one by one.
const MANY: usize = 1024;
/// Entries read at once when the database is opened.
const PAGE: usize = 10_000;

/// The entries that were added at run time.
pub struct Additions {
    store: Store,
    records: Held,
    /// What the files say of the same tokens.
    files: HashMap<TokenDigest, Record>,
    /// What leads to those that name claims of JWTs.
    claims: HashMap<TokenDigest, Conditions>,
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

/// What an addition of very many entries does.
#[derive(Debug, Default)]
pub struct Bulk {
    /// As they are to be stored.
    pub changed: Vec<StoredEntry>,
    /// How many of them are new.
    pub added: usize,
    /// How many were there with other attributes.
    pub updated: usize,
    /// How many are there as they are.
    pub unchanged: usize,
}

/// What becomes of an entry that is added, where `before` is there.
fn updated(before: Option<&StoredEntry>, entry: StoredEntry) -> (StoredEntry, Outcome) {
    let Some(before) = before else {
        return (entry, Outcome::Added);
    };
    let entry = before.updated(entry);
    let outcome = if entry == *before {
        Outcome::Unchanged
    } else {
        Outcome::Updated
    };
    (entry, outcome)
}

/// Ascending by key, the last given of each.
fn in_order(entries: Vec<StoredEntry>) -> Vec<StoredEntry> {
    // The leading bytes and the index, not the entries, which are large.
    let mut order: Vec<_> = entries
        .iter()
        .enumerate()
        .map(|(at, entry)| (EntryKey::from(&entry.identity).leading(), at))
        .collect();
    order.sort_unstable();
    let mut entries: Vec<_> = entries.into_iter().map(Some).collect();
    let mut sorted = Vec::with_capacity(entries.len());
    let taken = order
        .into_iter()
        .filter_map(|(_, at)| entries.get_mut(at).and_then(Option::take));
    sorted.extend(taken);
    // In order already, but for keys that share their leading bytes.
    let key = |entry: &StoredEntry| EntryKey::from(&entry.identity);
    if !sorted.is_sorted_by_key(key) {
        sorted.sort_by_key(key);
    }
    sorted.dedup_by(|later, kept| {
        let same = key(later) == key(kept);
        if same {
            mem::swap(later, kept);
        }
        same
    });
    sorted
}

impl Additions {
    /// Reads all entries of the database that have not expired by `now`; takes the others off it.
    ///
    /// # Errors
    /// Where it can't be read, or not written to.
    pub fn open(store: Store, now: SystemTime) -> Result<Self, StateError> {
        let mut additions = Self {
            store,
            records: Held::default(),
            files: HashMap::new(),
            claims: HashMap::new(),
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
                    additions.note(entry, None);
                    additions.records.gather(&entry.record());
                }
            }
        }
        additions.records.gathered();
        if !expired.is_empty() {
            additions.store.write(&[], &expired)?;
        }
        Ok(additions)
    }

    /// Notes what an entry needs besides its record, where `before` was held.
    fn note(&mut self, entry: &StoredEntry, before: Option<&Record>) {
        let digest = entry.identity.digest;
        if let Some(conditions) = entry.claims {
            self.claims.insert(digest, conditions);
        }
        if let Some(before) = before {
            self.queue.remove(&(before.expires, digest));
        }
        if entry.expires != Expires::NEVER {
            let key = EntryKey::from(&entry.identity);
            self.queue.insert((entry.expires, digest), key);
        }
    }

    fn release(&mut self, digest: &TokenDigest) {
        self.claims.remove(digest);
        if let Some(record) = self.records.remove(digest) {
            self.queue.remove(&(record.expires, record.digest));
        }
    }

    /// What an addition of these entries would do. An entry that is given twice counts as it is given last.
    ///
    /// # Errors
    /// Where the disk can't be read.
    pub fn plan(&mut self, entries: Vec<StoredEntry>) -> Result<Vec<Addition>, StateError> {
        let mut batch = BTreeMap::<EntryKey, StoredEntry>::new();
        let mut additions = Vec::with_capacity(entries.len());
        for entry in entries {
            let key = EntryKey::from(&entry.identity);
            let before = match batch.get(&key) {
                Some(entry) => Some(entry.clone()),
                None => self.get(&entry)?,
            };
            let (entry, outcome) = updated(before.as_ref(), entry);
            if outcome != Outcome::Unchanged {
                batch.insert(key, entry.clone());
            }
            additions.push(Addition { entry, outcome });
        }
        Ok(additions)
    }

    /// Stores entries, on disk when it returns; `in_force` says what is listed under a digest so far.
    ///
    /// # Errors
    /// Where the disk didn't take them; nothing is changed then.
    pub fn add(
        &mut self,
        entries: Vec<StoredEntry>,
        in_force: impl Fn(&TokenDigest) -> Option<Record>,
    ) -> Result<Vec<Addition>, StateError> {
        let additions = self.plan(entries)?;
        let changed = additions.iter().filter(|a| a.outcome != Outcome::Unchanged);
        // The last of a key counts.
        let changed: BTreeMap<_, _> = changed
            .map(|a| (EntryKey::from(&a.entry.identity), &a.entry))
            .collect();
        let changed: Vec<_> = changed.into_values().collect();
        self.write(changed.iter().copied(), &[])?;
        self.hold_all(changed, in_force);
        Ok(additions)
    }

    /// Holds entries besides the rest; gives what was held of each before.
    pub fn hold_all<'a>(
        &mut self,
        entries: impl IntoIterator<Item = &'a StoredEntry>,
        in_force: impl Fn(&TokenDigest) -> Option<Record>,
    ) -> Vec<Option<Record>> {
        let entries: Vec<_> = entries.into_iter().collect();
        let held = entries.iter().map(|e| self.records.get(&e.identity.digest));
        let before: Vec<_> = held.collect();
        for (entry, before) in entries.iter().zip(&before) {
            let digest = entry.identity.digest;
            if let (None, Some(record)) = (before, in_force(&digest)) {
                self.files.insert(digest, record);
            }
            self.note(entry, before.as_ref());
        }
        let records = entries.iter().map(|entry| entry.record());
        if entries.len() > MANY {
            self.records.extend(records);
        } else {
            for record in records {
                self.records.insert(&record);
            }
        }
        before
    }

    /// Takes back what [`Additions::hold_all`] did with the same entries.
    pub fn take_back(&mut self, entries: &[StoredEntry], before: Vec<Option<Record>>) {
        for (entry, before) in entries.iter().zip(before) {
            self.release(&entry.identity.digest);
            if let Some(record) = before {
                self.records.insert(&record);
                if let Some(conditions) = entry.claims {
                    self.claims.insert(record.digest, conditions);
                }
                if record.expires != Expires::NEVER {
                    let key = EntryKey::from(&entry.identity);
                    self.queue.insert((record.expires, record.digest), key);
                }
            }
        }
    }

    /// Does what keeps memory small; to be called when nobody waits.
    pub fn tidy(&mut self) {
        self.records.tidy();
    }

    /// What an addition of very many entries would do: those that come or change, ascending by key, and counts.
    ///
    /// # Errors
    /// Where the disk can't be read.
    pub fn plan_bulk(&mut self, entries: Vec<StoredEntry>) -> Result<Bulk, StateError> {
        let mut bulk = Bulk::default();
        let entries = in_order(entries);
        let is_held = |entry: &&StoredEntry| self.records.contains(&entry.identity.digest);
        let held = entries.iter().filter(is_held);
        let held: Vec<_> = held.map(|e| EntryKey::from(&e.identity)).collect();
        let before = self.store.get_all(&held)?;
        let mut before = held.into_iter().zip(before).peekable();
        bulk.changed.reserve_exact(entries.len());
        for entry in entries {
            let key = EntryKey::from(&entry.identity);
            let before = before.next_if(|(held, _)| *held == key);
            let before = before.and_then(|(_, before)| before);
            let (entry, outcome) = updated(before.as_ref(), entry);
            match outcome {
                Outcome::Added => bulk.added += 1,
                Outcome::Updated => bulk.updated += 1,
                Outcome::Unchanged => {
                    bulk.unchanged += 1;
                    continue;
                }
            }
            bulk.changed.push(entry);
        }
        Ok(bulk)
    }

    fn get(&mut self, entry: &StoredEntry) -> Result<Option<StoredEntry>, StateError> {
        if !self.records.contains(&entry.identity.digest) {
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

    /// Writes and removes entries on disk alone.
    ///
    /// # Errors
    /// Where the disk didn't take it; nothing is changed then.
    pub fn write<'a>(
        &mut self,
        put: impl IntoIterator<Item = &'a StoredEntry>,
        remove: &[EntryKey],
    ) -> Result<(), StateError> {
        let mut put = put.into_iter().peekable();
        if put.peek().is_none() && remove.is_empty() {
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
        Ok(found.filter(|entry| self.records.contains(&entry.identity.digest)))
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
        page.retain(|entry| self.records.contains(&entry.identity.digest));
        Ok((page, next))
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
        self.records.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
        if self.is_empty() {
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

    /// What is to be in force of an entry that is held.
    #[must_use]
    pub fn effective_of(&self, entry: &StoredEntry, now: SystemTime) -> Option<Record> {
        self.joined(Some(entry.record()), &entry.identity.digest, now)
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
            self.claims.remove(&digest);
            digests.push(digest);
        }
        if let Err(error) = self.write(&[], &keys) {
            tracing::error!(%error, "expired entries stay in the database for now");
        }
        digests
    }
}
