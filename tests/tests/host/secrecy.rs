//! After work with them no token is found in the process, its maps, its state or what it says.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    thread,
    time::Duration,
};

use tokenblock_tests::{
    bpf::dump,
    fixtures::{TOKENS, Token},
    gate,
};

use crate::lab::{LIMIT, Lab, Tier};

/// So much of a token gives it away.
const PART: usize = 16;
/// Time for connections to be taken down.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// The memory that the process can write, which is what a core dump holds: each piece as `/proc` names it.
fn memory(pid: u32) -> Vec<(String, Vec<u8>)> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut all = Vec::new();
    for line in maps.lines() {
        let mut words = line.split(' ');
        let (Some(range), Some(mode)) = (words.next(), words.next()) else {
            continue;
        };
        let Some((from, to)) = range.split_once('-').filter(|_| mode.starts_with("rw")) else {
            continue;
        };
        let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16).unwrap());
        let mut piece = vec![0; usize::try_from(to - from).unwrap()];
        // What the kernel keeps there for itself can't be read.
        if memory.read_exact_at(&mut piece, from).is_ok() {
            all.push((line.to_owned(), piece));
        }
    }
    all
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

#[test]
fn no_token_is_left_after_work() {
    let Some(binary) = gate::product("secrecy::no_token_is_left_after_work") else {
        return;
    };
    for tier in [Tier::Kernel, Tier::Proxy] {
        let lab = Lab::new(binary.clone(), tier);
        work(&lab);
        thread::sleep(AFTERWARDS);
        let pid = lab.product.pid();
        for map in dump::maps_of(pid).unwrap() {
            assert_absent(
                &format!("{tier:?}, map {map}"),
                &dump::contents(map).unwrap(),
            );
        }
        for (piece, bytes) in memory(pid) {
            assert_absent(&format!("{tier:?}, memory {piece}"), &bytes);
        }
        lab.assert_no_token_shown();
    }
}
