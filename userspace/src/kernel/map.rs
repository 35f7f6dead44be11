//! The denylist as the programs read it: a hash map of digests, and a filter of fingerprints in front of it.

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapError},
};
use tokenblock_ebpf::{
    filter::{BITS_PER_ENTRY, Fingerprint},
    verdict::{ACTION_ALERT, ACTION_BLOCK, MapEntry},
};

use super::error::KernelError;
use crate::denylist::{Action, Listed, Tier, TokenDigest};

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
}

impl KernelMap {
    /// Takes the maps out of the loaded object.
    ///
    /// # Errors
    /// [`KernelError::BadObject`] where one is missing.
    pub fn take(ebpf: &mut Ebpf, filter_mask: u32) -> Result<Self, KernelError> {
        let mut map = |what| ebpf.take_map(what).ok_or(KernelError::BadObject { what });
        Ok(Self {
            entries: HashMap::try_from(map("DENYLIST")?)?,
            filter: Array::try_from(map("FILTER")?)?,
            blocks: vec![0; filter_mask as usize + 1],
            mask: filter_mask,
        })
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
            match self.entries.remove(digest) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(MapError::SyscallError(error))
                    if error.io_error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
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
