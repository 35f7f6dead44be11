//! The hosts that are compared: the same nginx, and what stands before it.

use std::{net::SocketAddr, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use tokenblock_tests::{
    bench::{
        LISTED,
        cores::{self, Process},
        haproxy, nginx, token,
    },
    netns::{INTERFACE, Pair, SERVER_V4},
    poll,
    product::Product,
};

use crate::Bench;

/// Where nginx listens.
const ORIGIN: u16 = 8080;
/// Where HAProxy does.
const HAPROXY: u16 = 8081;
/// The longest start, with a million entries.
pub(crate) const START: Duration = Duration::from_mins(1);
/// The cores of the clients: all but [`cores::MEASURED`].
pub(crate) const CLIENTS: &str = "0,2,3";
/// The same as bits.
const CLIENTS_MASK: &str = "d";
const MEASURED_MASK: &str = "2";

/// What stands before nginx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    None,
    Iptables1,
    Iptables100,
    Haproxy,
    Ours,
}

impl Kind {
    /// What the others are compared with comes first, ours last.
    pub(crate) const ALL: [Self; 5] = [
        Self::None,
        Self::Iptables1,
        Self::Iptables100,
        Self::Haproxy,
        Self::Ours,
    ];

    /// How figures call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Iptables1 => "iptables_1",
            Self::Iptables100 => "iptables_100",
            Self::Haproxy => "haproxy",
            Self::Ours => "tokenblock",
        }
    }

    /// Where its clients connect to.
    fn port(self) -> u16 {
        if self == Self::Haproxy {
            HAPROXY
        } else {
            ORIGIN
        }
    }
}

/// A host that was started; what ends first stands first.
pub(crate) struct Contender {
    pub(crate) kind: Kind,
    product: Option<Product>,
    processes: Vec<Process>,
    pub(crate) pair: Pair,
}

impl Contender {
    /// Starts a host, and waits until it answers.
    pub(crate) fn start(bench: &Bench, kind: Kind) -> Result<Self> {
        let pair = Pair::new()?;
        pair.server.receive_on(INTERFACE, MEASURED_MASK)?;
        pair.client.receive_on(INTERFACE, CLIENTS_MASK)?;
        let mut contender = Self {
            kind,
            product: None,
            processes: Vec::new(),
            pair,
        };
        contender.run("nginx", "-c", origin(bench, kind)?)?;
        let list = bench.folder.path().join("tokens.txt");
        match kind {
            Kind::None => {}
            Kind::Iptables1 => contender.filter(1)?,
            Kind::Iptables100 => contender.filter(100)?,
            Kind::Haproxy => {
                let file = haproxy::cleartext(bench.folder.path(), HAPROXY, &list, ORIGIN)?;
                contender.run("haproxy", "-f", file)?;
            }
            Kind::Ours => contender.product = Some(contender.protect(bench, list)?),
        }
        let clean = token(0);
        poll::until(START, || {
            (contender.status(&clean) == Some(200)).then_some(())
        })
        .context("nginx does not answer")?;
        Ok(contender)
    }

    /// Sees that the listed token is refused, but where nothing stands in front. What is refused may leave traces, so
    /// this comes after what is measured.
    pub(crate) fn check(&self) -> Result<()> {
        let refused = self.status(LISTED) != Some(200);
        ensure!(
            refused == (self.kind != Kind::None),
            "{}: a listed token is refused: {refused}",
            self.kind.name()
        );
        Ok(())
    }

    /// Where its clients ask for `target`.
    pub(crate) fn url(&self, target: &str) -> String {
        format!(
            "http://{}{target}",
            SocketAddr::new(SERVER_V4, self.kind.port())
        )
    }

    /// CPU that the host has taken: its programs, and what came in.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let programs = self.processes.iter().map(Process::cpu);
        programs
            .sum::<Result<Duration>>()?
            .checked_add(cores::interrupts(cores::MEASURED)?)
            .context("centuries")
    }

    /// A program on the host's core.
    fn run(&mut self, program: &str, flag: &str, config: PathBuf) -> Result<()> {
        let mut command = cores::pinned(&self.pair.server, cores::MEASURED, program);
        if program == "haproxy" {
            command.args(["-db", "-q"]);
        }
        let process = Process::start(command.arg(flag).arg(config))?;
        self.processes.push(process);
        Ok(())
    }

    /// So many rules, a token each; the listed one is the last.
    fn filter(&self, rules: usize) -> Result<()> {
        for rule in 1..=rules {
            let wanted = if rule == rules {
                LISTED.to_owned()
            } else {
                token(rule)
            };
            let mut command = self.pair.server.command("iptables");
            command
                .args(["-A", "INPUT", "-p", "tcp", "--dport", &ORIGIN.to_string()])
                .args(["-m", "string", "--algo", "bm", "--string", &wanted])
                .args(["-j", "DROP"]);
            said(&mut command)?;
        }
        Ok(())
    }

    fn protect(&self, bench: &Bench, list: PathBuf) -> Result<Product> {
        let port = ORIGIN.to_string();
        let arguments = ["run", "--interface", INTERFACE, "--port", &port];
        let mut arguments: Vec<_> = arguments.iter().map(Into::into).collect();
        arguments.extend(["--denylist".into(), list.into_os_string()]);
        arguments.extend([
            "--state-dir".into(),
            bench.folder.path().join("state").into(),
        ]);
        Product::start(&bench.binary, &self.pair.server, &arguments)
    }

    /// The status of a request with this token, where one comes.
    fn status(&self, token: &str) -> Option<u16> {
        let mut curl = self.pair.client.command("curl");
        curl.args(["-s", "-m", "2", "-o", "/dev/null", "--noproxy", "*"])
            .args(["-w", "%{http_code}"])
            .args(["-H", &format!("Authorization: Bearer {token}")])
            .arg(self.url("/"));
        String::from_utf8(curl.output().ok()?.stdout)
            .ok()?
            .parse()
            .ok()
    }
}

fn origin(bench: &Bench, kind: Kind) -> Result<PathBuf> {
    let folder = bench.folder.path();
    let more = format!(
        "lingering_time 10m;\n\
         location /download {{ sendfile on; alias {}; }}\n",
        folder.join("body").display()
    );
    let http = nginx::origin(&format!("0.0.0.0:{ORIGIN}"), &more);
    nginx::config(folder, kind.name(), &http)
}

/// Runs a command to its end.
fn said(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
