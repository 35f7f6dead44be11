//! Signals, and what is left behind.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aya::programs::{SchedClassifier, TcAttachType};
use rustix::process::Signal;
use tokenblock_tests::{
    client::{Client, TlsClient},
    fixtures::{OPAQUE, Token},
    gate,
    netns::{INTERFACE, Netns},
    poll,
};

use crate::lab::{Bench, LIMIT, Lab, ORIGIN_PORT, Tier};

/// A user without rights.
pub(crate) const NOBODY: u32 = 65_534;
/// How long the product may take to end.
const END: Duration = Duration::from_secs(1);

/// Programs at the usual interface.
pub(crate) fn attached(netns: &Netns) -> Vec<String> {
    attached_to(netns, INTERFACE)
}

/// Programs at an interface: by tcx, and by the filters of a clsact qdisc.
pub(crate) fn attached_to(netns: &Netns, interface: &str) -> Vec<String> {
    let programs = |direction| SchedClassifier::query_tcx(interface, direction);
    let mut found: Vec<String> = netns
        .enter(|| {
            [TcAttachType::Ingress, TcAttachType::Egress]
                .into_iter()
                .filter_map(|direction| programs(direction).ok())
                .flat_map(|(_, programs)| programs)
                .map(|program| format!("tcx program {}", program.id()))
                .collect()
        })
        .unwrap();
    for direction in ["ingress", "egress"] {
        let output = netns
            .command("tc")
            .args(["filter", "show", "dev", interface, direction])
            .output()
            .unwrap();
        found.extend(
            String::from_utf8_lossy(&output.stdout)
                .lines()
                .map(str::to_owned),
        );
    }
    found
}

#[test]
fn term_and_int_detach_within_a_second() {
    let Some(binary) = gate::product("lifecycle::term_and_int_detach_within_a_second") else {
        return;
    };
    for signal in [Signal::TERM, Signal::INT] {
        for tier in [Tier::Kernel, Tier::Proxy] {
            let time = poll::fastest(END, || ends(&binary, tier, signal));
            assert!(time <= END, "{signal:?} {tier:?}: {time:?}");
        }
    }
}

/// Starts the product and ends it by a signal: it detaches all. Gives how long that took.
fn ends(binary: &Path, tier: Tier, signal: Signal) -> Duration {
    let mut lab = Lab::new(binary.to_owned(), tier);
    let server = &lab.bench.pair.server;
    assert_eq!(
        attached(server).is_empty(),
        tier == Tier::Proxy,
        "{:?}",
        attached(server)
    );
    assert!(lab.blocks(Token::Opaque));
    let sent = Instant::now();
    lab.product.signal(signal).unwrap();
    let end = lab.product.wait(LIMIT).unwrap();
    let took = sent.elapsed();
    assert_eq!(end.code(), Some(0), "{signal:?} {tier:?}\n{}", end.log);
    assert_eq!(
        attached(&lab.bench.pair.server),
        [""; 0],
        "{signal:?} {tier:?}"
    );
    if tier == Tier::Kernel {
        assert!(
            !lab.blocks(Token::Opaque),
            "{signal:?}: nothing blocks any more"
        );
    }
    took
}

/// Links die with the process that holds them: nothing is pinned yet, so nothing stays.
#[test]
fn a_killed_process_leaves_nothing_attached() {
    let Some(binary) = gate::product("lifecycle::a_killed_process_leaves_nothing_attached") else {
        return;
    };
    let mut lab = Lab::new(binary, Tier::Kernel);
    lab.product.signal(Signal::KILL).unwrap();
    let end = lab.product.wait(LIMIT).unwrap();
    assert_eq!(end.signal(), Some(Signal::KILL.as_raw()));
    let gone = poll::until(LIMIT, || {
        attached(&lab.bench.pair.server).is_empty().then_some(())
    });
    assert!(gone.is_some(), "{:?}", attached(&lab.bench.pair.server));
    assert!(!lab.blocks(Token::Opaque));
}

#[test]
fn counters_are_shown_on_usr1_and_at_the_end() {
    let Some(binary) = gate::product("lifecycle::counters_are_shown_on_usr1_and_at_the_end") else {
        return;
    };
    for tier in [Tier::Kernel, Tier::Proxy] {
        let mut lab = Lab::new(binary.clone(), tier);
        assert!(lab.blocks(Token::Opaque));
        lab.product.signal(Signal::USR1).unwrap();
        lab.product.wait_for("counters", LIMIT).unwrap();
        let shown = counter_lines(&lab.product.lines());
        lab.product.signal(Signal::TERM).unwrap();
        let end = lab.product.wait(LIMIT).unwrap();
        let lines: Vec<String> = end.log.lines().map(str::to_owned).collect();
        assert!(
            counter_lines(&lines) > shown,
            "{tier:?}: none at the end\n{}",
            end.log
        );
        assert!(!end.log.contains(OPAQUE), "{}", end.log);
    }
}

fn counter_lines(lines: &[String]) -> usize {
    lines
        .iter()
        .filter(|line| line.contains("counters"))
        .count()
}

/// The product as the unit for systemd starts it: a user without rights, and the capabilities that stand there.
pub(crate) fn as_the_unit_starts_it(folder: &Path, product: &Path) -> PathBuf {
    let unit = include_str!("../../../deploy/systemd/tokenblock.service");
    let line = unit
        .lines()
        .find_map(|line| line.strip_prefix("AmbientCapabilities="));
    let capabilities: Vec<String> = line
        .unwrap()
        .split(' ')
        .map(|name| format!("+{}", name.trim_start_matches("CAP_").to_lowercase()))
        .collect();
    let these = format!("-all,{}", capabilities.join(","));
    let copy = folder.join("tokenblock");
    fs::copy(product, &copy).unwrap();
    let script = folder.join("as-the-unit-starts-it");
    let text = format!(
        "#!/bin/sh\nexec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups --no-new-privs \\\n\
         --inh-caps={these} --ambient-caps={these} --bounding-set={these} -- {} \"$@\"\n",
        copy.display()
    );
    fs::write(&script, text).unwrap();
    for path in [folder, &script] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    script
}

#[test]
fn the_capabilities_of_the_unit_are_enough_for_both_tiers() {
    let Some(product) = gate::product("lifecycle::the_capabilities_of_the_unit") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::new(as_the_unit_starts_it(folder.path(), &product));
    let own = fs::read_dir(bench.folder.path()).unwrap();
    let own = own.map(|entry| entry.unwrap().path());
    for path in own.chain([bench.folder.path().to_owned()]) {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let mut args = bench.common();
    args.extend(bench.tier(Tier::Kernel));
    let files = [&bench.certificate.cert_file, &bench.certificate.key_file];
    for (flag, file) in ["--tls-cert", "--tls-key"].into_iter().zip(files) {
        args.extend([flag.into(), file.clone().into_os_string()]);
    }
    let upstream = format!("--upstream=http://127.0.0.1:{ORIGIN_PORT}");
    args.extend([&*upstream, "--proxy-listen=[::]:443", "--intercept=8444"].map(OsString::from));
    let mut product = bench.start_with(&args);
    let request = Lab::request(Token::Opaque);
    for server in bench.pair.server_addresses(ORIGIN_PORT) {
        let mut client = Client::connect(&bench.pair.client, server).unwrap();
        let answer = client.exchange(&request, LIMIT).unwrap();
        assert_eq!(answer.status(), Some(403), "{server}\n{}", product.log());
    }
    for port in [443, 8444] {
        for server in bench.pair.server_addresses(port) {
            let mut client =
                TlsClient::connect(&bench.pair.client, server, &bench.certificate).unwrap();
            let answer = client.exchange(&request, LIMIT).unwrap();
            assert_eq!(answer.status(), Some(403), "{server}\n{}", product.log());
        }
    }
    product.signal(Signal::TERM).unwrap();
    assert_eq!(product.wait(LIMIT).unwrap().code(), Some(0));
}
