//! Load, by the generators that others use too: wrk for HTTP/1.1, h2load for HTTP/2.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tokenblock_tests::bench::{
    LISTED,
    cores::{self, Process},
    percentile,
    wrk::{self, Answers},
};

use crate::Bench;

/// A token that is on none.
const CLEAN: &str = "clean-token-0123456789abcdefghijklmnopqrs";

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// How figures call it.
    pub(crate) name: &'static str,
    pub(crate) http2: bool,
    pub(crate) connections: u32,
    /// Requests at a time on one connection.
    pub(crate) streams: u32,
    /// Whether each request bears a listed token.
    pub(crate) listed: bool,
}

/// All that is measured.
pub(crate) const LOADS: [Load; 5] = [
    h1("h1_clean", 64, false),
    h1("h1_refused", 64, true),
    h1("h1_low", 2, false),
    h2("h2_clean", false),
    h2("h2_refused", true),
];

const fn h1(name: &'static str, connections: u32, listed: bool) -> Load {
    Load {
        name,
        http2: false,
        connections,
        streams: 1,
        listed,
    }
}

const fn h2(name: &'static str, listed: bool) -> Load {
    Load {
        name,
        http2: true,
        connections: 8,
        streams: 8,
        listed,
    }
}

/// What came of one load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) requests_per_second: f64,
    /// Of the proxy, in microseconds.
    pub(crate) cpu_per_request: f64,
    /// In microseconds.
    pub(crate) p50: f64,
    /// In microseconds.
    pub(crate) p99: f64,
}

impl Load {
    /// Loads the proxy on `port`.
    ///
    /// # Errors
    /// Where not every answer is the one that is due.
    pub(crate) fn run(
        &self,
        bench: &Bench,
        proxy: &Process,
        port: u16,
        lasting: Duration,
    ) -> Result<Outcome> {
        let before = proxy.cpu()?;
        let answers = if self.http2 {
            self.h2load(bench, port, lasting)
        } else {
            self.wrk(bench, port, lasting)
        }
        .with_context(|| format!("{} to port {port}", self.name))?;
        let due = if self.listed { answers.count } else { 0.0 };
        ensure!(
            (answers.refused - due).abs() < 0.5,
            "{} of {} requests to port {port} were refused",
            answers.refused,
            answers.count
        );
        let spent = proxy.cpu()?.saturating_sub(before);
        Ok(Outcome {
            requests_per_second: answers.per_second,
            cpu_per_request: spent.as_secs_f64() * 1e6 / answers.count,
            p50: answers.p50,
            p99: answers.p99,
        })
    }

    /// Whether it is sent at fixed rates too.
    pub(crate) fn is_paced(&self) -> bool {
        self.connections * self.streams >= 64
    }

    /// The header line that bears the token.
    pub(crate) fn authorization(&self) -> String {
        let token = if self.listed { LISTED } else { CLEAN };
        format!("Authorization: Bearer {token}")
    }

    fn wrk(&self, bench: &Bench, port: u16, lasting: Duration) -> Result<Answers> {
        wrk::run(
            cores::pinned(&bench.netns, cores::LOAD, "wrk"),
            self.connections,
            lasting,
            &[self.authorization()],
            &format!("https://127.0.0.1:{port}/"),
        )
    }

    fn h2load(&self, bench: &Bench, port: u16, lasting: Duration) -> Result<Answers> {
        // Not beside the list: ours watches that folder, and would be woken at each write.
        let folder = bench.folder.path().join("load");
        fs::create_dir_all(&folder)?;
        let log = folder.join("h2load.log");
        if log.exists() {
            // h2load adds to it.
            fs::remove_file(&log)?;
        }
        let output = cores::pinned(&bench.netns, cores::LOAD, "h2load")
            .args(["--threads", "2", "--clients", &self.connections.to_string()])
            .args(["--max-concurrent-streams", &self.streams.to_string()])
            .args(["--duration", &lasting.as_secs().max(1).to_string()])
            .args(["--header", &self.authorization()])
            .arg(format!("--log-file={}", log.display()))
            .arg(format!("https://127.0.0.1:{port}/"))
            .output()
            .context("starting h2load")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let answers = self.read_h2load(&fs::read_to_string(&log)?, lasting);
        answers.with_context(|| format!("{text}{}", String::from_utf8_lossy(&output.stderr)))
    }

    /// One line a request: when it began, its status, how long it took in microseconds.
    fn read_h2load(&self, log: &str, lasting: Duration) -> Result<Answers> {
        let due = if self.listed { "403" } else { "200" };
        let mut times = Vec::new();
        for line in log.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let [_, status, took] = fields[..] else {
                continue;
            };
            ensure!(status == due, "status {status}");
            times.push(took.parse::<f64>()?);
        }
        ensure!(!times.is_empty(), "no requests");
        #[expect(clippy::cast_precision_loss, reason = "some hundred thousand")]
        let count = times.len() as f64;
        Ok(Answers {
            count,
            refused: if self.listed { count } else { 0.0 },
            per_second: count / lasting.as_secs_f64(),
            p50: percentile(&mut times, 50),
            p99: percentile(&mut times, 99),
        })
    }
}
