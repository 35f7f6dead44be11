//! The BPF toolchain: a `core` for the BPF target, and the linker. Brings what is missing.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{exec, packages, workspace};

/// The compilation target of the kernel programs.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// Forces one way, `rustup` or `debian`.
const WAY: &str = "TOKENBLOCK_BPF_TOOLCHAIN";

/// The newest linker that loads the compiler's own LLVM; later ones need LLVM's development packages.
const LINKER_VERSION: &str = "0.10.4";

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_PACKAGES: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];

/// Where the `core` of the BPF target comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CoreLibrary {
    /// Built from the pinned toolchain's `rust-src`.
    Source,
    /// Prebuilt, with the compiler that it belongs to, from the distribution's packages.
    Debian,
}

/// What it takes to build the kernel programs.
#[derive(Debug)]
pub(crate) struct Toolchain {
    core: CoreLibrary,
    linker: PathBuf,
}

impl Toolchain {
    /// Finds the toolchain, bringing what is missing, and says in one line which it is.
    ///
    /// # Errors
    /// Where neither rustup nor the distribution's packages can bring it.
    pub(crate) fn ensure() -> Result<Self> {
        let core = ensure_core()?;
        let linker = ensure_linker()?;
        let origin = match core {
            CoreLibrary::Source => "core built from the pinned toolchain's rust-src",
            CoreLibrary::Debian => "rustc and core from the distribution's packages",
        };
        println!("BPF toolchain: {origin}; linked by {}", linker.display());
        Ok(Self { core, linker })
    }

    /// A cargo command (`build`, `clippy`) for the BPF target, with this toolchain's environment.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut cargo = Command::new(workspace::cargo());
        cargo
            .current_dir(workspace::root())
            .arg(subcommand)
            .args(["--target", TARGET])
            .arg("--target-dir")
            .arg(workspace::target().join("bpf"))
            // Both ways use features that a stable compiler hides; this child alone may.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", self.rustflags())
            // Cut up for incremental builds, the programs are inlined otherwise, and too long for the verifier.
            .env("CARGO_INCREMENTAL", "0")
            .env_remove("RUSTC_WRAPPER")
            .env_remove("RUSTC_WORKSPACE_WRAPPER");
        match self.core {
            CoreLibrary::Source => cargo.args(["-Z", "build-std=core"]).env_remove("RUSTC"),
            CoreLibrary::Debian => cargo.env("RUSTC", DEBIAN_RUSTC),
        };
        cargo
    }

    /// Whether `clippy` can be run with [`Toolchain::cargo`].
    pub(crate) fn has_clippy(&self) -> bool {
        self.core == CoreLibrary::Source
    }

    /// Compiler flags, separated as `CARGO_ENCODED_RUSTFLAGS` wants them.
    fn rustflags(&self) -> String {
        let linker = format!("linker={}", self.linker.display());
        let arch = format!("bpf_target_arch=\"{}\"", env::consts::ARCH);
        let flags = [
            // Function info in BTF, without which the kernel refuses callbacks.
            ["-C", "debuginfo=2"],
            ["-C", "link-arg=--btf"],
            ["-C", linker.as_str()],
            ["-C", "target-cpu=v3"],
            // An unaligned load is then one instruction in place of a load per byte.
            ["-C", "target-feature=+allows-misaligned-mem-access"],
            // aya-ebpf's register layouts: a program runs on the architecture that builds it.
            ["--cfg", arch.as_str()],
        ];
        flags.as_flattened().join("\x1f")
    }
}

fn ensure_core() -> Result<CoreLibrary> {
    match env::var(WAY).ok().as_deref() {
        Some("rustup") => ensure_source().map(|()| CoreLibrary::Source),
        Some("debian") => ensure_debian().map(|()| CoreLibrary::Debian),
        Some(other) => bail!("{WAY} is `{other}`; it takes `rustup` or `debian`"),
        None => {
            let Err(source) = ensure_source() else {
                return Ok(CoreLibrary::Source);
            };
            println!("BPF toolchain: not through rustup ({source:#}); trying the distribution's");
            ensure_debian().with_context(|| {
                format!(
                    "no BPF toolchain. Through rustup: {source:#}. What would do: `rustup component \
                     add rust-src`, or the packages {}",
                    DEBIAN_PACKAGES.join(" and ")
                )
            })?;
            Ok(CoreLibrary::Debian)
        }
    }
}

fn ensure_source() -> Result<()> {
    if has_source()? {
        return Ok(());
    }
    exec::run(
        Command::new("rustup")
            .args(["component", "add", "rust-src"])
            .current_dir(workspace::root()),
    )?;
    if !has_source()? {
        bail!("rustup added rust-src, but not to the toolchain in use");
    }
    Ok(())
}

fn has_source() -> Result<bool> {
    let sysroot = sysroot(Path::new("rustc"))?;
    Ok(sysroot.join("lib/rustlib/src/rust/library/core").is_dir())
}

fn ensure_debian() -> Result<()> {
    if has_debian() {
        return Ok(());
    }
    packages::install(&DEBIAN_PACKAGES)?;
    if !has_debian() {
        bail!("the packages are installed, but {DEBIAN_RUSTC} has no core for {TARGET}");
    }
    Ok(())
}

fn has_debian() -> bool {
    sysroot(Path::new(DEBIAN_RUSTC)).is_ok_and(|sysroot| {
        sysroot
            .join("lib/rustlib")
            .join(TARGET)
            .join("lib")
            .is_dir()
    })
}

fn sysroot(rustc: &Path) -> Result<PathBuf> {
    let printed = exec::output(
        Command::new(rustc)
            .args(["--print", "sysroot"])
            .current_dir(workspace::root()),
    )?;
    Ok(PathBuf::from(printed.trim()))
}

fn ensure_linker() -> Result<PathBuf> {
    let tools = workspace::target().join("tools");
    let own = tools.join("bin/bpf-linker");
    if let Some(linker) = [own.clone(), PathBuf::from("bpf-linker")]
        .into_iter()
        .find(|linker| is_fitting_linker(linker))
    {
        return Ok(linker);
    }
    println!("building bpf-linker {LINKER_VERSION} (once, about a minute)");
    exec::run(
        Command::new(workspace::cargo())
            .current_dir(workspace::root())
            .args(["install", "bpf-linker", "--locked", "--quiet"])
            .args(["--version", LINKER_VERSION, "--root"])
            .arg(&tools)
            // An installation of its own, whatever this task was told to build into.
            .env_remove("CARGO_TARGET_DIR"),
    )
    .context("bpf-linker could not be built; it needs a C++ compiler and the crates registry")?;
    Ok(own)
}

fn is_fitting_linker(linker: &Path) -> bool {
    exec::output(Command::new(linker).arg("--version"))
        .is_ok_and(|version| version.trim().ends_with(LINKER_VERSION))
}
