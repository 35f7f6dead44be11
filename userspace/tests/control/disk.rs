//! A full disk, a read-only state folder, a damaged database.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use crate::support::{Host, IN_FILE, is_root, outcome, tokens};

const LEAKED: &str = "leaked-token-0000001";

/// `tokenblock run` behind a command line for `sh`, in mounts of its own.
fn in_own_mounts(host: &Host, prepare: &str) -> Command {
    let binary = env!("CARGO_BIN_EXE_tokenblock");
    let flags = Host::RUN.join(" ");
    let mut command = Command::new("unshare");
    host.set(&mut command)
        .args(["--mount", "sh", "-c"])
        .arg(format!(
            "{prepare} && exec {binary} {flags} --control-socket=c.sock"
        ));
    command
}

#[test]
fn on_a_full_disk_changes_are_refused_and_enforcement_goes_on() {
    if !is_root() {
        println!("skipped: a disk of its own takes root");
        return;
    }
    let host = Host::new();
    fs::create_dir(host.path("state")).unwrap();
    let command = in_own_mounts(&host, "mount -t tmpfs -o size=4m tmpfs state");
    let running = Host::started(command);
    let call = |args: &[&str], input: &str| {
        let args = [args, &["--control-socket=c.sock"]].concat();
        host.call(&args, input)
    };
    assert_eq!(call(&["deny", "add"], LEAKED).0, 0);

    // Its own view of the state folder.
    let state = format!("/proc/{}/cwd/state", running.child.id());
    let filler = format!("{state}/filler");
    let overflow = fs::write(&filler, vec![1; 8 << 20]);
    assert!(overflow.is_err(), "the disk is larger than it should be");
    let bulk = tokens("bulk-token", 20_000);
    let (code, _, error) = call(&["deny", "add"], &bulk);
    assert!(
        code == 75 && error.contains("nothing is changed"),
        "{code} {error}"
    );
    assert!(error.contains("No space left"), "{error}");
    // Disk and tiers take a bulk side by side: the tiers give it back, but for what was listed before.
    let all = format!("{bulk}\n{LEAKED} action=alert\n{IN_FILE} action=alert\n");
    let (code, _, error) = call(&["deny", "import", "--list", "-"], &all);
    assert!(
        code == 75 && error.contains("nothing is changed"),
        "{code} {error}"
    );
    assert!(running.blocks(LEAKED) && running.blocks(IN_FILE));
    assert!(!running.blocks("bulk-token-00000001"));
    let (code, out, _) = call(&["status"], "");
    assert!(code == 0 && out.contains("last change: "), "{out}");

    // With room again it goes on by itself.
    fs::remove_file(&filler).unwrap();
    let (code, _, error) = call(&["deny", "add"], "after-the-storm-01");
    assert_eq!(code, 0, "{error}");
    assert!(running.blocks("after-the-storm-01") && running.blocks(LEAKED));
    let (_, out, _) = call(&["status"], "");
    assert!(!out.contains("last change: "), "{out}");
    let (code, out, _) = call(&["deny", "list", "--added"], "");
    assert!(code == 0 && out.lines().count() == 2, "{out}");
}

#[test]
fn a_database_that_is_moved_away_takes_nothing_that_would_be_lost_and_says_so() {
    let host = Host::new();
    let mut running = host.start(&[]);
    host.add(LEAKED);
    let (path, away) = (host.path("state/denylist.redb"), host.path("away"));
    fs::rename(&path, &away).unwrap();
    let bulk = tokens("bulk-token", 20_000);
    for input in ["after-the-move-00001", &bulk] {
        let (code, _, error) = host.call(&["deny", "add"], input);
        assert!(
            code == 75 && error.contains("was removed or replaced while it is in use"),
            "{code} {error}"
        );
    }
    assert!(running.blocks(LEAKED) && running.blocks(IN_FILE));
    assert!(!running.blocks("after-the-move-00001") && !running.blocks("bulk-token-00000001"));
    // What was added can still be saved.
    let (code, out, _) = host.call(&["deny", "export", "--added"], "");
    assert!(code == 0 && out.lines().count() == 1, "{out}");

    // Nor into another in its place, as after a restore.
    fs::copy(&away, &path).unwrap();
    assert_eq!(host.call(&["deny", "add"], "after-the-move-00002").0, 75);
    let (_, out, _) = host.call(&["status"], "");
    assert!(out.contains("last change: "), "{out}");
    fs::rename(&away, &path).unwrap();
    host.add("after-the-move-00003");
    running.kill();
    let running = host.start(&[]);
    assert!(running.blocks(LEAKED) && running.blocks("after-the-move-00003"));

    // Nobody has to try for it to be known.
    fs::remove_dir_all(host.path("state")).unwrap();
    let said = || running.log().contains("was removed or replaced");
    let start = Instant::now();
    while !said() {
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    assert!(running.blocks(LEAKED) && running.blocks(IN_FILE));
}

#[test]
fn a_read_only_state_folder_is_refused_with_a_reason() {
    if !is_root() {
        println!("skipped: a mount of its own takes root");
        return;
    }
    let host = Host::new();
    drop(host.start(&[]));
    let mounts = "mount --bind state state && mount -o remount,bind,ro state";
    let (code, _, error) = outcome(in_own_mounts(&host, mounts).output().unwrap());
    assert!(
        code == 71 && error.contains("Read-only file system"),
        "{code} {error}"
    );
    assert!(error.contains("is it full or read-only?"), "{error}");
}

#[test]
fn a_damaged_database_is_never_taken_for_an_empty_one() {
    let host = Host::new();
    let running = host.start(&[]);
    host.add(LEAKED);
    drop(running);
    let path = host.path("state/denylist.redb");
    let whole = fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    // Wherever the entry lies: none of its pages survives.
    for byte in flipped.iter_mut().skip(4096) {
        *byte ^= 0x55;
    }
    let half = &whole[..whole.len() / 2];
    for damaged in [&b""[..], b"not a database", half, &flipped] {
        fs::write(&path, damaged).unwrap();
        let (code, _, error) = outcome(host.tokenblock(&Host::RUN).output().unwrap());
        assert!(code == 65, "{} bytes: {code} {error}", damaged.len());
        assert!(
            error.contains("is damaged") && error.contains("restore it"),
            "{error}"
        );
        // And left as it was found, for whoever mends it.
        assert_eq!(fs::metadata(&path).unwrap().len(), damaged.len() as u64);
    }
    fs::write(&path, &whole).unwrap();
    assert!(host.start(&[]).blocks(LEAKED));
}

#[test]
fn a_database_of_another_key_is_refused() {
    let host = Host::new();
    drop(host.start(&[]));
    fs::remove_file(host.path("state/key")).unwrap();
    let (code, _, error) = outcome(host.tokenblock(&Host::RUN).output().unwrap());
    assert!(
        code == 65 && error.contains("another installation key"),
        "{error}"
    );
}

#[test]
fn a_database_of_a_later_version_is_refused() {
    const META: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("meta");
    let host = Host::new();
    drop(host.start(&[]));
    let database = redb::Database::open(host.path("state/denylist.redb")).unwrap();
    let write = database.begin_write().unwrap();
    let mut meta = write.open_table(META).unwrap();
    meta.insert("format", &99_u64.to_be_bytes()[..]).unwrap();
    drop(meta);
    write.commit().unwrap();
    drop(database);
    let (code, _, error) = outcome(host.tokenblock(&Host::RUN).output().unwrap());
    assert!(
        code == 65 && error.contains("has the format 99, this tokenblock reads up to"),
        "{code} {error}"
    );
}

/// Made by a tokenblock of the first format, under the key below: a token with a reason, and one that alerts.
const FIRST_FORMAT: &[u8] = include_bytes!("format-1/denylist.redb.gz");
const FIRST_KEY: &str = "000102030405060708090a0b0c0d0e0f";

#[test]
fn a_state_folder_of_an_older_version_is_migrated() {
    let host = Host::new();
    let state = host.path("state");
    fs::create_dir(&state).unwrap();
    crate::remote::secret(&state.join("key"), FIRST_KEY);
    let mut database = Vec::new();
    let mut packed = flate2::read::GzDecoder::new(FIRST_FORMAT);
    std::io::Read::read_to_end(&mut packed, &mut database).unwrap();
    fs::write(state.join("denylist.redb"), database).unwrap();

    let mut running = host.start(&[]);
    let check = |running: &crate::support::Running| {
        assert!(running.blocks("old-format-token-0001"));
        assert!(!running.blocks("old-format-token-0002"));
        let (_, list, _) = host.call(&["deny", "list", "--added"], "");
        assert!(
            list.contains("reason=\"in a repo\" source=\"gitleaks\""),
            "{list}"
        );
        assert!(
            list.contains("alert  added=2026-11-22T01:17:40Z expires=2099-"),
            "{list}"
        );
    };
    check(&running);
    // What the first format had no place for has one now.
    host.add("jwt:kid=leaked-key");
    running.kill();
    let running = host.start(&[]);
    check(&running);
    assert_eq!(host.added().len(), 3);
}
