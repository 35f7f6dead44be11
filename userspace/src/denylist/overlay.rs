//! Changes over a sorted list, so that one change copies them and not the list.

use std::iter;

/// Changes are gathered up to this many. They and the list are both searched on each read, so they stay few.
const MOST: usize = 1024;

/// Sorted; what it holds of a key counts before the list below, `None` where that was removed.
#[derive(Clone, Debug)]
pub(super) struct Overlay<K, V>(Vec<(K, Option<V>)>);

impl<K, V> Default for Overlay<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord + Copy, V: Copy> Overlay<K, V> {
    /// Changes in any order; of two of one key the last given counts.
    pub(super) fn of(mut changes: Vec<(K, Option<V>)>) -> Self {
        // Stable, so that the last given stays the last.
        changes.sort_by_key(|change| change.0);
        keep_last(&mut changes, |change| change.0);
        Self(changes)
    }

    /// What is under a key, where the list `below` has this under it.
    pub(super) fn get(&self, key: &K, below: impl FnOnce() -> Option<V>) -> Option<V> {
        let at = self.0.binary_search_by_key(key, |change| change.0);
        match at.ok().and_then(|at| self.0.get(at)) {
            Some((_, changed)) => *changed,
            None => below(),
        }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The changes.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(K, Option<V>)> {
        self.0.iter()
    }

    /// Whether they should be taken into the list when nobody waits.
    pub(super) fn is_long(&self) -> bool {
        self.0.len() > MOST / 2
    }

    /// These changes and later ones; `None` where they are too many.
    pub(super) fn with(&self, later: &Self) -> Option<Self> {
        if self.0.len() + later.0.len() > MOST {
            return None;
        }
        let mut changes = self.0.clone();
        for change in &later.0 {
            match changes.binary_search_by_key(&change.0, |change| change.0) {
                Ok(at) => changes[at] = *change,
                Err(at) => changes.insert(at, *change),
            }
        }
        Some(Self(changes))
    }

    /// The list below with the changes applied; ascending, and so is what comes out.
    pub(super) fn over(&self, list: impl Iterator<Item = (K, V)>) -> impl Iterator<Item = (K, V)> {
        changed(list, self.0.iter().copied())
    }
}

/// Of several entries of one key, which stand one behind the other, leaves the last.
pub(crate) fn keep_last<T, K: PartialEq>(entries: &mut Vec<T>, key: impl Fn(&T) -> K) {
    entries.reverse();
    entries.dedup_by_key(|entry| key(entry));
    entries.reverse();
}

/// A list with changes applied, `None` for what is removed; each key comes once in both, ascending, and so does what comes
/// out.
pub(crate) fn changed<K: Ord, V>(
    list: impl Iterator<Item = (K, V)>,
    changes: impl Iterator<Item = (K, Option<V>)>,
) -> impl Iterator<Item = (K, V)> {
    let mut list = list.peekable();
    let mut changes = changes.peekable();
    iter::from_fn(move || {
        loop {
            let change_first = match (list.peek(), changes.peek()) {
                (_, None) => return list.next(),
                (None, Some(_)) => true,
                (Some(entry), Some(change)) => change.0 <= entry.0,
            };
            if !change_first {
                return list.next();
            }
            let (key, value) = changes.next()?;
            list.next_if(|entry| entry.0 == key);
            if let Some(value) = value {
                return Some((key, value));
            }
        }
    })
}
