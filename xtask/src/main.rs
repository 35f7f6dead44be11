//! Development tasks of tokenblock: `cargo xtask --help`.
//!
//! One file a task; [`toolchain`] and [`tools`] bring what a task needs, [`exec`] runs it.
#![expect(
    clippy::print_stdout,
    reason = "a task talks to the terminal that started it"
)]

mod build;
mod exec;
mod packages;
mod toolchain;
mod workspace;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Development tasks of tokenblock",
    version
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the kernel programs and the `tokenblock` binary.
    Build(build::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().task {
        Task::Build(args) => build::task(&args),
    }
}
