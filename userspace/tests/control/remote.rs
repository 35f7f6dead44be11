//! The same API over TCP: TLS, a credential, and what is read again when it changes.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    ops::Deref,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{Host, IN_FILE, Running, outcome};

const LEAKED: &str = "leaked-token-0000001";
pub(crate) const CREDENTIAL: &str = "credential-0123456789abcdef0123456789";

/// The files of an API by TCP.
pub(crate) struct Remote;

/// A process that serves it.
pub(crate) struct Serving(Running);

impl Deref for Serving {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.0
    }
}

impl Serving {
    /// One request by curl, with the credential unless `args` say otherwise.
    pub(crate) fn fetch(&self, host: &Host, path: &str, args: &[&str]) -> (u16, Value) {
        let header = format!("Authorization: Bearer {CREDENTIAL}");
        let bare = args.iter().any(|arg| arg.starts_with("Authorization"));
        let credential: &[&str] = if bare { &[] } else { &["-H", &header] };
        self.bare(host, path, &[credential, args].concat())
    }

    /// The same without.
    pub(crate) fn bare(&self, host: &Host, path: &str, args: &[&str]) -> (u16, Value) {
        let port = self.remote.unwrap().port();
        let url = format!("https://localhost:{port}{path}");
        host.fetch(&url, &[&["--cacert", "api.pem"], args].concat())
    }
}

impl Remote {
    const FLAGS: [&str; 4] = [
        "--control-listen=127.0.0.1:0",
        "--control-tls-cert=api.pem",
        "--control-tls-key=api.key",
        "--control-credential=credential",
    ];

    fn write(host: &Host) {
        certify(&host.path(""));
        secret(&host.path("credential"), CREDENTIAL);
    }

    /// Makes them, and a process that has them.
    pub(crate) fn start(host: &Host, flags: &[&str]) -> Serving {
        Self::write(host);
        Serving(host.start(&[&Self::FLAGS, flags].concat()))
    }
}

/// A new certificate for `localhost`, in place of the one that may be there.
fn certify(folder: &Path) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(folder.join("api.key"), made.signing_key.serialize_pem()).unwrap();
    fs::write(folder.join("api.pem"), made.cert.pem()).unwrap();
}

/// A file that its owner alone may read.
pub(crate) fn secret(path: &Path, text: &str) {
    fs::write(path, format!("{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

pub(crate) fn until(mut done: impl FnMut() -> bool, what: &str) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
    }
}

fn counter(host: &Host, name: &str) -> u64 {
    let (_, status) = host.curl("/v1/status", &[]);
    let counted = &status["tiers"]["counters"]["control"][name];
    counted
        .as_u64()
        .unwrap_or_else(|| panic!("{name}: {status}"))
}

#[test]
fn a_credential_opens_the_api_by_tcp_and_nothing_else_does() {
    let host = Host::new();
    let running = Remote::start(&host, &[]);
    let add = format!("{{\"entries\":[{{\"token\":\"{LEAKED}\"}}]}}");
    let wrong = format!("Authorization: Bearer {}", CREDENTIAL.to_uppercase());
    let cut = format!(
        "Authorization: Bearer {}",
        CREDENTIAL.trim_start_matches('c')
    );
    let basic = format!("Authorization: Basic {CREDENTIAL}");
    let bare = format!("Authorization: {CREDENTIAL}");
    let empty = "Authorization: Bearer ";
    for header in ["Authorization:", empty, &wrong, &cut, &basic, &bare] {
        for path in [
            "/v1/entries",
            "/v1/nothing",
            "/v1/github",
            "/v1/revoke_tokens",
        ] {
            let (status, answer) = running.fetch(&host, path, &["-H", header, "-d", &add]);
            assert_eq!(status, 401, "{header}: {answer}");
            assert_eq!(answer["error"], "no credential that is known here");
        }
    }
    assert_eq!(counter(&host, "control_refused_credential"), 24);
    assert!(!running.blocks(LEAKED) && host.added().is_empty());

    let (status, answer) = running.fetch(&host, "/v1/entries", &["-d", &add]);
    assert_eq!(status, 200, "{answer}");
    assert!(running.blocks(LEAKED));
    // Receivers are off unless they are switched on.
    for path in [
        "/v1/github",
        "/v1/revoke_tokens",
        "/v1/revocable_token_types",
    ] {
        assert_eq!(running.fetch(&host, path, &[]).0, 404, "{path}");
    }

    // Who doesn't speak TLS gets no answer in HTTP.
    let mut cleartext = TcpStream::connect(running.remote.unwrap()).unwrap();
    let _sent = cleartext.write_all(b"GET /v1/status HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut answer = Vec::new();
    let _ended = cleartext.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"));
    until(
        || counter(&host, "control_handshakes_failed_total") == 1,
        "the handshake is counted",
    );
}

#[test]
fn certificate_and_credentials_are_read_again_when_they_change() {
    let host = Host::new();
    let running = Remote::start(&host, &[]);
    let status = |args: &[&str]| running.fetch(&host, "/v1/status", args).0;
    assert_eq!(status(&[]), 200);
    // curl trusts the new one alone, then.
    certify(&host.path(""));
    assert_eq!(status(&[]), 0);
    until(|| status(&[]) == 200, "the new certificate is shown");

    let second = "second-credential-0123456789abcdef";
    let header = format!("Authorization: Bearer {second}");
    let both = format!("# two at a time, to change them one by one\n{CREDENTIAL}\n{second}");
    secret(&host.path("credential"), &both);
    until(|| status(&["-H", &header]) == 200, "the second is taken");
    assert_eq!(status(&[]), 200);
    secret(&host.path("credential"), second);
    until(|| status(&[]) == 401, "the first is refused");
    assert_eq!(status(&["-H", &header]), 200);
    // What can't be used changes nothing.
    secret(&host.path("credential"), "short");
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(status(&["-H", &header]), 200);
    assert!(running.blocks(IN_FILE));
}

#[test]
fn settings_that_would_leave_it_open_are_refused() {
    let host = Host::new();
    let flags = Remote::FLAGS;
    let start = |flags: &[&str]| {
        let flags = [&Host::RUN, flags].concat();
        outcome(host.tokenblock(&flags).output().unwrap())
    };
    Remote::write(&host);
    for (left_out, needed) in [
        (0, "--control-listen is needed with"),
        (1, "--control-tls-cert is needed with --control-listen"),
        (2, "--control-tls-key is needed with --control-listen"),
        (3, "--control-credential is needed with --control-listen"),
    ] {
        let mut flags = flags.to_vec();
        flags.remove(left_out);
        let (code, _, error) = start(&flags);
        assert!(code == 64 && error.contains(needed), "{code} {error}");
    }
    for (text, mode, exit, part) in [
        ("short", 0o600, 65, "32 characters or more"),
        ("# none\n", 0o600, 65, "32 characters or more"),
        (CREDENTIAL, 0o644, 77, "may be read or written by others"),
    ] {
        let path = host.path("credential");
        secret(&path, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let (code, _, error) = start(&flags);
        assert!(code == exit && error.contains(part), "{code} {error}");
        assert!(!error.contains(CREDENTIAL), "{error}");
    }
    fs::remove_file(host.path("credential")).unwrap();
    let (code, _, error) = start(&flags);
    assert!(
        code == 66 && error.contains("credential: can't be read"),
        "{error}"
    );
}

#[test]
fn every_command_works_by_tcp_as_by_the_socket() {
    let host = Host::new();
    let running = Remote::start(&host, &[]);
    let url = format!(
        "--control-url=https://localhost:{}",
        running.remote.unwrap().port()
    );
    let call = |args: &[&str], input: &str| {
        let at = [
            &*url,
            "--control-ca=api.pem",
            "--control-credential=credential",
        ];
        host.call(&[args, &at].concat(), input)
    };
    let (code, _, error) = call(&["deny", "add"], LEAKED);
    assert!(code == 0 && running.blocks(LEAKED), "{error}");
    let (code, out, _) = call(&["deny", "list"], "");
    assert!(code == 0 && out.lines().count() == 2, "{out}");
    let (code, out, _) = call(&["deny", "import", "--list", "-"], "listed-token-0001\n");
    assert!(code == 0 && out.starts_with("1 added") && running.blocks("listed-token-0001"));
    assert_eq!(call(&["deny", "check"], LEAKED).0, 0);
    assert_eq!(call(&["status"], "").0, 0);
    let (code, _, _) = call(&["deny", "remove"], LEAKED);
    assert!(code == 0 && !running.blocks(LEAKED));

    // Neither without a credential, nor to somebody else.
    let other = host.path("other");
    secret(&other, &CREDENTIAL.to_uppercase());
    certify(&host.path(""));
    for (args, exit, part) in [
        (vec![&*url], 64, "--control-credential is needed"),
        (
            vec![
                &*url,
                "--control-ca=api.pem",
                "--control-credential=nothing",
            ],
            66,
            "can't be read",
        ),
        (
            vec!["--control-url=http://a:1", "--control-credential=other"],
            64,
            "reads https://",
        ),
    ] {
        let (code, _, error) = host.call(&[&["status"], &args[..]].concat(), "");
        assert!(code == exit && error.contains(part), "{code} {error}");
    }
    // Once the new certificate is shown, which this command trusts.
    let at = [&*url, "--control-ca=api.pem", "--control-credential=other"];
    until(
        || host.call(&[&["deny", "list"], &at[..]].concat(), "").0 == 77,
        "a wrong credential is refused",
    );
    certify(&host.path("state"));
    let at = [
        &*url,
        "--control-ca=state/api.pem",
        "--control-credential=credential",
    ];
    let (code, _, error) = host.call(&[&["status"], &at[..]].concat(), "");
    assert!(
        code == 69 && error.contains("no tokenblock answers at https://"),
        "{code} {error}"
    );
}
