//! Who runs on which core, and what a process has taken.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    param::clock_ticks_per_second,
    process::{
        Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setpriority_process, setrlimit,
    },
    thread::{CpuSet, gettid, sched_setaffinity},
};

use crate::netns::Netns;

/// What is measured has this one to itself.
pub const MEASURED: &str = "1";
/// The origin.
pub const ORIGIN: &str = "0";
/// The load generator.
pub const LOAD: &str = "2,3";

/// As nice(1) counts.
const NICE: i32 = -15;
/// In real time, the first of 99 ranks.
const RANK: &str = "1";

/// What others get of it at a time.
const OTHERS: Duration = Duration::from_millis(50);

static IN_REAL_TIME: AtomicBool = AtomicBool::new(false);

/// Has what is started from now on go before all else that the machine does (`SCHED_FIFO`), on a machine that has much else
/// to do: the fair scheduler lets others finish their milliseconds, whatever is said to be nice.
pub fn run_in_real_time() {
    IN_REAL_TIME.store(true, Ordering::Relaxed);
}

/// Lets the others have their part: the kernel takes it where they were given nothing for a second.
pub fn let_others() {
    if IN_REAL_TIME.load(Ordering::Relaxed) {
        thread::sleep(OTHERS);
    }
}

/// `program` in a namespace, on these cores, and before what else the machine does.
#[must_use]
pub fn pinned(netns: &Netns, cores: &str, program: impl AsRef<Path>) -> Command {
    let mut command = netns.command("taskset");
    command
        .args(["--cpu-list", cores, "nice"])
        .arg(format!("--adjustment={NICE}"));
    if IN_REAL_TIME.load(Ordering::Relaxed) {
        command.args(["chrt", "--fifo", RANK]);
    }
    command.arg(program.as_ref()).stdin(Stdio::null());
    command
}

/// Has the calling thread run on this core, and before what else the machine does, as [`pinned`] has a program.
///
/// # Errors
/// Where the system refuses.
pub fn take(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).with_context(|| format!("running on core {core}"))?;
    if IN_REAL_TIME.load(Ordering::Relaxed) {
        let thread = gettid().to_string();
        let mut command = Command::new("chrt");
        let status = command.args(["--fifo", "--pid", RANK, &thread]).status();
        ensure!(status?.success(), "no place before others");
    }
    setpriority_process(Some(gettid()), NICE).context("going before others")
}

/// Lets this process, and what it starts, open as many files as the system allows.
///
/// # Errors
/// Where the system refuses.
pub fn allow_files() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).context("raising the limit of open files")
}

/// A process of ours, with its children; killed when dropped.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts it; what it says goes nowhere.
    ///
    /// # Errors
    /// Where it can't be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn().context("starting a program")?))
    }

    /// Starts it; what it says goes to a file.
    ///
    /// # Errors
    /// Where the file can't be written, or it can't be started.
    pub fn logging(command: &mut Command, log: &Path) -> Result<Self> {
        let log = fs::File::create(log)?;
        let command = command.stdout(log.try_clone()?).stderr(log);
        Ok(Self(command.spawn().context("starting a program")?))
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn check(&mut self) -> Result<()> {
        let ended = self.0.try_wait()?;
        ensure!(ended.is_none(), "it ended at start: {ended:?}");
        Ok(())
    }

    /// Sends the signal `kill` calls so.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn signal(&self, name: &str) -> Result<()> {
        let id = self.0.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status()?;
        ensure!(status.success(), "no signal {name} to {id}");
        Ok(())
    }

    /// User and system time so far.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn cpu(&self) -> Result<Duration> {
        Ok(time(self.family()?.iter().map(|id| ticks(*id)).sum()))
    }

    /// Bytes of memory; what is shared counts once.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn memory(&self) -> Result<u64> {
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

/// What a core's kernel thread for incoming packets has taken: work that no process is charged with.
///
/// # Errors
/// Where there is no such thread.
pub fn interrupts(core: &str) -> Result<Duration> {
    let name = format!("ksoftirqd/{core}");
    let ids = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut named = ids.filter(|id| {
        let comm = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
        comm.trim() == name
    });
    let id = named.next().and_then(|id| id.parse().ok());
    Ok(time(ticks(id.with_context(|| format!("no {name}"))?)))
}

fn time(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1000 / clock_ticks_per_second())
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
