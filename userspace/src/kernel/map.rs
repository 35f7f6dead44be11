//! The denylist as the programs read it: a hash map of digests, and a filter of fingerprints in front of it.

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapError},
};
use tokenblock_ebpf::{
    filter::{BITS_PER_ENTRY, Fingerprint},
    verdict::{ACTION_ALERT, ACTION_BLOCK, MapEntry},
};

use super::{error::KernelError, hashed::HashedTier};
use crate::denylist::{Action, Listed, Sha256Digest, Tier, TokenDigest};

/// The map's name in the programs.
const DENYLIST: &str = "DENYLIST";
/// Least entries that there is room for.
const SMALLEST: u32 = 1 << 16;

/// Room for a list of this many entries, with as much again to grow into.
#[must_use]
pub fn capacity_for(entries: usize) -> u32 {
    u32::try_from(entries)
        .unwrap_or(u32::MAX)
        .saturating_mul(2)
        .clamp(SMALLEST, 1 << 30)
        .next_power_of_two()
}

/// Number of blocks, less one, of the filter for this capacity.
#[must_use]
pub fn filter_mask_for(capacity: u32) -> u32 {
    (capacity / (u64::BITS / BITS_PER_ENTRY))
        .next_power_of_two()
        .max(2)
        - 1
}

/// The maps of the programs that hold the denylist.
pub struct KernelMap {
    entries: HashMap<MapData, TokenDigest, MapEntry>,
    filter: Array<MapData, u64>,
    /// What the filter's map holds, so that a bit is set without reading it back.
    blocks: Vec<u64>,
    mask: u32,
    /// For entries that are known by their SHA-256 alone.
    hashed: Option<HashedTier>,
}

impl KernelMap {
    /// Takes the maps out of the loaded object.
    ///
    /// # Errors
    /// [`KernelError::BadObject`] where one is missing.
    pub fn take(ebpf: &mut Ebpf, filter_mask: u32) -> Result<Self, KernelError> {
        let mut map = |what| ebpf.take_map(what).ok_or(KernelError::BadObject { what });
        Ok(Self {
            entries: HashMap::try_from(map(DENYLIST)?)?,
            filter: Array::try_from(map("FILTER")?)?,
            blocks: vec![0; filter_mask as usize + 1],
            mask: filter_mask,
            hashed: None,
        })
    }

    /// The same, with what it takes to enforce entries that are known by their SHA-256 alone.
    #[must_use]
    pub fn with_hashed(self, hashed: HashedTier) -> Self {
        Self {
            hashed: Some(hashed),
            ..self
        }
    }

    /// Lets the fingerprint through to the digest.
    fn admit(&mut self, fingerprint: Fingerprint) -> Result<(), MapError> {
        let (block, bits) = fingerprint.place(self.mask);
        let Some(held) = self.blocks.get_mut(block as usize) else {
            return Ok(());
        };
        if *held & bits != bits {
            let wanted = *held | bits;
            self.filter.set(block, wanted, 0)?;
            *held = wanted;
        }
        Ok(())
    }
}

/// The map of the programs that look up SHA-256.
pub struct HashedMap {
    entries: HashMap<MapData, Sha256Digest, MapEntry>,
    /// What it holds, ascending; more than that after a failure.
    listed: Vec<(Sha256Digest, Listed)>,
    unsure: bool,
}

impl HashedMap {
    /// Takes the map out of the loaded object.
    ///
    /// # Errors
    /// [`KernelError::BadObject`] where it is missing.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let what = DENYLIST;
        let map = ebpf.take_map(what).ok_or(KernelError::BadObject { what })?;
        Ok(Self {
            entries: HashMap::try_from(map)?,
            listed: Vec::new(),
            unsure: false,
        })
    }

    /// Lists these in place of all others, additions first; ascending.
    ///
    /// # Errors
    /// [`KernelError::Map`]; the next call makes up for it.
    pub fn replace(&mut self, entries: Vec<(Sha256Digest, Listed)>) -> Result<(), KernelError> {
        let find = |entries: &[(Sha256Digest, Listed)], digest: &Sha256Digest| {
            let at = entries.binary_search_by_key(digest, |(digest, _)| *digest);
            at.ok().and_then(|at| entries.get(at)).map(|entry| entry.1)
        };
        let new = |(digest, listed): &&(Sha256Digest, Listed)| {
            self.unsure || find(&self.listed, digest) != Some(*listed)
        };
        let added: Vec<_> = entries.iter().filter(new).copied().collect();
        self.unsure = true;
        for (digest, listed) in &added {
            self.entries.insert(*digest, map_entry(*listed), 0)?;
            self.listed.push((*digest, *listed));
        }
        for (digest, _) in &self.listed {
            if find(&entries, digest).is_none() {
                removed(self.entries.remove(digest))?;
            }
        }
        self.listed = entries;
        self.unsure = false;
        Ok(())
    }
}

/// One that is gone already is as good.
fn removed(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

impl Tier for KernelMap {
    type Error = KernelError;

    fn add(&mut self, entries: &[(TokenDigest, Listed)]) -> Result<(), KernelError> {
        for (digest, listed) in entries {
            self.entries.insert(*digest, map_entry(*listed), 0)?;
            // Last: an entry is in force once its fingerprint is let through.
            self.admit(listed.fingerprint)?;
        }
        Ok(())
    }

    fn remove(&mut self, digests: &[TokenDigest]) -> Result<(), KernelError> {
        // The fingerprint stays: others may share its bits, and one too many costs a digest, no more.
        for digest in digests {
            removed(self.entries.remove(digest))?;
        }
        Ok(())
    }

    fn replace_hashed(&mut self, entries: Vec<(Sha256Digest, Listed)>) -> Result<(), KernelError> {
        match &mut self.hashed {
            Some(hashed) => hashed.replace(entries),
            None => Ok(()),
        }
    }
}

fn map_entry(listed: Listed) -> MapEntry {
    let action = match listed.action {
        Action::Block => ACTION_BLOCK,
        Action::Alert => ACTION_ALERT,
    };
    MapEntry {
        token: listed.token.0,
        action,
        reserved: 0,
    }
}
