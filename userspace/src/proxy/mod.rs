//! The proxy tier: `accept -> inspect -> forward | refuse`.
//!
//! One thread a worker, each with its own listener, event loop and upstream connections; a client connection
//! stays on its thread from accept to upstream, so that nothing on its way is locked.

mod accept;
mod activity;
mod admission;
mod body;
mod connection;
mod counters;
mod date;
mod error;
mod fast;
mod flood;
mod forward;
mod hits;
mod hop;
mod http2;
mod incoming;
mod inspect;
mod interim;
mod linger;
mod listen;
mod preamble;
mod refuse;
mod reload;
mod seldom;
mod settings;
mod spellings;
mod stalls;
mod stream;
mod target;
mod tls;
mod tunnel;
mod upstream;

use std::{
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd as _, BorrowedFd},
    sync::Arc,
    thread,
};

use tokio::sync::{oneshot, watch};

pub(crate) use self::tls::{ServerTls, UpstreamTls};
use self::{
    accept::{Lasting, Live, WorkerSeed},
    admission::Admission,
    counters::Counters,
    inspect::Inspector,
    upstream::RouteSeeds,
};
pub use self::{
    error::ProxyError,
    reload::{Prepared, ProxyReload},
    settings::{
        Balance, CheckSettings, HealthSettings, Limits, Listen, OwnConnections, Preamble,
        ProxySettings, Refusal, Route, RouteError, Timeouts, TlsFiles, TlsVersion, Upstream,
        UpstreamError, UpstreamHttp, UpstreamTlsSettings,
    },
};
pub use crate::places::Places;
use crate::{denylist::SetReader, event::EventSink};

/// A proxy that has its address and its certificate; [`Proxy::serve`] makes it work.
pub struct Proxy {
    seeds: Vec<WorkerSeed>,
    counters: Vec<Arc<Counters>>,
    /// Of what is done beside the workers.
    apart: Arc<Counters>,
    local_addr: SocketAddr,
    stop: watch::Sender<bool>,
    reload: ProxyReload,
}

/// Reads a proxy's counters, before and while it serves.
#[derive(Clone, Debug)]
pub struct ProxyCounters(Vec<Arc<Counters>>);

impl ProxyCounters {
    /// Every counter with its name, summed over the workers.
    #[must_use]
    pub fn read(&self) -> Vec<(String, u64)> {
        counters::sums(self.0.iter().map(|worker| &**worker))
    }
}

impl Proxy {
    /// Takes the address, and reads certificate and key. Nothing is served yet.
    ///
    /// # Errors
    /// What stands in the way, with the file or the address.
    pub fn bind(
        settings: ProxySettings,
        places: Places,
        denylist: SetReader,
        events: EventSink,
    ) -> Result<Self, ProxyError> {
        let listeners = listen::listeners(&settings)?;
        Self::listening(settings, listeners, places, denylist, events)
    }

    /// The same on a socket that listens already (systemd socket activation); `settings.listen` is not used.
    ///
    /// # Errors
    /// What stands in the way, with the file.
    pub fn with_listener(
        settings: ProxySettings,
        listener: TcpListener,
        places: Places,
        denylist: SetReader,
        events: EventSink,
    ) -> Result<Self, ProxyError> {
        let listeners = listen::shared(listener, &settings)?;
        Self::listening(settings, listeners, places, denylist, events)
    }

    fn listening(
        settings: ProxySettings,
        listeners: Vec<TcpListener>,
        places: Places,
        denylist: SetReader,
        events: EventSink,
    ) -> Result<Self, ProxyError> {
        let tls = match settings.server_tls() {
            Some(settings) => Some(Arc::new(ServerTls::new(settings)?)),
            None => None,
        };
        let routes = RouteSeeds::new(&settings, None)?;
        let local_addr = listen::address(&listeners, &settings)?;
        let inspector = Inspector {
            rules: places.rules,
            locations: places.locations,
            denylist,
            events,
            monitor: settings.monitor,
        };
        let (live, lives) = watch::channel(Arc::new(Live {
            settings: Arc::new(settings),
            tls: tls.clone(),
            routes,
            inspector,
        }));
        let admission = Arc::new(Admission::default());
        let (stop, drain) = watch::channel(false);
        let seed = |listener| WorkerSeed {
            listener,
            lasting: Lasting {
                live: lives.clone(),
                admission: Arc::clone(&admission),
                counters: Arc::new(Counters::new()),
                drain: drain.clone(),
            },
        };
        let seeds: Vec<WorkerSeed> = listeners.into_iter().map(seed).collect();
        let of_workers = seeds.iter().map(|seed| Arc::clone(&seed.lasting.counters));
        // The last ones are those of no worker.
        let apart = Arc::new(Counters::new());
        Ok(Self {
            counters: of_workers.chain([Arc::clone(&apart)]).collect(),
            apart,
            seeds,
            local_addr,
            stop,
            reload: ProxyReload {
                live: Arc::new(live),
                tls,
            },
        })
    }

    /// The address that is listened on, with its port where 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// A socket that listens; the kernel spreads connections from it over all workers.
    #[must_use]
    pub fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.seeds.first().map(|seed| seed.listener.as_fd())
    }

    /// Every counter with its name.
    #[must_use]
    pub fn counters(&self) -> Vec<(String, u64)> {
        self.counter_reader().read()
    }

    /// A reader of the counters that outlives [`Proxy::serve`].
    #[must_use]
    pub fn counter_reader(&self) -> ProxyCounters {
        ProxyCounters(self.counters.clone())
    }

    /// What gives it other settings while it serves.
    #[must_use]
    pub fn reload(&self) -> ProxyReload {
        self.reload.clone()
    }

    /// Serves until `shutdown` is done, then drains: no new connections, GOAWAY or `Connection: close` on
    /// those that are open, and an end to all of them by the drain deadline.
    ///
    /// # Errors
    /// Where a worker can't be started; those that could be are stopped.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), ProxyError> {
        let mut workers = Vec::new();
        let mut failed = None;
        for (index, seed) in self.seeds.into_iter().enumerate() {
            let (done, ended) = oneshot::channel();
            let spawned = thread::Builder::new()
                .name(format!("proxy-{index}"))
                .spawn(move || {
                    // Nobody listens any more where `serve` was dropped.
                    drop(done.send(accept::run(seed)));
                });
            match spawned {
                Ok(_thread) => workers.push(ended),
                Err(error) => failed = Some(ProxyError::Worker(error)),
            }
        }
        if failed.is_none() {
            let watch = async {
                match self.reload.tls.clone() {
                    Some(tls) => tls.watch().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown => {}
                () = watch => {}
                () = upstream::check(self.reload.live.subscribe(), self.apart) => {}
            }
        }
        self.stop.send_replace(true);
        for worker in workers {
            if let Ok(Err(error)) = worker.await {
                failed = Some(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }
}
