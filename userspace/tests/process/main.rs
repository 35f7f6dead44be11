//! The binary as its users start it: settings, messages, exit codes, life and end.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that fails fails the test that calls it"
)]

mod reload;
mod support;

use std::{
    fs,
    io::{Read as _, Write as _},
    iter,
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::AsRawFd as _,
        unix::{fs::PermissionsExt as _, net::UnixDatagram},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustix::process::Signal;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::PrivateKeyDer;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use socket2::{Socket, Type};

use self::support::{Bench, PATIENCE, Running, TOKEN, outcome, status};

#[test]
fn a_flag_comes_before_the_environment_and_that_before_the_file() {
    let bench = Bench::new();
    bench.write("settings.toml", "config_is_not_here = 1");
    bench.write(
        "good.toml",
        "proxy_listen = 'of-the-file'\ndenylist = 'list'\nupstream = 'http://a'\n",
    );
    let wrong_address = |command: &mut Command| outcome(command.output().unwrap());

    let file = ["--config=good.toml"];
    let (code, text) = wrong_address(&mut bench.run(&file));
    assert!(
        code == 64 && text.contains("--proxy-listen \"of-the-file\""),
        "{text}"
    );
    let variable = ("TOKENBLOCK_PROXY_LISTEN", "of-the-environment");
    let (_, text) = wrong_address(bench.run(&file).env(variable.0, variable.1));
    assert!(
        text.contains("--proxy-listen \"of-the-environment\""),
        "{text}"
    );
    let flags = ["--config=good.toml", "--proxy-listen=of-the-flag"];
    let (_, text) = wrong_address(bench.run(&flags).env(variable.0, variable.1));
    assert!(text.contains("--proxy-listen \"of-the-flag\""), "{text}");

    // The file itself can be named by the environment.
    let (code, text) = wrong_address(bench.run(&[]).env("TOKENBLOCK_CONFIG", "settings.toml"));
    assert_eq!(code, 78);
    assert!(
        text.contains("settings.toml:1: there is no setting `config_is_not_here`"),
        "{text}"
    );
}

#[test]
fn lists_in_the_environment_are_separated_by_commas() {
    let bench = Bench::new();
    let output = bench
        .run(&["--denylist=list", "--interface=lo"])
        .env("TOKENBLOCK_PORT", "80,http")
        .output()
        .unwrap();
    let (code, text) = outcome(output);
    assert!(code == 64 && text.contains("--port \"http\""), "{text}");
}

#[test]
fn each_wrong_start_has_its_message_and_code() {
    let bench = Bench::new();
    fs::write(bench.path("broken.list.gz"), b"\x1f\x8b\x08").unwrap();
    bench.write("bad", &format!("{TOKEN}\n{TOKEN} nonsense\n"));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("--proxy-listen={}", taken.local_addr().unwrap());
    let proxy = [
        "--proxy-listen=127.0.0.1:0",
        "--upstream=http://127.0.0.1:9",
    ];
    let state = bench.path("list").display().to_string();
    for (flags, code, part) in [
        (&["--no-such-flag"][..], 64, "unexpected argument"),
        (&["--denylist=list"], 64, "no tier: give --interface"),
        (&[proxy[0], proxy[1]], 64, "no denylist: give --denylist"),
        (
            &["--denylist=bad", proxy[0], proxy[1]],
            65,
            "bad:2: what follows the token is no attribute",
        ),
        (
            &["--denylist=none", proxy[0], proxy[1]],
            66,
            "none: there is no such file",
        ),
        (
            &["--denylist=.", proxy[0], proxy[1]],
            65,
            "./broken.list.gz: a gzip file that is damaged",
        ),
        (&["--denylist=list", &taken, proxy[1]], 71, "in use"),
        (
            &["--denylist=list", proxy[0], proxy[1], "--state-dir", &state],
            71,
            "the state folder",
        ),
        (
            &[
                "--denylist=list",
                proxy[0],
                proxy[1],
                "--tls-cert=list",
                "--tls-key=list",
            ],
            65,
            "holds no certificate",
        ),
    ] {
        let (found, text) = bench.fails(flags);
        assert_eq!(found, code, "{flags:?}: {text}");
        assert!(text.contains(part), "{flags:?}: {text}");
        assert!(!text.contains(TOKEN), "{flags:?}: {text}");
    }
}

#[test]
fn help_goes_to_standard_output_and_is_no_failure() {
    let output = Bench::new().run(&["--help"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("--denylist <FILE|DIR>")
    );
}

#[test]
fn it_says_when_it_is_in_force_counts_on_request_and_ends_when_told() {
    let bench = Bench::new();
    let socket = UnixDatagram::bind(bench.path("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = bench.proxy(&[]);
    command.env("NOTIFY_SOCKET", bench.path("notify"));
    let mut running = Running::start(command);

    let line = running.line("in force");
    assert_eq!(
        (&line["tiers"], &line["entries"]),
        (&"proxy".into(), &2.into())
    );
    assert!(line["proxy"].as_str().unwrap().starts_with("127.0.0.1:"));
    let mut told = [0; 256];
    let n = socket.recv(&mut told).unwrap();
    assert!(
        told[..n].starts_with(b"READY=1\n"),
        "{:?}",
        String::from_utf8_lossy(&told[..n])
    );

    running.signal(Signal::USR1);
    let counters = running.line("counters");
    let counters: Value = serde_json::from_str(counters["counters"].as_str().unwrap()).unwrap();
    assert_eq!(counters["log"]["dropped_lines"], 0);
    assert!(counters["proxy"].as_object().unwrap().len() > 3);

    running.signal(Signal::TERM);
    running.line("stopping on SIGTERM");
    let (code, time) = running.exit_code();
    assert_eq!(code, 0);
    running.line("counters");
    let n = socket.recv(&mut told).unwrap();
    assert_eq!(&told[..n], b"STOPPING=1\n");
    // What else a machine has to do adds to a time, and never takes from it.
    let again = || {
        let mut running = Running::start(bench.proxy(&[]));
        running.line("in force");
        running.signal(Signal::TERM);
        running.exit_code().1
    };
    let mut times = iter::once(time).chain(iter::repeat_with(again).take(2));
    assert!(times.any(|time| time < Duration::from_secs(1)), "{time:?}");
}

#[test]
fn a_blocked_request_is_one_structured_line() {
    let bench = Bench::new();
    let running = Running::start(bench.proxy(&["--header=Authorization"]));
    let address = running.line("in force")["proxy"].clone();
    let address = address.as_str().unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        client,
        "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: bearer  {TOKEN}\r\n\r\n"
    )
    .unwrap();
    let mut answer = [0; 12];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 403");

    let line = running.line("compromised token");
    let source = client.local_addr().unwrap().to_string();
    // The first twelve digits of its SHA-256.
    let token = "78a08441f431";
    for (name, value) in [
        ("level", "WARN"),
        ("message", "compromised token blocked"),
        ("tier", "proxy"),
        ("source", &source),
        ("destination", address),
        ("location", "header authorization"),
        ("token", token),
        ("action", "blocked"),
    ] {
        assert_eq!(line[name], value, "{name} of {line}");
    }
    assert_eq!(line["requests"], 1);
    assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
    running.signal(Signal::USR1);
    let counters = running.line("");
    assert_eq!(counters["message"], "counters", "a second line: {counters}");
}

#[test]
fn requests_that_repeat_are_one_line_that_says_how_many() {
    let bench = Bench::new();
    let mut running = Running::start(bench.proxy(&["--header=Authorization"]));
    let address = running.line("in force")["proxy"].clone();
    let mut client = TcpStream::connect(address.as_str().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let all = 50;
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: {TOKEN}\r\n\r\n");
    client
        .write_all(request.repeat(all - 1).as_bytes())
        .unwrap();
    let last = request.replace("Host", "Connection: close\r\nHost");
    client.write_all(last.as_bytes()).unwrap();
    let mut answers = String::new();
    client.read_to_string(&mut answers).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 403").count(), all);

    // What is still being counted when it ends is not lost.
    running.signal(Signal::TERM);
    let (code, _) = running.exit_code();
    assert_eq!(code, 0);
    let first = running.line("compromised token blocked");
    assert_eq!(first["requests"], 1);
    let mut lines = 1;
    let mut requests = 1;
    while requests < all as u64 {
        let line = running.line("compromised token blocked");
        assert_eq!(line["source"], first["source"]);
        requests += line["requests"].as_u64().unwrap();
        lines += 1;
    }
    assert_eq!(requests, all as u64);
    assert!(lines < 10, "{lines}");
    let counters = running.line("counters")["counters"].clone();
    let counters: Value = serde_json::from_str(counters.as_str().unwrap()).unwrap();
    assert_eq!(counters["proxy"]["proxy_blocked_total"], all);
    assert_eq!(counters["sightings"]["sightings_seen_total"], all);
}

#[test]
fn the_file_says_how_the_proxy_works() {
    let bench = Bench::new();
    bench.write(
        "settings.toml",
        "[refusal]\nstatus = 418\n[limit]\nheader_fields = 2\n[[route]]\nhost = 'b.example'\n\
         upstream = 'unix:/none'\n[timeout]\nconnect = '5s'\n",
    );
    let running = Running::start(bench.proxy(&["--config=settings.toml"]));
    let address = running.line("in force")["proxy"].clone();
    let address = address.as_str().unwrap();
    let blocked = format!("/ HTTP/1.1\r\nAuthorization: {TOKEN}");
    assert_eq!(status(address, "/ HTTP/1.1\r\nX-Many: fields"), "431");
    let upstream = |host: &str| {
        let mut client = TcpStream::connect(address).unwrap();
        write!(client, "GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        running.line("can't connect")["upstream"].clone()
    };
    assert_eq!(upstream("a.example"), "http://127.0.0.1:9");
    assert_eq!(upstream("b.example"), "unix:/none");
    drop(running);
    bench.write("settings.toml", "[refusal]\nstatus = 418\n");
    let running = Running::start(bench.proxy(&["--config=settings.toml"]));
    let address = running.line("in force")["proxy"].clone();
    assert_eq!(status(address.as_str().unwrap(), &blocked), "418");
}

/// A server over TLS; gives its URL, and writes its certificate to `path`.
fn over_tls(path: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(path, made.cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key);
    let config = Arc::new(config.unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream.unwrap());
            // Who doesn't trust it is gone.
            if stream.read(&mut [0; 4096]).is_ok() {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(answer).unwrap();
            }
        }
    });
    url
}

#[test]
fn upstreams_are_known_by_the_systems_authorities() {
    let bench = Bench::new();
    let authorities = bench.path("authorities.pem");
    let upstream = format!("--upstream={}", over_tls(&authorities));
    for (file, wanted) in [(Some(&authorities), "200"), (None, "502")] {
        let mut command = bench.proxy(&[&*upstream]);
        // In the place of those of this host.
        command.envs(file.map(|file| ("SSL_CERT_FILE", file)));
        let running = Running::start(command);
        let address = running.line("in force")["proxy"].clone();
        let status = status(address.as_str().unwrap(), "/ HTTP/1.1");
        assert_eq!(status, wanted, "{file:?}");
    }
}

/// A server that says nothing, closes, or says nonsense, as the path has it.
fn unreliable() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let n = stream.read(&mut head).unwrap();
            match String::from_utf8_lossy(&head[..n]).split(' ').nth(1) {
                Some("/closes") => {}
                Some("/nonsense") => stream.write_all(b"ick\r\n\r\n").unwrap(),
                _ => open.push(stream),
            }
        }
    });
    address
}

/// The status of a request on a connection that stays open, which a request like most is on.
fn status_of(address: &str, path: &str, more: &str) -> String {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("POST {path} HTTP/1.1\r\nHost: a\r\n{more}\r\n");
    client.write_all(request.as_bytes()).unwrap();
    let mut status = [0; 12];
    client.read_exact(&mut status).unwrap();
    String::from_utf8_lossy(&status[9..]).into_owned()
}

/// What a client is told in a word stands in the log with its upstream and why.
#[test]
fn the_log_says_why_there_was_no_answer() {
    let bench = Bench::new();
    let unreliable = unreliable();
    // One waits to be accepted, for which there is room, and one for that.
    let full = Socket::new(socket2::Domain::IPV4, Type::STREAM, None).unwrap();
    let free: SocketAddr = "127.0.0.1:0".parse().unwrap();
    full.bind(&free.into()).unwrap();
    full.listen(0).unwrap();
    let busy = full.local_addr().unwrap().as_socket().unwrap();
    let _waiting = TcpStream::connect(busy).unwrap();
    let _next = TcpStream::connect_timeout(&busy, Duration::from_millis(100));
    let busy = format!("http://{busy}");
    let upstream = format!("--upstream={unreliable}");
    let flags = [&*upstream, "--timeout-response=1s", "--timeout-connect=1s"];
    let routes = format!("--route=/gone=http://127.0.0.1:9,http://127.0.0.1:9;/full={busy}");
    let flags = [&flags[..], &[&*routes, "--upstream-failures=1"]].concat();
    let mut command = bench.run(&[]);
    command.args([
        "--denylist=list",
        "--proxy-listen=127.0.0.1:0",
        "--workers=1",
    ]);
    command.args(["--state-dir=state", "--log-format=json"]);
    let running = Running::start({
        command.args(flags);
        command
    });
    let address = running.line("in force")["proxy"].clone();
    let address = address.as_str().unwrap();
    for more in ["", "Content-Length: 1\r\n"] {
        for (path, status, message, upstream, error) in [
            ("/silent", "504", "no response in time", &*unreliable, ""),
            ("/closes", "502", "no response", &unreliable, "close"),
            ("/nonsense", "502", "no response", &unreliable, ""),
            ("/full", "504", "takes no connection in time", &busy, ""),
        ] {
            // The body comes with the head: nobody waits for it.
            let body = if more.is_empty() { "" } else { "\r\nx" };
            let more = format!("{more}{body}");
            assert_eq!(status_of(address, path, &more), status, "{path} {more:?}");
            let line = running.line(message);
            assert_eq!(line["upstream"], upstream, "{line}");
            let why = line["error"].as_str().unwrap_or_default();
            assert!(why.contains(error), "{line}");
        }
    }
    // The first one leaves both out.
    status(address, "/gone HTTP/1.1");
    let line = running.line("can't connect to the upstream");
    assert_eq!(line["upstream"], "http://127.0.0.1:9");
    assert!(
        line["error"].as_str().unwrap().contains("refused"),
        "{line}"
    );
    assert_eq!(status(address, "/gone HTTP/1.1"), "503");
    let line = running.line("no upstream is usable");
    assert_eq!(line["upstreams"], "http://127.0.0.1:9,http://127.0.0.1:9");
    assert_eq!(line["why"], "upstream_connect");
}

/// The proxy tier alone needs no privilege.
#[test]
fn nobody_can_run_the_proxy() {
    let bench = Bench::new();
    let proxy = bench.proxy(&[]);
    let mut command = Command::new("setpriv");
    if rustix::process::geteuid().is_root() {
        let mode = fs::Permissions::from_mode(0o777);
        fs::set_permissions(bench.folder.path(), mode).unwrap();
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    }
    command
        .args(["--inh-caps=-all", "--no-new-privs", "--"])
        .arg(own_copy(&bench))
        .args(proxy.get_args())
        .current_dir(bench.folder.path());
    let mut running = Running::start(command);
    let address = running.line("in force")["proxy"].clone();
    let address = address.as_str().unwrap();
    let blocked = format!("/ HTTP/1.1\r\nAuthorization: {TOKEN}");
    assert_eq!(status(address, &blocked), "403");
    running.signal(Signal::TERM);
    assert_eq!(running.exit_code().0, 0);
}

/// The binary where anyone can reach it.
/// Where the system has no files left for it, it waits, and serves who is connected.
#[test]
fn a_proxy_without_files_left_goes_on() {
    let bench = Bench::new();
    let proxy = bench.proxy(&["--workers=1"]);
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -n 100 && exec \"$@\"", "sh"])
        .arg(proxy.get_program())
        .args(proxy.get_args())
        .current_dir(bench.folder.path());
    let running = Running::start(command);
    let address = running.line("in force")["proxy"].clone();
    let address = address.as_str().unwrap();
    let blocked = format!("/ HTTP/1.1\r\nAuthorization: {TOKEN}");
    let mut clients: Vec<TcpStream> = (0..120)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    running.line("can't take a connection");
    running.signal(Signal::USR1);
    let counters = running.line("counters");
    let counters: Value = serde_json::from_str(counters["counters"].as_str().unwrap()).unwrap();
    let failed = &counters["proxy"]["proxy_closed_accept_failed"];
    assert!(failed.as_u64() > Some(0), "{counters}");
    let first = &mut clients[0];
    let request = format!("GET {blocked}\r\nHost: a\r\n\r\n");
    first.write_all(request.as_bytes()).unwrap();
    let mut answer = [0; 12];
    first.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"HTTP/1.1 403");
    drop(clients);
    assert_eq!(status(address, &blocked), "403");
}

fn own_copy(bench: &Bench) -> PathBuf {
    let copy = bench.path("tokenblock");
    fs::copy(env!("CARGO_BIN_EXE_tokenblock"), &copy).unwrap();
    copy
}

/// `tokenblock run`, given a socket as systemd gives it.
fn with_socket(bench: &Bench, listener: &TcpListener, flags: &[&str]) -> Command {
    rustix::io::fcntl_setfd(listener, rustix::io::FdFlags::empty()).unwrap();
    let mut command = Command::new("bash");
    let script = r#"exec 3<&"$1"; shift; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@""#;
    command
        .args(["-c", script, "bash", &listener.as_raw_fd().to_string()])
        .args([env!("CARGO_BIN_EXE_tokenblock"), "run"])
        .args(flags)
        .current_dir(bench.folder.path())
        .stdin(Stdio::null());
    command
}

/// Restarts by a service manager that holds the socket, one process after the other, while clients come all the time.
#[test]
fn nobody_notices_a_restart_behind_a_socket_that_stays() {
    let bench = Bench::new();
    let origin = reload::origin('a');
    let upstream = format!("--upstream=http://{origin}");
    let flags = [
        "--denylist=list",
        "--proxy-listen=systemd",
        &upstream,
        "--state-dir=state",
        "--log-format=json",
    ];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let start = || {
        let running = Running::start(with_socket(&bench, &listener, &flags));
        running.line("in force");
        running
    };
    let mut running = start();
    let blocked = format!("/ HTTP/1.1\r\nAuthorization: {TOKEN}");
    let (done, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        assert_eq!(status(&address, "/ HTTP/1.1"), "200");
                        assert_eq!(status(&address, &blocked), "403");
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for _ in 0..3 {
            let before = asked.load(Ordering::Relaxed);
            while asked.load(Ordering::Relaxed) < before + 20 && !clients[0].is_finished() {
                thread::sleep(Duration::from_millis(5));
            }
            running.signal(Signal::TERM);
            assert_eq!(running.exit_code().0, 0);
            running = start();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(asked.into_inner() >= 60);
}

#[test]
fn the_socket_of_a_service_manager_is_taken() {
    let bench = Bench::new();
    let flags = [
        "--denylist=list",
        "--proxy-listen=systemd",
        "--upstream=http://127.0.0.1:9",
        "--state-dir=state",
        "--log-format=json",
    ];
    let (code, text) = bench.fails(&flags);
    assert!(
        code == 64 && text.contains("the service manager has passed 0 sockets"),
        "{text}"
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let start = || Running::start(with_socket(&bench, &listener, &flags));
    let mut running = start();
    assert_eq!(running.line("in force")["proxy"], *address);
    let blocked = format!("/ HTTP/1.1\r\nAuthorization: {TOKEN}");
    assert_eq!(status(&address, &blocked), "403");
    running.signal(Signal::TERM);
    assert_eq!(running.exit_code().0, 0);
    // Who comes between two processes waits for the second.
    thread::scope(|scope| {
        let waiting = scope.spawn(|| status(&address, &blocked));
        let _running = start();
        assert_eq!(waiting.join().unwrap(), "403");
    });
}

#[test]
fn a_list_of_hashes_is_enforced_by_the_proxy_in_every_spelling() {
    let bench = Bench::new();
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJzaG9wLTQxIn0";
    let sha256 = |text: &str| format!("sha256:{:x}", Sha256::digest(text));
    let either = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJzaG9wLTQyIn0";
    bench.write(
        "list",
        &format!(
            "{}\n{} kind=jws\n{} reason=\"partner\"\n{} kind=exact\nplain-token-1\n",
            sha256(TOKEN),
            sha256(jwt),
            sha256(either),
            sha256("a.b.exact-only"),
        ),
    );
    let running = Running::start(bench.proxy(&[]));
    let in_force = running.line("in force");
    assert_eq!(in_force["entries"], 5);
    let address = in_force["proxy"].as_str().unwrap();
    let header = |value: &str| format!("/ HTTP/1.1\r\nAuthorization: {value}");
    let basic = BASE64_STANDARD.encode(format!("user:{TOKEN}"));
    for blocked in [
        header(&format!("Bearer {TOKEN}")),
        header(&format!("bearer  {TOKEN}")),
        header(TOKEN),
        header(&format!("Basic {basic}")),
        header(&format!("Bearer {jwt}.any-signature")),
        header(&format!("Bearer {either}.any-signature")),
        header(&format!("Bearer {either}")),
        header("Bearer a.b.exact-only"),
        header("Bearer plain-token-1"),
        format!("/ HTTP/1.1\r\nCookie: a=b; session=\"{TOKEN}\""),
        format!("/ HTTP/1.1\r\nX-API-Key: x\r\nX-API-Key: {TOKEN}"),
        format!("/?access%5Ftoken={} HTTP/1.1", TOKEN.replace('_', "%5F")),
    ] {
        assert_eq!(status(address, &blocked), "403", "{blocked}");
    }
    // Nobody listens upstream.
    for passed in [
        header(&format!("Bearer {TOKEN}x")),
        header(&format!("Bearer {}", TOKEN.to_uppercase())),
        header(&format!("Bearer {jwt}")),
        header(&format!("Bearer {jwt}x.any-signature")),
        format!("/ HTTP/1.1\r\nX-Other: {TOKEN}"),
    ] {
        assert_eq!(status(address, &passed), "502", "{passed}");
    }

    // And at a change, while the file is broken too.
    bench.write(
        "list",
        &format!("plain-token-1\n{}\n", sha256("another-secret-9")),
    );
    let changed = running.line("denylist changed");
    assert_eq!(
        (&changed["added"], &changed["removed"]),
        (&1.into(), &4.into())
    );
    assert_eq!(status(address, &header("Bearer another-secret-9")), "403");
    assert_eq!(status(address, &header(&format!("Bearer {TOKEN}"))), "502");
    bench.write("list", "sha256:broken\n");
    running.line("stays in force");
    assert_eq!(status(address, &header("Bearer another-secret-9")), "403");
}

#[test]
fn the_api_firewalls_environment_works_as_it_is() {
    let bench = Bench::new();
    bench.write(
        "old",
        "Bearer old-token-one\n# just a token\nold-token-two\n",
    );
    let mut command = bench.proxy(&[]);
    command
        .env("APIFW_DENYLIST_TOKENS_FILE", "old")
        .env("APIFW_DENYLIST_TOKENS_HEADER_NAME", "X-Old")
        .env("APIFW_DENYLIST_TOKENS_COOKIE_NAME", "")
        .env("APIFW_DENYLIST_TOKENS_TRIM_BEARER_PREFIX", "false");
    let running = Running::start(command);
    let skipped = running.line("old:2: skipped");
    assert_eq!(skipped["level"], "WARN");
    assert_eq!(running.line("in force")["entries"], 4);
}

#[test]
fn no_token_reaches_the_log_or_the_state() {
    let bench = Bench::new();
    let mut running = Running::start(bench.proxy(&["--log-level=trace"]));
    running.line("in force");
    bench.write("list", &format!("{TOKEN}\n{TOKEN} oops\n"));
    running.line("list:2: what follows the token is no attribute");
    bench.write("list", &format!("{TOKEN}-new\n"));
    running.line("denylist changed, in force");
    running.signal(Signal::INT);
    assert_eq!(running.exit_code().0, 0);
    running.line("counters");
    assert_holds_no(TOKEN, &bench.path("state"));
}

fn assert_holds_no(token: &str, folder: &Path) {
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let mut bytes = Vec::new();
        fs::File::open(entry.unwrap().path())
            .unwrap()
            .read_to_end(&mut bytes)
            .unwrap();
        assert!(
            !bytes
                .windows(token.len())
                .any(|window| window == token.as_bytes())
        );
        files += 1;
    }
    assert!(files > 0, "{} is empty", folder.display());
}
