//! The product: a file of tokens, changed through its control socket.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};

use super::{Kind, pinned};
use crate::Bench;

pub(super) fn command(bench: &Bench, tokens: &Path, origin: u16) -> Result<Command> {
    let state = state(bench);
    if state.exists() {
        // What a predecessor was given while it ran.
        fs::remove_dir_all(&state)?;
    }
    let mut command = pinned(bench, &bench.binary);
    command
        .arg("run")
        .arg("--denylist")
        .arg(tokens)
        .args([
            "--proxy-listen",
            &format!("127.0.0.1:{}", Kind::Ours.port()),
        ])
        .arg("--tls-cert")
        .arg(&bench.certificate.cert_file)
        .arg("--tls-key")
        .arg(&bench.certificate.key_file)
        .args(["--upstream", &format!("http://127.0.0.1:{origin}")])
        .args(["--workers", "1"])
        .arg("--state-dir")
        .arg(state);
    Ok(command)
}

/// One request to its socket.
pub(super) fn add(bench: &Bench, token: &str) -> Result<()> {
    let mut socket = UnixStream::connect(state(bench).join("control.sock"))?;
    let body = format!(r#"{{"entries":[{{"token":"{token}"}}]}}"#);
    write!(
        socket,
        "POST /v1/entries HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line)?;
    ensure!(line.starts_with("HTTP/1.1 200"), "tokenblock: {line}");
    Ok(())
}

fn state(bench: &Bench) -> PathBuf {
    bench.folder.path().join("state")
}
