//! Entries of which the SHA-256 alone is known: by command and API, with the life of any other entry.

use std::fs;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokenblock::denylist::TokenId;

use crate::support::{Host, IN_FILE};

const LEAKED: &str = "leaked-token-0000001";
const OTHER: &str = "leaked-token-0000002";

/// As it stands in the place of a token.
fn hash(token: &str) -> String {
    let id = TokenId(Sha256::digest(token).into());
    format!("sha256:{id}")
}

fn checked(host: &Host, what: &str) -> Value {
    let (_, out, error) = host.call(&["deny", "check", "--json"], what);
    serde_json::from_str(&out).expect(&error)
}

#[test]
fn a_hash_lives_as_any_entry_does() {
    let host = Host::new();
    let mut running = host.start(&[]);
    assert!(!running.blocks(LEAKED));
    let add = ["deny", "add", "--reason=breach of a partner"];
    let (code, out, error) = host.call(&add, &hash(LEAKED));
    let short = TokenId(Sha256::digest(LEAKED).into()).short();
    assert!(
        code == 0 && out == format!("added {short}\n"),
        "{out} {error}"
    );
    assert!(running.blocks(LEAKED) && !running.blocks(OTHER));
    let (_, out, _) = host.call(&["deny", "add"], &hash(LEAKED));
    assert_eq!(out, format!("unchanged {short}\n"));

    // It is found by its hash, by its token, and in the list; what was seen of it is its own.
    for what in [hash(LEAKED), LEAKED.to_owned()] {
        let checked = checked(&host, &what);
        assert_eq!(checked["listed"], true, "{checked}");
        assert_eq!(checked["addition"]["reason"], "breach of a partner");
        assert_eq!(checked["in_files"], false, "{checked}");
        assert_eq!(checked["seen"]["hits"], 1, "{checked}");
    }
    let (_, list, _) = host.call(&["deny", "list", "--added"], "");
    assert!(
        list.starts_with(&short.to_string()) && list.lines().count() == 1,
        "{list}"
    );
    assert!(list.contains(" expires=never hash reason="), "{list}");
    let (_, status, _) = host.call(&["status"], "");
    assert!(status.contains("entries: 2 in force, 1 added"), "{status}");

    running.kill();
    let mut running = host.start(&[]);
    assert!(running.blocks(LEAKED));
    // What one host exports another takes.
    let (_, exported, _) = host.call(&["deny", "export", "--added"], "");
    let (code, out, _) = host.call(&["deny", "remove"], LEAKED);
    assert!(code == 0 && out == format!("{short} removed\n"), "{out}");
    assert!(!running.blocks(LEAKED) && running.blocks(IN_FILE));
    let (code, out, error) = host.call(&["deny", "import", "--list", "-"], &exported);
    assert!(code == 0 && out.starts_with("1 added"), "{out} {error}");
    assert!(running.blocks(LEAKED));
    let (code, out, _) = host.call(&["deny", "remove"], &hash(LEAKED));
    assert!(code == 0 && out == format!("{short} removed\n"), "{out}");
    running.kill();
    assert!(!host.start(&[]).blocks(LEAKED));
}

#[test]
fn a_hash_leaves_at_its_second_and_what_else_lists_the_token_stays() {
    let host = Host::new();
    let list = format!("{IN_FILE}\n{}\n{OTHER}\n", hash(LEAKED));
    fs::write(host.path("list"), list).unwrap();
    let running = host.start(&[]);
    let short_lived = "short-lived-token-01";
    let (code, _, error) = host.call(&["deny", "add", "--expires=4s"], &hash(short_lived));
    assert_eq!(code, 0, "{error}");
    assert!(running.blocks(short_lived));
    while running.blocks(short_lived) {}
    assert_eq!(host.added().len(), 0);

    // In a file by its hash, added by its hash and its text.
    host.add(&format!("{}\n{LEAKED}\n{}", hash(LEAKED), hash(OTHER)));
    assert_eq!(host.added().len(), 3);
    for token in [LEAKED, OTHER] {
        let (code, out, _) = host.call(&["deny", "remove"], token);
        assert!(
            code == 1 && out.contains("a denylist file lists it"),
            "{out}"
        );
        assert!(running.blocks(token) && host.call(&["deny", "check"], token).0 == 0);
        let checked = checked(&host, &hash(token));
        assert_eq!(
            (&checked["listed"], &checked["in_files"]),
            (&true.into(), &true.into())
        );
        assert_eq!(checked["action"], "block", "{checked}");
    }
    assert_eq!(host.added().len(), 0);
    fs::write(host.path("list"), format!("{IN_FILE}\n")).unwrap();
    while running.blocks(LEAKED) || running.blocks(OTHER) {}
    assert_eq!(checked(&host, &hash(LEAKED))["listed"], false);
}

#[test]
fn a_hash_of_one_kind_is_of_that_kind() {
    let host = Host::new();
    let running = host.start(&[]);
    let (code, _, error) = host.call(&["deny", "add", "--kind=jws"], &hash(LEAKED));
    assert_eq!(code, 0, "{error}");
    assert!(!running.blocks(LEAKED));
    let list = format!("{} kind=exact reason=\"of a list\"\n", hash(LEAKED));
    let (code, out, error) = host.call(&["deny", "import", "--list", "-"], &list);
    assert!(code == 0 && out.starts_with("1 added"), "{out} {error}");
    assert!(running.blocks(LEAKED));
    let (_, list, _) = host.call(&["deny", "list", "--added"], "");
    assert!(list.contains("reason=\"of a list\""), "{list}");

    // Whoever reads the list sees which entries are hashes, and of what; and it is exported so.
    host.add(&hash(OTHER));
    fs::write(
        host.path("list"),
        format!("{IN_FILE}\n{} kind=jws\n", hash("of-a-file-00000001")),
    )
    .unwrap();
    let listed = || {
        let (_, list, _) = host.call(&["deny", "list", "--json"], "");
        let entries = list
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut hashes: Vec<_> = entries.map(|entry| entry["hash"].to_string()).collect();
        hashes.sort();
        hashes
    };
    let all = ["\"either\"", "\"exact\"", "\"jws\"", "\"jws\"", "null"];
    assert_eq!(listed(), all);
    let (_, exported, _) = host.call(&["deny", "export", "--added"], "");
    let kinds = |kind: &str| exported.lines().filter(|line| line.contains(kind)).count();
    assert_eq!(
        (kinds(" kind=jws"), kinds(" kind=exact"), kinds("sha256:")),
        (1, 1, 3)
    );
}

#[test]
fn what_is_no_hash_is_refused_and_a_token_that_looks_like_one_is_quoted() {
    let host = Host::new();
    let running = host.start(&[]);
    for line in ["sha256:", "sha256:1234", &format!("{}0", hash(LEAKED))] {
        let (code, _, error) = host.call(&["deny", "add"], line);
        assert!(
            code == 65 && error.contains("64 hexadecimal digits"),
            "{error}"
        );
    }
    let (code, _, error) = host.call(&["deny", "add", "--kind=exact"], LEAKED);
    assert!(
        code == 65 && error.contains("kind= belongs to sha256:"),
        "{error}"
    );
    let token = "sha256:of-something-else";
    host.add(&format!("\"{token}\""));
    assert!(running.blocks(token));
}
