//! The proxies that are compared: how each is set up, started and given one more token.

mod haproxy;
mod nginx;
mod ours;

use std::{
    fs,
    net::TcpStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tokenblock_tests::{
    bench::{
        LISTED,
        cores::{self, Process},
    },
    certificate::Certificate,
    poll,
};

use crate::Bench;

/// Where the origin listens.
pub(crate) const ORIGIN: u16 = 8000;
/// Where a server listens that answers by itself.
pub(crate) const FLOOR: u16 = 8446;
/// The longest start, with a million entries.
const START: Duration = Duration::from_mins(1);
/// A token that is added while the proxy runs.
const ADDED: &str = "k7Qm2ZtR9vXw4LpB8sYd3HfJ6nGc1AeTqUo5Kx0W";

/// Which proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Haproxy,
    Nginx,
    Ours,
}

impl Kind {
    /// Ours comes last.
    pub(crate) const ALL: [Self; 3] = [Self::Haproxy, Self::Nginx, Self::Ours];

    /// How figures call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Ours => "tokenblock",
        }
    }

    /// Where it listens.
    pub(crate) fn port(self) -> u16 {
        match self {
            Self::Haproxy => 8443,
            Self::Nginx => 8444,
            Self::Ours => 8445,
        }
    }
}

/// A proxy that was started.
pub(crate) struct Contender {
    pub(crate) kind: Kind,
    pub(crate) process: Process,
    started: Instant,
}

impl Contender {
    /// Starts a proxy with the tokens of a file.
    pub(crate) fn start(bench: &Bench, kind: Kind, tokens: &Path) -> Result<Self> {
        let mut command = match kind {
            Kind::Haproxy => haproxy::command(bench, tokens),
            Kind::Nginx => nginx::command(bench, tokens),
            Kind::Ours => ours::command(bench, tokens, ORIGIN),
        }
        .with_context(|| format!("setting up {}", kind.name()))?;
        let started = Instant::now();
        Ok(Self {
            kind,
            process: Process::start(&mut command)?,
            started,
        })
    }

    /// Starts ours before an origin on another port, with a log.
    pub(crate) fn logging(bench: &Bench, tokens: &Path, origin: u16, log: &Path) -> Result<Self> {
        let mut command = ours::command(bench, tokens, origin)?;
        let started = Instant::now();
        Ok(Self {
            kind: Kind::Ours,
            process: Process::logging(&mut command, log)?,
            started,
        })
    }

    /// Waits until it serves, and refuses the last token where there is one; says how long that took.
    pub(crate) fn wait(&mut self, bench: &Bench, listed: bool) -> Result<Duration> {
        let (token, due) = if listed { (LISTED, 403) } else { (ADDED, 200) };
        let name = self.kind.name();
        let ready = poll::until(START, || {
            let answered = status(bench, self.kind, token) == Some(due);
            (answered || self.process.check().is_err()).then_some(answered)
        });
        ensure!(ready == Some(true), "{name} does not serve");
        Ok(self.started.elapsed())
    }

    /// Adds a token while it runs; says how long it took until it was refused.
    pub(crate) fn add(&mut self, bench: &Bench) -> Result<Duration> {
        let began = Instant::now();
        match self.kind {
            Kind::Haproxy => haproxy::add(bench, ADDED)?,
            Kind::Nginx => nginx::add(bench, &self.process, ADDED)?,
            Kind::Ours => ours::add(bench, ADDED)?,
        }
        let told = began.elapsed();
        // What is in force when the addition returns costs no more than that.
        if status(bench, self.kind, ADDED) == Some(403) {
            return Ok(told);
        }
        poll::until(START, || {
            (status(bench, self.kind, ADDED) == Some(403)).then_some(())
        })
        .with_context(|| format!("{} takes no addition", self.kind.name()))?;
        Ok(began.elapsed())
    }
}

/// The status of a request with this token.
pub(crate) fn status(bench: &Bench, kind: Kind, token: &str) -> Option<u16> {
    let port = kind.port();
    let output = bench
        .netns
        .command("curl")
        .args([
            "-sk",
            "-m",
            "2",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--noproxy",
            "*",
        ])
        .args([
            "--resolve",
            &format!("{}:{port}:127.0.0.1", Certificate::HOST),
        ])
        .args(["-H", &format!("Authorization: Bearer {token}")])
        .arg(format!("https://{}:{port}/", Certificate::HOST))
        .output()
        .ok()?;
    String::from_utf8(output.stdout).ok()?.parse().ok()
}

/// Starts the origin: 1 KiB to whoever asks.
pub(crate) fn origin(bench: &Bench) -> Result<Process> {
    let mut process = Process::start(&mut nginx::origin(bench)?)?;
    let serving = poll::until(START, || {
        let mut curl = bench.netns.command("curl");
        let output = curl
            .args(["-s", "-m", "2", "--noproxy", "*"])
            .arg(format!("http://127.0.0.1:{ORIGIN}/"))
            .output()
            .ok()?;
        (output.stdout.len() == 1024 || process.check().is_err()).then_some(())
    });
    serving.context("the origin does not serve")?;
    process.check()?;
    Ok(process)
}

/// Starts what answers by itself, where the proxies run; who loads it waits until it listens.
pub(crate) fn floor(bench: &Bench) -> Result<Process> {
    let mut process = Process::start(&mut nginx::floor(bench)?)?;
    let listening = poll::until(START, || {
        let tried = bench
            .netns
            .enter(|| TcpStream::connect(("127.0.0.1", FLOOR)));
        (matches!(tried, Ok(Ok(_))) || process.check().is_err()).then_some(())
    });
    listening.context("nobody listens for the floor")?;
    process.check()?;
    Ok(process)
}

/// Writes one of a program's own files; gives its name.
fn write(bench: &Bench, name: &str, text: &str) -> Result<String> {
    let path = bench.folder.path().join(name);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path.display().to_string())
}

/// `program` where proxies run.
fn pinned(bench: &Bench, program: impl AsRef<Path>) -> Command {
    cores::pinned(&bench.netns, cores::MEASURED, program)
}
