//! Clients and servers of others, as people run them, with the proxy between them.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokenblock_tests::{
    certificate::Certificate,
    client::curl,
    fixtures::{OPAQUE, binary},
    gate,
    netns::{Netns, SERVER_V4},
    product::Product,
    program::{Program, script},
};

use crate::lab::{Bench, LIMIT, ORIGIN_PORT, PROXY_PORT};

/// Where servers of others listen, behind the proxy.
const PORT: u16 = 9000;

/// The product before a server, and what clients need to find it.
struct Stage {
    bench: Bench,
    product: Product,
    _origin: Option<Program>,
}

impl Stage {
    /// The proxy before `upstream`, which `origin` is, if it is any.
    fn new(bench: Bench, origin: Option<Program>, upstream: &str, more: &[&str]) -> Self {
        let mut args = bench.common();
        args.extend([
            "--tls-cert".into(),
            bench.certificate.cert_file.clone().into(),
        ]);
        args.extend([
            "--tls-key".into(),
            bench.certificate.key_file.clone().into(),
        ]);
        args.extend([format!("--proxy-listen=[::]:{PROXY_PORT}").into()]);
        args.extend([format!("--upstream={upstream}").into()]);
        args.extend(more.iter().map(OsString::from));
        let product = bench.start_with(&args);
        Self {
            bench,
            product,
            _origin: origin,
        }
    }

    /// A client's command: the script gets address, port, name, authority and a listed token.
    fn client(&self, interpreter: &Path, name: &str) -> Command {
        let mut command = script(&self.bench.pair.client, interpreter, name);
        command
            .args([SERVER_V4.to_string(), PROXY_PORT.to_string()])
            .arg(Certificate::HOST)
            .arg(&self.bench.certificate.cert_file)
            .arg(OPAQUE);
        command
    }

    /// What the client said, as JSON.
    fn run(&self, interpreter: &Path, name: &str) -> Value {
        let output = self.client(interpreter, name).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        let told = said
            .lines()
            .last()
            .and_then(|line| serde_json::from_str(line).ok());
        told.unwrap_or_else(|| panic!("{said}\n{complaint}\n{}", self.product.log()))
    }

    /// Curl's status and body.
    fn curl(&self, server: SocketAddr, path: &str, args: &[&str]) -> (u16, String) {
        let ip = match server {
            SocketAddr::V4(address) => address.ip().to_string(),
            SocketAddr::V6(address) => format!("[{}]", address.ip()),
        };
        let resolve = format!("{}:{}:{ip}", Certificate::HOST, server.port());
        let ca = self.bench.certificate.cert_file.to_str().unwrap();
        let url = format!("https://{}:{}{path}", Certificate::HOST, server.port());
        let args = [&["--resolve", &resolve, "--cacert", ca], args, &[&url]].concat();
        curl(&self.bench.pair.client, &args).unwrap()
    }
}

/// A server in the server's namespace, made with the folder of the bench.
fn origin(bench: &Bench, command: &mut Command, port: u16) -> Program {
    let address = SocketAddr::new(SERVER_V4, port);
    Program::serve(command, bench.folder.path(), &bench.pair.server, address).unwrap()
}

fn python_origin(bench: &Bench, python: &Path, name: &str) -> Program {
    let mut command = script(&bench.pair.server, python, name);
    origin(bench, command.arg(PORT.to_string()), PORT)
}

fn to_origin(port: u16) -> String {
    format!("http://{SERVER_V4}:{port}")
}

#[test]
fn curl_over_each_version_of_http_tls_and_ip() {
    let Some(binary) = gate::product("clients::curl") else {
        return;
    };
    let stage = Stage::new(Bench::new(binary), None, &to_origin(ORIGIN_PORT), &[]);
    let listed = format!("X-API-Key: {OPAQUE}");
    for server in stage.bench.pair.server_addresses(PROXY_PORT) {
        for http in ["--http1.1", "--http2"] {
            for tls in [&["--tls-max", "1.2"][..], &["--tlsv1.3"]] {
                let with =
                    |more: &[&str]| stage.curl(server, "/", &[&[http], tls, more].concat()).0;
                assert_eq!(with(&[]), 200, "{server} {http} {tls:?}");
                assert_eq!(with(&["-H", &listed]), 403, "{server} {http} {tls:?}");
                assert_eq!(with(&["-d", "body"]), 200, "{server} {http} {tls:?}");
            }
        }
    }
}

#[test]
fn http_2_of_python_with_many_requests_at_once() {
    let test = "clients::http_2_of_python";
    let (Some(binary), Some(python)) = (gate::product(test), gate::python(test)) else {
        return;
    };
    let stage = Stage::new(Bench::new(binary), None, &to_origin(ORIGIN_PORT), &[]);
    let Value::Array(replies) = stage.run(&python, "httpx_client.py") else {
        panic!("{}", stage.product.log());
    };
    assert_eq!(replies.len(), 100);
    for (n, reply) in replies.iter().enumerate() {
        let status = if n % 5 == 0 { 403 } else { 200 };
        assert_eq!(*reply, json!([n, status, "HTTP/2"]));
    }
}

#[test]
fn web_sockets_of_python() {
    let test = "clients::web_sockets_of_python";
    let (Some(binary), Some(python)) = (gate::product(test), gate::python(test)) else {
        return;
    };
    let bench = Bench::new(binary);
    let origin = python_origin(&bench, &python, "websocket_origin.py");
    let stage = Stage::new(bench, Some(origin), &to_origin(PORT), &[]);
    let expected = json!({
        "sizes": [0, 1, 125, 126, 65536, 1 << 20],
        "text": "text",
        "subprotocol": "chat",
        "closed": 1000,
        "header": 403,
    });
    assert_eq!(stage.run(&python, "websocket_client.py"), expected);
}

#[test]
fn grpc_calls() {
    let test = "clients::grpc_calls";
    let (Some(binary), Some(python)) = (gate::product(test), gate::python(test)) else {
        return;
    };
    let bench = Bench::new(binary);
    let origin = python_origin(&bench, &python, "grpc_origin.py");
    let stage = Stage::new(
        bench,
        Some(origin),
        &to_origin(PORT),
        &["--upstream-http=2"],
    );
    let expected = json!({
        "length": 100_000,
        "trailer": "100000",
        "missing": ["NOT_FOUND", "no such thing"],
        "answers": ["0000", "0101", "0202", "0303", "0404"],
        // What a client of gRPC makes of a 403.
        "listed": "PERMISSION_DENIED",
        "after": "still here",
    });
    assert_eq!(stage.run(&python, "grpc_client.py"), expected);
}

/// Both of Node's servers behind the proxy, one after the other; and a stop in mid-request, which is announced.
#[test]
fn node_as_client_and_server() {
    let test = "clients::node_as_client_and_server";
    let (Some(binary), Some(node)) = (gate::product(test), gate::program(test, "node")) else {
        return;
    };
    for (port, more, version) in [
        (PORT, "--upstream-http=1.1", "1.1"),
        (PORT + 1, "--upstream-http=2", "2.0"),
    ] {
        let bench = Bench::new(binary.clone());
        let mut command = script(&bench.pair.server, &node, "node_origin.js");
        let node_origin = origin(&bench, command.arg(PORT.to_string()), PORT + 1);
        let mut stage = Stage::new(bench, Some(node_origin), &to_origin(port), &[more]);
        let mut client = stage
            .client(&node, "node_client.js")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(client.stdout.take().unwrap()).lines();
        assert_eq!(
            lines.next().unwrap().unwrap(),
            "asked",
            "{}",
            stage.product.log()
        );
        stage.product.signal(Signal::TERM).unwrap();
        let told: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert!(client.wait().unwrap().success());
        let served = |url: &str, bytes: u64| {
            json!({ "version": version, "url": url, "bytes": bytes }).to_string()
        };
        let body = |reply: &Value| {
            let said = reply[1].as_str().unwrap();
            serde_json::from_str::<Value>(said).map_or_else(|_| said.to_owned(), |v| v.to_string())
        };
        for (n, url, bytes) in [(0, "/a", 0), (1, "/b", 100_000), (3, "/d", 0)] {
            let reply = &told["http1"][n];
            assert_eq!((&reply[0], body(reply)), (&json!(200), served(url, bytes)));
            assert_eq!(reply[2], json!(n > 0), "one connection: {told}");
        }
        // A refusal leaves the connection open.
        assert_eq!(
            (&told["http1"][2][0], &told["http1"][2][2]),
            (&json!(403), &json!(true))
        );
        for (n, status) in [(0, 200), (1, 403), (2, 200)] {
            assert_eq!(told["http2"][n][0], status, "{told}");
        }
        // What was under way is answered, and the end is announced without an error (RFC 9113 section 6.8).
        assert_eq!(told["slow"][0], 200, "{told}");
        assert_eq!(body(&told["slow"]), served("/slow", 0));
        assert_eq!(told["goaway"], 0, "{told}");
        assert_eq!(stage.product.wait(LIMIT).unwrap().code(), Some(0));
    }
}

/// nginx over cleartext, and over TLS with HTTP/2, which is agreed with it.
#[test]
fn nginx_as_a_server() {
    let test = "clients::nginx_as_a_server";
    let (Some(product), Some(nginx)) = (gate::product(test), gate::program(test, "nginx")) else {
        return;
    };
    for (upstream, more) in [
        (to_origin(PORT), &[][..]),
        (
            format!("https://{SERVER_V4}:{}", PORT + 1),
            &["--upstream-http=auto", "--upstream-server-name=origin.test"],
        ),
    ] {
        let bench = Bench::new(product.clone());
        let folder = bench.folder.path().to_owned();
        fs::write(folder.join("large"), binary(8 << 20)).unwrap();
        let config = nginx_config(&folder, &bench.certificate);
        let mut command = bench.pair.server.command(&nginx);
        command.arg("-c").arg(config).arg("-p").arg(&folder);
        let server = origin(&bench, &mut command, PORT + 1);
        let ca = format!("--upstream-ca={}", bench.certificate.cert_file.display());
        let more = [more, &[&*ca]].concat();
        let stage = Stage::new(bench, Some(server), &upstream, &more);
        let [address, _] = stage.bench.pair.server_addresses(PROXY_PORT);
        let expected = binary(8 << 20);
        for http in ["--http1.1", "--http2"] {
            let got = folder.join("got");
            let (status, _) = stage.curl(address, "/large", &[http, "-o", got.to_str().unwrap()]);
            assert_eq!(status, 200, "{upstream}\n{}", stage.product.log());
            assert!(fs::read(&got).unwrap() == expected, "{upstream} {http}");
            let range = stage.curl(address, "/large", &[http, "-r", "0-9", "-o", "/dev/null"]);
            assert_eq!(range.0, 206);
            assert_eq!(stage.curl(address, "/none", &[http]).0, 404);
            assert_eq!(stage.curl(address, "/large", &[http, "-I"]).0, 200);
            let (_, version) = stage.curl(address, "/version", &[http]);
            let spoken = if upstream.starts_with("https") {
                "HTTP/2.0"
            } else {
                "HTTP/1.1"
            };
            assert_eq!(version, spoken);
        }
    }
}

fn nginx_config(folder: &Path, certificate: &Certificate) -> PathBuf {
    let path = folder.join("nginx.conf");
    let dir = folder.display();
    let (cert, key) = (
        certificate.cert_file.display(),
        certificate.key_file.display(),
    );
    let text = format!(
        "daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/nginx.error;\n\
         events {{}}\n\
         http {{ access_log off; root {dir};\n\
         client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3;\n\
         uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;\n\
         server {{ listen {PORT}; listen {} ssl http2; ssl_certificate {cert}; ssl_certificate_key {key};\n\
         location = /version {{ return 200 $server_protocol; }} }} }}\n",
        PORT + 1
    );
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn openssl_gets_a_stapled_response_and_resumes_sessions() {
    let test = "clients::openssl";
    let (Some(product), Some(openssl)) = (gate::product(test), gate::program(test, "openssl"))
    else {
        return;
    };
    let bench = Bench::new(product);
    let staple = Authority::new(&openssl, bench.folder.path()).respond();
    let mut stage_args = bench.common();
    let folder = bench.folder.path();
    for (flag, file) in [("--tls-cert", "leaf.pem"), ("--tls-key", "leaf.key")] {
        stage_args.extend([flag.into(), folder.join(file).into()]);
    }
    stage_args.extend([
        format!("--proxy-listen=[::]:{PROXY_PORT}").into(),
        format!("--upstream={}", to_origin(ORIGIN_PORT)).into(),
    ]);
    let _product = bench.start_with(&stage_args);
    let client = |args: &[&str]| s_client(&openssl, &bench.pair.client, folder, args);
    let said = client(&["-status"]);
    assert!(said.contains("OCSP response: no response sent"), "{said}");
    // It is taken up as it comes.
    fs::rename(staple, folder.join("leaf.pem.ocsp")).unwrap();
    let stapled = tokenblock_tests::poll::until(LIMIT, || {
        let said = client(&["-status"]);
        said.contains("OCSP Response Status: successful (0x0)")
            .then_some(said)
    });
    assert!(stapled.is_some_and(|said| said.contains("Cert Status: good")));
    let said = client(&["-tls1_2", "-reconnect"]);
    assert_eq!(said.matches("Reused, TLSv1.2").count(), 5, "{said}");
    // By the server's memory, where the client takes no ticket.
    let said = client(&["-tls1_2", "-no_ticket", "-reconnect"]);
    assert_eq!(said.matches("Reused, TLSv1.2").count(), 5, "{said}");
    let session = folder.join("session");
    let session = session.to_str().unwrap();
    // A session of TLS 1.3 comes behind the first bytes.
    client(&["-tls1_3", "-sess_out", session]);
    let said = client(&["-tls1_3", "-sess_in", session]);
    assert!(said.contains("Reused, TLSv1.3"), "{said}");
}

/// One request by `openssl s_client`; gives all that it says.
fn s_client(openssl: &Path, netns: &Netns, folder: &Path, args: &[&str]) -> String {
    let mut client = netns
        .command("timeout")
        .arg("20")
        .arg(openssl)
        .args(["s_client", "-connect", &format!("{SERVER_V4}:{PROXY_PORT}")])
        .args(["-servername", Certificate::HOST, "-CAfile"])
        .arg(folder.join("ca.pem"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        Certificate::HOST
    );
    let mut input = client.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, request.as_bytes()).unwrap();
    // It ends with its input, so that stays open until the answer is there.
    let (sender, done) = std::sync::mpsc::channel::<()>();
    let waiting = std::thread::spawn(move || {
        let _over_or_late = done.recv_timeout(LIMIT);
        drop(input);
    });
    let output = client.wait_with_output().unwrap();
    drop(sender);
    waiting.join().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// An authority that says of its one certificate that it is good.
struct Authority<'a> {
    openssl: &'a Path,
    folder: &'a Path,
}

impl<'a> Authority<'a> {
    fn new(openssl: &'a Path, folder: &'a Path) -> Self {
        let authority = Self { openssl, folder };
        let key = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ];
        let name = format!("/CN={}", Certificate::HOST);
        authority.run(
            &[
                &[
                    "req",
                    "-x509",
                    "-subj",
                    "/CN=authority",
                    "-keyout",
                    "ca.key",
                    "-out",
                    "ca.pem",
                ],
                &key[..],
            ]
            .concat(),
        );
        authority.run(
            &[
                &[
                    "req", "-subj", &name, "-keyout", "leaf.key", "-out", "leaf.csr",
                ],
                &key[..],
            ]
            .concat(),
        );
        fs::write(
            folder.join("leaf.ext"),
            format!("subjectAltName=DNS:{}\n", Certificate::HOST),
        )
        .unwrap();
        authority.run(&[
            "x509",
            "-req",
            "-in",
            "leaf.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-set_serial",
            "1",
            "-days",
            "2",
            "-extfile",
            "leaf.ext",
            "-out",
            "leaf.pem",
        ]);
        authority
    }

    fn run(&self, args: &[&str]) {
        let output = Command::new(self.openssl)
            .args(args)
            .current_dir(self.folder)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// The OCSP response, in a file.
    fn respond(&self) -> PathBuf {
        let index = format!(
            "V\t491231235959Z\t\t01\tunknown\t/CN={}\n",
            Certificate::HOST
        );
        fs::write(self.folder.join("index"), index).unwrap();
        self.run(&[
            "ocsp",
            "-issuer",
            "ca.pem",
            "-cert",
            "leaf.pem",
            "-reqout",
            "request",
            "-no_nonce",
        ]);
        self.run(&[
            "ocsp", "-index", "index", "-CA", "ca.pem", "-rsigner", "ca.pem", "-rkey", "ca.key",
            "-reqin", "request", "-respout", "response", "-ndays", "2",
        ]);
        self.folder.join("response")
    }
}
