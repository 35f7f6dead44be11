//! The programs' table of flows: its stand-ins, and the sweeping of what may go.

use std::time::Duration;

use aya::{
    Ebpf,
    maps::{Array, HashMap, IterableMap as _, MapData},
    util::nr_cpus,
};
use rustix::time::{ClockId, clock_gettime};
use tokenblock_ebpf::{
    flow::{self, FlowKey},
    rules::Rules,
    sha256,
};

use super::{batch::Batches, error::KernelError, object::Variant};

/// Hooks that keep flows: incoming and outgoing.
const HOOKS: u32 = 2;

/// A flow as one variant of the programs keeps it: the state of its scan is that of the digest's.
pub trait Followed: aya::Pod {
    /// A flow of which nothing is known.
    fn new(rules: &Rules) -> Self;
    /// The way that the flow passes.
    fn way(&self) -> u32;
    /// Whether it may be forgotten; see [`flow::Flow::may_go`].
    fn may_go(&self, quiet: Duration, crowded: bool) -> bool;
    /// Whether nobody but its sender knows of it.
    fn is_newcomer(&self) -> bool;
    /// Since the system started.
    fn passed_at(&self) -> Duration;
}

macro_rules! followed {
    ($flow:path) => {
        impl Followed for $flow {
            fn new(rules: &Rules) -> Self {
                <$flow>::new(rules)
            }

            fn way(&self) -> u32 {
                self.key.way()
            }

            fn may_go(&self, quiet: Duration, crowded: bool) -> bool {
                <$flow>::may_go(self, quiet, crowded)
            }

            fn is_newcomer(&self) -> bool {
                self.newcomer != 0
            }

            fn passed_at(&self) -> Duration {
                Duration::from_nanos(self.passed_at)
            }
        }
    };
}

followed!(flow::Flow);
followed!(sha256::flow::Flow);

/// A table of flows that is swept.
pub trait Sweep: Send {
    /// Forgets the flows that may go: those of ways of which `is_there` knows no more, and those of which
    /// [`flow::Flow::may_go`] says so. Looks at some, so that nothing else waits for long, and goes on there the next time;
    /// once all were seen it says how many are left.
    ///
    /// # Errors
    /// [`KernelError::Map`] where the table can't be read or written.
    fn sweep_some(&mut self, is_there: &dyn Fn(u32) -> bool) -> Result<Option<Swept>, KernelError>;

    /// The same with all of them.
    ///
    /// # Errors
    /// As there.
    fn sweep(&mut self, is_there: &dyn Fn(u32) -> bool) -> Result<Swept, KernelError> {
        loop {
            if let Some(swept) = self.sweep_some(is_there)? {
                return Ok(swept);
            }
        }
    }
}

/// What a sweep left, and what all sweeps took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Flows on record.
    pub flows: u32,
    /// Those among them of which nobody but their senders knows.
    pub newcomers: u32,
    /// Flows that were forgotten since the programs were loaded.
    pub forgotten: u64,
    /// Whether those that are no newcomers need the place of others.
    pub crowded: bool,
}

impl Swept {
    /// With names.
    pub fn counted(&self) -> impl Iterator<Item = (String, u64)> {
        [
            ("flows", self.flows.into()),
            ("newcomers", self.newcomers.into()),
            ("flows_forgotten", self.forgotten),
        ]
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count))
    }
}

/// The table of flows of one variant of the programs.
pub struct Flows<F: Followed> {
    /// By [`FlowKey::place`].
    table: HashMap<MapData, u64, F>,
    newcomers: Array<MapData, i32>,
    /// Flows beyond which the table is crowded.
    many: u32,
    swept: Swept,
    sweeping: Option<Sweeping<F>>,
}

/// A sweep that is under way.
struct Sweeping<F> {
    batches: Batches<F>,
    /// Newcomers that the programs had counted when it began.
    before: i32,
    /// What is left so far.
    flows: u32,
    newcomers: u32,
}

/// Takes the table out of the loaded object; see `Flows::take`.
///
/// # Errors
/// As there.
pub fn take(
    ebpf: &mut Ebpf,
    rules: &Rules,
    variant: Variant,
    most: u32,
) -> Result<Box<dyn Sweep>, KernelError> {
    Ok(match variant {
        Variant::Keyed => Box::new(Flows::<flow::Flow>::take(ebpf, rules, most)?),
        Variant::Sha256 => Box::new(Flows::<sha256::flow::Flow>::take(ebpf, rules, most)?),
    })
}

/// Of `most` flows, how many may be newcomers; and how many others crowd the table.
#[must_use]
pub fn share(most: u32) -> u32 {
    most / 2
}

impl<F: Followed> Flows<F> {
    /// Takes the table, which is for `most` flows, out of the loaded object, and puts in it the flows that stand in where
    /// there is no room.
    ///
    /// # Errors
    /// [`KernelError`] where there is none, or it can't be written.
    fn take(ebpf: &mut Ebpf, rules: &Rules, most: u32) -> Result<Self, KernelError> {
        let mut map = |what| ebpf.take_map(what).ok_or(KernelError::BadObject { what });
        let mut table = HashMap::try_from(map("FLOWS")?)?;
        let newcomers = Array::try_from(map("NEWCOMERS")?)?;
        for cpu in 0..cpus()? {
            for hook in 0..HOOKS {
                table.insert(FlowKey::place_of_stand_in(cpu, hook), F::new(rules), 0)?;
            }
        }
        Ok(Self {
            table,
            newcomers,
            many: share(most),
            swept: Swept::default(),
            sweeping: None,
        })
    }
}

impl<F: Followed + Send> Sweep for Flows<F> {
    fn sweep_some(&mut self, is_there: &dyn Fn(u32) -> bool) -> Result<Option<Swept>, KernelError> {
        let mut sweeping = match self.sweeping.take() {
            Some(sweeping) => sweeping,
            None => Sweeping {
                batches: Batches::new(),
                before: self.newcomers.get(&0, 0)?,
                flows: 0,
                newcomers: 0,
            },
        };
        let now = clock_gettime(ClockId::Monotonic);
        let now = Duration::new(
            u64::try_from(now.tv_sec).unwrap_or_default(),
            u32::try_from(now.tv_nsec).unwrap_or_default(),
        );
        let more = sweeping.batches.read(self.table.map())?;
        for (place, flow) in sweeping.batches.entries() {
            if FlowKey::stands_in(place) {
                continue;
            }
            let quiet = now.saturating_sub(flow.passed_at());
            let goes = !is_there(flow.way()) || flow.may_go(quiet, self.swept.crowded);
            if goes && self.table.remove(&place).is_ok() {
                self.swept.forgotten += 1;
            } else {
                sweeping.flows += 1;
                sweeping.newcomers += u32::from(flow.is_newcomer());
            }
        }
        if more {
            self.sweeping = Some(sweeping);
            return Ok(None);
        }
        let Sweeping {
            before,
            flows,
            newcomers,
            ..
        } = sweeping;
        // Those that came meanwhile count on.
        let came = self.newcomers.get(&0, 0)?.wrapping_sub(before);
        let count = newcomers.cast_signed().wrapping_add(came);
        self.newcomers.set(0, count, 0)?;
        (self.swept.flows, self.swept.newcomers) = (flows, newcomers);
        self.swept.crowded = flows - newcomers > self.many;
        Ok(Some(self.swept))
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
