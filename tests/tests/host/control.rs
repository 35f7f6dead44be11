//! What is added at run time is enforced by each tier when the command returns, and still after a kill.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::Signal;
use tokenblock_tests::{
    fixtures::{Token, list_file},
    gate,
};

use crate::lab::{Bench, Tier};

/// Runs `tokenblock` with this input; gives its exit code and what it wrote.
fn call(binary: &Path, state: &Path, args: &[&str], input: &str) -> (Option<i32>, String) {
    let mut child = Command::new(binary)
        .args(args)
        .arg("--state-dir")
        .arg(state)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn an_addition_is_enforced_when_the_command_returns() {
    let Some(binary) = gate::product("an_addition_is_enforced_when_the_command_returns") else {
        return;
    };
    for tier in [Tier::Kernel, Tier::Proxy] {
        let bench = Bench::new(binary.clone());
        fs::write(bench.list(), list_file(&[Token::Opaque])).unwrap();
        let state = bench.folder.path().join("state");
        let deny = |args: &[&str]| {
            let (code, text) = call(&binary, &state, args, &Token::Jwt.text());
            assert_eq!(code, Some(0), "{tier:?}: {args:?}: {text}");
        };
        let lab = bench.start(tier, &[]);
        assert!(!lab.blocks(Token::Jwt), "{tier:?}");
        // At once, without a second look.
        deny(&["deny", "add"]);
        assert!(lab.blocks(Token::Jwt), "{tier:?}\n{}", lab.product.log());
        deny(&["deny", "remove"]);
        assert!(!lab.blocks(Token::Jwt), "{tier:?}\n{}", lab.product.log());
        assert!(lab.blocks(Token::Opaque), "{tier:?}");

        deny(&["deny", "add"]);
        deny(&["status"]);
        lab.product.signal(Signal::KILL).unwrap();
        let lab = lab.restarted();
        assert!(lab.blocks(Token::Jwt), "{tier:?}\n{}", lab.product.log());
        lab.assert_no_token_shown();
    }
}
