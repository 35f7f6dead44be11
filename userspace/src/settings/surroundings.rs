//! What defaults depend on.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use crate::cli::units::Trust;

/// What defaults depend on.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Whether the process runs as root.
    pub root: bool,
    /// `XDG_STATE_HOME`.
    pub xdg_state_home: Option<PathBuf>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// The largest receive buffer that a socket of this host may have, in bytes.
    pub receive_buffer: Option<u64>,
}

impl Surroundings {
    /// Those of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let folder = |name| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        Self {
            root: rustix::process::geteuid().is_root(),
            xdg_state_home: folder("XDG_STATE_HOME"),
            home: folder("HOME"),
            receive_buffer: receive_buffer(),
        }
    }

    /// The usual state folder, where there is one.
    #[must_use]
    pub fn state_dir(&self) -> Option<PathBuf> {
        if self.root {
            return Some(PathBuf::from("/var/lib/tokenblock"));
        }
        let state = match (&self.xdg_state_home, &self.home) {
            (Some(folder), _) => folder.clone(),
            (None, Some(home)) => home.join(".local/state"),
            (None, None) => return None,
        };
        Some(state.join("tokenblock"))
    }

    /// When a declared body is trusted where nothing is said: when the server's application has read some megabytes besides what
    /// its socket can hold. That counts bookkeeping along with payload, so what waits there is never more.
    pub(super) fn trust(&self) -> Trust {
        const READ: u64 = 8 << 20;
        const LEAST: u64 = 16 << 20;
        self.receive_buffer.map_or(Trust::NEVER, |buffer| {
            Trust::after(buffer.saturating_add(READ).max(LEAST))
        })
    }
}

/// The largest receive buffer that TCP makes by itself, or an application may ask for (tcp(7), socket(7)).
fn receive_buffer() -> Option<u64> {
    let last_of = |name: &str| -> Option<u64> {
        let text = fs::read_to_string(Path::new("/proc/sys/net").join(name)).ok()?;
        text.split_whitespace().last()?.parse().ok()
    };
    // What is asked for is doubled.
    let asked = last_of("core/rmem_max")?.saturating_mul(2);
    last_of("ipv4/tcp_rmem").map(|own| own.max(asked))
}
