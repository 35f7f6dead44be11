//! A changed denylist file is in force within a second, however it was changed, and a broken one never.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokenblock_tests::{
    fixtures::{Token, list_file},
    gate, poll,
};

use crate::lab::{Bench, LIMIT, Lab, Tier};

/// From the write until the change is in force.
const IN_FORCE: Duration = Duration::from_secs(1);
const BOTH: [Tier; 2] = [Tier::Kernel, Tier::Proxy];

/// Has `token` blocked (or not) by `write`; gives how long that takes to be in force.
fn in_force(lab: &Lab, token: Token, blocked: bool, what: &str, write: impl Fn()) -> Duration {
    write();
    let since = Instant::now();
    let changed = poll::until(LIMIT, || {
        (lab.blocks(token) == blocked).then(|| since.elapsed())
    });
    changed.unwrap_or_else(|| {
        panic!(
            "{what}: {token:?} is not {}\n{}",
            if blocked { "blocked" } else { "free" },
            lab.product.log()
        )
    })
}

/// Lists `Opaque` alone, then adds and removes by `write`.
fn follows(name: &str, make: impl Fn(&Path, &str), write: impl Fn(&Path, &str)) {
    let Some(binary) = gate::product(name) else {
        return;
    };
    for tier in BOTH {
        let bench = Bench::new(binary.clone());
        let list = bench.list();
        fs::remove_file(&list).unwrap();
        make(&list, &list_file(&[Token::Opaque]));
        let lab = bench.start(tier, &[]);
        let what = format!("{name}, {tier:?}");
        assert!(lab.blocks(Token::Opaque), "{what}\n{}", lab.product.log());
        assert!(!lab.blocks(Token::Jwt), "{what}");
        let [one, both, other] = [
            &[Token::Opaque][..],
            &[Token::Opaque, Token::Jwt],
            &[Token::Jwt],
        ]
        .map(list_file);
        let time = poll::fastest(IN_FORCE, || {
            let added = in_force(&lab, Token::Jwt, true, &what, || write(&list, &both));
            assert!(
                lab.blocks(Token::Opaque),
                "{what}: what was listed stays listed"
            );
            let removed = in_force(&lab, Token::Opaque, false, &what, || write(&list, &other));
            assert!(
                lab.blocks(Token::Jwt),
                "{what}: what was listed stays listed"
            );
            // As it was.
            in_force(&lab, Token::Jwt, false, &what, || write(&list, &one));
            added.max(removed)
        });
        assert!(time <= IN_FORCE, "{what}: {time:?}\n{}", lab.product.log());
    }
}

fn overwrite(file: &Path, text: &str) {
    fs::write(file, text).unwrap();
}

fn rename_over(file: &Path, text: &str) {
    let next = file.with_extension("next");
    fs::write(&next, text).unwrap();
    fs::rename(next, file).unwrap();
}

/// As the kubelet updates a mounted Secret: `list -> ..data/list`, `..data -> folder`, `..data` swapped.
fn swap_link(file: &Path, text: &str) {
    let folder = file.parent().unwrap();
    let count = fs::read_dir(folder).unwrap().count();
    let version = folder.join(format!("..version-{count}"));
    fs::create_dir(&version).unwrap();
    fs::write(version.join(file.file_name().unwrap()), text).unwrap();
    symlink(version.file_name().unwrap(), folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
}

fn make_link(file: &Path, text: &str) {
    swap_link(file, text);
    symlink(
        PathBuf::from("..data").join(file.file_name().unwrap()),
        file,
    )
    .unwrap();
}

#[test]
fn follows_a_rewrite_in_place() {
    follows("list::follows_a_rewrite_in_place", overwrite, overwrite);
}

#[test]
fn follows_an_atomic_rename() {
    follows("list::follows_an_atomic_rename", overwrite, rename_over);
}

#[test]
fn follows_a_link_swapped_as_kubernetes_does() {
    follows(
        "list::follows_a_link_swapped_as_kubernetes_does",
        make_link,
        swap_link,
    );
}

#[test]
fn refuses_a_broken_list_and_keeps_the_old_one() {
    let name = "list::refuses_a_broken_list_and_keeps_the_old_one";
    let Some(binary) = gate::product(name) else {
        return;
    };
    for tier in BOTH {
        let bench = Bench::new(binary.clone());
        let list = bench.list();
        overwrite(&list, &list_file(&[Token::Opaque]));
        let lab = bench.start(tier, &[]);
        let broken = format!("{}sha256:not-hexadecimal\n", list_file(&[Token::Jwt]));
        let line = broken.lines().count();
        rename_over(&list, &broken);
        let place = format!("{}:{line}", list.display());
        lab.product.wait_for(&place, LIMIT).unwrap();
        assert!(
            lab.blocks(Token::Opaque),
            "{tier:?}: the old list stays\n{}",
            lab.product.log()
        );
        assert!(
            !lab.blocks(Token::Jwt),
            "{tier:?}: a broken list is refused whole"
        );
        let mend = || rename_over(&list, &list_file(&[Token::Jwt]));
        in_force(&lab, Token::Jwt, true, "mended", mend);
    }
}

#[test]
fn skips_short_and_redacted_entries_with_a_warning() {
    let name = "list::skips_short_and_redacted_entries_with_a_warning";
    let Some(binary) = gate::product(name) else {
        return;
    };
    let bench = Bench::new(binary);
    let list = bench.list();
    overwrite(
        &list,
        &format!("abc\nREDACTED\n   \n{}", list_file(&[Token::Opaque])),
    );
    let lab = bench.start(Tier::Proxy, &[]);
    for line in [1, 2] {
        lab.product
            .wait_for(&format!("{}:{line}", list.display()), LIMIT)
            .unwrap();
    }
    assert!(lab.blocks(Token::Opaque), "{}", lab.product.log());
}
