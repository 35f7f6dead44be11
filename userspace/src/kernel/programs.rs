//! One set of programs: loaded, attached, read, dropped.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{HashMap, PerCpuArray, RingBuf},
};
use sha2::{Digest as _, Sha256};
use tokenblock_ebpf::{
    digest::{Domain, Sip},
    flow::FlowKey,
    rules::Rules,
    verdict::{PortSet, Settings},
};
use tracing::warn;

use super::{
    attach::{Attachments, Hook},
    counts::Counts,
    debug::ProgramLog,
    error::KernelError,
    events::Events,
    flows::{self, Sweep, Swept},
    interfaces::Interface,
    live::LiveSettings,
    load::{Load, NewRules, load, place_keys},
    object::{Variant, programs},
    patterns::Patterns,
    pins::{PinFolder, SetPins},
    xdp,
};
use crate::{cli, counters::Counted, event::EventSink, settings::KernelSettings};

/// Between two sweeps of the flows; where there are many of them.
const PAUSE: Duration = Duration::from_secs(5);
const HURRY: Duration = Duration::from_secs(1);
/// Parts of the time of which sweeps take one at most.
const SHARE: u32 = 20;

/// What any set of programs is loaded and attached with.
pub(super) struct Plan {
    pub(super) rules: Arc<Rules>,
    pub(super) settings: KernelSettings,
    pub(super) patterns: Patterns,
    /// Interfaces that are followed as one, where they were named.
    pub(super) uplinks: Option<Patterns>,
    pub(super) ports: Box<PortSet>,
    pub(super) locations: Arc<[Arc<str>]>,
    pub(super) sink: EventSink,
    /// Where programs outlive the process, if they do.
    pub(super) pins: Option<Arc<PinFolder>>,
}

/// A set of programs; dropped, it is detached, but where it outlives the process.
pub(super) struct Programs {
    pub(super) attachments: Attachments,
    pub(super) events: Events,
    pub(super) ebpf: Ebpf,
    pub(super) log: Option<ProgramLog>,
    pub(super) settings: LiveSettings,
    counts: Counts,
    flows: Box<dyn Sweep>,
    swept: Swept,
    sweep_at: Instant,
    /// How long the sweep that is under way has taken.
    swept_for: Duration,
}

impl Programs {
    /// Loads them, attached to nothing yet.
    pub(super) fn load(
        plan: &Plan,
        variant: Variant,
        settings: Settings,
    ) -> Result<Self, KernelError> {
        let (mut ebpf, pins) = load_with_pins(plan, variant, settings)?;
        let mut flows = flows::take(&mut ebpf, &plan.rules, variant, plan.settings.flows)?;
        if let Some(pins) = pins.as_ref().filter(|pins| pins.is_taken_over()) {
            // Of others nobody knows what they have sent since.
            let followed = pins.followed();
            let is_followed = |way: u32| {
                followed.contains(&way) || way & FlowKey::JOINED != 0 && !followed.is_empty()
            };
            let swept = flows.sweep(&is_followed)?;
            pins.took_over(swept.flows);
        }
        let settings = LiveSettings::take(&mut ebpf, settings)?;
        let log = ProgramLog::take(&mut ebpf);
        let mut take = |what| ebpf.take_map(what).ok_or(KernelError::BadObject { what });
        let counts = Counts::new(PerCpuArray::try_from(take("COUNTS")?)?);
        let buffer = RingBuf::try_from(take("EVENTS")?)?;
        let events = Events::new(buffer, Arc::clone(&plan.locations), plan.sink.clone())?;
        let xdp = match variant {
            Variant::Keyed => plan.settings.xdp,
            // An interface has one program there; what this one would drop is dropped a little later.
            Variant::Sha256 => cli::Xdp::Off,
        };
        let attachments = Attachments::new(
            plan.patterns.clone(),
            plan.uplinks.clone(),
            plan.settings.attach,
            xdp::Plan::new(xdp, plan.settings.direction),
            pins,
        );
        Ok(Self {
            attachments,
            events,
            ebpf,
            log,
            settings,
            counts,
            flows,
            swept: Swept::default(),
            sweep_at: Instant::now(),
            swept_for: Duration::ZERO,
        })
    }

    /// Attaches to all interfaces that are meant and there.
    pub(super) fn attach(&mut self, present: &[Interface]) -> Result<(), KernelError> {
        self.attachments.start(&mut self.ebpf, present)
    }

    /// Whether other programs are attached in whose place these come.
    pub(super) fn follows_others(&self) -> bool {
        self.attachments.has_pins()
    }

    /// Puts other rules in force, whose locations have these names, and whether listed tokens are only reported.
    pub(super) fn change(
        &mut self,
        rules: &NewRules,
        locations: &Arc<[Arc<str>]>,
        monitor: bool,
    ) -> Result<(), KernelError> {
        // An event may tell of a location from now on.
        self.events.name(locations);
        rules.put(&mut self.ebpf)?;
        self.settings
            .change(|settings| settings.monitor = u32::from(monitor))
    }

    /// The interface is there, new or changed.
    pub(super) fn there(&mut self, interface: &Interface) {
        self.attachments.there(&mut self.ebpf, interface);
    }

    /// The interface with this index is gone.
    pub(super) fn gone(&mut self, index: u32) {
        self.attachments.gone(index);
    }

    /// These interfaces are there, and no others.
    pub(super) fn look(&mut self, present: &[Interface]) {
        self.attachments.look(&mut self.ebpf, present);
    }

    /// These programs were `found` at a hook. Where somebody else has detached its own there, it is attached to the interface no more, and
    /// what is known of connections that pass it is forgotten: nobody knows what they have sent since.
    pub(super) fn is_lost(&mut self, index: u32, hook: Hook, found: &[u32]) -> bool {
        let lost = self.attachments.lost(index, hook, found);
        if let Some(way) = lost
            && let Err(error) = self.forget(way)
        {
            warn!(
                error = &error as &dyn std::error::Error,
                "flows can't be forgotten"
            );
        }
        lost.is_some()
    }

    fn forget(&mut self, way: u32) -> Result<(), KernelError> {
        // The first may be the rest of one that was under way.
        for _ in 0..2 {
            self.swept = self.flows.sweep(&|other| other != way)?;
        }
        let what = "HANDSHAKES";
        let map = self.ebpf.map_mut(what);
        let mut handshakes: HashMap<_, FlowKey, [u32; 3]> =
            HashMap::try_from(map.ok_or(KernelError::BadObject { what })?)?;
        let of_it: Vec<FlowKey> = handshakes
            .keys()
            .filter_map(Result::ok)
            .filter(|key| key.way() == way)
            .collect();
        for key in of_it {
            // Gone already is as good.
            let _gone = handshakes.remove(&key);
        }
        Ok(())
    }

    /// Looks at some flows and forgets those that may go, where it is time for that: sooner where there are many, and never so
    /// often that it takes a core much of its time. Whether it is to go on soon.
    pub(super) fn sweep(&mut self) -> bool {
        let now = Instant::now();
        if now < self.sweep_at {
            return false;
        }
        let attachments = &self.attachments;
        let swept = self.flows.sweep_some(&|way| attachments.has(way));
        self.swept_for += now.elapsed();
        match swept {
            Ok(None) => return true,
            Ok(Some(swept)) => self.swept = swept,
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                "flows can't be forgotten"
            ),
        }
        let pause = if self.swept.crowded { HURRY } else { PAUSE };
        self.sweep_at = now + pause.max(self.swept_for * SHARE);
        self.swept_for = Duration::ZERO;
        false
    }

    /// The counters, and what the last sweep of the flows found.
    pub(super) fn counters(&self) -> Counted {
        let mut counted = self.counts.read().unwrap_or_else(|error| {
            warn!(
                error = &error as &dyn std::error::Error,
                "the kernel tier's counters can't be read"
            );
            Counted::new()
        });
        counted.extend(self.swept.counted());
        counted.push(("attached_again".to_owned(), self.attachments.again()));
        counted
    }

    /// What the connections that are followed depend on is otherwise now.
    pub(super) fn refit(&mut self, plan: &Plan, variant: Variant) -> Result<(), KernelError> {
        match self.attachments.pins() {
            Some(pins) => pins.refit(fingerprint(plan, variant)?),
            None => Ok(()),
        }
    }

    /// Detaches for good, and reports the events that are still in the buffer.
    pub(super) fn detach(&mut self) {
        self.attachments.clear();
        self.events.drain();
    }

    /// Detaches, where the programs do not outlive the process, and reports the events that are still in the buffer.
    pub(super) fn leave(&mut self) {
        self.attachments.leave();
        self.events.drain();
    }
}

/// Loads programs with what connections have come to under those before; where they can't be loaded so, with nothing of it.
fn load_with_pins(
    plan: &Plan,
    variant: Variant,
    settings: Settings,
) -> Result<(Ebpf, Option<SetPins>), KernelError> {
    let Some(folder) = &plan.pins else {
        return Ok((load_one(plan, variant, settings, None)?, None));
    };
    let mut pins = SetPins::open(folder, variant, fingerprint(plan, variant)?)?;
    let loaded = match load_one(plan, variant, settings, Some(&pins)) {
        Err(error) if pins.is_taken_over() => {
            warn!(
                error = &error as &dyn std::error::Error,
                "what open connections have come to can't be taken over: they are first seen in their middle"
            );
            pins.renounce()?;
            load_one(plan, variant, settings, Some(&pins))
        }
        loaded => loaded,
    };
    let ebpf = loaded?;
    pins.loaded()?;
    Ok((ebpf, Some(pins)))
}

fn load_one(
    plan: &Plan,
    variant: Variant,
    settings: Settings,
    pins: Option<&SetPins>,
) -> Result<Ebpf, KernelError> {
    let ban = plan.settings.ban.as_ref();
    let kept = pins.map_or_else(Vec::new, SetPins::map_paths);
    load(&Load {
        variant,
        rules: &plan.rules,
        settings,
        exempt: ban.map_or(&[], |ban| &ban.exempt),
        ports: &plan.ports,
        flows: plan.settings.flows,
        place_keys: match pins {
            Some(pins) => pins.place_keys()?,
            None => place_keys()?,
        },
        kept: &kept,
    })
}

/// Of all that has to be the same where programs go on with the connections of those before: the programs, the key under which
/// states are, what they were found by, and which connections are followed.
fn fingerprint(plan: &Plan, variant: Variant) -> Result<u64, KernelError> {
    // A digest of nothing tells keys apart, and nothing of them.
    let key = Sip::new(&plan.rules.seed).finish(Domain::Exact);
    let settings = &plan.settings;
    let mut hash = Sha256::new();
    hash.update(programs(variant)?);
    hash.update(key.0);
    hash.update(plan.rules.min_len.to_le_bytes());
    hash.update(flows::table_size(settings.flows)?.to_le_bytes());
    hash.update(format!("{:?} {}", settings.direction, settings.ports));
    hash.update(format!("{:?}", settings.uplinks));
    for location in plan.locations.iter() {
        hash.update("\n");
        hash.update(&**location);
    }
    let digest = hash.finalize();
    let word = digest.first_chunk().copied().unwrap_or_default();
    Ok(u64::from_be_bytes(word))
}
