//! What is blocked and what passes.

use std::{io::Write as _, thread, time::Duration};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD},
};
use http::Response;
use http_body_util::{BodyExt as _, Collected};
use tokenblock::event::Outcome;

use crate::support::{ALERT, LISTED, Origin, SIGNED, Tier, full};

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
        for body in [&[][..], &["-d", "body"]] {
            for (path, field) in &cases {
                let reply = tier.curl(path, &[&[version, "-H", field], body].concat());
                assert_eq!(reply.status, 403, "{version} {field} {body:?}: {reply:?}");
                assert_eq!(reply.body, "{\"error\":\"listed_token\"}\n");
            }
        }
    }
    assert_eq!(origin.seen(), Vec::<String>::new());
    assert_eq!(tier.count("proxy_blocked_total"), 32);
    assert_eq!(tier.count("proxy_refused_listed_token"), 32);
    let events = tier.events();
    assert_eq!(events.len(), 32, "one event a request");
    assert!(events.iter().all(|e| e.outcome == Outcome::Blocked));
    assert_eq!(&*events[0].location, "header authorization");
    assert_eq!(&*events[6].location, "cookie session");
    assert_eq!(&*events[7].location, "query access_token");
    assert_eq!(events[0].destination, tier.address);
}

/// Applications split and trim what they take for text, by more white space than HTTP knows.
#[test]
fn white_space_of_other_alphabets_hides_nothing() {
    let origin = Origin::echo();
    let tier = Tier::plain(origin.address, |_| {});
    let ask = |line: &[u8]| {
        let mut client = tier.connect();
        let request = [b"GET / HTTP/1.1\r\nHost: h\r\n", line, b"\r\n\r\n"].concat();
        client.0.write_all(&request).unwrap();
        client.until("\r\n").split(' ').nth(1).unwrap().to_owned()
    };
    // Of Latin-1, alone and as UTF-8, and others of UTF-8.
    for space in [
        &b"\xa0"[..],
        b"\x85",
        b" \xa0\xa0 ",
        "\u{a0}".as_bytes(),
        "\u{85}".as_bytes(),
        "\u{2003}".as_bytes(),
        "\u{3000}".as_bytes(),
        "\u{2028}".as_bytes(),
        "\u{1680}".as_bytes(),
    ] {
        for (before, after) in [
            (&b"Authorization: Bearer"[..], &b""[..]),
            (b"X-API-Key: ", b""),
            (b"X-API-Key: ", space),
            (b"Cookie: a=b; session=", space),
            (b"Connection: close\r\nX-API-Key: ", b""),
        ] {
            let line = [before, space, LISTED.as_bytes(), after].concat();
            assert_eq!(ask(&line), "403", "{}", line.escape_ascii());
        }
    }
    assert_eq!(origin.seen(), Vec::<String>::new());
    // Bytes of letters are none; in headers the scanner of both tiers ends a candidate at each of them all the same.
    for (name, status) in [("X-API-Key: ", "403"), ("Cookie: session=", "200")] {
        let line = format!("{name}\u{e0}{LISTED}");
        assert_eq!(ask(line.as_bytes()), status, "{name}");
    }
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
        thread::sleep(Duration::from_millis(20));
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

#[test]
fn tokens_in_forms_are_refused_where_forms_are_judged() {
    let origin = Origin::serving(|request| async {
        let body = request.into_body().collect().await;
        let whole = body.map_or_else(|_| "broken".into(), Collected::to_bytes);
        Response::new(full(whole))
    });
    let off = Tier::plain(origin.address, |_| {});
    let form = format!("a=b&access_token={LISTED}");
    assert_eq!(off.curl("/", &["-d", &form]).body, form);
    let tier = Tier::plain(origin.address, |s| s.limits.form_bytes = 1000);
    let other = "content-type: application/x-www-form-urlencoded";
    for args in [
        &["-d", &form][..],
        &["-d", &format!("{form}&c=d")],
        &["-d", &form, "-H", "Transfer-Encoding: chunked"],
        &["-d", &form, "--http2-prior-knowledge"],
        // Which of several types is meant depends on who reads it.
        &["-d", &form, "-H", "Content-Type: text/plain", "-H", other],
        &[
            "-d",
            &form,
            "-H",
            "Content-Type: text/plain;a=b, Application/X-WWW-form-urlencoded; c",
        ],
    ] {
        let reply = tier.curl("/", args);
        assert_eq!(reply.status, 403, "{args:?} {reply:?}");
    }
    // Cut anywhere.
    let mut client = tier.connect();
    client.send(&format!(
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Type: Application/X-WWW-Form-URLEncoded; charset=utf-8\r\n\
         Content-Length: {}\r\n\r\n",
        form.len()
    ));
    let (start, end) = form.split_at(30);
    client.send(start);
    thread::sleep(Duration::from_millis(50));
    assert!(client.send(end).until("}\n").starts_with("HTTP/1.1 403 "));
    // What begins like the type, or has none.
    for kind in [
        "Content-Type: application/x-www-form-urlencodedx",
        "Content-Type:",
    ] {
        assert_eq!(
            tier.curl("/", &["-d", &form, "-H", kind]).status,
            403,
            "{kind}"
        );
    }
    // What can't be read is not passed on as if it were clean.
    for (coding, status) in [("gzip", 415), ("identity, deflate", 415), ("identity", 403)] {
        let coding = format!("Content-Encoding: {coding}");
        let args = ["-d", &form, "-H", &coding];
        assert_eq!(tier.curl("/", &args).status, status, "{coding}");
        assert_eq!(off.curl("/", &args).body, form);
    }
    let text = [
        "-d",
        "x",
        "-H",
        "Content-Type: text/plain",
        "-H",
        "Content-Encoding: gzip",
    ];
    assert_eq!(tier.curl("/", &text).body, "x");
    assert_eq!(tier.count("proxy_refused_content_coding"), 2);
    // Clean, of another type, or beyond the limit: it passes whole.
    let clean = "a=b&access_token=fine-fine-fine";
    assert_eq!(tier.curl("/", &["-d", clean]).body, clean);
    let text = ["-d", &form, "-H", "Content-Type: text/plain"];
    assert_eq!(tier.curl("/", &text).body, form);
    let long = format!("x={}&{form}", "y".repeat(1000));
    assert_eq!(tier.curl("/", &["-d", &long]).body, long);
    assert_eq!(tier.count("proxy_forms_cut_total"), 1);
}

#[test]
fn every_offered_web_socket_protocol_is_judged() {
    let origin = Origin::echo();
    let tier = Tier::plain(origin.address, |_| {});
    let encoded = URL_SAFE_NO_PAD.encode(LISTED);
    let status = |value: &str| {
        let field = format!("Sec-WebSocket-Protocol: {value}");
        tier.curl("/", &["-H", &field]).status
    };
    assert_eq!(status(&format!("bearer,{LISTED}")), 403);
    assert_eq!(status(&format!("{LISTED},v1")), 403);
    let kubernetes = "base64url.bearer.authorization.k8s.io.";
    assert_eq!(
        status(&format!("v4.channel.k8s.io, {kubernetes}{encoded}")),
        403
    );
    assert_eq!(status(&format!("bearer,{kubernetes}AAAA")), 200);
    // Others that browsers' clients are told to use.
    let padded = URL_SAFE.encode(LISTED);
    let json = format!("{{\"host\":\"h\",\"Authorization\":\"Bearer {LISTED}\"}}");
    let json = URL_SAFE_NO_PAD.encode(json);
    for offer in [
        format!("realtime, openai-insecure-api-key.{LISTED}"),
        format!("phoenix, base64url.bearer.phx.{encoded}"),
        format!("chat, {encoded}"),
        format!("chat, {padded}"),
        format!("aws-appsync-event-ws, header-{json}"),
        format!("access_token.{LISTED}"),
        format!("token-{LISTED}"),
        format!("Bearer%20{LISTED}"),
        format!("jwt.{SIGNED}.AAAA"),
    ] {
        assert_eq!(status(&offer), 403, "{offer}");
    }
    assert_eq!(
        status(&format!("chat, {}.{}", &encoded[1..], &LISTED[1..])),
        200
    );
}

/// What some decoders pass over, and JSON in cookies.
#[test]
fn what_only_some_decoders_read_hides_nothing() {
    let origin = Origin::echo();
    let tier = Tier::tls(origin.address, |_| {});
    let basic = STANDARD.encode(format!("alice:{LISTED}"));
    let (start, end) = basic.split_at(8);
    let nobreak = "%C2%A0";
    for version in ["--http1.1", "--http2"] {
        for (path, field) in [
            ("/", format!("Authorization: Basic {start}-_{end}")),
            ("/", format!("Authorization: Basic {start} {end}")),
            ("/", format!("Cookie: a=b; session=j:\"{LISTED}\"")),
            ("/", format!("Cookie: session=j%3A%22{LISTED}%22")),
            (
                "/",
                format!("Cookie: session=j:\"\\u0074{}\"", &LISTED[1..]),
            ),
            (
                &*format!("/?access_token={nobreak}{LISTED}"),
                "A: b".to_owned(),
            ),
            (
                &*format!("/?a=b;access_token={LISTED}%e3%80%80"),
                "A: b".to_owned(),
            ),
        ] {
            let reply = tier.curl(path, &[version, "-H", &field]);
            assert_eq!(reply.status, 403, "{version} {path} {field}");
        }
    }
    assert_eq!(origin.seen(), Vec::<String>::new());
}

#[test]
fn the_refusal_is_what_the_settings_say() {
    let origin = Origin::echo();
    let tier = Tier::plain(origin.address, |s| {
        s.refusal.status = http::StatusCode::UNAUTHORIZED;
        s.refusal.content_type = http::HeaderValue::from_static("text/plain");
        s.refusal.body = "renew your token".into();
    });
    let reply = tier.curl("/", &["-H", &format!("X-API-Key: {LISTED}")]);
    assert_eq!((reply.status, &*reply.body), (401, "renew your token"));
    assert!(reply.head.contains("content-type: text/plain"), "{reply:?}");
}
