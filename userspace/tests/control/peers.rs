//! Who may use the socket, and who may have the state folder.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    process::Command,
    time::{Duration, Instant},
};

use crate::support::{Host, is_root, outcome};

#[test]
fn the_socket_has_its_mode_and_is_gone_afterwards() {
    let host = Host::new();
    let mut running = host.start(&[]);
    let mode = |name: &str| fs::metadata(host.path(name)).unwrap().mode() & 0o777;
    assert_eq!(mode("state"), 0o700);
    for file in ["control.sock", "denylist.redb", "key", "hits.redb", "lock"] {
        assert_eq!(mode(&format!("state/{file}")), 0o600, "{file}");
    }
    // One that nobody listens at is replaced.
    running.kill();
    assert_eq!(mode("state/control.sock"), 0o600);
    let running = host.start(&["--control-socket=other.sock", "--control-mode=660"]);
    assert_eq!(mode("other.sock"), 0o660);
    let (code, _, _) = host.call(&["status", "--control-socket=other.sock"], "");
    assert_eq!(code, 0);
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&running.child),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    while host.path("other.sock").exists() {}
}

#[test]
fn a_socket_that_is_removed_is_made_again_and_another_s_is_left_alone() {
    let host = Host::new();
    let running = host.start(&["--control-mode=660"]);
    let socket = host.path("state/control.sock");
    fs::remove_file(&socket).unwrap();
    let start = Instant::now();
    while host.call(&["status"], "").0 != 0 {
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    assert_eq!(fs::metadata(&socket).unwrap().mode() & 0o777, 0o660);

    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "of somebody else").unwrap();
    running.stop();
    assert!(socket.exists());
}

#[test]
fn a_state_folder_has_one_process() {
    let host = Host::new();
    let running = host.start(&[]);
    let second = host.tokenblock(&Host::RUN).output().unwrap();
    let (code, _, error) = outcome(second);
    assert!(
        code == 71 && error.contains("is used by another tokenblock"),
        "{error}"
    );
    assert!(running.blocks(crate::support::IN_FILE));
    assert_eq!(host.call(&["status"], "").0, 0);
}

/// Runs the command as a user that is nobody, in this group.
fn as_nobody(host: &Host, group: &str, args: &[&str]) -> (i32, String) {
    let binary = host.path("tokenblock");
    let mut command = Command::new("setpriv");
    host.set(&mut command)
        .args([
            "--reuid=65534",
            "--regid=65534",
            &format!("--groups={group}"),
        ])
        .arg(binary)
        .args(args);
    let (code, _, error) = outcome(command.output().unwrap());
    (code, error)
}

#[test]
fn others_are_refused_whatever_the_mode() {
    if !is_root() {
        println!("skipped: to be another user takes root");
        return;
    }
    let host = Host::new();
    fs::copy(env!("CARGO_BIN_EXE_tokenblock"), host.path("tokenblock")).unwrap();
    fs::set_permissions(host.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    chown(host.path("tokenblock"), Some(0), Some(0)).unwrap();
    let status = ["status", "--control-socket=c.sock"];
    {
        let _running = host.start(&["--control-socket=c.sock"]);
        let (code, error) = as_nobody(&host, "65534", &status);
        assert!(
            code == 77 && error.contains("may not use the control socket"),
            "{error}"
        );
    }
    let open = [
        "--control-socket=c.sock",
        "--control-mode=666",
        "--control-group=4242",
    ];
    let _running = host.start(&open);
    let (code, error) = as_nobody(&host, "65534", &status);
    assert!(
        code == 77 && error.contains("may not control this tokenblock"),
        "{error}"
    );
    let (code, error) = as_nobody(&host, "4242", &status);
    assert_eq!(code, 0, "{error}");
    let check = [
        "deny",
        "check",
        crate::support::IN_FILE,
        "--control-socket=c.sock",
    ];
    assert_eq!(as_nobody(&host, "65534", &check).0, 77);
    let list = ["deny", "list", "--control-socket=c.sock"];
    assert_eq!(as_nobody(&host, "65534", &list).0, 77);
}
