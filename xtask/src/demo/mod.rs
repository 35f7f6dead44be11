//! The demonstration: the product's main job on real traffic, on this machine.
//!
//! `lab` (two network namespaces) <- `origin` (a web server) <- `product` (`tokenblock run` before it)
//! <- `request` (curl) -> `report`.

mod lab;
mod origin;
mod product;
mod report;
mod request;

use std::{ffi::OsString, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use lab::Lab;
use origin::Origin;
use product::{Files, Product};
use report::Row;

/// Where the origin listens.
const ORIGIN_PORT: u16 = 80;

/// Where the proxy tier listens.
const TLS_PORT: u16 = 443;

/// Arguments of the demonstration.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The `tokenblock` binary.
    #[arg(long)]
    binary: PathBuf,
}

impl Args {
    /// Demonstrates this binary.
    pub(crate) fn new(binary: PathBuf) -> Self {
        Self { binary }
    }

    /// How another process of this program is told the same.
    pub(crate) fn command_line(self) -> [OsString; 3] {
        ["demo".into(), "--binary".into(), self.binary.into()]
    }
}

/// Runs the demonstration as root; nothing of it is left, however it ends.
///
/// # Errors
/// Where it can't be set up, is interrupted, or a request does not get what was promised.
pub(crate) fn task(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            outcome = demonstrate(args) => outcome,
            // Dropping what was set up takes it down.
            _ = interrupt.recv() => bail!("interrupted; everything is taken down"),
            _ = terminate.recv() => bail!("terminated; everything is taken down"),
        }
    })?;
    println!("\nall as promised; nothing is left behind");
    Ok(())
}

async fn demonstrate(args: &Args) -> Result<()> {
    let lab = Lab::new().context("making the demonstration's network")?;
    let origin = Origin::start(lab.server(), ORIGIN_PORT).context("starting the origin server")?;
    let files = Files::new().context("writing the denylist and the certificate")?;
    println!("{INTRODUCTION}");
    println!("$ {}\n", product::command_line());
    let product = Product::start(&args.binary, &lab, &files).await?;

    let mut rows = Vec::new();
    for (number, request) in request::all().into_iter().enumerate() {
        let row = Row::of(number, request, &lab, &files).await?;
        row.print();
        rows.push(row);
    }
    let seen = origin.seen();
    let log = product.stop().await?;
    report::print_end(&seen, &log);
    report::check(&rows, &seen, &log)
}

const INTRODUCTION: &str = "
A server in a network namespace of its own, a client in another, a cable between them. A token has
leaked; its owner puts it on the denylist and starts, on the server's side:
";
