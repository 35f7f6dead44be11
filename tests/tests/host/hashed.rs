//! Entries of which only the SHA-256 is known are enforced by both tiers, from the start and when they come later.

use std::{fs, time::Duration};

use rustix::process::Signal;
use tokenblock_tests::{
    fixtures::{TOKENS, Token, hashed_list_file, list_file},
    gate, poll,
};

use crate::{
    control::{ask, call},
    lab::{Bench, Lab, Tier},
};

/// The first such entry has the kernel tier load programs.
const LOADED: Duration = Duration::from_secs(20);
const BOTH: [Tier; 2] = [Tier::Kernel, Tier::Proxy];

fn becomes(lab: &Lab, token: Token, blocked: bool) {
    let changed = poll::until(LOADED, || (lab.blocks(token) == blocked).then_some(()));
    assert!(
        changed.is_some(),
        "{token:?} is not {}\n{}",
        if blocked { "blocked" } else { "free" },
        lab.product.log()
    );
}

#[test]
fn a_list_of_hashes_blocks_its_tokens() {
    let Some(binary) = gate::product("hashed::a_list_of_hashes_blocks_its_tokens") else {
        return;
    };
    for tier in BOTH {
        let bench = Bench::new(binary.clone());
        let (listed, free) = TOKENS.split_at(TOKENS.len() - 1);
        fs::write(bench.list(), hashed_list_file(listed)).unwrap();
        let lab = bench.start(tier, &[]);
        for server in lab.servers() {
            for token in listed {
                let exchange = lab.exchange(server, &Lab::request(*token), crate::lab::LIMIT);
                assert_eq!(exchange.answer.status(), Some(403), "{tier:?}, {token:?}");
                let event = lab.only_event(&exchange, "hashed");
                assert_eq!(event.token, token.short_id(), "{tier:?}, {token:?}");
            }
        }
        assert!(!lab.blocks(free[0]), "{tier:?}\n{}", lab.product.log());
        lab.assert_no_token_shown();
    }
}

#[test]
fn hashes_that_come_later_are_enforced_until_they_leave() {
    let name = "hashed::hashes_that_come_later_are_enforced_until_they_leave";
    let Some(binary) = gate::product(name) else {
        return;
    };
    for tier in BOTH {
        let bench = Bench::new(binary.clone());
        let list = bench.list();
        fs::write(&list, list_file(&[Token::Opaque])).unwrap();
        let lab = bench.start(tier, &[]);
        assert!(!lab.blocks(Token::Jwt), "{tier:?}");
        let both = list_file(&[Token::Opaque]) + &hashed_list_file(&[Token::Jwt]);
        fs::write(&list, &both).unwrap();
        becomes(&lab, Token::Jwt, true);
        assert!(lab.blocks(Token::Opaque), "{tier:?}");

        // Counted from the file's last change.
        fs::write(&list, both.trim_end().to_owned() + " expires=2s\n").unwrap();
        becomes(&lab, Token::Jwt, false);
        assert!(lab.blocks(Token::Opaque), "{tier:?}");
        if tier == Tier::Kernel {
            lab.product.wait_for("programs detached", LOADED).unwrap();
        }
    }
}

#[test]
fn a_hash_that_is_added_is_enforced_when_the_command_returns() {
    let name = "hashed::a_hash_that_is_added_is_enforced_when_the_command_returns";
    let Some(binary) = gate::product(name) else {
        return;
    };
    for tier in BOTH {
        let bench = Bench::new(binary.clone());
        fs::write(bench.list(), list_file(&[Token::Opaque])).unwrap();
        let state = bench.folder.path().join("state");
        let deny = |args: &[&str], input: &str| {
            let (code, text) = call(&binary, &state, &[&["deny"], args].concat(), input);
            assert_eq!(code, Some(0), "{tier:?}: {args:?}: {text}");
        };
        let lab = bench.start(tier, &[]);
        let (jwt, long) = (
            hashed_list_file(&[Token::Jwt]),
            hashed_list_file(&[Token::Long]),
        );
        assert!(!lab.blocks(Token::Jwt), "{tier:?}");
        // The first has programs loaded; each is in force at once, without a second look.
        deny(&["add"], &jwt);
        assert!(lab.blocks(Token::Jwt), "{tier:?}\n{}", lab.product.log());
        deny(&["import", "--list", "-"], &long);
        assert!(lab.blocks(Token::Long), "{tier:?}\n{}", lab.product.log());

        // Kept over a kill, and in force from the start.
        lab.product.signal(Signal::KILL).unwrap();
        let lab = lab.restarted();
        assert!(lab.blocks(Token::Jwt) && lab.blocks(Token::Long));
        deny(&["check"], &jwt);

        // By the hash, or by the token where that is known.
        deny(&["remove"], &jwt);
        assert!(!lab.blocks(Token::Jwt), "{tier:?}\n{}", lab.product.log());
        assert!(lab.blocks(Token::Long), "{tier:?}");
        deny(&["remove"], &Token::Long.text());
        assert!(!lab.blocks(Token::Long), "{tier:?}\n{}", lab.product.log());
        assert!(lab.blocks(Token::Opaque), "{tier:?}");
        if tier == Tier::Kernel {
            lab.product.wait_for("programs detached", LOADED).unwrap();
        }
    }
}

#[test]
fn the_last_hash_goes_and_comes_again_in_force_when_each_is_answered() {
    let name = "hashed::the_last_hash_goes_and_comes_again_in_force_when_each_is_answered";
    let Some(binary) = gate::product(name) else {
        return;
    };
    for tier in BOTH {
        let bench = Bench::new(binary.clone());
        fs::write(bench.list(), list_file(&[Token::Opaque])).unwrap();
        let socket = bench.folder.path().join("state/control.sock");
        let lab = bench.start(tier, &[]);
        let hash = hashed_list_file(&[Token::Jwt]);
        let hash = hash.trim_end();
        let id = hash.trim_start_matches("sha256:");
        let add = format!(r#"{{"entries":[{{"token":"{hash}"}}]}}"#);
        let remove = format!(r#"{{"entries":[{{"id":"{id}"}}]}}"#);
        // The programs that look hashes up are taken off and loaded again each time.
        for round in 0..3 {
            ask(&socket, "POST", &add);
            assert!(
                lab.blocks(Token::Jwt),
                "{tier:?} {round}\n{}",
                lab.product.log()
            );
            ask(&socket, "DELETE", &remove);
            assert!(
                !lab.blocks(Token::Jwt),
                "{tier:?} {round}\n{}",
                lab.product.log()
            );
        }
        // Nobody looks between the two.
        ask(&socket, "POST", &add);
        ask(&socket, "DELETE", &remove);
        ask(&socket, "POST", &add);
        assert!(lab.blocks(Token::Jwt), "{tier:?}\n{}", lab.product.log());
        assert!(lab.blocks(Token::Opaque), "{tier:?}");
    }
}
