//! Whole requests, as the network brings them: in one segment, in super-packets, in the thousandth place.

use std::net::SocketAddr;

use tokenblock_tests::{
    certificate::Certificate,
    client::Client,
    fixtures::{OPAQUE, Token},
    gate,
};

use crate::lab::{LIMIT, Lab, Tier};

/// Segment sizes over Ethernet with time stamps: IPv4, IPv6.
const SEGMENTS: [usize; 2] = [1448, 1428];
/// Bytes of an upload that widens the window.
const WARM: usize = 2 * 1024 * 1024;

/// A GRO super-packet holds up to 64 KiB: the token stands after 16 to 60 KiB of other fields.
#[test]
fn a_token_deep_in_a_super_packet_is_found() {
    let Some(binary) = gate::product("segments::a_token_deep_in_a_super_packet_is_found") else {
        return;
    };
    let lab = Lab::new(binary, Tier::Kernel);
    for server in lab.servers() {
        for depth in [16, 32, 48, 58] {
            let name = format!("{depth} KiB to {server}");
            let mut client = warm(&lab, server);
            let clean = deep_request(depth * 1024, "another-token-of-some-length");
            assert_eq!(
                client.exchange(&clean, LIMIT).unwrap().status(),
                Some(200),
                "{name}: clean"
            );
            assert!(lab.bench.origin.saw(&clean), "{name}: not byte for byte");
            let answer = client
                .exchange(&deep_request(depth * 1024, OPAQUE), LIMIT)
                .unwrap();
            assert_eq!(answer.status(), Some(403), "{name}: {answer:?}");
            let events = lab
                .product
                .wait_for_events(client.address().unwrap(), LIMIT);
            let found: Vec<_> = events
                .iter()
                .map(|event| event.location.to_lowercase())
                .collect();
            assert!(
                found.contains(&"header x-api-key".to_owned()),
                "{name}: {found:?}"
            );
            assert!(
                !lab.bench.origin.saw(OPAQUE.as_bytes()),
                "{name}: the origin saw the token"
            );
            client.abort().unwrap();
            lab.bench.origin.forget();
        }
    }
}

/// A connection whose window is so wide that 64 KiB leave as one packet.
fn warm(lab: &Lab, server: SocketAddr) -> Client {
    let mut client = Client::connect(&lab.bench.pair.client, server).unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: ",
        Certificate::HOST
    );
    let upload = format!("{head}{WARM}\r\n\r\n{}", "w".repeat(WARM));
    for _ in 0..3 {
        let answer = client.exchange(upload.as_bytes(), LIMIT).unwrap();
        assert_eq!(answer.status(), Some(200), "{answer:?}");
    }
    client
}

/// A request whose token line begins behind `depth` bytes, well inside a segment: what is dropped is sent again
/// in segments, and a token that is cut over two of them is for the tests of streams.
fn deep_request(depth: usize, token: &str) -> Vec<u8> {
    let mut request = format!("POST / HTTP/1.1\r\nHost: {}\r\n", Certificate::HOST).into_bytes();
    let inside = |at: usize| {
        SEGMENTS
            .iter()
            .all(|size| (100..1200).contains(&(at % size)))
    };
    while request.len() < depth || !inside(request.len()) {
        request.extend_from_slice(b"X-Filler: some-text-that-is-no-token-at-all\r\n");
    }
    let end = format!("X-API-Key: {token}\r\nContent-Length: 4\r\n\r\nbody");
    request.extend_from_slice(end.as_bytes());
    request
}

#[test]
fn a_kept_alive_connection_is_judged_to_its_end() {
    let Some(binary) = gate::product("segments::a_kept_alive_connection_is_judged_to_its_end")
    else {
        return;
    };
    let lab = Lab::new(binary, Tier::Kernel);
    let [server, _] = lab.servers();
    let mut client = Client::connect(&lab.bench.pair.client, server).unwrap();
    for i in 0..1000 {
        let request = format!("GET /{i} HTTP/1.1\r\nHost: {}\r\n\r\n", Certificate::HOST);
        let answer = client.exchange(request.as_bytes(), LIMIT).unwrap();
        assert_eq!(answer.status(), Some(200), "request {i}: {answer:?}");
    }
    let answer = client
        .exchange(&Lab::request(Token::Opaque), LIMIT)
        .unwrap();
    assert_eq!(
        answer.status(),
        Some(403),
        "{answer:?}\n{}",
        lab.product.log()
    );
    assert!(!lab.bench.origin.saw(OPAQUE.as_bytes()));
    client.abort().unwrap();
}

#[test]
fn other_ports_are_left_alone() {
    let Some(binary) = gate::product("segments::other_ports_are_left_alone") else {
        return;
    };
    let lab = Lab::new(binary, Tier::Kernel);
    let other = tokenblock_tests::origin::Origin::start(&lab.bench.pair.server, 0).unwrap();
    for server in lab.bench.pair.server_addresses(other.port()) {
        let exchange = lab.exchange(server, &Lab::request(Token::Opaque), LIMIT);
        assert_eq!(exchange.answer.status(), Some(200), "{server}");
    }
}
