//! Workers: each takes connections from its own listener and keeps them on its own thread.

use std::{
    cell::RefCell,
    io, mem,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

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
    fast::Buffers,
    hits::Hits,
    inspect::Inspector,
    linger::Linger,
    refuse::Written,
    settings::ProxySettings,
    tls::ServerTls,
    upstream::{RouteSeeds, Routes},
};
use crate::wiping::wipe_registers;

/// How long a worker waits after the system has refused it a connection (too many open files).
const PAUSE: Duration = Duration::from_millis(50);
/// How often that is told at most.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// What the settings say, as all workers have it; the next settings make another.
pub(super) struct Live {
    pub(super) settings: Arc<ProxySettings>,
    pub(super) tls: Option<Arc<ServerTls>>,
    pub(super) routes: RouteSeeds,
    pub(super) inspector: Inspector,
}

/// What a worker's thread is made with.
pub(super) struct WorkerSeed {
    pub(super) listener: std::net::TcpListener,
    pub(super) lasting: Lasting,
}

/// What a worker has under all settings.
pub(super) struct Lasting {
    pub(super) live: watch::Receiver<Arc<Live>>,
    pub(super) admission: Arc<Admission>,
    pub(super) counters: Arc<Counters>,
    pub(super) drain: watch::Receiver<bool>,
}

/// What the connections of one worker share under the settings in force. Nothing in it is locked.
pub(super) struct Worker {
    pub(super) settings: Arc<ProxySettings>,
    pub(super) tls: Option<Arc<ServerTls>>,
    pub(super) inspector: Inspector,
    /// The same under all settings.
    pub(super) hits: Rc<Hits>,
    /// This, too.
    pub(super) linger: Rc<Linger>,
    pub(super) admission: Arc<Admission>,
    pub(super) counters: Arc<Counters>,
    pub(super) routes: Routes,
    pub(super) default_host: HeaderValue,
    /// What listed tokens are answered with.
    pub(super) written: Written,
    pub(super) buffers: Buffers,
    /// True from the order to stop on.
    pub(super) drain: watch::Receiver<bool>,
}

/// The worker in force on this thread. Requests look here, so that each one is handled under one set of settings,
/// and the next one under the newest.
pub(super) struct Seat(RefCell<Rc<Worker>>);

impl Seat {
    /// The worker for what begins now.
    pub(super) fn worker(&self) -> Rc<Worker> {
        Rc::clone(&self.0.borrow())
    }

    /// Whether `worker` is still the one in force.
    pub(super) fn holds(&self, worker: &Rc<Worker>) -> bool {
        Rc::ptr_eq(&self.0.borrow(), worker)
    }

    /// Puts the next one in its place. What is under way goes on under the one before, whose unused upstream
    /// connections are closed.
    fn succeed(&self, next: Worker) {
        let before = self.0.replace(Rc::new(next));
        before.routes.pools().for_each(|pool| pool.retire());
    }
}

impl Worker {
    fn new(live: &Live, lasting: &Lasting, hits: &Rc<Hits>, linger: &Rc<Linger>) -> Self {
        let settings = &live.settings;
        Self {
            default_host: HeaderValue::from_str(&settings.upstream.authority())
                .unwrap_or_else(|_| HeaderValue::from_static("upstream")),
            routes: Routes::new(&live.routes, settings, &lasting.counters),
            settings: Arc::clone(settings),
            tls: live.tls.clone(),
            inspector: live.inspector.clone(),
            hits: Rc::clone(hits),
            linger: Rc::clone(linger),
            written: Written::default(),
            buffers: Buffers::default(),
            admission: Arc::clone(&lasting.admission),
            counters: Arc::clone(&lasting.counters),
            drain: lasting.drain.clone(),
        }
    }

    /// Tasks that see to the upstream connections that nobody uses.
    fn sweepers(&self) -> JoinSet<()> {
        let mut sweepers = JoinSet::new();
        for pool in self.routes.pools() {
            let pool = Rc::clone(pool);
            sweepers.spawn_local(async move { pool.sweep().await });
        }
        sweepers
    }
}

/// Runs a worker on this thread until it is told to stop and has drained.
///
/// # Errors
/// Where the system gives no event loop.
pub(super) fn run(seed: WorkerSeed) -> Result<(), ProxyError> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .on_thread_park(wipe_registers)
        .build_local(LocalOptions::default())
        .map_err(ProxyError::Worker)?;
    runtime.block_on(async {
        let WorkerSeed {
            listener,
            mut lasting,
        } = seed;
        let listener = TcpListener::from_std(listener).map_err(ProxyError::Worker)?;
        let first = Arc::clone(&lasting.live.borrow_and_update());
        let hits = Rc::new(Hits::new(first.inspector.events.clone()));
        let linger = Rc::new(Linger::default());
        let worker = Rc::new(Worker::new(&first, &lasting, &hits, &linger));
        let seat = Rc::new(Seat(RefCell::new(worker)));
        let watched = Rc::clone(&hits);
        let watching = tokio::task::spawn_local(async move { watched.watch().await });
        let lingering = tokio::task::spawn_local(async move { linger.run().await });
        let connections = accept(&seat, &lasting, listener).await;
        drain_connections(&seat.worker(), connections).await;
        watching.abort();
        lingering.abort();
        hits.settle();
        Ok(())
    })
}

/// What the system refuses, told seldom: it may go on for long, and the log is on a disk that may be short as well.
#[derive(Default)]
struct Refusals {
    told: Option<Instant>,
    untold: u64,
}

impl Refusals {
    fn tell(&mut self, error: &io::Error) {
        self.untold += 1;
        if self.told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
            let times = mem::take(&mut self.untold);
            tracing::warn!(%error, times, "can't take a connection");
            self.told = Some(Instant::now());
        }
    }
}

/// Takes connections until the order to stop.
async fn accept(seat: &Rc<Seat>, lasting: &Lasting, listener: TcpListener) -> JoinSet<()> {
    let mut connections = JoinSet::new();
    let mut sweepers = seat.worker().sweepers();
    let mut live = lasting.live.clone();
    let mut drain = lasting.drain.clone();
    let mut refusals = Refusals::default();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, client)) => take(seat, &mut connections, stream, client),
                Err(error) => {
                    lasting.counters.close(Closed::AcceptFailed);
                    refusals.tell(&error);
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            Ok(()) = live.changed() => {
                let next = Arc::clone(&live.borrow_and_update());
                let before = seat.worker();
                seat.succeed(Worker::new(&next, lasting, &before.hits, &before.linger));
                // The ones before end with this.
                sweepers = seat.worker().sweepers();
            }
            _ = drain.wait_for(|draining| *draining) => break,
        }
    }
    drop(sweepers);
    take_waiting(seat, &mut connections, listener);
    connections
}

/// Takes who has connected already, so that nobody is turned away.
fn take_waiting(seat: &Rc<Seat>, connections: &mut JoinSet<()>, listener: TcpListener) {
    // The system is asked itself: the event loop may not have heard of the last ones yet.
    let Ok(listener) = listener.into_std() else {
        return;
    };
    while let Ok((stream, client)) = listener.accept() {
        let ready = stream.set_nonblocking(true);
        match ready.and_then(|()| TcpStream::from_std(stream)) {
            Ok(stream) => take(seat, connections, stream, client),
            Err(_gone) => seat.worker().counters.close(Closed::AcceptFailed),
        }
    }
}

fn take(seat: &Rc<Seat>, tasks: &mut JoinSet<()>, stream: TcpStream, client: SocketAddr) {
    let worker = seat.worker();
    worker.counters.add(Counter::Connections);
    match worker.admission.enter(client.ip(), &worker.settings.limits) {
        Ok(place) => {
            tasks.spawn_local(connection::run(Rc::clone(seat), stream, client, place));
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
