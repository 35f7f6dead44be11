//! What upstreams say before they respond (RFC 9110 section 15.2).

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use bytes::Bytes;
use h2::{RecvStream, client::ResponseFuture, server};
use http::{Request, Response, StatusCode};
use tokenblock::proxy::UpstreamHttp;
use tokio::{net::TcpListener, runtime};

use crate::{
    streams::{Client, adjusted, connected, ways},
    support::{Tier, raw_origin},
};

/// Where an upstream is that says something before it answers, and waits then until that is known.
struct Hinting {
    address: SocketAddr,
    http: UpstreamHttp,
    go: mpsc::Sender<()>,
}

fn hinting(http: UpstreamHttp) -> Hinting {
    let (go, gone) = mpsc::channel();
    let address = match http {
        UpstreamHttp::Http2 => hinting_http2(gone),
        UpstreamHttp::Http1 | UpstreamHttp::Negotiated => hinting_http1(gone),
    };
    Hinting { address, http, go }
}

fn hinting_http1(gone: mpsc::Receiver<()>) -> SocketAddr {
    let gone = Mutex::new(gone);
    raw_origin(move |_, mut upstream| {
        loop {
            let head = upstream.until("\r\n\r\n");
            upstream.send(
                "HTTP/1.1 100 Continue\r\n\r\n\
                 HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: X-Mine\r\nX-Mine: 1\r\n\r\n",
            );
            if head.starts_with("POST") && !head.contains("hello") {
                upstream.until("hello");
            }
            gone.lock().unwrap().recv().unwrap();
            upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    })
}

fn hinting_http2(gone: mpsc::Receiver<()>) -> SocketAddr {
    serving_http2(
        Arc::new(Mutex::new(gone)),
        |gone, mut respond, body| async move {
            for status in [StatusCode::CONTINUE, StatusCode::EARLY_HINTS] {
                let said = Response::builder().status(status).header("link", "</a>");
                respond.send_informational(said.body(()).unwrap()).unwrap();
            }
            read(body).await;
            let waiting = move || gone.lock().unwrap().recv().unwrap();
            tokio::task::spawn_blocking(waiting).await.unwrap();
            answer(respond);
        },
    )
}

/// An upstream of HTTP/2 that answers each request by `handle`.
fn serving_http2<S, F>(
    shared: S,
    handle: impl Fn(S, server::SendResponse<Bytes>, RecvStream) -> F + Clone + Send + 'static,
) -> SocketAddr
where
    S: Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (ready, address) = mpsc::channel();
    thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            ready.send(listener.local_addr().unwrap()).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (handle, shared) = (handle.clone(), shared.clone());
                tokio::spawn(async move {
                    let mut connection = server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(handle(shared.clone(), respond, request.into_body()));
                    }
                });
            }
        });
    });
    address.recv().unwrap()
}

async fn read(mut body: RecvStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        bytes.extend_from_slice(&data.unwrap());
    }
    bytes
}

fn answer(mut respond: server::SendResponse<Bytes>) {
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    stream.send_data("ok".into(), true).unwrap();
}

fn tier(upstream: &Hinting) -> Tier {
    Tier::plain(upstream.address, |settings| {
        settings.upstream_http = upstream.http;
        settings.timeouts.upstream_continue = Duration::from_mins(1);
    })
}

async fn next(response: &mut ResponseFuture) -> Option<Response<()>> {
    let said = std::future::poll_fn(|cx| response.poll_informational(cx)).await;
    said.map(Result::unwrap)
}

#[test]
fn it_is_passed_on_at_once_to_clients_of_http_1_1() {
    for http in [UpstreamHttp::Http1, UpstreamHttp::Http2] {
        let upstream = hinting(http);
        let tier = tier(&upstream);
        let mut client = tier.connect();
        let post = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
        for request in ["GET / HTTP/1.1\r\nHost: h\r\n\r\n", post] {
            let said = client.send(request).until("\r\n\r\n").to_lowercase();
            assert_eq!(
                said, "http/1.1 103 early hints\r\nlink: </a>\r\n\r\n",
                "{http:?}"
            );
            upstream.go.send(()).unwrap();
            assert!(
                client.until("ok").starts_with("HTTP/1.1 200 OK\r\n"),
                "{http:?}"
            );
        }
        // Each before its own response, where requests come together.
        client.send(&[post, post].concat());
        upstream.go.send(()).unwrap();
        upstream.go.send(()).unwrap();
        let (mut said, mut came) = (Vec::new(), String::new());
        while said.len() < 4 {
            came += &client.until("\n");
            let lines = came
                .lines()
                .filter(|line| line.starts_with("HTTP/1.1 ") || line.starts_with("okHTTP/1.1 "));
            said = lines
                .map(|line| line.trim_start_matches("ok")[9..12].to_owned())
                .collect();
        }
        assert_eq!(said, ["103", "200", "103", "200"], "{http:?}: {came}");
        // Clients of HTTP/1.0 know nothing of that.
        upstream.go.send(()).unwrap();
        let post = "POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello";
        let reply = tier.connect().send(post).rest();
        assert!(reply.starts_with("HTTP/1.0 200 "), "{http:?}: {reply}");
    }
}

#[test]
fn it_is_passed_on_at_once_to_clients_of_http_2() {
    let both = [UpstreamHttp::Http1, UpstreamHttp::Http2];
    for (http, way) in both
        .into_iter()
        .flat_map(|http| ways().map(|way| (http, way)))
    {
        let upstream = hinting(http);
        let tier = tier(&upstream);
        adjusted(&tier, &way, async |client| {
            for body in [None, Some("hello")] {
                let mut sender = client.0.clone().ready().await.unwrap();
                let method = if body.is_none() { "GET" } else { "POST" };
                let request = Request::builder().method(method).uri("http://h/");
                let request = request.body(()).unwrap();
                let (mut response, mut stream) =
                    sender.send_request(request, body.is_none()).unwrap();
                if let Some(body) = body {
                    stream.send_data(body.into(), true).unwrap();
                }
                let said = next(&mut response).await.unwrap();
                assert_eq!(said.status(), 103, "{http:?} {body:?}");
                assert_eq!(said.headers().len(), 1, "{said:?}");
                assert_eq!(said.headers()["link"], "</a>");
                upstream.go.send(()).unwrap();
                let answer = Client::read(response.await.unwrap()).await;
                assert_eq!((answer.status(), answer.text()), (200, "ok"));
            }
        });
    }
}

/// An upstream that asks for the body, or refuses without it, and tells what came.
fn asking(http: UpstreamHttp, refuses: bool) -> SocketAddr {
    if http == UpstreamHttp::Http1 {
        return raw_origin(move |_, mut upstream| {
            let head = upstream.until("\r\n\r\n");
            assert!(head.contains("expect: 100-continue"), "{head}");
            if refuses {
                upstream.send("HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno");
                return;
            }
            upstream
                .send("HTTP/1.1 100 Continue\r\n\r\n")
                .until("hello");
            upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        });
    }
    serving_http2((), move |(), mut respond, body| async move {
        if refuses {
            let no = Response::builder().status(413).body(()).unwrap();
            respond.send_response(no, true).unwrap();
            return;
        }
        let asks = Response::builder().status(100).body(()).unwrap();
        respond.send_informational(asks).unwrap();
        assert_eq!(read(body).await, b"hello");
        answer(respond);
    })
}

#[test]
fn a_client_of_http_2_is_asked_for_its_body_when_the_upstream_asks() {
    for http in [UpstreamHttp::Http1, UpstreamHttp::Http2] {
        for refuses in [false, true] {
            let address = asking(http, refuses);
            let tier = Tier::plain(address, |settings| {
                settings.upstream_http = http;
                settings.timeouts.upstream_continue = Duration::from_mins(1);
            });
            connected(&tier, async |client| {
                let mut sender = client.0.clone().ready().await.unwrap();
                let request = Request::post("http://h/").header("expect", "100-continue");
                let request = request.body(()).unwrap();
                let (mut response, mut stream) = sender.send_request(request, false).unwrap();
                let asked = next(&mut response).await;
                assert_eq!(
                    asked.map(|head| head.status().as_u16()),
                    (!refuses).then_some(100)
                );
                if !refuses {
                    stream.send_data("hello".into(), true).unwrap();
                }
                let status = response.await.unwrap().status();
                assert_eq!(status, if refuses { 413 } else { 200 }, "{http:?}");
            });
        }
    }
}

/// An upstream of HTTP/2 ends its stream with `NO_ERROR` where it has answered and wants no more (RFC 9113 section 8.1).
#[test]
fn an_answer_before_the_end_of_an_upload_comes_whole() {
    let address = serving_http2((), |(), respond, body| async move {
        answer(respond);
        drop(body);
    });
    let tier = Tier::plain(address, |s| s.upstream_http = UpstreamHttp::Http2);
    for _ in 0..20 {
        let mut client = tier.connect();
        let head = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n";
        client.send(head).send(&"x".repeat(100_000));
        let reply = client.until("ok");
        assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
        connected(&tier, async |client| {
            let mut sender = client.0.clone().ready().await.unwrap();
            let request = Request::post("http://h/").body(()).unwrap();
            let (response, mut stream) = sender.send_request(request, false).unwrap();
            stream.send_data(vec![b'x'; 60_000].into(), false).unwrap();
            let answer = Client::read(response.await.unwrap()).await;
            assert_eq!((answer.status(), answer.text()), (200, "ok"));
        });
    }
}

/// One that never asks gets it all the same, and so its client is asked.
#[test]
fn a_client_of_http_2_is_asked_for_its_body_after_a_while() {
    let upstream = raw_origin(|_, mut upstream| {
        upstream.until("hello");
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let tier = Tier::plain(upstream, |settings| {
        settings.timeouts.upstream_continue = Duration::from_millis(50);
    });
    connected(&tier, async |client| {
        let mut sender = client.0.clone().ready().await.unwrap();
        let request = Request::post("http://h/").header("expect", "100-continue");
        let (mut response, mut stream) = sender
            .send_request(request.body(()).unwrap(), false)
            .unwrap();
        assert_eq!(next(&mut response).await.unwrap().status(), 100);
        stream.send_data("hello".into(), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
    });
}
