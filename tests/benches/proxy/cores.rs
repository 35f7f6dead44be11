//! Who runs on which core, and what a process has taken.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    param::clock_ticks_per_second,
    process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit},
};
use tokenblock_tests::netns::Netns;

/// The proxy that is measured has this one to itself.
pub(crate) const PROXY: &str = "1";
/// The origin.
pub(crate) const ORIGIN: &str = "0";
/// The load generator.
pub(crate) const LOAD: &str = "2,3";

/// `program` in a namespace, on these cores, and before what else the machine does.
pub(crate) fn pinned(netns: &Netns, cores: &str, program: impl AsRef<Path>) -> Command {
    let mut command = netns.command("taskset");
    command
        .args(["--cpu-list", cores, "nice", "--adjustment=-15"])
        .arg(program.as_ref())
        .stdin(Stdio::null());
    command
}

/// Lets this process, and what it starts, open as many files as the system allows.
pub(crate) fn allow_files() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).context("raising the limit of open files")
}

/// A process of ours, with its children; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    /// Starts it; what it says goes nowhere.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn().context("starting a program")?))
    }

    /// Starts it; what it says goes to a file.
    pub(crate) fn logging(command: &mut Command, log: &Path) -> Result<Self> {
        let log = fs::File::create(log)?;
        let command = command.stdout(log.try_clone()?).stderr(log);
        Ok(Self(command.spawn().context("starting a program")?))
    }

    /// Fails where it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        let ended = self.0.try_wait()?;
        ensure!(ended.is_none(), "it ended at start: {ended:?}");
        Ok(())
    }

    /// Sends the signal `kill` calls so.
    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        let id = self.0.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status()?;
        ensure!(status.success(), "no signal {name} to {id}");
        Ok(())
    }

    /// User and system time so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let ticks: u64 = self.family()?.iter().map(|id| ticks(*id)).sum();
        let hertz = clock_ticks_per_second();
        Ok(Duration::from_millis(ticks * 1000 / hertz))
    }

    /// Bytes of memory; what is shared counts once.
    pub(crate) fn memory(&self) -> Result<u64> {
        Ok(self.family()?.iter().map(|id| proportional(*id)).sum())
    }

    /// It and its children.
    fn family(&self) -> Result<Vec<u32>> {
        let id = self.0.id();
        let path = format!("/proc/{id}/task/{id}/children");
        let children = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let children = children.split_whitespace().filter_map(|id| id.parse().ok());
        Ok(std::iter::once(id).chain(children).collect())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        for id in self.family().unwrap_or_default() {
            if let Some(id) = i32::try_from(id).ok().and_then(Pid::from_raw) {
                // It may have ended already.
                let _ended = kill_process(id, Signal::KILL).is_err();
            }
        }
        drop(self.0.wait());
    }
}

/// `utime` and `stime` of a process; 0 where it is gone.
fn ticks(id: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The name before may hold anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let times = fields.split_whitespace().skip(11).take(2);
    times.filter_map(|time| time.parse::<u64>().ok()).sum()
}

/// Proportional set size of a process; 0 where it is gone.
fn proportional(id: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
