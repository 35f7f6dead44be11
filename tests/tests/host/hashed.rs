//! Entries of which only the SHA-256 is known are enforced by both tiers, from the start and when they come later.

use std::{fs, time::Duration};

use tokenblock_tests::{
    fixtures::{TOKENS, Token, hashed_list_file, list_file},
    gate, poll,
};

use crate::lab::{Bench, Lab, Tier};

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
