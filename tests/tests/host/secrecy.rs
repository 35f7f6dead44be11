//! After work with them no token is found in the process, its maps, its state or what it says.

use std::{
    env, fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tokenblock_tests::{
    bpf::dump,
    fixtures::{TOKENS, Token, hashed_list_file, list_file},
    gate,
};

use crate::{
    control::call,
    lab::{Bench, LIMIT, Lab, Tier},
};

/// How long each tier works before it is looked into; otherwise no longer than it takes to try everything once.
const SECONDS: &str = "TOKENBLOCK_TEST_SECRECY_SECONDS";

/// So much of a token gives it away.
const PART: usize = 16;
/// Time for connections to be taken down.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// Asserts that a core dump of the process has no token in it: neither in its memory, nor in the registers of its threads.
fn assert_absent_from_core_dump(what: &str, pid: u32, folder: &Path) {
    let (dump, parts) = (folder.join("core"), folder.join("parts"));
    let mut gcore = Command::new("gcore");
    let output = gcore.arg("-o").arg(&dump).arg(pid.to_string()).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let dump = dump.with_extension(pid.to_string());
    assert!(
        dump.metadata().unwrap().len() > 1 << 20,
        "no core dump: {said}"
    );
    let all = TOKENS.iter().flat_map(|token| {
        let text = token.text();
        let parts = text.as_bytes().windows(PART);
        parts.map(|part| [part, b"\n"].concat()).collect::<Vec<_>>()
    });
    fs::write(&parts, all.flatten().collect::<Vec<u8>>()).unwrap();
    // So much is read faster by who is made for it.
    let mut grep = Command::new("grep");
    grep.env("LC_ALL", "C").args(["-a", "-o", "-b", "-F", "-f"]);
    let found = grep.args([&parts, &dump]).output().unwrap();
    assert_eq!(
        (found.status.code(), String::from_utf8_lossy(&found.stdout)),
        (Some(1), "".into()),
        "{what}"
    );
    fs::remove_file(dump).unwrap();
    fs::remove_file(parts).unwrap();
}

fn assert_absent(what: &str, bytes: &[u8]) {
    for token in TOKENS {
        let text = token.text();
        let found = text
            .as_bytes()
            .windows(PART)
            .find(|part| memchr::memmem::find(bytes, part).is_some());
        let found = found.map(String::from_utf8_lossy);
        assert_eq!(found, None, "{token:?} in {what}");
    }
}

/// Some are listed, some are not, one is alone in a request that is never complete.
fn work(lab: &Lab) {
    for server in lab.servers() {
        for _ in 0..20 {
            for token in TOKENS {
                lab.exchange(server, &Lab::request(*token), LIMIT);
            }
        }
        let cut = Lab::request(Token::Long);
        lab.exchange(server, &cut[..cut.len() - 20], Duration::from_millis(20));
    }
}

/// All commands that take tokens, and then all that say something: what they print.
fn commands(binary: &Path, state: &Path) -> String {
    let tokens = list_file(TOKENS);
    let mut said = String::new();
    let mut run = |args: &[&str], input: &str| {
        let (code, text) = call(binary, state, args, input);
        assert_eq!(code, Some(0), "{args:?}: {text}");
        said += &text;
    };
    run(&["deny", "add", "--reason=of a test"], &tokens);
    run(&["deny", "import", "--list", "-"], &tokens);
    run(&["deny", "check", "--json"], &tokens);
    run(&["deny", "list", "--json"], "");
    run(&["deny", "export"], "");
    run(&["status", "--json"], "");
    let (_, text) = call(binary, state, &["deny", "remove"], &tokens);
    said + &text
}

#[test]
fn no_token_is_left_after_work() {
    let Some(binary) = gate::product("secrecy::no_token_is_left_after_work") else {
        return;
    };
    let seconds = env::var(SECONDS).map_or(0, |text| text.parse().unwrap());
    for tier in [Tier::Kernel, Tier::Proxy] {
        // By their hashes, the kernel tier has a second set of programs with maps of its own.
        for list in [list_file(TOKENS), hashed_list_file(TOKENS)] {
            let bench = Bench::new(binary.clone());
            fs::write(bench.list(), list).unwrap();
            let state = bench.folder.path().join("state");
            let lab = bench.start(tier, &[]);
            let until = Instant::now() + Duration::from_secs(seconds);
            loop {
                work(&lab);
                if Instant::now() >= until {
                    break;
                }
            }
            let said = commands(&binary, &state);
            lab.product.signal(Signal::USR1).unwrap();
            lab.product.wait_for("counters", LIMIT).unwrap();
            thread::sleep(AFTERWARDS);
            assert_absent("what commands say", said.as_bytes());
            assert_absent("log and counters", lab.product.log().as_bytes());
            let pid = lab.product.pid();
            for map in dump::maps_of(pid).unwrap() {
                assert_absent(
                    &format!("{tier:?}, map {map}"),
                    &dump::contents(map).unwrap(),
                );
            }
            let folder = lab.bench.folder.path();
            assert_absent_from_core_dump(&format!("{tier:?}, core dump"), pid, folder);
            lab.assert_no_token_shown();
        }
    }
}
