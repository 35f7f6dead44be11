//! The programs' table of flows: its stand-ins, and the sweeping of what is idle.

use std::time::Duration;

use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapError},
    util::nr_cpus,
};
use rustix::time::{ClockId, clock_gettime};
use tokenblock_ebpf::{flow, rules::Rules, sha256};

use super::{error::KernelError, object::Variant};

/// A flow is forgotten once it was idle for so long.
const IDLE: Duration = Duration::from_secs(30);
/// Hooks that keep flows: incoming and outgoing.
const HOOKS: u32 = 2;

/// A flow as one variant of the programs keeps it: the state of its scan is that of the digest's.
pub trait Followed: aya::Pod {
    /// What it is kept under.
    type Key: aya::Pod;

    /// The key of the flow that stands in on a CPU; see [`flow::FlowKey::stand_in`].
    fn stand_in(cpu: u32, hook: u32) -> Self::Key;
    /// A flow of which nothing is known.
    fn new(rules: &Rules) -> Self;
    /// Whether the flow of this key stands in.
    fn is_stand_in(key: &Self::Key) -> bool;
    /// Whether nothing is lost if it is forgotten.
    fn is_idle(&self) -> bool;
    /// Since the system started.
    fn passed_at(&self) -> Duration;
}

macro_rules! followed {
    ($flow:path, $key:path) => {
        impl Followed for $flow {
            type Key = $key;

            fn stand_in(cpu: u32, hook: u32) -> Self::Key {
                <$key>::stand_in(cpu, hook)
            }

            fn new(rules: &Rules) -> Self {
                <$flow>::new(rules)
            }

            fn is_stand_in(key: &Self::Key) -> bool {
                key.server_port == 0
            }

            fn is_idle(&self) -> bool {
                <$flow>::is_idle(self)
            }

            fn passed_at(&self) -> Duration {
                Duration::from_nanos(self.passed_at)
            }
        }
    };
}

followed!(flow::Flow, flow::FlowKey);
followed!(sha256::flow::Flow, sha256::flow::FlowKey);

/// A table of flows that is swept.
pub trait Sweep: Send {
    /// Forgets the flows that are idle: whose data is all acknowledged, which stand inside no candidate, and
    /// which were quiet for a while. Says how many flows are left.
    ///
    /// # Errors
    /// [`KernelError::Map`] where the table can't be read or written.
    fn sweep(&mut self) -> Result<usize, KernelError>;
}

/// The table of flows of one variant of the programs.
pub struct Flows<F: Followed>(HashMap<MapData, F::Key, F>);

/// Takes the table out of the loaded object; see `Flows::take`.
///
/// # Errors
/// As there.
pub fn take(
    ebpf: &mut Ebpf,
    rules: &Rules,
    variant: Variant,
) -> Result<Box<dyn Sweep>, KernelError> {
    Ok(match variant {
        Variant::Keyed => Box::new(Flows::<flow::Flow>::take(ebpf, rules)?),
        Variant::Sha256 => Box::new(Flows::<sha256::flow::Flow>::take(ebpf, rules)?),
    })
}

impl<F: Followed> Flows<F> {
    /// Takes the table out of the loaded object, and puts in it the flows that stand in where there is no room.
    ///
    /// # Errors
    /// [`KernelError`] where there is none, or it can't be written.
    fn take(ebpf: &mut Ebpf, rules: &Rules) -> Result<Self, KernelError> {
        let what = "FLOWS";
        let map = ebpf.take_map(what).ok_or(KernelError::BadObject { what })?;
        let mut flows = HashMap::try_from(map)?;
        for cpu in 0..cpus()? {
            for hook in 0..HOOKS {
                flows.insert(F::stand_in(cpu, hook), F::new(rules), 0)?;
            }
        }
        Ok(Self(flows))
    }
}

impl<F: Followed + Send> Sweep for Flows<F>
where
    F::Key: Send,
{
    fn sweep(&mut self) -> Result<usize, KernelError> {
        let now = clock_gettime(ClockId::Monotonic);
        let now = Duration::new(
            u64::try_from(now.tv_sec).unwrap_or_default(),
            u32::try_from(now.tv_nsec).unwrap_or_default(),
        );
        let keys: Vec<F::Key> = self.0.keys().filter_map(Result::ok).collect();
        let mut left = keys.len();
        for key in keys {
            if F::is_stand_in(&key) {
                continue;
            }
            let flow = match self.0.get(&key, 0) {
                Ok(flow) => flow,
                Err(MapError::KeyNotFound) => continue,
                Err(error) => return Err(error.into()),
            };
            let quiet = now.saturating_sub(flow.passed_at());
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
