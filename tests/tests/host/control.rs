//! What is added at run time is enforced by each tier when the command returns, and still after a kill.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use rustix::process::Signal;
use tokenblock_tests::{
    certificate::Certificate,
    client::Client,
    fixtures::{Token, list_file},
    gate, poll,
};

use crate::lab::{Bench, LIMIT, Lab, Tier};

/// An entry leaves within the second.
const LATE: Duration = Duration::from_secs(1);

/// Runs `tokenblock` with this input; gives its exit code and what it wrote.
pub(crate) fn call(
    binary: &Path,
    state: &Path,
    args: &[&str],
    input: &str,
) -> (Option<i32>, String) {
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

/// Changes entries by the API, and returns as soon as that is answered.
pub(crate) fn ask(socket: &Path, method: &str, body: &str) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_mins(1)))
        .unwrap();
    let length = body.len();
    let head = format!("{method} /v1/entries HTTP/1.1\r\nHost: a\r\nContent-Length: {length}");
    write!(stream, "{head}\r\nConnection: close\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
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

        // It was blocked once, and that is known.
        let seen = poll::until(LIMIT, || {
            let check = ["deny", "check", "--json"];
            let (_, checked) = call(&binary, &state, &check, &Token::Jwt.text());
            checked.contains("\"hits\":1,").then_some(checked)
        });
        let seen = seen.unwrap_or_else(|| panic!("{tier:?}\n{}", lab.product.log()));
        assert!(seen.contains("\"blocked\":1,"), "{tier:?}: {seen}");

        deny(&["deny", "add"]);
        deny(&["status"]);
        lab.product.signal(Signal::KILL).unwrap();
        let lab = lab.restarted();
        assert!(lab.blocks(Token::Jwt), "{tier:?}\n{}", lab.product.log());
        lab.assert_no_token_shown();
    }
}

/// A connection that sends the same header lines with each request: what was clean in them is none the moment it is listed.
#[test]
fn what_a_connection_repeats_is_found_once_it_is_listed() {
    let Some(binary) = gate::product("what_a_connection_repeats_is_found_once_it_is_listed") else {
        return;
    };
    let bench = Bench::new(binary.clone());
    fs::write(bench.list(), list_file(&[Token::Opaque])).unwrap();
    let state = bench.folder.path().join("state");
    let lab = bench.start(Tier::Kernel, &[]);
    let [server, _] = lab.servers();
    let mut client = Client::connect(&lab.bench.pair.client, server).unwrap();
    let request = Lab::request(Token::Jwt);
    for _ in 0..5 {
        let answer = client.exchange(&request, LIMIT).unwrap();
        assert_eq!(answer.status(), Some(200), "{}", lab.product.log());
    }
    let (code, text) = call(&binary, &state, &["deny", "add"], &Token::Jwt.text());
    assert_eq!(code, Some(0), "{text}");
    let answer = client.exchange(&request, LIMIT).unwrap();
    assert_eq!(answer.status(), Some(403), "{}", lab.product.log());
    client.abort().unwrap();
}

#[test]
fn an_entry_leaves_each_tier_at_its_second() {
    let Some(binary) = gate::product("an_entry_leaves_each_tier_at_its_second") else {
        return;
    };
    for tier in [Tier::Kernel, Tier::Proxy] {
        let bench = Bench::new(binary.clone());
        fs::write(bench.list(), list_file(&[Token::Opaque])).unwrap();
        let lab = bench.start(tier, &["--jwt-expiry", "1s"]);
        let late = poll::fastest(LATE, || leaves_late(&lab));
        assert!(late <= LATE, "{tier:?}: {late:?}");
        assert!(lab.blocks(Token::Opaque), "{tier:?}");
    }
}

/// Lists a JWT that leaves by itself; gives how late it did.
fn leaves_late(lab: &Lab) -> Duration {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let exp = since.unwrap().as_secs() + 4;
    let jwt = jwt(exp);
    let list = list_file(&[Token::Opaque]) + &jwt;
    fs::write(lab.bench.list(), list).unwrap();
    let [server, _] = lab.servers();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {jwt}\r\n\r\n",
        Certificate::HOST
    );
    let blocks = || {
        let answer = lab.exchange(server, request.as_bytes(), LIMIT).answer;
        answer.status() == Some(403)
    };
    let listed = poll::until(LIMIT, || blocks().then_some(()));
    assert!(listed.is_some(), "{}", lab.product.log());
    let leaves = SystemTime::UNIX_EPOCH + Duration::from_secs(exp + 1);
    loop {
        let blocked = blocks();
        // An answer may take its time.
        if SystemTime::now() >= leaves {
            break;
        }
        assert!(blocked, "{}", lab.product.log());
    }
    let free = poll::until(LIMIT, || (!blocks()).then(SystemTime::now));
    // Never early.
    let late = free.unwrap().duration_since(leaves);
    late.unwrap_or_else(|early| panic!("{early}"))
}

/// A JWT that ends by itself at this second.
fn jwt(exp: u64) -> String {
    let encode = |json: &str| BASE64_URL_SAFE_NO_PAD.encode(json);
    let payload = encode(&format!(r#"{{"sub":"alice","exp":{exp}}}"#));
    format!("{}.{payload}.c2lnbmF0dXJl", encode(r#"{"alg":"HS256"}"#))
}
