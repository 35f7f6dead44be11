//! Clients that don't wait for an answer before they ask again, and connections that are older than the product.

use std::{net::SocketAddr, time::Duration};

use rustix::process::Signal;
use tokenblock_tests::{
    client::{Answer, Client},
    fixtures::{OPAQUE, Token},
    gate,
};

use crate::lab::{Bench, LIMIT, Lab, ORIGIN_PORT, Tier};

/// What the server thinks about for long, and its answer.
const HELD: &str = "/held";
const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 20\r\n\r\n01234567890123456789";
/// How long silence is awaited.
const QUIET: Duration = Duration::from_millis(50);

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: origin.test\r\n\r\n").into_bytes()
}

#[test]
fn a_listed_request_behind_an_unanswered_one_is_reset() {
    let Some(binary) = gate::product("pipelines::a_listed_request_behind_an_unanswered_one") else {
        return;
    };
    let lab = Bench::new(binary).start(Tier::Kernel, &["--on-hit", "forbid"]);
    lab.bench.origin.hold(HELD, RESPONSE, 0);
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
            let already = lab.product.kernel_counter("reset").unwrap();
            client.send(&Lab::request(Token::Opaque)).unwrap();
            // Nothing that could be taken for an answer to the request before.
            assert_eq!(client.rest(LIMIT).unwrap(), (Vec::new(), true), "{name}");
            assert_eq!(lab.product.kernel_counter("reset").unwrap(), already + 1);
            assert!(!lab.bench.origin.saw(OPAQUE.as_bytes()), "{name}");
        }
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
