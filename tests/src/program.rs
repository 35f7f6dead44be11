//! Programs of others in a namespace: servers that run until they are dropped.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::{netns::Netns, poll};

const START: Duration = Duration::from_secs(30);

/// A running program; killed when dropped, with all that it has started.
#[derive(Debug)]
pub struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Runs `command` and waits until it takes connections at `address` in `netns`; what it says goes to a file in
    /// `folder`.
    ///
    /// # Errors
    /// Where it can't be started, or takes none in time; with what it said.
    pub fn serve(
        command: &mut Command,
        folder: &Path,
        netns: &Netns,
        address: SocketAddr,
    ) -> Result<Self> {
        let log = folder.join(format!("program-{}.log", address.port()));
        let file = File::create(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        let program = Self { child, log };
        let connects = || {
            let stream = netns.enter(|| TcpStream::connect(address).ok());
            stream.ok().flatten()
        };
        poll::until(START, connects)
            .with_context(|| format!("{command:?} is not there: {}", program.log()))?;
        Ok(program)
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it said so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail where it has ended already. Alone it would leave its own behind: a server its workers, `timeout` the program.
        let group = Pid::from_child(&self.child);
        let _ended = kill_process_group(group, Signal::KILL);
        drop(self.child.wait());
    }
}

/// A script of `tests/programs` in a namespace; it ends after five minutes in any case.
#[must_use]
pub fn script(netns: &Netns, interpreter: &Path, name: &str) -> Command {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
    let mut command = netns.command("timeout");
    command.arg("300").arg(interpreter).arg(folder.join(name));
    command
}
