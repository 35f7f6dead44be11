//! The distribution's packages (Debian, Ubuntu).

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::exec;

/// Installs packages, through sudo where not root, and says so.
///
/// # Errors
/// Where there is no apt-get, no privilege, or a package can't be had.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let wanted = packages.join(" ");
    println!("installing the packages {wanted}");
    let install = || -> Result<()> {
        exec::run(apt_get().args(["-qq", "update"]))?;
        exec::run(
            apt_get()
                .args(["-qq", "-y", "--no-install-recommends", "install"])
                .args(packages),
        )
    };
    install().with_context(|| format!("please install {wanted}, then start the task again"))
}

fn apt_get() -> Command {
    let mut command = exec::as_root("env");
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    command
}
