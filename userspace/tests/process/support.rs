//! The binary, started with nothing of our own environment, and its log.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const TOKEN: &str = "sk_live_4eC39HqLyjWDarjtT1zdp7dc";
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A folder with a denylist, and the command to enforce it.
pub(crate) struct Bench {
    pub(crate) folder: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder.path().join("list"),
            format!("{TOKEN}\nanother-token\n"),
        )
        .unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// `tokenblock run` with nothing from our own environment.
    pub(crate) fn run(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tokenblock"));
        command
            .arg("run")
            .args(flags)
            .env_clear()
            .env("HOME", self.folder.path())
            .env("XDG_STATE_HOME", self.path("state"))
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// With a proxy that needs no privilege.
    pub(crate) fn proxy(&self, flags: &[&str]) -> Command {
        let proxy = [
            "--denylist=list",
            "--proxy-listen=127.0.0.1:0",
            "--upstream=http://127.0.0.1:9",
            "--state-dir=state",
            "--log-format=json",
        ];
        self.run(&[&proxy, flags].concat())
    }

    pub(crate) fn fails(&self, flags: &[&str]) -> (i32, String) {
        outcome(self.run(flags).output().unwrap())
    }
}

pub(crate) fn outcome(output: Output) -> (i32, String) {
    let text = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), text)
}

/// A running process and the lines that it logs.
pub(crate) struct Running {
    child: Child,
    lines: mpsc::Receiver<Value>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// Waits for the line with this message; no line on the way may hold the token.
    pub(crate) fn line(&self, message: &str) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).expect(message);
            assert!(!line.to_string().contains(TOKEN), "{line}");
            if line["message"]
                .as_str()
                .is_some_and(|text| text.contains(message))
            {
                return line;
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    pub(crate) fn exit_code(&mut self) -> (i32, Duration) {
        let start = Instant::now();
        let status = self.child.wait().unwrap();
        (status.code().unwrap(), start.elapsed())
    }
}

/// What the proxy answers a request with these lines.
pub(crate) fn status(address: &str, lines: &str) -> String {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {lines}\r\nHost: a\r\nConnection: close\r\n\r\n");
    client.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}
