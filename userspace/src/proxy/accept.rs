//! Workers: each takes connections from its own listener and keeps them on its own thread.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use http::HeaderValue;
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
    tls::ServerTls,
    upstream::{RouteSeeds, Routes},
};

/// How long a worker waits after the system has refused it a connection (too many open files).
const PAUSE: Duration = Duration::from_millis(50);
/// What a worker's thread is made with.
pub(super) struct WorkerSeed {
    pub(super) listener: std::net::TcpListener,
    pub(super) settings: Arc<ProxySettings>,
    pub(super) tls: Option<Arc<ServerTls>>,
    pub(super) routes: RouteSeeds,
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
    pub(super) routes: Routes,
    pub(super) default_host: HeaderValue,
    /// True from the order to stop on.
    pub(super) drain: watch::Receiver<bool>,
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
            routes,
            inspector,
            admission,
            counters,
            drain,
        } = seed;
        let listener = TcpListener::from_std(listener).map_err(ProxyError::Worker)?;
        let worker = Rc::new(Worker {
            default_host: HeaderValue::from_str(&settings.upstream.authority())
                .unwrap_or_else(|_| HeaderValue::from_static("upstream")),
            routes: Routes::new(&routes, &settings, &counters),
            settings,
            tls,
            inspector,
            admission,
            counters,
            drain,
        });
        let mut sweepers = JoinSet::new();
        for pool in worker.routes.pools() {
            let pool = Rc::clone(pool);
            sweepers.spawn_local(async move { pool.sweep().await });
        }
        let connections = accept(&worker, listener).await;
        drain_connections(&worker, connections).await;
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
            _ = drain.wait_for(|draining| *draining) => break,
        }
    }
    take_waiting(worker, &mut connections, listener);
    connections
}

/// Takes who has connected already, so that nobody is turned away.
fn take_waiting(worker: &Rc<Worker>, connections: &mut JoinSet<()>, listener: TcpListener) {
    // The system is asked itself: the event loop may not have heard of the last ones yet.
    let Ok(listener) = listener.into_std() else {
        return;
    };
    while let Ok((stream, client)) = listener.accept() {
        let ready = stream.set_nonblocking(true);
        match ready.and_then(|()| TcpStream::from_std(stream)) {
            Ok(stream) => take(worker, connections, stream, client),
            Err(_gone) => worker.counters.close(Closed::AcceptFailed),
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
