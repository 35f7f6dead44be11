//! Whole requests, as the network brings them: in one segment, in super-packets, in the thousandth place.

use tokenblock_tests::{
    certificate::Certificate,
    client::Client,
    fixtures::{OPAQUE, Token},
    gate,
};

use crate::lab::{LIMIT, Lab, SILENCE, Tier};

/// A GRO super-packet holds up to 64 KiB: the token stands after 16 to 60 KiB of other fields.
#[test]
fn a_token_deep_in_a_super_packet_is_found() {
    let Some(binary) = gate::product("segments::a_token_deep_in_a_super_packet_is_found") else {
        return;
    };
    let lab = Lab::new(binary, Tier::Kernel);
    lab.bench.pair.widen().unwrap();
    for server in lab.servers() {
        for depth in [16, 32, 48, 60] {
            let request = deep_request(depth * 1024, OPAQUE);
            let exchange = lab.exchange(server, &request, SILENCE);
            let name = format!("{depth} KiB to {server}");
            assert_eq!(exchange.answer.status(), None, "{name}");
            assert_eq!(
                lab.only_event(&exchange, &name).location.to_lowercase(),
                "header x-api-key"
            );
            assert!(
                !lab.bench.origin.saw(OPAQUE.as_bytes()),
                "{name}: the origin saw the token"
            );
            let clean = deep_request(depth * 1024, "another-token-of-some-length");
            let exchange = lab.exchange(server, &clean, LIMIT);
            assert_eq!(exchange.answer.status(), Some(200), "{name}: clean");
            assert!(
                lab.bench.origin.seen_from(exchange.client) == clean,
                "{name}: not byte for byte"
            );
        }
    }
}

fn deep_request(depth: usize, token: &str) -> Vec<u8> {
    let mut request = format!("POST / HTTP/1.1\r\nHost: {}\r\n", Certificate::HOST).into_bytes();
    let filler = format!("X-Filler: {}\r\n", "f".repeat(500));
    while request.len() + filler.len() < depth {
        request.extend_from_slice(filler.as_bytes());
    }
    request.extend_from_slice(
        format!("X-API-Key: {token}\r\nContent-Length: 4\r\n\r\nbody").as_bytes(),
    );
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
        .exchange(&Lab::request(Token::Opaque), SILENCE)
        .unwrap();
    assert_eq!(answer.status(), None, "{answer:?}\n{}", lab.product.log());
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
