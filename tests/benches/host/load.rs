//! Requests of about 1.1 kB on 64 kept-alive connections, as many as the host takes.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tokenblock_tests::bench::{cores, request, wrk};

use crate::contenders::{CLIENTS, Contender};

const CONNECTIONS: u32 = 64;

/// What came of one load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) requests_per_second: f64,
    /// Of the host, in microseconds.
    pub(crate) cpu_per_request: f64,
}

/// Loads a host for so long, with the same request over and over or with those of a script.
///
/// # Errors
/// Where not every answer is a 200.
pub(crate) fn run(
    contender: &Contender,
    lasting: Duration,
    script: Option<&Path>,
) -> Result<Outcome> {
    let before = contender.cpu()?;
    let mut wrk = cores::pinned(&contender.pair.client, CLIENTS, "wrk");
    if let Some(script) = script {
        wrk.arg("--script").arg(script);
    }
    let answers = wrk::run(
        wrk,
        CONNECTIONS,
        lasting,
        &request::headers(&request::opaque("clean")),
        &contender.url(request::TARGET),
    )
    .with_context(|| format!("load on {}", contender.kind.name()))?;
    ensure!(
        answers.refused < 0.5,
        "{}: {} requests were refused",
        contender.kind.name(),
        answers.refused
    );
    let spent = contender.cpu()?.saturating_sub(before);
    Ok(Outcome {
        requests_per_second: answers.per_second,
        cpu_per_request: spent.as_secs_f64() * 1e6 / answers.count,
    })
}
