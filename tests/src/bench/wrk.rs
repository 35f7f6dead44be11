//! wrk, the load generator for HTTP/1.1: started, and its report read.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};

/// Requests that are alike but for this header, of which each connection gets one after the other.
const SCRIPT: &str = r#"
local requests, at = {}, 0
function init(args)
  for n = 1, 4096 do
    wrk.headers["X-Request-Id"] = string.format("6f1f9cf0-6f6c-4b1a-9d1b-%012d", n)
    requests[n] = wrk.format()
  end
end
function request()
  at = at % #requests + 1
  return requests[at]
end
"#;

/// Writes a script by which each request has an `X-Request-Id` of its own, for `--script`.
///
/// # Errors
/// Where it can't be written.
pub fn write_script(file: &Path) -> Result<()> {
    fs::write(file, SCRIPT).context("writing a script for wrk")
}

/// What it reports.
#[derive(Clone, Copy, Debug)]
pub struct Answers {
    /// Requests that were answered.
    pub count: f64,
    /// Those of them with a status other than 2xx and 3xx.
    pub refused: f64,
    /// Requests per second.
    pub per_second: f64,
    /// In microseconds.
    pub p50: f64,
    /// In microseconds.
    pub p99: f64,
}

/// Runs `command` (wrk, where and as it is to run) with two threads for so long, in whole seconds.
///
/// # Errors
/// Where it can't be started, a connection fails, or its report can't be read; with what it said.
pub fn run(
    mut command: Command,
    connections: u32,
    lasting: Duration,
    headers: &[String],
    url: &str,
) -> Result<Answers> {
    command
        .args(["--threads", "2", "--latency"])
        .args(["--connections", &connections.to_string()])
        .args(["--duration", &format!("{}s", lasting.as_secs().max(1))]);
    for header in headers {
        command.args(["--header", header]);
    }
    let output = command.arg(url).output().context("starting wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    read(&text).with_context(|| format!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

fn read(text: &str) -> Result<Answers> {
    let after = |label: &str| {
        let line = text.lines().find_map(|l| l.trim().strip_prefix(label));
        line.map(str::trim).with_context(|| format!("no `{label}`"))
    };
    let requests = text.lines().find(|line| line.contains("requests in"));
    let requests = requests.and_then(|line| line.split_whitespace().next());
    ensure!(!text.contains("Socket errors"), "connections failed");
    Ok(Answers {
        count: requests.context("no requests")?.parse()?,
        refused: after("Non-2xx or 3xx responses:").map_or(Ok(0.0), str::parse)?,
        per_second: after("Requests/sec:")?.parse()?,
        p50: microseconds(after("50%")?)?,
        p99: microseconds(after("99%")?)?,
    })
}

/// wrk's way to write a time.
fn microseconds(text: &str) -> Result<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6)];
    let parsed = units
        .iter()
        .find_map(|(unit, factor)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * factor));
    parsed.with_context(|| format!("`{text}` is no time"))
}
