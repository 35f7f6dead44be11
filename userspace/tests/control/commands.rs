//! Each command, its effect on requests, its output and its exit code.

use std::{
    fs,
    io::Read as _,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::{
    remote::until,
    support::{Host, IN_FILE, PATIENCE, terminal, tokens},
};

const LEAKED: &str = "leaked-token-0000001";

#[test]
fn an_added_token_is_enforced_when_the_command_returns_and_after_restarts() {
    let host = Host::new();
    let mut running = host.start(&[]);
    assert!(!running.blocks(LEAKED));
    let add = ["deny", "add", "--reason=in a repo", "--source=gitleaks"];
    let (code, out, error) = host.call(&add, &format!("# found\n\n  {LEAKED}\n"));
    assert_eq!((code, error.as_str()), (0, ""));
    assert!(out.starts_with("added ") && !out.contains(LEAKED), "{out}");
    assert!(running.blocks(LEAKED));

    // Again changes nothing, and says less.
    let (code, out, _) = host.call(&["deny", "add"], LEAKED);
    assert!(code == 0 && out.starts_with("unchanged "), "{out}");
    running.kill();
    let running = host.start(&[]);
    assert!(running.blocks(LEAKED) && running.blocks(IN_FILE));
    let (_, out, _) = host.call(&["deny", "list", "--added"], "");
    assert!(
        out.contains("block") && out.contains("reason=\"in a repo\" source=\"gitleaks\" hits="),
        "{out}"
    );

    let (code, out, _) = host.call(&["deny", "remove", "-"], LEAKED);
    assert!(code == 0 && out.ends_with(" removed\n"), "{out}");
    assert!(!running.blocks(LEAKED) && host.added().is_empty());
    let (code, out, _) = host.call(&["deny", "remove"], LEAKED);
    assert!(code == 0 && out.ends_with(" was not added\n"), "{out}");
}

#[test]
fn a_token_as_an_argument_works_and_warns() {
    let host = Host::new();
    let running = host.start(&[]);
    let (code, _, error) = host.call(&["deny", "add", LEAKED], "");
    assert_eq!(code, 0);
    assert!(
        error.starts_with("warning: other users of this host can see") && !error.contains(LEAKED)
    );
    assert!(running.blocks(LEAKED));
}

#[test]
fn what_a_file_lists_stays_when_it_is_removed() {
    let host = Host::new();
    let running = host.start(&[]);
    host.add(IN_FILE);
    let (code, out, _) = host.call(&["deny", "remove"], IN_FILE);
    assert!(code == 1 && out.contains("it stays in force"), "{out}");
    assert!(running.blocks(IN_FILE));
    let (code, out, _) = host.call(&["deny", "remove"], IN_FILE);
    assert!(code == 1 && out.contains("was not added, but"), "{out}");

    // And what was added stays when the file drops it.
    host.add(IN_FILE);
    fs::write(host.path("list"), "another-token-000\n").unwrap();
    while !running.blocks("another-token-000") {}
    assert!(running.blocks(IN_FILE));
    let (code, _, _) = host.call(&["deny", "remove"], IN_FILE);
    assert!(code == 0 && !running.blocks(IN_FILE));
}

#[test]
fn check_says_whether_and_why() {
    let host = Host::new();
    let _running = host.start(&[]);
    host.call(&["deny", "add", "--action=alert", "--expires=2h"], LEAKED);
    let (code, out, _) = host.call(&["deny", "check"], LEAKED);
    assert!(
        code == 0 && out.contains("listed, action=alert expires=20"),
        "{out}"
    );
    let (code, out, _) = host.call(&["deny", "check"], IN_FILE);
    assert!(
        code == 0 && out.ends_with("listed, action=block expires=never, by list:1\n"),
        "{out}"
    );
    let (code, out, _) = host.call(&["deny", "check"], &format!("{LEAKED}\nnot-listed-000\n"));
    assert!(code == 1 && out.ends_with("not listed\n"), "{out}");
}

#[test]
fn export_has_hashes_and_attributes() {
    let host = Host::new();
    let _running = host.start(&[]);
    host.call(
        &[
            "deny",
            "add",
            "--expires=2099-01-01T00:00:00Z",
            "--reason=in a repo",
        ],
        LEAKED,
    );
    let (code, out, _) = host.call(&["deny", "export", "--added"], "");
    assert_eq!(code, 0);
    let rest = out.strip_prefix("sha256:").unwrap();
    let (id, attributes) = rest.split_at(64);
    let expected = " action=block expires=2099-01-01T00:00:00Z reason=\"in a repo\"\n";
    assert_eq!(attributes, expected);
    // By that id it can be removed.
    let (code, out, _) = host.call(&["deny", "remove", "--id", id], "");
    assert!(code == 0 && id.starts_with(out.strip_suffix(" removed\n").unwrap()));
    assert!(host.added().is_empty());
}

#[test]
fn an_entry_leaves_at_its_time_and_does_not_come_back() {
    let host = Host::new();
    let running = host.start(&[]);
    host.call(&["deny", "add", "--expires=4s"], LEAKED);
    assert!(running.blocks(LEAKED));
    let start = std::time::Instant::now();
    while running.blocks(LEAKED) {
        assert!(start.elapsed() < PATIENCE);
    }
    assert!(host.added().is_empty());
    drop(running);
    let running = host.start(&[]);
    assert!(!running.blocks(LEAKED) && host.added().is_empty());
}

#[test]
fn status_is_a_probe() {
    let host = Host::new();
    let (code, _, error) = host.call(&["status"], "");
    assert!(code == 69 && error.contains("no tokenblock answers at state/control.sock"));
    let running = host.start(&[]);
    host.add(LEAKED);
    let (code, out, _) = host.call(&["status"], "");
    assert_eq!(code, 0);
    for part in [
        "in force; tokenblock ",
        "proxy tier: 127.0.0.1:",
        "2 in force, 1 added",
        "file list: 1 entries",
    ] {
        assert!(out.contains(part), "{part} in {out}");
    }
    let (code, out, _) = host.call(&["status", "--json"], "");
    let status: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(code == 0 && status["in_force"] == true, "{status}");
    assert_eq!(
        status["tiers"]["counters"]["proxy"]["proxy_requests_total"],
        0
    );

    fs::write(host.path("list"), "token-token what\n").unwrap();
    let start = std::time::Instant::now();
    while !host
        .call(&["status"], "")
        .1
        .contains("last reload: list:1: what follows")
    {
        assert!(start.elapsed() < PATIENCE);
    }
    assert!(running.blocks(IN_FILE) && running.blocks(LEAKED));
}

#[test]
fn what_can_not_be_listed_is_refused_without_its_text() {
    let host = Host::new();
    let _running = host.start(&[]);
    for (args, input, part) in [
        (
            &[][..],
            "good-token-0001\nsecret token\n",
            "entry 1: white space inside",
        ),
        (&[], "secret1", "shorter than the minimum of 8"),
        (
            &["--expires=yesterday"],
            "secret-a0001",
            "expires takes a time",
        ),
        (
            &["--expires=2001-01-01T00:00:00Z"],
            "secret-a0001",
            "still to come",
        ),
        (
            &["--reason=it is secret-a0001"],
            "secret-a0001",
            "reason holds the token",
        ),
        (&["--source=a\"b"], "secret-a0001", "a double quote"),
        (
            &[],
            "secret-00001",
            "entry 0: a placeholder: others may use it",
        ),
        (&[], "11112222", "too little entropy"),
    ] {
        let (code, out, error) = host.call(&[&["deny", "add"], args].concat(), input);
        assert!(code == 65 && error.contains(part), "{error}");
        assert!(!format!("{out}{error}").contains("secret"), "{error}");
    }
    let (code, _, error) = host.call(&["deny", "add"], "\n# nothing\n");
    assert!(code == 64 && error.contains("no token on standard input"));
    assert!(host.added().is_empty());
}

#[test]
fn neither_state_nor_answers_hold_the_token() {
    let host = Host::new();
    let running = host.start(&[]);
    host.add(LEAKED);
    let (_, list, _) = host.call(&["deny", "list", "--added", "--json"], "");
    assert!(list.contains(&host.added()[0]) && !list.contains(LEAKED));
    drop(running);
    for file in fs::read_dir(host.path("state")).unwrap() {
        let path = file.unwrap().path();
        let Ok(bytes) = fs::read(&path) else { continue };
        let found = bytes
            .windows(LEAKED.len())
            .any(|part| part == LEAKED.as_bytes());
        assert!(!found, "{}", path.display());
    }
}

#[test]
fn many_are_added_in_one_call() {
    let host = Host::new();
    let running = host.start(&[]);
    let list = format!("# of a breach\n\n{}\n", tokens("bulk-token", 25_000));
    let add = [
        "deny",
        "add",
        "--reason=breach of a partner",
        "--expires=90d",
        "-",
    ];
    let (code, out, error) = host.call(&add, &list);
    assert!(code == 0 && out.starts_with("25000 added"), "{out} {error}");
    for n in [0, 9_999, 10_000, 24_999] {
        assert!(running.blocks(&format!("bulk-token-{n:08}")));
    }
    assert_eq!(host.added().len(), 25_000);
    let (_, out, _) = host.call(&["deny", "check"], "bulk-token-00010000");
    assert!(out.contains("reason=\"breach of a partner\""), "{out}");

    // All or nothing, and the line is that of what was given.
    for (bad, code_due, why) in [
        ("changeme-0001", 65, "taken with --force"),
        ("tiny", 65, "shorter than the minimum"),
        ("two words-0001", 65, "white space inside"),
    ] {
        let more = tokens("more-token", 11_000);
        let list = format!("# comment\n{more}\n{bad}\n");
        let (code, out, error) = host.call(&["deny", "add"], &list);
        assert!(code == code_due && error.contains(why), "{out} {error}");
        assert!(out.is_empty() && !error.contains(bad), "{out} {error}");
        assert!(
            bad.contains(' ') || error.contains("line 11002: "),
            "{error}"
        );
        assert!(!running.blocks("more-token-00000000"));
    }
}

#[test]
fn what_others_may_use_too_takes_force() {
    let host = Host::new();
    let running = host.start(&[]);
    let (code, _, error) = host.call(&["deny", "add"], "changeme-0001");
    assert!(
        code == 65 && error.contains("taken with --force"),
        "{error}"
    );
    let (code, _, error) = host.call(&["deny", "add", "--force"], "changeme-0001");
    assert!(code == 0 && running.blocks("changeme-0001"), "{error}");
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let host = Host::new();
    let running = host.start(&[]);
    let dry = |args: &[&str], input: &str| {
        let (code, out, error) = host.call(&[&["deny"], args, &["--dry-run"]].concat(), input);
        assert_eq!(code, 0, "{error}");
        out
    };
    assert!(dry(&["add"], LEAKED).starts_with("would be added "));
    assert!(!running.blocks(LEAKED) && host.added().is_empty());
    host.add(LEAKED);
    assert!(dry(&["add"], LEAKED).starts_with("would be unchanged "));
    assert!(dry(&["add", "--action=alert"], LEAKED).starts_with("would be updated "));
    let list = format!("{LEAKED}\nanother-token-000\nabc\n");
    fs::write(host.path("more.list"), list).unwrap();
    assert_eq!(
        dry(&["import", "more.list"], ""),
        "1 would be added, 0 would be updated, 1 unchanged; left out: 1 shorter than the minimum of 8 bytes \
         (--min-token-length)\nline 3: shorter than the minimum of 8 bytes (--min-token-length)\n"
    );
    assert!(running.blocks(LEAKED) && !running.blocks("another-token-000"));
    assert_eq!(host.added().len(), 1);
}

#[test]
fn reports_and_lists_are_imported_into_a_running_tokenblock() {
    let host = Host::new();
    let running = host.start(&[]);
    let report = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/import/gitleaks.json");
    let found: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(report).unwrap()).unwrap();
    let found = found[0]["Secret"].as_str().unwrap();
    let list = "listed-token-0001 reason=\"a partner\" action=alert\n\
                listed-token-0001 expires=1h\n\
                changeme-0001\n";
    fs::write(host.path("more.list"), list).unwrap();
    let (code, out, error) = host.call(&["deny", "import", "--json", report, "more.list"], "");
    assert_eq!(code, 0, "{error}");
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(
        answer["refused"]["a placeholder"].as_u64() >= Some(1),
        "{out}"
    );
    assert!(running.blocks(found) && !running.blocks("changeme-0001"));
    assert!(!out.contains(found));
    let (_, list, _) = host.call(&["deny", "list", "--added"], "");
    assert!(list.contains("source=\"gitleaks\""), "{list}");
    assert_eq!(host.added().len() as u64, answer["added"].as_u64().unwrap());
    // Of a token that is given twice, the last counts.
    assert!(running.blocks("listed-token-0001"));

    // All or nothing, and nothing of the text is repeated.
    let bad = "good-token-0001\nsecret-b0001 what\n";
    fs::write(host.path("bad.list"), bad).unwrap();
    let (code, out, error) = host.call(&["deny", "import", "bad.list"], "");
    assert!(
        code == 65 && error.contains("line 2: what follows"),
        "{error}"
    );
    assert!(!format!("{out}{error}").contains("secret"));
    for (line, part) in [
        (
            format!("sha256:{}", "0".repeat(63)),
            "line 1: sha256: takes 64 hexadecimal digits",
        ),
        (
            "holds-token-0001 reason=\"of holds-token-0001\"".to_owned(),
            "reason holds the token",
        ),
    ] {
        let (code, _, error) = host.call(&["deny", "import", "--list", "-"], &line);
        assert!(code == 65 && error.contains(part), "{error}");
    }
    assert!(!running.blocks("good-token-0001"));
    let (code, _, _) = host.call(&["deny", "import", "nothing.list"], "");
    assert_eq!(code, 66);
}

#[test]
fn a_long_list_is_in_force_after_one_import_and_a_restart() {
    let host = Host::new();
    let mut running = host.start(&[]);
    let list = tokens("bulk-token", 200_000);
    let (code, out, error) = host.call(&["deny", "import", "--list", "-"], &list);
    assert_eq!(code, 0, "{error}");
    assert_eq!(out, "200000 added, 0 updated, 0 unchanged\n");
    // No terminal, no progress bar.
    assert_eq!(error, "");
    let check = |running: &crate::support::Running| {
        for n in [0, 9_999, 123_456, 199_999] {
            assert!(running.blocks(&format!("bulk-token-{n:08}")));
        }
        assert!(!running.blocks("bulk-token-00200000"));
    };
    check(&running);
    running.kill();
    check(&host.start(&[]));
}

#[test]
fn a_long_import_shows_on_a_terminal_how_far_it_is() {
    let host = Host::new();
    let running = host.start(&[]);
    fs::write(host.path("long.list"), tokens("bulk-token", 250_000)).unwrap();
    let command = host.tokenblock(&["deny", "import", "long.list"]);
    let (mut child, shown) = on_a_terminal(command);
    assert!(child.wait().unwrap().success());
    let shown = shown.join().unwrap();
    assert!(shown.contains("/4.77 MiB"), "{shown}");
    assert!(!shown.contains("bulk-token"));
    assert!(running.blocks("bulk-token-00249999"));
}

#[test]
fn a_long_file_shows_at_start_on_a_terminal_how_far_it_is() {
    let host = Host::new();
    fs::write(host.path("list"), tokens("file-token", 250_000)).unwrap();
    let (mut child, shown) = on_a_terminal(host.tokenblock(&Host::RUN));
    let up = || host.call(&["status"], "").0 == 0;
    while !up() {
        assert!(child.try_wait().unwrap().is_none());
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    let shown = shown.join().unwrap();
    assert!(shown.contains("/4.77 MiB"), "{shown}");
    assert!(!shown.contains("file-token"));
}

/// Runs a command with its standard error on a terminal; gives all that is shown there.
fn on_a_terminal(mut command: Command) -> (Child, thread::JoinHandle<String>) {
    let (mut terminal, end) = terminal();
    let child = command
        .env("TERM", "xterm")
        .stdout(Stdio::null())
        .stderr(end)
        .spawn()
        .unwrap();
    let shown = thread::spawn(move || {
        let mut shown = Vec::new();
        // It ends with an error once nobody holds the other end.
        let _ended = terminal.read_to_end(&mut shown);
        String::from_utf8_lossy(&shown).into_owned()
    });
    (child, shown)
}

/// A JWT that ends by itself at this second.
fn jwt(subject: &str, exp: u64) -> String {
    let encode = |json: &str| BASE64_URL_SAFE_NO_PAD.encode(json);
    let header = encode(r#"{"alg":"HS256"}"#);
    let payload = encode(&format!(r#"{{"sub":"{subject}","exp":{exp}}}"#));
    format!("{header}.{payload}.c2lnbmF0dXJl")
}

#[test]
fn a_jwt_leaves_by_its_own_exp_and_a_margin_where_that_is_set() {
    let host = Host::new();
    let running = host.start(&["--jwt-expiry=2s"]);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = since.unwrap().as_secs();
    let [listed, added, said, ended] = [
        jwt("listed", now + 3),
        jwt("added", now + 3),
        jwt("said", now + 3),
        jwt("ended", now - 3),
    ];
    fs::write(host.path("list"), format!("{listed}\n{ended}\n")).unwrap();
    until(|| running.blocks(&listed), "the list is read");
    let margin = SystemTime::UNIX_EPOCH + Duration::from_secs(now + 5);
    host.add(&added);
    let (code, _, error) = host.call(&["deny", "add", "--expires=1h"], &said);
    assert_eq!(code, 0, "{error}");
    let (code, _, error) = host.call(&["deny", "add"], &ended);
    assert!(
        code == 65 && error.contains("its own exp has passed"),
        "{error}"
    );
    let (code, out, _) = host.call(&["deny", "import", "--list", "-"], &ended);
    assert!(code == 0 && out.contains("left out: 1 expired"), "{out}");
    assert!(!running.blocks(&ended));
    loop {
        let blocked = [&listed, &added].map(|token| running.blocks(token));
        if SystemTime::now() >= margin {
            break;
        }
        assert_eq!(blocked, [true, true]);
    }
    while running.blocks(&listed) || running.blocks(&added) {
        assert!(margin.elapsed().unwrap() < PATIENCE);
    }
    assert!(running.blocks(&said));
    assert_eq!(host.added().len(), 1);
}
