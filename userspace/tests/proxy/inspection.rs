//! What is blocked and what passes.

use crate::support::{ALERT, LISTED, Origin, SIGNED, Tier};
use tokenblock::event::Outcome;

#[test]
fn a_listed_token_is_refused_wherever_it_stands() {
    let origin = Origin::echo();
    let tier = Tier::tls(origin.address, |_| {});
    let cases = [
        ("/", format!("Authorization: Bearer {LISTED}")),
        ("/", format!("Authorization: bearer  {LISTED}")),
        ("/", format!("authorization: Token token=\"{LISTED}\"")),
        ("/", format!("X-API-Key: {LISTED}")),
        ("/", format!("X_Api.Key: {LISTED}")),
        ("/", format!("Authorization: Bearer {SIGNED}.AAAA")),
        ("/", format!("Cookie: a=b; session=\"{LISTED}\"; c=d")),
        (
            &*format!("/x?a=b&access%5Ftoken={LISTED}"),
            "A: b".to_owned(),
        ),
    ];
    for version in ["--http1.1", "--http2"] {
        for (path, field) in &cases {
            let reply = tier.curl(path, &[version, "-H", field]);
            assert_eq!(reply.status, 403, "{version} {field}: {reply:?}");
            assert_eq!(reply.body, "{\"error\":\"listed_token\"}\n");
        }
    }
    assert_eq!(origin.seen(), Vec::<String>::new());
    assert_eq!(tier.count("proxy_blocked_total"), 16);
    assert_eq!(tier.count("proxy_refused_listed_token"), 16);
    let events = tier.events();
    assert_eq!(events.len(), 16, "one event a request");
    assert!(events.iter().all(|e| e.outcome == Outcome::Blocked));
    assert_eq!(&*events[0].location, "header authorization");
    assert_eq!(&*events[6].location, "cookie session");
    assert_eq!(&*events[7].location, "query access_token");
    assert_eq!(events[0].destination, tier.address);
}

#[test]
fn what_is_not_listed_passes_with_its_body() {
    let origin = Origin::echo();
    let tier = Tier::tls(origin.address, |_| {});
    for version in ["--http1.1", "--http2"] {
        for field in [
            format!("Authorization: Bearer {LISTED}x"),
            format!("Authorization: Bearer {}", &LISTED[1..]),
            format!("X-Other: {LISTED}"),
            format!("Cookie: other={LISTED}"),
        ] {
            let reply = tier.curl("/p?q=1", &[version, "-H", &field, "-d", "the body"]);
            assert_eq!(reply.status, 200, "{version} {field}: {reply:?}");
            assert!(reply.body.starts_with("POST /p?q=1\n"), "{reply:?}");
            assert!(reply.body.ends_with("\n\nthe body"), "{reply:?}");
            let line = field.to_lowercase();
            assert!(reply.body.to_lowercase().contains(&line), "{reply:?}");
        }
    }
    assert!(tier.events().is_empty());
}

#[test]
fn every_duplicate_and_every_crumb_is_judged() {
    let origin = Origin::echo();
    let tier = Tier::plain(origin.address, |_| {});
    let mut client = tier.connect();
    client.send(&format!(
        "GET / HTTP/1.1\r\nHost: h\r\nX-API-Key: fine-fine-fine\r\nX-API-Key: {LISTED}\r\n\r\n"
    ));
    assert!(client.until("\n").contains(" 403 "));
    let args = ["--http2-prior-knowledge", "-H", "Cookie: a=b"];
    let cookie = format!("Cookie: session={LISTED}");
    let reply = tier.curl("/", &[&args[..], &["-H", &cookie]].concat());
    assert_eq!(reply.status, 403, "{reply:?}");
    assert_eq!(origin.seen(), Vec::<String>::new());
}

#[test]
fn an_alert_is_reported_and_passes_and_a_block_behind_it_blocks() {
    let origin = Origin::echo();
    let tier = Tier::plain(origin.address, |_| {});
    let alert = format!("Authorization: Bearer {ALERT}");
    assert_eq!(tier.curl("/", &["-H", &alert]).status, 200);
    let key = format!("X-API-Key: {LISTED}");
    assert_eq!(tier.curl("/", &["-H", &alert, "-H", &key]).status, 403);
    let outcomes: Vec<Outcome> = tier.events().iter().map(|e| e.outcome).collect();
    assert_eq!(
        outcomes,
        [Outcome::Alerted, Outcome::Alerted, Outcome::Blocked]
    );
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn monitor_reports_and_passes() {
    let origin = Origin::echo();
    let tier = Tier::plain(origin.address, |s| s.monitor = true);
    let key = format!("X-API-Key: {LISTED}");
    assert_eq!(tier.curl("/", &["-H", &key]).status, 200);
    let outcomes: Vec<Outcome> = tier.events().iter().map(|e| e.outcome).collect();
    assert_eq!(outcomes, [Outcome::Alerted]);
    assert_eq!(tier.count("proxy_alerted_total"), 1);
    assert_eq!(tier.count("proxy_blocked_total"), 0);
}

#[test]
fn a_refusal_keeps_the_connection_open() {
    let origin = Origin::echo();
    let tier = Tier::plain(origin.address, |_| {});
    let mut client = tier.connect();
    for _ in 0..3 {
        client.send(&format!(
            "POST / HTTP/1.1\r\nHost: h\r\nX-API-Key: {LISTED}\r\nContent-Length: 5\r\n\r\n"
        ));
        std::thread::sleep(std::time::Duration::from_millis(20));
        client.send("hello");
        let reply = client.until("listed_token\"}\n");
        assert!(reply.starts_with("HTTP/1.1 403 "), "{reply}");
        assert!(
            !reply.to_lowercase().contains("connection: close"),
            "{reply}"
        );
    }
    client.send("GET /clean HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(client.until("\n").starts_with("HTTP/1.1 200 "));
    assert_eq!(tier.count("proxy_connections_total"), 1);
}
