//! Programs of others at the same hooks: those that stand in front, and those who take the product's away.

use std::{ffi::OsString, process::Command};

use aya::programs::TcAttachType;
use tokenblock_tests::{
    beside,
    client::{Answer, Client},
    fixtures::{OPAQUE, Token},
    gate,
    netns::{INTERFACE, Netns},
    product::Product,
};

use crate::{
    lab::{Bench, BpfFs, LIMIT, Lab, Tier},
    lifecycle::attached,
};

/// What is said of programs that somebody has detached, and of one in front.
const DETACHED: &str = "somebody else has detached the programs";
const IN_FRONT: &str = "another program runs in front";

/// Runs `tc` in a namespace.
fn tc(netns: &Netns, args: &str) {
    let mut command: Command = netns.command("tc");
    let output = command.args(args.split(' ')).output().unwrap();
    assert!(output.status.success(), "{args}: {output:?}");
}

/// Detaches the product's programs in mid-connection, and asserts that they come back, and judge as before.
fn check_come_back(lab: &Lab, detach: impl FnOnce(&Netns)) {
    let server = &lab.bench.pair.server;
    let before = attached(server).len();
    let [there, _] = lab.servers();
    let mut client = Client::connect(&lab.bench.pair.client, there).unwrap();
    let clean = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = client.exchange(clean, LIMIT).unwrap();
    assert_eq!(answer.status(), Some(200));
    let taken = lab.product.kernel_counter("attached_again").unwrap();
    detach(server);
    // Nobody sees this one: it may be answered, or come while the programs are back.
    let answer = client.exchange(clean, LIMIT).unwrap();
    assert_eq!(answer.status(), Some(200));
    lab.product.wait_for(DETACHED, LIMIT).unwrap();
    let again = lab.product.kernel_counter("attached_again").unwrap();
    assert_eq!(again, taken + 1);
    assert_eq!(attached(server).len(), before, "{:?}", attached(server));
    assert!(lab.blocks(Token::Opaque));
    let answer = client.exchange(clean, LIMIT).unwrap();
    assert_eq!(answer.status(), Some(200), "{}", lab.product.log());
    let request = Lab::request(Token::Opaque);
    let answer = client.exchange(&request, LIMIT).unwrap();
    assert!(
        matches!(answer, Answer::Reset) || answer.status() == Some(403),
        "{answer:?}\n{}",
        lab.product.log()
    );
    assert!(!lab.bench.origin.saw(OPAQUE.as_bytes()));
}

#[test]
fn links_that_somebody_detaches_come_back_and_it_is_told() {
    let Some(binary) = gate::product("beside::links_that_somebody_detaches_come_back") else {
        return;
    };
    for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
        let lab = Lab::new(binary.clone(), Tier::Kernel);
        check_come_back(&lab, |server| {
            beside::detach(server, INTERFACE, hook).unwrap();
        });
    }
}

#[test]
fn pinned_links_that_somebody_detaches_come_back() {
    let Some(binary) = gate::product("beside::pinned_links_that_somebody_detaches_come_back")
    else {
        return;
    };
    let pins = BpfFs::mount();
    let folder = format!("--pin-dir={}", pins.path().join("pins").display());
    let lab = Bench::new(binary).start(Tier::Kernel, &[&folder]);
    check_come_back(&lab, |server| {
        beside::detach(server, INTERFACE, TcAttachType::Ingress).unwrap();
    });
    // The next process finds pins in order.
    let Lab { bench, product, .. } = lab;
    drop(product);
    let lab = bench.start(Tier::Kernel, &[&folder]);
    assert!(lab.blocks(Token::Opaque));
}

#[test]
fn filters_that_somebody_takes_away_come_back() {
    let Some(binary) = gate::product("beside::filters_that_somebody_takes_away_come_back") else {
        return;
    };
    let lab = Bench::new(binary).start(Tier::Kernel, &["--attach", "clsact"]);
    check_come_back(&lab, |server| {
        tc(server, &format!("qdisc del dev {INTERFACE} clsact"));
    });
    // One in its place, of the same numbers.
    let filters = attached(&lab.bench.pair.server);
    assert!(filters.iter().any(|line| line.contains("pref 49152")));
}

/// Somebody else's programs: of a product that protects another port.
fn other(bench: &Bench) -> Product {
    let state = bench.folder.path().join("other");
    let args = ["run", "--denylist"].map(OsString::from).into_iter();
    let args = args.chain([bench.list().into(), "--state-dir".into(), state.into()]);
    let more = ["--interface", INTERFACE, "--port", "9", "--log-format=json"];
    let args: Vec<_> = args.chain(more.map(OsString::from)).collect();
    bench.start_with(&args)
}

#[test]
fn programs_in_front_are_told() {
    let Some(binary) = gate::product("beside::programs_in_front_are_told") else {
        return;
    };
    let first = Lab::new(binary.clone(), Tier::Kernel);
    assert!(!first.product.says(IN_FRONT));
    let second = other(&first.bench);
    first.product.wait_for(IN_FRONT, LIMIT).unwrap();
    assert!(first.blocks(Token::Opaque));
    assert!(!second.says(IN_FRONT), "{}", second.log());
    assert!(!first.product.says(DETACHED), "{}", first.product.log());

    let lab = Bench::new(binary).start(Tier::Kernel, &["--attach", "clsact"]);
    let server = &lab.bench.pair.server;
    let filter = "protocol all prio 1 u32 match u32 0 0 flowid 1:1";
    tc(
        server,
        &format!("filter add dev {INTERFACE} ingress {filter}"),
    );
    lab.product.wait_for(IN_FRONT, LIMIT).unwrap();
    assert!(!lab.product.says(DETACHED), "{}", lab.product.log());
}
