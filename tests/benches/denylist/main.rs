//! What a long list costs: until it is in force, to change, in memory, to look up; beside HAProxy and nginx.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the figures go to standard output, a line each, the rest to standard error"
)]
#![expect(clippy::cast_precision_loss, reason = "figures of a few digits")]

mod lookups;
mod ours;
mod peers;
mod reload;
mod tokens;

use std::{env, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tokenblock_tests::{
    bench::arguments::Arguments,
    certificate::Certificate,
    client::Client,
    gate::BINARY_VARIABLE,
    netns::{Pair, SERVER_V4},
    origin::Origin,
    poll,
};

const MILLION: usize = 1_000_000;
/// The longest wait for a list to be in force.
const LONGEST: Duration = Duration::from_mins(5);

/// What a figure has to stay below.
const LIMITS: &[(&str, f64)] = &[
    ("load_1m_s", 2.0),
    ("load_1m_jwt_s", 2.0),
    ("import_1m_s", 2.0),
    ("start_1m_s", 1.0),
    ("add_one_at_1m_ms", 1.0),
    ("add_one_hash_at_1m_ms", 1.0),
    ("bytes_per_entry_both", 130.0),
    ("bytes_per_entry_proxy", 40.0),
    ("load_10m_s", 20.0),
    ("start_10m_database_s", 10.0),
    ("bytes_per_entry_both_10m", 130.0),
    ("reload_1m_p99_ratio", 2.0),
];

/// The network, an origin, a folder.
struct Bench {
    pair: Pair,
    origin: Origin,
    certificate: Certificate,
    folder: TempDir,
    binary: PathBuf,
}

fn main() -> Result<()> {
    let known = ["--small", "--ours", "--peers", "--lookups", "--reload"];
    let Some(arguments) = Arguments::read(&known)? else {
        return Ok(());
    };
    let binary =
        env::var_os(BINARY_VARIABLE).context("start it by `cargo xtask bench denylist`")?;
    let pair = Pair::new()?;
    let folder = tempfile::tempdir()?;
    let bench = Bench {
        origin: Origin::start(&pair.server, 8080)?,
        certificate: Certificate::new(folder.path(), "server")?,
        pair,
        folder,
        binary: binary.into(),
    };
    let given = |flag| arguments.has(flag);
    let (large, some) = (
        !given("--small"),
        ["--ours", "--peers", "--lookups", "--reload"]
            .into_iter()
            .any(given),
    );
    if !some || given("--ours") {
        ours::measure(&bench, large)?;
    }
    if !some || given("--peers") {
        peers::measure(&bench)?;
    }
    if !some || given("--reload") {
        reload::measure(&bench)?;
    }
    if !some || given("--lookups") {
        lookups::measure(large)?;
    }
    Ok(())
}

impl Bench {
    /// The status of a request with this token to a port in cleartext.
    fn status(&self, port: u16, token: &str) -> Option<u16> {
        let mut client = Client::connect(&self.pair.client, (SERVER_V4, port).into()).ok()?;
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n");
        let answer = client
            .exchange(request.as_bytes(), Duration::from_secs(2))
            .ok()?;
        answer.status()
    }
}

/// Waits until a request is answered so.
fn until(what: &str, mut answers: impl FnMut() -> bool) -> Result<()> {
    poll::until(LONGEST, || answers().then_some(())).with_context(|| format!("not {what}"))
}

fn figure(name: &str, value: f64, unit: &str) {
    let limit = LIMITS.iter().find(|(known, _)| *known == name);
    let limit = limit.map_or(String::new(), |(_, limit)| {
        format!(
            "limit {limit}{}",
            if value > *limit { "  ABOVE" } else { "" }
        )
    });
    eprintln!("{name:<32} {value:>12.3} {unit:<6} {limit}");
    println!(r#"{{"name":"{name}","value":{value:.3},"unit":"{unit}"}}"#);
}

/// Bytes of memory that a process has for itself alone.
fn anonymous(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib: f64 = line
        .and_then(|line| line.split_whitespace().next())
        .context("no RssAnon")?
        .parse()?;
    Ok(kib * 1024.0)
}
