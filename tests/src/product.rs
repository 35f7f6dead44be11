//! The product under test: the real binary, its log, its end.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, Read},
    net::SocketAddr,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{netns::Netns, poll};

/// How long a start may take: the programs are verified by the kernel meanwhile.
const START: Duration = Duration::from_mins(1);
/// How long a running one may take to say something.
const ANSWER: Duration = Duration::from_secs(30);
/// Settings of the surrounding shell must not reach the product.
const PREFIXES: [&str; 2] = ["TOKENBLOCK_", "APIFW_"];

/// A running `tokenblock`; killed when dropped.
#[derive(Debug)]
pub struct Product {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Product {
    /// Starts `binary` with `args` in a namespace and waits for nothing.
    ///
    /// # Errors
    /// Where it can't be started.
    pub fn spawn<A: AsRef<OsStr>>(binary: &Path, netns: &Netns, args: &[A]) -> Result<Self> {
        Self::spawn_with(binary, netns, args, |_| {})
    }

    /// As [`Product::spawn`], with something done to the command before.
    ///
    /// # Errors
    /// Where it can't be started.
    pub fn spawn_with<A: AsRef<OsStr>>(
        binary: &Path,
        netns: &Netns,
        args: &[A],
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let mut command = netns.command(binary);
        prepare(&mut command);
        for (name, _) in std::env::vars_os() {
            if PREFIXES
                .iter()
                .any(|prefix| name.to_string_lossy().starts_with(prefix))
            {
                command.env_remove(name);
            }
        }
        let mut child = command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting the product")?;
        let log = Arc::new(Mutex::new(Vec::new()));
        collect(child.stdout.take(), &log);
        collect(child.stderr.take(), &log);
        Ok(Self { child, log })
    }

    /// Starts it and waits until it says that the configured tiers are in force.
    ///
    /// # Errors
    /// Where it ends, or doesn't say so in time; with its log.
    pub fn start<A: AsRef<OsStr>>(binary: &Path, netns: &Netns, args: &[A]) -> Result<Self> {
        let mut product = Self::spawn(binary, netns, args)?;
        let ready = poll::until(START, || {
            let ended = product.child.try_wait().ok().flatten().is_some();
            (ended || product.says("in force")).then_some(!ended)
        });
        match ready {
            Some(true) => Ok(product),
            Some(false) => bail!("the product ended at start:\n{}", product.log()),
            None => bail!("the product is not in force:\n{}", product.log()),
        }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.lines().join("\n")
    }

    /// The lines of its log so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether a line of its log has `words`.
    #[must_use]
    pub fn says(&self, words: &str) -> bool {
        self.lines().iter().any(|line| line.contains(words))
    }

    /// Waits for a line of its log with `words`.
    ///
    /// # Errors
    /// Where none comes within `limit`; with the log.
    pub fn wait_for(&self, words: &str, limit: Duration) -> Result<()> {
        poll::until(limit, || self.says(words).then_some(()))
            .ok_or_else(|| anyhow!("no line with {words:?} in:\n{}", self.log()))
    }

    /// The events it reported so far: the JSON lines that name a tier and a location.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.lines()
            .iter()
            .filter_map(|line| Event::parse(line))
            .collect()
    }

    /// Waits until so many events are reported; gives all that are.
    #[must_use]
    pub fn wait_for_all_events(&self, count: usize, limit: Duration) -> Vec<Event> {
        let reported = || Some(self.events()).filter(|events| events.len() >= count);
        poll::until(limit, reported).unwrap_or_else(|| self.events())
    }

    /// The events of a client so far.
    #[must_use]
    pub fn events_from(&self, source: SocketAddr) -> Vec<Event> {
        let source = canonical(source);
        self.events()
            .into_iter()
            .filter(|event| event.source == source)
            .collect()
    }

    /// Waits until something was reported of this client; gives all that was.
    #[must_use]
    pub fn wait_for_events(&self, source: SocketAddr, limit: Duration) -> Vec<Event> {
        let reported = || Some(self.events_from(source)).filter(|events| !events.is_empty());
        poll::until(limit, reported).unwrap_or_default()
    }

    /// A counter of the kernel tier, as the product logs it when asked.
    ///
    /// # Errors
    /// Where it does not answer, or has no such counter; with the log.
    pub fn kernel_counter(&self, name: &str) -> Result<u64> {
        let answers = || -> Vec<Value> {
            let lines = self.lines();
            let counters = lines.iter().filter_map(|line| {
                let line: Value = serde_json::from_str(line).ok()?;
                serde_json::from_str(line.get("counters")?.as_str()?).ok()
            });
            counters.collect()
        };
        let before = answers().len();
        self.signal(Signal::USR1)?;
        poll::until(ANSWER, || answers().into_iter().nth(before))
            .and_then(|counters| counters.get("kernel")?.get(name)?.as_u64())
            .with_context(|| format!("no counter {name} in:\n{}", self.log()))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// Where the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("no such process")?, signal).context("sending a signal")
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Where it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<End> {
        let status = poll::until(limit, || self.child.try_wait().ok().flatten())
            .ok_or_else(|| anyhow!("the product still runs:\n{}", self.log()))?;
        // The pipes are read to their ends by threads of their own.
        let settled = poll::until(limit, || (Arc::strong_count(&self.log) == 1).then_some(()));
        settled.context("the log has no end")?;
        Ok(End {
            status,
            log: self.log(),
        })
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// How the product ended.
#[derive(Clone, Debug)]
pub struct End {
    status: ExitStatus,
    /// All that it said.
    pub log: String,
}

impl End {
    /// The exit code; `None` where a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }
}

/// One listed token seen in one request, as the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `kernel` or `proxy`.
    pub tier: String,
    /// For instance `header authorization`.
    pub location: String,
    /// 12 hexadecimal digits of the `TokenId`.
    pub token: String,
    /// `blocked` or `alerted`.
    pub action: String,
    /// The client's end.
    pub source: SocketAddr,
}

impl Event {
    fn parse(line: &str) -> Option<Self> {
        let line: Value = serde_json::from_str(line).ok()?;
        let fields = line.get("fields").unwrap_or(&line);
        let text = |name: &str| Some(fields.get(name)?.as_str()?.to_owned());
        Some(Self {
            tier: text("tier")?,
            location: text("location")?,
            token: text("token")?,
            action: text("action").or_else(|| text("outcome"))?,
            source: canonical(text("source")?.parse().ok()?),
        })
    }
}

/// IPv4 as such, also where it came in by a socket for both families.
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Reads a pipe to its end on a thread of its own.
fn collect(pipe: Option<impl Read + Send + 'static>, log: &Arc<Mutex<Vec<String>>>) {
    let (Some(pipe), log) = (pipe, Arc::clone(log)) else {
        return;
    };
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            log.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(line);
        }
    });
}
