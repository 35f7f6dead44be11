//! Every fixture through each tier, over IPv4 and IPv6.

use std::net::SocketAddr;

use tokenblock_tests::{
    certificate::Certificate,
    fixtures::{Expected, Fixture, Form, LOCATIONS, OPAQUE, Token, all},
    gate,
    origin::{PythonServer, Request},
    poll,
    product::Event,
};

use crate::lab::{Bench, LIMIT, Lab, SILENCE, Tier};

/// Bytes that a segment of a new connection surely holds (Ethernet's MTU less the headers).
const SEGMENT: usize = 1400;

#[test]
fn kernel() {
    let Some(binary) = gate::product("verdicts::kernel") else {
        return;
    };
    let lab = Lab::new(binary, Tier::Kernel);
    for server in lab.servers() {
        for fixture in all() {
            lab.bench.origin.forget();
            match fixture.expected {
                Expected::Block { location, token } => {
                    kernel_blocks(&lab, server, &fixture, location, token);
                }
                Expected::Pass => kernel_passes(&lab, server, &fixture),
            }
        }
    }
    lab.assert_no_token_shown();
}

fn kernel_blocks(lab: &Lab, server: SocketAddr, fixture: &Fixture, location: usize, token: Token) {
    let name = format!("{} to {server}", fixture.name);
    let request = fixture.bytes(Certificate::HOST);
    let exchange = lab.exchange(server, &request, LIMIT);
    assert_eq!(
        exchange.answer.status(),
        Some(403),
        "{name}: {:?}\n{}",
        exchange.answer,
        lab.product.log()
    );
    let event = lab.only_event(&exchange, &name);
    check_event(&event, "kernel", location, token, &name);
    assert_not_received(lab, exchange.client, request.len(), &name);
}

fn kernel_passes(lab: &Lab, server: SocketAddr, fixture: &Fixture) {
    let name = format!("{} to {server}", fixture.name);
    let request = fixture.bytes(Certificate::HOST);
    let exchange = lab.exchange(server, &request, LIMIT);
    assert_eq!(
        exchange.answer.status(),
        Some(200),
        "{name}: {:?}\n{}",
        exchange.answer,
        lab.product.log()
    );
    assert_eq!(
        lab.bench.origin.seen_from(exchange.client),
        request,
        "{name}"
    );
    assert_eq!(lab.events_of(&exchange), [], "{name}");
}

#[test]
fn proxy() {
    let Some(binary) = gate::product("verdicts::proxy") else {
        return;
    };
    let lab = Lab::new(binary, Tier::Proxy);
    for server in lab.servers() {
        for fixture in all() {
            lab.bench.origin.forget();
            match (fixture.form, fixture.expected) {
                (Form::Strict, Expected::Block { location, token }) => {
                    proxy_refuses(&lab, server, &fixture, location, token);
                }
                (Form::Strict, Expected::Pass) => proxy_forwards(&lab, server, &fixture),
                (Form::Raw, _) => proxy_lets_nothing_through(&lab, server, &fixture),
            }
        }
    }
    lab.assert_no_token_shown();
}

fn proxy_refuses(lab: &Lab, server: SocketAddr, fixture: &Fixture, location: usize, token: Token) {
    let name = format!("{} to {server}", fixture.name);
    let exchange = lab.exchange(server, &fixture.bytes(Certificate::HOST), LIMIT);
    assert_eq!(
        exchange.answer.status(),
        Some(403),
        "{name}: {:?}\n{}",
        exchange.answer,
        lab.product.log()
    );
    check_event(
        &lab.only_event(&exchange, &name),
        "proxy",
        location,
        token,
        &name,
    );
    assert_unseen(lab, &name);
}

fn proxy_forwards(lab: &Lab, server: SocketAddr, fixture: &Fixture) {
    let name = format!("{} to {server}", fixture.name);
    let exchange = lab.exchange(server, &fixture.bytes(Certificate::HOST), LIMIT);
    assert_eq!(
        exchange.answer.status(),
        Some(200),
        "{name}: {:?}\n{}",
        exchange.answer,
        lab.product.log()
    );
    let requests = lab.bench.origin.wait_for_requests(1, LIMIT);
    let [request] = &requests[..] else {
        panic!("{name}: one request expected, not {requests:?}");
    };
    assert_same_request(fixture, request, &name);
    assert_eq!(lab.events_of(&exchange), [], "{name}");
}

/// Method, target, all fields and the body, as they were sent.
fn assert_same_request(fixture: &Fixture, request: &Request, name: &str) {
    let line = format!("{} {} HTTP/1.1", fixture.method, fixture.target);
    assert_eq!(request.line, line, "{name}");
    for field in &fixture.lines {
        let colon = field.iter().position(|byte| *byte == b':').unwrap();
        let (field_name, value) = (
            str::from_utf8(&field[..colon]).unwrap(),
            field[colon + 1..].trim_ascii(),
        );
        let mut found = request.values(field_name);
        assert!(
            found.any(|v| v == value),
            "{name}: no {field_name} as sent in {request:?}"
        );
    }
    assert_eq!(
        request.body.len(),
        fixture.body.len(),
        "{name}: length of the body"
    );
    assert!(request.body == fixture.body, "{name}: the body is another");
}

/// What a strict parser refuses is refused, and what it takes is judged: the origin sees neither.
fn proxy_lets_nothing_through(lab: &Lab, server: SocketAddr, fixture: &Fixture) {
    let name = format!("{} to {server}", fixture.name);
    let exchange = lab.exchange(server, &fixture.bytes(Certificate::HOST), SILENCE);
    assert_ne!(
        exchange.answer.status(),
        Some(200),
        "{name}\n{}",
        lab.product.log()
    );
    assert_unseen(lab, &name);
}

fn check_event(event: &Event, tier: &str, location: usize, token: Token, name: &str) {
    assert_eq!(event.tier, tier, "{name}");
    assert_eq!(event.action, "blocked", "{name}");
    assert_eq!(event.token, token.short_id(), "{name}");
    let (kind, location) = LOCATIONS[location];
    let location = format!("{kind:?} {location}").to_lowercase();
    assert_eq!(event.location.to_lowercase(), location, "{name}");
}

/// The application got no byte of a request that bears a listed token.
fn assert_unseen(lab: &Lab, name: &str) {
    let seen = lab.bench.origin.connections();
    let bytes: Vec<u8> = seen
        .into_iter()
        .flat_map(|connection| connection.bytes)
        .collect();
    assert_eq!(
        String::from_utf8_lossy(&bytes),
        "",
        "{name}: the origin saw it"
    );
}

/// The same of one client, where the request came in one segment; of a longer one, the application never got
/// the end.
fn assert_not_received(lab: &Lab, client: SocketAddr, length: usize, name: &str) {
    let seen = lab.bench.origin.seen_from(client);
    let most = if length <= SEGMENT { 0 } else { length - 1 };
    assert!(
        seen.len() <= most,
        "{name}: the origin saw {:?}",
        String::from_utf8_lossy(&seen)
    );
}

/// A refused request costs its client no connection: the next one on it is served.
#[test]
fn proxy_keeps_a_refused_connection() {
    let Some(binary) = gate::product("verdicts::proxy_keeps_a_refused_connection") else {
        return;
    };
    let lab = Lab::new(binary, Tier::Proxy);
    let [server, _] = lab.servers();
    let netns = &lab.bench.pair.client;
    let mut client =
        tokenblock_tests::client::TlsClient::connect(netns, server, &lab.bench.certificate)
            .unwrap();
    let answer = client
        .exchange(&Lab::request(Token::Opaque), LIMIT)
        .unwrap();
    assert_eq!(answer.status(), Some(403), "{answer:?}");
    let answer = client
        .exchange(b"GET / HTTP/1.1\r\nHost: origin.test\r\n\r\n", LIMIT)
        .unwrap();
    assert_eq!(
        answer.status(),
        Some(200),
        "{answer:?}\n{}",
        lab.product.log()
    );
}

/// The `h2` way in: the same verdicts, by curl.
#[test]
fn proxy_over_http2() {
    let Some(binary) = gate::product("verdicts::proxy_over_http2") else {
        return;
    };
    let lab = Lab::new(binary, Tier::Proxy);
    let [server, _] = lab.servers();
    let url = format!("https://{}:{}/", Certificate::HOST, server.port());
    let resolve = format!("{}:{}:{}", Certificate::HOST, server.port(), server.ip());
    let ca = lab.bench.certificate.cert_file.to_str().unwrap();
    let token = Token::Opaque.text();
    let ask = |header: &str| {
        let args = [
            "--http2",
            "--cacert",
            ca,
            "--resolve",
            &resolve,
            "--header",
            header,
            &url,
        ];
        tokenblock_tests::client::curl(&lab.bench.pair.client, &args).unwrap()
    };
    let (status, body) = ask(&format!("Authorization: Bearer {token}"));
    assert_eq!(status, 403, "{body}\n{}", lab.product.log());
    assert!(!body.contains(&token), "{body}");
    assert!(!lab.bench.origin.saw(token.as_bytes()));
    let (status, body) = ask(&format!("Authorization: Bearer {token}0"));
    assert_eq!(
        (status, body.as_str()),
        (200, "hello"),
        "{}",
        lab.product.log()
    );
    let reported = poll::until(LIMIT, || (lab.product.events().len() == 1).then_some(()));
    assert!(reported.is_some(), "{}", lab.product.log());
}

/// A server that others wrote: its log has the clean requests and none of the others.
#[test]
fn kernel_before_python() {
    let Some(binary) = gate::product("verdicts::kernel_before_python") else {
        return;
    };
    let lab = Bench::new(binary).start(Tier::Kernel, &["--port", "8000"]);
    let python =
        PythonServer::start(&lab.bench.pair.server, lab.bench.folder.path(), 8000).unwrap();
    let [server, _] = lab.bench.pair.server_addresses(8000);
    let mut blocked = 0;
    for fixture in all().iter().filter(|fixture| fixture.is_blocked()) {
        let exchange = lab.exchange(server, &fixture.bytes(Certificate::HOST), LIMIT);
        assert_eq!(
            exchange.answer.status(),
            Some(403),
            "{}: {:?}",
            fixture.name,
            exchange.answer
        );
        blocked += 1;
    }
    let clean = b"GET /server.crt HTTP/1.1\r\nHost: origin.test\r\n\r\n";
    assert_eq!(
        lab.exchange(server, clean, LIMIT).answer.status(),
        Some(200)
    );
    let log = python.log();
    let answered = log.lines().filter(|line| line.contains(" 200 ")).count();
    assert_eq!(
        answered, 1,
        "{blocked} requests were blocked, but it served:\n{log}"
    );
}

/// Request lines that few servers take, this one among them: with another value they are served.
#[test]
fn odd_request_lines_before_python() {
    let Some(binary) = gate::product("verdicts::odd_request_lines_before_python") else {
        return;
    };
    let lab = Bench::new(binary).start(Tier::Kernel, &["--port", "8000"]);
    let python =
        PythonServer::start(&lab.bench.pair.server, lab.bench.folder.path(), 8000).unwrap();
    let [server, _] = lab.bench.pair.server_addresses(8000);
    let lines = [
        (200, " GET /server.crt?access_token=TOKEN HTTP/1.1"),
        (200, "\t \u{b}GET /server.crt?access_token=TOKEN HTTP/1.1"),
        (200, "GET\u{b}/server.crt?access_token=TOKEN\u{b}HTTP/1.1"),
        (200, "GET \t/server.crt?a=\u{1}&access_token=TOKEN HTTP/1.1"),
        (
            200,
            "GET /server.crt?access_token=a\u{1}&access_token=TOKEN HTTP/1.1",
        ),
        // In Latin-1.
        (200, "GET\u{a0}/server.crt?access_token=TOKEN HTTP/1.1"),
        (
            200,
            "GET\u{85}\u{a0}/server.crt?access_token=TOKEN HTTP/1.1",
        ),
        (
            200,
            "\u{a0}GET\u{a0}/server.crt?access_token=TOKEN HTTP/1.1",
        ),
        (200, "GET /server.crt?access_token=TOKEN\u{a0}HTTP/1.1"),
        // It knows no such methods, but takes them for some.
        (501, "A:B /server.crt?access_token=TOKEN HTTP/1.1"),
        (501, ":GET /server.crt?access_token=TOKEN HTTP/1.1"),
        (501, "GET: /server.crt?access_token=TOKEN HTTP/1.1"),
    ];
    for (served, line) in lines {
        for (token, status) in [("of-no-harm-at-all", served), (OPAQUE, 403)] {
            let request = format!("{line}\r\nHost: a\r\n\r\n").replace("TOKEN", token);
            let bytes: Vec<u8> = request.chars().map(|char| char as u8).collect();
            let answer = lab.exchange(server, &bytes, LIMIT).answer;
            assert_eq!(answer.status(), Some(status), "{request:?}: {answer:?}");
        }
    }
    assert!(!python.log().contains(OPAQUE), "{}", python.log());
}
