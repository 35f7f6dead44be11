//! What is known of an entry: where it stands, and what was seen of its token.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{Host, IN_FILE};

const LEAKED: &str = "leaked-token-0000001";

/// What `deny check` says of a token.
fn checked(host: &Host, token: &str) -> Value {
    let (_, out, error) = host.call(&["deny", "check", "--json"], token);
    serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out} {error}"))
}

/// Waits for what is seen of a token.
fn hits(host: &Host, token: &str, hits: u64) -> Value {
    let start = Instant::now();
    loop {
        let checked = checked(host, token);
        if checked["seen"]["hits"] == hits {
            return checked["seen"].clone();
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{checked}");
    }
}

#[test]
fn hits_of_every_entry_are_known_and_kept_over_restarts() {
    let host = Host::new();
    let running = host.start(&[]);
    let (code, _, error) = host.call(&["deny", "add", "--action=alert"], LEAKED);
    assert_eq!(code, 0, "{error}");
    assert!(checked(&host, LEAKED)["seen"].is_null());
    for _ in 0..3 {
        assert!(running.blocks(IN_FILE) && !running.blocks(LEAKED));
    }
    let seen = hits(&host, IN_FILE, 3);
    assert_eq!(
        (&seen["blocked"], &seen["sources"][0]["address"]),
        (&3.into(), &"127.0.0.1".into())
    );
    assert!(seen["first"].as_str() <= seen["last"].as_str() && seen["last"].is_string());
    assert_eq!(hits(&host, LEAKED, 3)["blocked"], 0);
    let (_, list, _) = host.call(&["deny", "list"], "");
    assert_eq!(list.matches(" hits=3 first=2").count(), 2, "{list}");
    assert_eq!(list.matches(" from=127.0.0.1\n").count(), 2, "{list}");

    // Told to stop it has all of them on disk.
    running.stop();
    let mut running = host.start(&[]);
    hits(&host, IN_FILE, 3);
    assert!(running.blocks(IN_FILE));
    hits(&host, IN_FILE, 4);
    // What can't be used of them is set aside, and is no reason not to enforce.
    running.kill();
    fs::write(host.path("state/hits.redb"), "no database").unwrap();
    let running = host.start(&[]);
    assert!(running.blocks(IN_FILE));
    hits(&host, IN_FILE, 1);
    assert!(host.path("state/hits.redb.damaged").exists());
}

#[test]
fn hits_are_on_disk_before_long() {
    let host = Host::new();
    let mut running = host.start(&[]);
    let stored = || {
        let (_, status) = host.curl("/v1/status", &[]);
        status["tiers"]["counters"]["sightings"]["sightings_stored_total"].as_u64()
    };
    let start = Instant::now();
    assert!(running.blocks(IN_FILE));
    while stored() == Some(0) {
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    running.kill();
    let _running = host.start(&[]);
    assert!(checked(&host, IN_FILE)["seen"]["hits"].as_u64() >= Some(1));
}

#[test]
fn entries_of_files_are_listed_with_their_place_and_attributes() {
    let host = Host::new();
    let hash = "3c9683017f9e4bf33d0fbedd26bf143fd72de9b9dd145441b75f0604047ea28e";
    let list = format!(
        "# found\n{IN_FILE} reason=\"in a repo\" source=gitleaks\nsha256:{hash} action=alert source=partner\n\
         gone-token-00001 expires=2001-01-01T00:00:00Z\n{IN_FILE} expires=1h\n"
    );
    fs::write(host.path("list"), list).unwrap();
    let running = host.start(&[]);
    host.add(LEAKED);
    host.add(IN_FILE);
    let (code, out, error) = host.call(&["deny", "list", "--json"], "");
    assert_eq!((code, error.as_str()), (0, ""));
    let entries: Vec<Value> = out
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let places: Vec<_> = entries
        .iter()
        .map(|entry| entry["file"]["line"].as_u64())
        .collect();
    assert_eq!(places, [None, None, Some(2), Some(3), Some(5)]);
    let of_file = &entries[2];
    assert_eq!(
        (&of_file["reason"], &of_file["source"]),
        (&"in a repo".into(), &"gitleaks".into())
    );
    assert_eq!(
        (&entries[3]["id"], &entries[3]["source"]),
        (&hash.into(), &"partner".into())
    );
    assert!(!out.contains(IN_FILE));

    let (_, out, _) = host.call(&["deny", "list"], "");
    assert!(
        out.contains(" reason=\"in a repo\" source=\"gitleaks\" file=list:2\n"),
        "{out}"
    );
    let (code, out, _) = host.call(&["deny", "check"], IN_FILE);
    let by = ", by list:2 reason=\"in a repo\" source=\"gitleaks\", by list:5\n";
    assert!(code == 0 && out.ends_with(by), "{out}");
    let (_, out, _) = host.call(&["deny", "export"], "");
    assert_eq!(out.lines().count(), 5);
    assert!(
        out.contains(&format!("sha256:{hash} action=alert source=\"partner\"\n")),
        "{out}"
    );

    // A file that is broken now is told; what can be shown is shown.
    fs::write(host.path("list"), format!("{IN_FILE}\noops oops\n")).unwrap();
    let (code, out, error) = host.call(&["deny", "list"], "");
    assert!(
        code == 0 && error.starts_with("warning: list:2: what follows"),
        "{error}"
    );
    assert_eq!(out.lines().count(), 3);
    assert!(running.blocks(IN_FILE));
}

#[test]
fn a_token_whose_hash_is_listed_is_known_to_be_listed() {
    let host = Host::new();
    let hash = {
        use sha2::{Digest as _, Sha256};
        format!("{:x}", Sha256::digest(LEAKED))
    };
    fs::write(host.path("list"), format!("sha256:{hash} reason=shared\n")).unwrap();
    let running = host.start(&[]);
    assert!(running.blocks(LEAKED));
    let (code, out, _) = host.call(&["deny", "check"], LEAKED);
    assert!(
        code == 0
            && out.contains("listed, action=block expires=never, by list:1 reason=\"shared\""),
        "{out}"
    );
    host.add(LEAKED);
    let (code, out, _) = host.call(&["deny", "remove"], LEAKED);
    assert!(code == 1 && out.contains("it stays in force"), "{out}");
}
