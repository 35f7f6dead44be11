//! `cargo xtask test`: the floors of tests, each with what it needs.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, bail};
use cargo_metadata::TargetKind;
use clap::ValueEnum;

use crate::{
    build::{BINARY_VARIABLE, Built, OBJECT_VARIABLE, Profile},
    exec,
    packages::{
        self, CHROMIUM, CURL, FAKETIME, GCORE, HEY, IP, NGINX, NODE, OPENSSL, SYSTEMD, WGET,
    },
    python, targets, workspace,
};

/// Targets of the whole-host package that are not of the host floor.
const KERNEL_TARGET: &str = "kernel";
const CORE_TARGET: &str = "core";

/// Arguments of the task.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The floor.
    #[arg(value_enum, default_value = "all")]
    floor: Floor,
    /// Arguments of the test programs, for instance a part of a test's name.
    #[arg(last = true)]
    args: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Floor {
    /// Property and unit tests; no privilege, no BPF toolchain.
    Unit,
    /// The kernel programs on single packets, by `BPF_PROG_TEST_RUN`; needs root.
    Kernel,
    /// Whole processes, real sockets, real origins; needs root.
    Host,
    /// All of them; those that need root are skipped, with a word, where there is none.
    All,
}

/// Runs the tests.
///
/// # Errors
/// Where something can't be brought or built, or a test fails.
pub(crate) fn task(args: &Args) -> Result<()> {
    match args.floor {
        Floor::Unit => unit(&args.args),
        Floor::Kernel => {
            require_root()?;
            Privileged::new(&args.args)?.kernel()
        }
        Floor::Host => {
            require_root()?;
            Privileged::new(&args.args)?.host()
        }
        Floor::All => all(&args.args),
    }
}

fn all(args: &[String]) -> Result<()> {
    unit(args)?;
    if let Err(error) = require_root() {
        println!("skipped: {error}");
        return Ok(());
    }
    let privileged = Privileged::new(args)?;
    privileged.kernel()?;
    privileged.host()
}

fn require_root() -> Result<()> {
    if !exec::can_be_root() {
        bail!(
            "the kernel and host tests load BPF programs and make network namespaces; that takes \
             root, or sudo without a password"
        );
    }
    Ok(())
}

fn unit(args: &[String]) -> Result<()> {
    // The proxy's own tests have a real client.
    packages::ensure(&[CURL])?;
    println!("==> unit tests");
    let mut cargo = cargo_test();
    for package in ["tokenblock-ebpf", "tokenblock", "xtask"] {
        cargo.args(["--package", package]);
    }
    exec::run(cargo.arg("--").args(args)).context("unit tests")?;
    if !targets::names(&TargetKind::Test)?.contains(&CORE_TARGET.to_owned()) {
        return Ok(());
    }
    let mut cargo = cargo_test();
    cargo.args([
        "--package",
        targets::PACKAGE,
        "--lib",
        "--test",
        CORE_TARGET,
    ]);
    exec::run(cargo.arg("--").args(args)).context("unit tests of the whole request")
}

/// The floors that need root and the built product.
struct Privileged<'a> {
    built: Built,
    targets: Vec<String>,
    args: &'a [String],
}

impl<'a> Privileged<'a> {
    fn new(args: &'a [String]) -> Result<Self> {
        Ok(Self {
            built: Built::new(Profile::Dev)?,
            targets: targets::names(&TargetKind::Test)?,
            args,
        })
    }

    fn kernel(&self) -> Result<()> {
        self.run("kernel", None, |target| target == KERNEL_TARGET)
    }

    fn host(&self) -> Result<()> {
        packages::ensure(&[
            IP, CURL, FAKETIME, GCORE, NGINX, NODE, OPENSSL, SYSTEMD, WGET, HEY,
        ])?;
        // Ubuntu has no such package.
        packages::offer(CHROMIUM);
        let python = python::ensure()?;
        self.run("host", Some(&python), |target| {
            ![KERNEL_TARGET, CORE_TARGET].contains(&target)
        })
    }

    fn run(
        &self,
        floor: &str,
        python: Option<&Path>,
        belongs: impl Fn(&str) -> bool,
    ) -> Result<()> {
        println!("==> {floor} tests");
        let targets: Vec<_> = self.targets.iter().filter(|name| belongs(name)).collect();
        if targets.is_empty() {
            bail!("the package {} has no {floor} tests", targets::PACKAGE);
        }
        let mut cargo = cargo_test();
        cargo.args(["--package", targets::PACKAGE]);
        for target in targets {
            cargo.args(["--test", target]);
        }
        if let Some(python) = python {
            cargo.env(python::VARIABLE, python);
        }
        cargo
            .env(OBJECT_VARIABLE, &self.built.object)
            .env(BINARY_VARIABLE, &self.built.binary)
            .arg("--")
            .args(self.args);
        exec::run(exec::run_built_as_root(&mut cargo)).with_context(|| format!("{floor} tests"))
    }
}

fn cargo_test() -> Command {
    let mut cargo = Command::new(workspace::cargo());
    cargo.current_dir(workspace::root()).arg("test");
    cargo
}
