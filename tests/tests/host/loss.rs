//! Uploads and downloads over paths that lose and reorder: bodies come through whole.

use std::{
    net::SocketAddr,
    path::{Path as FilePath, PathBuf},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tokenblock_tests::{
    bodies::{ALL, Body, Framing},
    certificate::Certificate,
    client::{Answer, Client},
    fixtures::binary,
    gate,
    netns::SERVER_V4,
    product::Product,
    program::{Program, script},
    relay::{Path, Relay},
};

use crate::lab::{Bench, Lab, ORIGIN_PORT, Tier};

/// How long one exchange may take on such a path.
const PATIENCE: Duration = Duration::from_mins(1);
const BODY: usize = 256 * 1024;
/// Where the origin of the long connections listens.
const STREAMS_PORT: u16 = 8090;

const PATHS: [Path; 3] = [path(1, 0), path(5, 0), path(0, 25)];

const fn path(lost: u64, early: u64) -> Path {
    Path {
        lost,
        early,
        delay: Duration::from_millis(2),
    }
}

fn connect(bench: &Bench) -> Client {
    let [server, _] = bench.pair.server_addresses(ORIGIN_PORT);
    Client::connect(&bench.pair.client, server).unwrap()
}

/// Sends a body in both framings, which must arrive whole.
fn upload(bench: &Bench, client: &mut Client, name: &str, body: &[u8]) {
    for framing in [Framing::Declared, Framing::Chunked] {
        let name = format!("{name}, {framing:?}");
        let answer = client.exchange(&framing.request(body), PATIENCE).unwrap();
        assert_eq!(answer.status(), Some(200), "{name}: {answer:?}");
        let requests = bench.origin.wait_for_requests(1, PATIENCE);
        let first = requests.first();
        assert!(first.is_some_and(|request| request.body == *body), "{name}");
        bench.origin.forget();
    }
}

/// Uploads on one connection, then downloads on it.
fn check(bench: &Bench, product: &Product, path: Path) {
    let mut client = connect(bench);
    for body in ALL {
        // In one that looks like requests nothing is passed ahead of a gap.
        let plain = matches!(body, Body::Binary | Body::Text | Body::Json | Body::Line);
        let len = if plain { BODY } else { BODY / 4 };
        upload(
            bench,
            &mut client,
            &format!("{path:?}, {body:?}"),
            &body.bytes(len),
        );
    }
    let get = format!(
        "GET /bytes/{BODY} HTTP/1.1\r\nHost: {}\r\n\r\n",
        Certificate::HOST
    );
    let answer = client.exchange(get.as_bytes(), PATIENCE).unwrap();
    let whole = matches!(&answer, Answer::Response { body, .. } if *body == binary(BODY));
    assert!(whole, "{path:?}: download");
    assert_unharmed(product, path);
}

/// Nothing was blocked, and no connection was reset.
fn assert_unharmed(product: &Product, path: Path) {
    for counter in ["blocked", "reset", "gap_conflict", "ambiguous_framing"] {
        let counted = product.kernel_counter(counter).unwrap();
        assert_eq!(counted, 0, "{path:?}: {counter}");
    }
}

fn lab(binary: PathBuf, relay: Relay) -> Lab {
    Bench::between(relay, binary).start(Tier::Kernel, &[])
}

#[test]
fn bodies_come_through_loss_and_reordering() {
    let Some(binary) = gate::product("loss::bodies_come_through_loss_and_reordering") else {
        return;
    };
    thread::scope(|scope| {
        for path in PATHS {
            let binary = binary.clone();
            scope.spawn(move || {
                let lab = lab(binary, Relay::new(path).unwrap());
                check(&lab.bench, &lab.product, path);
            });
        }
    });
}

/// On its way out of the client's host each segment passes the programs before the path may lose it.
#[test]
fn bodies_come_through_loss_behind_the_hook() {
    let Some(binary) = gate::product("loss::bodies_come_through_loss_behind_the_hook") else {
        return;
    };
    thread::scope(|scope| {
        for path in PATHS {
            let binary = binary.clone();
            scope.spawn(move || {
                let relay = Relay::with_large_packets(path).unwrap();
                let bench = Bench::between(relay, binary);
                let product = bench.start_at_client(&bench.egress());
                check(&bench, &product, path);
                let copied = product.kernel_counter("copied").unwrap();
                assert!(copied > 0 || path.lost == 0, "{path:?}");
            });
        }
    });
}

/// A `WebSocket`, server-sent events and a connection with hundreds of requests, by a library at both ends.
#[test]
fn long_connections_live_through_loss_and_reordering() {
    let test = "loss::long_connections_live_through_loss_and_reordering";
    let (Some(binary), Some(python)) = (gate::product(test), gate::python(test)) else {
        return;
    };
    thread::scope(|scope| {
        for path in PATHS {
            let (binary, python) = (binary.clone(), &python);
            scope.spawn(move || check_long(binary, python, path));
        }
    });
}

fn check_long(binary: PathBuf, python: &FilePath, path: Path) {
    let bench = Bench::between(Relay::new(path).unwrap(), binary);
    let mut command = script(&bench.pair.server, python, "streams_origin.py");
    let address = SocketAddr::new(SERVER_V4, STREAMS_PORT);
    let _origin = Program::serve(
        command.arg(STREAMS_PORT.to_string()),
        bench.folder.path(),
        &bench.pair.server,
        address,
    )
    .unwrap();
    let port = STREAMS_PORT.to_string();
    let lab = bench.start(Tier::Kernel, &["--port", &port]);
    for server in lab.bench.pair.server_addresses(STREAMS_PORT) {
        let ip = match server {
            SocketAddr::V4(address) => address.ip().to_string(),
            SocketAddr::V6(address) => format!("[{}]", address.ip()),
        };
        let output = script(&lab.bench.pair.client, python, "streams_client.py")
            .args([&ip, &port])
            .output()
            .unwrap();
        let said: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}\n{}", lab.product.log()));
        let expected = json!({ "web_socket": 106, "events": 300, "requests": [300, 1] });
        assert_eq!(said, expected, "{path:?}, {server}");
    }
    assert_unharmed(&lab.product, path);
    let scanned = lab.product.kernel_counter("scanned_bytes").unwrap();
    assert!(scanned >= 1_000_000, "{path:?}: {scanned}");
}
