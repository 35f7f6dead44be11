//! Enforcement that outlives its process: killed at any instant, started again, replaced, ended for good.

use std::{
    ffi::OsString,
    fs,
    net::SocketAddr,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tokenblock_tests::{
    certificate::Certificate,
    client::{Answer, Client, curl},
    fixtures::{OPAQUE, Token, hashed_list_file, list_file},
    gate,
    netns::{INTERFACE, Netns, link},
    poll,
    product::{End, Product},
};

use crate::{
    lab::{Bench, BpfFs, LIMIT, ORIGIN_PORT, Tier},
    lifecycle::{NOBODY, as_the_unit_starts_it, attached, attached_to},
};

/// Clients that send all the time.
const CLIENTS: usize = 2;
/// Starts that are killed, each a little later in its life.
const KILLS: u32 = 24;

/// Between two parts of a request.
const CUT: Duration = Duration::from_millis(10);

/// A host whose programs are kept in a folder.
struct Kept {
    bench: Bench,
    bpf: BpfFs,
    binary: PathBuf,
}

impl Kept {
    fn new(binary: PathBuf) -> Self {
        let bench = Bench::new(binary.clone());
        fs::write(bench.list(), list_file(&[Token::Opaque])).unwrap();
        Self {
            bench,
            bpf: BpfFs::mount(),
            binary,
        }
    }

    fn folder(&self) -> PathBuf {
        self.bpf.path().join("tokenblock")
    }

    fn args(&self, more: &[&str]) -> Vec<OsString> {
        let mut args = self.bench.common();
        args.extend(self.bench.tier(Tier::Kernel));
        args.extend(["--pin-dir".into(), self.folder().into()]);
        args.extend(more.iter().map(OsString::from));
        args
    }

    fn start(&self, more: &[&str]) -> Product {
        self.bench.start_with(&self.args(more))
    }

    /// Starts it with these arguments, which are refused; how it ended.
    fn refused(&self, args: &[OsString]) -> End {
        let end = self.bench.spawn(args).wait(LIMIT).unwrap();
        assert!(!end.log.contains("in force\""), "{}", end.log);
        assert!(!end.log.contains("panicked"), "{}", end.log);
        end
    }

    /// `tokenblock detach`, from outside the namespace; its exit code and what it said.
    fn detach(&self) -> (Option<i32>, String) {
        let output = Command::new(&self.binary)
            .args(["detach", "--pin-dir"])
            .arg(self.folder())
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }

    /// The names of all pins.
    fn pins(&self) -> Vec<String> {
        names_in(&self.folder())
    }

    /// The status of the answer to a request that bears `token`.
    fn status(&self, token: &str) -> Option<u16> {
        let [server, _] = self.bench.pair.server_addresses(ORIGIN_PORT);
        ask(&self.bench.pair.client, server, token).status()
    }

    fn blocks(&self) -> bool {
        match self.status(OPAQUE) {
            Some(403) => true,
            Some(200) => false,
            other => panic!("{other:?}"),
        }
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut names = Vec::new();
    for entry in entries.map(Result::unwrap) {
        names.push(entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            names.extend(names_in(&entry.path()));
        }
    }
    names.sort();
    names
}

/// A request that bears `token`.
fn request(token: &str) -> String {
    let host = Certificate::HOST;
    format!("GET / HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n")
}

/// What comes of a request on a connection of its own.
fn ask(netns: &Netns, server: SocketAddr, token: &str) -> Answer {
    let mut client = Client::connect(netns, server).unwrap();
    let answer = client.exchange(request(token).as_bytes(), LIMIT).unwrap();
    client.abort().unwrap();
    answer
}

fn end(mut product: Product, signal: Signal) -> End {
    product.signal(signal).unwrap();
    let end = product.wait(LIMIT).unwrap();
    if signal != Signal::KILL {
        assert_eq!(end.code(), Some(0), "{}", end.log);
    }
    end
}

/// Links of a set of programs among pins.
fn links(pins: &[String], set: &str) -> usize {
    let is_link = |name: &&String| {
        ["ingress", "egress"]
            .iter()
            .any(|hook| name.starts_with(&format!("{set}-{hook}-")))
    };
    pins.iter().filter(is_link).count()
}

#[test]
fn a_process_that_ends_goes_on_to_block_until_it_is_detached() {
    let Some(binary) = gate::product("pinned::a_process_that_ends_goes_on_to_block") else {
        return;
    };
    let kept = Kept::new(binary);
    for signal in [Signal::KILL, Signal::TERM, Signal::INT] {
        let product = kept.start(&[]);
        assert!(kept.blocks());
        let (code, said) = kept.detach();
        assert_eq!(code, Some(71), "{said}");
        let end = end(product, signal);
        for _ in 0..3 {
            assert!(kept.blocks(), "{signal:?}\n{}", end.log);
            assert_eq!(kept.status("another-token-of-some-length"), Some(200));
        }
        assert_eq!(attached(&kept.bench.pair.server).len(), 2);
    }
    // What was blocked meanwhile is told, and counted with the rest.
    let product = kept.start(&[]);
    assert_eq!(product.wait_for_all_events(3, LIMIT).len(), 3);
    assert_eq!(product.kernel_counter("blocked").unwrap(), 12);
    end(product, Signal::TERM);
    let (code, said) = kept.detach();
    assert_eq!((code, &*said), (Some(0), "detached: 2 links\n"));
    assert!(!kept.folder().exists(), "{:?}", kept.pins());
    assert_eq!(attached(&kept.bench.pair.server), [""; 0]);
    assert!(!kept.blocks());
    let (code, said) = kept.detach();
    assert_eq!((code, &*said), (Some(0), "nothing was attached\n"));
}

#[test]
fn pins_are_for_their_owner_alone_and_hold_no_token() {
    use std::os::unix::fs::MetadataExt as _;
    let Some(binary) = gate::product("pinned::pins_are_for_their_owner_alone") else {
        return;
    };
    let kept = Kept::new(binary);
    let product = kept.start(&[]);
    assert!(kept.blocks());
    let mut seen = vec![kept.folder()];
    while let Some(path) = seen.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        assert_eq!(metadata.mode() & 0o077, 0, "{}", path.display());
        if metadata.is_dir() {
            let entries = fs::read_dir(path).unwrap();
            seen.extend(entries.map(|entry| entry.unwrap().path()));
        }
    }
    for name in kept.pins() {
        assert!(!name.contains(OPAQUE), "{name}");
    }
    end(product, Signal::TERM);
}

/// The service is a user without rights, to whom its BPF file system belongs.
#[test]
fn the_capabilities_of_the_unit_are_enough() {
    let Some(binary) = gate::product("pinned::the_capabilities_of_the_unit") else {
        return;
    };
    let copy = tempfile::tempdir().unwrap();
    let kept = Kept::new(as_the_unit_starts_it(copy.path(), &binary));
    let own = fs::read_dir(kept.bench.folder.path()).unwrap();
    let own = own.map(|entry| entry.unwrap().path());
    for path in own.chain([kept.bench.folder.path(), kept.bpf.path()].map(Path::to_owned)) {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    for told in ["\"attached\":3", "\"replaced\":3"] {
        let product = kept.start(&["--xdp=generic"]);
        assert_eq!(links(&kept.pins(), "keyed"), 2);
        assert!(product.says(told), "{}", product.log());
        end(product, Signal::KILL);
        assert!(kept.blocks());
    }
    assert_eq!(kept.detach().0, Some(0));
    assert!(!kept.blocks());
}

/// What clients sent while processes came and went.
#[derive(Default)]
struct Sent {
    done: AtomicBool,
    listed: AtomicUsize,
    clean: AtomicUsize,
}

/// Has clients stop, also where a test fails.
struct Stop<'a>(&'a Sent);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.done.store(true, Relaxed);
    }
}

/// Sends listed and clean requests until it is done, or one has another fate than it is due.
fn send(kept: &Kept, sent: &Sent, client: usize) {
    let server = kept.bench.pair.server_addresses(ORIGIN_PORT)[client % 2];
    while !sent.done.load(Relaxed) {
        for (token, due, count) in [
            (OPAQUE, 403, &sent.listed),
            ("another-token-of-some-length", 200, &sent.clean),
        ] {
            let answer = ask(&kept.bench.pair.client, server, token);
            if answer.status() != Some(due) {
                sent.done.store(true, Relaxed);
            }
            assert_eq!(answer.status(), Some(due), "{client}: {token}: {answer:?}");
            count.fetch_add(1, Relaxed);
        }
    }
}

/// Waits until each client has sent some more.
fn more_is_sent(sent: &Sent) {
    let before = sent.listed.load(Relaxed);
    let more = || {
        (sent.listed.load(Relaxed) >= before + 2 * CLIENTS || sent.done.load(Relaxed)).then_some(())
    };
    poll::until(LIMIT, more).unwrap();
}

#[test]
fn no_listed_token_passes_while_processes_come_and_go() {
    let Some(binary) = gate::product("pinned::no_listed_token_passes") else {
        return;
    };
    let kept = Kept::new(binary);
    let state = kept.bench.folder.path().join("state");
    let mut product = kept.start(&[]);
    let sent = Sent::default();
    let product = thread::scope(|scope| {
        let _stop = Stop(&sent);
        for client in 0..CLIENTS {
            let (kept, sent) = (&kept, &sent);
            scope.spawn(move || send(kept, sent, client));
        }
        // Other settings, another key, entries of another kind besides: never the same programs.
        let others: [(&[&str], bool); 6] = [
            (&[], false),
            (&["--port=9"], false),
            (&[], true),
            (&["--direction=both", "--on-hit=forbid"], false),
            (&["--xdp=generic"], false),
            (&[], false),
        ];
        for (round, (more, new_key)) in others.into_iter().enumerate() {
            more_is_sent(&sent);
            let signal = [Signal::KILL, Signal::TERM][round % 2];
            let ended = end(product, signal);
            more_is_sent(&sent);
            if new_key {
                fs::remove_dir_all(&state).unwrap();
            }
            product = kept.start(more);
            more_is_sent(&sent);
            let told = product.lines();
            let told = told
                .iter()
                .find(|line| line.contains("outlive this process"));
            let told = told.unwrap();
            assert!(
                told.contains("\"replaced\":2"),
                "{more:?}: {told}\n{}",
                ended.log
            );
            if sent.done.load(Relaxed) {
                break;
            }
        }
        product
    });
    assert!(!kept.bench.origin.saw(OPAQUE.as_bytes()));
    end(product, Signal::TERM);
}

/// Two halves of a request, cut in the middle of its token.
fn halves(token: &str) -> (Vec<u8>, Vec<u8>) {
    let mut request = request(token).into_bytes();
    let at = request.len() - token.len() / 2 - 4;
    let rest = request.split_off(at);
    (request, rest)
}

#[test]
fn a_token_that_is_cut_over_a_change_is_blocked() {
    let Some(binary) = gate::product("pinned::a_token_that_is_cut_over_a_change") else {
        return;
    };
    let kept = Kept::new(binary);
    let (first, rest) = halves(OPAQUE);
    let (clean_first, clean_rest) = halves("another-token-of-some-length");
    let mut product = kept.start(&[]);
    for server in kept.bench.pair.server_addresses(ORIGIN_PORT) {
        let begin = |bytes: &[u8]| {
            let mut client = Client::connect(&kept.bench.pair.client, server).unwrap();
            let warm = client.exchange(request("nothing-special").as_bytes(), LIMIT);
            assert_eq!(warm.unwrap().status(), Some(200));
            client.send(bytes).unwrap();
            let address = client.address().unwrap();
            let seen = || {
                kept.bench
                    .origin
                    .seen_from(address)
                    .ends_with(bytes)
                    .then_some(())
            };
            poll::until(LIMIT, seen).unwrap();
            client
        };
        let mut cut: Vec<_> = (0..3).map(|_| begin(&first)).collect();
        let mut clean: Vec<_> = (0..3).map(|_| begin(&clean_first)).collect();
        let mut go_on = || {
            let answer = cut.pop().unwrap().exchange(&rest, LIMIT).unwrap();
            assert_eq!(answer.status(), Some(403), "{answer:?}");
            let answer = clean.pop().unwrap().exchange(&clean_rest, LIMIT).unwrap();
            assert_eq!(answer.status(), Some(200), "{answer:?}");
        };
        end(product, Signal::KILL);
        go_on();
        product = kept.start(&[]);
        go_on();
        end(product, Signal::TERM);
        // Policies and list are no part of what connections have come to.
        fs::write(kept.bench.list(), list_file(&[Token::Opaque, Token::Jwt])).unwrap();
        product = kept.start(&["--monitor=false", "--policy=http2=reset"]);
        go_on();
        assert!(product.kernel_counter("mid_stream").unwrap() == 0);
    }
    assert!(!kept.bench.origin.saw(OPAQUE.as_bytes()));
    end(product, Signal::TERM);
}

/// Sends requests whose tokens are cut, with a pause in which a process may come or go, until it is done or one has another
/// fate than it is due.
fn send_cut(kept: &Kept, sent: &Sent, client: usize) {
    let server = kept.bench.pair.server_addresses(ORIGIN_PORT)[client % 2];
    while !sent.done.load(Relaxed) {
        for (token, due, count) in [
            (OPAQUE, 403, &sent.listed),
            ("another-token-of-some-length", 200, &sent.clean),
        ] {
            let (first, rest) = halves(token);
            let mut client = Client::connect(&kept.bench.pair.client, server).unwrap();
            client.send(&first).unwrap();
            thread::sleep(CUT);
            let answer = client.exchange(&rest, LIMIT).unwrap();
            client.abort().unwrap();
            if answer.status() != Some(due) {
                sent.done.store(true, Relaxed);
            }
            assert_eq!(answer.status(), Some(due), "{token}: {answer:?}");
            count.fetch_add(1, Relaxed);
        }
    }
}

#[test]
fn no_token_that_is_cut_passes_while_processes_come_and_go() {
    let Some(binary) = gate::product("pinned::no_token_that_is_cut_passes") else {
        return;
    };
    let kept = Kept::new(binary);
    let mut product = kept.start(&[]);
    let sent = Sent::default();
    let product = thread::scope(|scope| {
        let _stop = Stop(&sent);
        for client in 0..2 * CLIENTS {
            let (kept, sent) = (&kept, &sent);
            scope.spawn(move || send_cut(kept, sent, client));
        }
        for round in 0..8 {
            more_is_sent(&sent);
            end(product, [Signal::KILL, Signal::TERM][round % 2]);
            // What is no part of what connections have come to may change.
            product = kept.start([&["--on-hit=forbid"][..], &["--policy=http2=reset"]][round % 2]);
            assert!(product.says("\"replaced\":2"), "{}", product.log());
            assert!(!sent.done.load(Relaxed));
        }
        more_is_sent(&sent);
        product
    });
    assert!(!kept.bench.origin.saw(OPAQUE.as_bytes()));
    assert_eq!(product.kernel_counter("mid_stream").unwrap(), 0);
    end(product, Signal::TERM);
}

/// Where what is followed differs, connections are first seen in their middle, which does not harm them.
#[test]
fn clean_connections_go_on_under_other_programs() {
    let Some(binary) = gate::product("pinned::clean_connections_go_on") else {
        return;
    };
    let kept = Kept::new(binary);
    let [server, _] = kept.bench.pair.server_addresses(ORIGIN_PORT);
    let length = 300_000;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\n\r\n",
        Certificate::HOST
    );
    let mut product = kept.start(&[]);
    for more in [&[][..], &["--port=9"], &["--max-flows=100"], &[]] {
        let mut idle = Client::connect(&kept.bench.pair.client, server).unwrap();
        let clean = request("another-token-of-some-length");
        assert_eq!(
            idle.exchange(clean.as_bytes(), LIMIT).unwrap().status(),
            Some(200)
        );
        let mut upload = Client::connect(&kept.bench.pair.client, server).unwrap();
        upload.send(head.as_bytes()).unwrap();
        upload.send(&vec![b'u'; length / 2]).unwrap();
        end(product, Signal::KILL);
        product = kept.start(more);
        upload.send(&vec![b'u'; length / 2]).unwrap();
        assert_eq!(upload.answer(LIMIT).status(), Some(200), "{more:?}");
        for client in [&mut idle, &mut upload] {
            let answer = client.exchange(clean.as_bytes(), LIMIT).unwrap();
            assert_eq!(answer.status(), Some(200), "{more:?}");
            let answer = client.exchange(request(OPAQUE).as_bytes(), LIMIT).unwrap();
            assert_eq!(answer.status(), Some(403), "{more:?}");
        }
    }
    end(product, Signal::TERM);
}

#[test]
fn kills_at_any_instant_of_a_start_leave_what_can_be_taken_over() {
    let Some(binary) = gate::product("pinned::kills_at_any_instant") else {
        return;
    };
    let kept = Kept::new(binary);
    // Two kinds of programs in turns, so that none takes over what the one before has left half made.
    let kinds: [&[&str]; 3] = [&[], &["--port=9", "--xdp=generic"], &["--max-flows=100"]];
    let begun = Instant::now();
    end(kept.start(kinds[0]), Signal::KILL);
    let whole = begun.elapsed().mul_f64(1.2);
    let sent = Sent::default();
    thread::scope(|scope| {
        let _stop = Stop(&sent);
        for client in 0..CLIENTS {
            let (kept, sent) = (&kept, &sent);
            scope.spawn(move || send(kept, sent, client));
        }
        for kill in 0..KILLS {
            let kind = kinds[kill as usize % kinds.len()];
            let mut product = kept.bench.spawn(&kept.args(kind));
            // The instant is what is tested.
            thread::sleep(whole * kill / KILLS);
            product.signal(Signal::KILL).unwrap();
            product.wait(LIMIT).unwrap();
            more_is_sent(&sent);
            assert!(!sent.done.load(Relaxed), "after {kill}: {:?}", kept.pins());
            assert_eq!(attached(&kept.bench.pair.server).len(), 2, "{kill}");
            // In force, the other half of a change, and of this start.
            let maps = kept.pins();
            let maps = maps.iter().filter(|name| name.contains("-flows-"));
            assert!(maps.count() <= 3, "{kill}: {:?}", kept.pins());
        }
    });
    assert!(!kept.bench.origin.saw(OPAQUE.as_bytes()));
    let product = kept.start(kinds[0]);
    assert!(kept.blocks());
    let pins = kept.pins();
    // Its namespace, two links, the folder of maps and eleven of these.
    assert_eq!(pins.len(), 15, "{pins:?}");
    end(product, Signal::TERM);
    assert_eq!(kept.detach().0, Some(0));
    assert_eq!(attached(&kept.bench.pair.server), [""; 0]);
}

/// From nothing: what a first start has left when it was killed is never in the way.
#[test]
fn a_first_start_that_is_killed_is_never_in_the_way() {
    let Some(binary) = gate::product("pinned::a_first_start_that_is_killed") else {
        return;
    };
    let kept = Kept::new(binary);
    let begun = Instant::now();
    end(kept.start(&[]), Signal::KILL);
    let whole = begun.elapsed();
    for kill in 0..KILLS / 2 {
        assert_eq!(kept.detach().0, Some(0));
        let mut product = kept.bench.spawn(&kept.args(&[]));
        thread::sleep(whole * kill / (KILLS / 2));
        product.signal(Signal::KILL).unwrap();
        product.wait(LIMIT).unwrap();
        let product = kept.start(&[]);
        assert!(kept.blocks(), "{kill}");
        end(product, Signal::TERM);
    }
}

#[test]
fn what_is_wanted_no_more_is_detached() {
    let Some(binary) = gate::product("pinned::what_is_wanted_no_more") else {
        return;
    };
    let kept = Kept::new(binary);
    let server = &kept.bench.pair.server;
    let other = Netns::new().unwrap();
    for name in ["more0", "more1"] {
        link(server, name, &other, name).unwrap();
    }
    let more = ["--interface=more*", "--xdp=generic"];
    end(kept.start(&more), Signal::KILL);
    assert_eq!(links(&kept.pins(), "keyed"), 6);
    assert_eq!(
        kept.pins()
            .iter()
            .filter(|name| name.contains("xdp_generic"))
            .count(),
        3
    );
    // One that goes while nobody looks, ...
    server.ip("link delete more0").unwrap();
    let product = kept.start(&more);
    assert_eq!(links(&kept.pins(), "keyed"), 4);
    // ... one that goes while somebody does, ...
    server.ip("link delete more1").unwrap();
    poll::until(LIMIT, || (links(&kept.pins(), "keyed") == 2).then_some(())).unwrap();
    // ... and one that comes.
    link(server, "more2", &other, "more2").unwrap();
    poll::until(LIMIT, || (links(&kept.pins(), "keyed") == 4).then_some(())).unwrap();
    end(product, Signal::KILL);
    assert_eq!(attached_to(server, "more2").len(), 2);
    // One that comes in the place of another, under its number, finds a link that holds nothing any more.
    let index = || server.ip("-o link show dev more2").unwrap();
    let number = index().split(':').next().unwrap().to_owned();
    server.ip("link delete more2").unwrap();
    let again = format!("link add more2 index {number} type veth peer name more3");
    server.ip(&again).unwrap();
    assert!(index().starts_with(&format!("{number}:")), "{}", index());
    end(kept.start(&more), Signal::KILL);
    assert_eq!(attached_to(server, "more2").len(), 2);
    assert_eq!(attached_to(server, "more3").len(), 2);
    let product = kept.start(&["--xdp=off"]);
    assert_eq!(links(&kept.pins(), "keyed"), 2);
    assert!(
        !kept.pins().iter().any(|name| name.contains("xdp")),
        "{:?}",
        kept.pins()
    );
    assert_eq!(attached_to(server, "more2"), [""; 0]);
    assert_eq!(attached(server).len(), 2);
    assert!(kept.blocks());
    end(product, Signal::TERM);
}

#[test]
fn entries_known_by_their_hashes_outlive_the_process_too() {
    let Some(binary) = gate::product("pinned::entries_known_by_their_hashes") else {
        return;
    };
    let kept = Kept::new(binary);
    let both = list_file(&[Token::Opaque]) + &hashed_list_file(&[Token::Base64]);
    fs::write(kept.bench.list(), both).unwrap();
    let hashed = Token::Base64.text();
    let product = kept.start(&[]);
    assert_eq!(kept.status(&hashed), Some(403));
    end(product, Signal::KILL);
    assert_eq!((kept.status(&hashed), kept.blocks()), (Some(403), true));
    let product = kept.start(&[]);
    assert!(product.says("\"replaced\":4"), "{}", product.log());
    assert_eq!(links(&kept.pins(), "sha256"), 2);
    assert_eq!((kept.status(&hashed), kept.blocks()), (Some(403), true));
    // While it runs they leave with their last entry, ...
    fs::write(kept.bench.list(), list_file(&[Token::Opaque])).unwrap();
    poll::until(LIMIT, || (links(&kept.pins(), "sha256") == 0).then_some(())).unwrap();
    assert_eq!(kept.status(&hashed), Some(200));
    fs::write(kept.bench.list(), hashed_list_file(&[Token::Base64])).unwrap();
    poll::until(LIMIT, || (kept.status(&hashed) == Some(403)).then_some(())).unwrap();
    end(product, Signal::KILL);
    assert_eq!(kept.status(&hashed), Some(403));
    // ... and else with the next start.
    fs::write(kept.bench.list(), list_file(&[Token::Opaque])).unwrap();
    let product = kept.start(&[]);
    assert_eq!((kept.status(&hashed), kept.blocks()), (Some(200), true));
    assert_eq!(
        (links(&kept.pins(), "sha256"), links(&kept.pins(), "keyed")),
        (0, 2)
    );
    end(product, Signal::TERM);
}

/// An entry changes its kind while no process runs: one set of programs takes it up before the other lets it go.
#[test]
fn an_entry_may_become_one_of_a_hash() {
    let Some(binary) = gate::product("pinned::an_entry_may_become_one_of_a_hash") else {
        return;
    };
    let kept = Kept::new(binary);
    let mut product = kept.start(&[]);
    let sent = Sent::default();
    let product = thread::scope(|scope| {
        let _stop = Stop(&sent);
        for client in 0..CLIENTS {
            let (kept, sent) = (&kept, &sent);
            scope.spawn(move || send(kept, sent, client));
        }
        for round in 0..6 {
            let of_hashes = hashed_list_file(&[Token::Opaque]);
            let list = [of_hashes, list_file(&[Token::Opaque])];
            end(product, Signal::KILL);
            fs::write(kept.bench.list(), &list[round % 2]).unwrap();
            product = kept.start(&[]);
            more_is_sent(&sent);
            let sets = [links(&kept.pins(), "keyed"), links(&kept.pins(), "sha256")];
            assert_eq!(sets, [[2, 2], [2, 0]][round % 2]);
        }
        product
    });
    assert!(!kept.bench.origin.saw(OPAQUE.as_bytes()));
    end(product, Signal::TERM);
}

/// An entry that expires while nobody looks at the clock stays in force until somebody does.
#[test]
fn an_entry_stays_while_no_process_runs() {
    let Some(binary) = gate::product("pinned::an_entry_stays") else {
        return;
    };
    let kept = Kept::new(binary);
    let soon = "a-token-that-expires-soon";
    // A start takes as long as it takes on a busy machine.
    let in_time = [3, 15, 60].into_iter().find_map(|seconds| {
        fs::write(kept.bench.list(), format!("{soon} expires={seconds}s\n")).unwrap();
        let expiry = Instant::now() + Duration::from_secs(seconds);
        let product = kept.start(&[]);
        let listed = kept.status(soon) == Some(403);
        end(product, Signal::KILL);
        let in_time = Instant::now() < expiry;
        assert!(listed || !in_time);
        (listed && in_time).then_some(expiry)
    });
    let expired = in_time.unwrap() + Duration::from_secs(1);
    poll::until(Duration::from_mins(2), || {
        (Instant::now() > expired).then_some(())
    })
    .unwrap();
    assert_eq!(kept.status(soon), Some(403));
    let product = kept.start(&[]);
    assert_eq!(kept.status(soon), Some(200));
    end(product, Signal::TERM);
}

/// Whatever keeps a process from starting, the programs before it stay in force.
#[test]
fn a_start_that_is_refused_leaves_what_is_in_force() {
    let Some(binary) = gate::product("pinned::a_start_that_is_refused") else {
        return;
    };
    let kept = Kept::new(binary);
    let product = kept.start(&[]);
    let refused = |args: &[OsString], code, words: &[&str]| {
        let end = kept.refused(args);
        assert_eq!(end.code(), Some(code), "{}", end.log);
        for word in words {
            assert!(end.log.contains(word), "no {word:?} in:\n{}", end.log);
        }
        assert!(kept.blocks(), "{}", end.log);
        assert_eq!(attached(&kept.bench.pair.server).len(), 2);
    };
    let other_state = kept.bench.folder.path().join("other");
    let mut second = kept.args(&[]);
    second.extend(["--control-socket".into(), other_state.join("socket").into()]);
    for arg in &mut second {
        if *arg == kept.bench.folder.path().join("state").into_os_string() {
            *arg = other_state.clone().into();
        }
    }
    refused(&second, 71, &["another tokenblock keeps its programs in"]);
    end(product, Signal::KILL);
    fs::write(kept.bench.list(), "sha256:abc\n").unwrap();
    refused(&kept.args(&[]), 65, &["denylist:1", "stay attached"]);
    // Nor do maps stay that no program came to use.
    let before = kept.pins();
    refused(&kept.args(&["--max-flows=100"]), 65, &["denylist:1"]);
    assert_eq!(kept.pins(), before);
    fs::write(kept.bench.list(), list_file(&[Token::Opaque])).unwrap();
    refused(
        &kept.args(&["--interface=nowhere0"]),
        64,
        &["nowhere0", "stay attached"],
    );
    let stray = kept.folder().join("stray");
    fs::create_dir(&stray).unwrap();
    refused(&kept.args(&[]), 65, &["stray was not made by this version"]);
    fs::remove_dir(&stray).unwrap();
    let mount = |options: &str| {
        let status = Command::new("mount")
            .args(["-o", options])
            .arg(kept.bpf.path())
            .status();
        assert!(status.unwrap().success());
    };
    mount("remount,ro");
    refused(&kept.args(&[]), 71, &["can't make the folder", "Read-only"]);
    mount("remount,rw");
    end(kept.start(&[]), Signal::TERM);
    assert!(kept.blocks());
}

#[test]
fn folders_that_can_not_be_used_are_refused() {
    let Some(binary) = gate::product("pinned::folders_that_can_not_be_used") else {
        return;
    };
    let kept = Kept::new(binary.clone());
    let mut args = kept.bench.common();
    args.extend(kept.bench.tier(Tier::Kernel));
    let plain = kept.bench.folder.path().join("plain");
    args.extend(["--pin-dir".into(), plain.clone().into()]);
    let end_of = kept.refused(&args);
    assert_eq!(end_of.code(), Some(64), "{}", end_of.log);
    assert!(
        end_of.log.contains("is on no BPF file system"),
        "{}",
        end_of.log
    );
    assert!(!plain.exists());
    let output = Command::new(&binary)
        .args(["detach", "--pin-dir"])
        .arg(kept.bench.folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    // Programs of another network namespace.
    end(kept.start(&[]), Signal::KILL);
    let elsewhere = kept.bench.start_at_client(&{
        let mut args = kept.args(&[]);
        args.retain(|arg| arg != "--pin-dir" && *arg != kept.folder().into_os_string());
        args
    });
    end(elsewhere, Signal::TERM);
    let mut stranger = Product::spawn(&binary, &kept.bench.pair.client, &kept.args(&[])).unwrap();
    let ended = stranger.wait(LIMIT).unwrap();
    assert_eq!(ended.code(), Some(65), "{}", ended.log);
    assert!(
        ended.log.contains("another network namespace"),
        "{}",
        ended.log
    );
    assert!(kept.blocks());
    assert_eq!(kept.detach().0, Some(0));
    // By clsact nothing can be kept: it says so.
    let product = kept.start(&["--attach=clsact"]);
    assert!(
        product.says("enforcement ends with this process"),
        "{}",
        product.log()
    );
    end(product, Signal::TERM);
    assert_eq!(kept.pins(), [""; 0]);
    assert_eq!(attached_to(&kept.bench.pair.server, INTERFACE), [""; 0]);
}

/// The settings may name no interface any more.
#[test]
fn without_a_kernel_tier_its_programs_are_detached() {
    let Some(binary) = gate::product("pinned::without_a_kernel_tier") else {
        return;
    };
    let kept = Kept::new(binary);
    end(kept.start(&[]), Signal::TERM);
    assert!(kept.blocks());
    let mut args = kept.bench.common();
    args.extend(kept.bench.tier(Tier::Proxy));
    args.extend(["--pin-dir".into(), kept.folder().into()]);
    let product = kept.bench.start_with(&args);
    assert!(
        product.says("there is no kernel tier any more"),
        "{}",
        product.log()
    );
    assert_eq!(attached(&kept.bench.pair.server), [""; 0]);
    assert!(!kept.folder().exists());
    assert!(!kept.blocks());
    end(product, Signal::TERM);
}

#[test]
fn the_status_says_what_was_taken_over() {
    let Some(binary) = gate::product("pinned::the_status_says") else {
        return;
    };
    let kept = Kept::new(binary);
    let [server, _] = kept.bench.pair.server_addresses(ORIGIN_PORT);
    let product = kept.start(&[]);
    let mut open: Vec<_> = (0..3)
        .map(|_| Client::connect(&kept.bench.pair.client, server).unwrap())
        .collect();
    let clean = request("another-token-of-some-length");
    for client in &mut open {
        assert_eq!(
            client.exchange(clean.as_bytes(), LIMIT).unwrap().status(),
            Some(200)
        );
    }
    end(product, Signal::KILL);
    let product = kept.start(&[]);
    let output = Command::new(&kept.binary)
        .args(["status", "--json", "--state-dir"])
        .arg(kept.bench.folder.path().join("state"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let folder = kept.folder();
    assert_eq!(
        status["tiers"]["kernel"]["pin_dir"],
        *folder.to_string_lossy()
    );
    let pins = &status["tiers"]["counters"]["pins"];
    assert_eq!(pins["replaced"], 2, "{status}");
    assert_eq!(
        (&pins["attached"], &pins["removed"]),
        (&0.into(), &0.into())
    );
    assert_eq!(pins["flows_taken_over"], 3);
    for client in &mut open {
        assert_eq!(
            client.exchange(clean.as_bytes(), LIMIT).unwrap().status(),
            Some(200)
        );
    }
    assert_eq!(product.kernel_counter("mid_stream").unwrap(), 0);
    end(product, Signal::TERM);
}

#[test]
fn a_ban_goes_on() {
    let Some(binary) = gate::product("pinned::a_ban_goes_on") else {
        return;
    };
    let kept = Kept::new(binary);
    let [server, other] = kept.bench.pair.server_addresses(ORIGIN_PORT);
    let ban = ["--ban=1/60/600"];
    let product = kept.start(&ban);
    assert!(kept.blocks());
    product.wait_for("source banned", LIMIT).unwrap();
    let client = &kept.bench.pair.client;
    let is_banned = || {
        let url = format!("http://{server}/");
        curl(client, &["--connect-timeout", "0.5", &url]).unwrap().0 == 0
    };
    assert!(is_banned());
    end(product, Signal::KILL);
    assert!(is_banned());
    let product = kept.start(&ban);
    assert!(is_banned());
    let answer = ask(client, other, "another-token-of-some-length");
    assert_eq!(answer.status(), Some(200));
    end(product, Signal::TERM);
}

/// Other places come into force while it runs: those hold on, and their programs can be replaced.
#[test]
fn places_that_were_read_again_hold_on() {
    let Some(binary) = gate::product("pinned::places_that_were_read_again") else {
        return;
    };
    let kept = Kept::new(binary);
    let config = kept.bench.folder.path().join("settings.toml");
    let own = request(OPAQUE).replace("Authorization: Bearer", "X-Own:");
    let [server, _] = kept.bench.pair.server_addresses(ORIGIN_PORT);
    let own_status = || {
        let mut client = Client::connect(&kept.bench.pair.client, server).unwrap();
        let answer = client.exchange(own.as_bytes(), LIMIT).unwrap();
        client.abort().unwrap();
        answer.status()
    };
    fs::write(&config, "header = [\"Authorization\"]\n").unwrap();
    let mut args = vec!["run".into(), "--config".into(), config.clone().into()];
    let list = ["--denylist".into(), kept.bench.list().into()];
    let state = kept.bench.folder.path().join("state");
    args.extend(list);
    args.extend(kept.bench.tier(Tier::Kernel));
    args.extend(["--pin-dir".into(), kept.folder().into()]);
    args.extend(["--state-dir".into(), state.into()]);
    let product = kept.bench.start_with(&args);
    let before = kept.pins();
    assert_eq!(own_status(), Some(200));
    fs::write(&config, "header = [\"Authorization\", \"X-Own\"]\n").unwrap();
    product.signal(Signal::HUP).unwrap();
    poll::until(LIMIT, || (own_status() == Some(403)).then_some(())).unwrap();
    product.wait_for("read again", LIMIT).unwrap();
    assert_ne!(kept.pins(), before);
    assert_eq!(kept.pins().len(), before.len());
    end(product, Signal::KILL);
    assert_eq!(own_status(), Some(403));
    for _ in 0..2 {
        let product = kept.bench.start_with(&args);
        assert!(product.says("replaced=2"), "{}", product.log());
        assert_eq!((own_status(), kept.blocks()), (Some(403), true));
        end(product, Signal::KILL);
        assert_eq!((own_status(), kept.blocks()), (Some(403), true));
    }
}

/// What somebody has made of the folder is told, and nothing is in force because of it that should not be, or the other way.
#[test]
fn pins_that_were_meddled_with_are_told() {
    let Some(binary) = gate::product("pinned::pins_that_were_meddled_with") else {
        return;
    };
    let kept = Kept::new(binary);
    end(kept.start(&[]), Signal::KILL);
    let find = |part: &str| {
        let inside = fs::read_dir(kept.folder()).unwrap().next().unwrap();
        let entries = fs::read_dir(inside.unwrap().path()).unwrap();
        let mut paths = entries.map(|entry| entry.unwrap().path());
        paths
            .find(|path| path.to_string_lossy().contains(part))
            .unwrap()
    };
    // Maps that are gone, or others, are made anew.
    fs::remove_file(find("flows").join("GAPS")).unwrap();
    let product = kept.start(&[]);
    assert!(product.says("are not complete"), "{}", product.log());
    assert!(kept.blocks());
    end(product, Signal::KILL);
    let maps = find("flows");
    fs::rename(maps.join("BLOCKED"), maps.join("FLOWS")).unwrap();
    fs::rename(maps.join("STATES"), maps.join("BLOCKED")).unwrap();
    fs::rename(maps.join("GAPS"), maps.join("STATES")).unwrap();
    let product = kept.start(&[]);
    assert!(product.says("are not complete"), "{}", product.log());
    assert!(kept.blocks());
    // Links that are taken away while it runs take nothing with them.
    let [server, _] = kept.bench.pair.server_addresses(ORIGIN_PORT);
    let mut open = Client::connect(&kept.bench.pair.client, server).unwrap();
    let clean = request("another-token-of-some-length");
    let mut goes_on = || open.exchange(clean.as_bytes(), LIMIT).unwrap().status();
    assert_eq!(goes_on(), Some(200));
    fs::remove_file(find("ingress")).unwrap();
    assert!(kept.blocks());
    end(product, Signal::KILL);
    // What is sent while nobody looks does not harm who sent it.
    assert_eq!((goes_on(), goes_on()), (Some(200), Some(200)));
    let product = kept.start(&[]);
    assert_eq!(goes_on(), Some(200));
    assert!(kept.blocks());
    assert_eq!(links(&kept.pins(), "keyed"), 2);
    end(product, Signal::KILL);
    // What is no link can't be one.
    let ingress = find("ingress");
    fs::remove_file(&ingress).unwrap();
    fs::create_dir(&ingress).unwrap();
    let refused = kept.refused(&kept.args(&[]));
    assert_eq!(refused.code(), Some(71), "{}", refused.log);
    assert!(
        refused.log.contains("take away what was made in its place"),
        "{}",
        refused.log
    );
    fs::remove_dir(find("ingress")).unwrap();
    end(kept.start(&[]), Signal::TERM);
    assert!(kept.blocks());
    assert_eq!(kept.detach().0, Some(0));
}

/// What a connection repeats was found clean by the list before: under the next it is read anew, though the connection goes on.
#[test]
fn what_was_clean_is_judged_by_the_next_list() {
    let Some(binary) = gate::product("pinned::what_was_clean_is_judged") else {
        return;
    };
    let kept = Kept::new(binary);
    let [server, _] = kept.bench.pair.server_addresses(ORIGIN_PORT);
    let later = Token::Base64.text();
    // Further fields, as clients send them: a block that is worth remembering.
    let repeated =
        request(&later).replace("\r\n\r\n", "\r\nAccept: */*\r\nUser-Agent: a/1\r\n\r\n");
    let product = kept.start(&[]);
    let mut client = Client::connect(&kept.bench.pair.client, server).unwrap();
    for _ in 0..8 {
        let answer = client.exchange(repeated.as_bytes(), LIMIT).unwrap();
        assert_eq!(answer.status(), Some(200));
    }
    assert!(product.kernel_counter("repeated").unwrap() > 0);
    end(product, Signal::KILL);
    let answer = client.exchange(repeated.as_bytes(), LIMIT).unwrap();
    assert_eq!(answer.status(), Some(200));
    fs::write(
        kept.bench.list(),
        list_file(&[Token::Opaque, Token::Base64]),
    )
    .unwrap();
    let product = kept.start(&[]);
    assert!(product.says("\"flows_taken_over\":1"), "{}", product.log());
    let answer = client.exchange(repeated.as_bytes(), LIMIT).unwrap();
    assert_eq!(answer.status(), Some(403), "{}", product.log());
    end(product, Signal::TERM);
    // The other way: what leaves the list while no process runs is free with the next.
    fs::write(kept.bench.list(), list_file(&[Token::Opaque])).unwrap();
    assert_eq!(kept.status(&later), Some(403));
    let product = kept.start(&[]);
    assert_eq!(kept.status(&later), Some(200));
    end(product, Signal::TERM);
}

/// Events wait in a buffer that has an end: what finds no room there is counted.
#[test]
fn events_wait_or_are_counted_as_lost() {
    const REQUESTS: u64 = 24_000;
    const AT_ONCE: u64 = 100;
    let Some(binary) = gate::product("pinned::events_wait_or_are_counted_as_lost") else {
        return;
    };
    let kept = Kept::new(binary);
    let [server, _] = kept.bench.pair.server_addresses(ORIGIN_PORT);
    end(kept.start(&["--monitor"]), Signal::KILL);
    let mut client = Client::connect(&kept.bench.pair.client, server).unwrap();
    let several = request(OPAQUE).repeat(usize::try_from(AT_ONCE).unwrap());
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".len();
    for _ in 0..REQUESTS / AT_ONCE {
        client.send(several.as_bytes()).unwrap();
        let answers = answer * usize::try_from(AT_ONCE).unwrap();
        client.take(answers, LIMIT).unwrap();
    }
    let product = kept.start(&["--monitor"]);
    assert_eq!(product.kernel_counter("alerted").unwrap(), REQUESTS);
    let lost = product.kernel_counter("event_lost").unwrap();
    assert!(lost > 0 && lost < REQUESTS, "{lost}");
    // The log may leave out some of so many.
    assert!(product.wait_for_all_events(1_000, LIMIT).len() >= 1_000);
    end(product, Signal::TERM);
}
