//! Watching only, and guarding what leaves a host.

use std::ffi::OsString;

use tokenblock_tests::{
    client::Client,
    fixtures::{OPAQUE, Token},
    gate,
    netns::INTERFACE,
};

use crate::lab::{Bench, LIMIT, Lab, ORIGIN_PORT, Tier};

#[test]
fn monitor_reports_and_passes() {
    let Some(binary) = gate::product("modes::monitor_reports_and_passes") else {
        return;
    };
    for tier in [Tier::Kernel, Tier::Proxy] {
        let lab = Bench::new(binary.clone()).start(tier, &["--monitor"]);
        for server in lab.servers() {
            let exchange = lab.exchange(server, &Lab::request(Token::Jwt), LIMIT);
            assert_eq!(
                exchange.answer.status(),
                Some(200),
                "{tier:?} {server}\n{}",
                lab.product.log()
            );
            let event = lab.only_event(&exchange, &format!("{tier:?} {server}"));
            assert_eq!(
                (event.action.as_str(), event.token),
                ("alerted", Token::Jwt.short_id())
            );
        }
        assert_eq!(lab.bench.origin.wait_for_requests(2, LIMIT).len(), 2);
    }
}

#[test]
fn egress_keeps_tokens_on_the_client() {
    let Some(binary) = gate::product("modes::egress_keeps_tokens_on_the_client") else {
        return;
    };
    let bench = Bench::new(binary);
    let mut args = bench.common();
    for arg in [
        "--interface",
        INTERFACE,
        "--direction",
        "egress",
        "--port",
        &ORIGIN_PORT.to_string(),
    ] {
        args.push(OsString::from(arg));
    }
    let product = bench.start_at_client(&args);
    for server in bench.pair.server_addresses(ORIGIN_PORT) {
        let mut client = Client::connect(&bench.pair.client, server).unwrap();
        let answer = client
            .exchange(&Lab::request(Token::Opaque), LIMIT)
            .unwrap();
        assert_eq!(
            answer.status(),
            Some(403),
            "{server}: {answer:?}\n{}",
            product.log()
        );
        let events = product.wait_for_events(client.address().unwrap(), LIMIT);
        assert!(!events.is_empty(), "{server}\n{}", product.log());
        client.abort().unwrap();
        let mut client = Client::connect(&bench.pair.client, server).unwrap();
        let answer = client
            .exchange(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", LIMIT)
            .unwrap();
        assert_eq!(answer.status(), Some(200), "{server}: {answer:?}");
    }
    assert!(!bench.origin.saw(OPAQUE.as_bytes()));
}
