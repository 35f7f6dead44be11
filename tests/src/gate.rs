//! Whether this machine can run the floors that need root.

use std::{env, fmt, io::Write as _, path::PathBuf};

use tokenblock::kernel::object::{self, Variant};

/// Names the built product.
pub const BINARY_VARIABLE: &str = "TOKENBLOCK_BIN";

/// Names a Python that has what the scripts need.
pub const PYTHON_VARIABLE: &str = "TOKENBLOCK_TEST_PYTHON";

/// Why a test can't run.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Missing {
    Root,
    Bpf,
    Binary,
    Object,
    Program(&'static str),
    Python,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("it makes network namespaces, which takes root"),
            Self::Bpf => f.write_str("it loads BPF programs, which takes root"),
            Self::Object => write!(
                f,
                "built without the kernel programs; `cargo xtask test kernel` builds them"
            ),
            Self::Program(name) => {
                write!(f, "there is no {name}; `cargo xtask test host` brings it")
            }
            Self::Python => write!(
                f,
                "{PYTHON_VARIABLE} names no Python; `cargo xtask test host` makes one"
            ),
            Self::Binary => {
                write!(
                    f,
                    "{BINARY_VARIABLE} names no binary; `cargo xtask test host` builds one"
                )
            }
        }
    }
}

/// The product to test, or `None` after a line that says that `test` is skipped and why.
#[must_use]
pub fn product(test: &str) -> Option<PathBuf> {
    let found = if rustix::process::geteuid().is_root() {
        env::var_os(BINARY_VARIABLE)
            .map(PathBuf::from)
            .ok_or(Missing::Binary)
    } else {
        Err(Missing::Root)
    };
    found.inspect_err(|missing| say_skipped(test, missing)).ok()
}

/// A Python with the packages of `programs/requirements.txt`, or `None` after a line that says that `test` is skipped.
#[must_use]
pub fn python(test: &str) -> Option<PathBuf> {
    let found = env::var_os(PYTHON_VARIABLE)
        .map(PathBuf::from)
        .ok_or(Missing::Python);
    found.inspect_err(|missing| say_skipped(test, missing)).ok()
}

/// A program of the distribution, or `None` after a line that says that `test` is skipped.
#[must_use]
pub fn program(test: &str, name: &'static str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into()]);
    let found = folders
        .map(|folder| folder.join(name))
        .find(|p| p.is_file());
    if found.is_none() {
        say_skipped(test, &Missing::Program(name));
    }
    found
}

/// Whether namespaces can be made; says that `test` is skipped where they can't.
#[must_use]
pub fn namespaces(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        say_skipped(test, &Missing::Root);
    }
    root
}

/// Whether the kernel programs can be loaded; says that `test` is skipped where they can't.
#[must_use]
pub fn programs(test: &str) -> bool {
    let missing = if !rustix::process::geteuid().is_root() {
        Missing::Bpf
    } else if object::programs(Variant::Keyed).is_err() {
        Missing::Object
    } else {
        return true;
    };
    say_skipped(test, &missing);
    false
}

/// Not by `eprintln!`: the test runner keeps that to itself where a test passes.
fn say_skipped(test: &str, missing: &Missing) {
    let line = format!("skipped: {test}: {missing}\n");
    // Nobody to tell that nobody can be told.
    drop(std::io::stderr().write_all(line.as_bytes()));
}
