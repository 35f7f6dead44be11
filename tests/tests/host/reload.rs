//! A long list is read again under load: no listed token passes meanwhile, and no clean request fails.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::Duration,
};

use tokenblock_tests::{
    fixtures::{Token, list_file},
    gate, poll,
};

use crate::lab::{Bench, LIMIT, Lab, Tier};

const ENTRIES: usize = 1_000_000;
const RELOADS: usize = 3;
const CLIENTS: usize = 3;
/// Between two requests of each kind.
const PAUSE: Duration = Duration::from_millis(2);
/// Until a list is read again, by a build for tests on a busy machine.
const RELOADED: Duration = Duration::from_mins(5);

/// The listed token, and so many others, half of them in every version.
fn write(list: &Path, version: usize) {
    let mut text = list_file(&[Token::Opaque]);
    for n in 0..ENTRIES {
        let version = if n % 2 == 0 { 0 } else { version };
        writeln!(text, "made-up-token-{version}-{n}").unwrap();
    }
    let next = list.with_extension("next");
    fs::write(&next, text).unwrap();
    fs::rename(next, list).unwrap();
}

fn reloads(lab: &Lab) -> usize {
    let lines = lab.product.lines();
    let changed = lines
        .iter()
        .filter(|line| line.contains("denylist changed"));
    changed.count()
}

/// Sends listed and clean requests until it is `done`, or one has another fate than it is due.
fn send(lab: &Lab, tier: Tier, client: usize, done: &AtomicBool, requests: &AtomicUsize) {
    let [server, _] = lab.servers();
    while !done.load(Relaxed) {
        for (token, due) in [(Token::Opaque, 403), (Token::Jwt, 200)] {
            let exchange = lab.exchange(server, &Lab::request(token), LIMIT);
            let answer = exchange.answer.status();
            if answer != Some(due) {
                done.store(true, Relaxed);
            }
            assert_eq!(answer, Some(due), "{tier:?}, {client}: {token:?}");
            requests.fetch_add(1, Relaxed);
        }
        // Who reads the list gives way: clients without a pause would leave it nothing where cores are few.
        thread::sleep(PAUSE);
    }
}

#[test]
fn nothing_listed_passes_while_a_million_entries_are_read_again() {
    let name = "reload::nothing_listed_passes_while_a_million_entries_are_read_again";
    let Some(binary) = gate::product(name) else {
        return;
    };
    for tier in [Tier::Kernel, Tier::Proxy] {
        let bench = Bench::new(binary.clone());
        let list = bench.list();
        write(&list, 0);
        let lab = bench.start(tier, &[]);
        let (done, requests) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (lab, done, requests) = (&lab, &done, &requests);
                scope.spawn(move || {
                    // A thread for each of so many connections would be what is tested most.
                    let namespace = &lab.bench.pair.client;
                    namespace
                        .enter(|| send(lab, tier, client, done, requests))
                        .unwrap();
                });
            }
            for reload in 1..=RELOADS {
                write(&list, reload);
                poll::until(RELOADED, || {
                    (reloads(&lab) >= reload || done.load(Relaxed)).then_some(())
                });
            }
            done.store(true, Relaxed);
        });
        assert_eq!(reloads(&lab), RELOADS, "{tier:?}\n{}", lab.product.log());
        assert!(
            requests.load(Relaxed) > 100,
            "{tier:?}: {requests:?} requests"
        );
    }
}
