//! nginx behind the kernel tier, beside nginx alone, behind iptables and behind HAProxy: requests, CPU, long bodies.
//!
//! Each stands on a host of its own: a namespace joined to its client's by a veth link, of which one core serves all
//! that the host does, the taking in of packets included. They are loaded in turns. `--full` takes more and longer rounds;
//! `--only NAME` leaves the others out, but for the host with nothing in front.
#![expect(
    clippy::print_stderr,
    reason = "the figures go to standard output, the rest to standard error"
)]

mod contenders;
mod drops;
mod load;
mod rounds;
mod transfer;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tokenblock_tests::{
    bench::{arguments::Arguments, cores, load_average, write_tokens},
    gate,
};

use crate::{contenders::Kind, rounds::Rounds};

/// Entries of the list.
const ENTRIES: usize = 1_000_000;

/// What all hosts share.
pub(crate) struct Bench {
    /// In memory where there is a place for that: bodies are long.
    pub(crate) folder: TempDir,
    /// The product.
    pub(crate) binary: PathBuf,
}

/// How much is measured.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    /// How often each host is loaded; the middle one counts.
    pub(crate) rounds: usize,
    /// How often the long bodies are sent.
    pub(crate) transfers: usize,
    /// How long each load lasts.
    pub(crate) load: Duration,
    pub(crate) kinds: Vec<Kind>,
}

impl Extent {
    /// Less than three minutes.
    fn quick() -> Self {
        Self {
            rounds: 9,
            transfers: 3,
            load: Duration::from_secs(1),
            kinds: Kind::ALL.to_vec(),
        }
    }

    fn full() -> Self {
        Self {
            rounds: 25,
            transfers: 9,
            load: Duration::from_secs(2),
            ..Self::quick()
        }
    }

    fn of(arguments: &Arguments) -> Self {
        let mut extent = arguments.extent(Self::quick, Self::full);
        let taken = |kind: &Kind| *kind == Kind::None || arguments.takes(kind.name());
        extent.kinds.retain(taken);
        extent
    }
}

fn main() -> Result<()> {
    let Some(arguments) = Arguments::read(&["--full", "--only"])? else {
        return Ok(());
    };
    let extent = Extent::of(&arguments);
    let binary = gate::product("the host bench").context("start it by `cargo xtask bench host`")?;
    cores::allow_files()?;
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_none| tempfile::tempdir());
    let bench = Bench {
        folder: folder.context("making a folder")?,
        binary,
    };
    eprintln!("load average before: {}", load_average());
    write_tokens(&bench.folder.path().join("tokens.txt"), ENTRIES)?;
    let rounds = Rounds::start(&bench, &extent)?;
    rounds.requests()?;
    rounds.transfers()?;
    rounds.check()?;
    drop(rounds);
    if extent.kinds.contains(&Kind::Ours) {
        drops::measure(&bench)?;
    }
    eprintln!("load average afterwards: {}", load_average());
    Ok(())
}
