//! What is counted of the counting.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::counters::Counted;

/// Counters of the sightings.
#[derive(Debug, Default)]
pub(super) struct Counts {
    seen: AtomicU64,
    lost: AtomicU64,
    forgotten: AtomicU64,
    stored: AtomicU64,
    store_failed: AtomicU64,
}

impl Counts {
    /// So many requests were taken in, for which so many tokens were forgotten.
    pub(super) fn see(&self, requests: u64, forgotten: u64) {
        self.seen.fetch_add(requests, Ordering::Relaxed);
        self.forgotten.fetch_add(forgotten, Ordering::Relaxed);
    }

    /// There was no room for so many requests.
    pub(super) fn lose(&self, requests: u64) {
        self.lost.fetch_add(requests, Ordering::Relaxed);
    }

    /// The disk took what had changed.
    pub(super) fn store(&self) {
        self.stored.fetch_add(1, Ordering::Relaxed);
    }

    /// The disk took nothing; says whether that is the first time.
    pub(super) fn fail(&self) -> bool {
        self.store_failed.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// Every counter with its name.
    pub(super) fn read(&self) -> Counted {
        let counts = [
            ("sightings_seen_total", &self.seen),
            ("sightings_lost", &self.lost),
            ("sightings_forgotten", &self.forgotten),
            ("sightings_stored_total", &self.stored),
            ("sightings_store_failed", &self.store_failed),
        ];
        counts
            .map(|(name, count)| (name.to_owned(), count.load(Ordering::Relaxed)))
            .into()
    }
}
