//! What both ends are told of a blocked request.

use std::{
    ffi::OsString,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use tokenblock_tests::{
    client::{Answer, Client, curl},
    fixtures::{OPAQUE, Token},
    gate,
    netns::Netns,
    poll,
};

use crate::lab::{Bench, LIMIT, Lab, ORIGIN_PORT, Tier};

/// A request without a token.
const CLEAN: &[u8] = b"GET /clean HTTP/1.1\r\nHost: origin.test\r\n\r\n";
/// The end of what clients of the test of [`clients_show_403`] do, in Python.
const PYTHON_CLIENT: &str = "
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=30)
body = b'x' * int(sys.argv[3])
connection.request('POST', '/', body=body, headers={'Authorization': 'Bearer ' + sys.argv[4]})
response = connection.getresponse()
print(response.status, response.getheader('Connection'), response.read().decode().strip())
";

fn lab(binary: PathBuf, more: &[&str]) -> Lab {
    Bench::new(binary).start(Tier::Kernel, more)
}

/// Established connections at the server, as `ss` tells.
fn server_sockets(netns: &Netns) -> String {
    let output = netns
        .command("ss")
        .args(["-Htn", "state", "connected", "sport", "="])
        .arg(format!(":{ORIGIN_PORT}"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Asserts that it was the first packet of a request that was answered: none was sent a second time.
fn assert_sent_once(netns: &Netns, client: &Client) {
    let output = netns
        .command("ss")
        .args(["-Htin", "sport", "="])
        .arg(format!(":{}", client.address().unwrap().port()))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("bytes_sent:"), "{said}");
    assert!(!said.contains("retrans:"), "{said}");
}

/// Asserts that the server's end of the only connection is gone.
fn assert_freed(netns: &Netns, name: &str) {
    let freed = poll::until(LIMIT, || server_sockets(netns).is_empty().then_some(()));
    assert!(freed.is_some(), "{name}: {}", server_sockets(netns));
}

#[test]
fn a_403_comes_at_once_and_frees_the_server() {
    let Some(binary) = gate::product("answers::a_403_comes_at_once_and_frees_the_server") else {
        return;
    };
    let lab = lab(binary, &["--on-hit", "forbid"]);
    for server in lab.servers() {
        let mut neighbour = Client::connect(&lab.bench.pair.client, server).unwrap();
        assert_eq!(
            neighbour.exchange(CLEAN, LIMIT).unwrap().status(),
            Some(200)
        );
        let mut client = Client::connect(&lab.bench.pair.client, server).unwrap();
        assert_eq!(client.exchange(CLEAN, LIMIT).unwrap().status(), Some(200));
        let answer = client.exchange(&Lab::request(Token::Jwt), LIMIT).unwrap();
        let Answer::Response { status, head, body } = answer else {
            panic!("{server}: {answer:?}\n{}", lab.product.log());
        };
        assert_eq!(
            (status, &body[..]),
            (403, &b"{\"error\":\"listed_token\"}\n"[..])
        );
        assert!(head.contains("\r\nConnection: close"), "{head}");
        assert_sent_once(&lab.bench.pair.client, &client);
        // Behind it the connection ends in order, not by a reset.
        let end = client.answer(LIMIT);
        assert_eq!(end, Answer::Closed(Vec::new()), "{server}");
        let answer = neighbour.exchange(CLEAN, LIMIT).unwrap();
        assert_eq!(
            answer.status(),
            Some(200),
            "{server}: the neighbour's {answer:?}"
        );
        drop((client, neighbour));
        assert_freed(&lab.bench.pair.server, &server.to_string());
    }
    assert!(!lab.bench.origin.saw(Token::Jwt.text().as_bytes()));
    assert_eq!(lab.product.kernel_counter("blocked").unwrap(), 2);
    assert_eq!(lab.product.kernel_counter("forbidden").unwrap(), 2);
    let events = lab.product.wait_for_all_events(2, LIMIT).len();
    assert_eq!(events, 2, "{}", lab.product.log());
}

#[test]
fn a_reset_comes_at_once_and_frees_the_server() {
    let Some(binary) = gate::product("answers::a_reset_comes_at_once_and_frees_the_server") else {
        return;
    };
    let lab = lab(binary, &["--on-hit", "reset"]);
    for server in lab.servers() {
        let mut neighbour = Client::connect(&lab.bench.pair.client, server).unwrap();
        let mut client = Client::connect(&lab.bench.pair.client, server).unwrap();
        assert_eq!(client.exchange(CLEAN, LIMIT).unwrap().status(), Some(200));
        let answer = client.exchange(&Lab::request(Token::Jwt), LIMIT).unwrap();
        assert_eq!(answer, Answer::Reset, "{server}\n{}", lab.product.log());
        let answer = neighbour.exchange(CLEAN, LIMIT).unwrap();
        assert_eq!(
            answer.status(),
            Some(200),
            "{server}: the neighbour's {answer:?}"
        );
        drop((client, neighbour));
        assert_freed(&lab.bench.pair.server, &server.to_string());
    }
    assert!(!lab.bench.origin.saw(Token::Jwt.text().as_bytes()));
    assert_eq!(lab.product.kernel_counter("reset").unwrap(), 2);
    // What was answered were first packets: none was sent a second time.
    for counter in ["blocked_again", "xdp_blocked"] {
        assert_eq!(lab.product.kernel_counter(counter).unwrap(), 0, "{counter}");
    }
}

/// A dropped request is sent again and again: one hit, whoever drops the rest.
#[test]
fn retransmissions_are_no_hits() {
    let Some(binary) = gate::product("answers::retransmissions_are_no_hits") else {
        return;
    };
    for (xdp, counter) in [
        ("off", "blocked_again"),
        ("generic", "xdp_blocked"),
        ("native", "xdp_blocked"),
        // Attached by the first hit.
        ("auto", "xdp_blocked"),
    ] {
        let lab = lab(binary.clone(), &["--on-hit", "drop", "--xdp", xdp]);
        let clients = lab.servers().map(|server| {
            let mut client = Client::connect(&lab.bench.pair.client, server).unwrap();
            let answer = client
                .exchange(&Lab::request(Token::Opaque), Duration::from_secs(1))
                .unwrap();
            assert_eq!(answer, Answer::Silence(Vec::new()), "{xdp} {server}");
            client
        });
        // Most often after 200 and 600 ms, as Linux does.
        let again = || (lab.product.kernel_counter(counter).unwrap() >= 4).then_some(());
        let again = poll::until(LIMIT, again);
        assert!(again.is_some(), "{xdp}\n{}", lab.product.log());
        assert_eq!(lab.product.kernel_counter("blocked").unwrap(), 2, "{xdp}");
        for client in clients {
            client.abort().unwrap();
        }
        let events = lab.product.wait_for_all_events(2, LIMIT).len();
        assert_eq!(events, 2, "{xdp}\n{}", lab.product.log());
        assert!(!lab.bench.origin.saw(OPAQUE.as_bytes()));
    }
}

#[test]
fn clients_show_403() {
    let Some(binary) = gate::product("answers::clients_show_403") else {
        return;
    };
    let lab = lab(binary, &[]);
    let token = Token::Opaque.text();
    for server in lab.servers() {
        let header = format!("Authorization: Bearer {token}");
        let url = format!("http://{server}/");
        let (status, body) = curl(&lab.bench.pair.client, &["--header", &header, &url]).unwrap();
        assert_eq!(
            (status, body.trim()),
            (403, "{\"error\":\"listed_token\"}"),
            "{server}"
        );
        // A body far larger than any window: this client reads nothing before it has sent all.
        for size in ["0", "100000", "3000000"] {
            let output = lab
                .bench
                .pair
                .client
                .command("python3")
                .args(["-c", PYTHON_CLIENT, &server.ip().to_string()])
                .args([&server.port().to_string(), size, &token])
                .output()
                .unwrap();
            assert_eq!(
                String::from_utf8_lossy(&output.stdout).trim(),
                "403 close {\"error\":\"listed_token\"}",
                "{server} {size}: {output:?}"
            );
        }
        assert_freed(&lab.bench.pair.server, &server.to_string());
    }
    assert!(!lab.bench.origin.saw(OPAQUE.as_bytes()));
}

/// Both ends on one host, in both directions of the hook.
#[test]
fn loopback_is_answered() {
    let Some(binary) = gate::product("answers::loopback_is_answered") else {
        return;
    };
    for (direction, on_hit) in [
        ("ingress", "forbid"),
        ("both", "forbid"),
        ("egress", "reset"),
    ] {
        let bench = Bench::new(binary.clone());
        let mut args = bench.common();
        let port = ORIGIN_PORT.to_string();
        let flags = [
            "--interface",
            "lo",
            "--port",
            &port,
            "--direction",
            direction,
        ];
        args.extend(
            flags
                .iter()
                .chain(&["--on-hit", on_hit])
                .map(OsString::from),
        );
        let mut product = bench.spawn(&args);
        product
            .wait_for("in force", Duration::from_secs(30))
            .unwrap();
        let servers = [
            SocketAddr::from((Ipv4Addr::LOCALHOST, ORIGIN_PORT)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, ORIGIN_PORT)),
        ];
        for server in servers {
            let name = format!("{direction} {on_hit} {server}");
            let mut client = Client::connect(&bench.pair.server, server).unwrap();
            assert_eq!(
                client.exchange(CLEAN, LIMIT).unwrap().status(),
                Some(200),
                "{name}"
            );
            let answer = client.exchange(&Lab::request(Token::Jwt), LIMIT).unwrap();
            match on_hit {
                "forbid" => assert_eq!(answer.status(), Some(403), "{name}: {answer:?}"),
                _ => assert_eq!(answer, Answer::Reset, "{name}"),
            }
            drop(client);
            assert_freed(&bench.pair.server, &name);
        }
        assert!(!bench.origin.saw(Token::Jwt.text().as_bytes()));
        product.signal(rustix::process::Signal::TERM).unwrap();
        product.wait(LIMIT).unwrap();
    }
}

/// A port that is used again is a new connection, whatever became of the last one.
#[test]
fn a_port_used_again_is_not_blocked() {
    let Some(binary) = gate::product("answers::a_port_used_again_is_not_blocked") else {
        return;
    };
    let lab = lab(binary, &["--on-hit", "reset"]);
    let [server, _] = lab.servers();
    let python = "
import socket, sys
host, port, token = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def ask(head):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(('', 40000))
    s.settimeout(30)
    s.connect((host, port))
    s.sendall(b'GET / HTTP/1.1\\r\\nHost: x\\r\\n' + head + b'\\r\\n')
    try:
        return s.recv(12).decode()
    except ConnectionResetError:
        return 'reset'
    finally:
        s.close()
print(ask(b'Authorization: Bearer ' + token.encode() + b'\\r\\n'), ask(b''))
";
    let output = lab
        .bench
        .pair
        .client
        .command("python3")
        .args([
            "-c",
            python,
            &server.ip().to_string(),
            &server.port().to_string(),
        ])
        .arg(Token::Opaque.text())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said.trim(), "reset HTTP/1.1 200", "{output:?}");
}
