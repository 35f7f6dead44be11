//! Servers that are asked whether they are well.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use http::{Response, StatusCode};
use tokenblock::proxy::{CheckSettings, Preamble, ProxySettings, UpstreamHttp};

use crate::support::{Origin, PATIENCE, Raw, Tier, full, raw_origin};

const PATH: &str = "/up?deep";
const SOON: Duration = Duration::from_millis(20);

/// A server that can be made ill, and counts what it is asked for besides its health.
struct Patient {
    address: SocketAddr,
    is_ill: Arc<AtomicBool>,
    requests: Arc<AtomicUsize>,
}

impl Patient {
    fn new() -> Self {
        let (is_ill, requests) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (ill, asked) = (Arc::clone(&is_ill), Arc::clone(&requests));
        let answer = move |mut upstream: Raw| {
            let head = upstream.until("\r\n\r\n");
            let status = if !head.starts_with(&format!("GET {PATH} HTTP/1.1\r\n")) {
                asked.fetch_add(1, Relaxed);
                "200 OK"
            } else if ill.load(Relaxed) {
                "503 Service Unavailable"
            } else {
                "204 No Content"
            };
            upstream.send(&format!("HTTP/1.1 {status}\r\nConnection: close\r\n\r\n"));
        };
        Self {
            address: raw_origin(move |_, upstream| answer(upstream)),
            is_ill,
            requests,
        }
    }

    fn be_ill(&self, ill: bool) {
        self.is_ill.store(ill, Relaxed);
    }

    fn requests(&self) -> usize {
        self.requests.load(Relaxed)
    }
}

fn checked(settings: &mut ProxySettings) {
    let mut check = CheckSettings::new(PATH.parse().unwrap());
    check.interval = SOON;
    settings.check = Some(check);
}

/// Asks until the proxy answers with this status.
fn until(tier: &Tier, status: u16) {
    let start = Instant::now();
    while tier.curl("/", &[]).status != status {
        assert!(start.elapsed() < PATIENCE, "never {status}");
    }
}

#[test]
fn a_server_that_says_no_gets_nothing_until_it_says_yes_again() {
    let (one, other) = (Patient::new(), Patient::new());
    let tier = Tier::plain(one.address, |s| {
        checked(s);
        s.more_upstreams = vec![format!("http://{}", other.address).parse().unwrap()];
    });
    let ask = |body: &[&str]| assert_eq!(tier.curl("/", body).status, 200);
    tier.wait_for("proxy_health_checks_total", 4);
    one.be_ill(true);
    tier.wait_for("proxy_upstreams_down_total", 1);
    assert!(tier.count("proxy_health_checks_failed_total") >= 3);
    let before = one.requests();
    // Over the path of plain requests, and over the other.
    for body in [&[][..], &["-d", "x"]] {
        (0..20).for_each(|_| ask(body));
    }
    assert_eq!(one.requests(), before);
    one.be_ill(false);
    let start = Instant::now();
    while one.requests() == before {
        ask(&[]);
        assert!(start.elapsed() < PATIENCE, "not asked again");
    }
    assert_eq!(tier.count("proxy_upstreams_down_total"), 1);
}

#[test]
fn the_only_server_is_spared_too_and_the_client_is_told() {
    let patient = Patient::new();
    patient.be_ill(true);
    let tier = Tier::plain(patient.address, checked);
    tier.wait_for("proxy_upstreams_down_total", 1);
    let asked = patient.requests();
    for body in [&[][..], &["-d", "x"]] {
        let reply = tier.curl("/", body);
        assert_eq!(reply.status, 503);
        assert_eq!(reply.body, "{\"error\":\"no_upstream\"}\n");
    }
    assert_eq!(patient.requests(), asked);
    // Other settings for a server of which is known that it is down leave it so.
    let upstream = format!("http://{}", patient.address).parse().unwrap();
    let mut settings = ProxySettings::new(tier.address, upstream);
    checked(&mut settings);
    if let Some(check) = &mut settings.check {
        check.interval = Duration::from_hours(1);
    }
    tier.reload.apply(settings.clone(), None).unwrap();
    for _ in 0..5 {
        assert_eq!(tier.curl("/", &[]).status, 503);
    }
    // Without checks nobody says so any more.
    settings.check = None;
    tier.reload.apply(settings.clone(), None).unwrap();
    until(&tier, 200);
    // And it is back when it is well.
    checked(&mut settings);
    tier.reload.apply(settings, None).unwrap();
    until(&tier, 503);
    patient.be_ill(false);
    until(&tier, 200);
}

#[test]
fn silence_and_a_closed_port_are_no_answers() {
    let silent = raw_origin(|_, mut upstream| drop(upstream.rest()));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = closed.local_addr().unwrap();
    drop(closed);
    for address in [silent, gone] {
        let tier = Tier::plain(address, |s| {
            checked(s);
            if let Some(check) = &mut s.check {
                check.timeout = SOON;
            }
        });
        tier.wait_for("proxy_upstreams_down_total", 1);
        assert_eq!(tier.curl("/", &[]).status, 503);
    }
}

#[test]
fn they_are_asked_as_they_are_asked_for_requests() {
    let origin = Origin::serving(|request| async move {
        let healthy = request.uri().path() == "/up";
        let mut response = Response::new(full(""));
        if !healthy {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        response
    });
    for http in [UpstreamHttp::Http1, UpstreamHttp::Http2] {
        let tier = Tier::plain(origin.address, |s| {
            checked(s);
            s.upstream_http = http;
            if let Some(check) = &mut s.check {
                check.host = Some("health.example".to_owned());
            }
        });
        tier.wait_for("proxy_health_checks_total", 3);
        assert_eq!(tier.count("proxy_health_checks_failed_total"), 0);
    }
    let seen = origin.seen();
    let with = |text: &str| seen.iter().any(|head| head.contains(text));
    assert!(
        with("GET /up?deep\n") && with("host: health.example\n"),
        "{seen:?}"
    );
    assert!(with("GET http://health.example/up?deep\n"), "{seen:?}");
    assert!(with("user-agent: tokenblock-health-check"), "{seen:?}");
    // Who waits to be told whom a connection is for is told that it is for nobody.
    for (version, start) in [
        (Preamble::V1, &b"PROXY UNKNOWN\r\nGET "[..]),
        (Preamble::V2, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0GET "),
    ] {
        let upstream = raw_origin(move |_, mut upstream| {
            let mut got = vec![0; start.len()];
            let read = std::io::Read::read_exact(&mut upstream.0, &mut got);
            if read.is_ok() && got == start {
                upstream.until("\r\n\r\n");
                upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
        });
        let tier = Tier::plain(upstream, |s| {
            checked(s);
            s.upstream_preamble = version;
        });
        tier.wait_for("proxy_health_checks_total", 3);
        assert_eq!(tier.count("proxy_health_checks_failed_total"), 0);
    }
}

#[test]
fn who_is_not_who_it_should_be_is_not_well() {
    let origin = Origin::echo();
    let front = Tier::tls(origin.address, |_| {});
    for (name, failed) in [("localhost", false), ("other.example", true)] {
        let tier = Tier::plain(origin.address, |s| {
            checked(s);
            s.upstream = format!("https://localhost:{}", front.address.port())
                .parse()
                .unwrap();
            s.upstream_tls.ca = front.ca.clone();
            s.upstream_tls.server_name = Some(name.to_owned());
        });
        tier.wait_for("proxy_health_checks_total", 3);
        let failures = tier.count("proxy_health_checks_failed_total");
        assert_eq!(failures > 0, failed, "{name}: {failures}");
    }
}
