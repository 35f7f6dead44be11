//! The denylist as the programs read it: a table of digests, and a filter of fingerprints in front of it.

use std::iter;

use aya::Ebpf;
use tokenblock_ebpf::verdict::{ACTION_ALERT, ACTION_BLOCK, LISTED, MapEntry};

use super::{
    error::KernelError, filter::Filter, generation::Generation, hashed::HashedTier,
    live::LiveSettings, table::Table,
};
use crate::denylist::{Action, Listed, Sha256Digest, Snapshot, Tier, TokenDigest};

/// The maps of the programs that hold the denylist. They grow while the programs run.
pub struct KernelMap {
    table: Table,
    filter: Filter,
    generation: Generation,
    /// For entries that are known by their SHA-256 alone.
    hashed: Option<HashedTier>,
}

impl KernelMap {
    /// Takes the maps out of the loaded object; `settings` are those of the programs.
    ///
    /// # Errors
    /// [`KernelError::BadObject`] where one is missing.
    pub fn take(ebpf: &mut Ebpf, settings: LiveSettings) -> Result<Self, KernelError> {
        let mut filter = Filter::take(ebpf, settings)?;
        filter.grow(0, iter::empty())?;
        Ok(Self {
            table: Table::take(ebpf)?,
            filter,
            generation: Generation::of(ebpf)?,
            hashed: None,
        })
    }

    /// All that the programs find.
    pub fn entries(&self) -> impl Iterator<Item = (TokenDigest, MapEntry)> {
        listed(&self.table)
    }

    fn put(
        &mut self,
        entries: &[(TokenDigest, Listed)],
        listed: &Snapshot,
    ) -> Result<(), KernelError> {
        let new = entries
            .iter()
            .map(|(digest, listed)| (*digest, map_entry(*listed)));
        self.table.add(new)?;
        // Last: an entry is in force once its fingerprint is let through.
        let new = entries.iter().map(|(_, listed)| listed.fingerprint);
        if self.filter.is_small_for(self.table.len()) {
            let old = listed.iter().map(|(_, listed)| listed.fingerprint);
            return self.filter.grow(self.table.len(), old.chain(new));
        }
        new.for_each(|fingerprint| self.filter.admit(fingerprint));
        Ok(())
    }

    /// The same, with the map of the programs that look up SHA-256, which are loaded.
    pub(super) fn with_hashed_map(mut self, map: HashedMap) -> Self {
        if let Some(hashed) = &mut self.hashed {
            hashed.take(map);
        }
        self
    }

    /// The same, with what it takes to enforce entries that are known by their SHA-256 alone.
    #[must_use]
    pub fn with_hashed(self, hashed: HashedTier) -> Self {
        Self {
            hashed: Some(hashed),
            ..self
        }
    }
}

impl Tier for KernelMap {
    type Error = KernelError;

    fn add(
        &mut self,
        entries: &[(TokenDigest, Listed)],
        listed: &Snapshot,
    ) -> Result<(), KernelError> {
        let added = self.put(entries, listed);
        // Whatever of it is in force.
        self.generation.bump();
        added
    }

    fn remove(&mut self, digests: &[TokenDigest]) -> Result<(), KernelError> {
        // The fingerprint stays: others may share its bits, and one too many costs a digest, no more.
        self.table.remove(digests)
    }

    fn change_hashed(
        &mut self,
        added: &[(Sha256Digest, Listed)],
        removed: &[Sha256Digest],
        any: bool,
    ) -> Result<(), KernelError> {
        match &mut self.hashed {
            Some(hashed) => hashed.change(added, removed, any),
            None => Ok(()),
        }
    }
}

/// The map of the programs that look up SHA-256; without a filter, for they have nothing cheaper than the digest.
pub struct HashedMap {
    table: Table,
    generation: Generation,
}

impl HashedMap {
    /// Takes the map out of the loaded object.
    ///
    /// # Errors
    /// [`KernelError::BadObject`] where it is missing.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            table: Table::take(ebpf)?,
            generation: Generation::of(ebpf)?,
        })
    }

    /// Lists these, or lists them otherwise, and takes the others off then.
    ///
    /// # Errors
    /// [`KernelError::Map`]; to be called again with what is to be there.
    pub fn change(
        &mut self,
        added: &[(Sha256Digest, Listed)],
        removed: &[Sha256Digest],
    ) -> Result<(), KernelError> {
        let words = added
            .iter()
            .map(|(digest, listed)| (digest.key(), map_entry(*listed)));
        let added = self.table.add(words);
        // Whatever of it is in force.
        self.generation.bump();
        added?;
        let gone: Vec<_> = removed.iter().map(Sha256Digest::key).collect();
        self.table.remove(&gone)
    }

    /// All that the programs find, by what they look it up.
    pub fn entries(&self) -> impl Iterator<Item = (TokenDigest, MapEntry)> {
        listed(&self.table)
    }
}

fn listed(table: &Table) -> impl Iterator<Item = (TokenDigest, MapEntry)> {
    let entries = table.entries();
    entries.filter_map(|(digest, entry)| Some((digest, MapEntry::of_word(entry)?)))
}

fn map_entry(listed: Listed) -> MapEntry {
    let action = match listed.action {
        Action::Block => ACTION_BLOCK,
        Action::Alert => ACTION_ALERT,
    };
    MapEntry {
        token: listed.token.0,
        action,
        listed: LISTED,
    }
}
