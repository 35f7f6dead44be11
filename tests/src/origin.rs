//! A real HTTP server that takes what lax servers take and remembers every byte it saw.

mod python;
mod request;

use std::{
    collections::HashMap,
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

pub use python::PythonServer;
pub use request::{Request, take as take_request};

use crate::{fixtures::binary, netns::Netns, poll};

/// How long a connection thread may take to see that the origin is gone.
const TICK: Duration = Duration::from_millis(100);
/// How often an answer that is held looks whether it may go.
const HELD: Duration = Duration::from_millis(2);

/// What one connection brought.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The client's end.
    pub peer: SocketAddr,
    /// All bytes that the application read.
    pub bytes: Vec<u8>,
    /// The complete requests among them.
    pub requests: Vec<Request>,
}

/// The server; it ends when dropped.
#[derive(Debug)]
pub struct Origin {
    listener: TcpListener,
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    connections: Mutex<Vec<Connection>>,
    pages: Mutex<HashMap<String, Page>>,
}

/// What a target is answered with.
#[derive(Clone, Debug, Default)]
struct Page {
    /// Its bytes, with the head, and how many of them are sent at once.
    response: Vec<u8>,
    first: usize,
    /// Whether the others may follow.
    released: bool,
}

impl Origin {
    /// Serves IPv4 and IPv6 at `port` of a namespace (0: any). Each request gets `200` with a short body, one for
    /// `/bytes/<n>` with the first `n` of [`binary`].
    ///
    /// # Errors
    /// Where the port can't be bound.
    pub fn start(netns: &Netns, port: u16) -> Result<Self> {
        let listener = netns
            .enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))?
            .with_context(|| format!("an origin at port {port}"))?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared::default());
        let (accepting, theirs) = (listener.try_clone()?, Arc::clone(&shared));
        thread::spawn(move || accept(&accepting, &theirs));
        Ok(Self {
            listener,
            port,
            shared,
        })
    }

    /// The port it listens at.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Answers `path` by this page from now on.
    pub fn put(&self, path: &str, html: &str) {
        let length = html.len();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\r\n"
        );
        let response = (head + html).into_bytes();
        let page = Page {
            first: response.len(),
            response,
            released: true,
        };
        self.shared.pages().insert(path.to_owned(), page);
    }

    /// Answers `path` by the `first` bytes of this response from now on, and by the others once it is released. A
    /// connection is stuck meanwhile, as it is at a server that thinks.
    pub fn hold(&self, path: &str, response: &[u8], first: usize) {
        let page = Page {
            response: response.to_vec(),
            first,
            released: false,
        };
        self.shared.pages().insert(path.to_owned(), page);
    }

    /// Lets the rest of what is held for `path` go.
    pub fn release(&self, path: &str) {
        if let Some(page) = self.shared.pages().get_mut(path) {
            page.released = true;
        }
    }

    /// What came so far.
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        self.shared.lock().clone()
    }

    /// What the connection from `peer` brought; nothing where the application never read a byte of it.
    #[must_use]
    pub fn seen_from(&self, peer: SocketAddr) -> Vec<u8> {
        self.shared
            .lock()
            .iter()
            .find(|connection| is_from(connection, peer))
            .map_or_else(Vec::new, |c| c.bytes.clone())
    }

    /// What all connections from `peer` brought, one after the other.
    #[must_use]
    pub fn all_seen_from(&self, peer: SocketAddr) -> Vec<u8> {
        self.shared
            .lock()
            .iter()
            .filter(|connection| is_from(connection, peer))
            .flat_map(|connection| connection.bytes.iter().copied())
            .collect()
    }

    /// Waits until as many complete requests came; gives them all.
    #[must_use]
    pub fn wait_for_requests(&self, count: usize, limit: Duration) -> Vec<Request> {
        let all = || -> Vec<Request> {
            self.shared
                .lock()
                .iter()
                .flat_map(|c| c.requests.iter().cloned())
                .collect()
        };
        poll::until(limit, || {
            Some(all()).filter(|requests| requests.len() >= count)
        })
        .unwrap_or_else(all)
    }

    /// Whether these bytes stand anywhere in what the application read.
    #[must_use]
    pub fn saw(&self, needle: &[u8]) -> bool {
        self.shared
            .lock()
            .iter()
            .any(|c| c.bytes.windows(needle.len()).any(|window| window == needle))
    }

    /// Forgets what came so far.
    pub fn forget(&self) {
        self.shared.lock().clear();
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let woken = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        // It has ended by itself where that fails.
        woken.unwrap_or_default();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn pages(&self) -> MutexGuard<'_, HashMap<String, Page>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The page at `path`, if there is one.
    fn page(&self, path: &str) -> Option<Page> {
        self.pages().get(path).cloned()
    }

    fn update(&self, peer: SocketAddr, change: impl FnOnce(&mut Connection)) {
        let mut connections = self.lock();
        // The last, in case a port was used again.
        if let Some(connection) = connections.iter_mut().rfind(|c| c.peer == peer) {
            change(connection);
        } else {
            let mut connection = Connection {
                peer,
                bytes: Vec::new(),
                requests: Vec::new(),
            };
            change(&mut connection);
            connections.push(connection);
        }
    }
}

fn is_from(connection: &Connection, peer: SocketAddr) -> bool {
    connection.peer.port() == peer.port()
        && connection.peer.ip().to_canonical() == peer.ip().to_canonical()
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((stream, peer)) = listener.accept() {
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // A connection that breaks is the client's affair; what came of it is on record.
            drop(serve(&stream, peer, &shared));
        });
    }
}

/// Answers requests until the client, or the origin, ends.
fn serve(mut stream: &TcpStream, peer: SocketAddr, shared: &Shared) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TICK))?;
    let mut open = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while !shared.stop.load(Ordering::Relaxed) {
        let count = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error)
                if matches!(
                    error.kind(),
                    // The last where the machine is stopped and goes on: a read with a time limit ends so.
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                continue;
            }
            Err(error) => return Err(error),
        };
        let fresh = buffer.get(..count).unwrap_or(&[]);
        open.extend_from_slice(fresh);
        shared.update(peer, |connection| connection.bytes.extend_from_slice(fresh));
        while let Some((request, length)) = request::take(&open) {
            open.drain(..length);
            let target = request.line.split(' ').nth(1).unwrap_or("");
            let path = target.split('?').next().unwrap_or("").to_owned();
            shared.update(peer, |connection| connection.requests.push(request));
            respond(stream, &path, shared)?;
        }
    }
    stream.shutdown(Shutdown::Both)
}

fn respond(mut stream: &TcpStream, path: &str, shared: &Shared) -> std::io::Result<()> {
    let Some(page) = shared.page(path) else {
        let body = body(path);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        return stream.write_all(&[head.as_bytes(), &body].concat());
    };
    let (first, rest) = page.response.split_at(page.first.min(page.response.len()));
    stream.write_all(first)?;
    let released = || {
        let page = shared.page(path);
        page.is_none_or(|page| page.released) || shared.stop.load(Ordering::Relaxed)
    };
    while !released() {
        thread::sleep(HELD);
    }
    stream.write_all(rest)
}

/// What the path asks for.
fn body(path: &str) -> Vec<u8> {
    path.strip_prefix("/bytes/")
        .and_then(|length| length.parse().ok())
        .map_or_else(|| b"hello".to_vec(), binary)
}
