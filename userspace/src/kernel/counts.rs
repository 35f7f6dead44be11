//! The programs' counters, summed over the CPUs.

use std::sync::Arc;

use aya::maps::{MapData, PerCpuArray};
use tokenblock_ebpf::verdict::COUNTERS;

use super::error::KernelError;

/// Reads the counters; cheap to clone.
#[derive(Clone)]
pub struct Counts(Arc<PerCpuArray<MapData, [u64; COUNTERS.len()]>>);

impl Counts {
    /// The counters in this map.
    #[must_use]
    pub fn new(map: PerCpuArray<MapData, [u64; COUNTERS.len()]>) -> Self {
        Self(Arc::new(map))
    }

    /// Names and values.
    ///
    /// # Errors
    /// Where the map can't be read.
    pub fn read(&self) -> Result<Vec<(String, u64)>, KernelError> {
        let by_cpu = self.0.get(&0, 0)?;
        Ok(COUNTERS
            .iter()
            .enumerate()
            .map(|(i, name)| {
                let sum = by_cpu.iter().filter_map(|counts| counts.get(i)).sum();
                ((*name).to_owned(), sum)
            })
            .collect())
    }
}
