//! A tier over a plain map, which fails on demand; for tests.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Listed, Sha256Digest, Snapshot, Tier, TokenDigest};

/// What is held by keyed digests.
pub type Map = BTreeMap<TokenDigest, Listed>;

/// Clones share the map.
#[derive(Clone, Debug, Default)]
pub struct Model(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    map: Map,
    hashed: BTreeMap<Sha256Digest, Listed>,
    fails: bool,
}

/// It fails.
#[derive(Debug, thiserror::Error)]
#[error("full")]
pub struct Full;

impl Model {
    /// What it holds.
    #[must_use]
    pub fn map(&self) -> Map {
        self.state().map.clone()
    }

    /// What it holds by hashes.
    #[must_use]
    pub fn hashed(&self) -> Vec<(Sha256Digest, Listed)> {
        let state = self.state();
        state.hashed.iter().map(|(d, l)| (*d, *l)).collect()
    }

    /// Has it fail, or not.
    pub fn fail(&self, fails: bool) {
        self.state().fails = fails;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tier for Model {
    type Error = Full;

    /// As a map that is full takes some and not others.
    fn add(&mut self, entries: &[(TokenDigest, Listed)], _: &Snapshot) -> Result<(), Full> {
        let mut state = self.state();
        let taken = if state.fails {
            entries.len() / 2
        } else {
            entries.len()
        };
        state.map.extend(entries.iter().take(taken).copied());
        if state.fails { Err(Full) } else { Ok(()) }
    }

    fn remove(&mut self, digests: &[TokenDigest]) -> Result<(), Full> {
        let mut state = self.state();
        if state.fails {
            return Err(Full);
        }
        for digest in digests {
            state.map.remove(digest);
        }
        Ok(())
    }

    /// Takes some where it fails, too.
    fn change_hashed(
        &mut self,
        added: &[(Sha256Digest, Listed)],
        removed: &[Sha256Digest],
        any: bool,
    ) -> Result<(), Full> {
        let mut state = self.state();
        if state.fails {
            let some = added.iter().take(added.len() / 2);
            state.hashed.extend(some.copied());
            return Err(Full);
        }
        state.hashed.extend(added.iter().copied());
        for digest in removed {
            state.hashed.remove(digest);
        }
        if !any {
            state.hashed.clear();
        }
        Ok(())
    }
}
