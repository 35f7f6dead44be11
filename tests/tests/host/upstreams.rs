//! Upstreams as the host finds them.

use std::{
    ffi::OsString,
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use tokenblock_tests::{client::TlsClient, gate, netns::SERVER_V4, poll, product::Product};

use crate::lab::{Bench, LIMIT, ORIGIN_PORT, PROXY_PORT};

/// The upstream's name.
const NAME: &str = "moving.test";

/// The product with a table of names (`/etc/hosts`) of its own: a script that mounts `hosts` there, for it alone.
fn with_hosts(folder: &Path, product: &Path, hosts: &Path) -> PathBuf {
    let script = folder.join("with-hosts");
    let text = format!(
        "#!/bin/sh\nexec unshare --mount sh -c 'mount --bind {} /etc/hosts && exec \"$@\"' sh {} \"$@\"\n",
        hosts.display(),
        product.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

/// The proxy of one worker, before the upstreams of `more`.
fn start(bench: &Bench, more: &[&str]) -> Product {
    let mut args = bench.common();
    args.extend([
        "--tls-cert".into(),
        bench.certificate.cert_file.clone().into_os_string(),
        "--tls-key".into(),
        bench.certificate.key_file.clone().into(),
    ]);
    let listen = format!("--proxy-listen=[::]:{PROXY_PORT}");
    args.extend([&*listen, "--workers=1"].map(OsString::from));
    args.extend(more.iter().map(OsString::from));
    bench.start_with(&args)
}

/// A connection that is never idle would stay at the old address for good.
#[test]
fn a_name_that_moves_is_followed_though_its_connections_are_busy() {
    let Some(product) = gate::product("upstreams::a_name_that_moves_is_followed") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    let move_to = |address: IpAddr| fs::write(&hosts, format!("{address} {NAME}\n")).unwrap();
    let loopback = IpAddr::from([127, 0, 0, 1]);
    move_to(loopback);
    let bench = Bench::new(with_hosts(folder.path(), &product, &hosts));
    let _product = start(
        &bench,
        &[
            &format!("--upstream=http://{NAME}:{ORIGIN_PORT}"),
            "--timeout-upstream-age=200ms",
        ],
    );
    let [proxy, _] = bench.pair.server_addresses(PROXY_PORT);
    let mut client = TlsClient::connect(&bench.pair.client, proxy, &bench.certificate).unwrap();
    let mut ask = || {
        let request = b"GET / HTTP/1.1\r\nHost: origin.test\r\n\r\n";
        let answer = client.exchange(request, LIMIT).unwrap();
        assert_eq!(answer.status(), Some(200), "{answer:?}");
    };
    // The near end of a connection of the host to itself is its far end.
    let came_to = |address: IpAddr| {
        let connections = bench.origin.connections();
        connections
            .iter()
            .any(|c| c.peer.ip().to_canonical() == address)
    };
    ask();
    assert!(came_to(loopback) && !came_to(SERVER_V4));
    move_to(SERVER_V4);
    let followed = poll::until(Duration::from_secs(10), || {
        ask();
        came_to(SERVER_V4).then_some(())
    });
    assert!(followed.is_some(), "{:?}", bench.origin.connections());
}

/// Whichever of a name's addresses comes first: one that refuses connections is passed over.
#[test]
fn the_next_address_of_a_name_is_tried() {
    let Some(product) = gate::product("upstreams::the_next_address_of_a_name") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    let [well, gone] = ["127.0.0.2", "127.0.0.3"];
    let names = format!("{well} one.test\n{gone} one.test\n{gone} two.test\n{well} two.test\n");
    fs::write(&hosts, names).unwrap();
    let bench = Bench::new(with_hosts(folder.path(), &product, &hosts));
    let listener = bench.pair.server.enter(|| TcpListener::bind((well, 0)));
    let listener = listener.unwrap().unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if stream.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {
                let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(answer).unwrap();
            }
        }
    });
    let _product = start(
        &bench,
        &[
            &format!("--upstream=http://one.test:{port}"),
            &format!("--route=/two=http://two.test:{port}"),
        ],
    );
    let [proxy, _] = bench.pair.server_addresses(PROXY_PORT);
    let mut client = TlsClient::connect(&bench.pair.client, proxy, &bench.certificate).unwrap();
    for path in ["/one", "/two"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: origin.test\r\n\r\n");
        let answer = client.exchange(request.as_bytes(), LIMIT).unwrap();
        assert_eq!(answer.status(), Some(200), "{path}: {answer:?}");
    }
}
