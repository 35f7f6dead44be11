//! The real kernel programs on single packets, by `BPF_PROG_TEST_RUN`.

pub mod dump;
pub mod frame;

use std::{collections::BTreeMap, mem, time::Duration};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, Pod,
    maps::{HashMap, Map, MapData, PerCpuArray, RingBuf},
    programs::{TcAttachType, TestRun as _, TestRunOptions},
};
use rustix::time::{ClockId, clock_gettime};
use tokenblock::{
    denylist::{Listed, ProxySet, Tier as _, TokenDigest},
    kernel::{
        Counts, KernelMap, LiveSettings,
        flows::{self, Sweep, Swept},
        load::{Load, classifier, load, xdp},
        map::HashedMap,
        object::Variant,
    },
};
use tokenblock_ebpf::{
    blocked::Blocked,
    digest::InstallationKey,
    event::Event,
    flow::{Copied, Flow, FlowKey, Gap, GapKey, PlaceKeys},
    location::LocationKind,
    rules::Rules,
    scan::Scan,
    sha256,
    verdict::{
        COUNTERS, JUDGE_EGRESS, JUDGE_INGRESS, MapEntry, OnHit, Policies, PortSet, Settings,
    },
};

use crate::fixtures::{LOCATIONS, MIN_TOKEN_LENGTH, hashed, listed};
use frame::Frame;

/// The installation key of the tests.
pub const KEY: InstallationKey = InstallationKey(*b"kernel-tests-key");

/// By which flows find their places.
const PLACE_KEYS: PlaceKeys = [
    [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9],
    [0x94d0_49bb_1331_11eb, 0xd6e8_feb8_6659_fd93],
    [0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db],
    [0x8ebc_6af0_9c88_c6e3, 0x5899_65cc_7537_4cc3],
    [0x1d8e_4e27_c47d_124f, 0xeb44_accb_f6ab_c9b1],
];

/// Most bytes of a frame: what a page holds besides the kernel's own.
pub const MAX_FRAME: usize = 3600;

/// `TC_ACT_REDIRECT`.
pub const REDIRECT: u32 = 7;
/// `TC_ACT_UNSPEC`.
pub const UNSPEC: u32 = u32::MAX;
const SHOT: u32 = 2;
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// What the program wants done with the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// `TC_ACT_SHOT`.
    Dropped,
    /// `TC_ACT_UNSPEC`.
    Passed,
}

/// What the programs are loaded with.
pub struct Setup {
    /// Report and pass.
    pub monitor: bool,
    /// Protected ports.
    pub ports: PortSet,
    /// What is done when a request is blocked.
    pub on_hit: OnHit,
    /// What becomes of packets that can't be judged.
    pub policies: Policies,
    /// What the programs digest by.
    pub variant: Variant,
    /// Flows that are kept on record; with none, each frame is judged as the first of its flow, however often it
    /// is repeated.
    pub flows: u32,
    /// How many of them may be of senders who have not heard the server: all where it is not said, and nobody stands in
    /// then where there is no room.
    pub newcomers: Option<u32>,
    /// Bytes of a declared body after which it is trusted; 0: never.
    pub trust_after: u32,
    /// By which flows find their places.
    pub place_keys: PlaceKeys,
}

impl Default for Setup {
    /// The port of [`Frame`], blocking, a small list.
    fn default() -> Self {
        let mut ports = PortSet::EMPTY;
        ports.insert(Frame::SERVER_PORT);
        Self {
            monitor: false,
            ports,
            on_hit: OnHit::Drop,
            policies: Policies::default(),
            variant: Variant::Keyed,
            flows: 64,
            newcomers: None,
            trust_after: 0,
            place_keys: PLACE_KEYS,
        }
    }
}

/// The rules of the fixtures.
///
/// # Errors
/// Where the locations can't be.
pub fn rules() -> Result<Rules> {
    let locations: Vec<(LocationKind, &[u8])> = LOCATIONS
        .iter()
        .map(|(kind, name)| (*kind, name.as_bytes()))
        .collect();
    match Rules::new(&KEY, MIN_TOKEN_LENGTH, &locations) {
        Ok(rules) => Ok(rules),
        Err(error) => bail!("no rules: {error:?}"),
    }
}

enum Entries {
    Keyed(Box<KernelMap>),
    Sha256(Box<HashedMap>),
    /// Who took it.
    Taken,
}

/// The loaded programs with their maps; not attached anywhere.
pub struct Programs {
    ebpf: Ebpf,
    denylist: Entries,
    set: ProxySet,
    variant: Variant,
    /// Id of the map of flows.
    flows: u32,
    /// Who forgets them, where that is not left to the tests.
    sweeper: Option<Box<dyn Sweep>>,
    events: RingBuf<MapData>,
    counts: Counts,
}

impl Programs {
    /// Loads the programs with an empty denylist.
    ///
    /// # Errors
    /// Where the kernel refuses them.
    pub fn load(setup: &Setup) -> Result<Self> {
        let rules = rules()?;
        let settings = Settings {
            monitor: u32::from(setup.monitor),
            on_hit: setup.on_hit as u32,
            judged: JUDGE_INGRESS | JUDGE_EGRESS,
            trust_after: setup.trust_after,
            newcomers: setup.newcomers.unwrap_or(u32::MAX),
            policies: setup.policies,
            ..Settings::default()
        };
        let mut ebpf = load(&Load {
            variant: setup.variant,
            rules: &rules,
            settings,
            ports: &setup.ports,
            flows: setup.flows,
            place_keys: setup.place_keys,
            exempt: &[],
            kept: &[],
        })?;
        let flows = id_of(&ebpf, "FLOWS")?;
        let sweeper = if setup.flows == 0 || setup.newcomers.is_some() {
            Some(flows::take(&mut ebpf, &rules, setup.variant, setup.flows)?)
        } else {
            None
        };
        let denylist = match setup.variant {
            Variant::Keyed => {
                let settings = LiveSettings::take(&mut ebpf, settings)?;
                Entries::Keyed(Box::new(KernelMap::take(&mut ebpf, settings)?))
            }
            Variant::Sha256 => Entries::Sha256(Box::new(HashedMap::take(&mut ebpf)?)),
        };
        let counts = PerCpuArray::try_from(ebpf.take_map("COUNTS").context("no COUNTS")?)?;
        let events = RingBuf::try_from(ebpf.take_map("EVENTS").context("no EVENTS")?)?;
        Ok(Self {
            ebpf,
            denylist,
            set: ProxySet::default(),
            variant: setup.variant,
            flows,
            sweeper,
            events,
            counts: Counts::new(counts),
        })
    }

    /// Loads the programs with the fixtures' denylist.
    ///
    /// # Errors
    /// Where the kernel refuses them.
    pub fn with_fixtures(setup: &Setup) -> Result<Self> {
        let mut programs = Self::load(setup)?;
        match &mut programs.denylist {
            Entries::Keyed(_) => programs.list(&listed(&KEY))?,
            Entries::Sha256(map) => map.change(&hashed().entries(), &[])?,
            Entries::Taken => bail!("the map was taken"),
        }
        Ok(programs)
    }

    /// The map of the programs that look up keyed digests, to be changed by somebody else.
    ///
    /// # Errors
    /// Where they have none.
    pub fn take_keyed(&mut self) -> Result<KernelMap> {
        match mem::replace(&mut self.denylist, Entries::Taken) {
            Entries::Keyed(map) => Ok(*map),
            Entries::Sha256(_) | Entries::Taken => bail!("no map of keyed digests"),
        }
    }

    /// The map of the programs that look up SHA-256.
    ///
    /// # Errors
    /// Where they have none.
    pub fn take_hashed(&mut self) -> Result<HashedMap> {
        match mem::replace(&mut self.denylist, Entries::Taken) {
            Entries::Sha256(map) => Ok(*map),
            Entries::Keyed(_) | Entries::Taken => bail!("no map of hashes"),
        }
    }

    /// What they digest by.
    #[must_use]
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// Adds to the denylist.
    ///
    /// # Errors
    /// Where the map can't take them.
    pub fn list(&mut self, entries: &[(TokenDigest, Listed)]) -> Result<()> {
        match &mut self.denylist {
            Entries::Keyed(map) => {
                map.add(entries, &self.set.snapshot())?;
                self.set.add(entries);
                Ok(())
            }
            Entries::Sha256(_) | Entries::Taken => bail!("no map of keyed digests"),
        }
    }

    /// What the programs find by keyed digests.
    #[must_use]
    pub fn entries(&self) -> BTreeMap<TokenDigest, MapEntry> {
        match &self.denylist {
            Entries::Keyed(map) => map.entries().collect(),
            Entries::Sha256(_) | Entries::Taken => BTreeMap::new(),
        }
    }

    /// Removes from the denylist.
    ///
    /// # Errors
    /// Where the map can't let them go.
    pub fn unlist(&mut self, digests: &[TokenDigest]) -> Result<()> {
        match &mut self.denylist {
            Entries::Keyed(map) => {
                map.remove(digests)?;
                self.set.remove(digests);
                Ok(())
            }
            Entries::Sha256(_) | Entries::Taken => bail!("no map of keyed digests"),
        }
    }

    /// Forgets all flows, so that the next frame is the first of its own.
    ///
    /// # Errors
    /// Where a map can't be emptied.
    pub fn forget_flows(&mut self) -> Result<()> {
        const KEY: usize = size_of::<FlowKey>();
        const PLACE: usize = size_of::<GapKey>();
        clear::<KEY, { size_of::<Blocked>() }>(&mut self.ebpf, "BLOCKED")?;
        self.sweep_flows()?;
        clear::<KEY, { size_of::<[u32; 3]>() }>(&mut self.ebpf, "HANDSHAKES")?;
        match self.variant {
            Variant::Keyed => {
                clear::<PLACE, { size_of::<Scan>() }>(&mut self.ebpf, "STATES")?;
            }
            Variant::Sha256 => {
                clear::<PLACE, { size_of::<sha256::scan::Scan>() }>(&mut self.ebpf, "STATES")?;
            }
        }
        clear::<PLACE, { size_of::<Copied>() }>(&mut self.ebpf, "COPIES")?;
        clear::<PLACE, { size_of::<Gap>() }>(&mut self.ebpf, "GAPS")
    }

    /// Forgets flows as the sweeping of idle ones does.
    ///
    /// # Errors
    /// Where the map can't be emptied.
    pub fn sweep_flows(&mut self) -> Result<()> {
        match self.variant {
            Variant::Keyed => remove_all(self.flows::<Flow>()?),
            Variant::Sha256 => remove_all(self.flows::<sha256::flow::Flow>()?),
        }
    }

    /// Forgets the flows that may go, as the product does, whose interfaces are there.
    ///
    /// # Errors
    /// Where the map can't be read or written, or [`Setup::newcomers`] is not set.
    pub fn sweep(&mut self, is_there: bool) -> Result<Swept> {
        let sweeper = self.sweeper.as_mut().context("nobody sweeps")?;
        Ok(sweeper.sweep(&|_| is_there)?)
    }

    /// The same with some of them; `None` where there are more.
    ///
    /// # Errors
    /// As there.
    pub fn sweep_some(&mut self) -> Result<Option<Swept>> {
        let sweeper = self.sweeper.as_mut().context("nobody sweeps")?;
        Ok(sweeper.sweep_some(&|_| true)?)
    }

    /// How many flows are on record.
    ///
    /// # Errors
    /// Where the map can't be read.
    pub fn count_flows(&self) -> Result<usize> {
        let flows = self.flows::<Flow>()?;
        let keys = flows.keys().collect::<Result<Vec<_>, _>>()?;
        Ok(keys.iter().filter(|key| !FlowKey::stands_in(**key)).count())
    }

    /// The map of flows, whoever holds it.
    fn flows<V: Pod>(&self) -> Result<HashMap<MapData, u64, V>> {
        let map = Map::HashMap(MapData::from_id(self.flows)?);
        Ok(HashMap::try_from(map)?)
    }

    /// Makes it so that all flows passed their last segment `ago` nanoseconds before now.
    ///
    /// # Errors
    /// Where the map can't be read or written.
    pub fn age_flows(&mut self, ago: u64) -> Result<()> {
        // The programs' clock.
        let clock = clock_gettime(ClockId::MonotonicCoarse);
        let now = u64::try_from(clock.tv_sec)? * 1_000_000_000 + u64::try_from(clock.tv_nsec)?;
        let mut flows = self.flows::<Flow>()?;
        let keys = flows.keys().collect::<Result<Vec<_>, _>>()?;
        for key in keys {
            let mut flow = flows.get(&key, 0)?;
            flow.passed_at = now.saturating_sub(ago);
            flows.insert(key, flow, 0)?;
        }
        Ok(())
    }

    /// Runs a program, one of [`tokenblock::kernel::load::CLASSIFIERS`], once, on the first frame of a flow.
    ///
    /// # Errors
    /// Where the kernel can't run it, or it gives an action that none should.
    pub fn run(&mut self, program: &'static str, frame: &[u8]) -> Result<Fate> {
        self.forget_flows()?;
        let (action, _) = self.repeat(program, frame, 1)?;
        match action {
            SHOT => Ok(Fate::Dropped),
            UNSPEC => Ok(Fate::Passed),
            other => bail!("{program} gave the action {other}"),
        }
    }

    /// Runs a program once, its flows as they are: the action, and what became of the frame.
    ///
    /// # Errors
    /// Where the kernel can't run it.
    pub fn rewrite(&mut self, program: &'static str, frame: &[u8]) -> Result<(u32, Vec<u8>)> {
        let mut out = vec![0; MAX_FRAME];
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.data_out = Some(&mut out);
        let result = classifier(&mut self.ebpf, program)?
            .test_run(options)
            .with_context(|| format!("{program} on {} bytes", frame.len()))?;
        out.truncate(result.data_size_out as usize);
        Ok((result.return_value, out))
    }

    /// Runs a program `times` on one frame: the last action, and the mean time of a run.
    ///
    /// # Errors
    /// Where the kernel can't run it.
    pub fn repeat(
        &mut self,
        program: &'static str,
        frame: &[u8],
        times: u32,
    ) -> Result<(u32, Duration)> {
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.repeat = times;
        let result = classifier(&mut self.ebpf, program)?
            .test_run(options)
            .with_context(|| format!("{program} on {} bytes", frame.len()))?;
        Ok((result.return_value, result.duration))
    }

    /// Runs the XDP program on a frame: whether it passes.
    ///
    /// # Errors
    /// Where the kernel can't run it.
    pub fn passes_xdp(&mut self, frame: &[u8]) -> Result<bool> {
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        match xdp(&mut self.ebpf)?.test_run(options)?.return_value {
            XDP_DROP => Ok(false),
            XDP_PASS => Ok(true),
            other => bail!("the XDP program gave the action {other}"),
        }
    }

    /// Runs a program `times` on each of these frames, all at the same time.
    ///
    /// # Errors
    /// Where the kernel can't run it.
    pub fn race(&mut self, program: &'static str, frames: &[Vec<u8>], times: u32) -> Result<()> {
        let program = &*classifier(&mut self.ebpf, program)?;
        std::thread::scope(|scope| {
            let runs: Vec<_> = frames
                .iter()
                .map(|frame| {
                    scope.spawn(move || {
                        let mut options = TestRunOptions::new();
                        options.data_in = Some(frame);
                        options.repeat = times;
                        program.test_run(options)
                    })
                })
                .collect();
            for run in runs {
                let Ok(result) = run.join() else {
                    bail!("a run panicked");
                };
                result?;
            }
            Ok(())
        })
    }

    /// Runs and says how each counter moved, those that stayed left out.
    ///
    /// # Errors
    /// As [`Programs::run`].
    pub fn counted(
        &mut self,
        program: &'static str,
        frame: &[u8],
    ) -> Result<(Fate, BTreeMap<&'static str, u64>)> {
        let before = self.totals()?;
        let fate = self.run(program, frame)?;
        let mut moved = self.totals()?;
        moved.retain(|name, count| {
            *count -= before.get(name).copied().unwrap_or(0);
            *count != 0
        });
        Ok((fate, moved))
    }

    /// The counters since the programs were loaded.
    ///
    /// # Errors
    /// Where their map can't be read.
    pub fn totals(&self) -> Result<BTreeMap<&'static str, u64>> {
        let counts = self.counts.read()?.into_iter().map(|(_, count)| count);
        Ok(COUNTERS.into_iter().zip(counts).collect())
    }

    /// The events since the last call.
    pub fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(record) = self.events.next() {
            events.extend(Event::from_bytes(&record));
        }
        events
    }

    /// What the verifier walked through to accept this program, and the size of its machine code in bytes.
    ///
    /// # Errors
    /// Where the kernel doesn't say.
    pub fn size(&mut self, program: &'static str) -> Result<(u32, u32)> {
        let info = classifier(&mut self.ebpf, program)?.info()?;
        let verified = info.verified_instruction_count();
        Ok((verified.context("kernel before 5.16")?, info.size_jitted()))
    }

    /// Attaches a program to an interface in the namespace of this thread, until the programs are dropped.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn attach(
        &mut self,
        program: &'static str,
        interface: &str,
        at: TcAttachType,
    ) -> Result<()> {
        classifier(&mut self.ebpf, program)?.attach(interface, at)?;
        Ok(())
    }

    /// How often a program has run while the kernel counted, and how long.
    ///
    /// # Errors
    /// Where the kernel doesn't say.
    pub fn ran(&mut self, program: &'static str) -> Result<(u64, Duration)> {
        let info = classifier(&mut self.ebpf, program)?.info()?;
        Ok((info.run_count(), info.run_time()))
    }

    /// Ids of all maps that this program uses.
    ///
    /// # Errors
    /// Where the kernel doesn't say.
    pub fn maps(&mut self, program: &'static str) -> Result<Vec<u32>> {
        let ids = classifier(&mut self.ebpf, program)?.info()?.map_ids()?;
        ids.context("kernel before 4.15")
    }
}

/// The id of a hash map of the programs.
fn id_of(ebpf: &Ebpf, name: &str) -> Result<u32> {
    match ebpf.map(name) {
        Some(Map::HashMap(map)) => Ok(map.info()?.id()),
        _ => bail!("no hash map {name}"),
    }
}

/// Empties a hash map of the programs whose keys and values have so many bytes.
fn clear<const KEY: usize, const VALUE: usize>(ebpf: &mut Ebpf, name: &str) -> Result<()> {
    let map = ebpf.map_mut(name).with_context(|| format!("no {name}"))?;
    remove_all(HashMap::<_, [u8; KEY], [u8; VALUE]>::try_from(map)?)
}

fn remove_all<M, K: Pod, V: Pod>(mut map: HashMap<M, K, V>) -> Result<()>
where
    M: std::borrow::BorrowMut<MapData>,
{
    let keys = map.keys().collect::<Result<Vec<_>, _>>()?;
    for key in keys {
        map.remove(&key)?;
    }
    Ok(())
}
