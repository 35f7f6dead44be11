//! Interfaces that come and go, as those of pods do, while requests run through them.

use std::{
    ffi::OsString,
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::Duration,
};

use aya::programs::{SchedClassifier, TcAttachType};
use rustix::process::Signal;
use tempfile::TempDir;
use tokenblock_tests::{
    client::{Answer, Client},
    fixtures::{OPAQUE, Token, list_file},
    gate,
    netns::{self, INTERFACE, Netns},
    origin::Origin,
    poll,
    product::Product,
};

use crate::{
    lab::{LIMIT, Lab, ORIGIN_PORT},
    lifecycle::attached_to,
};

/// Pods that are there at once, and how many there are of each, one after the other.
const LANES: usize = 4;
const GENERATIONS: usize = 7;
/// The pod that stays.
const STABLE: usize = 250;
const CLEAN: &[u8] = b"GET /clean HTTP/1.1\r\nHost: origin.test\r\n\r\n";
/// Interfaces that come at once, and how long it may take until they are all protected.
const BURST: usize = 60;
const CAUGHT_UP: Duration = Duration::from_secs(20);

/// A host with pods, which ask a server on it.
struct Node {
    netns: Netns,
    origin: Origin,
    folder: TempDir,
}

impl Node {
    fn new() -> Self {
        let netns = Netns::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("denylist"), list_file(&[Token::Opaque])).unwrap();
        Self {
            origin: Origin::start(&netns, ORIGIN_PORT).unwrap(),
            netns,
            folder,
        }
    }

    /// The product before all pods, those to come too.
    fn start(&self, binary: &Path) -> Product {
        let folder = self.folder.path();
        let args: Vec<OsString> = vec![
            "run".into(),
            "--denylist".into(),
            folder.join("denylist").into(),
            "--state-dir".into(),
            folder.join("state").into(),
            "--interface=veth*".into(),
            format!("--port={ORIGIN_PORT}").into(),
            "--log-format=json".into(),
        ];
        Product::start(binary, &self.netns, &args).unwrap()
    }
}

/// A namespace behind a link of its own.
struct Pod<'a> {
    node: &'a Node,
    netns: Netns,
    number: usize,
    server: SocketAddr,
}

impl<'a> Pod<'a> {
    fn new(node: &'a Node, number: usize) -> Self {
        let netns = Netns::new().unwrap();
        let name = format!("veth{number}");
        netns::link(&node.netns, &name, &netns, INTERFACE).unwrap();
        // One family each: half of the pods are of the other.
        let (prefix, bits, flags) = if number.is_multiple_of(2) {
            (format!("10.78.{number}."), 24, "")
        } else {
            (format!("fd78:{number}::"), 64, "nodad")
        };
        for (netns, interface, last) in [(&netns, INTERFACE, 2), (&node.netns, &*name, 1)] {
            let address = format!("address add {prefix}{last}/{bits} dev {interface} {flags}");
            let up = format!("link set {interface} up");
            netns.ip_batch(&format!("{address}\n{up}\n")).unwrap();
        }
        let ip = format!("{prefix}1").parse().unwrap();
        Self {
            node,
            netns,
            number,
            server: SocketAddr::new(ip, ORIGIN_PORT),
        }
    }

    /// The status of an answer, on a connection of its own; nothing where there is none.
    fn ask(&self, request: &[u8]) -> Option<u16> {
        let mut client = Client::connect(&self.netns, self.server).ok()?;
        client.exchange(request, LIMIT).ok()?.status()
    }

    fn ask_listed(&self) -> Option<u16> {
        self.ask(&Lab::request(Token::Opaque))
    }

    /// Takes the link away.
    fn unplug(&self) {
        let name = format!("link delete veth{}", self.number);
        self.node.netns.ip(&name).unwrap();
    }
}

/// How many links of a type (`tcx`, `xdp`) the product holds, in the kernel's words.
fn links(product: &Product, kind: &str) -> usize {
    let folder = format!("/proc/{}/fdinfo", product.pid());
    let line = format!("link_type:\t{kind}\n");
    let files = fs::read_dir(folder).unwrap().map(Result::unwrap);
    // A file that is closed meanwhile is none of those that are held.
    let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    texts.filter(|text| text.contains(&line)).count()
}

/// Waits until the product holds no more than so many interfaces take: a program each way, and XDP.
fn assert_lets_go(product: &Product, interfaces: usize, limit: Duration) {
    let held = || [links(product, "tcx"), links(product, "xdp")];
    let fits = || {
        let [tcx, xdp] = held();
        (tcx == 2 * interfaces && xdp <= interfaces).then_some(())
    };
    let let_go = poll::until(limit, fits);
    assert!(let_go.is_some(), "{:?}\n{}", held(), product.log());
}

/// The product ends as it should, having said nothing of errors, and nothing is left at the interface that stays.
fn assert_ends_well(mut product: Product, node: &Node) {
    let interface = format!("veth{STABLE}");
    assert!(!attached_to(&node.netns, &interface).is_empty());
    product.signal(Signal::TERM).unwrap();
    // The kernel takes its time to detach while others make links.
    let end = product.wait(CAUGHT_UP).unwrap();
    assert_eq!(end.code(), Some(0), "{}", end.log);
    assert!(!end.log.contains("\"ERROR\""), "{}", end.log);
    assert_eq!(attached_to(&node.netns, &interface), [""; 0]);
}

/// One pod after the other: each is protected soon after its link is there, and goes while it asks.
fn live(node: &Node, lane: usize) {
    for generation in 0..GENERATIONS {
        let pod = Pod::new(node, lane * GENERATIONS + generation);
        let blocked = poll::until(LIMIT, || (pod.ask_listed() == Some(403)).then_some(()));
        assert!(blocked.is_some(), "pod {}", pod.number);
        for _ in 0..5 {
            assert_eq!(pod.ask(CLEAN), Some(200), "pod {}", pod.number);
            assert_eq!(pod.ask_listed(), Some(403), "pod {}", pod.number);
        }
        // The link goes in the middle of a request.
        let mut client = Client::connect(&pod.netns, pod.server).unwrap();
        client.send(b"GET /never HTTP/1.1\r\nHost").unwrap();
        pod.unplug();
        assert!(matches!(
            client.answer(Duration::from_millis(10)),
            Answer::Silence(_)
        ));
        client.abort().unwrap();
    }
}

/// Asks through the link that stays until all is `done`; counts.
fn stay(pod: &Pod<'_>, done: &AtomicBool) -> usize {
    let mut requests = 0;
    while !done.load(Relaxed) {
        assert_eq!(pod.ask(CLEAN), Some(200));
        assert_eq!(pod.ask_listed(), Some(403));
        requests += 1;
    }
    requests
}

#[test]
fn pods_are_protected_while_they_live() {
    let Some(binary) = gate::product("churn::pods_are_protected_while_they_live") else {
        return;
    };
    let node = Node::new();
    let stable = Pod::new(&node, STABLE);
    let product = node.start(&binary);
    assert_eq!(stable.ask_listed(), Some(403));
    let done = AtomicBool::new(false);
    let requests = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| requests.store(stay(&stable, &done), Relaxed));
        let lanes: Vec<_> = (0..LANES)
            .map(|lane| {
                let node = &node;
                scope.spawn(move || live(node, lane))
            })
            .collect();
        let ended: Vec<_> = lanes
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        done.store(true, Relaxed);
        assert!(ended.iter().all(Result::is_ok), "{}", product.log());
    });
    assert!(requests.into_inner() > 0);
    // Before a pod was protected its requests were answered.
    let due = LANES * GENERATIONS * 6;
    let events = product.wait_for_all_events(due, LIMIT).len();
    assert!(events >= due, "{events}");
    assert_lets_go(&product, 1, LIMIT);
    assert_ends_well(product, &node);
}

/// Names of so many links, both ends of which are in the namespace of the node.
fn names(series: &str) -> Vec<String> {
    (0..BURST).map(|n| format!("veth{series}{n}")).collect()
}

/// Makes many links at once.
fn add(node: &Node, names: &[String]) {
    let mut lines = String::new();
    for name in names {
        writeln!(lines, "link add {name} up type veth peer name peer-{name}").unwrap();
    }
    node.netns.ip_batch(&lines).unwrap();
}

/// Deletes them.
fn delete(node: &Node, names: &[String]) {
    let mut lines = String::new();
    for name in names {
        writeln!(lines, "link delete {name}").unwrap();
    }
    node.netns.ip_batch(&lines).unwrap();
}

/// Those of the interfaces that have no program at their way in.
fn unprotected(netns: &Netns, names: &[String]) -> Vec<String> {
    let is_free = |name: &&String| {
        let found = SchedClassifier::query_tcx(name, TcAttachType::Ingress);
        found.is_ok_and(|(_, programs)| programs.is_empty())
    };
    netns
        .enter(|| names.iter().filter(is_free).cloned().collect())
        .unwrap()
}

/// Waits until all of these are protected, and nothing is held beside them and the one that stays.
fn assert_followed(node: &Node, product: &Product, names: &[String]) {
    let mut left = names.to_vec();
    let all = poll::until(CAUGHT_UP, || {
        left = unprotected(&node.netns, &left);
        left.is_empty().then_some(())
    });
    assert!(all.is_some(), "not protected: {left:?}\n{}", product.log());
    assert_lets_go(product, names.len() + 1, CAUGHT_UP);
}

#[test]
fn many_interfaces_at_once_are_all_followed() {
    let Some(binary) = gate::product("churn::many_interfaces_at_once_are_all_followed") else {
        return;
    };
    let node = Node::new();
    let stable = Pod::new(&node, STABLE);
    let product = node.start(&binary);
    let [first, second] = ["a", "b"].map(names);
    add(&node, &first);
    assert_followed(&node, &product, &first);
    assert_eq!(attached_to(&node.netns, "peer-vetha0"), [""; 0]);
    // More happens than the kernel keeps for one who does not listen.
    product.signal(Signal::STOP).unwrap();
    delete(&node, &first);
    add(&node, &second);
    product.signal(Signal::CONT).unwrap();
    assert_followed(&node, &product, &second);
    assert_eq!(stable.ask(CLEAN), Some(200));
    assert_eq!(stable.ask_listed(), Some(403));
    assert_eq!(node.origin.wait_for_requests(1, LIMIT).len(), 1);
    assert!(!node.origin.saw(OPAQUE.as_bytes()));
    assert_ends_well(product, &node);
}

/// A name that another interface has by the time that the first is attached to: both are protected, each once.
#[test]
fn names_that_change_hands_are_followed() {
    let Some(binary) = gate::product("churn::names_that_change_hands_are_followed") else {
        return;
    };
    let node = Node::new();
    let stable = Pod::new(&node, STABLE);
    let product = node.start(&binary);
    // The product hears of all that once it is over.
    product.signal(Signal::STOP).unwrap();
    let lines = "link add vetha up type veth peer name peer-a\n\
                 link set vetha down\n\
                 link set vetha name vethb\n\
                 link set vethb up\n\
                 link add vetha up type veth peer name peer-b\n";
    node.netns.ip_batch(lines).unwrap();
    product.signal(Signal::CONT).unwrap();
    let names = ["vetha", "vethb"].map(str::to_owned);
    assert_followed(&node, &product, &names);
    for name in &names {
        assert_eq!(attached_to(&node.netns, name).len(), 2, "{name}");
    }
    assert_eq!(stable.ask(CLEAN), Some(200));
    assert_ends_well(product, &node);
}

/// An interface that is gone before it is attached to is no reason not to start.
#[test]
fn a_start_among_interfaces_that_go() {
    let Some(binary) = gate::product("churn::a_start_among_interfaces_that_go") else {
        return;
    };
    let node = Node::new();
    let stable = Pod::new(&node, STABLE);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let few = &names("c")[..20];
            while !done.load(Relaxed) {
                add(&node, few);
                delete(&node, few);
            }
        });
        let starts = || {
            for _ in 0..4 {
                let product = node.start(&binary);
                assert_eq!(stable.ask_listed(), Some(403), "{}", product.log());
                assert_ends_well(product, &node);
            }
        };
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(starts));
        done.store(true, Relaxed);
        ended.unwrap();
    });
}
