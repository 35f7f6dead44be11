//! Whether this machine can run the floors that need root.

use std::{env, fmt, io::Write as _, path::PathBuf};

use tokenblock::kernel::object::{self, Variant};

/// Names the built product.
pub const BINARY_VARIABLE: &str = "TOKENBLOCK_BIN";

/// Why a test can't run.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Missing {
    Root,
    Bpf,
    Binary,
    Object,
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
