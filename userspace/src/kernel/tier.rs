//! The tier as a whole: started, filled, attached, run, dropped.

use std::{path::Path, sync::Arc, time::Duration};

use tokenblock_ebpf::{
    ban::BanRule,
    blocked::MEMORY_NS,
    verdict::{JUDGE_EGRESS, JUDGE_INGRESS, OnHit, PortSet, Settings},
};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tracing::{info, warn};

use super::{
    attach::is_tcx,
    beside::Beside,
    debug::ProgramLog,
    error::KernelError,
    flows,
    hashed::{HashedTier, Request},
    interfaces::{Change, Interfaces},
    load::NewRules,
    map::{HashedMap, KernelMap},
    object::Variant,
    patterns::Patterns,
    pins::PinFolder,
    programs::{Plan, Programs},
    unjudged::Unjudged,
};
use crate::{
    cli,
    counters::Counted,
    event::EventSink,
    places::Places,
    settings::{Ban, KernelSettings, Ports},
};

/// How often all interfaces are looked at again, should a change have been missed.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How often it is looked whether flows are to be forgotten.
const SWEEP: Duration = Duration::from_secs(1);
/// Between two parts of a sweep, for whatever else waits.
const BREATH: Duration = Duration::from_millis(1);

/// How long a blocked flow is remembered.
const FLOW_MEMORY: Duration = Duration::from_nanos(MEMORY_NS);

/// How often the programs' log is brought, where they are debugged.
const FLUSH_LOG: Duration = Duration::from_millis(100);

/// The kernel tier; dropped, it detaches its programs and leaves nothing behind, but where they are to outlive it.
pub struct KernelTier {
    plan: Plan,
    interfaces: Interfaces,
    keyed: Programs,
    /// While there are entries that are known by their SHA-256 alone.
    hashed: Option<Programs>,
    unjudged: Unjudged,
    beside: Beside,
    requests: UnboundedReceiver<Request>,
    /// How long the programs remember what they blocked.
    memory: Duration,
    /// When all of it is forgotten.
    idle_at: Instant,
}

/// The folder in which programs outlive this process.
fn pins(settings: &KernelSettings) -> Result<Option<Arc<PinFolder>>, KernelError> {
    let Some(folder) = &settings.pin_dir else {
        return Ok(None);
    };
    if !is_tcx(settings.attach) {
        warn!(
            "--pin-dir takes programs that are attached by tcx (Linux 6.6): enforcement ends with this process"
        );
        return Ok(None);
    }
    Ok(Some(Arc::new(PinFolder::open(folder)?)))
}

impl KernelTier {
    /// Loads the programs. Nothing is attached yet: fill the map first.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel or this process can't.
    pub fn start(
        settings: &KernelSettings,
        places: &Places,
        sink: EventSink,
    ) -> Result<(Self, KernelMap), KernelError> {
        let plan = Plan {
            rules: Arc::clone(&places.rules),
            settings: settings.clone(),
            patterns: Patterns::parse(&settings.interfaces)?,
            uplinks: uplinks(&settings.uplinks)?,
            ports: Box::new(port_set(&settings.ports)),
            locations: Arc::clone(&places.locations),
            sink,
            pins: pins(settings)?,
        };
        let of_programs = program_settings(settings);
        let mut keyed = Programs::load(&plan, Variant::Keyed, of_programs)?;
        let map = KernelMap::take(&mut keyed.ebpf, keyed.settings.clone())?;
        let (of_list, requests) = HashedTier::new();
        let tier = Self {
            plan,
            interfaces: Interfaces::open()?,
            keyed,
            hashed: None,
            unjudged: Unjudged::new(&settings.policies),
            beside: Beside::default(),
            requests,
            memory: settings
                .ban
                .as_ref()
                .map_or(FLOW_MEMORY, |ban| FLOW_MEMORY.max(ban.duration)),
            idle_at: Instant::now(),
        };
        Ok((tier, map.with_hashed(of_list)))
    }

    /// Loads the programs that look up SHA-256 too, before anything is attached.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel or this process can't.
    pub fn with_hashed(self, map: KernelMap) -> Result<(Self, KernelMap), KernelError> {
        let (programs, hashed) = load_hashed(&self.plan)?;
        let tier = Self {
            hashed: Some(programs),
            ..self
        };
        Ok((tier, map.with_hashed_map(hashed)))
    }

    /// Attaches the programs to all interfaces that are meant and there.
    ///
    /// # Errors
    /// [`KernelError`] where one can't be attached to; those that were are detached when the tier is dropped.
    pub async fn attach(&mut self) -> Result<(), KernelError> {
        let present = self.interfaces.all().await?;
        // Entries may have become ones of the second set: it has to be in force before the first is replaced.
        let follows = self.keyed.follows_others();
        let hashed = self.hashed.as_mut();
        if let Some(hashed) = hashed.filter(|hashed| follows && !hashed.follows_others()) {
            hashed.attach(&present)?;
        }
        for programs in each(&mut self.keyed, &mut self.hashed) {
            programs.attach(&present)?;
        }
        if let Some(pins) = &self.plan.pins {
            if self.hashed.is_none() {
                pins.remove(Variant::Sha256)?;
            }
            pins.say();
        }
        Ok(())
    }

    /// Puts other places in force, and whether listed tokens are only reported: for each packet the ones or the others, and at no
    /// moment none.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel has no room for them; those before stay in force then.
    pub fn change(&mut self, places: &Places, monitor: bool) -> Result<(), KernelError> {
        let rules = NewRules::make(&places.rules)?;
        for programs in each(&mut self.keyed, &mut self.hashed) {
            programs.change(&rules, &places.locations, monitor)?;
        }
        // For programs that are loaded later.
        self.plan.rules = Arc::clone(&places.rules);
        self.plan.locations = Arc::clone(&places.locations);
        self.plan.settings.monitor = monitor;
        self.refit();
        Ok(())
    }

    /// Other places: what is kept of connections is told apart by them.
    fn refit(&mut self) {
        let refitted = self.keyed.refit(&self.plan, Variant::Keyed).and_then(|()| {
            let hashed = self.hashed.as_mut();
            hashed.map_or(Ok(()), |programs| {
                programs.refit(&self.plan, Variant::Sha256)
            })
        });
        if let Err(error) = refitted {
            warn!(
                error = &error as &dyn std::error::Error,
                "what is kept of connections can't be renamed: the next start may not take it over"
            );
        }
    }

    /// The folder in which the programs outlive this process, where they do.
    #[must_use]
    pub fn pin_dir(&self) -> Option<&Path> {
        self.plan.pins.as_ref().map(|pins| pins.root())
    }

    /// Names of the interfaces that are protected.
    #[must_use]
    pub fn protected(&self) -> Vec<&str> {
        self.keyed.attachments.names()
    }

    /// The counters of the programs, and of those that look up SHA-256, by the name of the set.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, Counted)> {
        let hashed = self.hashed.as_ref();
        let hashed = hashed.map(|programs| ("kernel_sha256", programs.counters()));
        let pins = self.plan.pins.as_ref();
        let pins = pins.map(|pins| ("pins", pins.counted()));
        [("kernel", self.keyed.counters())]
            .into_iter()
            .chain(hashed)
            .chain(pins)
    }

    /// Reports events and follows the interfaces, until dropped; returns only why it can't go on.
    pub async fn run(&mut self) -> KernelError {
        let mut again = interval(LOOK_AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut flush = interval(FLUSH_LOG);
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                done = self.keyed.events.forward() => match done {
                    Ok(true) => {
                        self.idle_at = Instant::now() + self.memory;
                        self.keyed.attachments.busy(&mut self.keyed.ebpf);
                    }
                    Ok(false) => {}
                    Err(error) => return error,
                },
                done = forward(self.hashed.as_mut()) => if let Err(error) = done {
                    return error;
                },
                Some(request) = self.requests.recv() => self.serve(request).await,
                () = sleep_until(self.idle_at), if self.keyed.attachments.is_busy() => {
                    self.keyed.attachments.idle();
                }
                Some(change) = self.interfaces.change() => self.follow(&change).await,
                _ = again.tick() => {
                    self.look_again().await;
                    self.unjudged.look(&self.keyed.counters());
                }
                _ = sweep.tick() => {
                    let mut goes_on = false;
                    for programs in each(&mut self.keyed, &mut self.hashed) {
                        goes_on |= programs.sweep();
                    }
                    if goes_on {
                        sweep.reset_after(BREATH);
                    }
                }
                _ = flush.tick(), if self.keyed.log.is_some() => {
                    for programs in each(&mut self.keyed, &mut self.hashed) {
                        programs.log.as_mut().map(ProgramLog::flush);
                    }
                }
            }
        }
    }

    async fn serve(&mut self, request: Request) {
        match request {
            Request::Load(reply) => {
                let loaded = self.load_hashed().await;
                if loaded.is_ok() {
                    info!(
                        "entries known by their SHA-256 alone: programs attached that look them up"
                    );
                }
                // A list that is gone needs no map.
                let _heard = reply.send(loaded);
            }
            Request::Unload => {
                if let Some(mut programs) = self.hashed.take() {
                    programs.detach();
                    info!(
                        "no entry is known by its SHA-256 alone: programs detached that look them up"
                    );
                }
            }
        }
    }

    async fn load_hashed(&mut self) -> Result<HashedMap, KernelError> {
        let (mut programs, map) = load_hashed(&self.plan)?;
        programs.attach(&self.interfaces.all().await?)?;
        self.hashed = Some(programs);
        Ok(map)
    }

    async fn follow(&mut self, change: &Change) {
        for programs in each(&mut self.keyed, &mut self.hashed) {
            match change {
                Change::There(interface) => programs.there(interface),
                Change::Gone(index) => programs.gone(*index),
                Change::Missed => {}
            }
        }
        if *change == Change::Missed {
            self.look_again().await;
        }
    }

    /// Detaches from all interfaces, where the programs do not outlive the process, and reports the events that are still in
    /// the buffer.
    pub fn leave(&mut self) {
        each(&mut self.keyed, &mut self.hashed).for_each(Programs::leave);
    }

    async fn look_again(&mut self) {
        match self.interfaces.all().await {
            Ok(present) => {
                let sets = each(&mut self.keyed, &mut self.hashed).collect();
                self.beside.look(&self.interfaces, sets).await;
                for programs in each(&mut self.keyed, &mut self.hashed) {
                    programs.look(&present);
                }
            }
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                "interfaces unknown"
            ),
        }
    }
}

fn each<'a>(
    keyed: &'a mut Programs,
    hashed: &'a mut Option<Programs>,
) -> impl Iterator<Item = &'a mut Programs> {
    [keyed].into_iter().chain(hashed)
}

async fn forward(programs: Option<&mut Programs>) -> Result<bool, KernelError> {
    match programs {
        Some(programs) => programs.events.forward().await,
        None => std::future::pending().await,
    }
}

fn load_hashed(plan: &Plan) -> Result<(Programs, HashedMap), KernelError> {
    let mut programs = Programs::load(plan, Variant::Sha256, program_settings(&plan.settings))?;
    let map = HashedMap::take(&mut programs.ebpf)?;
    Ok((programs, map))
}

/// Those that were named; none where it is to be seen which they are.
fn uplinks(named: &[String]) -> Result<Option<Patterns>, KernelError> {
    let some = Some(named).filter(|named| !named.is_empty());
    some.map(Patterns::parse).transpose()
}

/// Settings of any set of programs; without a filter, until the map has one.
fn program_settings(settings: &KernelSettings) -> Settings {
    Settings {
        monitor: u32::from(settings.monitor),
        filter_mask: 0,
        on_hit: on_hit(settings.on_hit) as u32,
        judged: judged(settings.direction),
        trust_after: settings.trust_after,
        newcomers: flows::share(settings.flows),
        ban: settings.ban.as_ref().map(ban_rule).unwrap_or_default(),
        policies: settings.policies,
    }
}

fn on_hit(chosen: cli::OnHit) -> OnHit {
    match chosen {
        cli::OnHit::Drop => OnHit::Drop,
        cli::OnHit::Reset => OnHit::Reset,
        cli::OnHit::Forbid => OnHit::Forbid,
    }
}

fn ban_rule(ban: &Ban) -> BanRule {
    // Seconds of 32 bits: far below u64 nanoseconds.
    let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    BanRule {
        hits: ban.hits.get(),
        reserved: 0,
        window: nanoseconds(ban.window),
        duration: nanoseconds(ban.duration),
    }
}

fn port_set(ports: &Ports) -> PortSet {
    match ports {
        Ports::All => PortSet::ALL,
        Ports::Only(ports) => {
            let mut set = PortSet::EMPTY;
            for port in ports {
                set.insert(port.get());
            }
            set
        }
    }
}

/// Where requests are judged, in the programs' terms.
fn judged(direction: cli::Direction) -> u32 {
    match direction {
        cli::Direction::Ingress => JUDGE_INGRESS,
        cli::Direction::Egress => JUDGE_EGRESS,
        cli::Direction::Both => JUDGE_INGRESS | JUDGE_EGRESS,
    }
}
