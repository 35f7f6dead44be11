//! `tokenblock run` before the origin, with a denylist of one token.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::Child,
    sync::Notify,
    time::timeout,
};

use super::{
    ORIGIN_PORT, TLS_PORT,
    lab::{Lab, SERVER_ADDRESS, SERVER_INTERFACE},
    request::LEAKED_TOKEN,
};

/// In force, and gone again, within this time.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the product says once its tiers enforce the list.
const IN_FORCE: &str = "in force";

/// The product's files, in a folder that is gone when dropped.
#[derive(Debug)]
pub(crate) struct Files {
    folder: TempDir,
}

impl Files {
    /// Writes the denylist and a certificate that only this demonstration trusts.
    ///
    /// # Errors
    /// Where they can't be written.
    pub(crate) fn new() -> Result<Self> {
        let folder = TempDir::with_prefix("tokenblock-demo-")?;
        let files = Self { folder };
        let certified = rcgen::generate_simple_self_signed([SERVER_ADDRESS.to_owned()])?;
        fs::write(files.path("leaked.txt"), format!("{LEAKED_TOKEN}\n"))?;
        fs::write(files.certificate(), certified.cert.pem())?;
        fs::write(files.path("key.pem"), certified.signing_key.serialize_pem())?;
        Ok(files)
    }

    /// The certificate, as clients trust it.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.path("cert.pem")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Arguments, with file names relative to the folder of [`Files`].
fn arguments() -> Vec<String> {
    format!(
        "run --denylist leaked.txt --cookie test --query access_token \
         --interface {SERVER_INTERFACE} --port {ORIGIN_PORT} \
         --proxy-listen {SERVER_ADDRESS}:{TLS_PORT} --tls-cert cert.pem --tls-key key.pem \
         --upstream http://127.0.0.1:{ORIGIN_PORT} --state-dir state"
    )
    .split(' ')
    .map(str::to_owned)
    .collect()
}

/// The command as the reader would type it.
pub(crate) fn command_line() -> String {
    format!(
        "tokenblock {}",
        arguments().join(" ").replace(" --", " \\\n    --")
    )
}

/// The running product; killed when dropped.
#[derive(Debug)]
pub(crate) struct Product {
    process: Child,
    log: Log,
}

impl Product {
    /// Starts it on the server's side and waits until it is in force.
    ///
    /// # Errors
    /// Where it ends or does not say so in time; the message holds its log.
    pub(crate) async fn start(binary: &Path, lab: &Lab, files: &Files) -> Result<Self> {
        let mut process = lab
            .server()
            .command(binary)
            .args(arguments())
            .current_dir(files.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        let log = Log::default();
        if let (Some(stdout), Some(stderr)) = (process.stdout.take(), process.stderr.take()) {
            tokio::spawn(log.clone().follow(stdout));
            tokio::spawn(log.clone().follow(stderr));
        }
        let mut product = Self { process, log };
        product.wait_until_in_force().await?;
        Ok(product)
    }

    async fn wait_until_in_force(&mut self) -> Result<()> {
        let outcome = tokio::select! {
            waited = timeout(PATIENCE, self.log.wait_for(IN_FORCE)) => waited.is_ok(),
            _ = self.process.wait() => false,
        };
        if outcome {
            return Ok(());
        }
        let lines = self.log.lines().join("\n    ");
        bail!("tokenblock did not come in force; it said:\n    {lines}");
    }

    /// Ends it as an operator would, by SIGTERM; gives its log.
    ///
    /// # Errors
    /// Where it does not end in time, or not with success.
    pub(crate) async fn stop(mut self) -> Result<Vec<String>> {
        let pid = self
            .process
            .id()
            .and_then(|pid| Pid::from_raw(pid.cast_signed()));
        kill_process(pid.context("tokenblock ended by itself")?, Signal::TERM)?;
        let status = timeout(PATIENCE, self.process.wait())
            .await
            .context("tokenblock did not end on SIGTERM")??;
        if !status.success() {
            bail!("tokenblock ended with {status}");
        }
        Ok(self.log.lines())
    }
}

/// What a process says, line by line.
#[derive(Clone, Debug, Default)]
struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    grown: Arc<Notify>,
}

impl Log {
    async fn follow(self, stream: impl AsyncRead + Unpin) {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let mut all = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(line);
            self.grown.notify_one();
        }
    }

    fn lines(&self) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.clone()
    }

    async fn wait_for(&self, words: &str) {
        while !self.lines().iter().any(|line| line.contains(words)) {
            self.grown.notified().await;
        }
    }
}
