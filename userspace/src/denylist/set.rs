//! The denylist as the proxy reads it: an immutable snapshot, replaced as a whole.

use std::{collections::HashMap, convert::Infallible, sync::Arc};

use arc_swap::ArcSwap;

use super::{Listed, Tier, TokenDigest};

type Snapshot = HashMap<TokenDigest, Listed>;

/// The writer's end of the proxy's set.
#[derive(Debug, Default)]
pub struct ProxySet {
    shared: Arc<ArcSwap<Snapshot>>,
}

/// A reader's end; cheap to clone, reads without a lock.
#[derive(Clone, Debug)]
pub struct SetReader {
    shared: Arc<ArcSwap<Snapshot>>,
}

impl ProxySet {
    /// A reader of this set.
    #[must_use]
    pub fn reader(&self) -> SetReader {
        SetReader {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl SetReader {
    /// What is listed under this digest.
    #[must_use]
    pub fn get(&self, digest: &TokenDigest) -> Option<Listed> {
        self.shared.load().get(digest).copied()
    }
}

impl Tier for ProxySet {
    type Error = Infallible;

    fn add(&mut self, entries: &[(TokenDigest, Listed)]) -> Result<(), Infallible> {
        let mut next = Snapshot::clone(&self.shared.load());
        next.extend(entries.iter().copied());
        self.shared.store(Arc::new(next));
        Ok(())
    }

    fn remove(&mut self, digests: &[TokenDigest]) -> Result<(), Infallible> {
        let mut next = Snapshot::clone(&self.shared.load());
        for digest in digests {
            next.remove(digest);
        }
        self.shared.store(Arc::new(next));
        Ok(())
    }
}
