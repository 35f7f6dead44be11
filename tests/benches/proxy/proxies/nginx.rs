//! nginx: a hash of strings, changed by reading its files again. It serves as the origin, too.

use std::{
    fs,
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use tokenblock_tests::bench::{
    LISTED,
    cores::{self, Process},
    nginx,
};

use super::{FLOOR, Kind, ORIGIN, pinned};
use crate::Bench;

pub(super) fn command(bench: &Bench, tokens: &Path) -> Result<Command> {
    let map = map_file(bench);
    write_map(&map, tokens)?;
    let text = format!(
        "map_hash_max_size 4194304;\n\
         map_hash_bucket_size 256;\n\
         map $http_authorization $listed {{ default 0; include {map}; }}\n\
         upstream origin {{ server 127.0.0.1:{ORIGIN}; keepalive 128; keepalive_requests 1000000000; }}\n\
         server {{\n\
         listen 127.0.0.1:{port} ssl http2;\n\
         ssl_certificate {cert};\n\
         ssl_certificate_key {key};\n\
         ssl_protocols TLSv1.2 TLSv1.3;\n\
         keepalive_requests 1000000000;\n\
         location / {{\n\
         if ($listed) {{ return 403 '{{\"error\":\"listed_token\"}}'; }}\n\
         proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\";\n\
         proxy_set_header Host $host;\n\
         proxy_set_header X-Forwarded-For $remote_addr;\n\
         proxy_set_header X-Forwarded-Proto https;\n\
         proxy_pass http://origin;\n\
         }}\n\
         }}\n",
        map = map.display(),
        port = Kind::Nginx.port(),
        cert = bench.certificate.cert_file.display(),
        key = bench.certificate.key_file.display(),
    );
    let config = nginx::config(bench.folder.path(), "nginx", &text)?;
    let mut command = pinned(bench, "nginx");
    command.arg("-c").arg(config);
    Ok(command)
}

/// The server behind the proxies.
pub(super) fn origin(bench: &Bench) -> Result<Command> {
    let text = nginx::origin(&format!("127.0.0.1:{ORIGIN}"), "");
    let config = nginx::config(bench.folder.path(), "origin", &text)?;
    let mut command = cores::pinned(&bench.netns, cores::ORIGIN, "nginx");
    command.arg("-c").arg(config);
    Ok(command)
}

/// A server that answers itself what the proxies get from theirs, or refuse: as little as can be.
pub(super) fn floor(bench: &Bench) -> Result<Command> {
    let more = format!(
        "ssl_certificate {};\n\
         ssl_certificate_key {};\n\
         if ($http_authorization = 'Bearer {LISTED}') {{ return 403 '{{\"error\":\"listed_token\"}}'; }}\n",
        bench.certificate.cert_file.display(),
        bench.certificate.key_file.display(),
    );
    let text = nginx::origin(&format!("127.0.0.1:{FLOOR} ssl http2"), &more);
    let config = nginx::config(bench.folder.path(), "floor", &text)?;
    let mut command = pinned(bench, "nginx");
    command.arg("-c").arg(config);
    Ok(command)
}

/// One line more, and all read again.
pub(super) fn add(bench: &Bench, process: &Process, token: &str) -> Result<()> {
    let mut map = fs::OpenOptions::new().append(true).open(map_file(bench))?;
    writeln!(map, "\"Bearer {token}\" 1;")?;
    process.signal("HUP")
}

fn map_file(bench: &Bench) -> PathBuf {
    bench.folder.path().join("nginx.map")
}

fn write_map(map: &Path, tokens: &Path) -> Result<()> {
    let mut map = BufWriter::new(fs::File::create(map)?);
    for token in BufReader::new(fs::File::open(tokens)?).lines() {
        writeln!(map, "\"Bearer {}\" 1;", token?)?;
    }
    map.flush()?;
    Ok(())
}
