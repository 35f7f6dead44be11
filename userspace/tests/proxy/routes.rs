//! Several upstreams: which one is asked, and what if it is not there.

use std::{
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixListener,
    sync::{Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use tokenblock::proxy::{Balance, ProxySettings, UpstreamHttp};

use crate::support::{Origin, PATIENCE, Raw, Tier, raw_origin};

/// An origin that says who it is.
fn named(name: &'static str) -> SocketAddr {
    raw_origin(move |_, mut upstream| {
        loop {
            upstream.until("\r\n\r\n");
            upstream.send(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{name}"
            ));
        }
    })
}

fn one_worker(settings: &mut ProxySettings) {
    settings.workers = 1.try_into().unwrap();
}

#[test]
fn requests_go_where_host_and_path_say() {
    let (api, shop, rest) = (named("a"), named("s"), named("r"));
    let tier = Tier::plain(rest, |s| {
        s.routes = vec![
            format!("/api=http://{api}").parse().unwrap(),
            format!("shop.example=http://{shop}").parse().unwrap(),
        ];
    });
    let who = |path: &str, host: &str| tier.curl(path, &["-H", &format!("Host: {host}")]).body;
    assert_eq!(who("/", "h"), "r");
    assert_eq!(who("/api/x?y", "h"), "a");
    assert_eq!(who("/apix", "h"), "r");
    assert_eq!(who("/api", "Shop.example:80"), "s");
}

#[test]
fn servers_take_turns_or_the_least_busy_one_is_asked() {
    let (one, two) = (Origin::echo(), Origin::echo());
    let tier = Tier::plain(one.address, |s| {
        one_worker(s);
        s.balance = Balance::RoundRobin;
        s.more_upstreams = vec![format!("http://{}", two.address).parse().unwrap()];
    });
    for _ in 0..10 {
        assert_eq!(tier.curl("/", &[]).status, 200);
    }
    assert_eq!((one.seen().len(), two.seen().len()), (5, 5));
    // One that holds its requests gets no more of them than it must.
    let (tell, holds) = mpsc::channel();
    let stuck = raw_origin(move |_, mut upstream| {
        upstream.until("\r\n\r\n");
        tell.send(()).unwrap();
        upstream.rest();
    });
    let tier = Tier::plain(stuck, |s| {
        one_worker(s);
        s.more_upstreams = vec![format!("http://{}", two.address).parse().unwrap()];
    });
    let held = 'asked: loop {
        let before = two.seen().len();
        let mut client = tier.connect();
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        let start = Instant::now();
        while two.seen().len() == before {
            if holds.recv_timeout(Duration::from_millis(5)).is_ok() {
                break 'asked client;
            }
            assert!(start.elapsed() < PATIENCE, "nobody is asked");
        }
    };
    for _ in 0..5 {
        assert_eq!(tier.curl("/", &[]).status, 200);
    }
    drop(held);
}

#[test]
fn a_server_that_is_gone_is_left_out_until_it_is_back() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = listener.local_addr().unwrap();
    drop(listener);
    let well = Origin::echo();
    let tier = || {
        Tier::plain(gone, |s| {
            one_worker(s);
            s.balance = Balance::RoundRobin;
            s.health.eject = Duration::from_millis(300);
            s.more_upstreams = vec![format!("http://{}", well.address).parse().unwrap()];
        })
    };
    let (tier, other) = (tier(), tier());
    for _ in 0..20 {
        assert_eq!(tier.curl("/", &[]).status, 200, "the other one is asked");
        let reply = other.curl("/", &["-d", "x"]);
        assert_eq!(reply.status, 200, "with a body too");
    }
    assert_eq!(tier.count("proxy_upstreams_ejected_total"), 1);
    let back = TcpListener::bind(gone).unwrap();
    let (asked, was_asked) = mpsc::channel();
    thread::spawn(move || {
        for stream in back.incoming() {
            let mut upstream = Raw(stream.unwrap());
            upstream.until("\r\n\r\n");
            upstream.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
            if asked.send(()).is_err() {
                return;
            }
        }
    });
    let start = Instant::now();
    while was_asked.try_recv().is_err() {
        assert_eq!(tier.curl("/", &[]).status, 200);
        assert!(start.elapsed() < PATIENCE, "not asked again");
    }
    // It has its turns again.
    for _ in 0..10 {
        assert_eq!(tier.curl("/", &[]).status, 200);
    }
    assert!(was_asked.try_iter().count() >= 4, "left out still");
}

/// Once in a while is no failure, and what an upstream takes without an answer is one.
#[test]
fn only_failures_in_a_row_leave_a_server_out() {
    let origin = raw_origin(|_, mut upstream| {
        while !upstream.until("\r\n\r\n").contains(" /fails ") {
            upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    for more in [&[][..], &["-d", "x"]] {
        let tier = Tier::plain(origin, |s| {
            one_worker(s);
            s.health.failures = 2;
            s.timeouts.upstream_idle = Duration::ZERO;
        });
        for _ in 0..4 {
            assert_eq!(tier.curl("/fails", more).status, 502);
            assert_eq!(tier.curl("/", more).status, 200);
        }
        assert_eq!(tier.count("proxy_upstreams_ejected_total"), 0);
        for _ in 0..2 {
            assert_eq!(tier.curl("/fails", more).status, 502);
        }
        assert_eq!(tier.count("proxy_upstreams_ejected_total"), 1, "{more:?}");
    }
}

/// An origin that answers once it is told to, and tells when a connection is closed.
fn held() -> (SocketAddr, mpsc::Sender<()>, mpsc::Receiver<()>) {
    let (go, gone) = mpsc::channel::<()>();
    let (tell, closed) = mpsc::channel();
    let gone = Mutex::new(gone);
    let origin = raw_origin(move |_, mut upstream| {
        upstream.until("\r\n\r\n");
        gone.lock().unwrap().recv().unwrap();
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        upstream.0.set_read_timeout(None).unwrap();
        upstream.rest();
        tell.send(()).unwrap();
    });
    (origin, go, closed)
}

const KINDS: [&str; 2] = ["", "TE: trailers\r\n"];

fn ask(tier: &Tier, kind: &str) -> Raw {
    let mut client = tier.connect();
    client.send(&format!("GET / HTTP/1.1\r\nHost: h\r\n{kind}\r\n"));
    client
}

#[test]
fn connections_that_nobody_uses_are_closed_in_time() {
    for kind in KINDS {
        let (origin, go, closed) = held();
        let tier = Tier::plain(origin, |s| {
            one_worker(s);
            s.timeouts.upstream_idle = Duration::from_millis(200);
        });
        let mut client = ask(&tier, kind);
        go.send(()).unwrap();
        client.until("ok");
        closed.recv_timeout(PATIENCE).unwrap();
    }
}

#[test]
fn no_more_unused_connections_are_kept_than_set() {
    for kind in KINDS {
        let (origin, go, closed) = held();
        let tier = Tier::plain(origin, |s| {
            one_worker(s);
            s.limits.upstream_idle = 1;
            s.timeouts.upstream_idle = Duration::from_mins(5);
        });
        let mut clients = [ask(&tier, kind), ask(&tier, kind), ask(&tier, kind)];
        tier.wait_for("proxy_upstream_connects_total", 3);
        for _ in &clients {
            go.send(()).unwrap();
        }
        for client in &mut clients {
            client.until("ok");
        }
        for _ in 0..2 {
            closed.recv_timeout(PATIENCE).unwrap();
        }
        assert!(closed.try_recv().is_err(), "the third is kept");
    }
}

#[test]
fn where_no_server_is_usable_503_says_so_until_one_is_back() {
    let gone = || {
        TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
    };
    let (one, other) = (gone(), gone());
    let tier = Tier::plain(one, |s| {
        one_worker(s);
        s.health.eject = Duration::from_millis(1500);
        s.more_upstreams = vec![format!("http://{other}").parse().unwrap()];
    });
    // Over the path of plain requests, and over the other.
    for body in [&[][..], &["-d", "x"]] {
        let start = Instant::now();
        loop {
            let reply = tier.curl("/", body);
            if reply.status == 503 {
                assert_eq!(reply.body, "{\"error\":\"no_upstream\"}\n");
                break;
            }
            assert_eq!(reply.status, 502, "{reply:?}");
            assert!(start.elapsed() < PATIENCE, "still 502");
        }
    }
    assert!(tier.count("proxy_refused_no_upstream") >= 2);
    assert_eq!(tier.count("proxy_upstreams_ejected_total"), 2);
    let back = TcpListener::bind(other).unwrap();
    thread::spawn(move || {
        for stream in back.incoming() {
            let mut upstream = Raw(stream.unwrap());
            upstream.until("\r\n\r\n");
            upstream.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let start = Instant::now();
    while tier.curl("/", &[]).status != 200 {
        assert!(start.elapsed() < PATIENCE, "not asked again");
    }
}

#[test]
fn connections_are_made_anew_in_time() {
    for http in [UpstreamHttp::Http1, UpstreamHttp::Http2] {
        let origin = Origin::echo();
        let tier = Tier::plain(origin.address, |s| {
            one_worker(s);
            s.upstream_http = http;
            s.timeouts.upstream_age = Duration::from_millis(200);
        });
        let start = Instant::now();
        while origin.connections() < 3 {
            for body in [&[][..], &["-d", "x"]] {
                assert_eq!(tier.curl("/", body).status, 200);
            }
            assert!(start.elapsed() < PATIENCE, "{http:?}");
        }
    }
}

#[test]
fn a_socket_of_the_file_system_is_an_upstream() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("origin.sock");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 4096];
        let n = stream.read(&mut head).unwrap();
        assert!(head[..n].starts_with(b"GET /x HTTP/1.1\r\n"));
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .unwrap();
    });
    let tier = Tier::plain("127.0.0.1:1".parse().unwrap(), |s| {
        s.upstream = format!("unix:{}", path.display()).parse().unwrap();
    });
    assert_eq!(tier.curl("/x", &[]).body, "ok");
}
