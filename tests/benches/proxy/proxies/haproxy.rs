//! HAProxy: exact strings in a tree, changed through its socket.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
};

use anyhow::{Result, ensure};

use super::{Kind, ORIGIN, pinned, write};
use crate::Bench;

pub(super) fn command(bench: &Bench, tokens: &Path) -> Result<Command> {
    let cert = fs::read_to_string(&bench.certificate.cert_file)?;
    let key = fs::read_to_string(&bench.certificate.key_file)?;
    let pem = write(bench, "haproxy.pem", &(cert + &key))?;
    let socket = bench.folder.path().join("haproxy.sock");
    let config = format!(
        "global\n\
         \x20 nbthread 1\n\
         \x20 maxconn 20000\n\
         \x20 no strict-limits\n\
         \x20 stats socket {socket} mode 600 level admin\n\
         defaults\n\
         \x20 mode http\n\
         \x20 timeout connect 5s\n\
         \x20 timeout client 75s\n\
         \x20 timeout server 75s\n\
         \x20 http-reuse always\n\
         frontend tls\n\
         \x20 bind 127.0.0.1:{port} ssl crt {pem} alpn h2,http/1.1\n\
         \x20 option forwardfor\n\
         \x20 http-request return status 403 content-type application/json string '{{\"error\":\"listed_token\"}}' \
         if {{ http_auth_bearer -f {tokens} }}\n\
         \x20 http-request set-header X-Forwarded-Proto https\n\
         \x20 default_backend origin\n\
         backend origin\n\
         \x20 server origin 127.0.0.1:{ORIGIN}\n",
        socket = socket.display(),
        port = Kind::Haproxy.port(),
        tokens = tokens.display(),
    );
    let config = write(bench, "haproxy.cfg", &config)?;
    let mut command = pinned(bench, "haproxy");
    command.args(["-db", "-q", "-f", &config]);
    Ok(command)
}

/// One line to its socket.
pub(super) fn add(bench: &Bench, token: &str) -> Result<()> {
    let mut socket = UnixStream::connect(bench.folder.path().join("haproxy.sock"))?;
    writeln!(socket, "add acl #0 {token}")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    ensure!(answer.trim().is_empty(), "haproxy: {answer}");
    Ok(())
}
