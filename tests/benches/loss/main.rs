//! Uploads and downloads over paths that lose and reorder, with the kernel tier and without.
//!
//! Hosts alike, each behind a relay of its own, one with the program, another with the program at its client's end; they are loaded in turns, a connection for
//! each body, so that none inherits another's window. `--full` takes more rounds, `--only` one path under one kind of
//! congestion control (`reordering_25_reno`).
#![expect(
    clippy::print_stderr,
    reason = "the figures go to standard output, the rest to standard error"
)]

mod host;
mod rounds;

use std::{fs, path::Path as FilePath, time::Duration};

use anyhow::{Context as _, Result};
use host::{BODIES, Host, Program, Way};
use rounds::{HOSTS, Round};
use tokenblock_tests::{
    bench::{arguments::Arguments, load_average},
    bodies::{Body, Framing},
    gate,
    relay::Path,
};

/// What a transfer must reach of what it does without the program.
const LIMIT: f64 = 0.90;
/// One way of frames.
const DELAY: Duration = Duration::from_millis(2);
/// The paths, by what figures call them: of a hundred frames so many are lost, so many early.
const PATHS: [(&str, u64, u64); 3] = [("loss_1", 1, 0), ("loss_5", 5, 0), ("reordering_25", 0, 25)];
/// By what connections are paced: BBR doesn't take a loss for a sign of congestion, Reno does, so it suffers from each
/// segment that comes late or twice.
const CONGESTION: [&str; 2] = ["reno", "bbr"];
/// What this kernel can pace by.
const AVAILABLE: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";
/// What is loaded.
const WAYS: [Way; 3] = [
    Way::Upload(Framing::Declared),
    Way::Upload(Framing::Chunked),
    Way::Download,
];
/// What tells how much the programs did not pass.
const COUNTERS: [&str; 7] = [
    "ahead",
    "too_early",
    "duplicate",
    "old_timestamp",
    "gap_conflict",
    "settled",
    "copied",
];

/// The hosts in turns; prints the figures of one path.
fn measure(
    binary: &FilePath,
    name: &str,
    path: Path,
    congestion: &str,
    count: usize,
) -> Result<()> {
    let folder = tempfile::tempdir().context("making a folder")?;
    let mut hosts = Vec::new();
    for called in HOSTS {
        let program = match called {
            "tokenblock" => Some(Program::AtServer),
            "egress" => Some(Program::AtClient),
            _ => None,
        };
        let folder = folder.path().join(called);
        let program = program.map(|place| (place, binary, folder.as_path()));
        hosts.push(Host::start(path, congestion, program)?);
    }
    for way in WAYS {
        let name = format!("{name}_{}", way.name());
        let mut all = Vec::new();
        for (what, body) in BODIES {
            let rounds = in_turns(&hosts, way, what, body, count)?;
            for (host, called) in HOSTS.iter().enumerate().skip(1) {
                rounds::ratio(&format!("{name}_ratio_{called}_{what}"), &rounds, host);
            }
            all.extend(rounds);
        }
        let ratio = rounds::print(&name, &all);
        if ratio < LIMIT {
            eprintln!("{name}_ratio is {ratio:.3}: BELOW {LIMIT}");
        }
    }
    for (host, called) in hosts.iter().zip(HOSTS) {
        for (counter, value) in host.counted(&COUNTERS)? {
            eprintln!("{name}, {called}: {counter} {value}");
        }
        host.refuses()?;
    }
    Ok(())
}

/// Each round begins with another host.
fn in_turns(hosts: &[Host], way: Way, what: &str, body: Body, count: usize) -> Result<Vec<Round>> {
    let mut rounds = Vec::new();
    for n in 0..count {
        let mut round = Round::default();
        for turn in 0..hosts.len() {
            let host = (n + turn) % hosts.len();
            round[host] = hosts[host].transfer(way, what, body)?;
        }
        rounds.push(round);
    }
    Ok(rounds)
}

fn main() -> Result<()> {
    let Some(arguments) = Arguments::read(&["--full", "--only"])? else {
        return Ok(());
    };
    let rounds = arguments.extent(|| 9, || 31);
    let binary = gate::product("the loss bench").context("start it by `cargo xtask bench loss`")?;
    let available = fs::read_to_string(AVAILABLE).context(AVAILABLE)?;
    eprintln!("load average before: {}", load_average());
    for congestion in CONGESTION {
        if !available
            .split_whitespace()
            .any(|known| known == congestion)
        {
            eprintln!("left out: {congestion}, which this kernel does not have");
            continue;
        }
        for (name, lost, early) in PATHS {
            let name = format!("{name}_{congestion}");
            let path = Path {
                lost,
                early,
                delay: DELAY,
            };
            if arguments.takes(&name) {
                measure(&binary, &name, path, congestion, rounds)?;
            }
        }
    }
    eprintln!("load average afterwards: {}", load_average());
    Ok(())
}
