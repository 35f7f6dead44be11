//! The denylist as the proxy reads it: an immutable snapshot, replaced as a whole.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{
    ClaimSet, ClaimsReader, HashedReader, HashedSet, Listed, TokenDigest, overlay::Overlay,
    table::Table,
};

/// The writer's end of the proxy's set.
#[derive(Debug, Default)]
pub struct ProxySet {
    shared: Arc<ArcSwap<Snapshot>>,
}

/// A reader's end; cheap to clone, reads without a lock.
#[derive(Clone, Debug)]
pub struct SetReader {
    shared: Arc<ArcSwap<Snapshot>>,
    hashed: HashedReader,
    claims: ClaimsReader,
}

/// What is listed at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    base: Arc<Table>,
    overlay: Overlay<TokenDigest, Listed>,
}

impl ProxySet {
    /// A reader of this set.
    #[must_use]
    pub fn reader(&self) -> SetReader {
        SetReader {
            shared: Arc::clone(&self.shared),
            hashed: HashedReader::default(),
            claims: ClaimsReader::default(),
        }
    }

    /// What is listed now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.load_full()
    }

    /// Takes a long overlay into the list, before a change has to wait for that.
    pub fn tidy(&self) {
        let snapshot = self.shared.load();
        if snapshot.overlay.is_long() {
            self.shared
                .store(Arc::new(snapshot.flat(&Overlay::default())));
        }
    }

    /// Adds entries, or replaces what is listed under the same digest.
    pub fn add(&self, entries: &[(TokenDigest, Listed)]) {
        let listed = entries
            .iter()
            .map(|(digest, listed)| (*digest, Some(*listed)));
        self.change(listed.collect());
    }

    /// Removes entries; one that is not there is no error.
    pub fn remove(&self, digests: &[TokenDigest]) {
        self.change(digests.iter().map(|digest| (*digest, None)).collect());
    }

    fn change(&self, changes: Vec<(TokenDigest, Option<Listed>)>) {
        let next = self.shared.load().changed(&Overlay::of(changes));
        self.shared.store(Arc::new(next));
    }
}

impl SetReader {
    /// A reader of what is known by its SHA-256 alone, too.
    #[must_use]
    pub(super) fn with_hashed(self, hashed: HashedReader) -> Self {
        Self { hashed, ..self }
    }

    /// A reader of what names claims of JWTs, too.
    #[must_use]
    pub fn with_claims(self, claims: ClaimsReader) -> Self {
        Self { claims, ..self }
    }

    /// What names claims of JWTs; `None` where that is nothing.
    #[must_use]
    pub fn claims(&self) -> Option<Arc<ClaimSet>> {
        self.claims.current()
    }

    /// What is known by its SHA-256 alone; `None` where that is nothing.
    #[must_use]
    pub fn hashed(&self) -> Option<Arc<HashedSet>> {
        self.hashed.current()
    }

    /// What is listed under this digest.
    #[must_use]
    pub fn get(&self, digest: &TokenDigest) -> Option<Listed> {
        self.shared.load().get(digest)
    }
}

impl Snapshot {
    /// What is listed under this digest.
    #[must_use]
    pub fn get(&self, digest: &TokenDigest) -> Option<Listed> {
        self.overlay.get(digest, || self.base.get(digest))
    }

    /// How many entries are listed.
    #[must_use]
    pub fn len(&self) -> usize {
        let changed = |(digest, listed): &(TokenDigest, Option<Listed>)| {
            isize::from(listed.is_some()) - isize::from(self.base.get(digest).is_some())
        };
        let changed = self.overlay.iter().map(changed).sum();
        self.base.len().saturating_add_signed(changed)
    }

    /// Whether nothing is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All entries, in the order of their digests.
    pub fn iter(&self) -> impl Iterator<Item = (TokenDigest, Listed)> {
        self.overlay.over(self.base.entries())
    }

    fn flat(&self, changes: &Overlay<TokenDigest, Listed>) -> Self {
        Self {
            base: Arc::new(changes.over(self.iter()).collect()),
            overlay: Overlay::default(),
        }
    }

    fn changed(&self, changes: &Overlay<TokenDigest, Listed>) -> Self {
        match self.overlay.with(changes) {
            Some(overlay) => Self {
                base: Arc::clone(&self.base),
                overlay,
            },
            None => self.flat(changes),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::denylist::{Action, Fingerprint, ShortTokenId};

    fn listed(n: u8) -> Listed {
        Listed {
            token: ShortTokenId([n; 6]),
            action: Action::Block,
            fingerprint: Fingerprint(0),
        }
    }

    /// Few distinct digests, so that changes meet; spread over the table by their first byte.
    fn digests() -> impl Strategy<Value = TokenDigest> {
        (any::<u8>(), 0..4_u8).prop_map(|(first, last)| {
            let mut digest = [0; 16];
            (digest[0], digest[15]) = (first, last);
            TokenDigest(digest)
        })
    }

    proptest! {
        #[test]
        fn agrees_with_a_map(
            steps in prop::collection::vec(
                (any::<bool>(), prop::collection::vec((digests(), any::<u8>()), 0..700)), 1..6),
            probes in prop::collection::vec(digests(), 100),
        ) {
            let (set, mut model) = (ProxySet::default(), BTreeMap::new());
            let reader = set.reader();
            for (add, changes) in steps {
                if add {
                    let entries: Vec<_> = changes.iter().map(|(d, n)| (*d, listed(*n))).collect();
                    set.add(&entries);
                    model.extend(entries);
                } else {
                    let gone: Vec<_> = changes.iter().map(|(digest, _)| *digest).collect();
                    set.remove(&gone);
                    model.retain(|digest, _| !gone.contains(digest));
                    set.tidy();
                }
                prop_assert_eq!(set.snapshot().len(), model.len());
                prop_assert!(set.snapshot().iter().eq(model.iter().map(|(d, l)| (*d, *l))));
                for probe in &probes {
                    prop_assert_eq!(reader.get(probe), model.get(probe).copied());
                }
            }
        }
    }
}
