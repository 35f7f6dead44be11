//! SIGHUP: the settings are read again.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Bench, PATIENCE, Running, TOKEN, status};

/// Answers every request with this letter.
pub(crate) fn origin(name: char) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || answer(stream.unwrap(), name));
        }
    });
    address
}

fn answer(mut stream: TcpStream, name: char) {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        head.extend_from_slice(&buffer[..n]);
        while let Some(end) = head.windows(4).position(|w| w == b"\r\n\r\n") {
            head.drain(..end + 4);
            let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{name}");
            if stream.write_all(reply.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// One connection to the proxy that is kept.
struct Kept(TcpStream);

impl Kept {
    fn new(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    /// The status and the last byte of the answer to a request with these fields.
    fn ask(&mut self, fields: &str) -> (String, char) {
        let request = format!("GET / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n");
        self.0.write_all(request.as_bytes()).unwrap();
        let mut got = Vec::new();
        let mut byte = [0];
        while !got.ends_with(b"\r\n\r\n") {
            self.0.read_exact(&mut byte).unwrap();
            got.push(byte[0]);
        }
        let head = String::from_utf8(got).unwrap().to_lowercase();
        let len = head.split("content-length: ").nth(1).unwrap();
        let len: usize = len.split("\r\n").next().unwrap().parse().unwrap();
        let mut body = vec![0; len];
        self.0.read_exact(&mut body).unwrap();
        let status = head.split(' ').nth(1).unwrap().to_owned();
        (status, (*body.last().unwrap()).into())
    }
}

struct Reloadable {
    bench: Bench,
    running: Running,
    address: String,
}

impl Reloadable {
    fn new(settings: &str) -> Self {
        let bench = Bench::new();
        bench.write("settings.toml", settings);
        let running = Running::start(bench.proxy(&["--config=settings.toml"]));
        let address = running.line("in force")["proxy"].clone();
        Self {
            bench,
            running,
            address: address.as_str().unwrap().to_owned(),
        }
    }

    /// Writes the file and has it read; gives the line that says what came of it.
    fn reload(&self, settings: &str, line: &str) -> Value {
        self.bench.write("settings.toml", settings);
        self.running.signal(Signal::HUP);
        self.running.line(line)
    }
}

/// Asks until the answer is this.
fn becomes(address: &str, lines: &str, wanted: &str) {
    let start = Instant::now();
    while status(address, lines) != wanted {
        assert!(start.elapsed() < PATIENCE, "never {wanted}: {lines}");
    }
}

fn route(to: SocketAddr, more: &str) -> String {
    format!("{more}\n[[route]]\nhost = 'a.example'\nupstream = 'http://{to}'\n")
}

const DONE: &str = "the settings were read again";
const STAYS: &str = "the settings in force stay in force";

#[test]
fn nobody_loses_a_request_while_settings_change() {
    let (a, b) = (origin('a'), origin('b'));
    let tier = Reloadable::new(&route(a, ""));
    let done = Arc::new(AtomicBool::new(false));
    // How many clients have seen each origin.
    let seen = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (done, seen) = (Arc::clone(&done), Arc::clone(&seen));
            let mut kept = Kept::new(&tier.address);
            thread::spawn(move || {
                let mut names = String::new();
                while !done.load(Ordering::Relaxed) {
                    let (status, name) = kept.ask("");
                    assert_eq!(status, "200");
                    assert_eq!(kept.ask(&format!("Authorization: {TOKEN}\r\n")).0, "403");
                    if !names.contains(name) {
                        names.push(name);
                        seen[usize::from(name == 'b')].fetch_add(1, Ordering::Relaxed);
                    }
                }
                // Every change reached a connection that was open before it.
                assert_eq!(kept.ask(""), ("200".to_owned(), 'b'));
            })
        })
        .collect();
    let all_saw_both = || {
        seen.iter()
            .all(|clients| clients.load(Ordering::Relaxed) == 4)
    };
    for n in 0.. {
        let limits = format!("[limit]\nstreams = {}\n", n + 10);
        tier.reload(&route(if n % 2 == 0 { b } else { a }, &limits), DONE);
        if n % 10 == 0 {
            tier.reload("[[route]]\nhost = 1\n", STAYS);
        }
        if n > 40 && (all_saw_both() || clients.iter().any(thread::JoinHandle::is_finished)) {
            break;
        }
    }
    tier.reload(&route(b, ""), DONE);
    done.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
}

#[test]
fn a_wrong_file_is_refused_whole() {
    let (a, b) = (origin('a'), origin('b'));
    let tier = Reloadable::new(&route(a, ""));
    let mut kept = Kept::new(&tier.address);
    let tls = "upstream-ca = 'none.pem'\n[[route]]\npath = '/x'\nupstream = 'https://b'";
    for (wrong, part) in [
        (
            route(b, "limit-streams = 0"),
            "settings.toml:1: invalid value '0'",
        ),
        (route(b, "no-such = 1"), "there is no setting `no-such`"),
        (route(b, "[[route]]\nupstream = 'http://b'"), "--route"),
        (
            route(b, "certificate = 'a:b'"),
            "--tls-cert is needed with --certificate",
        ),
        (route(b, tls), "none.pem"),
    ] {
        let line = tier.reload(&wrong, STAYS);
        assert!(line["message"].as_str().unwrap().contains(part), "{line}");
        assert_eq!(kept.ask("").1, 'a', "{wrong}");
    }
    let line = tier.reload(&route(b, ""), DONE);
    assert_eq!(line["changed"], "route");
    assert_eq!(kept.ask("").1, 'b');
}

#[test]
fn places_and_answers_change_and_what_cannot_change_is_named() {
    let a = origin('a');
    let tier = Reloadable::new(&route(a, ""));
    let other = format!("/ HTTP/1.1\r\nX-Other: {TOKEN}");
    let usual = format!("/ HTTP/1.1\r\nAuthorization: {TOKEN}");
    let both = |first: &str, second: &str| {
        assert_eq!(status(&tier.address, &other), first);
        assert_eq!(status(&tier.address, &usual), second);
    };
    // Nobody listens at the usual upstream.
    both("502", "403");
    let settings = "header = ['X-Other']\nworkers = 7\nmax-flows = 999\n[refusal]\nstatus = 418\n";
    let line = tier.reload(&route(a, settings), DONE);
    assert_eq!(line["changed"], "header,refusal-status");
    let line = tier.running.line("at the next start");
    assert_eq!(line["settings"], "max-flows,workers");
    both("418", "502");
    // They are named again as long as they wait.
    tier.reload(&route(a, &settings.replace("X-Other", "X-None")), DONE);
    let line = tier.running.line("at the next start");
    assert_eq!(line["settings"], "max-flows,workers");
    both("502", "502");
    tier.reload(&route(a, "monitor = true"), DONE);
    both("502", "502");
    assert_eq!(tier.running.line("not blocked")["action"], "alerted");
    // The list follows what counts as a token.
    let least = format!("min-token-length = {}", TOKEN.len() + 1);
    let line = tier.reload(&route(a, &least), DONE);
    assert_eq!(line["changed"], "min-token-length,monitor");
    becomes(&tier.address, &usual, "502");
    let line = tier.reload(&route(a, ""), DONE);
    assert_eq!(line["changed"], "min-token-length");
    becomes(&tier.address, &usual, "403");
    tier.reload(&route(a, "tls-cert = 'none'\ntls-key = 'none'"), DONE);
    let line = tier.running.line("at the next start");
    assert_eq!(line["settings"], "tls-cert,tls-key");
}
