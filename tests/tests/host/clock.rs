//! The clock of the host is set while entries are to leave by themselves: they leave by the clock as it is, and come back where
//! it was wrong.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use rustix::process::Signal;
use tokenblock_tests::{
    fixtures::{Token, list_file},
    gate, poll,
};

use crate::{
    control::call,
    lab::{Bench, LIMIT, Lab, Tier},
};

/// The product by a clock of its own, which a file sets: an offset such as `+2h`.
struct Clock {
    file: PathBuf,
    product: PathBuf,
}

impl Clock {
    fn new(folder: &Path, binary: &Path) -> Self {
        let (file, product) = (folder.join("clock"), folder.join("product"));
        let script = format!(
            "#!/bin/sh\n\
             export FAKETIME_TIMESTAMP_FILE={} FAKETIME_NO_CACHE=1 DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1\n\
             LD_PRELOAD='/usr/$LIB/faketime/libfaketimeMT.so.1' exec {} \"$@\"\n",
            file.display(),
            binary.display()
        );
        fs::write(&product, script).unwrap();
        fs::set_permissions(&product, fs::Permissions::from_mode(0o755)).unwrap();
        let clock = Self { file, product };
        clock.set("+0s");
        clock
    }

    fn set(&self, offset: &str) {
        let next = self.file.with_extension("next");
        fs::write(&next, offset).unwrap();
        fs::rename(next, &self.file).unwrap();
    }
}

fn becomes(lab: &Lab, token: Token, blocked: bool) {
    let changed = poll::until(LIMIT, || (lab.blocks(token) == blocked).then_some(()));
    assert!(changed.is_some(), "{token:?}\n{}", lab.product.log());
}

#[test]
fn entries_leave_by_the_clock_as_it_is_set_and_come_back_where_it_was_wrong() {
    let name = "clock::entries_leave_by_the_clock_as_it_is_set_and_come_back_where_it_was_wrong";
    let Some(binary) = gate::product(name) else {
        return;
    };
    for tier in [Tier::Kernel, Tier::Proxy] {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::new(folder.path(), &binary);
        let bench = Bench::new(clock.product.clone());
        let of_file = list_file(&[Token::Opaque]).trim_end().to_owned() + " expires=1h\n";
        fs::write(bench.list(), of_file + &list_file(&[Token::Long])).unwrap();
        let state = bench.folder.path().join("state");
        let mut lab = bench.start(tier, &[]);
        let add = ["deny", "add", "--expires=1h"];
        let (code, said) = call(&binary, &state, &add, &Token::Jwt.text());
        assert_eq!(code, Some(0), "{said}");

        for restarts in [false, true] {
            assert!(
                lab.blocks(Token::Opaque) && lab.blocks(Token::Jwt),
                "{tier:?}"
            );
            clock.set("+2h");
            becomes(&lab, Token::Opaque, false);
            becomes(&lab, Token::Jwt, false);
            assert!(lab.blocks(Token::Long), "{tier:?}");
            if restarts {
                lab.product.signal(Signal::KILL).unwrap();
                lab = lab.restarted();
                assert!(
                    !lab.blocks(Token::Opaque) && !lab.blocks(Token::Jwt),
                    "{tier:?}"
                );
            }
            clock.set("+0s");
            lab.product
                .wait_for("the clock was set back", LIMIT)
                .unwrap();
            becomes(&lab, Token::Opaque, true);
            becomes(&lab, Token::Jwt, true);
        }

        // What leaves later by a clock that is slow is blocked for longer, never for less.
        clock.set("-24h");
        lab.product.signal(Signal::USR1).unwrap();
        lab.product.wait_for("counters", LIMIT).unwrap();
        assert!(
            lab.blocks(Token::Opaque) && lab.blocks(Token::Jwt),
            "{tier:?}"
        );
        let (code, said) = call(&binary, &state, &["deny", "check"], &Token::Jwt.text());
        assert_eq!(code, Some(0), "{said}");
    }
}
