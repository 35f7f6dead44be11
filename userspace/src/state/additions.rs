//! What was added at run time: in the database, and in memory what the tiers need of it.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    panic::resume_unwind,
    thread,
    time::{Duration, Instant, SystemTime},
};

use rayon::slice::ParallelSliceMut as _;

use super::{EntryKey, Memory, StateError, Store, StoredEntry};
use crate::denylist::{HashedSet, Record, TokenDigest};

/// What has left by itself stays in the database for so long, by a clock that nobody sets: the other one may have been wrong.
const KEPT: Duration = Duration::from_hours(1);

/// The entries that were added at run time.
pub struct Additions {
    store: Store,
    /// What is held of them.
    pub memory: Memory,
    /// What has left by itself and is still in the database, and since when.
    left: VecDeque<(Instant, EntryKey)>,
    /// Why the last write failed.
    failure: Option<String>,
    /// Why the next one would.
    gone: Option<String>,
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

/// What has left by itself.
#[derive(Debug, Default)]
pub struct Expired {
    /// Under which digests.
    pub digests: Vec<TokenDigest>,
    /// How many of those that are known by their SHA-256 alone.
    pub hashed: usize,
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
fn in_order(chunks: Vec<Vec<StoredEntry>>) -> Vec<StoredEntry> {
    // The leading bytes and the place, not the entries, which are large.
    let mut order = Vec::with_capacity(chunks.iter().map(Vec::len).sum());
    for (chunk, entries) in chunks.iter().enumerate() {
        let place = |(at, entry): (usize, &StoredEntry)| (entry.key().leading(), (chunk, at));
        order.extend(entries.iter().enumerate().map(place));
    }
    order.par_sort_unstable();
    let mut chunks: Vec<Vec<_>> = chunks
        .into_iter()
        .map(|entries| entries.into_iter().map(Some).collect())
        .collect();
    let mut sorted = Vec::with_capacity(order.len());
    let taken = order.into_iter().filter_map(|(_, (chunk, at))| {
        let entries = chunks.get_mut(chunk)?;
        entries.get_mut(at).and_then(Option::take)
    });
    sorted.extend(taken);
    // In order already, but for keys that share their leading bytes.
    if !sorted.is_sorted_by_key(StoredEntry::key) {
        sorted.sort_by_key(StoredEntry::key);
    }
    sorted.dedup_by(|later, kept| {
        let same = later.key() == kept.key();
        if same {
            mem::swap(later, kept);
        }
        same
    });
    sorted
}

impl Additions {
    /// Reads all entries of the database that have not expired by `now`.
    ///
    /// # Errors
    /// Where it can't be read.
    pub fn open(store: Store, now: SystemTime) -> Result<Self, StateError> {
        let mut additions = Self {
            store,
            memory: Memory::default(),
            left: VecDeque::new(),
            failure: None,
            gone: None,
        };
        additions.read_again(now)?;
        Ok(additions)
    }

    /// Reads them again: the clock was set back, so that some of those that had left have not expired.
    ///
    /// # Errors
    /// Where they can't be read; what is held stays held.
    pub fn read_again(&mut self, now: SystemTime) -> Result<(), StateError> {
        let (mut memory, mut left, mut hashed) = (Memory::default(), VecDeque::new(), Vec::new());
        let since = Instant::now();
        self.store.each(|entry| {
            if entry.expires.is_past(now) {
                left.push_back((since, entry.key()));
            } else if let Some(record) = entry.record() {
                memory.note(&entry, None);
                memory.records.gather(&record);
            } else {
                hashed.extend(entry.hashed());
            }
        })?;
        memory.records.gathered();
        memory.hashed = HashedSet::merge(hashed, now);
        memory.keep_files_of(&mut self.memory);
        (self.memory, self.left) = (memory, left);
        Ok(())
    }

    /// What an addition of these entries would do. An entry that is given twice counts as it is given last.
    ///
    /// # Errors
    /// Where the disk can't be read.
    pub fn plan(&mut self, entries: Vec<StoredEntry>) -> Result<Vec<Addition>, StateError> {
        let mut batch = BTreeMap::<EntryKey, StoredEntry>::new();
        let mut additions = Vec::with_capacity(entries.len());
        for entry in entries {
            let key = entry.key();
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
        let changed: BTreeMap<_, _> = changed.map(|a| (a.entry.key(), &a.entry)).collect();
        let changed: Vec<_> = changed.into_values().collect();
        self.write(changed.iter().copied(), &[])?;
        self.memory.hold_all(changed, in_force);
        Ok(additions)
    }

    /// What an addition of very many entries would do: those that come or change, ascending by key, and counts.
    ///
    /// # Errors
    /// Where the disk can't be read.
    pub fn plan_bulk(&mut self, entries: Vec<Vec<StoredEntry>>) -> Result<Bulk, StateError> {
        let mut bulk = Bulk::default();
        let entries = in_order(entries);
        let held = entries.iter().filter(|entry| self.memory.holds(entry));
        let held: Vec<_> = held.map(StoredEntry::key).collect();
        let before = self.store.get_all(&held)?;
        let mut before = held.into_iter().zip(before).peekable();
        bulk.changed.reserve_exact(entries.len());
        for entry in entries {
            let key = entry.key();
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
        if !self.memory.holds(entry) {
            return Ok(None);
        }
        self.store.get(&entry.key())
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
        // What has left by itself is not to come back either.
        if removed.iter().any(Option::is_some) || !self.left.is_empty() {
            self.write(&[], keys)?;
        }
        let gone = removed.iter().flatten();
        for record in gone.clone().filter_map(StoredEntry::record) {
            self.memory.release(&record.digest);
        }
        let mut hashed = gone.filter_map(StoredEntry::hashed).peekable();
        if hashed.peek().is_some() {
            let hashed = hashed.map(|record| (record.id, record.domain));
            self.memory.hashed = self.memory.hashed.without(hashed);
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

    /// Writes entries on disk, and does something `beside` that meanwhile.
    ///
    /// # Errors
    /// As [`Additions::write`].
    pub fn write_beside<T: Send>(
        &mut self,
        put: &[StoredEntry],
        beside: impl FnOnce(&mut Memory) -> T + Send,
    ) -> (Result<(), StateError>, T) {
        let (store, memory) = (&mut self.store, &mut self.memory);
        let (result, done) = thread::scope(|scope| {
            let doing = scope.spawn(|| beside(memory));
            let result = store.write(put, &[]);
            (
                result,
                doing.join().unwrap_or_else(|panic| resume_unwind(panic)),
            )
        });
        self.failure = result.as_ref().err().map(ToString::to_string);
        (result, done)
    }

    /// The entry under this key, where it has not expired.
    ///
    /// # Errors
    /// Where the disk can't be read.
    pub fn find(&mut self, key: &EntryKey) -> Result<Option<StoredEntry>, StateError> {
        let found = self.store.get(key)?;
        Ok(found.filter(|entry| self.memory.holds(entry)))
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
            Some(last) if page.len() == limit => Some(last.key()),
            _ => None,
        };
        page.retain(|entry| self.memory.holds(entry));
        Ok((page, next))
    }

    /// Why the last change could not be stored, or the next one can't.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.gone.as_deref().or(self.failure.as_deref())
    }

    /// Looks whether the database is where it was, and says so where it isn't.
    pub fn look(&mut self) {
        let gone = self.store.check_there().err();
        let gone = gone.map(|error| error.to_string());
        if let Some(error) = gone.as_ref().filter(|_| self.gone.is_none()) {
            tracing::error!("{error}");
        }
        self.gone = gone;
    }

    /// Takes off what has expired by `now`; the database lets it go later.
    pub fn expire(&mut self, now: SystemTime) -> Expired {
        let (mut digests, mut keys) = (Vec::new(), Vec::new());
        if self.memory.hashed.next_expiry().is_some_and(|at| at <= now) {
            let all = self.memory.hashed.iter();
            let gone = all.filter(|record| record.expires.is_past(now));
            keys.extend(gone.map(|record| EntryKey::of_hash(&record.id, record.domain)));
            self.memory.hashed = self.memory.hashed.left(now);
        }
        let hashed = keys.len();
        while let Some(first) = self.memory.queue.first_entry() {
            let (at, digest) = *first.key();
            if !at.is_past(now) {
                break;
            }
            keys.push(first.remove());
            self.memory.records.remove(&digest);
            self.memory.claims.remove(&digest);
            digests.push(digest);
        }
        let since = Instant::now();
        self.left.extend(keys.into_iter().map(|key| (since, key)));
        self.forget(now);
        Expired { digests, hashed }
    }

    /// Takes off the database what left long ago.
    fn forget(&mut self, now: SystemTime) {
        let long_ago = |(since, _): &(Instant, EntryKey)| since.elapsed() >= KEPT;
        let mut keys = Vec::new();
        while let Some((_, key)) = self.left.pop_front_if(|left| long_ago(left)) {
            keys.push(key);
        }
        if keys.is_empty() {
            return;
        }
        let forgotten = self.store.get_all(&keys).and_then(|entries| {
            // It may have been added again.
            let past = entries.into_iter().flatten();
            let past = past.filter(|entry| entry.expires.is_past(now));
            let keys: Vec<_> = past.map(|entry| entry.key()).collect();
            self.write(&[], &keys)
        });
        if let Err(error) = forgotten {
            let since = Instant::now();
            self.left.extend(keys.into_iter().map(|key| (since, key)));
            tracing::error!(%error, "expired entries stay in the database for now");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        denylist::{Action, Expires, identify},
        key::StoredKey,
        state::Subject,
    };

    #[test]
    fn what_left_long_ago_leaves_the_database_unless_it_was_added_again() {
        let folder = tempfile::tempdir().unwrap();
        let key = StoredKey::load_or_create(folder.path()).unwrap();
        let now = SystemTime::now();
        let entry = |token: &str, seconds| StoredEntry {
            identity: identify(key.get(), 8, token).unwrap(),
            action: Action::Block,
            expires: Expires::at(now + Duration::from_secs(seconds)),
            reason: None,
            source: None,
            added: now,
            subject: Subject::Token,
        };
        let store = Store::open(folder.path(), key.get()).unwrap();
        let mut additions = Additions::open(store, now).unwrap();
        let both = vec![entry("token-one", 10), entry("token-two", 10)];
        additions.add(both.clone(), |_| None).unwrap();
        let keys = [both[0].key(), both[1].key()];
        let later = now + Duration::from_secs(20);
        assert_eq!(additions.expire(later).digests.len(), 2);
        additions
            .add(vec![entry("token-two", 100)], |_| None)
            .unwrap();
        let stored = |additions: &mut Additions| additions.store.get_all(&keys).unwrap();
        assert!(stored(&mut additions).iter().all(Option::is_some));
        assert_eq!(additions.find(&keys[0]).unwrap(), None);

        // An hour later.
        for (since, _) in &mut additions.left {
            *since = since.checked_sub(KEPT).unwrap();
        }
        additions.expire(later);
        let left = stored(&mut additions);
        assert!(left[0].is_none() && left[1].is_some() && additions.left.is_empty());

        // Removed while it is still there, it doesn't come back with the clock.
        additions.expire(now + Duration::from_secs(200));
        additions.remove(&keys).unwrap();
        additions.read_again(now).unwrap();
        assert_eq!(additions.memory.len(), 0);
    }
}
