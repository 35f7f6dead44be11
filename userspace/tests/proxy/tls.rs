//! Handshakes with clients.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Response;
use rustls::{
    ClientConfig, ClientConnection, ConfigBuilder, HandshakeKind, RootCertStore, StreamOwned,
    client::WantsClientCert,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use socket2::{Domain, Socket, Type};
use tokenblock::proxy::{ProxyError, ProxySettings, TlsFiles, TlsVersion};
use tokio_rustls::TlsConnector;

use crate::{
    streams::{self, ample, get},
    support::{LOOPBACK, Origin, PATIENCE, Raw, Tier, certificate, certificate_of, full},
};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn tls_1_2_and_1_3_and_no_older_than_is_allowed() {
    let origin = Origin::echo();
    let tier = Tier::tls(origin.address, |_| {});
    for args in [&["--tls-max", "1.2"][..], &["--tlsv1.3"]] {
        assert_eq!(tier.curl("/", args).status, 200, "{args:?}");
    }
    let strict = Tier::tls(origin.address, |s| s.tls_min_version = TlsVersion::Tls13);
    assert_eq!(strict.curl("/", &["--tlsv1.3"]).status, 200);
    let reply = strict.curl("/", &["--tls-max", "1.2"]);
    assert_eq!(reply.status, 0, "{reply:?}");
    strict.wait_for("proxy_closed_handshake", 1);
}

#[test]
fn the_certificate_is_chosen_by_name_and_by_kind_of_key() {
    let origin = Origin::echo();
    let folder = tempfile::tempdir().unwrap();
    let shop = certificate(folder.path(), "shop", &["shop.example", "*.shop.example"]);
    let names = &["both.example"];
    let ecdsa = certificate(folder.path(), "ecdsa", names);
    let rsa = certificate_of(&rcgen::PKCS_RSA_SHA256, folder.path(), "rsa", names);
    let tier = Tier::tls(origin.address, |s| {
        s.more_certificates = vec![shop.clone(), ecdsa.clone(), rsa.clone()];
    });
    let port = tier.address.port();
    let status = |name: &str, ca: &Path, args: &[&str]| {
        let url = format!("https://{name}:{port}/");
        let args = [&["--cacert", text(ca)], args].concat();
        tier.curl_at(&url, &args).status
    };
    assert_eq!(status("shop.example", &shop.cert, &[]), 200);
    assert_eq!(status("a.shop.example", &shop.cert, &[]), 200);
    assert_eq!(status("a.b.shop.example", &shop.cert, &[]), 0, "one label");
    let old = |ciphers| ["--tls-max", "1.2", "--ciphers", ciphers];
    let by_rsa = old("ECDHE-RSA-AES128-GCM-SHA256");
    assert_eq!(status("both.example", &rsa.cert, &by_rsa), 200);
    let by_ecdsa = old("ECDHE-ECDSA-AES128-GCM-SHA256");
    assert_eq!(status("both.example", &ecdsa.cert, &by_ecdsa), 200);
    // Who asks for another name, or for none, gets the default.
    assert_eq!(
        status("other.example", &folder.path().join("shop.pem"), &[]),
        0
    );
    for host in ["other.example", "127.0.0.1"] {
        let reply = tier.curl_at(&format!("https://{host}:{port}/"), &["-k"]);
        assert_eq!(reply.status, 200, "{host}: {reply:?}");
    }
    assert_eq!(tier.curl("/", &[]).status, 200);
}

#[test]
fn new_certificates_are_taken_up_and_broken_ones_are_not() {
    let origin = Origin::echo();
    let tier = Tier::tls(origin.address, |_| {});
    let known = config(tier.ca.as_ref().unwrap());
    let mut kept = client(&tier, &known);
    ask(&mut kept);
    let old = tier.folder.join("old.pem");
    fs::copy(tier.folder.join("server.pem"), &old).unwrap();
    let fresh = certificate(&tier.folder, "fresh", &["localhost"]);
    let accepted = |ca: &Path| {
        let url = tier.url("/");
        tier.curl_at(&url, &["--cacert", text(ca)]).status == 200
    };
    // Half of a pair is no pair; what is in force stays.
    fs::rename(&fresh.cert, tier.folder.join("server.pem")).unwrap();
    thread::sleep(Duration::from_millis(800));
    assert!(accepted(&old));
    fs::rename(&fresh.key, tier.folder.join("server.key")).unwrap();
    let start = Instant::now();
    while !accepted(&tier.folder.join("server.pem")) {
        assert!(start.elapsed() < PATIENCE, "not taken up");
    }
    assert!(!accepted(&old));
    // Whoever was connected hasn't noticed, and goes on later where it was.
    ask(&mut kept);
    let mut again = client(&tier, &known);
    ask(&mut again);
    assert_eq!(again.conn.handshake_kind(), Some(HandshakeKind::Resumed));
    assert_eq!(tier.count("proxy_closed_protocol"), 0);
}

/// Every file that the settings name: further certificates, and the authority of clients.
#[test]
fn whichever_file_changes_is_read_again() {
    let origin = Origin::echo();
    let folder = tempfile::tempdir().unwrap();
    let shop = certificate(folder.path(), "shop", &["shop.example"]);
    let clients = certificate(folder.path(), "clients", &["client.example"]);
    let others = certificate(folder.path(), "others", &["client.example"]);
    let tier = Tier::tls(origin.address, |s| {
        s.more_certificates = vec![shop.clone()];
        s.client_ca = Some(clients.cert.clone());
    });
    let url = format!("https://shop.example:{}/", tier.address.port());
    let with = |ca: &Path, shown: &TlsFiles| {
        let shown = ["--cert", text(&shown.cert), "--key", text(&shown.key)];
        let args = [&["--cacert", text(ca)], &shown[..]].concat();
        tier.curl_at(&url, &args).status == 200
    };
    let becomes = |ca: &Path, shown: &TlsFiles| {
        let start = Instant::now();
        while !with(ca, shown) {
            assert!(start.elapsed() < PATIENCE, "not taken up");
        }
    };
    assert!(with(&shop.cert, &clients) && !with(&shop.cert, &others));
    let fresh = certificate(folder.path(), "fresh", &["shop.example"]);
    fs::copy(&fresh.key, &shop.key).unwrap();
    fs::copy(&fresh.cert, &shop.cert).unwrap();
    becomes(&fresh.cert, &clients);
    // The key that is shown stays its own.
    fs::copy(&others.cert, folder.path().join("next")).unwrap();
    fs::rename(folder.path().join("next"), &clients.cert).unwrap();
    becomes(&fresh.cert, &others);
}

#[test]
fn other_settings_bring_other_certificates_or_change_nothing() {
    let (origin, elsewhere) = (Origin::echo(), Origin::echo());
    let tier = Tier::tls(origin.address, |_| {});
    let other = certificate(&tier.folder, "other", &["localhost"]);
    let clients = certificate(&tier.folder, "clients", &["client.example"]);
    let settings = |tls: &TlsFiles, to: &Origin| {
        let upstream = format!("http://{}", to.address).parse().unwrap();
        let mut settings = ProxySettings::new(LOOPBACK, upstream);
        settings.tls = Some(tls.clone());
        settings
    };
    let mut kept = client(&tier, &config(tier.ca.as_ref().unwrap()));
    ask(&mut kept);
    // A key that isn't the certificate's: all stays as it was, the upstream too.
    let mismatched = TlsFiles {
        key: clients.key.clone(),
        ..other.clone()
    };
    let refused = tier.reload.apply(settings(&mismatched, &elsewhere), None);
    assert!(matches!(refused, Err(ProxyError::KeyMismatch { .. })));
    ask(&mut kept);
    assert_eq!(tier.curl("/", &[]).status, 200);
    assert_eq!((origin.seen().len(), elsewhere.seen().len()), (3, 0));
    tier.reload
        .apply(settings(&other, &elsewhere), None)
        .unwrap();
    let url = tier.url("/");
    let with = |ca: &TlsFiles| tier.curl_at(&url, &["--cacert", text(&ca.cert)]).status;
    assert_eq!(with(&other), 200);
    assert_eq!(tier.curl("/", &[]).status, 0, "the one before");
    // Whoever was connected stays so, and asks the new upstream.
    ask(&mut kept);
    assert_eq!((origin.seen().len(), elsewhere.seen().len()), (3, 2));
    // The files of the settings in force are watched, not those before.
    let fresh = certificate(&tier.folder, "fresh", &["localhost"]);
    fs::rename(&fresh.cert, &other.cert).unwrap();
    fs::rename(&fresh.key, &other.key).unwrap();
    let start = Instant::now();
    while with(&other) != 200 {
        assert!(start.elapsed() < PATIENCE, "not taken up");
    }
    // And a certificate is asked of clients, where that is new.
    let mut asking = settings(&other, &elsewhere);
    asking.client_ca = Some(clients.cert.clone());
    tier.reload.apply(asking, None).unwrap();
    assert_eq!(with(&other), 0);
    let shown = ["--cert", text(&clients.cert), "--key", text(&clients.key)];
    let args = [&["--cacert", text(&other.cert)], &shown[..]].concat();
    assert_eq!(tier.curl_at(&url, &args).status, 200);
}

#[test]
fn sessions_are_resumed() {
    let origin = Origin::echo();
    let tier = Tier::tls(origin.address, |_| {});
    let config = config(tier.ca.as_ref().unwrap());
    let mut first = client(&tier, &config);
    ask(&mut first);
    assert_eq!(first.conn.handshake_kind(), Some(HandshakeKind::Full));
    let mut second = client(&tier, &config);
    ask(&mut second);
    assert_eq!(second.conn.handshake_kind(), Some(HandshakeKind::Resumed));
}

/// A session that goes on is not asked again who the client is, though its certificate may be taken back meanwhile.
#[test]
fn who_shows_a_certificate_shows_it_each_time() {
    let origin = Origin::echo();
    let folder = tempfile::tempdir().unwrap();
    let shown = certificate(folder.path(), "shown", &["client.example"]);
    let tier = Tier::tls(origin.address, |s| s.client_ca = Some(shown.cert.clone()));
    let chain = vec![CertificateDer::from_pem_file(&shown.cert).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&shown.key).unwrap();
    let config = trusting(tier.ca.as_ref().unwrap()).with_client_auth_cert(chain, key);
    let config = Arc::new(config.unwrap());
    for _ in 0..3 {
        let mut client = client(&tier, &config);
        ask(&mut client);
        assert_eq!(client.conn.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn clients_show_a_certificate_where_one_is_asked_for() {
    let origin = Origin::echo();
    let folder = tempfile::tempdir().unwrap();
    let known = certificate(folder.path(), "known", &["client.example"]);
    let unknown = certificate(folder.path(), "unknown", &["client.example"]);
    let tier = Tier::tls(origin.address, |s| s.client_ca = Some(known.cert.clone()));
    let with = |files: &TlsFiles| {
        let args = ["--cert", text(&files.cert), "--key", text(&files.key)];
        tier.curl("/", &args).status
    };
    assert_eq!(with(&known), 200);
    assert_eq!(with(&unknown), 0);
    assert_eq!(tier.curl("/", &[]).status, 0);
    assert_eq!(origin.seen().len(), 1);
}

/// Asks for a body of so many bytes, over a connection of which the kernel takes only some.
async fn begin(
    tier: &Tier,
    size: usize,
) -> (h2::client::ResponseFuture, h2::client::SendRequest<Bytes>) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_tcp_mss(536).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&tier.address.into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let socket = tokio::net::TcpStream::from_std(socket.into()).unwrap();
    let mut config = trusting(tier.ca.as_ref().unwrap()).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tls = TlsConnector::from(Arc::new(config));
    let stream = tls.connect("localhost".try_into().unwrap(), socket).await;
    let mut builder = ample();
    builder.initial_window_size(4 << 20);
    let (mut sender, connection) = builder.handshake(stream.unwrap()).await.unwrap();
    tokio::spawn(connection);
    let (response, _body) = sender.send_request(get(&format!("/{size}")), true).unwrap();
    (response, sender)
}

/// What TLS still has when the socket is full leaves as soon as it can, although nothing else is to be written.
#[test]
fn the_end_of_a_response_over_http_2_leaves_once_the_client_reads() {
    let origin = Origin::serving(|request| async move {
        let size = request.uri().path().trim_start_matches('/').parse();
        Response::new(full(vec![b'x'; size.unwrap()]))
    });
    let tier = Tier::tls(origin.address, |_| {});
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        // Sizes around all that the kernel may take, nearer to each other than what is written at a time.
        let mut begun = Vec::new();
        for size in (16..256).step_by(6).map(|kib| kib * 1024) {
            begun.push((size, begin(&tier, size).await));
        }
        while origin.seen().len() < begun.len() {
            tokio::task::yield_now().await;
        }
        // Nothing is read meanwhile, so that every socket is full.
        thread::sleep(Duration::from_millis(200));
        for (size, (response, _sender)) in begun {
            let read = async { streams::Client::read(response.await.unwrap()).await };
            let answer = tokio::time::timeout(PATIENCE, read).await;
            assert_eq!(answer.expect("no end").text().len(), size);
        }
    });
}

type Client = StreamOwned<ClientConnection, TcpStream>;

fn config(ca: &Path) -> Arc<ClientConfig> {
    Arc::new(trusting(ca).with_no_client_auth())
}

fn trusting(ca: &Path) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
}

fn client(tier: &Tier, config: &Arc<ClientConfig>) -> Client {
    let name = "localhost".try_into().unwrap();
    let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    StreamOwned::new(connection, TcpStream::connect(tier.address).unwrap())
}

/// One request over a kept connection.
fn ask(client: &mut Client) {
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"tokenblock\n\n") {
        let mut buffer = [0; 4096];
        let n = client.read(&mut buffer).unwrap();
        assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(&got));
        got.extend_from_slice(&buffer[..n]);
    }
    assert!(got.starts_with(b"HTTP/1.1 200 "));
}

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

/// Bytes that are no handshake, or that never come to its end: each ends its connection, is counted, and costs nobody else
/// anything.
#[test]
fn what_is_no_handshake_ends_its_connection() {
    let origin = Origin::echo();
    let tier = Tier::tls(origin.address, |s| {
        s.timeouts.handshake = Duration::from_millis(1500);
    });
    let record = |kind: u8, payload: &[u8]| {
        let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
        [&[kind, 3, 1], &len[..], payload].concat()
    };
    let warning = record(ALERT, &[1, 90]);
    let endless_hello = [&[1, 0xff, 0xff, 0xff, 3, 3][..], &[0; 16_000]].concat();
    let cases = [
        ("cleartext", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec()),
        (
            "SSL 2",
            b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x01\x00\x80".to_vec(),
        ),
        (
            "a record beyond its bounds",
            record(HANDSHAKE, &[0].repeat(0xffff)),
        ),
        ("data before keys", record(DATA, b"GET / HTTP/1.1\r\n\r\n")),
        (
            "records without bytes",
            record(HANDSHAKE, &[]).repeat(10_000),
        ),
        ("warnings", warning.repeat(10_000)),
        (
            "a hello of 16 MB",
            record(HANDSHAKE, &endless_hello).repeat(64),
        ),
        (
            "a hello in single bytes",
            record(HANDSHAKE, &[1]).repeat(10_000),
        ),
        ("half a record", vec![HANDSHAKE, 3, 1, 2, 0, 1]),
        ("nothing", Vec::new()),
    ];
    let ended = || {
        let ended = ["handshake", "handshake_timeout"];
        let counts = ended.map(|why| tier.count(&format!("proxy_closed_{why}")));
        counts.iter().sum::<u64>()
    };
    for (n, (what, bytes)) in (1..).zip(&cases) {
        let mut raw = Raw::new(tier.address);
        // It may be over before the end.
        drop(raw.0.write_all(bytes));
        raw.rest();
        assert_eq!(tier.curl("/", &[]).status, 200, "after {what}");
        let start = Instant::now();
        while ended() < n {
            assert!(start.elapsed() < PATIENCE, "{what} is not counted");
        }
        assert_eq!(ended(), n, "{what}");
    }
    assert_eq!(origin.seen().len(), cases.len());
}
