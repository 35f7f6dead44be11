//! Watching only, and guarding what leaves a host.

use std::{thread, time::Duration};

use rustix::process::Signal;
use tokenblock_tests::{
    client::Client,
    fixtures::{OPAQUE, Token},
    gate,
};

use crate::{
    lab::{Bench, LIMIT, Lab, ORIGIN_PORT, Tier},
    lifecycle::attached,
};

/// Between two sends, so that they are segments of their own.
const PAUSE: Duration = Duration::from_millis(3);

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
    let product = bench.start_at_client(&bench.egress());
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
        // What the host sends in packets of 64 KiB, and on the same connection a token in two parts.
        let body = vec![b'b'; 1 << 20];
        let head = format!(
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let answer = client
            .exchange(&[head.as_bytes(), &body].concat(), LIMIT)
            .unwrap();
        assert_eq!(answer.status(), Some(200), "{server}: {answer:?}");
        let request = Lab::request(Token::Opaque);
        let (one, two) = request.split_at(request.len() - 20);
        client.send(one).unwrap();
        thread::sleep(PAUSE);
        let answer = client.exchange(two, LIMIT).unwrap();
        assert_eq!(
            answer.status(),
            Some(403),
            "{server}: {answer:?}\n{}",
            product.log()
        );
    }
    assert!(!bench.origin.saw(OPAQUE.as_bytes()));
    let requests = bench.origin.wait_for_requests(4, LIMIT);
    assert_eq!(requests.len(), 4, "two of each family");
}

#[test]
fn clsact_serves_where_there_is_no_tcx() {
    let Some(binary) = gate::product("modes::clsact_serves_where_there_is_no_tcx") else {
        return;
    };
    let mut lab = Bench::new(binary).start(Tier::Kernel, &["--attach", "clsact"]);
    let filters = attached(&lab.bench.pair.server);
    assert!(
        filters.iter().any(|line| line.contains("ingress_ethernet"))
            && filters.iter().any(|line| line.contains("egress_ethernet"))
            && !filters.iter().any(|line| line.contains("tcx")),
        "{filters:?}"
    );
    for server in lab.servers() {
        let exchange = lab.exchange(server, &Lab::request(Token::Jwt), LIMIT);
        assert_eq!(exchange.answer.status(), Some(403), "{server}");
    }
    lab.product.signal(Signal::TERM).unwrap();
    let end = lab.product.wait(LIMIT).unwrap();
    assert_eq!(end.code(), Some(0), "{}", end.log);
    assert_eq!(attached(&lab.bench.pair.server), [""; 0]);
}
