//! What a request waits while a long list is read again: the proxy's percentile, against that without a reload.

use std::{
    fs,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tokenblock_tests::{
    bench::{median, percentile},
    client::TlsClient,
    poll,
};

use crate::{
    Bench, MILLION, figure,
    ours::{Ours, tls},
    tokens,
};

const CLIENTS: usize = 4;
const RELOADS: usize = 5;
/// Before each reload, without one; about as long as it takes.
const QUIET: Duration = Duration::from_secs(1);
/// Of each client, before anything counts.
const WARM: usize = 100;

/// Waits in milliseconds, without and with a reload under way.
type Waits = [Vec<f64>; 2];

pub(crate) fn measure(bench: &Bench) -> Result<()> {
    let ours = Ours(bench);
    let list = bench.folder.path().join("list");
    let version = |n: usize| bench.folder.path().join(format!("version-{n}"));
    tokens::write(&list, MILLION, tokens::opaque)?;
    for n in 0..RELOADS {
        // Half of it is in the one before, too.
        tokens::write_from(&version(n), (n + 1) * MILLION / 2, MILLION, tokens::opaque)?;
    }
    let product = ours.start(&["--denylist", &list.to_string_lossy()])?;
    let (reloading, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let waits = Mutex::new(Waits::default());
    let mut took = Vec::new();
    thread::scope(|scope| -> Result<()> {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| send(&ours, &reloading, &done, &waits)))
            .collect();
        let reloads = (0..RELOADS).try_for_each(|n| {
            let newest = tokens::opaque((n + 1) * MILLION / 2 + MILLION - 1);
            reloading.store(false, Relaxed);
            // To ask whether it is in force is work too, so it is asked all the time.
            let quiet = poll::until(QUIET, || ours.refuses(&newest).then_some(()));
            ensure!(quiet.is_none(), "a token is refused that is not listed yet");
            reloading.store(true, Relaxed);
            fs::rename(version(n), &list)?;
            let began = Instant::now();
            ours.until_refused(&newest)?;
            took.push(began.elapsed().as_secs_f64());
            Ok(())
        });
        done.store(true, Relaxed);
        for client in clients {
            client.join().ok().context("a client panicked")??;
        }
        reloads
    })?;
    drop(product);
    let waits = waits.into_inner().unwrap_or_else(PoisonError::into_inner);
    let [quiet, during] = waits.map(|mut waits| percentile(&mut waits, 99));
    figure("reload_1m_s", median(took), "s");
    figure("quiet_1m_p99_ms", quiet, "ms");
    figure("reload_1m_p99_ms", during, "ms");
    figure("reload_1m_p99_ratio", during / quiet, "");
    Ok(())
}

/// Sends clean requests over one connection until it is done.
fn send(
    ours: &Ours<'_>,
    reloading: &AtomicBool,
    done: &AtomicBool,
    waits: &Mutex<Waits>,
) -> Result<()> {
    let mut client = TlsClient::connect(&ours.0.pair.client, tls(), &ours.0.certificate)?;
    let request =
        "GET / HTTP/1.1\r\nHost: origin.test\r\nAuthorization: Bearer not-listed-at-all\r\n\r\n";
    let mut own = Waits::default();
    for n in 0.. {
        if done.load(Relaxed) {
            break;
        }
        let at = usize::from(reloading.load(Relaxed));
        let began = Instant::now();
        let answer = client.exchange(request.as_bytes(), Duration::from_secs(5))?;
        ensure!(answer.status() == Some(200), "{answer:?}");
        if n >= WARM {
            own[at].push(began.elapsed().as_secs_f64() * 1e3);
        }
    }
    let mut all = waits.lock().unwrap_or_else(PoisonError::into_inner);
    for (all, own) in all.iter_mut().zip(own) {
        all.extend(own);
    }
    Ok(())
}
