//! Where XDP is attached, in which mode, and that it is no more than help.

use std::{ffi::OsString, net::SocketAddr, time::Duration};

use tokenblock_tests::{
    client::{Answer, Client},
    fixtures::{OPAQUE, Token},
    gate,
    netns::{INTERFACE, Netns},
    poll,
    product::Product,
};

use crate::lab::{Bench, LIMIT, Lab, ORIGIN_PORT, Tier};

/// More than the first two retransmissions take.
const RETRANSMISSIONS: Duration = Duration::from_secs(1);

/// How an XDP program is attached, in the words of `ip`.
fn mode(netns: &Netns, interface: &str) -> Option<&'static str> {
    let said = netns.ip(&format!("link show dev {interface}")).unwrap();
    let mut words = said.split(' ');
    words.find_map(|word| match word {
        "xdp" => Some("native"),
        "xdpgeneric" => Some("generic"),
        _ => None,
    })
}

/// Sends a blocked request, which is sent again and again until this is dropped.
fn send_listed(netns: &Netns, server: SocketAddr) -> Client {
    let mut client = Client::connect(netns, server).unwrap();
    let request = Lab::request(Token::Opaque);
    let answer = client.exchange(&request, RETRANSMISSIONS).unwrap();
    assert_eq!(answer, Answer::Silence(Vec::new()), "{server}");
    client
}

/// On a link of software, and on loopback, whose driver knows no XDP.
#[test]
fn modes_are_what_was_asked_for() {
    let Some(binary) = gate::product("xdp::modes_are_what_was_asked_for") else {
        return;
    };
    // What is attached from the beginning, once something was blocked, and what drops the rest.
    for (interface, asked, before, after, counter) in [
        (INTERFACE, "off", None, None, "blocked_again"),
        (INTERFACE, "auto", None, Some("generic"), "xdp_blocked"),
        (
            INTERFACE,
            "generic",
            Some("generic"),
            Some("generic"),
            "xdp_blocked",
        ),
        (
            INTERFACE,
            "native",
            Some("native"),
            Some("native"),
            "xdp_blocked",
        ),
        ("lo", "auto", None, Some("generic"), "xdp_blocked"),
        ("lo", "native", None, None, "blocked_again"),
    ] {
        let name = format!("{asked} on {interface}");
        let bench = Bench::new(binary.clone());
        let mut args = bench.common();
        let port = ORIGIN_PORT.to_string();
        let more = ["--interface", interface, "--port", &port, "--xdp", asked];
        args.extend(more.map(OsString::from));
        args.push("--on-hit=drop".into());
        let product = bench.start_with(&args);
        let server = &bench.pair.server;
        assert_eq!(mode(server, interface), before, "{name}");
        let [there, _] = bench.pair.server_addresses(ORIGIN_PORT);
        let client = if interface == "lo" {
            send_listed(server, ([127, 0, 0, 1], ORIGIN_PORT).into())
        } else {
            send_listed(&bench.pair.client, there)
        };
        assert_eq!(mode(server, interface), after, "{name}");
        let counted = |counter| product.kernel_counter(counter).unwrap();
        assert_eq!(counted("blocked"), 1, "{name}");
        let again = poll::until(LIMIT, || (counted(counter) >= 2).then_some(()));
        assert!(again.is_some(), "{name}\n{}", product.log());
        client.abort().unwrap();
        let told = product.says("XDP can't help on this interface");
        assert_eq!(told, asked == "native" && interface == "lo", "{name}");
        drop(product);
        let gone = || mode(server, interface).is_none().then_some(());
        assert!(poll::until(LIMIT, gone).is_some(), "{name}");
        assert!(!bench.origin.saw(OPAQUE.as_bytes()), "{name}");
    }
}

/// An interface has one XDP program. Where it is another's, that one stays, and TC does all the work.
#[test]
fn another_program_is_left_in_its_place() {
    let Some(binary) = gate::product("xdp::another_program_is_left_in_its_place") else {
        return;
    };
    for (theirs, ours) in [
        ("native", "native"),
        ("generic", "native"),
        ("native", "generic"),
        ("native", "auto"),
    ] {
        let name = format!("{ours} beside {theirs}");
        let bench = Bench::new(binary.clone());
        let other = other(&bench, theirs);
        let lab = bench.start(Tier::Kernel, &["--on-hit=drop", "--xdp", ours]);
        let clients = lab
            .servers()
            .map(|server| send_listed(&lab.bench.pair.client, server));
        assert!(!lab.bench.origin.saw(OPAQUE.as_bytes()), "{name}");
        let again = || lab.product.kernel_counter("blocked_again").unwrap();
        let again = poll::until(LIMIT, || (again() >= 4).then_some(()));
        assert!(again.is_some(), "{name}\n{}", lab.product.log());
        drop(clients);
        let words = "another XDP program is attached to it";
        assert!(lab.product.says(words), "{name}\n{}", lab.product.log());
        assert_eq!(
            mode(&lab.bench.pair.server, INTERFACE),
            Some(theirs),
            "{name}"
        );
        drop(other);
    }
}

/// Somebody else's program: of a product that protects another port, with a folder of its own.
fn other(bench: &Bench, xdp: &str) -> Product {
    let state = bench.folder.path().join("other");
    let args = ["run", "--denylist"].map(OsString::from).into_iter();
    let args = args.chain([bench.list().into(), "--state-dir".into(), state.into()]);
    let more = ["--interface", INTERFACE, "--port", "9", "--xdp", xdp];
    let args: Vec<_> = args
        .chain(more.map(OsString::from))
        .chain(["--log-format=json".into()])
        .collect();
    bench.start_with(&args)
}
