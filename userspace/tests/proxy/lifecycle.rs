//! Start and stop.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use crate::support::{LOOPBACK, Origin, PATIENCE, Raw, Tier, bind, certificate, raw_origin};
use tokenblock::{
    event::EventSink,
    proxy::{ProxyError, ProxySettings, TlsFiles},
};
use tokio::runtime::Builder;

fn settings() -> ProxySettings {
    let upstream = "http://127.0.0.1:1".parse().unwrap();
    ProxySettings::new(LOOPBACK, upstream)
}

fn refusal(settings: ProxySettings) -> ProxyError {
    match bind(settings, EventSink::new(drop)) {
        Ok(_) => panic!("it started"),
        Err(error) => error,
    }
}

#[test]
fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut settings = settings();
    settings.listen = taken.local_addr().unwrap().into();
    let text = refusal(settings.clone()).to_string();
    assert_eq!(
        text,
        format!("{} is in use by another process", settings.listen)
    );
}

#[test]
fn another_proxy_on_the_same_port_is_refused_too() {
    let first = bind(settings(), EventSink::new(drop)).unwrap();
    let mut settings = settings();
    settings.listen = first.local_addr().into();
    assert!(matches!(refusal(settings), ProxyError::AddressInUse(_)));
}

#[test]
fn a_key_of_another_certificate_is_refused_with_both_names() {
    let folder = tempfile::tempdir().unwrap();
    let one = certificate(folder.path(), "one", &["localhost"]);
    let two = certificate(folder.path(), "two", &["localhost"]);
    let mut settings = settings();
    settings.tls = Some(TlsFiles {
        cert: one.cert.clone(),
        key: two.key.clone(),
    });
    let error = refusal(settings);
    assert!(matches!(error, ProxyError::KeyMismatch { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("one.pem") && text.contains("two.key"),
        "{text}"
    );
}

#[test]
fn files_without_certificate_or_key_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let good = certificate(folder.path(), "good", &["localhost"]);
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "nothing\n").unwrap();
    let missing = folder.path().join("missing");
    let with = |cert: &std::path::Path, key: &std::path::Path| {
        let mut settings = settings();
        settings.tls = Some(TlsFiles {
            cert: cert.to_owned(),
            key: key.to_owned(),
        });
        refusal(settings).to_string()
    };
    assert!(with(&empty, &good.key).ends_with("empty holds no certificate in PEM form"));
    assert!(with(&good.cert, &empty).ends_with("empty holds no private key in PEM form"));
    assert!(with(&missing, &good.key).contains("missing"));
}

#[test]
fn stopping_lets_a_request_finish_and_closes_what_is_idle() {
    let (go, gone) = mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let origin = raw_origin(move |_, mut upstream| {
        upstream.until("\r\n\r\n");
        gone.lock().unwrap().recv().unwrap();
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate");
    });
    let mut tier = Tier::plain(origin, |s| s.timeouts.drain = PATIENCE);
    let mut idle = tier.connect();
    let mut busy = tier.connect();
    busy.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    tier.wait_for("proxy_connections_total", 2);
    tier.wait_for("proxy_forwarded_total", 1);
    tier.order_stop();
    assert_eq!(idle.rest(), "");
    go.send(()).unwrap();
    let reply = busy.rest();
    assert!(reply.ends_with("late"), "{reply}");
    assert!(
        reply.to_lowercase().contains("connection: close"),
        "{reply}"
    );
    // Not by the deadline.
    tier.join();
    assert_eq!(tier.count("proxy_closed_drain_deadline"), 0);
}

/// Clients that send one request a connection, one after the other.
struct Hammer {
    answered: AtomicUsize,
    lost: AtomicUsize,
    done: AtomicBool,
}

impl Hammer {
    fn start(address: SocketAddr) -> (Arc<Self>, thread::JoinHandle<()>) {
        let hammer = Arc::new(Self {
            answered: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
            done: AtomicBool::new(false),
        });
        let client = Arc::clone(&hammer);
        let client = thread::spawn(move || {
            while !client.done.load(Relaxed) {
                let ask = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
                let mut raw = Raw::new(address);
                if raw.0.write_all(ask).is_ok() && raw.rest().starts_with("HTTP/1.1 200 ") {
                    client.answered.fetch_add(1, Relaxed);
                } else {
                    client.lost.fetch_add(1, Relaxed);
                }
            }
        });
        (hammer, client)
    }

    /// Waits until so many more are answered.
    fn goes_on(&self) {
        let (before, start) = (self.answered.load(Relaxed), Instant::now());
        while self.answered.load(Relaxed) < before + 10 {
            assert!(start.elapsed() < PATIENCE, "nobody is answered");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Stops `first` while clients come; gives how many were lost.
fn hand_over(mut first: Tier, start_second: impl FnOnce() -> Tier) -> usize {
    let (hammer, client) = Hammer::start(first.address);
    hammer.goes_on();
    let second = start_second();
    hammer.goes_on();
    first.order_stop();
    first.join();
    let before = second.count("proxy_requests_total");
    hammer.goes_on();
    hammer.done.store(true, Relaxed);
    client.join().unwrap();
    assert!(second.count("proxy_requests_total") > before);
    hammer.lost.load(Relaxed)
}

#[test]
fn a_successor_takes_the_address_over() {
    let origin = Origin::echo();
    let first = Tier::plain(origin.address, |_| {});
    let address = first.address;
    let lost = hand_over(first, || {
        Tier::plain(origin.address, |s| {
            s.listen = address.into();
            s.takeover = true;
        })
    });
    // Each of the two sockets may lose who comes in the moment between the last look and its end.
    assert!(lost <= 2, "{lost}");
}

#[test]
fn a_successor_on_the_same_socket_loses_nobody() {
    let origin = Origin::echo();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let start = || {
        let mut settings = settings();
        settings.upstream = format!("http://{}", origin.address).parse().unwrap();
        let listener = Some(listener.try_clone().unwrap());
        Tier::serving(crate::support::bind_with(settings, listener, EventSink::new(drop)).unwrap())
    };
    assert_eq!(hand_over(start(), start), 0);
}

#[test]
fn who_has_connected_before_the_stop_is_served() {
    let origin = Origin::echo();
    let mut settings = settings();
    settings.upstream = format!("http://{}", origin.address).parse().unwrap();
    settings.timeouts.drain = PATIENCE;
    let proxy = bind(settings, EventSink::new(drop)).unwrap();
    let mut clients: Vec<Raw> = (0..20).map(|_| Raw::new(proxy.local_addr())).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    // Nobody has taken them yet, and it is over already.
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime
        .block_on(proxy.serve(std::future::ready(())))
        .unwrap();
    for client in &mut clients {
        let reply = client.rest();
        assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    }
}

#[test]
fn a_socket_that_listens_already_is_served() {
    let origin = Origin::echo();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut settings = settings();
    settings.upstream = format!("http://{}", origin.address).parse().unwrap();
    let proxy = crate::support::bind_with(settings, Some(listener), EventSink::new(drop)).unwrap();
    assert_eq!(proxy.local_addr(), address);
    let serving = Tier::serving(proxy);
    let reply = serving.curl("/", &[]);
    assert_eq!(reply.status, 200, "{reply:?}");
}

/// Requests without an answer, of either version, and a tunnel.
#[test]
fn what_is_open_at_the_deadline_is_cut_off() {
    let origin = raw_origin(|_, mut upstream| {
        let head = upstream.until("\r\n\r\n");
        if head.contains("upgrade: x") {
            upstream.send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
            );
        }
        upstream.rest();
    });
    let mut tier = Tier::plain(origin, |s| s.timeouts.drain = Duration::from_millis(300));
    let mut busy = tier.connect();
    busy.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    let mut stream = tier.connect();
    // The preface, SETTINGS, and `GET http://h/`.
    let head = b"\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01h";
    stream.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    stream.0.write_all(head).unwrap();
    let mut tunnel = tier.connect();
    tunnel.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    tunnel.until("\r\n\r\n");
    tier.wait_for("proxy_forwarded_total", 3);
    let start = Instant::now();
    tier.order_stop();
    for cut in [&mut busy, &mut stream, &mut tunnel] {
        cut.rest();
    }
    tier.join();
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert_eq!(tier.count("proxy_closed_drain_deadline"), 2);
}
