//! Puts the kernel programs where `kernel::object` includes them from.

use std::{env, error::Error, fs, path::Path};

/// Set by `cargo xtask` once it has built the programs.
const OBJECT_VARIABLE: &str = "TOKENBLOCK_BPF_OBJECT";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={OBJECT_VARIABLE}");
    let folder = env::var("OUT_DIR")?;
    for variant in ["", "-sha256"] {
        let included = Path::new(&folder).join(format!("programs{variant}"));
        let Ok(object) = env::var(OBJECT_VARIABLE) else {
            // A check or a unit test on a machine without the BPF toolchain.
            fs::write(&included, [])?;
            continue;
        };
        let object = format!("{object}{variant}");
        println!("cargo::rerun-if-changed={object}");
        fs::copy(&object, &included)
            .map_err(|error| format!("{OBJECT_VARIABLE}: {object}: {error}"))?;
    }
    Ok(())
}
