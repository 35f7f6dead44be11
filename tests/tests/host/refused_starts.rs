//! Bad input: a message that helps, an exit code that tells, and nothing attached.

use std::{ffi::OsString, fs, path::Path};

use tokenblock_tests::{certificate::Certificate, gate, netns::INTERFACE, origin::Origin};

use crate::{
    lab::{Bench, LIMIT, PROXY_PORT, Tier},
    lifecycle::attached,
};

const USAGE: i32 = 64;
const DATA: i32 = 65;
const NO_INPUT: i32 = 66;
const UNAVAILABLE: i32 = 69;
const NO_PERMISSION: i32 = 77;
const CONFIG: i32 = 78;

/// Asserts that a start with `args` ends with one of `codes` after a message that has all of `words`.
fn assert_refused(bench: &Bench, args: &[OsString], codes: &[i32], words: &[&str]) {
    let end = bench.spawn(args).wait(LIMIT).unwrap();
    let code = end.code();
    assert!(
        code.is_some_and(|code| codes.contains(&code)),
        "{code:?} not in {codes:?}\n{}",
        end.log
    );
    for word in words {
        assert!(end.log.contains(word), "no {word:?} in:\n{}", end.log);
    }
    assert!(!end.log.contains("in force"), "{}", end.log);
    assert!(!end.log.contains("panicked"), "{}", end.log);
    assert_eq!(attached(&bench.pair.server), [""; 0]);
}

fn bench(test: &str) -> Option<Bench> {
    gate::product(&format!("refused_starts::{test}")).map(Bench::new)
}

/// `args` with `more` behind.
fn with<const N: usize>(mut args: Vec<OsString>, more: [&str; N]) -> Vec<OsString> {
    args.extend(more.map(OsString::from));
    args
}

#[test]
fn no_such_interface() {
    let Some(bench) = bench("no_such_interface") else {
        return;
    };
    let args = with(bench.common(), ["--interface", "nowhere0"]);
    assert_refused(&bench, &args, &[USAGE, UNAVAILABLE], &["nowhere0"]);
}

#[test]
fn port_taken() {
    let Some(bench) = bench("port_taken") else {
        return;
    };
    let _taken = Origin::start(&bench.pair.server, PROXY_PORT).unwrap();
    let mut args = bench.common();
    // The kernel tier that is configured besides must not stay attached.
    args.extend(bench.tier(Tier::Kernel));
    args.extend(bench.tier(Tier::Proxy));
    assert_refused(
        &bench,
        &args,
        &[UNAVAILABLE, 71],
        &[&PROXY_PORT.to_string(), "in use"],
    );
}

#[test]
fn key_of_another_certificate() {
    let Some(bench) = bench("key_of_another_certificate") else {
        return;
    };
    let other = Certificate::new(bench.folder.path(), "other").unwrap();
    fs::copy(&other.key_file, &bench.certificate.key_file).unwrap();
    let mut args = bench.common();
    args.extend(bench.tier(Tier::Proxy));
    assert_refused(
        &bench,
        &args,
        &[USAGE, DATA, CONFIG],
        &["server.key", "server.crt"],
    );
}

#[test]
fn no_such_denylist() {
    let Some(bench) = bench("no_such_denylist") else {
        return;
    };
    fs::remove_file(bench.list()).unwrap();
    assert_list_refused(&bench, NO_INPUT, &["denylist"]);
}

#[test]
fn absurd_denylist() {
    let Some(bench) = bench("absurd_denylist") else {
        return;
    };
    for (text, line) in [
        ("# fine\n\nsha256:abc\n", 3),
        ("a-token-of-some-length when=never\n", 1),
        (
            "a-token-of-some-length\na-token\u{1}with-a-control-character\n",
            2,
        ),
    ] {
        fs::write(bench.list(), text).unwrap();
        assert_list_refused(&bench, DATA, &[&format!("denylist:{line}")]);
    }
}

fn assert_list_refused(bench: &Bench, code: i32, words: &[&str]) {
    for tier in [Tier::Kernel, Tier::Proxy] {
        let mut args = bench.common();
        args.extend(bench.tier(tier));
        assert_refused(bench, &args, &[code], words);
    }
}

#[test]
fn nothing_to_do() {
    let Some(bench) = bench("nothing_to_do") else {
        return;
    };
    assert_refused(
        &bench,
        &bench.common(),
        &[USAGE],
        &["--interface", "--proxy-listen"],
    );
}

#[test]
fn unknown_flag() {
    let Some(bench) = bench("unknown_flag") else {
        return;
    };
    let args = with(bench.common(), ["--interfaces", INTERFACE]);
    assert_refused(&bench, &args, &[USAGE], &["--interfaces", "--interface"]);
}

#[test]
fn upstream_that_is_no_url() {
    let Some(bench) = bench("upstream_that_is_no_url") else {
        return;
    };
    let mut args = bench.common();
    args.extend(bench.tier(Tier::Proxy));
    let place = args.iter().position(|arg| arg == "--upstream").unwrap() + 1;
    args[place] = "ftp://origin.test".into();
    assert_refused(&bench, &args, &[USAGE], &["ftp"]);
}

#[test]
fn unknown_setting_in_the_file() {
    let Some(bench) = bench("unknown_setting_in_the_file") else {
        return;
    };
    let file = bench.folder.path().join("tokenblock.toml");
    fs::write(&file, "interfce = [\"eth0\"]\n").unwrap();
    let mut args = bench.common();
    args.extend([OsString::from("--config"), file.into()]);
    assert_refused(
        &bench,
        &args,
        &[CONFIG],
        &["interfce", "interface", "tokenblock.toml"],
    );
}

/// Root without `CAP_BPF` and the like, as a container without them has it.
#[test]
fn no_capabilities() {
    let Some(bench) = bench("no_capabilities") else {
        return;
    };
    let setpriv = Path::new("/usr/bin/setpriv");
    assert!(
        setpriv.exists(),
        "setpriv (util-linux) takes the capabilities away"
    );
    let product = gate::product("refused_starts::no_capabilities").unwrap();
    let mut args = vec![
        OsString::from("--bounding-set=-all"),
        "--inh-caps=-all".into(),
        "--".into(),
        product.into(),
    ];
    args.extend(bench.common());
    args.extend(bench.tier(Tier::Kernel));
    let mut refused =
        tokenblock_tests::product::Product::spawn(setpriv, &bench.pair.server, &args).unwrap();
    let end = refused.wait(LIMIT).unwrap();
    assert_eq!(end.code(), Some(NO_PERMISSION), "{}", end.log);
    assert!(end.log.contains("CAP_BPF"), "{}", end.log);
    assert_eq!(attached(&bench.pair.server), [""; 0]);
}
