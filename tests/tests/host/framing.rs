//! Where messages end: bodies that the server reads as such, servers that read none, header blocks that say two things.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv6Addr, TcpListener},
    path::{Path, PathBuf},
    thread,
};

use rustix::net::sockopt::set_socket_recv_buffer_size;
use tokenblock_tests::{
    certificate::Certificate,
    client::{Answer, Client},
    fixtures::{OPAQUE, Token, binary},
    gate, poll,
    program::Program,
};

use crate::lab::{Bench, LIMIT, Lab, Tier};

/// When bodies are trusted here.
const AFTER: &str = "--trust-body-after=256KiB";
const BODY: usize = 8 << 20;
/// What the socket of a server may hold that is not read: far less.
const BUFFER: usize = 32 * 1024;
/// Where a server listens that reads no bodies.
const HASTY_PORT: u16 = 8081;
const NGINX_PORT: u16 = 8082;

fn head(lines: &str) -> Vec<u8> {
    format!(
        "POST / HTTP/1.1\r\nHost: {}\r\n{lines}\r\n",
        Certificate::HOST
    )
    .into_bytes()
}

fn declared(length: usize) -> Vec<u8> {
    head(&format!("Content-Length: {length}\r\n"))
}

fn counted(lab: &Lab, counter: &str) -> u64 {
    lab.product.kernel_counter(counter).unwrap()
}

fn lab(binary: PathBuf, more: &[&str]) -> Lab {
    Bench::new(binary).start(Tier::Kernel, more)
}

#[test]
fn what_follows_a_trusted_body_is_read() {
    let Some(product) = gate::product("framing::what_follows_a_trusted_body_is_read") else {
        return;
    };
    let lab = lab(product, &[AFTER]);
    let body = binary(BODY);
    for server in lab.servers() {
        let before = counted(&lab, "trusted");
        let mut client = Client::connect(&lab.bench.pair.client, server).unwrap();
        let upload = [&declared(BODY)[..], &body].concat();
        let answer = client.exchange(&upload, LIMIT).unwrap();
        assert_eq!(answer.status(), Some(200), "{answer:?}");
        let requests = lab.bench.origin.wait_for_requests(1, LIMIT);
        assert!(requests.first().is_some_and(|request| request.body == body));
        assert!(counted(&lab, "trusted") > before, "nothing passed unread");
        // A second one, with a request right behind it that bears a token.
        let pipelined = [&upload[..], &Lab::request(Token::Opaque)].concat();
        client.send(&pipelined).unwrap();
        let address = client.address().unwrap();
        let events = lab.product.wait_for_events(address, LIMIT);
        assert_eq!(events.len(), 1, "{events:?}");
        assert!(!lab.bench.origin.saw(OPAQUE.as_bytes()));
        client.abort().unwrap();
        lab.bench.origin.forget();
    }
}

#[test]
fn a_body_is_read_until_it_is_trusted() {
    let Some(product) = gate::product("framing::a_body_is_read_until_it_is_trusted") else {
        return;
    };
    let lab = lab(product, &[AFTER]);
    let [server, _] = lab.servers();
    let smuggled = [&b"\r\n"[..], &Lab::request(Token::Opaque)].concat();
    for at in [0, 1000, 100_000] {
        let mut body = binary(BODY);
        body.splice(at..at, smuggled.iter().copied());
        let upload = [&declared(body.len())[..], &body].concat();
        let mut client = Client::connect(&lab.bench.pair.client, server).unwrap();
        // The server is gone before all is sent.
        drop(client.send(&upload));
        let address = client.address().unwrap();
        assert_eq!(lab.product.wait_for_events(address, LIMIT).len(), 1, "{at}");
        assert!(!lab.bench.origin.saw(OPAQUE.as_bytes()), "{at}");
        client.abort().unwrap();
    }
    assert_eq!(counted(&lab, "trusted"), 0);
}

/// Answers whatever comes at once, as a server does that takes a body for requests.
fn answer_hastily(listener: &TcpListener) {
    while let Ok((mut stream, _)) = listener.accept() {
        thread::spawn(move || {
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(1..) = stream.read(&mut buffer) {
                let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
                if stream.write_all(answer).is_err() {
                    break;
                }
            }
        });
    }
}

#[test]
fn a_server_that_reads_no_bodies_is_not_trusted() {
    let Some(product) = gate::product("framing::a_server_that_reads_no_bodies_is_not_trusted")
    else {
        return;
    };
    let port = format!("--port={HASTY_PORT}");
    let lab = lab(product, &[AFTER, &port]);
    let listener = lab
        .bench
        .pair
        .server
        .enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, HASTY_PORT)));
    let listener = listener.unwrap().unwrap();
    set_socket_recv_buffer_size(&listener, BUFFER).unwrap();
    thread::spawn(move || answer_hastily(&listener));
    let [server, _] = lab.bench.pair.server_addresses(HASTY_PORT);
    let mut client = Client::connect(&lab.bench.pair.client, server).unwrap();
    client.send(&declared(2 * BODY)).unwrap();
    client.send(&binary(BODY)).unwrap();
    client
        .send(&[&b"\r\n"[..], &Lab::request(Token::Opaque)].concat())
        .unwrap();
    let address = client.address().unwrap();
    assert_eq!(lab.product.wait_for_events(address, LIMIT).len(), 1);
    assert_eq!(counted(&lab, "trusted"), 0);
    client.abort().unwrap();
}

#[test]
fn a_request_that_says_twice_where_it_ends_is_reset() {
    let Some(product) = gate::product("framing::a_request_that_says_twice_where_it_ends_is_reset")
    else {
        return;
    };
    let chunks = b"5\r\nabcde\r\n0\r\n\r\n";
    let ambiguous = [
        "Content-Length: 15\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 15\r\n",
        "Content-Length: 15\r\nContent-Length: 5\r\n",
    ];
    let clean = [
        "Content-Length: 15\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 15\r\nContent-Length: 15\r\n",
    ];
    let strict = lab(product.clone(), &[]);
    let lax = lab(product, &["--policy=ambiguous_framing=pass"]);
    for lines in ambiguous.iter().chain(&clean) {
        let request = [&head(lines)[..], chunks].concat();
        let is_ambiguous = ambiguous.contains(lines);
        for (lab, resets) in [(&strict, is_ambiguous), (&lax, false)] {
            let before = counted(lab, "ambiguous_framing");
            let [server, _] = lab.servers();
            let mut client = Client::connect(&lab.bench.pair.client, server).unwrap();
            let answer = client.exchange(&request, LIMIT).unwrap();
            assert_eq!(answer == Answer::Reset, resets, "{lines:?}: {answer:?}");
            let seen = !lab
                .bench
                .origin
                .seen_from(client.address().unwrap())
                .is_empty();
            assert_eq!(seen, !resets, "{lines:?}");
            let count = counted(lab, "ambiguous_framing") - before;
            assert_eq!(count, u64::from(is_ambiguous), "{lines:?}");
        }
    }
}

/// A request that begins within a line, where nginx ends the body in front of it. With another token it is served.
#[test]
fn a_query_behind_a_body_that_nginx_ends_is_read() {
    let test = "framing::a_query_behind_a_body_that_nginx_ends_is_read";
    let (Some(product), Some(nginx)) = (gate::product(test), gate::program(test, "nginx")) else {
        return;
    };
    let lab = lab(product, &[&format!("--port={NGINX_PORT}")]);
    let folder = lab.bench.folder.path();
    let log = folder.join("requests");
    let [server, _] = lab.bench.pair.server_addresses(NGINX_PORT);
    let config = folder.join("nginx.conf");
    fs::write(&config, nginx_config(folder)).unwrap();
    let mut command = lab.bench.pair.server.command(nginx);
    command.arg("-c").arg(config).arg("-p").arg(folder);
    let netns = &lab.bench.pair.server;
    let _nginx = Program::serve(&mut command, folder, netns, server).unwrap();
    let requests = || fs::read_to_string(&log).unwrap_or_default();
    let clean = "of-no-harm-at-all";
    let lines = [
        "Content-Length: 5\r\n",
        "Content-Length:005\n",
        "Content-Length: 5\r\r\n",
        "Content_Length: 6\r\nContent-Length: 5\r\n",
    ];
    for (n, front) in lines.map(head).into_iter().chain(hidden()).enumerate() {
        let line = String::from_utf8_lossy(&front);
        for token in [clean, OPAQUE] {
            let mut stream = front.clone();
            let behind = format!(
                "aaaa:GET /{n}?access_token={token} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            );
            stream.extend_from_slice(behind.as_bytes());
            let mut client = Client::connect(&lab.bench.pair.client, server).unwrap();
            client.send(&stream).unwrap();
            let address = client.address().unwrap();
            if token == clean {
                let wanted = format!("/{n}?access_token={clean}");
                let came = poll::until(LIMIT, || requests().contains(&wanted).then_some(()));
                assert!(came.is_some(), "{line:?}\n{}", requests());
            } else {
                assert_eq!(
                    lab.product.wait_for_events(address, LIMIT).len(),
                    1,
                    "{line:?}"
                );
            }
        }
    }
    assert!(!requests().contains(OPAQUE), "{}", requests());
}

/// A message with a length, behind one in which something looks like a head that declares more.
fn hidden() -> [Vec<u8>; 3] {
    let chunked = head("Transfer-Encoding: chunked\r\n");
    let fake = declared(1000);
    let chunk = |data: &[u8]| [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat();
    let (one, two) = fake.split_at(fake.len() - 7);
    let trailer = b"0\r\nContent-Length: 1000\r\n\r\n";
    [
        [&chunked[..], &chunk(&fake), b"0\r\n\r\n", &declared(5)].concat(),
        [
            &chunked[..],
            &chunk(one),
            &chunk(two),
            b"0\r\n\r\n",
            &declared(5),
        ]
        .concat(),
        [&chunked[..], &chunk(b"x"), trailer, &declared(5)].concat(),
    ]
}

fn nginx_config(folder: &Path) -> String {
    let dir = folder.display();
    format!(
        "daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/nginx.error;\n\
         events {{}}\n\
         http {{ log_format line '$status $request'; access_log {dir}/requests line;\n\
         client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3;\n\
         uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;\n\
         server {{ listen {NGINX_PORT}; location / {{ return 200 read; }} }} }}\n"
    )
}
