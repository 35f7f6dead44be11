//! A proxy with a denylist, an origin behind it, and clients.

use std::{
    convert::Infallible,
    fmt::Write as _,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{body::Incoming, client::conn::http2, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use socket2::{Socket, Type};
use tempfile::TempDir;
use tokenblock::{
    denylist::{Action, Fingerprint, Listed, ProxySet, ShortTokenId, TokenDigest},
    event::{EventSink, TokenSeen},
    proxy::{Places, Proxy, ProxyCounters, ProxyError, ProxyReload, ProxySettings, TlsFiles},
};
use tokenblock_ebpf::{
    digest::{Domain, InstallationKey},
    location::LocationKind,
    rules::Rules,
};
use tokio::{net::TcpListener, runtime::Builder, sync::oneshot};

/// How long what must come may take on a machine that has much else to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// A free port.
pub(crate) const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// A token that is blocked.
pub(crate) const LISTED: &str = "tok-en_ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
/// A token that is reported and passes.
pub(crate) const ALERT: &str = "alert-ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
/// The signed part of a JSON Web Token that is blocked.
pub(crate) const SIGNED: &str =
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJzb21lIjoicGF5bG9hZDk5OTk5OTEifQ";
const KEY: InstallationKey = InstallationKey([3; 16]);
const LOCATIONS: [(LocationKind, &str); 5] = [
    (LocationKind::Header, "authorization"),
    (LocationKind::Header, "x-api-key"),
    (LocationKind::Cookie, "session"),
    (LocationKind::Query, "access_token"),
    (LocationKind::Header, "sec-websocket-protocol"),
];

/// A running proxy; stopped when dropped.
pub(crate) struct Tier {
    pub(crate) address: SocketAddr,
    pub(crate) counters: ProxyCounters,
    pub(crate) reload: ProxyReload,
    pub(crate) ca: Option<PathBuf>,
    /// Where its certificates lie; for a test's own files too.
    pub(crate) folder: PathBuf,
    events: Arc<Mutex<Vec<TokenSeen>>>,
    running: Running,
    _files: Option<TempDir>,
}

/// What stops the proxy when dropped.
struct Running {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Tier {
    /// A cleartext proxy before `origin`.
    pub(crate) fn plain(origin: SocketAddr, adjust: impl FnOnce(&mut ProxySettings)) -> Self {
        Self::start(origin, None, tempfile::tempdir().unwrap(), adjust)
    }

    /// A TLS proxy before `origin`, with a certificate for `localhost`.
    pub(crate) fn tls(origin: SocketAddr, adjust: impl FnOnce(&mut ProxySettings)) -> Self {
        let files = tempfile::tempdir().unwrap();
        let tls = certificate(files.path(), "server", &["localhost"]);
        Self::start(origin, Some(tls), files, adjust)
    }

    fn start(
        origin: SocketAddr,
        tls: Option<TlsFiles>,
        files: TempDir,
        adjust: impl FnOnce(&mut ProxySettings),
    ) -> Self {
        let upstream = format!("http://{origin}").parse().unwrap();
        let mut settings = ProxySettings::new(LOOPBACK, upstream);
        settings.workers = 2.try_into().unwrap();
        let ca = tls.as_ref().map(|tls| tls.cert.clone());
        settings.tls = tls;
        adjust(&mut settings);
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&events);
        let sink = EventSink::new(move |event| sink.lock().unwrap().push(event));
        Self {
            ca,
            folder: files.path().to_owned(),
            events,
            _files: Some(files),
            ..Self::serving(bind(settings, sink).unwrap())
        }
    }

    /// A proxy that is made already, and tells of no events.
    pub(crate) fn serving(proxy: Proxy) -> Self {
        let (address, counters) = (proxy.local_addr(), proxy.counter_reader());
        let reload = proxy.reload();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let shutdown = async { drop(stopped.await) };
            runtime.block_on(proxy.serve(shutdown)).unwrap();
        });
        Self {
            address,
            counters,
            reload,
            ca: None,
            folder: PathBuf::new(),
            events: Arc::default(),
            running: Running {
                stop: Some(stop),
                thread: Some(thread),
            },
            _files: None,
        }
    }

    pub(crate) fn events(&self) -> Vec<TokenSeen> {
        self.events.lock().unwrap().clone()
    }

    /// The counter of this name.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let all = self.counters.read();
        let found = all.iter().find(|(n, _)| n == name);
        found.unwrap_or_else(|| panic!("no counter {name}")).1
    }

    /// Waits until the counter has come to `least`.
    pub(crate) fn wait_for(&self, name: &str, least: u64) {
        let start = Instant::now();
        while self.count(name) < least {
            assert!(start.elapsed() < PATIENCE, "{name} < {least}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Orders the proxy to stop, without waiting.
    pub(crate) fn order_stop(&mut self) {
        self.running.stop.take();
    }

    /// Waits until it has stopped.
    pub(crate) fn join(&mut self) {
        if let Some(thread) = self.running.thread.take() {
            thread.join().unwrap();
        }
    }

    /// `https://localhost:port` or `http://127.0.0.1:port`, with this path.
    pub(crate) fn url(&self, path: &str) -> String {
        match self.ca {
            Some(_) => format!("https://localhost:{}{path}", self.address.port()),
            None => format!("http://{}{path}", self.address),
        }
    }

    /// Runs curl on `path`; standard output is the status, a line feed and the body.
    pub(crate) fn curl(&self, path: &str, args: &[&str]) -> Reply {
        let mut command = Command::new("curl");
        command
            .args(["-sS", "-m", "20", "--noproxy", "*", "-i"])
            .args(args);
        if let Some(ca) = &self.ca {
            command.arg("--cacert").arg(ca);
        }
        Reply::of(&command.arg(self.url(path)).output().unwrap())
    }

    /// What curl says on standard error, with `args` in front of the URL and without the usual `--cacert`.
    pub(crate) fn curl_at(&self, url: &str, args: &[&str]) -> Reply {
        let mut command = Command::new("curl");
        command.args(["-sS", "-m", "20", "--noproxy", "*", "-i"]);
        let resolve = format!("*:{}:127.0.0.1", self.address.port());
        command.args(["--resolve", &resolve]).args(args).arg(url);
        Reply::of(&command.output().unwrap())
    }

    /// Sends one request over an HTTP/2 connection of its own to a cleartext proxy.
    pub(crate) fn http2(
        &self,
        request: Request<OriginBody>,
    ) -> Response<(Bytes, Option<http::HeaderMap>)> {
        let address = self.address;
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let (mut sender, connection) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                    .await
                    .unwrap();
            tokio::spawn(connection);
            let response = sender.send_request(request).await.unwrap();
            let (parts, body) = response.into_parts();
            let body = body.collect().await.unwrap();
            let trailers = body.trailers().cloned();
            Response::from_parts(parts, (body.to_bytes(), trailers))
        })
    }

    /// A bare connection to a cleartext proxy.
    pub(crate) fn connect(&self) -> Raw {
        Raw::new(self.address)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take().filter(|_| !thread::panicking()) {
            thread.join().unwrap();
        }
    }
}

/// Binds a proxy with the denylist of these tests.
pub(crate) fn bind(settings: ProxySettings, events: EventSink) -> Result<Proxy, ProxyError> {
    bind_with(settings, None, events)
}

/// The same, on a socket that listens already.
pub(crate) fn bind_with(
    settings: ProxySettings,
    listener: Option<std::net::TcpListener>,
    events: EventSink,
) -> Result<Proxy, ProxyError> {
    let bytes: Vec<(LocationKind, &[u8])> = LOCATIONS
        .iter()
        .map(|(kind, name)| (*kind, name.as_bytes()))
        .collect();
    let rules = Rules::new(&KEY, 8, &bytes).unwrap();
    let names = LOCATIONS
        .iter()
        .map(|(kind, name)| Arc::from(format!("{kind:?} {name}").to_lowercase()))
        .collect();
    let set = ProxySet::default();
    let listed = |domain, text: &str, action, id| {
        let token = ShortTokenId([id; 6]);
        let digest = TokenDigest::of(&KEY, domain, text.as_bytes());
        let fingerprint = Fingerprint::of(&KEY, domain, text.as_bytes());
        let listed = Listed {
            token,
            action,
            fingerprint,
        };
        (digest, listed)
    };
    set.add(&[
        listed(Domain::Exact, LISTED, Action::Block, 1),
        listed(Domain::Jws, SIGNED, Action::Block, 2),
        listed(Domain::Exact, ALERT, Action::Alert, 3),
    ]);
    let places = Places {
        rules: Arc::new(rules),
        locations: names,
    };
    let denylist = set.reader();
    match listener {
        Some(listener) => Proxy::with_listener(settings, listener, places, denylist, events),
        None => Proxy::bind(settings, places, denylist, events),
    }
}

/// What curl got.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
    pub(crate) error: String,
}

impl Reply {
    fn of(output: &Output) -> Self {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut rest = &text[..];
        let mut head = "";
        // Interim responses come first.
        while let Some((first, more)) = rest.split_once("\r\n\r\n") {
            (head, rest) = (first, more);
            let interim = head.split(' ').nth(1).is_some_and(|s| s.starts_with('1'));
            if !interim || head.contains(" 101") {
                break;
            }
        }
        Self {
            status: head
                .split_ascii_whitespace()
                .nth(1)
                .and_then(|s| s.parse().ok())
                .unwrap_or(0),
            head: head.to_lowercase(),
            body: rest.to_owned(),
            error: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A bare TCP connection.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    /// From this address.
    pub(crate) fn from(source: &str, address: SocketAddr) -> Self {
        let socket = Socket::new(socket2::Domain::IPV4, Type::STREAM, None).unwrap();
        let source = SocketAddr::new(source.parse().unwrap(), 0);
        socket.bind(&source.into()).unwrap();
        socket.connect(&address.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    pub(crate) fn send(&mut self, text: &str) -> &mut Self {
        self.0.write_all(text.as_bytes()).unwrap();
        self
    }

    /// Reads until what came ends with or holds `end`.
    pub(crate) fn until(&mut self, end: &str) -> String {
        let mut got = Vec::new();
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&got).contains(end) {
            let n = read(&mut self.0, &mut buffer).unwrap_or_else(|error| {
                panic!("{error} after {:?}", String::from_utf8_lossy(&got))
            });
            assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(&got));
            got.extend_from_slice(&buffer[..n]);
        }
        String::from_utf8(got).unwrap()
    }

    /// Reads until the other end closes.
    pub(crate) fn rest(&mut self) -> String {
        let mut got = Vec::new();
        match self.0.read_to_end(&mut got) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&got)),
        }
        String::from_utf8_lossy(&got).into_owned()
    }
}

/// Reads what has come. A read with a time limit is interrupted where the machine is stopped and goes on.
pub(crate) fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// A body that an origin sends.
pub(crate) type OriginBody = BoxBody<Bytes, Infallible>;

/// A server behind the proxy, of hyper; it takes HTTP/1.1 and HTTP/2 with prior knowledge.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    /// Request heads as they came, one text a request.
    seen: Arc<Mutex<Vec<String>>>,
    connections: Arc<Mutex<u64>>,
    _stop: oneshot::Sender<()>,
}

impl Origin {
    /// Echoes the head of each request, an empty line and its body.
    pub(crate) fn echo() -> Self {
        Self::serving(|request| async {
            let head = show(&request);
            let body = request.into_body().collect().await;
            let body = body.map_or_else(|_| Bytes::new(), http_body_util::Collected::to_bytes);
            let text = [head.as_bytes(), b"\n", &body].concat();
            Response::new(full(text))
        })
    }

    /// Answers by `handler`.
    pub(crate) fn serving<F, R>(handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<OriginBody>> + Send + 'static,
    {
        let (address_in, address) = std::sync::mpsc::channel();
        let (stop, mut stopped) = oneshot::channel();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(Mutex::new(0));
        let (seen_by, counted_by) = (Arc::clone(&seen), Arc::clone(&connections));
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                address_in.send(listener.local_addr().unwrap()).unwrap();
                loop {
                    let (stream, _) = tokio::select! {
                        accepted = listener.accept() => accepted.unwrap(),
                        _ = &mut stopped => return,
                    };
                    *counted_by.lock().unwrap() += 1;
                    let (handler, seen) = (handler.clone(), Arc::clone(&seen_by));
                    let service = service_fn(move |request: Request<Incoming>| {
                        seen.lock().unwrap().push(show(&request));
                        let answer = handler(request);
                        async { Ok::<_, Infallible>(answer.await) }
                    });
                    tokio::spawn(async move {
                        let http = auto::Builder::new(TokioExecutor::new());
                        drop(
                            http.serve_connection_with_upgrades(TokioIo::new(stream), service)
                                .await,
                        );
                    });
                }
            });
        });
        Self {
            address: address.recv().unwrap(),
            seen,
            connections,
            _stop: stop,
        }
    }

    /// The heads that came so far.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// Connections that were made so far.
    pub(crate) fn connections(&self) -> u64 {
        *self.connections.lock().unwrap()
    }
}

/// Answers each request with what it is told for its path.
pub(crate) fn scripted(
    answer: impl Fn(&str) -> &'static str + Send + Sync + 'static,
) -> SocketAddr {
    raw_origin(move |_, mut upstream| {
        loop {
            let head = upstream.until("\r\n\r\n");
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            upstream.send(answer(&path));
            if path.contains("close") {
                return;
            }
        }
    })
}

/// A proxy of one worker, so that its connections share what a worker has.
pub(crate) fn one_worker(origin: SocketAddr) -> Tier {
    Tier::plain(origin, |settings| settings.workers = 1.try_into().unwrap())
}

/// A server that speaks as `handle` does: called with the number of the connection, from 0.
pub(crate) fn raw_origin(handle: impl Fn(usize, Raw) + Send + Sync + 'static) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let handle = Arc::new(handle);
    thread::spawn(move || {
        for (index, stream) in listener.incoming().enumerate() {
            let handle = Arc::clone(&handle);
            thread::spawn(move || handle(index, Raw(stream.unwrap())));
        }
    });
    address
}

/// Where nobody listens.
pub(crate) fn nobody() -> SocketAddr {
    let gone = std::net::TcpListener::bind(LOOPBACK).unwrap();
    gone.local_addr().unwrap()
}

/// A whole body.
pub(crate) fn full(bytes: impl Into<Bytes>) -> OriginBody {
    Full::new(bytes.into()).boxed()
}

/// The head of a request, one field a line.
fn show<B>(request: &Request<B>) -> String {
    let mut text = format!("{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        writeln!(text, "{name}: {value}").unwrap();
    }
    text
}

/// Writes a self-signed certificate for these names and its key.
pub(crate) fn certificate(folder: &Path, name: &str, names: &[&str]) -> TlsFiles {
    certificate_of(&rcgen::PKCS_ECDSA_P256_SHA256, folder, name, names)
}

/// The same, with a key of this kind.
pub(crate) fn certificate_of(
    kind: &'static rcgen::SignatureAlgorithm,
    folder: &Path,
    name: &str,
    names: &[&str],
) -> TlsFiles {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let signing_key = rcgen::KeyPair::generate_for(kind).unwrap();
    let parameters = rcgen::CertificateParams::new(names).unwrap();
    let cert = parameters.self_signed(&signing_key).unwrap();
    let files = TlsFiles {
        cert: folder.join(format!("{name}.pem")),
        key: folder.join(format!("{name}.key")),
    };
    std::fs::write(&files.cert, cert.pem()).unwrap();
    std::fs::write(&files.key, signing_key.serialize_pem()).unwrap();
    files
}
