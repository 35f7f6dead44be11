//! Ways to an upstream: TLS, HTTP/2.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::{Reason, SendStream, server};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokenblock::proxy::{ProxySettings, Upstream, UpstreamHttp};
use tokio::{net::TcpStream, runtime::Builder};

use crate::{
    streams::{Client, connected, get},
    support::{LISTED, Origin, OriginBody, Tier, certificate, full, raw_origin},
};

fn https(tier: &Tier) -> Upstream {
    tier.url("").parse().unwrap()
}

/// A proxy before a proxy, the second over TLS.
fn before(second: &Tier, adjust: impl FnOnce(&mut ProxySettings)) -> Tier {
    Tier::plain(second.address, |s| {
        s.upstream = https(second);
        s.upstream_tls.ca.clone_from(&second.ca);
        adjust(s);
    })
}

#[test]
fn an_upstream_over_tls_must_be_who_it_should_be() {
    let origin = Origin::echo();
    let second = Tier::tls(origin.address, |_| {});
    let tier = before(&second, |_| {});
    let reply = tier.curl("/", &["-d", "x"]);
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(
        reply
            .body
            .contains("via: 1.1 tokenblock\nvia: 1.1 tokenblock\n")
    );
    // By the system's authorities it is not.
    let tier = before(&second, |s| s.upstream_tls.ca = None);
    assert_eq!(tier.curl("/", &[]).status, 502);
    let tier = before(&second, |s| {
        s.upstream_tls.server_name = Some("other.example".to_owned());
    });
    assert_eq!(tier.curl("/", &[]).status, 502);
    assert_eq!(tier.count("proxy_refused_upstream_connect"), 1);
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_certificate_is_shown_to_an_upstream_that_asks_for_one() {
    let origin = Origin::echo();
    let folder = tempfile::tempdir().unwrap();
    let ours = certificate(folder.path(), "ours", &["proxy.example"]);
    let second = Tier::tls(origin.address, |s| s.client_ca = Some(ours.cert.clone()));
    let tier = before(&second, |_| {});
    assert_eq!(tier.curl("/", &[]).status, 502);
    let tier = before(&second, |s| s.upstream_tls.client = Some(ours.clone()));
    assert_eq!(tier.curl("/", &[]).status, 200);
}

#[test]
fn http_2_is_spoken_where_set_or_agreed() {
    let origin = Origin::echo();
    let second = Tier::tls(origin.address, |_| {});
    for http in [UpstreamHttp::Http2, UpstreamHttp::Negotiated] {
        let tier = before(&second, |s| s.upstream_http = http);
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let reply = tier.curl("/p?q", &[version, "-d", "x", "-H", "Host: shop.example"]);
            assert_eq!(reply.status, 200, "{reply:?}");
            assert!(reply.body.contains("via: 2.0 tokenblock\n"), "{reply:?}");
            assert!(reply.body.starts_with("POST /p?q\n"), "{reply:?}");
            assert!(reply.body.contains("host: shop.example\n"), "{reply:?}");
            assert!(reply.body.ends_with("\n\nx"), "{reply:?}");
        }
        assert!(tier.count("proxy_upstream_connects_total") <= 2);
    }
    // An upstream that agrees to nothing is spoken to in HTTP/1.1.
    let plain = Tier::plain(origin.address, |s| {
        s.upstream_http = UpstreamHttp::Negotiated;
    });
    assert_eq!(plain.curl("/", &[]).status, 200);
}

#[test]
fn grpc_passes_with_its_trailers() {
    let origin = Origin::serving(|request| async {
        assert_eq!(request.version(), http::Version::HTTP_2);
        assert_eq!(request.headers()["te"], "trailers");
        let message = request.into_body().collect().await.unwrap().to_bytes();
        let status = (
            HeaderName::from_static("grpc-status"),
            HeaderValue::from_static("0"),
        );
        let body = full(message).with_trailers(async { Some(Ok(HeaderMap::from_iter([status]))) });
        Response::builder()
            .header("content-type", "application/grpc")
            .body(body.boxed())
            .unwrap()
    });
    let tier = Tier::plain(origin.address, |s| s.upstream_http = UpstreamHttp::Http2);
    let call = |field: &str, value: &str| {
        let request = Request::post("http://h.example/pkg.Service/Call")
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .header(field, value);
        tier.http2(request.body(full("message")).unwrap())
    };
    let reply = call("x-clean", "1");
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.headers()["content-type"], "application/grpc");
    let (body, trailers) = reply.into_body();
    assert_eq!(body, "message");
    assert_eq!(trailers.unwrap()["grpc-status"], "0");
    assert_eq!(call("authorization", LISTED).status(), 403);
}

/// A server of HTTP/2 that breaks off one answer, for this reason, when it begins the next.
fn breaks_off(reason: Reason) -> SocketAddr {
    raw_origin(move |_, upstream| {
        upstream.0.set_nonblocking(true).unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let stream = TcpStream::from_std(upstream.0).unwrap();
            let mut connection = server::handshake(stream).await.unwrap();
            let mut before: Option<SendStream<Bytes>> = None;
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let next = respond.send_response(Response::new(()), false).unwrap();
                if let Some(mut before) = before.replace(next) {
                    before.send_reset(reason);
                }
            }
        });
    })
}

/// Calls of gRPC end by it: cancelled, out of resources.
#[test]
fn why_an_answer_breaks_off_is_passed_on() {
    for reason in [Reason::CANCEL, Reason::ENHANCE_YOUR_CALM] {
        let origin = breaks_off(reason);
        let tier = Tier::plain(origin, |s| s.upstream_http = UpstreamHttp::Http2);
        connected(&tier, async |client| {
            let first = client.send(get("/")).await.unwrap();
            let _next = client.send(get("/")).await.unwrap();
            assert_eq!(Client::read(first).await.broken(), Some(reason));
        });
    }
}

#[test]
fn an_upgrade_takes_http_1_1_though_http_2_could_be_agreed() {
    let websocket: SocketAddr = raw_origin(|_, mut upstream| {
        upstream.until("\r\n\r\n");
        upstream.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi",
        );
        upstream.rest();
    });
    let second = Tier::tls(websocket, |_| {});
    let tier = before(&second, |s| s.upstream_http = UpstreamHttp::Negotiated);
    let mut client = tier.connect();
    client.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert!(client.until("\r\n\r\nhi").starts_with("HTTP/1.1 101 "));
}

/// A body of unknown length, and trailers.
fn with_trailers(bytes: Bytes, name: &'static str, value: &'static str) -> OriginBody {
    let name = HeaderName::from_static(name);
    let trailers = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
    let frames = [Frame::data(bytes), Frame::trailers(trailers)].map(Ok);
    StreamBody::new(futures_util::stream::iter(frames)).boxed()
}

/// The trailers of a message are its trailers, whichever version of HTTP it comes and goes by.
#[test]
fn trailers_pass_from_one_version_to_the_other() {
    let origin = Origin::serving(|request| async {
        let whole = request.into_body().collect().await.unwrap();
        assert_eq!(whole.trailers().unwrap()["x-sum"], "7");
        Response::builder()
            .header("trailer", "x-back")
            .body(with_trailers(whole.to_bytes(), "x-back", "9"))
            .unwrap()
    });
    for http in [UpstreamHttp::Http1, UpstreamHttp::Http2] {
        let tier = Tier::plain(origin.address, |s| s.upstream_http = http);
        let request = Request::post("http://h/")
            .header("te", "trailers")
            .header("trailer", "x-sum");
        let body = with_trailers("hello".into(), "x-sum", "7");
        let (body, trailers) = tier.http2(request.body(body).unwrap()).into_body();
        assert_eq!(body, "hello", "{http:?}");
        assert_eq!(trailers.unwrap()["x-back"], "9", "{http:?}");
        let mut client = tier.connect();
        client.send(
            "POST / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nConnection: TE\r\nTrailer: X-Sum\r\n\
             Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n",
        );
        let reply = client.until("0\r\nx-back: 9\r\n\r\n");
        assert!(reply.starts_with("HTTP/1.1 200 "), "{http:?}: {reply}");
    }
}
