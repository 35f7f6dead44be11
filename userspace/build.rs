//! Puts the kernel programs where `kernel::object` includes them from.

use std::{env, error::Error, fs, path::Path};

/// Set by `cargo xtask` once it has built the programs.
const OBJECT_VARIABLE: &str = "TOKENBLOCK_BPF_OBJECT";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={OBJECT_VARIABLE}");
    let included = Path::new(&env::var("OUT_DIR")?).join("programs");
    match env::var(OBJECT_VARIABLE) {
        Ok(object) => {
            println!("cargo::rerun-if-changed={object}");
            fs::copy(&object, &included)
                .map_err(|error| format!("{OBJECT_VARIABLE}: {object}: {error}"))?;
        }
        // A check or a unit test on a machine without the BPF toolchain.
        Err(_) => fs::write(&included, [])?,
    }
    Ok(())
}
