//! A running tokenblock with a state folder, and its commands.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use rustix::{
    fs::OFlags,
    pty::{OpenptFlags, openpt, ptsname, unlockpt},
};
use serde_json::Value;
use tempfile::TempDir;

/// On the denylist file.
pub(crate) const IN_FILE: &str = "token-of-the-file-0001";
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A folder with a denylist and a state folder.
pub(crate) struct Host {
    folder: TempDir,
}

/// A running process; killed when dropped.
pub(crate) struct Running {
    log: Arc<Mutex<String>>,
    pub(crate) child: Child,
    /// Where its proxy listens.
    pub(crate) proxy: SocketAddr,
    /// Where its API is served by TCP.
    pub(crate) remote: Option<SocketAddr>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Running {
    /// As `kill -9` does it.
    pub(crate) fn kill(&mut self) {
        // It may have ended.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }

    /// What it has said so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// As a service manager ends it.
    pub(crate) fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }

    /// The status of the answer to a request that bears the token: 403, or 502 for the upstream that isn't there.
    pub(crate) fn answer(&self, token: &str) -> u16 {
        self.status_of(&format!(
            "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n"
        ))
    }

    /// The same of a request without its last lines.
    pub(crate) fn status_of(&self, request: &str) -> u16 {
        let mut client = TcpStream::connect(self.proxy).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(client, "{request}Connection: close\r\n\r\n").unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).unwrap();
        str::from_utf8(&answer[9..]).unwrap().parse().unwrap()
    }

    pub(crate) fn blocks(&self, token: &str) -> bool {
        self.answer(token) == 403
    }
}

impl Host {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("list"), format!("{IN_FILE}\n")).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The binary, with nothing from our own environment.
    pub(crate) fn tokenblock(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tokenblock"));
        self.set(&mut command).args(args);
        command
    }

    /// The environment and the folder in which commands run.
    pub(crate) fn set<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("TOKENBLOCK_STATE_DIR", "state")
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
    }

    pub(crate) const RUN: [&str; 4] = [
        "run",
        "--denylist=list",
        "--proxy-listen=127.0.0.1:0",
        "--upstream=http://127.0.0.1:9",
    ];

    /// `tokenblock run`, in force.
    pub(crate) fn start(&self, flags: &[&str]) -> Running {
        let flags = [&Self::RUN, flags].concat();
        Self::started(self.tokenblock(&flags))
    }

    /// The same by another command.
    pub(crate) fn started(mut command: Command) -> Running {
        command.env("TOKENBLOCK_LOG_FORMAT", "json");
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (mut log, mut remote) = (String::new(), None);
        let proxy = loop {
            let Some(Ok(line)) = lines.next() else {
                panic!("it ended: {log}");
            };
            log.push_str(&line);
            let line: Value = serde_json::from_str(&line).unwrap_or_default();
            if line["message"] == "the control API is served over TLS" {
                remote = line["address"].as_str().unwrap().parse().ok();
            }
            if line["message"] == "in force" {
                break line["proxy"].as_str().unwrap().parse().unwrap();
            }
        };
        // So that it can go on to write.
        let log = Arc::new(Mutex::new(log));
        let written = Arc::clone(&log);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                written.lock().unwrap().push_str(&line);
            }
        });
        Running {
            log,
            child,
            proxy,
            remote,
        }
    }

    /// Runs a command to its end: exit code, standard output, standard error.
    pub(crate) fn call(&self, args: &[&str], input: &str) -> (i32, String, String) {
        let mut command = self.tokenblock(args);
        command.stdin(Stdio::piped());
        outcome(fed(command, input))
    }

    /// Adds tokens, which must succeed.
    pub(crate) fn add(&self, tokens: &str) {
        let (code, _, error) = self.call(&["deny", "add"], tokens);
        assert_eq!(code, 0, "{error}");
    }

    /// What was added, by its short ids.
    pub(crate) fn added(&self) -> Vec<String> {
        let (code, out, error) = self.call(&["deny", "list", "--added", "--json"], "");
        assert_eq!(code, 0, "{error}");
        let short = |line| {
            let entry: Value = serde_json::from_str(line).unwrap();
            entry["short"].as_str().unwrap().to_owned()
        };
        out.lines().map(short).collect()
    }

    /// One request over the socket by curl: status and body.
    pub(crate) fn curl(&self, path: &str, args: &[&str]) -> (u16, Value) {
        let socket = ["--unix-socket", "state/control.sock"];
        self.fetch(
            &format!("http://tokenblock{path}"),
            &[&socket, args].concat(),
        )
    }

    /// One request by curl: status, 0 where there is no answer, and body.
    pub(crate) fn fetch(&self, url: &str, args: &[&str]) -> (u16, Value) {
        let mut command = Command::new("curl");
        self.set(&mut command)
            .args(["-sS", "-w", "\n%{http_code}", url])
            .args(args);
        let (_, out, error) = outcome(command.output().unwrap());
        let (body, status) = out.rsplit_once('\n').expect(&error);
        let status = status.parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or_default())
    }
}

pub(crate) fn fed(mut command: Command, input: &str) -> Output {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end without reading it.
    let _written = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

pub(crate) fn outcome(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap_or(-1);
    (code, text(output.stdout), text(output.stderr))
}

/// Tokens one a line: this prefix with each number below `count`.
pub(crate) fn tokens(prefix: &str, count: usize) -> String {
    let token = |n| format!("{prefix}-{n:08}");
    (0..count).map(token).collect::<Vec<_>>().join("\n")
}

/// A terminal: what a person sees and types at, and what a command has.
pub(crate) fn terminal() -> (File, File) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let no_terminal_of_ours = OFlags::NOCTTY.bits().cast_signed();
    let end = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(no_terminal_of_ours)
        .open(name.to_str().unwrap());
    (File::from(terminal), end.unwrap())
}

/// Runs as root, as some tests need.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
