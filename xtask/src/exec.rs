//! Starting other programs, with errors that name the command.

use std::{
    ffi::{OsStr, OsString},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// Runs the command to its end, its output going to the terminal.
///
/// # Errors
/// Where it can't be started or ends with a failure.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("could not start `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", line(command));
    }
    Ok(())
}

/// Runs the command to its end and gives its standard output.
///
/// # Errors
/// Where it can't be started, ends with a failure (whose standard error is in the message) or its output
/// is not UTF-8.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("could not start `{}`", line(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{}` failed: {}: {}",
            line(command),
            output.status,
            stderr.trim()
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("output of `{}`", line(command)))
}

/// The command as it would be typed.
pub(crate) fn line(command: &Command) -> String {
    let words: Vec<_> = [command.get_program()]
        .into_iter()
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect();
    words.join(" ")
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A command that runs as root: through sudo, the environment kept, where this process isn't.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg("-E").arg(program);
    command
}

/// Whether [`as_root`] works without a question to the user.
pub(crate) fn can_be_root() -> bool {
    is_root()
        || Command::new("sudo")
            .args(["-n", "true"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
}

/// Lets cargo start what it has built through sudo, where this process isn't root.
pub(crate) fn run_built_as_root(cargo: &mut Command) -> &mut Command {
    if is_root() {
        return cargo;
    }
    cargo.env(
        format!(
            "CARGO_TARGET_{}_UNKNOWN_LINUX_GNU_RUNNER",
            std::env::consts::ARCH.to_uppercase()
        ),
        "sudo -E",
    )
}

/// Whether a program is on the path.
pub(crate) fn is_on_path(program: &str) -> bool {
    // Debian's administration programs are not on every user's path, but sudo finds them.
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(OsString::from(program)).is_file())
}
