//! The units of `deploy/systemd`, under a systemd.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use tokenblock_tests::{
    certificate::Certificate,
    client::{Client, TlsClient},
    fixtures::Token,
    gate,
    netns::INTERFACE,
    poll,
    systemd::{Files, Systemd},
};

use crate::{
    lab::{Bench, LIMIT, Lab, ORIGIN_PORT},
    lifecycle::attached,
};

const SERVICE: &str = "tokenblock.service";
const CONFIG: &str = "/etc/tokenblock/tokenblock.toml";
/// Where the socket listens.
const PORT: u16 = 443;

/// A host on which tokenblock is installed as `deploy/README.md` has it.
struct Host {
    systemd: Systemd,
    bench: Bench,
}

impl Host {
    /// With these lines among the settings.
    fn new(binary: &Path, more: &str) -> Self {
        let bench = Bench::new(binary.to_owned());
        let files = Files::new().unwrap();
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd");
        let units = "etc/systemd/system";
        let own = "etc/tokenblock";
        for (folder, name, from) in [
            ("usr/local/bin", "tokenblock", binary.to_owned()),
            (units, SERVICE, deploy.join(SERVICE)),
            (units, "tokenblock.socket", deploy.join("tokenblock.socket")),
            (
                "etc/sysusers.d",
                "tokenblock.conf",
                deploy.join("tokenblock.sysusers"),
            ),
            (
                units,
                "tokenblock-bpf.service",
                deploy.join("tokenblock-bpf.service"),
            ),
            (own, "leaked.txt", bench.list()),
            (own, "cert.pem", bench.certificate.cert_file.clone()),
            (own, "key.pem", bench.certificate.key_file.clone()),
        ] {
            files.copy(folder, name, &from).unwrap();
        }
        files
            .write(own, "tokenblock.toml", config(more).as_bytes())
            .unwrap();
        let systemd = files.boot(&bench.pair.server).unwrap();
        for (program, rights) in [("chgrp", "tokenblock"), ("chmod", "u=rwX,g=rX,o=")] {
            let args = ["-R", rights, "/etc/tokenblock"];
            systemd.run(program, &args).unwrap();
        }
        Self { systemd, bench }
    }

    fn systemctl(&self, args: &[&str]) {
        let done = self.systemd.run("systemctl", args);
        done.unwrap_or_else(|error| panic!("{error}\n{}", self.systemd.journal(SERVICE)));
    }

    /// The status that a new TLS connection gets for a request.
    fn asked(&self, port: u16, request: &[u8]) -> Option<u16> {
        let [server, _] = self.bench.pair.server_addresses(port);
        let client = TlsClient::connect(&self.bench.pair.client, server, &self.bench.certificate);
        client.ok()?.exchange(request, LIMIT).ok()?.status()
    }

    /// The same over TCP, where the kernel tier is.
    fn asked_in_clear(&self, request: &[u8]) -> Option<u16> {
        let [server, _] = self.bench.pair.server_addresses(ORIGIN_PORT);
        let client = Client::connect(&self.bench.pair.client, server);
        client.unwrap().exchange(request, LIMIT).unwrap().status()
    }

    /// Both tiers refuse what is listed.
    fn assert_in_force(&self) {
        let listed = Lab::request(Token::Opaque);
        assert_eq!(self.asked(PORT, &listed), Some(403));
        assert_eq!(self.asked_in_clear(&listed), Some(403));
        assert_eq!(self.asked(PORT, &clean()), Some(200));
        assert_eq!(self.asked_in_clear(&clean()), Some(200));
    }

    fn main_pid(&self) -> String {
        self.systemd.property(SERVICE, "MainPID").unwrap()
    }
}

fn config(more: &str) -> String {
    format!(
        "denylist = [\"/etc/tokenblock/leaked.txt\"]\n\
         log-format = \"json\"\n\
         interface = [\"{INTERFACE}\"]\n\
         port = [{ORIGIN_PORT}]\n\
         tls-cert = \"/etc/tokenblock/cert.pem\"\n\
         tls-key = \"/etc/tokenblock/key.pem\"\n\
         {more}\n"
    )
}

/// Before the origin, on the socket that systemd holds.
fn behind_the_socket(more: &str) -> String {
    format!("proxy-listen = \"systemd\"\nupstream = \"http://127.0.0.1:{ORIGIN_PORT}\"\n{more}")
}

fn clean() -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", Certificate::HOST).into_bytes()
}

#[test]
fn the_service_starts_reloads_restarts_and_ends() {
    let test = "unit::the_service_starts_reloads_restarts_and_ends";
    let (Some(binary), Some(_)) = (gate::product(test), gate::program(test, "systemctl")) else {
        return;
    };
    let host = Host::new(&binary, &behind_the_socket(""));
    // It is started once both tiers are in force.
    host.systemctl(&["start", "tokenblock.socket", SERVICE]);
    host.assert_in_force();

    // Reloaded, it takes up what has changed.
    let request = Lab::request(Token::Opaque);
    let request = String::from_utf8(request)
        .unwrap()
        .replace("Authorization", "X-Own");
    assert_eq!(host.asked(PORT, request.as_bytes()), Some(200));
    let changed = config(&behind_the_socket(
        "header = [\"Authorization\", \"X-Own\"]",
    ));
    host.systemd.write(CONFIG, &changed).unwrap();
    let pid = host.main_pid();
    host.systemctl(&["reload", SERVICE]);
    let refused = || (host.asked(PORT, request.as_bytes()) == Some(403)).then_some(());
    assert!(
        poll::until(LIMIT, refused).is_some(),
        "{}",
        host.systemd.journal(SERVICE)
    );
    assert_eq!(host.asked_in_clear(request.as_bytes()), Some(403));
    assert_eq!(host.main_pid(), pid);

    // Who comes while it is restarted waits.
    nobody_is_refused_while(&host, || host.systemctl(&["restart", SERVICE]));
    assert_ne!(host.main_pid(), pid);
    let pid = host.main_pid();
    host.systemctl(&["kill", "--signal=KILL", SERVICE]);
    let back = || (host.asked(PORT, &clean()) == Some(200) && host.main_pid() != pid).then_some(());
    assert!(
        poll::until(LIMIT, back).is_some(),
        "{}",
        host.systemd.journal(SERVICE)
    );
    host.assert_in_force();

    // What is wrong until somebody mends it is not tried again.
    host.systemd.write(CONFIG, "nonsense = 1\n").unwrap();
    assert!(
        host.systemd
            .run("systemctl", &["restart", SERVICE])
            .is_err()
    );
    assert_eq!(
        host.systemd.property(SERVICE, "ExecMainStatus").unwrap(),
        "78"
    );
    assert_eq!(
        host.systemd.property(SERVICE, "ActiveState").unwrap(),
        "failed"
    );
    // The programs before it stay in force.
    assert_eq!(attached(&host.bench.pair.server).len(), 2);
    assert_eq!(host.asked_in_clear(request.as_bytes()), Some(403));
    host.systemd.write(CONFIG, &changed).unwrap();
    host.systemctl(&["start", SERVICE]);
    host.assert_in_force();

    host.systemctl(&["stop", "tokenblock.socket", SERVICE]);
    assert_eq!(host.systemd.property(SERVICE, "Result").unwrap(), "success");
    assert_eq!(host.asked_in_clear(request.as_bytes()), Some(403));
    let detach = ["detach", "--pin-dir=/run/tokenblock-bpf/programs"];
    host.systemd
        .run("/usr/local/bin/tokenblock", &detach)
        .unwrap();
    assert_eq!(attached(&host.bench.pair.server), [""; 0]);
}

/// Clients that connect anew for each request all get their answer, and listed tokens a 403, while `work` is done.
fn nobody_is_refused_while(host: &Host, work: impl FnOnce()) {
    let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(host.asked(PORT, &clean()), Some(200));
                    assert_eq!(host.asked_in_clear(&clean()), Some(200));
                    // The kernel tier does not even pause.
                    let listed = Lab::request(Token::Opaque);
                    assert_eq!(host.asked_in_clear(&listed), Some(403));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        work();
        // One after it.
        let before = answered.load(Ordering::Relaxed);
        let more = || (answered.load(Ordering::Relaxed) > before).then_some(());
        let answered = poll::until(LIMIT, more);
        done.store(true, Ordering::Relaxed);
        assert!(answered.is_some());
    });
}

/// What keeps the port shut lies in a BPF file system that the service's user may write, past its sandbox.
#[test]
fn an_intercepted_port_stays_shut_between_two_runs_of_the_service() {
    let test = "unit::an_intercepted_port_stays_shut_between_two_runs_of_the_service";
    let (Some(binary), Some(_)) = (gate::product(test), gate::program(test, "systemctl")) else {
        return;
    };
    let more = format!(
        "intercept = 8444\nupstream = \"http://127.0.0.1:{ORIGIN_PORT}\"\n\
         intercept-fail = \"closed\"\nintercept-pin = \"/run/tokenblock-bpf\"\n"
    );
    let host = Host::new(&binary, &more);
    let listed = Lab::request(Token::Opaque);
    host.systemctl(&["start", SERVICE]);
    assert_eq!(host.asked(8444, &listed), Some(403));
    assert_eq!(host.asked(8444, &clean()), Some(200));
    // Nobody gets through to whoever else listens there, until it is back.
    let pid = host.main_pid();
    host.systemctl(&["kill", "--signal=KILL", SERVICE]);
    let back = || {
        let status = host.asked(8444, &listed);
        assert!(matches!(status, None | Some(403)), "{status:?}");
        (status == Some(403) && host.main_pid() != pid).then_some(())
    };
    assert!(
        poll::until(LIMIT, back).is_some(),
        "{}",
        host.systemd.journal(SERVICE)
    );
    host.systemctl(&["stop", SERVICE]);
    let [server, _] = host.bench.pair.server_addresses(8444);
    assert!(Client::connect(&host.bench.pair.client, server).is_err());
}
