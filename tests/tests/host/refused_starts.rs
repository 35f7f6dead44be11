//! Bad input: a message that helps, an exit code that tells, and nothing attached.

use std::{ffi::OsString, fs, io, os::unix::process::CommandExt as _, path::Path};

use tokenblock_tests::{
    certificate::Certificate, gate, netns::INTERFACE, origin::Origin, product::Product,
};

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
    let mut refused = Product::spawn(setpriv, &bench.pair.server, &args).unwrap();
    let end = refused.wait(LIMIT).unwrap();
    assert_eq!(end.code(), Some(NO_PERMISSION), "{}", end.log);
    assert!(end.log.contains("CAP_BPF"), "{}", end.log);
    assert_eq!(attached(&bench.pair.server), [""; 0]);
}

/// A kernel without `bpf_loop` refuses the programs, and says no more than that: so does this one, to a process whose
/// `BPF_PROG_LOAD` fails and to which the kernel calls itself 2.6 (`UNAME26`).
#[test]
fn kernel_too_old() {
    let Some(bench) = bench("kernel_too_old") else {
        return;
    };
    let product = gate::product("refused_starts::kernel_too_old").unwrap();
    let mut args = bench.common();
    args.extend(bench.tier(Tier::Kernel));
    let mut refused = Product::spawn_with(&product, &bench.pair.server, &args, |command| {
        // SAFETY: two system calls, made between fork and exec.
        unsafe { command.pre_exec(become_old) };
    })
    .unwrap();
    let end = refused.wait(LIMIT).unwrap();
    assert_eq!(end.code(), Some(UNAVAILABLE), "{}", end.log);
    for word in ["2.6.", "5.17", "bpf_loop", "--interface"] {
        assert!(end.log.contains(word), "no {word:?} in:\n{}", end.log);
    }
    assert_eq!(attached(&bench.pair.server), [""; 0]);
}

fn become_old() -> io::Result<()> {
    const UNAME26: libc::c_ulong = 0x0002_0000;
    const PROG_LOAD: u32 = 5;
    let step = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: u16::try_from(code).unwrap_or(0),
        jt,
        jf,
        k,
    };
    let (load, equal, ret) = (
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    );
    let bpf = u32::try_from(libc::SYS_bpf).unwrap_or(0);
    let invalid = libc::SECCOMP_RET_ERRNO | libc::EINVAL.unsigned_abs();
    // The number of the system call stands at 0, its first argument at 16 (struct seccomp_data).
    let mut steps = [
        step(load, 0, 0, 0),
        step(equal, bpf, 0, 3),
        step(load, 16, 0, 0),
        step(equal, PROG_LOAD, 0, 1),
        step(ret, invalid, 0, 0),
        step(ret, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog {
        len: u16::try_from(steps.len()).unwrap_or(0),
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: the filter outlives the call, which copies it.
    let done = unsafe {
        libc::personality(UNAME26) >= 0
            && libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            ) == 0
    };
    if done {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
