//! Whether this machine can run the whole-host floor.

use std::{env, fmt, io::Write as _, path::PathBuf};

/// Names the built product.
pub const BINARY_VARIABLE: &str = "TOKENBLOCK_BIN";

/// Why a test of the host floor can't run.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Missing {
    Root,
    Binary,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("it makes network namespaces, which takes root"),
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

/// Not by `eprintln!`: the test runner keeps that to itself where a test passes.
fn say_skipped(test: &str, missing: &Missing) {
    let line = format!("skipped: {test}: {missing}\n");
    // Nobody to tell that nobody can be told.
    drop(std::io::stderr().write_all(line.as_bytes()));
}
