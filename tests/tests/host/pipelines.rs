//! Clients that don't wait for an answer before they ask again, and connections that are older than the product.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use rustix::process::Signal;
use tokenblock_tests::{
    client::{Answer, Client},
    fixtures::{OPAQUE, Token, binary},
    gate,
};

use crate::lab::{Bench, LIMIT, Lab, ORIGIN_PORT, Tier};

/// What the server thinks about for long, and its answer.
const HELD: &str = "/held";
const RESPONSES: [(&str, &[u8]); 2] = [
    (
        "declared",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 33\r\n\r\n\
        thirty-three bytes of a plain one",
    ),
    (
        "chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
        16\r\nthe first of two parts\r\n8\r\nof them.\r\n0\r\n\r\n",
    ),
];
/// As long as no sockets on the way hold.
const LARGE: usize = 16 << 20;
/// How long silence is awaited.
const QUIET: Duration = Duration::from_millis(50);

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: origin.test\r\n\r\n").into_bytes()
}

fn lab(product: PathBuf) -> Lab {
    Bench::new(product).start(Tier::Kernel, &["--on-hit", "forbid"])
}

/// Sends a listed request behind others: the connection must end by a reset, and bring nothing but
/// what is `due`, as it was on its way.
fn assert_reset(lab: &Lab, client: &mut Client, due: &[u8], name: &str) {
    let before = lab.product.kernel_counter("reset").unwrap();
    client.send(&Lab::request(Token::Opaque)).unwrap();
    let (came, reset) = client.rest(LIMIT).unwrap();
    let odd = came.iter().zip(due).position(|(got, byte)| got != byte);
    assert_eq!(odd, None, "{name}: {came:?}");
    assert!(came.len() <= due.len(), "{name}: {came:?}");
    assert!(reset, "{name}: no reset\n{}", lab.product.log());
    assert_eq!(lab.product.kernel_counter("reset").unwrap(), before + 1);
    assert!(!lab.bench.origin.saw(OPAQUE.as_bytes()), "{name}");
}

#[test]
fn a_listed_request_behind_an_unanswered_one_is_reset() {
    let Some(binary) = gate::product("pipelines::a_listed_request_behind_an_unanswered_one") else {
        return;
    };
    let lab = lab(binary);
    lab.bench.origin.hold(HELD, b"", 0);
    for server in lab.servers() {
        for (name, before) in [("one", 0), ("the third", 2)] {
            lab.bench.origin.forget();
            let name = format!("{name} to {server}");
            let mut client = Client::connect(&lab.bench.pair.client, server).unwrap();
            for _ in 0..before {
                let answer = client.exchange(&get("/"), LIMIT).unwrap();
                assert_eq!(answer.status(), Some(200), "{name}");
            }
            client.send(&get(HELD)).unwrap();
            let seen = lab.bench.origin.wait_for_requests(before + 1, LIMIT);
            assert_eq!(seen.len(), before + 1, "{name}");
            assert_reset(&lab, &mut client, b"", &name);
        }
    }
}

/// Part of a response has come, and the server thinks about the rest; once all has come, a 403 is understood.
#[test]
fn no_403_stands_inside_a_response() {
    let Some(product) = gate::product("pipelines::no_403_stands_inside_a_response") else {
        return;
    };
    let lab = lab(product);
    for (framing, response) in RESPONSES {
        for left in [response.len() - 20, 30, 7, 1] {
            let first = response.len() - left;
            lab.bench.origin.hold(HELD, response, first);
            for server in lab.servers() {
                let name = format!("{framing}, {first} bytes, to {server}");
                let mut client = Client::connect(&lab.bench.pair.client, server).unwrap();
                client.send(&get(HELD)).unwrap();
                client.take(first, LIMIT).unwrap();
                assert_reset(&lab, &mut client, b"", &name);
            }
        }
        lab.bench.origin.hold(HELD, response, response.len() - 20);
        lab.bench.origin.release(HELD);
        for server in lab.servers() {
            let mut client = Client::connect(&lab.bench.pair.client, server).unwrap();
            for _ in 0..3 {
                client.send(&get(HELD)).unwrap();
                assert_eq!(client.take(response.len(), LIMIT).unwrap(), response);
            }
            let listed = client
                .exchange(&Lab::request(Token::Opaque), LIMIT)
                .unwrap();
            assert_eq!(listed.status(), Some(403), "{framing} {server}: {listed:?}");
        }
    }
}

/// The client has not read what came of it yet, so that the server can't send the rest.
#[test]
fn no_403_stands_inside_a_download() {
    let Some(product) = gate::product("pipelines::no_403_stands_inside_a_download") else {
        return;
    };
    let lab = lab(product);
    let body = binary(LARGE);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
    let whole = [head.as_bytes(), &body].concat();
    for server in lab.servers() {
        let mut client = Client::connect(&lab.bench.pair.client, server).unwrap();
        client.send(&get(&format!("/bytes/{LARGE}"))).unwrap();
        let (taken, rest) = whole.split_at(100_000);
        assert!(
            client.take(taken.len(), LIMIT).unwrap() == taken,
            "{server}"
        );
        assert_reset(&lab, &mut client, rest, &server.to_string());
    }
}

/// Kept-alive connections that were open before the product ran: idle, and in the middle of a request.
#[test]
fn connections_from_before_are_judged() {
    let Some(binary) = gate::product("pipelines::connections_from_before_are_judged") else {
        return;
    };
    for (on_hit, answer) in [("forbid", Some(403)), ("reset", None)] {
        let bench = Bench::new(binary.clone());
        let servers = bench.pair.server_addresses(ORIGIN_PORT);
        let connect = |server: &SocketAddr| Client::connect(&bench.pair.client, *server).unwrap();
        let mut idle: Vec<_> = servers.iter().map(connect).collect();
        let mut busy: Vec<_> = servers.iter().map(connect).collect();
        for client in idle.iter_mut().chain(&mut busy) {
            assert_eq!(
                client.exchange(&get("/"), LIMIT).unwrap().status(),
                Some(200)
            );
        }
        // A header field has begun, and the token that it brings comes later.
        for client in &mut busy {
            client
                .send(b"GET / HTTP/1.1\r\nHost: origin.test\r\n")
                .unwrap();
            assert_eq!(client.answer(QUIET), Answer::Silence(Vec::new()));
        }
        let mut lab = bench.start(Tier::Kernel, &["--on-hit", on_hit]);
        for client in &mut idle {
            let clean = client.exchange(&get("/"), LIMIT).unwrap();
            assert_eq!(clean.status(), Some(200), "{on_hit}");
            let listed = client
                .exchange(&Lab::request(Token::Opaque), LIMIT)
                .unwrap();
            assert_eq!(listed.status(), answer, "{on_hit}: {listed:?}");
        }
        for client in &mut busy {
            let rest = format!("Authorization: Bearer {OPAQUE}\r\n\r\n");
            let listed = client.exchange(rest.as_bytes(), LIMIT).unwrap();
            assert_eq!(listed.status(), answer, "{on_hit}: {listed:?}");
        }
        assert_eq!(lab.product.kernel_counter("blocked").unwrap(), 4);
        assert!(!lab.bench.origin.saw(OPAQUE.as_bytes()), "{on_hit}");
        lab.product.signal(Signal::TERM).unwrap();
        lab.product.wait(LIMIT).unwrap();
    }
}
