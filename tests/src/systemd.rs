//! A systemd of the tests' own, as the first process of its namespaces; gone with all that it runs when dropped.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

use crate::{netns::Netns, poll};

/// How long it may take to start.
const START: Duration = Duration::from_mins(1);
/// Units of the distribution that touch what namespaces don't part, or that nobody needs.
const MASKED: [&str; 24] = [
    "dbus.service",
    "dbus.socket",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "modprobe@.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-binfmt.service",
    "systemd-journald-audit.socket",
    "systemd-logind.service",
    "systemd-modules-load.service",
    "systemd-networkd.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-resolved.service",
    "systemd-sysctl.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udevd.service",
];

/// Files that are laid over those of this host, for a systemd that is still to start.
#[derive(Debug)]
pub struct Files(TempDir);

/// A running systemd.
#[derive(Debug)]
pub struct Systemd {
    child: Child,
    /// Its first process, as this host counts.
    pid: String,
    folder: TempDir,
}

impl Files {
    /// None but what keeps a systemd away from what is not its own.
    ///
    /// # Errors
    /// Where they can't be written.
    pub fn new() -> Result<Self> {
        let files = Self(tempfile::tempdir()?);
        for unit in MASKED {
            symlink("/dev/null", files.at("etc/systemd/system", unit)?)?;
        }
        Ok(files)
    }

    /// Where the file `name` of `folder` is to be written.
    fn at(&self, folder: &str, name: &str) -> Result<PathBuf> {
        let folder = self.0.path().join("files").join(folder);
        fs::create_dir_all(&folder)?;
        Ok(folder.join(name))
    }

    /// Writes a file; `folder` is given from the root, without its slash.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn write(&self, folder: &str, name: &str, bytes: &[u8]) -> Result<()> {
        fs::write(self.at(folder, name)?, bytes).with_context(|| format!("{folder}/{name}"))
    }

    /// Copies a file.
    ///
    /// # Errors
    /// Where it can't be copied.
    pub fn copy(&self, folder: &str, name: &str, from: &Path) -> Result<()> {
        let to = self.at(folder, name)?;
        fs::copy(from, to).with_context(|| from.display().to_string())?;
        Ok(())
    }

    /// Starts a systemd over them, in `netns`, and waits until it has come up.
    ///
    /// # Errors
    /// Where it does not; with what it said.
    pub fn boot(self, netns: &Netns) -> Result<Systemd> {
        let folder = self.0;
        for name in ["over", "cgroups"] {
            fs::create_dir(folder.path().join(name))?;
        }
        let cgroups = folder.path().join("cgroups");
        mount("cgroup2", &cgroups, "cgroup2", MountFlags::empty(), None)
            .context("mounting the control groups")?;
        fs::create_dir(own_cgroup(folder.path()))?;
        // Into its own control group first, which is the root of those that it sees.
        let enter = "echo $$ >\"$1/cgroup.procs\" && shift && exec \"$@\"";
        let mut command = netns.command("sh");
        command.args(["-c", enter, "sh"]);
        command.arg(own_cgroup(folder.path()));
        command.args(["unshare", "--pid", "--fork", "--kill-child", "--mount"]);
        command.args(["--cgroup", "--uts", "--ipc", "sh"]);
        command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/systemd.sh"))
            .arg(folder.path());
        let log = fs::File::create(folder.path().join("log"))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting systemd")?;
        let mut systemd = Systemd {
            child,
            pid: String::new(),
            folder,
        };
        let pid = systemd.folder.path().join("pid");
        let started = poll::until(START, || fs::read_to_string(&pid).ok());
        started
            .unwrap_or_default()
            .trim()
            .clone_into(&mut systemd.pid);
        let is_up = || {
            let up = systemd.command("systemctl", &["is-active", "basic.target"]);
            up.ok().filter(|output| output.status.success())
        };
        if systemd.pid.is_empty() || poll::until(START, is_up).is_none() {
            let log = fs::read_to_string(systemd.folder.path().join("log"));
            bail!("systemd does not come up: {}", log.unwrap_or_default());
        }
        Ok(systemd)
    }
}

/// The control group of a systemd that lies in `folder`.
fn own_cgroup(folder: &Path) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let name = format!("tokenblock-{}", name.trim_start_matches('.'));
    folder.join("cgroups").join(name)
}

impl Systemd {
    fn command(&self, program: &str, args: &[&str]) -> Result<Output> {
        Ok(Command::new("nsenter")
            .args(["--target", &self.pid, "--all", "--", program])
            .args(args)
            .stdin(Stdio::null())
            .output()?)
    }

    /// Runs a program beside it; gives what that printed.
    ///
    /// # Errors
    /// Where it fails, with what it said.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        let output = self.command(program, args)?;
        if !output.status.success() {
            bail!(
                "{program} {args:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// A property of a unit.
    ///
    /// # Errors
    /// Where there is no such unit.
    pub fn property(&self, unit: &str, name: &str) -> Result<String> {
        self.run("systemctl", &["show", "--value", "--property", name, unit])
    }

    /// What a unit has said.
    #[must_use]
    pub fn journal(&self, unit: &str) -> String {
        let args = ["--no-pager", "--output=cat", "--unit", unit];
        self.run("journalctl", &args).unwrap_or_default()
    }

    /// Writes a file where its units see it.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        fs::write(format!("/proc/{}/root{path}", self.pid), text).with_context(|| path.to_owned())
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        // What can't be undone here has gone already.
        drop(self.child.kill());
        drop(self.child.wait());
        let own = own_cgroup(self.folder.path());
        let gone = || remove(&own).is_ok().then_some(());
        let _gone_or_late = poll::until(START, gone);
        let cgroups = self.folder.path().join("cgroups");
        let _unmounted = unmount(cgroups, UnmountFlags::DETACH);
    }
}

/// Removes a control group and those in it.
fn remove(cgroup: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}
