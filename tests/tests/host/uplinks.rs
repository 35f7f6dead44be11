//! A connection whose packets come by two interfaces: by one after the other, as after a failure, or as their sender likes.

use std::{net::SocketAddr, path::PathBuf, thread, time::Duration};

use tokenblock_tests::{
    client::{Answer, Client},
    fixtures::{OPAQUE, Token, binary},
    gate,
    netns::{CLIENT_V4, CLIENT_V6, Pair, SERVER_V4, SERVER_V6, link},
};

use crate::lab::{Bench, LIMIT, Lab, ORIGIN_PORT, Tier};

/// The second link between client and server.
const SECOND: &str = "eth1";
/// Between two sends, so that they are segments of their own.
const PAUSE: Duration = Duration::from_millis(20);
const BODY: usize = 4 << 20;

/// Two links, of which the first is used.
fn linked_twice() -> Pair {
    let pair = Pair::new().unwrap();
    link(&pair.server, SECOND, &pair.client, SECOND).unwrap();
    for netns in [&pair.server, &pair.client] {
        netns.ip(&format!("link set {SECOND} up")).unwrap();
    }
    for name in ["all", SECOND] {
        let switch = format!("conf/{name}/rp_filter");
        pair.server.set_ipv4(&switch, "0").unwrap();
    }
    let mac = pair.server.mac(SECOND).unwrap();
    let mac = mac.map(|octet| format!("{octet:02x}")).join(":");
    for server in [SERVER_V4, SERVER_V6] {
        let there = format!("{server} lladdr {mac} dev {SECOND} nud permanent");
        pair.client
            .ip(&format!("neighbour replace {there}"))
            .unwrap();
    }
    pair
}

/// What the client sends goes by the second link from now on, or by the first.
fn go_by(pair: &Pair, second: bool) {
    let what = if second { "add" } else { "delete" };
    for (server, bits, client) in [(SERVER_V4, 32, CLIENT_V4), (SERVER_V6, 128, CLIENT_V6)] {
        let route = format!("route {what} {server}/{bits} dev {SECOND} src {client}");
        pair.client.ip(&route).unwrap();
    }
}

/// Sends a request with a listed token, cut at `at`, its two parts by different links.
fn send_cut(pair: &Pair, server: SocketAddr, at: usize, second_first: bool) -> Client {
    if second_first {
        go_by(pair, true);
    }
    let mut client = Client::connect(&pair.client, server).unwrap();
    let request = Lab::request(Token::Opaque);
    client.send(&request[..at]).unwrap();
    thread::sleep(PAUSE);
    go_by(pair, !second_first);
    client.send(&request[at..]).unwrap();
    thread::sleep(PAUSE);
    if !second_first {
        go_by(pair, false);
    }
    client
}

fn lab(product: PathBuf, uplinks: &str) -> Lab {
    let more = ["--interface", SECOND, "--uplink", uplinks, "--on-hit=reset"];
    Bench::between(linked_twice(), product).start(Tier::Kernel, &more)
}

#[test]
fn no_token_comes_by_two_uplinks() {
    let Some(product) = gate::product("uplinks::no_token_comes_by_two_uplinks") else {
        return;
    };
    let bench = Bench::between(linked_twice(), product.clone());
    let request = Lab::request(Token::Opaque);
    let middle = request.len() - 20;
    for server in bench.pair.server_addresses(ORIGIN_PORT) {
        let mut client = send_cut(&bench.pair, server, middle, false);
        assert_eq!(client.answer(LIMIT).status(), Some(200), "{server}");
        client.abort().unwrap();
    }
    assert!(bench.origin.saw(OPAQUE.as_bytes()), "it comes without");
    drop(bench);

    let lab = lab(product, "eth*");
    for server in lab.servers() {
        for at in (40..request.len()).step_by(9) {
            for second_first in [false, true] {
                let mut client = send_cut(&lab.bench.pair, server, at, second_first);
                let name = format!("{server}, cut at {at}, {second_first}");
                let answer = client.answer(LIMIT);
                assert_eq!(answer, Answer::Reset, "{name}\n{}", lab.product.log());
                client.abort().unwrap();
            }
        }
    }
    assert!(!lab.bench.origin.saw(OPAQUE.as_bytes()));
    assert_eq!(lab.product.kernel_counter("mid_stream").unwrap(), 0);
}

#[test]
fn connections_change_their_uplink_unharmed() {
    let Some(product) = gate::product("uplinks::connections_change_their_uplink_unharmed") else {
        return;
    };
    let lab = lab(product, "eth0,eth1");
    let body = binary(BODY);
    for server in lab.servers() {
        let mut client = Client::connect(&lab.bench.pair.client, server).unwrap();
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY}\r\n\r\n");
        client.send(head.as_bytes()).unwrap();
        let mut second = false;
        for part in body.chunks(BODY / 16) {
            second = !second;
            go_by(&lab.bench.pair, second);
            client.send(part).unwrap();
        }
        let answer = client.answer(LIMIT);
        assert_eq!(
            answer.status(),
            Some(200),
            "{server}\n{}",
            lab.product.log()
        );
        let requests = lab.bench.origin.wait_for_requests(1, LIMIT);
        assert!(requests.first().is_some_and(|request| request.body == body));
        // It ended by the first link.
        for second in [true, false, true, false] {
            go_by(&lab.bench.pair, second);
            let clean = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
            let answer = client.exchange(clean, LIMIT).unwrap();
            assert_eq!(answer.status(), Some(200), "{server}");
        }
        lab.bench.origin.forget();
    }
    assert_eq!(lab.product.kernel_counter("mid_stream").unwrap(), 0);
}
