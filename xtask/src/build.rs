//! `cargo xtask build`: the kernel programs, then the binary that carries them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    exec,
    toolchain::{self, Toolchain},
    workspace,
};

/// Tells `userspace/build.rs` and the tests where the kernel programs lie; those that digest by SHA-256 lie beside
/// them.
pub(crate) const OBJECT_VARIABLE: &str = "TOKENBLOCK_BPF_OBJECT";

/// Tells the tests and benches which `tokenblock` to start.
pub(crate) const BINARY_VARIABLE: &str = "TOKENBLOCK_BIN";

/// Package and binary target of the kernel programs.
const PROGRAMS: [&str; 4] = [
    "--package",
    "tokenblock-ebpf",
    "--bin",
    "tokenblock-programs",
];

/// The kernel programs, which are built twice: for entries of tokens, and for those known by their SHA-256 alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Programs {
    /// They look up keyed digests.
    Keyed,
    /// They look up SHA-256.
    Sha256,
}

impl Programs {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Keyed, Self::Sha256];

    /// What is built, as cargo's arguments.
    pub(crate) fn arguments(self) -> impl Iterator<Item = &'static str> {
        let features = match self {
            Self::Keyed => "programs",
            Self::Sha256 => "programs,sha256",
        };
        PROGRAMS.into_iter().chain(["--features", features])
    }

    fn object(self) -> &'static str {
        match self {
            Self::Keyed => "tokenblock-programs",
            Self::Sha256 => "tokenblock-programs-sha256",
        }
    }
}

/// Arguments of the task.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build the binary as it is shipped (the kernel programs always are).
    #[arg(long)]
    release: bool,
}

/// Builds and says where the binary lies.
///
/// # Errors
/// Where the toolchain can't be had or the code doesn't build.
pub(crate) fn task(args: &Args) -> Result<()> {
    let profile = if args.release {
        Profile::Release
    } else {
        Profile::Dev
    };
    let built = Built::new(profile)?;
    println!("built {}", built.binary.display());
    Ok(())
}

/// Cargo's profile of the host's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// `target/debug`.
    Dev,
    /// `target/release`.
    Release,
}

/// What a build has made.
#[derive(Debug)]
pub(crate) struct Built {
    /// The object that holds the kernel programs.
    pub(crate) object: PathBuf,
    /// The `tokenblock` binary, with the object inside.
    pub(crate) binary: PathBuf,
}

impl Built {
    /// Builds both sides; what is up to date stays.
    ///
    /// # Errors
    /// Where the toolchain can't be had or the code doesn't build.
    pub(crate) fn new(profile: Profile) -> Result<Self> {
        let object = programs()?;
        let mut cargo = Command::new(workspace::cargo());
        cargo
            .current_dir(workspace::root())
            .args(["build", "--package", "tokenblock"])
            .env(OBJECT_VARIABLE, &object);
        let folder = match profile {
            Profile::Dev => "debug",
            Profile::Release => {
                cargo.arg("--release");
                "release"
            }
        };
        exec::run(&mut cargo).context("building the tokenblock binary")?;
        let binary = workspace::target().join(folder).join("tokenblock");
        Ok(Self { object, binary })
    }
}

/// Builds the kernel programs; gives the path of the object for entries of tokens, beside which the other lies.
///
/// # Errors
/// Where the toolchain can't be had or the programs don't build.
pub(crate) fn programs() -> Result<PathBuf> {
    let toolchain = Toolchain::ensure()?;
    let folder = workspace::target().join("bpf");
    let linked = folder
        .join(toolchain::TARGET)
        .join("release/tokenblock-programs");
    for programs in Programs::ALL {
        exec::run(
            toolchain
                .cargo("build")
                .arg("--release")
                .args(programs.arguments()),
        )
        .context("building the kernel programs")?;
        copy_if_changed(&linked, &folder.join(programs.object()))?;
    }
    Ok(folder.join(Programs::Keyed.object()))
}

/// An unchanged object keeps its time stamp, so that nothing that includes it is built again.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    fs::write(to, new).with_context(|| format!("writing {}", to.display()))
}
