//! The proxy tier beside HAProxy and nginx: the same list, the same origin, the same load, turn by turn.
//!
//! As much as each takes, and then the same requests at the same times for all. `--full` takes every size of the list and
//! more rounds; `--only NAME` leaves the others out; `--real-time` goes before whatever else the machine does; `--endurance`
//! shows in their place that memory stays flat and that no request fails while everything is reloaded.
#![expect(
    clippy::print_stderr,
    reason = "the figures go to standard output, the rest to standard error"
)]

mod endurance;
mod idle;
mod load;
mod paced;
mod proxies;
mod rounds;
mod tls;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tokenblock_tests::{
    bench::{arguments::Arguments, cores, load_average},
    certificate::Certificate,
    gate,
    netns::Netns,
};

use crate::{proxies::Kind, rounds::Rounds};

/// Where everything runs that a bench starts.
pub(crate) struct Bench {
    pub(crate) netns: Netns,
    pub(crate) folder: TempDir,
    pub(crate) certificate: Certificate,
    /// The product.
    pub(crate) binary: PathBuf,
}

/// How much is measured.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    /// Sizes of the denylist.
    pub(crate) sizes: &'static [usize],
    /// How often each figure is taken; the middle one counts.
    pub(crate) rounds: usize,
    /// How long each load lasts.
    pub(crate) load: Duration,
    /// The same of the loads at fixed rates, which are many and short: a round that was disturbed does not count so.
    pub(crate) paced_rounds: u64,
    pub(crate) paced: Duration,
    /// Idle connections of which the memory is measured.
    idle: usize,
    kinds: Vec<Kind>,
    /// What must hold for long in place of figures beside others.
    endurance: bool,
}

impl Extent {
    /// Less than six minutes.
    fn quick() -> Self {
        Self {
            sizes: &[1_000_000],
            rounds: 3,
            load: Duration::from_secs(1),
            paced_rounds: 25,
            paced: Duration::from_millis(100),
            idle: 2000,
            kinds: Kind::ALL.to_vec(),
            endurance: false,
        }
    }

    fn full() -> Self {
        Self {
            sizes: &[0, 1000, 100_000, 1_000_000],
            rounds: 3,
            load: Duration::from_secs(2),
            paced_rounds: 75,
            idle: 10_000,
            ..Self::quick()
        }
    }

    fn of(arguments: &Arguments) -> Self {
        let mut extent = arguments.extent(Self::quick, Self::full);
        extent.endurance = arguments.has("--endurance");
        extent.kinds.retain(|kind| arguments.takes(kind.name()));
        extent
    }
}

fn main() -> Result<()> {
    let known = ["--full", "--only", "--endurance", "--real-time"];
    let Some(arguments) = Arguments::read(&known)? else {
        return Ok(());
    };
    let extent = Extent::of(&arguments);
    let binary =
        gate::product("the proxy bench").context("start it by `cargo xtask bench proxy`")?;
    cores::allow_files()?;
    if arguments.has("--real-time") {
        cores::run_in_real_time();
    }
    let folder = tempfile::tempdir().context("making a folder")?;
    let bench = Bench {
        netns: Netns::new()?,
        certificate: Certificate::new(folder.path(), "server")?,
        folder,
        binary,
    };
    if extent.endurance {
        return endurance::run(&bench);
    }
    eprintln!("load average before: {}", load_average());
    let _origin = proxies::origin(&bench)?;
    let _floor = proxies::floor(&bench)?;
    for size in extent.sizes {
        Rounds::start(&bench, &extent, *size)?.run()?;
    }
    for kind in &extent.kinds {
        idle::measure(&bench, *kind, extent.idle)?;
    }
    eprintln!("load average afterwards: {}", load_average());
    Ok(())
}
