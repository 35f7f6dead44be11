//! The demonstration of `cargo xtask run`: the product's main job on real traffic, on this machine.
//!
//! A [`Pair`] of namespaces, an [`Origin`] in one, the [`Product`] before it, and [`request`]s by curl from
//! the other; [`report`] says what came of them.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it talks to the terminal that started it"
)]

mod report;
mod request;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use report::Row;
use request::Site;
use rustix::process::Signal;
use signal_hook::consts::{SIGINT, SIGTERM};
use tokenblock_tests::{
    certificate::Certificate,
    fixtures::Token,
    gate::BINARY_VARIABLE,
    netns::{INTERFACE, Pair, SERVER_V4},
    origin::Origin,
    product::Product,
};

/// Where the origin listens.
const ORIGIN_PORT: u16 = 80;
/// Where the proxy tier listens.
const TLS_PORT: u16 = 443;
/// How long the product may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

const INTRODUCTION: &str = "
A server in a network namespace of its own, a client in another, a cable between them. A token has
leaked; its owner puts it on the denylist and starts, on the server's side:
";

fn main() -> ExitCode {
    match watch_for_interrupts().and_then(|interrupted| demonstrate(&interrupted)) {
        Ok(()) => {
            println!("\nall as promised; nothing is left behind");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// An interrupt is looked at between two steps, so that everything is taken down.
fn watch_for_interrupts() -> Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    Ok(interrupted)
}

fn demonstrate(interrupted: &AtomicBool) -> Result<()> {
    let binary = env::var_os(BINARY_VARIABLE)
        .map(PathBuf::from)
        .with_context(|| format!("{BINARY_VARIABLE} names no binary; use `cargo xtask run`"))?;
    let folder = tempfile::tempdir()?;
    let pair = Pair::new().context("making the network; that takes root and `ip`")?;
    let origin = Origin::start(&pair.server, ORIGIN_PORT)?;
    let certificate = Certificate::new(folder.path(), "demo")?;
    fs::write(folder.path().join("leaked.txt"), Token::Wallarm.text())?;
    let arguments = arguments(folder.path());
    println!("{INTRODUCTION}\n{}\n", shown(&arguments, folder.path()));
    let mut product = Product::start(&binary, &pair.server, &arguments)?;

    let site = Site {
        client: &pair.client,
        certificate: &certificate,
    };
    let mut rows = Vec::new();
    for (number, request) in request::all().into_iter().enumerate() {
        if interrupted.load(Ordering::Relaxed) {
            bail!("interrupted; everything is taken down");
        }
        let row = Row::of(number, request, &site)?;
        row.print();
        rows.push(row);
    }
    product.signal(Signal::TERM)?;
    let end = product.wait(PATIENCE)?;
    let seen = origin.wait_for_requests(0, Duration::ZERO);
    report::print_end(&seen, &product.lines());
    report::check(&rows, &seen, &end)
}

/// What the product is told.
fn arguments(folder: &Path) -> Vec<String> {
    let folder = folder.display();
    [
        "run".to_owned(),
        format!("--denylist={folder}/leaked.txt"),
        "--cookie=test".to_owned(),
        format!("--interface={INTERFACE}"),
        format!("--port={ORIGIN_PORT}"),
        format!("--proxy-listen={SERVER_V4}:{TLS_PORT}"),
        format!("--tls-cert={folder}/demo.crt"),
        format!("--tls-key={folder}/demo.key"),
        format!("--upstream=http://127.0.0.1:{ORIGIN_PORT}"),
        format!("--state-dir={folder}/state"),
    ]
    .into()
}

/// The command as somebody inside the folder would type it.
fn shown(arguments: &[String], folder: &Path) -> String {
    let folder = format!("{}/", folder.display());
    let command = format!("$ tokenblock {}", arguments.join(" \\\n    "));
    command.replace(&folder, "")
}
