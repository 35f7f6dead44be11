//! Workers: each takes connections from its own listener and keeps them on its own thread.

use std::{io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use http::HeaderValue;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, LocalOptions},
    sync::watch,
    task::JoinSet,
    time::timeout,
};

use super::{
    admission::Admission,
    connection,
    counters::{Closed, Counter, Counters},
    error::ProxyError,
    inspect::Inspector,
    settings::ProxySettings,
    tls::{ServerTls, UpstreamTls},
    upstream::Pool,
};

/// Connections that the kernel holds for a worker that has no time to take them.
const BACKLOG: i32 = 4096;
/// How long a worker waits after the system has refused it a connection (too many open files).
const PAUSE: Duration = Duration::from_millis(50);
/// How long a connection may be silent until the other end is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_mins(1);

/// What a worker's thread is made with.
pub(super) struct WorkerSeed {
    pub(super) listener: std::net::TcpListener,
    pub(super) settings: Arc<ProxySettings>,
    pub(super) tls: Option<Arc<ServerTls>>,
    pub(super) upstream_tls: Option<UpstreamTls>,
    pub(super) inspector: Inspector,
    pub(super) admission: Arc<Admission>,
    pub(super) counters: Arc<Counters>,
    pub(super) drain: watch::Receiver<bool>,
}

/// What the connections of one worker share. Nothing in it is locked.
pub(super) struct Worker {
    pub(super) settings: Arc<ProxySettings>,
    pub(super) tls: Option<Arc<ServerTls>>,
    pub(super) inspector: Inspector,
    pub(super) admission: Arc<Admission>,
    pub(super) counters: Arc<Counters>,
    pub(super) pool: Rc<Pool>,
    pub(super) default_host: HeaderValue,
    /// True from the order to stop on.
    pub(super) drain: watch::Receiver<bool>,
}

/// One listener a worker, all at the same address: the kernel spreads the connections (`SO_REUSEPORT`).
///
/// # Errors
/// Where the address can't be listened on, or another process does.
pub(super) fn listeners(
    address: SocketAddr,
    count: usize,
) -> Result<Vec<std::net::TcpListener>, ProxyError> {
    let failed = |source: io::Error| {
        if source.kind() == io::ErrorKind::AddrInUse {
            ProxyError::AddressInUse(address)
        } else {
            ProxyError::Listen { address, source }
        }
    };
    // SO_REUSEPORT would share the address with whichever process of the same user holds it: look first.
    let probe = bind(address, false).map_err(failed)?;
    let address = probe.local_addr().map_err(failed)?;
    let Some(address) = address.as_socket() else {
        return Err(failed(io::ErrorKind::AddrNotAvailable.into()));
    };
    drop(probe);
    (0..count)
        .map(|_| {
            let listener = bind(address, true)?;
            listener.listen(BACKLOG)?;
            Ok(listener.into())
        })
        .collect::<io::Result<_>>()
        .map_err(failed)
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    // The connections inherit both. Ends that are gone without a word are found out even in a tunnel.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE),
    )?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Runs a worker on this thread until it is told to stop and has drained.
///
/// # Errors
/// Where the system gives no event loop.
pub(super) fn run(seed: WorkerSeed) -> Result<(), ProxyError> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(ProxyError::Worker)?;
    runtime.block_on(async {
        let WorkerSeed {
            listener,
            settings,
            tls,
            upstream_tls,
            inspector,
            admission,
            counters,
            drain,
        } = seed;
        let listener = TcpListener::from_std(listener).map_err(ProxyError::Worker)?;
        let worker = Rc::new(Worker {
            default_host: HeaderValue::from_str(&settings.upstream.authority())
                .unwrap_or_else(|_| HeaderValue::from_static("upstream")),
            pool: Pool::new(Arc::clone(&settings), upstream_tls, Arc::clone(&counters)),
            settings,
            tls,
            inspector,
            admission,
            counters,
            drain,
        });
        let pool = Rc::clone(&worker.pool);
        let sweeper = tokio::task::spawn_local(async move { pool.sweep().await });
        let connections = accept(&worker, listener).await;
        drain_connections(&worker, connections).await;
        sweeper.abort();
        Ok(())
    })
}

/// Takes connections until the order to stop.
async fn accept(worker: &Rc<Worker>, listener: TcpListener) -> JoinSet<()> {
    let mut connections = JoinSet::new();
    let mut drain = worker.drain.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, client)) => take(worker, &mut connections, stream, client),
                Err(error) => {
                    worker.counters.close(Closed::AcceptFailed);
                    tracing::warn!(%error, "can't take a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            _ = drain.wait_for(|draining| *draining) => return connections,
        }
    }
}

fn take(worker: &Rc<Worker>, tasks: &mut JoinSet<()>, stream: TcpStream, client: SocketAddr) {
    worker.counters.add(Counter::Connections);
    match worker.admission.enter(client.ip(), &worker.settings.limits) {
        Ok(place) => {
            tasks.spawn_local(connection::run(Rc::clone(worker), stream, client, place));
        }
        Err(why) => worker.counters.close(why),
    }
}

/// Lets what is open come to its end, for as long as the settings allow.
async fn drain_connections(worker: &Worker, mut connections: JoinSet<()>) {
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(worker.settings.timeouts.drain, all).await.is_err() {
        for _ in 0..connections.len() {
            worker.counters.close(Closed::DrainDeadline);
        }
    }
}
