//! Development tasks of tokenblock: `cargo xtask --help`.
//!
//! One file a task. `toolchain` and `packages` bring what a task needs, `exec` starts other programs.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a task talks to the terminal that started it"
)]

mod bench;
mod build;
mod deploy;
mod exec;
mod lint;
mod packages;
mod python;
mod run;
mod targets;
mod test;
mod toolchain;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Development tasks of tokenblock",
    long_about = "Development tasks of tokenblock. Each brings the tools that it needs."
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the kernel programs and the `tokenblock` binary.
    Build(build::Args),
    /// Build and start `tokenblock run`; without arguments, show what it does on real traffic.
    Run(run::Args),
    /// Run the tests.
    Test(test::Args),
    /// Check formatting, lints, documentation and the deployment files.
    Lint,
    /// Measure.
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Build(args) => build::task(&args),
        Task::Run(args) => run::task(&args),
        Task::Test(args) => test::task(&args),
        Task::Lint => lint::task(),
        Task::Bench(args) => bench::task(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
