//! The tier as a whole: started, filled, attached, run, dropped.

use std::{sync::Arc, time::Duration};

use aya::{
    Ebpf,
    maps::{PerCpuArray, RingBuf},
};
use tokenblock_ebpf::{
    ban::BanRule,
    blocked::MEMORY_NS,
    rules::Rules,
    verdict::{JUDGE_EGRESS, JUDGE_INGRESS, OnHit, PortSet, Settings},
};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::warn;

use super::{
    attach::Attachments,
    counts::Counts,
    debug::ProgramLog,
    error::KernelError,
    events::Events,
    flows::Flows,
    interfaces::{Change, Interfaces},
    load::{Load, load},
    map::{KernelMap, capacity_for, filter_mask_for},
    object::programs,
    patterns::Patterns,
};
use crate::{
    cli,
    counters::Counted,
    event::EventSink,
    settings::{Ban, KernelSettings, Ports},
};

/// How often all interfaces are looked at again, should a change have been missed.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How long a blocked flow is remembered.
const FLOW_MEMORY: Duration = Duration::from_nanos(MEMORY_NS);

/// How often the programs' log is brought, where they are debugged.
const FLUSH_LOG: Duration = Duration::from_millis(100);

/// The kernel tier; dropped, it detaches its programs and leaves nothing behind.
pub struct KernelTier {
    attachments: Attachments,
    interfaces: Interfaces,
    events: Events,
    counts: Counts,
    flows: Flows,
    log: Option<ProgramLog>,
    ebpf: Ebpf,
    /// How long the programs remember what they blocked.
    memory: Duration,
    /// When all of it is forgotten.
    idle_at: Instant,
}

impl KernelTier {
    /// Loads the programs, with room for a list of `entries`. Nothing is attached yet: fill the map first.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel or this process can't.
    pub fn start(
        settings: &KernelSettings,
        rules: &Rules,
        entries: usize,
        locations: Arc<[Arc<str>]>,
        sink: EventSink,
    ) -> Result<(Self, KernelMap), KernelError> {
        let patterns = Patterns::parse(&settings.interfaces)?;
        let capacity = capacity_for(entries);
        let filter_mask = filter_mask_for(capacity);
        let mut ebpf = load(&Load {
            object: programs()?,
            rules,
            settings: Settings {
                monitor: u32::from(settings.monitor),
                filter_mask,
                on_hit: on_hit(settings.on_hit) as u32,
                judged: judged(settings.direction),
                ban: settings.ban.as_ref().map(ban_rule).unwrap_or_default(),
            },
            exempt: settings.ban.as_ref().map_or(&[], |ban| &ban.exempt),
            ports: &port_set(&settings.ports),
            capacity,
            flows: settings.flows,
        })?;
        let map = KernelMap::take(&mut ebpf, filter_mask)?;
        let flows = Flows::take(&mut ebpf, rules)?;
        let log = ProgramLog::take(&mut ebpf);
        let mut take = |what| ebpf.take_map(what).ok_or(KernelError::BadObject { what });
        let counts = Counts::new(PerCpuArray::try_from(take("COUNTS")?)?);
        let events = Events::new(RingBuf::try_from(take("EVENTS")?)?, locations, sink)?;
        let attachments = Attachments::new(patterns, settings.direction, settings.xdp);
        let interfaces = Interfaces::open()?;
        Ok((
            Self {
                attachments,
                interfaces,
                events,
                counts,
                flows,
                log,
                ebpf,
                memory: settings
                    .ban
                    .as_ref()
                    .map_or(FLOW_MEMORY, |ban| FLOW_MEMORY.max(ban.duration)),
                idle_at: Instant::now(),
            },
            map,
        ))
    }

    /// Attaches the programs to all interfaces that are meant and there.
    ///
    /// # Errors
    /// [`KernelError`] where one can't be attached to; those that were are detached when the tier is dropped.
    pub async fn attach(&mut self) -> Result<(), KernelError> {
        let present = self.interfaces.all().await?;
        self.attachments.start(&mut self.ebpf, &present)
    }

    /// Names of the interfaces that are protected.
    #[must_use]
    pub fn protected(&self) -> Vec<&str> {
        self.attachments.names()
    }

    /// The counters.
    #[must_use]
    pub fn counters(&self) -> Counted {
        self.counts.read().unwrap_or_else(|error| {
            warn!(
                error = &error as &dyn std::error::Error,
                "the kernel tier's counters can't be read"
            );
            Counted::new()
        })
    }

    /// Reports events and follows the interfaces, until dropped; returns only why it can't go on.
    pub async fn run(&mut self) -> KernelError {
        let mut again = interval(LOOK_AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut flush = interval(FLUSH_LOG);
        loop {
            tokio::select! {
                done = self.events.forward() => match done {
                    Ok(true) => {
                        self.idle_at = Instant::now() + self.memory;
                        self.attachments.busy(&mut self.ebpf);
                    }
                    Ok(false) => {}
                    Err(error) => return error,
                },
                () = sleep_until(self.idle_at), if self.attachments.is_busy() => {
                    self.attachments.idle();
                }
                Some(change) = self.interfaces.change() => {
                    self.attachments.follow(&mut self.ebpf, &change);
                }
                _ = again.tick() => {
                    self.look_again().await;
                    self.sweep();
                }
                _ = flush.tick(), if self.log.is_some() => {
                    self.log.as_mut().map(ProgramLog::flush);
                }
            }
        }
    }

    /// Detaches from all interfaces, and reports the events that are still in the buffer.
    pub fn detach(&mut self) {
        self.attachments.clear();
        self.events.drain();
    }

    fn sweep(&mut self) {
        if let Err(error) = self.flows.sweep() {
            warn!(
                error = &error as &dyn std::error::Error,
                "idle flows can't be forgotten"
            );
        }
    }

    async fn look_again(&mut self) {
        match self.interfaces.all().await {
            Ok(present) => {
                for interface in present {
                    self.attachments
                        .follow(&mut self.ebpf, &Change::There(interface));
                }
            }
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                "interfaces unknown"
            ),
        }
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
