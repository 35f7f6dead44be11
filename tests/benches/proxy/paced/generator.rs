//! What sends: two threads that never sleep, with a core each.

use std::{net::SocketAddr, thread, time::Instant};

use anyhow::{Context as _, Result, anyhow};
use tokenblock_tests::bench::cores;

use super::{
    Pace, WARM, Waits, connection::Connection, driver::Driver, protocol::Protocol,
    schedule::Schedule,
};
use crate::{Bench, load::Load};

/// Connections to what is measured, which stay open from round to round.
pub(super) struct Generator<'a> {
    load: &'a Load,
    port: u16,
    /// With the core that it runs on.
    drivers: Vec<(usize, Driver)>,
}

impl<'a> Generator<'a> {
    /// Connects to what listens on `port`.
    ///
    /// # Errors
    /// Where that is refused.
    pub(super) fn open(bench: &Bench, load: &'a Load, port: u16) -> Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let cores: Vec<usize> = cores::LOAD
            .split(',')
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let connections = usize::try_from(load.connections)? / cores.len();
        let streams = usize::try_from(load.streams)?;
        let drivers = bench.netns.enter(|| -> Result<Vec<(usize, Driver)>> {
            let one = || Connection::open(address, &bench.certificate, Protocol::new(load));
            let some = || (0..connections).map(|_| one()).collect::<Result<Vec<_>>>();
            let drivers = cores
                .iter()
                .map(|core| Ok((*core, Driver::new(some()?, streams)?)));
            drivers.collect()
        })??;
        Ok(Self {
            load,
            port,
            drivers,
        })
    }

    /// Sends one round.
    ///
    /// # Errors
    /// Where a connection breaks, or an answer is another than is due.
    pub(super) fn run(&mut self, pace: &Pace) -> Result<Waits> {
        cores::let_others();
        #[expect(clippy::cast_precision_loss, reason = "two")]
        let interval = self.drivers.len() as f64 / pace.rate;
        let began = Instant::now();
        let waits = thread::scope(|scope| {
            let threads: Vec<_> = self
                .drivers
                .iter_mut()
                .map(|(core, driver)| {
                    let seed = pace.seed ^ (*core as u64) << 32;
                    let schedule = Schedule::new(began, interval, seed);
                    scope.spawn(move || -> Result<Waits> {
                        cores::take(*core)?;
                        driver.drive(schedule, began + WARM, began + WARM + pace.lasting)
                    })
                })
                .collect();
            let ended = threads.into_iter().map(|thread| {
                thread
                    .join()
                    .map_err(|_panic| anyhow!("a generator panicked"))?
            });
            ended.collect::<Result<Vec<_>>>()
        });
        let waits = waits
            .with_context(|| format!("{} at a fixed rate to port {}", self.load.name, self.port))?;
        Ok(waits.into_iter().fold(Waits::default(), |mut all, one| {
            all.answered.extend(one.answered);
            all.late.extend(one.late);
            all
        }))
    }
}
