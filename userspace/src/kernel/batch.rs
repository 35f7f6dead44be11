//! Many entries of a hash map by one system call (`BPF_MAP_LOOKUP_BATCH`, bpf(2)); one for each entry takes three times as long.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{
    Pod,
    maps::{MapData, MapError},
    sys::SyscallError,
};
use aya_obj::generated::{bpf_attr, bpf_cmd};

/// Entries that are read at once.
const ENTRIES: u32 = 1024;

/// What is read of a map, from its first entry to its last.
pub(super) struct Batches<V> {
    keys: Vec<u64>,
    values: Vec<V>,
    /// Where the kernel goes on; `None` at the beginning.
    next: Option<u32>,
}

impl<V: Pod> Batches<V> {
    /// Nothing is read yet.
    pub(super) fn new() -> Self {
        Self {
            keys: Vec::with_capacity(ENTRIES as usize),
            values: Vec::with_capacity(ENTRIES as usize),
            next: None,
        }
    }

    /// Reads the next entries of `map`, which has keys of eight bytes and such values; whether there are more. What comes and
    /// goes meanwhile may be among them or not.
    ///
    /// # Errors
    /// [`MapError`] where the map can't be read.
    pub(super) fn read(&mut self, map: &MapData) -> Result<bool, MapError> {
        self.keys.clear();
        self.values.clear();
        let mut behind = 0_u32;
        // SAFETY: a union of integers.
        let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
        // SAFETY: the fields of this command, of zeros.
        let batch = unsafe { &mut attributes.batch };
        batch.map_fd = map.fd().as_fd().as_raw_fd().cast_unsigned();
        batch.count = ENTRIES;
        batch.in_batch = self.next.as_ref().map_or(0, address);
        batch.out_batch = (&raw mut behind).expose_provenance() as u64;
        batch.keys = self.keys.as_mut_ptr().expose_provenance() as u64;
        batch.values = self.values.as_mut_ptr().expose_provenance() as u64;
        // SAFETY: the kernel writes at most ENTRIES keys and values, for which there is room.
        let done = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                bpf_cmd::BPF_MAP_LOOKUP_BATCH,
                &raw mut attributes,
                size_of::<bpf_attr>(),
            )
        };
        let more = done == 0;
        if !more {
            let io_error = io::Error::last_os_error();
            // The last ones; others leave the count as it was.
            if io_error.raw_os_error() != Some(libc::ENOENT) {
                return Err(MapError::SyscallError(SyscallError {
                    call: "bpf_map_lookup_batch",
                    io_error,
                }));
            }
        }
        // SAFETY: as above.
        let count = unsafe { attributes.batch.count }.min(ENTRIES) as usize;
        // SAFETY: the kernel wrote so many of both, and any bytes are a `Pod`.
        unsafe {
            self.keys.set_len(count);
            self.values.set_len(count);
        }
        self.next = more.then_some(behind);
        Ok(more)
    }

    /// What was read last.
    pub(super) fn entries(&self) -> impl Iterator<Item = (u64, &V)> {
        self.keys.iter().copied().zip(&self.values)
    }
}

/// Where this lies, for the kernel.
fn address<T>(value: &T) -> u64 {
    std::ptr::from_ref(value).expose_provenance() as u64
}
