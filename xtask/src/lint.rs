//! `cargo xtask lint`: what a reviewer should not have to say.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::{build, deploy, exec, toolchain::Toolchain, workspace};

/// Runs every check; the first that fails ends it.
///
/// # Errors
/// Where a check fails or can't be run.
pub(crate) fn task() -> Result<()> {
    ensure_component("rustfmt", "fmt")?;
    ensure_component("clippy", "clippy")?;
    step("formatting", cargo("fmt").args(["--all", "--check"]))?;
    step(
        "lints",
        cargo("clippy").args(["--workspace", "--all-targets", "--", "--deny", "warnings"]),
    )?;
    programs()?;
    step(
        "documentation",
        cargo("doc")
            .args(["--workspace", "--no-deps", "--document-private-items"])
            .env("RUSTDOCFLAGS", "--deny warnings"),
    )?;
    println!("==> deployment files");
    deploy::check()
}

/// The kernel programs, compiled as they run, are linted apart: for the host they are empty.
fn programs() -> Result<()> {
    let toolchain = Toolchain::ensure()?;
    if !toolchain.has_clippy() {
        println!(
            "skipped: lints of the kernel programs: the distribution's compiler has no clippy"
        );
        return Ok(());
    }
    for programs in build::Programs::ALL {
        step(
            "lints of the kernel programs",
            toolchain
                .cargo("clippy")
                .arg("--release")
                .args(programs.arguments())
                .args(["--", "--deny", "warnings"]),
        )?;
    }
    Ok(())
}

fn step(what: &str, command: &mut Command) -> Result<()> {
    println!("==> {what}");
    exec::run(command).with_context(|| what.to_owned())
}

fn cargo(subcommand: &str) -> Command {
    let mut cargo = Command::new(workspace::cargo());
    cargo.current_dir(workspace::root()).arg(subcommand);
    cargo
}

/// A toolchain that was there before the checkout may lack a component.
fn ensure_component(component: &str, subcommand: &str) -> Result<()> {
    let has_it = cargo(subcommand)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if has_it {
        return Ok(());
    }
    exec::run(
        Command::new("rustup")
            .args(["component", "add", component])
            .current_dir(workspace::root()),
    )
    .with_context(|| format!("the toolchain has no {component}; please add it"))
}
