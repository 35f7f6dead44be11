//! What HTTP libraries and programs make of a refusal, before each tier: a status where one is sent, else an error.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use tokenblock_tests::{
    certificate::Certificate, fixtures::OPAQUE, gate, netns::Netns, poll, program::script,
};

use crate::lab::{Bench, LIMIT, Lab, Tier};

/// Requests of each library, and how many of them are clean.
const REQUESTS: usize = 7;
const CLEAN: usize = 3;

/// What a library tells of its requests: clean, listed in a header field, clean, listed in the query, listed in a
/// cookie, clean with a large body, listed with one.
fn expected(refused: &Value) -> Value {
    // A connection that is reset in mid-upload is found to be broken, or to be over.
    let upload = if *refused == 403 {
        refused
    } else {
        &json!("lost")
    };
    json!([200, refused, 200, refused, refused, 200, upload])
}

/// Runs a script of `library_client.*` against the tier; gives what each library told.
fn run(lab: &Lab, tier: Tier, server: SocketAddr, interpreter: &Path, name: &str) -> Value {
    let ca = match tier {
        Tier::Kernel => Path::new(""),
        Tier::Proxy => &lab.bench.certificate.cert_file,
    };
    let output = script(&lab.bench.pair.client, interpreter, name)
        .args([server.ip().to_string(), server.port().to_string()])
        .arg(Certificate::HOST)
        .arg(ca)
        .arg(OPAQUE)
        // Node's `fetch` knows no other way.
        .env("NODE_EXTRA_CA_CERTS", ca)
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}\n{}", lab.product.log()))
}

/// Runs both scripts before a tier, and compares what the libraries tell with what the origin saw.
fn check_libraries(lab: &Lab, tier: Tier, python: &Path, node: &Path, refused: &Value) {
    for server in lab.servers() {
        for (interpreter, name) in [(python, "library_client.py"), (node, "library_client.js")] {
            lab.bench.origin.forget();
            let told = run(lab, tier, server, interpreter, name);
            let libraries = told.as_object().unwrap();
            for (library, said) in libraries {
                let log = lab.product.log();
                assert_eq!(*said, expected(refused), "{library} to {server}\n{log}");
                assert_eq!(said.as_array().map(Vec::len), Some(REQUESTS));
            }
            let due = CLEAN * libraries.len();
            let seen = lab.bench.origin.wait_for_requests(due, LIMIT);
            assert_eq!(seen.len(), due, "{name} to {server}: {seen:?}");
            assert!(!lab.bench.origin.saw(OPAQUE.as_bytes()), "{name}: {server}");
        }
    }
}

/// The product, Python and Node.
fn needed(test: &str) -> Option<(PathBuf, PathBuf, PathBuf)> {
    Some((
        gate::product(test)?,
        gate::python(test)?,
        gate::program(test, "node")?,
    ))
}

#[test]
fn libraries_before_the_kernel_tier() {
    let test = "libraries::libraries_before_the_kernel_tier";
    let Some((binary, python, node)) = needed(test) else {
        return;
    };
    for (on_hit, refused) in [("forbid", json!(403)), ("reset", json!("reset"))] {
        let lab = Bench::new(binary.clone()).start(Tier::Kernel, &["--on-hit", on_hit]);
        check_libraries(&lab, Tier::Kernel, &python, &node, &refused);
    }
}

#[test]
fn libraries_before_the_proxy_tier() {
    let test = "libraries::libraries_before_the_proxy_tier";
    let Some((binary, python, node)) = needed(test) else {
        return;
    };
    let lab = Lab::new(binary, Tier::Proxy);
    check_libraries(&lab, Tier::Proxy, &python, &node, &json!(403));
}

/// A client that is a program, by its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Curl,
    Wget,
    /// The HTTP library of Go, with a command line.
    Hey,
}

impl Client {
    const ALL: [(Self, &str); 3] = [
        (Self::Curl, "curl"),
        (Self::Wget, "wget"),
        (Self::Hey, "hey"),
    ];

    /// One request for `url`; over HTTP/2, where that is agreed with a server that says so.
    fn command(self, netns: &Netns, program: &Path, url: &str, field: &str) -> Command {
        let mut command = netns.command("timeout");
        command.args(["30"]).arg(program);
        match self {
            Self::Curl => command.args(["--silent", "--show-error", "--include", "--insecure"]),
            // Once: it would try again, as curl does not.
            Self::Wget => command
                .args(["--tries=1", "--server-response", "--no-proxy"])
                .args(["--no-check-certificate", "--output-document=-"]),
            // It asks for the host by name and port, which is no name, unless told one.
            Self::Hey => command.args(["-n", "1", "-c", "1", "-h2", "-host", Certificate::HOST]),
        };
        let flag = match self {
            Self::Curl | Self::Hey => "-H",
            Self::Wget => "--header",
        };
        for proxy in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
            command.env_remove(proxy);
        }
        command.args([flag, field, url]);
        command
    }

    /// The words by which it says that it got this status.
    fn status(self, status: u16) -> String {
        match self {
            Self::Curl | Self::Wget => format!(" {status} "),
            Self::Hey => format!("[{status}]\t1 responses"),
        }
    }

    /// The words by which it says that its connection was reset.
    fn reset(self) -> &'static str {
        match self {
            Self::Curl | Self::Wget => "Connection reset by peer",
            Self::Hey => "connection reset by peer",
        }
    }
}

/// Has each of the programs send a clean request and a listed one.
fn check_programs(lab: &Lab, tier: Tier, on_hit: &str, programs: &[(Client, PathBuf)]) {
    let scheme = match tier {
        Tier::Kernel => "http",
        Tier::Proxy => "https",
    };
    for server in lab.servers() {
        let url = format!("{scheme}://{server}/");
        for (client, program) in programs {
            lab.bench.origin.forget();
            let said = |token: &str| {
                let field = format!("X-API-Key: {token}");
                let mut command = client.command(&lab.bench.pair.client, program, &url, &field);
                let output = command.output().unwrap();
                let both = [output.stdout, output.stderr].concat();
                String::from_utf8_lossy(&both).into_owned()
            };
            let clean = said("a-token-of-some-other-length");
            assert!(
                clean.contains(&client.status(200)),
                "{url} {client:?}: {clean}"
            );
            let listed = said(OPAQUE);
            let due = match on_hit {
                "reset" => client.reset().to_owned(),
                _ => client.status(403),
            };
            assert!(listed.contains(&due), "{url} {client:?}: {listed}");
            // None of them tries again.
            let seen = lab.bench.origin.wait_for_requests(1, LIMIT);
            assert_eq!(seen.len(), 1, "{url} {client:?}: {seen:?}");
            assert!(!lab.bench.origin.saw(OPAQUE.as_bytes()), "{url} {client:?}");
        }
    }
    let due = 2 * programs.len();
    let all = poll::until(LIMIT, || (lab.product.events().len() == due).then_some(()));
    assert!(all.is_some(), "not {due} events:\n{}", lab.product.log());
}

fn programs(test: &str) -> Option<Vec<(Client, PathBuf)>> {
    let found = |(client, name)| Some((client, gate::program(test, name)?));
    Client::ALL.into_iter().map(found).collect()
}

#[test]
fn programs_before_the_kernel_tier() {
    let test = "libraries::programs_before_the_kernel_tier";
    let (Some(binary), Some(programs)) = (gate::product(test), programs(test)) else {
        return;
    };
    for on_hit in ["forbid", "reset"] {
        let lab = Bench::new(binary.clone()).start(Tier::Kernel, &["--on-hit", on_hit]);
        check_programs(&lab, Tier::Kernel, on_hit, &programs);
        if on_hit == "reset" {
            // The first packet was answered: nobody had to send it again.
            assert_eq!(lab.product.kernel_counter("blocked_again").unwrap(), 0);
        }
    }
}

#[test]
fn programs_before_the_proxy_tier() {
    let test = "libraries::programs_before_the_proxy_tier";
    let (Some(binary), Some(programs)) = (gate::product(test), programs(test)) else {
        return;
    };
    let lab = Lab::new(binary, Tier::Proxy);
    check_programs(&lab, Tier::Proxy, "forbid", &programs);
}
