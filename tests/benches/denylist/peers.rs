//! HAProxy and nginx in cleartext with the same tokens, as their manuals say to hold a list.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tokenblock_tests::{bench::haproxy, netns::SERVER_V4, program::Program};

use crate::{Bench, MILLION, anonymous, figure, tokens, until};

const HAPROXY: u16 = 8081;
const NGINX: u16 = 8082;

pub(crate) fn measure(bench: &Bench) -> Result<()> {
    let list = bench.folder.path().join("peers");
    for (name, port, command) in [
        (
            "haproxy",
            HAPROXY,
            haproxy_command as fn(&Bench, &Path) -> Result<Command>,
        ),
        ("nginx", NGINX, nginx),
    ] {
        tokens::write(&list, 1, tokens::opaque)?;
        let program = serve(bench, port, &mut command(bench, &list)?)?;
        let before = memory(&program)?;
        // Not by its death alone: nginx's worker would live on.
        let pid = program.pid().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        until("stopped", || bench.status(port, "any").is_none())?;
        drop(program);

        tokens::write(&list, MILLION, tokens::opaque)?;
        let mut command = command(bench, &list)?;
        let began = Instant::now();
        let program = serve(bench, port, &mut command)?;
        let token = tokens::opaque(MILLION - 1);
        until("refused", || bench.status(port, &token) == Some(403))?;
        figure(
            &format!("{name}_load_1m_s"),
            began.elapsed().as_secs_f64(),
            "s",
        );
        std::thread::sleep(Duration::from_secs(2));
        let each = (memory(&program)? - before) / MILLION as f64;
        figure(&format!("{name}_bytes_per_entry"), each, "B");

        let added = tokens::opaque(MILLION);
        ensure!(
            bench.status(port, &added) == Some(200),
            "{name} refuses what is not listed"
        );
        let began = Instant::now();
        if port == HAPROXY {
            add_to_haproxy(bench, &added)?;
        } else {
            writeln!(fs::OpenOptions::new().append(true).open(&list)?, "{added}")?;
            write_map(bench, &list)?;
            let pid = program.pid().to_string();
            Command::new("kill").args(["-HUP", &pid]).status()?;
        }
        let told = began.elapsed();
        let at_once = bench.status(port, &added) == Some(403);
        if !at_once {
            until("refused", || bench.status(port, &added) == Some(403))?;
        }
        let took = if at_once { told } else { began.elapsed() };
        figure(
            &format!("{name}_add_one_at_1m_ms"),
            took.as_secs_f64() * 1e3,
            "ms",
        );
    }
    Ok(())
}

fn serve(bench: &Bench, port: u16, command: &mut Command) -> Result<Program> {
    let address = SocketAddr::from((SERVER_V4, port));
    Program::serve(command, bench.folder.path(), &bench.pair.client, address)
}

/// Of the program and those that it has started.
fn memory(program: &Program) -> Result<f64> {
    let pid = program.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    // What a child has from its parent is its own once it is written: the larger one has the list.
    let all = [pid].into_iter().chain(
        children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok()),
    );
    all.map(anonymous)
        .try_fold(0.0, |most: f64, memory| Ok(most.max(memory?)))
}

fn haproxy_command(bench: &Bench, list: &Path) -> Result<Command> {
    let origin = bench.origin.port();
    let file = haproxy::cleartext(bench.folder.path(), HAPROXY, list, origin)?;
    let mut command = bench.pair.server.command("haproxy");
    command.args(["-db", "-q", "-f"]).arg(file);
    Ok(command)
}

fn add_to_haproxy(bench: &Bench, token: &str) -> Result<()> {
    let mut socket = UnixStream::connect(bench.folder.path().join("haproxy.sock"))?;
    writeln!(socket, "add acl #0 {token}")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    ensure!(answer.trim().is_empty(), "haproxy: {answer}");
    Ok(())
}

fn nginx(bench: &Bench, list: &Path) -> Result<Command> {
    let folder = bench.folder.path();
    write_map(bench, list)?;
    let config = format!(
        "daemon off;\nuser root;\nworker_processes 1;\npid {pid};\nerror_log {log};\nevents {{ }}\n\
         http {{\n  access_log off;\n  map_hash_max_size 4194304;\n  map_hash_bucket_size 256;\n\
         \x20 map $http_authorization $listed {{ include {map}; }}\n\
         \x20 server {{\n    listen {NGINX};\n    if ($listed) {{ return 403; }}\n\
         \x20   location / {{ proxy_pass http://127.0.0.1:{origin}; }}\n  }}\n}}\n",
        pid = folder.join("nginx.pid").display(),
        log = folder.join("nginx.log").display(),
        map = folder.join("map").display(),
        origin = bench.origin.port(),
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, config)?;
    let mut command = bench.pair.server.command("nginx");
    command.arg("-c").arg(file);
    Ok(command)
}

fn write_map(bench: &Bench, list: &Path) -> Result<()> {
    let mut map = String::new();
    for token in fs::read_to_string(list)?.lines() {
        map.extend(["\"Bearer ", token, "\" 1;\n"]);
    }
    Ok(fs::write(bench.folder.path().join("map"), map)?)
}
