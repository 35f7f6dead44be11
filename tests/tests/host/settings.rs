//! Settings that change while both tiers run: where tokens stand, how long they are, and whether they are only reported.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
};

use rustix::process::Signal;
use tokenblock_tests::{
    client::{Client, TlsClient},
    fixtures::{DOTTED, OPAQUE, Token, hashed_list_file},
    gate, poll,
    product::Product,
};

use crate::lab::{Bench, LIMIT, ORIGIN_PORT, PROXY_PORT, Tier};

/// Listed as it is.
const TOKEN: &str = OPAQUE;
/// Known by its SHA-256 alone: the kernel tier has programs of their own for such entries.
const HASHED: &str = DOTTED;
/// Shorter than tokens are by default.
const SHORT: &str = "abc123";
const DONE: &str = "the settings were read again";

/// Both tiers, and the file that they have their settings from.
struct Both {
    bench: Bench,
    product: Product,
    config: PathBuf,
}

impl Both {
    fn new(binary: PathBuf, settings: &str) -> Self {
        let bench = Bench::new(binary);
        let list = format!("{TOKEN}\n{SHORT}\n{}", hashed_list_file(&[Token::Dotted]));
        fs::write(bench.list(), list).unwrap();
        let config = bench.folder.path().join("settings.toml");
        fs::write(&config, settings).unwrap();
        let mut args = vec!["run".into(), "--log-format=json".into()];
        for (flag, path) in [
            ("--denylist", bench.list()),
            ("--config", config.clone()),
            ("--state-dir", bench.folder.path().join("state")),
        ] {
            args.extend([flag.into(), path.into()]);
        }
        args.extend(bench.tier(Tier::Kernel));
        args.extend(bench.tier(Tier::Proxy));
        let product = bench.start_with(&args);
        Self {
            bench,
            product,
            config,
        }
    }

    fn reads(&self, line: &str) -> usize {
        let lines = self.product.lines();
        lines.iter().filter(|said| said.contains(line)).count()
    }

    /// Writes the file and has it read.
    fn reload(&self, settings: &str) {
        let before = self.reads(DONE);
        fs::write(&self.config, settings).unwrap();
        self.product.signal(Signal::HUP).unwrap();
        let read = || (self.reads(DONE) > before).then_some(());
        assert!(
            poll::until(LIMIT, read).is_some(),
            "{settings}\n{}",
            self.product.log()
        );
    }

    fn server(&self, tier: Tier) -> SocketAddr {
        let [server, _] = self.bench.pair.server_addresses(match tier {
            Tier::Kernel => ORIGIN_PORT,
            Tier::Proxy => PROXY_PORT,
        });
        server
    }

    /// The status of a request with these fields.
    fn ask(&self, tier: Tier, fields: &str) -> Option<u16> {
        let netns = &self.bench.pair.client;
        let request = format!("GET / HTTP/1.1\r\nHost: origin.test\r\n{fields}\r\n\r\n");
        let request = request.as_bytes();
        let server = self.server(tier);
        match tier {
            Tier::Kernel => {
                let mut client = Client::connect(netns, server).unwrap();
                let answer = client.exchange(request, LIMIT).unwrap();
                client.abort().unwrap();
                answer.status()
            }
            Tier::Proxy => {
                let mut client =
                    TlsClient::connect(netns, server, &self.bench.certificate).unwrap();
                client.exchange(request, LIMIT).unwrap().status()
            }
        }
    }

    /// Asserts what becomes of a request with these fields, in both tiers.
    fn due(&self, fields: &str, status: u16) {
        for tier in [Tier::Kernel, Tier::Proxy] {
            let found = self.ask(tier, fields);
            let log = || self.product.log();
            assert_eq!(found, Some(status), "{tier:?} {fields}\n{}", log());
        }
    }
}

/// So many headers that the table of names is another each time; the one that counts is always among them.
fn places(version: usize) -> String {
    let others = (0..20).map(|n| format!("'X-Other-{version}-{n}'"));
    let all: Vec<String> = others.chain(["'X-API-Key'".to_owned()]).collect();
    format!(
        "header = [{}]\ncookie = ['session']\nquery = []\n",
        all.join(",")
    )
}

#[test]
fn places_change_in_both_tiers_and_nothing_listed_passes_meanwhile() {
    let Some(binary) = gate::product("settings::places_change_in_both_tiers") else {
        return;
    };
    let both = Both::new(binary, &places(0));
    let (done, requests) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for tier in [Tier::Kernel, Tier::Kernel, Tier::Proxy] {
            let (both, done, requests) = (&both, &done, &requests);
            let client = move || {
                while !done.load(Relaxed) {
                    for (fields, due) in [
                        (format!("X-API-Key: {TOKEN}"), 403),
                        (format!("Cookie: a=b; session={HASHED}"), 403),
                        (format!("X-Never: {TOKEN}"), 200),
                    ] {
                        let status = both.ask(tier, &fields);
                        if status != Some(due) {
                            done.store(true, Relaxed);
                        }
                        assert_eq!(status, Some(due), "{tier:?}: {fields}");
                        requests.fetch_add(1, Relaxed);
                    }
                }
            };
            scope.spawn(move || both.bench.pair.client.enter(client).unwrap());
        }
        for version in 1..=30 {
            if done.load(Relaxed) {
                return;
            }
            both.reload(&places(version));
            for token in [TOKEN, HASHED] {
                both.due(&format!("X-Other-{version}-7: {token}"), 403);
                both.due(&format!("X-Other-{}-7: {token}", version - 1), 200);
            }
        }
        done.store(true, Relaxed);
    });
    assert!(requests.load(Relaxed) > 100, "{requests:?} requests");
    // What is told of a hit is the place that had the name, however often ids were given.
    let told = both.reads("header x-other-17-7");
    assert_eq!(told, 4, "{}", both.product.log());
}

/// A request of which a part was passed under other settings is still seen: in mid-name, in mid-value, between two lines.
#[test]
fn a_request_cut_by_a_change_is_found() {
    let Some(binary) = gate::product("settings::a_request_cut_by_a_change_is_found") else {
        return;
    };
    let both = Both::new(binary, &places(0));
    let mut version = 0;
    for token in [TOKEN, HASHED] {
        for line in [
            format!("X-API-Key: Bearer {token}"),
            format!("Cookie: a=b; session={token}; c=d"),
        ] {
            let text = format!("GET / HTTP/1.1\r\nHost: origin.test\r\n{line}\r\n\r\n");
            let start = text.find(&line).unwrap();
            for cut in [start, start + 2, start + 9, start + 16, start + 26] {
                version += 1;
                let (first, rest) = text.split_at(cut);
                let server = both.server(Tier::Kernel);
                let mut client = Client::connect(&both.bench.pair.client, server).unwrap();
                client.send(first.as_bytes()).unwrap();
                // It is at the origin, so the program has read it.
                let there = || both.bench.origin.saw(first.as_bytes()).then_some(());
                poll::until(LIMIT, there).unwrap();
                both.reload(&places(version));
                let answer = client.exchange(rest.as_bytes(), LIMIT).unwrap();
                assert_eq!(answer.status(), Some(403), "{first:?} | {rest:?}");
                assert!(!both.bench.origin.saw(token.as_bytes()));
                client.abort().unwrap();
                both.bench.origin.forget();
            }
        }
    }
}

/// What a connection repeats is judged anew under other settings.
#[test]
fn what_a_connection_repeats_is_judged_by_the_places_in_force() {
    let name = "settings::what_a_connection_repeats_is_judged_by_the_places_in_force";
    let Some(binary) = gate::product(name) else {
        return;
    };
    let both = Both::new(binary, &places(0));
    for (version, token) in (1..).zip([TOKEN, HASHED]) {
        let server = both.server(Tier::Kernel);
        let mut client = Client::connect(&both.bench.pair.client, server).unwrap();
        let request = format!(
            "GET / HTTP/1.1\r\nHost: origin.test\r\nAccept: */*\r\nX-Other-{version}-7: {token}\r\n\r\n"
        );
        for _ in 0..5 {
            let answer = client.exchange(request.as_bytes(), LIMIT).unwrap();
            assert_eq!(answer.status(), Some(200), "{}", both.product.log());
        }
        both.reload(&places(version));
        let answer = client.exchange(request.as_bytes(), LIMIT).unwrap();
        assert_eq!(answer.status(), Some(403), "{}", both.product.log());
        client.abort().unwrap();
    }
}

#[test]
fn length_and_monitor_change_in_both_tiers() {
    let Some(binary) = gate::product("settings::length_and_monitor_change") else {
        return;
    };
    let both = Both::new(binary, "");
    let short = format!("X-API-Key: {SHORT}");
    let listed = format!("X-API-Key: {TOKEN}");
    let hashed = format!("X-API-Key: {HASHED}");
    let all = |of_short, of_listed, of_hashed| {
        both.due(&short, of_short);
        both.due(&listed, of_listed);
        both.due(&hashed, of_hashed);
    };
    all(200, 403, 403);
    let times = || both.reads("denylist changed, in force");
    let with_list = |settings: &str| {
        let before = times();
        both.reload(settings);
        let changed = || (times() > before).then_some(());
        assert!(
            poll::until(LIMIT, changed).is_some(),
            "{}",
            both.product.log()
        );
    };
    with_list("min-token-length = 6");
    all(403, 403, 403);
    both.reload("min-token-length = 6\nmonitor = true");
    all(200, 200, 200);
    both.reload("min-token-length = 6");
    all(403, 403, 403);
    with_list("");
    all(200, 403, 403);
    // What can't be meant changes nothing, in neither tier.
    fs::write(&both.config, "monitor = true\nheader = ['a:b']\n").unwrap();
    both.product.signal(Signal::HUP).unwrap();
    let stays = "the settings in force stay in force";
    assert!(both.product.wait_for(stays, LIMIT).is_ok());
    all(200, 403, 403);
    // Nor does what the proxy alone can't use.
    fs::write(
        &both.config,
        "monitor = true\nupstream-ca = 'none.pem'\n[[route]]\npath = '/x'\nupstream = 'https://b'",
    )
    .unwrap();
    both.product.signal(Signal::HUP).unwrap();
    let twice = || (both.reads(stays) == 2).then_some(());
    assert!(
        poll::until(LIMIT, twice).is_some(),
        "{}",
        both.product.log()
    );
    all(200, 403, 403);
}
