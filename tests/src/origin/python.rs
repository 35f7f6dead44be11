//! Python's `http.server`, a server that reads lines ended by CR alone and any run of white space.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    netns::{Netns, SERVER_V4},
    poll,
};

const START: Duration = Duration::from_secs(30);

/// A running `python3 -m http.server`; killed when dropped.
#[derive(Debug)]
pub struct PythonServer {
    child: Child,
    log: PathBuf,
}

impl PythonServer {
    /// Serves `folder` at `port` of the server's IPv4 address and waits until it accepts.
    ///
    /// # Errors
    /// Where Python is missing, or the port is taken.
    pub fn start(netns: &Netns, folder: &Path, port: u16) -> Result<Self> {
        let log = folder.join("http.server.log");
        let child = netns
            .command("python3")
            .args(["-u", "-m", "http.server", &port.to_string()])
            .args(["--bind", &SERVER_V4.to_string(), "--directory"])
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("starting python3")?;
        let server = Self { child, log };
        let address = SocketAddr::new(SERVER_V4, port);
        let connects = || {
            netns
                .enter(|| TcpStream::connect(address).ok())
                .ok()
                .flatten()
        };
        poll::until(START, connects).with_context(|| format!("http.server: {}", server.log()))?;
        Ok(server)
    }

    /// Its log: a line for each request.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for PythonServer {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
