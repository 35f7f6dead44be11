//! Ways to bring a listed token past a look at single segments: cut up, far behind, in between, after a lot.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, thread, time::Duration};

use tokenblock_tests::{
    certificate::Certificate,
    client::{Answer, Client},
    fixtures::{Fixture, OPAQUE, all, binary},
    gate, poll,
};

use crate::lab::{Bench, LIMIT, Lab, SILENCE, Tier};

/// Between two sends, so that they are segments of their own.
const PAUSE: Duration = Duration::from_millis(3);
/// More than the first two retransmissions take.
const RETRANSMISSIONS: Duration = Duration::from_millis(900);
/// Connections that are open at once.
const BATCH: usize = 100;
/// Requests that are cut everywhere: a token in each kind of place, and what only looks like one.
const CUT: [&str; 16] = [
    "bearer",
    "bearer-jwt",
    "bearer-with-body",
    "basic-password",
    "custom-header",
    "cookie",
    "cookie-octal",
    "query",
    "query-percent-both",
    "obs-fold",
    "one-byte-changed",
    "jws-other-payload",
    "basic-joined",
    "cookie-extension",
    "query-extension",
    "token-in-form",
];
/// As long as [`OPAQUE`], and not listed.
const CLEAN: &str = "3f786850e387550fdab836ed7e6dc881de23001c";
const BULK: usize = 64 * 1024 * 1024;
const BULK_LIMIT: Duration = Duration::from_mins(1);

/// What one connection brings, a segment each.
struct Stream {
    name: String,
    parts: Vec<Vec<u8>>,
    blocked: bool,
}

/// What came of it.
struct Outcome {
    stream: Stream,
    client: Client,
    address: SocketAddr,
    /// A send failed.
    broken: bool,
}

impl Stream {
    fn new(name: String, parts: Vec<Vec<u8>>, blocked: bool) -> Self {
        Self {
            name,
            parts,
            blocked,
        }
    }

    fn whole(&self) -> Vec<u8> {
        self.parts.concat()
    }
}

fn lab(binary: PathBuf, on_hit: &str) -> Lab {
    Bench::new(binary).start(Tier::Kernel, &["--on-hit", on_hit])
}

fn cut(bytes: &[u8], at: usize) -> Vec<Vec<u8>> {
    let (front, rest) = bytes.split_at(at);
    vec![front.to_vec(), rest.to_vec()]
}

/// The fixtures of [`CUT`], cut at every `step`th byte.
fn cuts(step: usize) -> Vec<Stream> {
    let fixtures = all();
    let chosen = CUT.iter().map(|name| {
        let found = fixtures.iter().find(|fixture| fixture.name == *name);
        found.unwrap_or_else(|| panic!("no fixture {name}"))
    });
    let cut_up = |fixture: &Fixture| -> Vec<Stream> {
        let request = fixture.bytes(Certificate::HOST);
        let stream = |at| {
            let name = format!("{} cut at {at}", fixture.name);
            Stream::new(name, cut(&request, at), fixture.is_blocked())
        };
        (1..request.len()).step_by(step).map(stream).collect()
    };
    chosen.flat_map(cut_up).collect()
}

/// Sends the streams side by side over both families.
fn send(lab: &Lab, streams: Vec<Stream>) -> Vec<Outcome> {
    let servers = lab.servers();
    let connect = |(i, stream): (usize, Stream)| {
        let client = Client::connect(&lab.bench.pair.client, servers[i % servers.len()]).unwrap();
        let address = client.address().unwrap();
        Outcome {
            stream,
            client,
            address,
            broken: false,
        }
    };
    let mut outcomes: Vec<Outcome> = streams.into_iter().enumerate().map(connect).collect();
    let parts = |outcome: &Outcome| outcome.stream.parts.len();
    for i in 0..outcomes.iter().map(parts).max().unwrap_or(0) {
        for outcome in &mut outcomes {
            if let (false, Some(part)) = (outcome.broken, outcome.stream.parts.get(i)) {
                outcome.broken = outcome.client.send(part).is_err();
            }
        }
        thread::sleep(PAUSE);
    }
    outcomes
}

/// Sends the streams in batches; those with a listed token must end in a reset before they end, the others arrive
/// byte for byte.
fn check(lab: &Lab, mut streams: Vec<Stream>) {
    let mut blocked = BTreeSet::new();
    while !streams.is_empty() {
        let rest = streams.split_off(streams.len().min(BATCH));
        let mut outcomes = send(lab, streams);
        for outcome in &mut outcomes {
            if outcome.stream.blocked {
                blocked.insert(outcome.address);
                assert_reset(lab, outcome);
            } else {
                assert_arrived(lab, outcome);
            }
        }
        // After all others had their time.
        for outcome in outcomes {
            assert_eq!(
                lab.bench.origin.seen_from(outcome.address).len() < outcome.stream.whole().len(),
                outcome.stream.blocked,
                "{}: what the origin saw",
                outcome.stream.name
            );
            outcome.client.abort().unwrap();
        }
        lab.bench.origin.forget();
        streams = rest;
    }
    let reported = || -> BTreeSet<SocketAddr> {
        let events = lab.product.events();
        events.into_iter().map(|event| event.source).collect()
    };
    poll::until(LIMIT, || reported().is_superset(&blocked).then_some(()));
    assert_eq!(reported(), blocked, "whose requests were reported");
}

fn assert_reset(lab: &Lab, outcome: &mut Outcome) {
    let mut end = Answer::Reset;
    if !outcome.broken {
        // What was in front of the blocked request may be answered.
        end = outcome.client.answer(LIMIT);
        while end.status() == Some(200) {
            end = outcome.client.answer(LIMIT);
        }
    }
    assert_eq!(
        end,
        Answer::Reset,
        "{}\n{}",
        outcome.stream.name,
        lab.product.log()
    );
}

fn assert_arrived(lab: &Lab, outcome: &mut Outcome) {
    let name = &outcome.stream.name;
    assert!(!outcome.broken, "{name}: broken\n{}", lab.product.log());
    let whole = outcome.stream.whole();
    let seen = || lab.bench.origin.seen_from(outcome.address);
    poll::until(LIMIT, || (seen().len() >= whole.len()).then_some(()));
    assert!(
        seen() == whole,
        "{name}: {} bytes of {}\n{}",
        seen().len(),
        whole.len(),
        lab.product.log()
    );
    let answer = outcome.client.answer(LIMIT);
    assert_eq!(answer.status(), Some(200), "{name}: {answer:?}");
}

#[test]
fn requests_cut_anywhere() {
    let Some(binary) = gate::product("evasions::requests_cut_anywhere") else {
        return;
    };
    check(&lab(binary, "reset"), cuts(1));
}

#[test]
fn requests_byte_by_byte() {
    let Some(binary) = gate::product("evasions::requests_byte_by_byte") else {
        return;
    };
    let stream = |fixture: Fixture| {
        let bytes = fixture.bytes(Certificate::HOST);
        let parts = bytes.iter().map(|byte| vec![*byte]).collect();
        Stream::new(fixture.name.to_owned(), parts, fixture.is_blocked())
    };
    let mut streams: Vec<Stream> = all().into_iter().map(stream).collect();
    streams.retain(|stream| stream.parts.len() < 2048);
    check(&lab(binary, "reset"), streams);
}

/// A dropped segment comes again, and what is behind it as well: the hole is never filled.
#[test]
fn retransmissions_of_cut_requests_stay_out() {
    let Some(binary) = gate::product("evasions::retransmissions_of_cut_requests_stay_out") else {
        return;
    };
    let lab = lab(binary, "drop");
    let mut streams = cuts(11);
    streams.retain(|stream| stream.blocked);
    while !streams.is_empty() {
        let rest = streams.split_off(streams.len().min(BATCH));
        let mut outcomes = send(&lab, streams);
        thread::sleep(RETRANSMISSIONS);
        for outcome in &mut outcomes {
            let next = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", Certificate::HOST);
            outcome.client.send(next.as_bytes()).unwrap();
        }
        thread::sleep(PAUSE);
        for mut outcome in outcomes {
            let name = &outcome.stream.name;
            let answer = outcome.client.answer(SILENCE);
            assert_eq!(answer, Answer::Silence(Vec::new()), "{name}");
            let seen = lab.bench.origin.seen_from(outcome.address);
            assert!(seen.len() < outcome.stream.whole().len(), "{name}");
            outcome.client.abort().unwrap();
        }
        lab.bench.origin.forget();
        streams = rest;
    }
}

#[test]
fn the_thousandth_request_cut_in_two() {
    let Some(binary) = gate::product("evasions::the_thousandth_request_cut_in_two") else {
        return;
    };
    let lab = lab(binary, "reset");
    for server in lab.servers() {
        let mut client = Client::connect(&lab.bench.pair.client, server).unwrap();
        let clean = request(CLEAN);
        for i in 1..1000 {
            let answer = client.exchange(&clean, LIMIT).unwrap();
            assert_eq!(answer.status(), Some(200), "{server} {i}: {answer:?}");
        }
        let seen = lab.bench.origin.seen_from(client.address().unwrap());
        assert!(seen == clean.repeat(999), "{server}: not byte for byte");
        let listed = request(OPAQUE);
        let (front, rest) = listed.split_at(listed.len() - 20);
        client.send(front).unwrap();
        thread::sleep(PAUSE);
        let answer = client.exchange(rest, LIMIT).unwrap();
        assert_eq!(answer, Answer::Reset, "{server}\n{}", lab.product.log());
    }
    assert!(!lab.bench.origin.saw(&request(OPAQUE)));
}

/// A request with `token` at its end.
fn request(token: &str) -> Vec<u8> {
    let host = Certificate::HOST;
    format!("GET / HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n").into_bytes()
}

#[test]
fn pipelined_requests() {
    let Some(binary) = gate::product("evasions::pipelined_requests") else {
        return;
    };
    let mut streams = Vec::new();
    // In one segment, and in many.
    for count in [4, 300] {
        let clean = vec![request(CLEAN); count];
        streams.push(Stream::new(
            format!("{count}, clean"),
            vec![clean.concat()],
            false,
        ));
        for at in [0, 1, count / 2, count - 1] {
            let mut requests = clean.clone();
            requests[at] = request(OPAQUE);
            let name = format!("{at} of {count}");
            streams.push(Stream::new(name, vec![requests.concat()], true));
        }
    }
    check(&lab(binary, "reset"), streams);
}

#[test]
fn requests_behind_bodies_without_a_line_end() {
    let Some(binary) = gate::product("evasions::requests_behind_bodies_without_a_line_end") else {
        return;
    };
    let mut streams = Vec::new();
    for length in [1, 10, 700, 1300, 5000, 20_000, 100_000] {
        for (token, blocked) in [(CLEAN, false), (OPAQUE, true)] {
            let mut post = format!(
                "POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\n\r\n",
                Certificate::HOST
            )
            .into_bytes();
            let head = post.len();
            post.extend_from_slice("b".repeat(length).as_bytes());
            let end = post.len();
            post.extend_from_slice(&request(token));
            let name = format!("{length} bytes, blocked: {blocked}");
            streams.push(Stream::new(name.clone(), vec![post.clone()], blocked));
            for at in [head, head + length / 2, end, end + 1, end + 30, end + 70] {
                let name = format!("{name}, cut at {at}");
                streams.push(Stream::new(name, cut(&post, at), blocked));
            }
        }
    }
    check(&lab(binary, "reset"), streams);
}

#[test]
fn tokens_behind_long_header_blocks() {
    let Some(binary) = gate::product("evasions::tokens_behind_long_header_blocks") else {
        return;
    };
    let mut streams = Vec::new();
    // Each shift puts the token elsewhere in its segment, and over the ends of two.
    for shift in (0..1448).step_by(60) {
        for (token, blocked) in [(CLEAN, false), (OPAQUE, true)] {
            for kib in [9, 24, 66, 130] {
                let name = format!("lines of {kib} KiB and {shift}, blocked: {blocked}");
                let request = behind_lines(kib * 1024 + shift, token);
                streams.push(Stream::new(name, vec![request], blocked));
                let name = format!("a line of {kib} KiB and {shift}, blocked: {blocked}");
                let request = behind_one_line(kib * 1024 + shift, token);
                streams.push(Stream::new(name, vec![request], blocked));
            }
        }
    }
    check(&lab(binary, "reset"), streams);
}

fn behind_lines(length: usize, token: &str) -> Vec<u8> {
    let line = "X-Filler: some-text-that-is-no-token-at-all\r\n";
    format!(
        "GET / HTTP/1.1\r\nHost: {}\r\n{}X-Rest: {}\r\nX-API-Key: {token}\r\n\r\n",
        Certificate::HOST,
        line.repeat(length / line.len()),
        "r".repeat(length % line.len())
    )
    .into_bytes()
}

fn behind_one_line(length: usize, token: &str) -> Vec<u8> {
    format!(
        "GET / HTTP/1.1\r\nHost: {}\r\nCookie: theme={}; session={token}\r\n\r\n",
        Certificate::HOST,
        "d".repeat(length)
    )
    .into_bytes()
}

#[test]
fn bulk_arrives_and_what_follows_is_judged() {
    let Some(product) = gate::product("evasions::bulk_arrives_and_what_follows_is_judged") else {
        return;
    };
    let lab = lab(product, "reset");
    let bulk = binary(BULK);
    for (hits, server) in (0..).zip(lab.servers()) {
        let mut client = Client::connect(&lab.bench.pair.client, server).unwrap();
        let head = format!(
            "POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: {BULK}\r\n\r\n",
            Certificate::HOST
        );
        client.send(head.as_bytes()).unwrap();
        let answer = client.exchange(&bulk, BULK_LIMIT).unwrap();
        assert_eq!(answer.status(), Some(200), "{server}: upload");
        let requests = lab.bench.origin.wait_for_requests(1, LIMIT);
        assert!(
            requests.first().is_some_and(|upload| upload.body == bulk),
            "{server}: upload"
        );
        let get = format!(
            "GET /bytes/{BULK} HTTP/1.1\r\nHost: {}\r\n\r\n",
            Certificate::HOST
        );
        let answer = client.exchange(get.as_bytes(), BULK_LIMIT).unwrap();
        let Answer::Response { status, body, .. } = answer else {
            panic!("{server}: no download\n{}", lab.product.log());
        };
        assert_eq!(status, 200, "{server}");
        assert!(body == bulk, "{server}: download");
        assert_eq!(lab.product.kernel_counter("blocked").unwrap(), hits);
        let answer = client.exchange(&request(OPAQUE), LIMIT).unwrap();
        assert_eq!(answer, Answer::Reset, "{server}\n{}", lab.product.log());
        lab.bench.origin.forget();
    }
}

/// With no room for a connection's flow what is cut within a candidate does not pass, and what ends between two lines does.
#[test]
fn a_full_table_lets_no_cut_token_through() {
    let Some(binary) = gate::product("evasions::a_full_table_lets_no_cut_token_through") else {
        return;
    };
    let lab = Bench::new(binary).start(Tier::Kernel, &["--on-hit=reset", "--max-flows=16"]);
    let [server, _] = lab.servers();
    let connect = || Client::connect(&lab.bench.pair.client, server).unwrap();
    let full = || lab.product.kernel_counter("flow_table_full").unwrap();
    // Each stands inside a candidate, so that its flow is kept.
    let mut held = Vec::new();
    while full() == 0 && held.len() < 2000 {
        let mut client = connect();
        client.send(b"GET / HTTP/1.1\r\nAuthorization: B").unwrap();
        held.push(client);
    }
    assert!(full() > 0, "{} flows", held.len());
    let listed = request(OPAQUE);
    let mut client = connect();
    client.send(&listed[..listed.len() - 20]).unwrap();
    thread::sleep(PAUSE);
    drop(client.send(&listed[listed.len() - 20..]));
    thread::sleep(RETRANSMISSIONS);
    assert!(!lab.bench.origin.saw(OPAQUE.as_bytes()));
    client.abort().unwrap();
    let answer = connect().exchange(&request(CLEAN), LIMIT).unwrap();
    assert_eq!(answer.status(), Some(200), "{}", lab.product.log());
    let answer = connect().exchange(&listed, LIMIT).unwrap();
    assert_eq!(answer, Answer::Reset, "{}", lab.product.log());
}
