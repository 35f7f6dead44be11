//! Upstreams as the host finds them.

use std::{
    ffi::OsString,
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tokenblock_tests::{client::TlsClient, gate, netns::SERVER_V4, poll};

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
    let mut args = bench.common();
    args.extend([
        "--tls-cert".into(),
        bench.certificate.cert_file.clone().into_os_string(),
        "--tls-key".into(),
        bench.certificate.key_file.clone().into(),
    ]);
    args.extend(
        [
            &format!("--proxy-listen=[::]:{PROXY_PORT}"),
            &format!("--upstream=http://{NAME}:{ORIGIN_PORT}"),
            "--timeout-upstream-age=200ms",
            "--workers=1",
        ]
        .map(OsString::from),
    );
    let _product = bench.start_with(&args);
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
