//! Segments that no honest TCP sends: decoys that the host ignores, overlaps with other content, data on the SYN,
//! urgent data, ports used again. Each is played three times: without the product, where it must bring the token to
//! the application, so that it is a way past a look at single packets; with the product; and with a clean token.

mod cases;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    thread,
};

use cases::{
    Case, SETTLING, by_cookie, cases, fragments, framed_otherwise, inside_routed, middle,
    on_the_syn, pieces, source_routed, whole_fragments,
};
use tokenblock_tests::{fixtures::OPAQUE, gate, netns::Pair, origin::Origin, poll, raw::RawHost};

use crate::lab::{Bench, LIMIT, Lab, ORIGIN_PORT, Tier};

/// As long as [`OPAQUE`], and not listed.
const CLEAN: &str = "3f786850e387550fdab836ed7e6dc881de23001c";
/// The first port of the clients.
const PORTS: u16 = 20_000;
/// Plays that are under way at once.
const BATCH: usize = 24;

/// What came of a play.
struct Played {
    name: String,
    expected: Vec<u8>,
    urgent: bool,
    address: SocketAddr,
}

/// Plays the cases side by side, each over both families on a port of its own; `round` keeps the ports apart.
fn play(pair: &Pair, cases: &[Case], token: &str, round: u16) -> Vec<Played> {
    let host = RawHost::new(pair).unwrap();
    let servers = pair.server_addresses(ORIGIN_PORT);
    let mut all = Vec::new();
    let ports = PORTS + round * 1000..;
    let mut plays: Vec<_> = cases
        .iter()
        .flat_map(|case| servers.map(|server| (case, server)))
        .zip(ports)
        .collect();
    while !plays.is_empty() {
        let rest = plays.split_off(plays.len().min(BATCH));
        let host = &host;
        let played: Vec<Played> = thread::scope(|scope| {
            let running: Vec<_> = plays
                .into_iter()
                .map(|((case, server), port)| {
                    scope.spawn(move || one(host, case, token, server, port))
                })
                .collect();
            running
                .into_iter()
                .map(|play| play.join().unwrap())
                .collect()
        });
        all.extend(played);
        plays = rest;
    }
    all
}

fn one(host: &RawHost<'_>, case: &Case, token: &str, server: SocketAddr, port: u16) -> Played {
    let mut client = host.client(server, port).unwrap();
    let name = format!("{}, {server}", case.name);
    let expected =
        (case.play)(&mut client, token).unwrap_or_else(|error| panic!("{name}: {error:#}"));
    Played {
        name,
        expected,
        urgent: case.urgent,
        address: client.address(),
    }
}

/// Asserts that the application read exactly what was to come.
fn assert_arrived(origin: &Origin, played: &[Played]) {
    let mut wrong = Vec::new();
    for Played {
        name,
        expected,
        address,
        ..
    } in played
    {
        let seen = || origin.all_seen_from(*address);
        poll::until(LIMIT, || (seen().len() >= expected.len()).then_some(()));
        let seen = seen();
        if seen != *expected {
            wrong.push(format!("{name}: {:?}", String::from_utf8_lossy(&seen)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Asserts that no application read a listed token to its end, which the byte behind it shows.
fn assert_kept_out(lab: &Lab, played: &[Played]) {
    thread::sleep(SETTLING);
    let seen = |played: &&Played| {
        let seen = lab.bench.origin.all_seen_from(played.address);
        let longer = seen.windows(OPAQUE.len() + 1);
        longer.filter(|w| w.starts_with(OPAQUE.as_bytes())).count() > 0
    };
    let names: Vec<_> = played
        .iter()
        .filter(seen)
        .map(|played| &played.name)
        .collect();
    assert!(names.is_empty(), "{names:#?}");
}

/// A server with these switches set, and no product.
fn server(switches: &[(&str, &str)]) -> Pair {
    let pair = Pair::new().unwrap();
    for (name, value) in switches {
        pair.server.set_ipv4(name, value).unwrap();
    }
    pair
}

/// A server with these switches set behind the product.
fn protected(binary: PathBuf, switches: &[(&str, &str)]) -> Lab {
    Bench::between(server(switches), binary).start(Tier::Kernel, &["--on-hit", "reset"])
}

/// Plays with a listed token where nothing is between: it must arrive.
fn check_without(cases: &[Case], switches: &[(&str, &str)]) {
    check_arrives_at(&server(switches), cases);
}

fn check_arrives_at(pair: &Pair, cases: &[Case]) {
    let origin = Origin::start(&pair.server, ORIGIN_PORT).unwrap();
    assert_arrived(&origin, &play(pair, cases, OPAQUE, 0));
    assert!(origin.saw(OPAQUE.as_bytes()));
}

/// Plays with a listed token, which must not arrive.
fn check_kept_out(lab: &Lab, cases: &[Case]) {
    assert_kept_out(lab, &play(&lab.bench.pair, cases, OPAQUE, 0));
}

/// Plays with a clean token, which must arrive; what was urgent as a part of the stream.
fn check_arrives(lab: &Lab, cases: &[Case]) {
    let counted = || lab.product.kernel_counter("urgent").unwrap();
    let before = counted();
    let mut played = play(&lab.bench.pair, cases, CLEAN, 1);
    for played in played.iter_mut().filter(|played| played.urgent) {
        played.expected.insert(middle(CLEAN), b'!');
    }
    assert_arrived(&lab.bench.origin, &played);
    let urgent = played.iter().filter(|played| played.urgent).count() as u64;
    let counted = counted() - before;
    assert!(counted >= urgent, "{counted} of {urgent} urgent");
}

/// Servers that take data on a SYN of any client (`tcp_fastopen` of the kernel's ip-sysctl).
const FAST_OPEN: [(&str, &str); 1] = [("tcp_fastopen", "1539")];
/// Servers that always answer by SYN cookie.
const COOKIES: [(&str, &str); 1] = [("tcp_syncookies", "2")];

#[test]
fn without_the_product_each_brings_the_token() {
    if !gate::namespaces("raw_segments::without_the_product_each_brings_the_token") {
        return;
    }
    check_without(&cases(), &[]);
    check_without(&on_the_syn(), &FAST_OPEN);
    check_without(&by_cookie(), &COOKIES);
    check_without(&framed_otherwise(), &[]);
    check_without(&fragments(), &[]);
    check_without(&whole_fragments(), &[]);
}

#[test]
fn fragments_bring_no_listed_token() {
    let Some(binary) = gate::product("raw_segments::fragments_bring_no_listed_token") else {
        return;
    };
    let lab = protected(binary.clone(), &[]);
    let mut all = fragments();
    all.extend(whole_fragments());
    check_kept_out(&lab, &all);
    check_arrives(&lab, &whole_fragments());
    let bench = Bench::between(server(&[]), binary);
    let lab = bench.start(Tier::Kernel, &["--policy", "fragment=pass"]);
    check_arrives(&lab, &fragments());
}

/// Other addresses of the server.
const WAYS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(10, 77, 0, 77)), IpAddr::V6(WAY_V6)];
const WAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x77);

/// A server that takes source routes, as hardly any does.
fn source_routing() -> Pair {
    let pair = server(&[]);
    for conf in ["all", "eth0"] {
        let set = |name: String| pair.server.set_net(&name, "1").unwrap();
        set(format!("ipv4/conf/{conf}/accept_source_route"));
        set(format!("ipv6/conf/{conf}/seg6_enabled"));
    }
    for (way, bits) in WAYS.into_iter().zip([24, 64]) {
        let add = format!("address add {way}/{bits} dev eth0");
        let nodad = if way.is_ipv6() { " nodad" } else { "" };
        pair.server.ip(&format!("{add}{nodad}")).unwrap();
    }
    pair
}

#[test]
fn source_routes_bring_no_listed_token() {
    let Some(binary) = gate::product("raw_segments::source_routes_bring_no_listed_token") else {
        return;
    };
    let all = source_routed(WAYS);
    check_arrives_at(&source_routing(), &all);
    let start =
        |more: &[&str]| Bench::between(source_routing(), binary.clone()).start(Tier::Kernel, more);
    let lab = start(&["--on-hit", "reset"]);
    check_kept_out(&lab, &all);
    assert!(lab.product.kernel_counter("source_routed").unwrap() > 0);
    check_arrives(&start(&["--policy", "source_routed=pass"]), &all);
}

#[test]
fn routed_tunnels_bring_no_listed_token() {
    let Some(binary) = gate::product("raw_segments::routed_tunnels_bring_no_listed_token") else {
        return;
    };
    let all = inside_routed(WAY_V6);
    check_arrives_at(&source_routing(), &all);
    let start =
        |more: &[&str]| Bench::between(source_routing(), binary.clone()).start(Tier::Kernel, more);
    let lab = start(&["--on-hit", "reset"]);
    check_kept_out(&lab, &all);
    assert!(lab.product.kernel_counter("routed_tunnel").unwrap() > 0);
    check_arrives(&start(&["--policy", "routed_tunnel=pass"]), &all);
}

#[test]
fn no_segments_bring_a_listed_token() {
    let Some(binary) = gate::product("raw_segments::no_segments_bring_a_listed_token") else {
        return;
    };
    let lab = protected(binary, &[]);
    check_kept_out(&lab, &cases());
    check_arrives(&lab, &cases());
}

#[test]
fn no_framing_hides_a_listed_token() {
    let Some(binary) = gate::product("raw_segments::no_framing_hides_a_listed_token") else {
        return;
    };
    let lab = protected(binary, &[]);
    check_kept_out(&lab, &framed_otherwise());
}

#[test]
fn data_on_a_syn_is_judged() {
    let Some(binary) = gate::product("raw_segments::data_on_a_syn_is_judged") else {
        return;
    };
    let lab = protected(binary, &FAST_OPEN);
    check_kept_out(&lab, &on_the_syn());
    check_arrives(&lab, &on_the_syn());
}

#[test]
fn connections_by_cookie_are_judged() {
    let Some(binary) = gate::product("raw_segments::connections_by_cookie_are_judged") else {
        return;
    };
    let lab = protected(binary, &COOKIES);
    check_kept_out(&lab, &by_cookie());
    // What no honest client does may fail.
    check_arrives(&lab, &pieces());
}
