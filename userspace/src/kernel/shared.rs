//! Array maps that this process shares with the programs as plain memory, so that a change is a store.

use std::{
    num::NonZeroUsize,
    ptr::{self, NonNull},
    sync::atomic::AtomicU64,
};

use aya::{
    Pod,
    maps::{Array, IterableMap as _, MapData},
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::error::KernelError;

/// `BPF_F_MMAPABLE`: see bpf(2).
pub(super) const MMAPABLE: u32 = 1 << 10;
/// `BPF_F_INNER_MAP`: arrays of different lengths may take each other's place.
pub(super) const INNER: u32 = 1 << 12;

/// The elements of an array map as words; they stay while this is held, though the map is taken out of the programs.
#[derive(Debug)]
pub(super) struct Shared {
    words: NonNull<AtomicU64>,
    len: NonZeroUsize,
}

// SAFETY: the memory is this value's own, and its words are atomic.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// A new array of that many elements, of zeros, whose size is a multiple of eight bytes.
    pub(super) fn create<V: Pod>(
        elements: u32,
        flags: u32,
    ) -> Result<(Self, Array<MapData, V>), KernelError> {
        let array = Array::<MapData, V>::create(elements, flags | MMAPABLE)?;
        let words = (elements as usize).saturating_mul(size_of::<V>() / 8);
        Ok((Self::of(array.map(), words)?, array))
    }

    /// The first `words` words of an array that was made to be shared.
    pub(super) fn of(array: &MapData, words: usize) -> Result<Self, KernelError> {
        let len = NonZeroUsize::new(words).ok_or(KernelError::BadObject { what: "an array" })?;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let mapped = unsafe {
            mmap(
                ptr::null_mut(),
                words * 8,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                array.fd(),
                0,
            )
        };
        let mapped = mapped.map_err(|error| KernelError::Share(error.into()))?;
        let words = NonNull::new(mapped.cast::<AtomicU64>());
        let words = words.ok_or(KernelError::BadObject { what: "an array" })?;
        Ok(Self { words, len })
    }

    /// The words of all elements, one element behind the other.
    pub(super) fn words(&self) -> &[AtomicU64] {
        // SAFETY: that many words are mapped until this is dropped, and whoever else writes them does so whole.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.len.get()) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: what `create` mapped, and no reference outlives this. It fails for no mapping that exists.
        let _unmapped = unsafe { munmap(self.words.as_ptr().cast(), self.len.get() * 8) };
    }
}
