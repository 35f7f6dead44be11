//! The proxy before a TLS service that knows nothing of it.

use std::{
    ffi::OsString,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use rustix::process::Signal;
use tokenblock_tests::{
    certificate::Certificate,
    client::{Answer, Client, TlsClient, curl},
    fixtures::Token,
    gate,
    netns::Netns,
    poll,
    product::Product,
    program::{Program, script},
};

use crate::lab::{Bench, BpfFs, LIMIT, Lab};

/// The service's port.
const PORT: u16 = 9443;
/// That of another service, where there is one.
const OTHER: u16 = 9444;

/// A service over TLS, on a host of its own.
struct Service {
    bench: Bench,
    origins: Vec<Program>,
}

impl Service {
    fn new(binary: PathBuf) -> Self {
        let mut service = Self {
            bench: Bench::new(binary),
            origins: Vec::new(),
        };
        service.serve_at(PORT);
        service
    }

    /// Serves at one more port.
    fn serve_at(&mut self, port: u16) {
        let bench = &self.bench;
        let files = [&bench.certificate.cert_file, &bench.certificate.key_file];
        let args = [port.to_string().into()]
            .into_iter()
            .chain(files.map(|file| file.clone().into_os_string()))
            .collect::<Vec<OsString>>();
        let server = &bench.pair.server;
        let [address, _] = bench.pair.server_addresses(port);
        let mut command = script(server, Path::new("python3"), "tls_origin.py");
        let origin =
            Program::serve(command.args(args), bench.folder.path(), server, address).unwrap();
        self.origins.push(origin);
    }

    fn intercept(&self, more: &[&str]) -> Product {
        let port = format!("--intercept={PORT}");
        self.start(&[&[&*port], more].concat())
    }

    fn start(&self, more: &[&str]) -> Product {
        let mut args = self.bench.common();
        let cert = self.bench.certificate.cert_file.clone();
        args.extend([
            "--tls-cert".into(),
            cert.clone().into(),
            "--tls-key".into(),
            self.bench.certificate.key_file.clone().into(),
            "--upstream-ca".into(),
            cert.into(),
            "--upstream-server-name".into(),
            Certificate::HOST.into(),
        ]);
        args.extend(more.iter().map(OsString::from));
        self.bench.start_with(&args)
    }

    /// Where clients find the service: over both families, from the other host and from its own.
    fn ways(&self) -> Vec<(&Netns, SocketAddr)> {
        self.ways_to(PORT)
    }

    fn ways_to(&self, port: u16) -> Vec<(&Netns, SocketAddr)> {
        let pair = &self.bench.pair;
        let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let from_client = pair.server_addresses(port).map(|to| (&pair.client, to));
        let from_itself = loopback.map(|ip: IpAddr| (&pair.server, SocketAddr::new(ip, port)));
        from_client.into_iter().chain(from_itself).collect()
    }

    fn connect(&self, (netns, to): (&Netns, SocketAddr)) -> TlsClient {
        TlsClient::connect(netns, to, &self.bench.certificate).unwrap()
    }

    /// Whether a request on a connection of its own went through the proxy; nothing where it was refused.
    fn judged(&self, way: (&Netns, SocketAddr)) -> bool {
        is_judged(&mut self.connect(way))
    }
}

fn is_refused((netns, to): (&Netns, SocketAddr)) -> bool {
    Client::connect(netns, to).is_err()
}

/// What a service says of a clean request: its head, and at which port it came.
fn told(client: &mut TlsClient) -> String {
    let clean = b"GET / HTTP/1.1\r\nHost: origin.test\r\n\r\n";
    let answer = client.exchange(clean, LIMIT).unwrap();
    let Answer::Response {
        status: 200, body, ..
    } = answer
    else {
        panic!("{answer:?}");
    };
    String::from_utf8(body).unwrap()
}

/// Whether the service says that a clean request came by the proxy, and a listed token is refused accordingly.
fn is_judged(client: &mut TlsClient) -> bool {
    let by_proxy = told(client).contains("via: 1.1 tokenblock");
    let listed = client
        .exchange(&Lab::request(Token::Opaque), LIMIT)
        .unwrap();
    let expected = if by_proxy { 403 } else { 200 };
    assert_eq!(listed.status(), Some(expected), "{listed:?}");
    by_proxy
}

#[test]
fn a_service_keeps_its_port_and_gets_judged_requests() {
    let Some(binary) = gate::product("intercept::a_service_keeps_its_port") else {
        return;
    };
    let service = Service::new(binary);
    let mut before: Vec<TlsClient> = service
        .ways()
        .into_iter()
        .map(|w| service.connect(w))
        .collect();
    assert!(before.iter_mut().all(|client| !is_judged(client)));
    let product = service.intercept(&[]);
    for way in service.ways() {
        let mut client = service.connect(way);
        assert!(is_judged(&mut client) && is_judged(&mut client), "{way:?}");
        let source = client.address().unwrap();
        let both = || (product.events_from(source).len() == 2).then_some(());
        assert!(
            poll::until(LIMIT, both).is_some(),
            "{way:?}\n{}",
            product.log()
        );
    }
    // What is told is the address that the client wanted.
    let [to, _] = service.bench.pair.server_addresses(PORT);
    assert!(
        product.says(&format!("\"destination\":\"{to}\"")),
        "{}",
        product.log()
    );
    // Who was connected already is not cut off.
    assert!(before.iter_mut().all(|client| !is_judged(client)));
    // The proxy's own port serves nobody.
    let own = own_port(&product);
    let [mut own, _] = service.bench.pair.server_addresses(own);
    own.set_ip(Ipv4Addr::LOCALHOST.into());
    let bench = &service.bench;
    let direct = TlsClient::connect(&bench.pair.server, own, &bench.certificate);
    assert!(direct.is_err(), "a handshake");
    let counted = || count(&product, "proxy_closed_not_intercepted").filter(|n| *n == 1);
    assert!(poll::until(LIMIT, counted).is_some(), "{}", product.log());
}

/// A counter, as the log's last line of them has it, whose quotes are escaped; another line is asked for.
fn count(product: &Product, name: &str) -> Option<u64> {
    product.signal(Signal::USR1).unwrap();
    let lines = product.lines();
    let line = lines.iter().rfind(|line| line.contains("counters"))?;
    let (_, rest) = line.split_once(&format!(r#"\"{name}\":"#))?;
    rest.split([',', '}']).next()?.parse().ok()
}

/// The port that the proxy listens at.
fn own_port(product: &Product) -> u16 {
    let line = product
        .lines()
        .into_iter()
        .find(|line| line.contains("in force"))
        .unwrap();
    let (_, rest) = line.split_once("\"proxy\":\"[::]:").unwrap();
    rest.split('"').next().unwrap().parse().unwrap()
}

#[test]
fn it_is_off_when_the_process_ends_however_it_ends() {
    let Some(binary) = gate::product("intercept::it_is_off_when_the_process_ends") else {
        return;
    };
    let service = Service::new(binary);
    for signal in [Signal::TERM, Signal::KILL] {
        let mut product = service.intercept(&[]);
        assert!(service.ways().into_iter().all(|way| service.judged(way)));
        product.signal(signal).unwrap();
        product.wait(LIMIT).unwrap();
        assert!(service.ways().into_iter().all(|way| !service.judged(way)));
    }
}

#[test]
fn it_can_stay_shut_until_a_proxy_runs_again() {
    let Some(binary) = gate::product("intercept::it_can_stay_shut") else {
        return;
    };
    let service = Service::new(binary);
    let bpf = BpfFs::mount();
    let pins = bpf.path().join("tokenblock");
    let pin = format!("--intercept-pin={}", pins.display());
    for signal in [Signal::KILL, Signal::TERM] {
        let mut product = service.intercept(&["--intercept-fail=closed", &pin]);
        assert!(service.ways().into_iter().all(|way| service.judged(way)));
        product.signal(signal).unwrap();
        product.wait(LIMIT).unwrap();
        assert!(service.ways().into_iter().all(is_refused));
    }
    // One that fails open takes the bar away.
    let mut product = service.intercept(&[&pin]);
    assert!(service.ways().into_iter().all(|way| service.judged(way)));
    product.signal(Signal::TERM).unwrap();
    product.wait(LIMIT).unwrap();
    let open = || service.ways().into_iter().all(|way| !is_refused(way));
    assert!(poll::until(LIMIT, || open().then_some(())).is_some());
    assert!(service.ways().into_iter().all(|way| !service.judged(way)));
    // Without a place to stay it does not start.
    let mut args = service.bench.common();
    args.extend(
        [
            "--intercept=9443",
            "--intercept-fail=closed",
            "--intercept-pin=/dev/null/x",
        ]
        .map(OsString::from),
    );
    let mut product = service.bench.spawn(&args);
    let end = product.wait(LIMIT).unwrap();
    assert_eq!(end.code(), Some(71), "{}", end.log);
    assert!(end.log.contains("mount -t bpf"), "{}", end.log);
    assert!(service.ways().into_iter().all(|way| !service.judged(way)));
}

#[test]
fn several_ports_are_several_services() {
    let Some(binary) = gate::product("intercept::several_ports_are_several_services") else {
        return;
    };
    let mut service = Service::new(binary);
    service.serve_at(OTHER);
    let own_service = || {
        for port in [PORT, OTHER] {
            for way in service.ways_to(port) {
                let mut client = service.connect(way);
                assert!(is_judged(&mut client), "{way:?}");
                assert!(told(&mut client).contains(&format!("\nport: {port}\n")));
            }
        }
    };
    let ports = |ports: &str| {
        let path = service.bench.folder.path().join("ports.toml");
        std::fs::write(&path, format!("intercept = [{ports}]\n")).unwrap();
        format!("--config={}", path.display())
    };
    let config = ports("9444, 9443, 9444");
    let mut product = service.start(&[&config]);
    own_service();
    assert!(
        product.says("\"intercepted\":\"9443,9444\""),
        "{}",
        product.log()
    );
    // What is intercepted changes at the next start, and so does where it goes.
    ports("9443");
    product.signal(Signal::HUP).unwrap();
    let named = || product.says("\"settings\":\"intercept\"").then_some(());
    assert!(poll::until(LIMIT, named).is_some(), "{}", product.log());
    own_service();
    product.signal(Signal::TERM).unwrap();
    let end = product.wait(LIMIT).unwrap();
    // Eight connections of clients, twice.
    assert!(end.log.contains(r#"\"intercepted\":16"#), "{}", end.log);
}

#[test]
fn each_port_stays_shut_for_itself() {
    let Some(binary) = gate::product("intercept::each_port_stays_shut_for_itself") else {
        return;
    };
    let mut service = Service::new(binary);
    service.serve_at(OTHER);
    let bpf = BpfFs::mount();
    let pin = format!("--intercept-pin={}", bpf.path().display());
    let both = format!("--intercept={OTHER}");
    let all = |is: fn(&Service, (&Netns, SocketAddr)) -> bool, port| {
        let ways = service.ways_to(port);
        ways.into_iter().all(|way| is(&service, way))
    };
    let judged = |port| all(Service::judged, port);
    let shut = |port| all(|_, way| is_refused(way), port);
    let stop = |mut product: Product| {
        product.signal(Signal::KILL).unwrap();
        product.wait(LIMIT).unwrap();
    };
    let product = service.intercept(&[&both, "--intercept-fail=closed", &pin]);
    assert!(judged(PORT) && judged(OTHER));
    stop(product);
    assert!(shut(PORT) && shut(OTHER));
    // A proxy for one of them lets the other be.
    let product = service.intercept(&[&pin]);
    assert!(judged(PORT) && shut(OTHER));
    stop(product);
    assert!(shut(OTHER) && all(|service, way| !service.judged(way), PORT));
}

/// The service is asked whether it is well past the interception, like for anything else.
#[test]
fn its_health_is_asked_of_the_service_itself() {
    let Some(binary) = gate::product("intercept::its_health_is_asked_of_the_service") else {
        return;
    };
    let service = Service::new(binary);
    let product = service.intercept(&["--upstream-check=/up", "--upstream-check-interval=20ms"]);
    let count = |name: &str| count(&product, name);
    let asked = poll::until(LIMIT, || {
        count("proxy_health_checks_total").filter(|asked| *asked > 5)
    });
    assert!(asked.is_some(), "{}", product.log());
    assert_eq!(count("proxy_health_checks_failed_total"), Some(0));
    assert_eq!(count("intercepted"), Some(0), "{}", product.log());
    assert!(count("own") > Some(4), "{}", product.log());
    assert!(service.ways().into_iter().all(|way| service.judged(way)));
}

/// The near ends of the connections of this host to `to`.
fn near_ends(netns: &Netns, to: SocketAddr) -> Vec<SocketAddr> {
    let wanted = ["-Htn", "state", "established", "dst", &to.to_string()];
    let output = netns.command("ss").args(wanted).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let near = |line: &str| line.split_ascii_whitespace().nth(2)?.parse().ok();
    text.lines().filter_map(near).collect()
}

/// What is noted of the proxy's own connections is noted while they are made, and no longer: whoever comes from the same
/// address and port later is a client like any other.
#[test]
fn who_comes_from_where_the_proxy_came_from_is_judged() {
    let Some(binary) = gate::product("intercept::who_comes_from_where_the_proxy_came_from") else {
        return;
    };
    let service = Service::new(binary);
    let _product = service.intercept(&["--timeout-upstream-idle=100ms"]);
    let server = &service.bench.pair.server;
    // A port is free as soon as its connection is over.
    server.set_ipv4("tcp_max_tw_buckets", "0").unwrap();
    let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT);
    let mut client = service.connect((server, to));
    assert!(is_judged(&mut client));
    let clients = client.address().unwrap();
    let of_proxy = near_ends(server, to)
        .into_iter()
        .find(|near| *near != clients);
    let near = of_proxy.expect("a connection of the proxy's own");
    let gone = || (!near_ends(server, to).contains(&near)).then_some(());
    assert!(poll::until(LIMIT, gone).is_some(), "{near} is kept");
    let name = Certificate::HOST;
    let resolve = format!("{name}:{PORT}:{}", to.ip());
    let ca = service.bench.certificate.cert_file.to_str().unwrap();
    let (from, port) = (near.ip().to_string(), near.port().to_string());
    let url = format!("https://{name}:{PORT}/");
    let args = ["--resolve", &resolve, "--cacert", ca, "--interface", &from];
    let args = [&args[..], &["--local-port", &port, &url]].concat();
    let (status, body) = curl(server, &args).unwrap();
    assert_eq!(status, 200, "{body}");
    assert!(body.to_lowercase().contains("via: "), "{body}");
}
