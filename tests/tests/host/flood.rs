//! A hundred thousand clients who are not where they say, and what becomes of the others meanwhile.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use tokenblock_tests::{
    certificate::Certificate,
    client::{Answer, Client},
    fixtures::OPAQUE,
    gate, poll,
    raw::RawHost,
};

use crate::lab::{Bench, LIMIT, Tier};

/// Senders of each family.
const SENDERS: u16 = 50_000;
/// The networks that they say they are in.
const NETWORKS: [&str; 2] = ["10.78.0.0/16", "fd78::/64"];
/// Between two sends, so that they are segments of their own.
const PAUSE: Duration = Duration::from_millis(3);
/// More than the first two retransmissions take.
const RETRANSMISSIONS: Duration = Duration::from_millis(900);
/// As long as [`OPAQUE`], and not listed.
const CLEAN: &str = "3f786850e387550fdab836ed7e6dc881de23001c";

/// A request, cut inside of its token.
fn cut(token: &str) -> [Vec<u8>; 2] {
    let host = Certificate::HOST;
    let request =
        format!("GET / HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n");
    let (one, two) = request.split_at(request.len() - 20);
    [one, two].map(|part| part.as_bytes().to_vec())
}

/// Each sender sends a SYN, which the server answers, and the first part of a request as if it had heard it.
fn flood(host: &RawHost<'_>, server: SocketAddr) {
    let [begun, _] = cut(OPAQUE);
    let mut sender = host.client(server, 1).unwrap();
    for number in 0..SENDERS {
        let [high, low] = number.to_be_bytes();
        let port = 1024 + number % 50_000;
        let address = match server {
            SocketAddr::V4(_) => Ipv4Addr::new(10, 78, high, low).into(),
            SocketAddr::V6(_) => Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, number).into(),
        };
        sender.become_another(SocketAddr::new(address, port));
        sender.send_syn(1000, b"").unwrap();
        let mut segment = sender.segment(0, begun.clone());
        // Guessed.
        segment.tcp.acknowledgment_number = 0x1234_5678;
        // Every other is one that the host does not answer by RST.
        segment.bad_checksum = number % 2 == 0;
        sender.send(&segment).unwrap();
    }
}

/// Sends a request cut inside of its token, and waits for the answer.
fn ask(client: &mut Client, token: &str) -> Answer {
    let [one, two] = cut(token);
    client.send(&one).unwrap();
    thread::sleep(PAUSE);
    client.exchange(&two, LIMIT).unwrap()
}

#[test]
fn a_hundred_thousand_half_open_connections_harm_nobody() {
    let Some(binary) = gate::product("flood::a_hundred_thousand_half_open_connections_harm_nobody")
    else {
        return;
    };
    let lab = Bench::new(binary).start(Tier::Kernel, &["--on-hit=reset", "--max-flows=512"]);
    let host = RawHost::new(&lab.bench.pair).unwrap();
    host.lead_to(NETWORKS).unwrap();
    let connect = |server| Client::connect(&lab.bench.pair.client, server).unwrap();
    let counter = |name: &str| lab.product.kernel_counter(name).unwrap();
    let [one, two] = cut(OPAQUE);
    // From before: a connection inside of a listed token, and one that asks all the time.
    let mut split = lab.servers().map(connect);
    for client in &mut split {
        client.send(&one).unwrap();
    }
    let mut long = lab.servers().map(connect);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let servers = lab.servers();
        let host = &host;
        let floods = servers.map(|server| scope.spawn(move || flood(host, server)));
        scope.spawn(|| {
            for flood in floods {
                flood.join().unwrap();
            }
            over.store(true, Relaxed);
        });
        let mut asked = 0;
        while !over.load(Relaxed) {
            for (server, long) in lab.servers().into_iter().zip(&mut long) {
                assert_eq!(ask(long, CLEAN).status(), Some(200), "{asked}");
                let mut new = connect(server);
                assert_eq!(ask(&mut new, CLEAN).status(), Some(200), "{asked}");
                assert_eq!(ask(&mut connect(server), OPAQUE), Answer::Reset, "{asked}");
            }
            asked += 1;
        }
        assert!(asked > 0);
    });
    for client in &mut split {
        drop(client.send(&two));
    }
    thread::sleep(RETRANSMISSIONS);
    assert!(!lab.bench.origin.saw(OPAQUE.as_bytes()));
    assert!(counter("flow_table_full") > 0);
    // They have half of the table, and no more.
    let swept = || Some(counter("newcomers")).filter(|newcomers| *newcomers != 0);
    assert_eq!(poll::until(LIMIT, swept), Some(256));
    assert!(counter("flows") <= 512);
}
