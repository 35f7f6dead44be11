//! The programs' table of flows: its stand-ins, and the sweeping of what is idle.

use std::time::Duration;

use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapError},
    util::nr_cpus,
};
use rustix::time::{ClockId, clock_gettime};
use tokenblock_ebpf::{
    flow::{Flow, FlowKey},
    rules::Rules,
};

use super::error::KernelError;

/// A flow is forgotten once it was idle for so long.
const IDLE: Duration = Duration::from_secs(30);
/// Hooks that keep flows: incoming and outgoing.
const HOOKS: u32 = 2;

/// The table of flows.
pub struct Flows(HashMap<MapData, FlowKey, Flow>);

impl Flows {
    /// Takes the table out of the loaded object, and puts in it the flows that stand in where there is no room.
    ///
    /// # Errors
    /// [`KernelError`] where there is none, or it can't be written.
    pub fn take(ebpf: &mut Ebpf, rules: &Rules) -> Result<Self, KernelError> {
        let what = "FLOWS";
        let map = ebpf.take_map(what).ok_or(KernelError::BadObject { what })?;
        let mut flows = HashMap::try_from(map)?;
        for cpu in 0..cpus()? {
            for hook in 0..HOOKS {
                flows.insert(FlowKey::stand_in(cpu, hook), Flow::new(rules), 0)?;
            }
        }
        Ok(Self(flows))
    }

    /// Forgets the flows that are idle: whose data is all acknowledged, which stand inside no candidate, and
    /// which were quiet for a while. Says how many flows are left.
    ///
    /// # Errors
    /// [`KernelError::Map`] where the table can't be read or written.
    pub fn sweep(&mut self) -> Result<usize, KernelError> {
        let now = clock_gettime(ClockId::Monotonic);
        let now = Duration::new(
            u64::try_from(now.tv_sec).unwrap_or_default(),
            u32::try_from(now.tv_nsec).unwrap_or_default(),
        );
        let keys: Vec<FlowKey> = self.0.keys().filter_map(Result::ok).collect();
        let mut left = keys.len();
        for key in keys {
            if key.server_port == 0 {
                continue;
            }
            let flow = match self.0.get(&key, 0) {
                Ok(flow) => flow,
                Err(MapError::KeyNotFound) => continue,
                Err(error) => return Err(error.into()),
            };
            let quiet = now.saturating_sub(Duration::from_nanos(flow.passed_at));
            if flow.is_idle() && quiet > IDLE && self.0.remove(&key).is_ok() {
                left -= 1;
            }
        }
        Ok(left)
    }
}

/// Entries that a table needs for `flows` flows.
///
/// # Errors
/// [`KernelError::Cpus`] where the CPUs can't be counted.
pub fn table_size(flows: u32) -> Result<u32, KernelError> {
    Ok(flows.saturating_add(cpus()? * HOOKS))
}

fn cpus() -> Result<u32, KernelError> {
    let cpus = nr_cpus().map_err(|(_, source)| KernelError::Cpus(source))?;
    Ok(u32::try_from(cpus).unwrap_or(u32::MAX / HOOKS))
}
