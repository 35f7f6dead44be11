//! Requests over HTTP/2, most of them without a body: those take the upstream leg of plain requests.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    client::{self, SendRequest},
};
use http::{HeaderMap, Method, Request, Response};
use tokenblock::proxy::UpstreamHttp;
use tokio::runtime;

use crate::support::{
    LISTED, Origin, PATIENCE, Raw, Tier, full, nobody, one_worker, raw_origin, scripted,
};

/// One connection to a cleartext proxy.
#[derive(Clone)]
pub(crate) struct Client(pub(crate) SendRequest<Bytes>);

/// What came of a request: its head, its body and why that broke off.
pub(crate) struct Answer {
    head: Response<()>,
    body: Vec<u8>,
    broken: Option<h2::Error>,
}

/// Runs `with` over one connection.
pub(crate) fn connected<F: Future<Output = ()>>(tier: &Tier, with: impl FnOnce(Client) -> F) {
    adjusted(tier, &ample(), with);
}

/// Clients of both kinds: plain requests of the one are answered without the library, of the other by it.
pub(crate) fn ways() -> [client::Builder; 2] {
    [ample(), client::Builder::new()]
}

/// A client that takes so much that its plain requests are answered without the library.
pub(crate) fn ample() -> client::Builder {
    let mut builder = client::Builder::new();
    builder.initial_connection_window_size(4 << 20);
    builder
}

/// The same as a client of this kind.
pub(crate) fn adjusted<F: Future<Output = ()>>(
    tier: &Tier,
    builder: &client::Builder,
    with: impl FnOnce(Client) -> F,
) {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(tier.address).await.unwrap();
        let (sender, connection) = builder.handshake(stream).await.unwrap();
        let running = tokio::spawn(connection);
        let done = tokio::time::timeout(Duration::from_secs(20), with(Client(sender)));
        done.await.unwrap();
        running.abort();
    });
}

pub(crate) fn get(path: &str) -> Request<()> {
    Request::get(format!("http://h{path}")).body(()).unwrap()
}

impl Client {
    pub(crate) async fn send(
        &self,
        request: Request<()>,
    ) -> Result<Response<RecvStream>, h2::Error> {
        let mut sender = self.0.clone().ready().await.unwrap();
        let (response, _stream) = sender.send_request(request, true).unwrap();
        response.await
    }

    /// Why a response breaks off; the reset may overtake its head.
    async fn broken(&self, request: Request<()>) -> Option<Reason> {
        let error = match self.send(request).await {
            Ok(response) => return Self::read(response).await.broken(),
            Err(error) => error,
        };
        error.reason()
    }

    pub(crate) async fn ask(&self, request: Request<()>) -> Answer {
        Self::read(self.send(request).await.unwrap()).await
    }

    pub(crate) async fn read(response: Response<RecvStream>) -> Answer {
        let (head, mut stream) = response.into_parts();
        let (mut body, mut broken) = (Vec::new(), None);
        while let Some(data) = stream.data().await {
            match data {
                Ok(data) => {
                    stream.flow_control().release_capacity(data.len()).unwrap();
                    body.extend_from_slice(&data);
                }
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            }
        }
        Answer {
            head: Response::from_parts(head, ()),
            body,
            broken,
        }
    }
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.status().as_u16()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.headers().get(name).map(|v| v.to_str().unwrap())
    }

    /// Why the body broke off.
    pub(crate) fn broken(&self) -> Option<Reason> {
        self.broken.as_ref()?.reason()
    }

    pub(crate) fn text(&self) -> &str {
        assert!(self.broken.is_none(), "{:?}", self.broken);
        std::str::from_utf8(&self.body).unwrap()
    }
}

#[test]
fn heads_are_rewritten_for_http_1_1() {
    let (tell, heard) = mpsc::channel();
    let origin = raw_origin(move |_, mut upstream| {
        tell.send(upstream.until("\r\n\r\n")).unwrap();
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        upstream.rest();
    });
    for trusted in [false, true] {
        let tier = Tier::plain(origin, |settings| {
            if trusted {
                settings.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
            }
        });
        connected(&tier, async |client| {
            let request = Request::get("https://shop.example:8443/a/b?c=d")
                .header("x-own", "1")
                .header("cookie", "a=b")
                .header("x-forwarded-for", "192.0.2.1")
                .header("x-forwarded-proto", "gopher")
                .header("cookie", "c=d")
                .header("via", "1.1 front");
            let answer = client.ask(request.body(()).unwrap()).await;
            assert_eq!((answer.status(), answer.text()), (200, ""));
            assert!(answer.field("date").is_some());
        });
        let text = heard.recv().unwrap();
        let mut lines: Vec<&str> = text.trim_end().split("\r\n").collect();
        assert_eq!(lines.remove(0), "GET /a/b?c=d HTTP/1.1");
        lines.sort_unstable();
        let said = |untrusted, kept| if trusted { kept } else { untrusted };
        let wanted = [
            "cookie: a=b; c=d",
            "forwarded: for=127.0.0.1;proto=http",
            "host: shop.example:8443",
            "via: 1.1 front",
            "via: 2.0 tokenblock",
            said(
                "x-forwarded-for: 127.0.0.1",
                "x-forwarded-for: 192.0.2.1, 127.0.0.1",
            ),
            "x-forwarded-host: shop.example:8443",
            said("x-forwarded-proto: http", "x-forwarded-proto: gopher"),
            "x-own: 1",
        ];
        assert_eq!(lines, wanted);
    }
}

#[test]
fn bodies_of_every_framing_come_whole() {
    for builder in ways() {
        let origin = scripted(|path| match path {
            "/length" => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: s\r\n\r\nhello",
            "/chunked" => {
                "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
             HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: X-Mine\r\nX-Mine: 1\r\n\r\n\
             2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nX-Trailer: 1\r\n\r\n"
            }
            "/none" => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "/empty" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "/204" => "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
            "/304" => "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 7\r\n\r\n",
            "/head" => "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\n\r\nhello",
        });
        let tier = one_worker(origin);
        adjusted(&tier, &builder, async |client| {
            for _ in 0..2 {
                let answer = client.ask(get("/length")).await;
                assert_eq!(answer.text(), "hello");
                assert_eq!(answer.field("content-length"), Some("5"));
                assert_eq!(answer.field("server"), Some("s"));
                let answer = client.ask(get("/chunked")).await;
                assert_eq!(answer.text(), "hello");
                for gone in ["transfer-encoding", "connection", "x-mine", "link"] {
                    assert_eq!(answer.field(gone), None);
                }
                assert_eq!(client.ask(get("/none")).await.text(), "");
                assert_eq!(client.ask(get("/empty")).await.text(), "");
                let answer = client.ask(get("/204")).await;
                assert_eq!((answer.status(), answer.field("x-a")), (204, Some("b")));
                let answer = client.ask(get("/304")).await;
                assert_eq!((answer.status(), answer.text()), (304, ""));
                assert_eq!(answer.field("content-length"), Some("7"));
                let mut head = get("/head");
                *head.method_mut() = Method::HEAD;
                let answer = client.ask(head).await;
                assert_eq!((answer.status(), answer.text()), (200, ""));
                assert_eq!(answer.field("content-length"), Some("9"));
                assert_eq!(client.ask(get("/close")).await.text(), "hello");
            }
        });
        // One more for the one that was closed.
        assert_eq!(tier.count("proxy_upstream_connects_total"), 2);
        assert_eq!(tier.count("proxy_upstream_retries_total"), 0);
        assert_eq!(tier.count("proxy_requests_total"), 16);
    }
}

/// Whoever answers it: an upstream, or the proxy in its place.
#[test]
fn no_answer_to_head_has_a_body() {
    let (gone, origin) = (nobody(), Origin::echo());
    for builder in ways() {
        for (address, field, status) in [
            // Plain, and what asks for more.
            (gone, ("x-a", "b"), 502),
            (gone, ("te", "trailers"), 502),
            (origin.address, ("x-api-key", LISTED), 403),
        ] {
            let tier = one_worker(address);
            adjusted(&tier, &builder, async |client| {
                let ask = |method: Method, more: Option<(&'static str, &str)>| {
                    let mut request = get("/");
                    *request.method_mut() = method;
                    for (name, value) in more.into_iter().chain([field]) {
                        let value = value.parse().unwrap();
                        request.headers_mut().insert(name, value);
                    }
                    client.ask(request)
                };
                for more in [None, Some(("te", "trailers"))] {
                    let whole = ask(Method::GET, more).await;
                    assert_eq!(whole.status(), status);
                    let length = whole.text().len().to_string();
                    assert_eq!(whole.field("content-length"), Some(&*length));
                    // The library of this client takes a body for an error.
                    let head = ask(Method::HEAD, more).await;
                    assert_eq!((head.status(), head.text()), (status, ""), "{field:?}");
                    assert_eq!(head.field("content-length"), Some(&*length));
                }
            });
        }
    }
}

#[test]
fn all_kinds_of_requests_share_connections() {
    for builder in ways() {
        let origin = Origin::echo();
        let tier = one_worker(origin.address);
        adjusted(&tier, &builder, async |client| {
            for _ in 0..3 {
                let answer = client.ask(get("/plain")).await;
                assert!(answer.text().starts_with("GET /plain\n"));
                let mut sender = client.0.clone().ready().await.unwrap();
                let post = Request::post("http://h/post").body(()).unwrap();
                let (response, mut body) = sender.send_request(post, false).unwrap();
                body.send_data("the ".into(), false).unwrap();
                body.send_data("body".into(), true).unwrap();
                assert_eq!(response.await.unwrap().status(), 200);
                let mut request = get("/trailers");
                request
                    .headers_mut()
                    .insert("te", "trailers".parse().unwrap());
                assert!(client.ask(request).await.text().contains("te: trailers"));
                let mut request = get("/listed");
                request
                    .headers_mut()
                    .insert("x-api-key", LISTED.parse().unwrap());
                let answer = client.ask(request).await;
                assert_eq!(answer.status(), 403);
                assert_eq!(answer.text(), "{\"error\":\"listed_token\"}\n");
                assert_eq!(answer.field("content-length"), Some("25"));
            }
        });
        assert_eq!(origin.seen().len(), 9);
        assert_eq!(origin.connections(), 1);
        assert_eq!(tier.count("proxy_blocked_total"), 3);
        assert_eq!(tier.count("proxy_requests_total"), 12);
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_not_passed_on() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A: b\r\n folded\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Len",
    ] {
        let tier = one_worker(raw_origin(move |_, mut upstream| {
            upstream.until("\r\n\r\n");
            upstream.send(answer);
        }));
        connected(&tier, async |client| {
            let reply = client.ask(get("/")).await;
            assert_eq!(reply.status(), 502, "{answer:?}");
            assert_eq!(reply.text(), "{\"error\":\"upstream_failed\"}\n");
        });
        assert_eq!(tier.count("proxy_refused_upstream_failed"), 1);
    }
}

#[test]
fn what_follows_a_response_unasked_is_nobodys_answer() {
    let origin = scripted(
        |_| "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    );
    let tier = one_worker(origin);
    connected(&tier, async |client| {
        for _ in 0..3 {
            assert_eq!(client.ask(get("/")).await.text(), "hello");
        }
    });
    assert_eq!(tier.count("proxy_upstream_connects_total"), 3);
}

#[test]
fn a_body_that_breaks_off_resets_its_stream_alone() {
    for builder in ways() {
        let origin = scripted(|path| match path {
            "/close/length" => "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello",
            "/close/chunked" => {
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
            }
            "/nonsense" => {
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense"
            }
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        });
        let tier = one_worker(origin);
        adjusted(&tier, &builder, async |client| {
            for path in ["/close/length", "/close/chunked", "/nonsense"] {
                assert_eq!(client.broken(get(path)).await, Some(Reason::INTERNAL_ERROR));
                assert_eq!(client.ask(get("/whole")).await.text(), "ok");
            }
            let upload = Request::post("http://h/close/length").body(()).unwrap();
            let mut sender = client.0.clone().ready().await.unwrap();
            let (response, mut stream) = sender.send_request(upload, false).unwrap();
            stream.send_data("body".into(), true).unwrap();
            if let Ok(response) = response.await {
                assert!(Client::read(response).await.broken.is_some());
            }
        });
        tier.wait_for("proxy_responses_broken_total", 4);
    }
}

#[test]
fn an_upstream_that_says_nothing_keeps_nobody_else_waiting() {
    let tier = Tier::plain(
        raw_origin(|_, mut upstream| {
            while !upstream.until("\r\n\r\n").contains("/silent") {
                upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
            upstream.rest();
        }),
        |settings| {
            settings.workers = 1.try_into().unwrap();
            settings.timeouts.upstream_response = Duration::from_secs(1);
        },
    );
    connected(&tier, async |client| {
        let silent = client.clone();
        let silent = tokio::spawn(async move {
            let first = silent.ask(get("/silent"));
            let (first, second) = tokio::join!(first, silent.ask(get("/silent")));
            [first, second]
        });
        for _ in 0..20 {
            assert_eq!(client.ask(get("/")).await.text(), "ok");
        }
        for answer in silent.await.unwrap() {
            assert_eq!(answer.status(), 504);
            assert_eq!(answer.text(), "{\"error\":\"upstream_timeout\"}\n");
        }
        // And again, once all of that is over.
        assert_eq!(client.ask(get("/silent")).await.status(), 504);
    });
    assert_eq!(tier.count("proxy_refused_upstream_timeout"), 3);
}

#[test]
fn a_kept_connection_that_was_closed_is_no_error_where_that_is_safe() {
    let origin = raw_origin(|_, mut upstream| {
        upstream.until("\r\n\r\n");
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        upstream.until("\r\n\r\n");
    });
    let tier = one_worker(origin);
    connected(&tier, async |client| {
        for _ in 0..3 {
            assert_eq!(client.ask(get("/")).await.text(), "ok");
        }
        // Nobody knows whether the upstream has acted on this one.
        let mut post = get("/");
        *post.method_mut() = Method::POST;
        assert_eq!(client.ask(post).await.status(), 502);
    });
    assert_eq!(tier.count("proxy_upstream_retries_total"), 2);
}

#[test]
fn an_upstream_that_is_not_there_gives_502() {
    for builder in ways() {
        let tier = one_worker(nobody());
        adjusted(&tier, &builder, async |client| {
            let answer = client.ask(get("/")).await;
            assert_eq!(answer.status(), 502);
            assert_eq!(answer.text(), "{\"error\":\"upstream_connect\"}\n");
        });
    }
}

#[test]
fn many_streams_at_a_time_are_not_mixed_up() {
    for builder in ways() {
        // Answers come in an order of their own.
        let origin = Origin::serving(|request| async move {
            let path = request.uri().path().to_owned();
            let number: u64 = path[1..].parse().unwrap();
            tokio::time::sleep(Duration::from_millis(number * 7919 % 40)).await;
            Response::new(full(path.repeat(1000)))
        });
        let tier = one_worker(origin.address);
        adjusted(&tier, &builder, async |client| {
            for _ in 0..3 {
                let asked = (0..90).map(|number| {
                    let client = client.clone();
                    tokio::spawn(async move {
                        let path = format!("/{number}");
                        let answer = client.ask(get(&path)).await;
                        assert_eq!(answer.text(), path.repeat(1000));
                    })
                });
                for asked in asked.collect::<Vec<_>>() {
                    asked.await.unwrap();
                }
            }
        });
        assert_eq!(tier.count("proxy_forwarded_total"), 270);
    }
}

/// An upstream that sends 64 MiB to whoever asks, and counts what it was rid of.
fn bulky(sent: &Arc<AtomicU64>) -> SocketAddr {
    let sent = Arc::clone(sent);
    raw_origin(move |_, mut upstream: Raw| {
        use std::io::Write as _;
        upstream.until("\r\n\r\n");
        upstream.send(&format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {BULK}\r\n\r\n"
        ));
        for number in 0..BULK / PART {
            let part = [u8::try_from(number % 251).unwrap(); PART];
            if upstream.0.write_all(&part).is_err() {
                return;
            }
            sent.fetch_add(PART as u64, Ordering::Relaxed);
        }
        upstream.rest();
    })
}

const BULK: usize = 64 << 20;
const PART: usize = 1 << 14;

#[test]
fn a_large_body_comes_as_fast_as_the_client_takes_it() {
    for builder in ways() {
        let sent = Arc::new(AtomicU64::new(0));
        let tier = one_worker(bulky(&sent));
        adjusted(&tier, &builder, async |client| {
            let mut stream = client.send(get("/")).await.unwrap().into_body();
            // What is held on the way is bounded.
            let mut before = u64::MAX;
            while sent.load(Ordering::Relaxed) != before {
                before = sent.load(Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            assert!(before < BULK as u64 / 2, "{before} bytes on their way");
            let mut got = 0;
            while let Some(data) = stream.data().await {
                let data = data.unwrap();
                for (place, byte) in (got..).zip(&data) {
                    assert_eq!(usize::from(*byte), place / PART % 251, "at {place}");
                }
                got += data.len();
                stream.flow_control().release_capacity(data.len()).unwrap();
            }
            assert_eq!(got, BULK);
        });
    }
}

#[test]
fn the_upstream_is_let_go_when_the_client_resets_its_stream() {
    for builder in ways() {
        let (left, has_left) = mpsc::channel();
        let origin = raw_origin(move |_, mut upstream: Raw| {
            let head = upstream.until("\r\n\r\n");
            if head.contains("/body") {
                upstream
                    .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
            }
            upstream.rest();
            left.send(()).unwrap();
        });
        let tier = one_worker(origin);
        adjusted(&tier, &builder, async |client| {
            let (head, mut stream) = client.send(get("/body")).await.unwrap().into_parts();
            assert_eq!(head.status, 200);
            assert_eq!(stream.data().await.unwrap().unwrap(), "hello");
            drop(stream);
            let mut sender = client.0.clone().ready().await.unwrap();
            let (response, mut stream) = sender.send_request(get("/none"), true).unwrap();
            while tier.count("proxy_upstream_connects_total") < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            stream.send_reset(Reason::CANCEL);
            drop(response);
            // The connection goes on meanwhile.
            let gone = tokio::task::spawn_blocking(move || {
                for _ in 0..2 {
                    has_left.recv_timeout(PATIENCE).unwrap();
                }
            });
            gone.await.unwrap();
        });
    }
}

#[test]
fn a_refusal_waits_for_its_client_too() {
    let origin = Origin::echo();
    let tier = one_worker(origin.address);
    for mut builder in ways() {
        builder.initial_window_size(3);
        adjusted(&tier, &builder, async |client| {
            let mut request = get("/");
            *request.headers_mut() =
                HeaderMap::from_iter([("x-api-key".parse().unwrap(), LISTED.parse().unwrap())]);
            let answer = client.ask(request).await;
            assert_eq!(answer.status(), 403);
            assert_eq!(answer.text(), "{\"error\":\"listed_token\"}\n");
            let answer = client.ask(get("/small-window")).await;
            assert!(answer.text().starts_with("GET /small-window\n"));
        });
    }
}

#[test]
fn server_sent_events_come_one_by_one() {
    for builder in ways() {
        let (go, gone) = mpsc::channel::<()>();
        let gone = std::sync::Mutex::new(gone);
        let upstream = raw_origin(move |_, mut upstream| {
            upstream.until("\r\n\r\n");
            upstream.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n");
            gone.lock().unwrap().recv().unwrap();
            upstream.send("data: 2\n\n");
        });
        let tier = Tier::plain(upstream, |_| {});
        adjusted(&tier, &builder, async |client| {
            let mut body = client.send(get("/")).await.unwrap().into_body();
            assert_eq!(body.data().await.unwrap().unwrap(), "data: 1\n\n");
            go.send(()).unwrap();
            assert_eq!(body.data().await.unwrap().unwrap(), "data: 2\n\n");
            // The end, with nothing before it or behind an empty frame.
            while let Some(rest) = body.data().await {
                assert_eq!(rest.unwrap(), "");
            }
        });
    }
}

#[test]
fn targets_of_every_form() {
    let origin = Origin::echo();
    let tier = Tier::plain(origin.address, |_| {});
    let asterisk = [
        "--http2-prior-knowledge",
        "-X",
        "OPTIONS",
        "--request-target",
        "*",
    ];
    let reply = tier.curl("/", &asterisk);
    assert!(reply.body.starts_with("OPTIONS *\n"), "{reply:?}");
    connected(&tier, async |client| {
        let connect = Request::connect("h:443").body(()).unwrap();
        assert_eq!(client.ask(connect).await.status(), 405);
        assert_eq!(client.ask(get("/after")).await.status(), 200);
    });
    assert_eq!(tier.count("proxy_refused_connect"), 1);
}

/// Of a request with a body as of one without (RFC 9113 section 8.2.3).
#[test]
fn a_length_that_is_said_twice_goes_on_once() {
    let origin = Origin::echo();
    for http in [UpstreamHttp::Http1, UpstreamHttp::Http2] {
        let tier = Tier::plain(origin.address, |s| s.upstream_http = http);
        connected(&tier, async |client| {
            let mut sender = client.0.clone().ready().await.unwrap();
            let request = Request::post("http://h/").header("content-length", "5");
            let request = request.header("content-length", "5").body(()).unwrap();
            let (response, mut stream) = sender.send_request(request, false).unwrap();
            stream.send_data("hello".into(), true).unwrap();
            let answer = Client::read(response.await.unwrap()).await;
            let lengths = answer.text().matches("content-length: 5\n").count();
            assert_eq!((answer.status(), lengths), (200, 1), "{}", answer.text());
        });
    }
}

#[test]
fn crumbs_of_a_cookie_are_one_field_behind_the_proxy() {
    let origin = Origin::echo();
    let tier = Tier::plain(origin.address, |_| {});
    for body in ["", "body"] {
        let request = Request::post("http://h/")
            .header("cookie", "a=b")
            .header("cookie", "c=d");
        let reply = tier.http2(request.body(full(body)).unwrap());
        let (head, _) = reply.into_body();
        let head = String::from_utf8(head.to_vec()).unwrap();
        assert!(head.contains("\ncookie: a=b; c=d\n"), "{head}");
    }
}
