//! A Python with packages of the Python Package Index, for the clients and servers of the tests.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    exec,
    packages::{self, PYTHON},
    workspace,
};

/// Tells the tests where it lies.
pub(crate) const VARIABLE: &str = "TOKENBLOCK_TEST_PYTHON";
/// What is installed there, from the root of the checkout.
const REQUIREMENTS: &str = "tests/programs/requirements.txt";

/// Makes it, unless it is there with all that is asked for; gives the interpreter.
///
/// # Errors
/// Where Python or a package can't be had.
pub(crate) fn ensure() -> Result<PathBuf> {
    packages::ensure(&[PYTHON])?;
    let folder = workspace::target().join("tools/python");
    let python = folder.join("bin/python3");
    let path = workspace::root().join(REQUIREMENTS);
    let wanted = fs::read_to_string(&path).with_context(|| format!("reading {REQUIREMENTS}"))?;
    let stamp = folder.join("requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    println!("installing {REQUIREMENTS}");
    let make = || {
        exec::run(
            Command::new("python3")
                .args(["-m", "venv", "--clear"])
                .arg(&folder),
        )
    };
    if make().is_err() {
        // Debian ships this part of Python apart.
        packages::install(&["python3-venv"])?;
        make()?;
    }
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--requirement",
    ];
    exec::run(Command::new(&python).args(pip).arg(&path)).context("installing from PyPI")?;
    fs::write(&stamp, wanted).context("noting what is installed")?;
    Ok(python)
}
