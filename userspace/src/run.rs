//! `tokenblock run`: settings -> list -> tiers -> in force -> until told to stop.

use std::{
    convert::Infallible,
    panic::resume_unwind,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::{
    runtime::{self, Handle},
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
    task::{JoinError, JoinHandle},
    time::timeout,
};

use crate::{
    cli::{RunArgs, given::Given},
    control::{Backing, Control, ControlCounters, KernelStatus, ProxyStatus, TiersStatus},
    counters::{self, Counted},
    denylist::SetReader,
    event::{EventSink, Relay},
    exit::{Exit, Failure},
    keeper::{Keeper, Sources},
    kernel::{
        InterceptSettings, Interception, KernelMap, KernelTier,
        error::KernelError,
        pins::{detach_unwanted, say_what_stays},
    },
    key::StoredKey,
    log::{Log, token_seen},
    places::Places,
    proxy::{OwnConnections, Proxy, ProxyCounters, ProxyError, ProxyReload, ProxySettings},
    reload::{InForce, Outcome},
    settings::{KernelSettings, Settings, Surroundings},
    sightings::Sightings,
    sources::{MinLength, Watch},
    state::{Additions, StateFolder, Store},
    wiping::{keep_little, wipe_registers},
};

/// The proxy has its own threads; these are for signals, events and the list.
const THREADS: usize = 2;
/// Requests of the control socket that wait for the list or the tiers.
const REQUESTS: usize = 64;
/// What the proxy may take to end beyond the time that its connections have.
const END: Duration = Duration::from_millis(100);

/// Enforces until SIGINT or SIGTERM; SIGHUP reads the settings again.
///
/// # Errors
/// Why it could not start, or go on. Nothing is attached then, but what outlives the process.
pub fn run(args: RunArgs) -> Result<(), Failure> {
    keep_little();
    let given = args.given.clone();
    let settings = Settings::check(args, &Surroundings::of_process())?;
    let log = Log::start(settings.log_format, settings.log_level)
        .map_err(|error| Failure::new(Exit::Internal, anyhow::Error::from_boxed(error)))?;
    let pin_dir = settings.pin_dir.clone();
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .on_thread_park(wipe_registers)
        .enable_all()
        .build()
        .context("can't start the runtime")
        .map_err(os)?;
    let result = runtime.block_on(async {
        let mut signals = Signals::new().context("can't take signals").map_err(os)?;
        let mut tiers = Tiers::start(settings, given).await?;
        // This thread has read the list.
        wipe_registers();
        tiers.announce();
        let result = tiers.serve(&mut signals, &log).await;
        notify(&[NotifyState::Stopping]);
        tiers.stop(&log).await;
        result
    });
    if let Some(folder) = pin_dir {
        say_what_stays(&folder);
    }
    // A reload that is under way holds nothing that outlives the process.
    runtime.shutdown_background();
    result
}

fn os(error: anyhow::Error) -> Failure {
    Failure::new(Exit::Os, error)
}

/// All that is running.
struct Tiers {
    in_force: InForce,
    kernel: Option<RunningKernel>,
    proxy: Option<RunningProxy>,
    keeping: JoinHandle<Result<Infallible, JoinError>>,
    control: JoinHandle<Infallible>,
    control_counters: ControlCounters,
    sightings: Sightings,
    relay: Relay,
    /// Who wants to know how the tiers are.
    asked: mpsc::Receiver<oneshot::Sender<TiersStatus>>,
    /// In force at start.
    entries: usize,
    _state: StateFolder,
}

struct RunningKernel {
    tier: KernelTier,
    interfaces: String,
    ports: String,
}

struct RunningProxy {
    address: String,
    counters: ProxyCounters,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), ProxyError>>,
    reload: ProxyReload,
    /// Ends with this, where connections are intercepted.
    interception: Option<Interception>,
}

/// A proxy that has its address, and takes no connections yet.
struct ReadyProxy {
    proxy: Proxy,
    interception: Option<Interception>,
}

impl Tiers {
    /// The list is in the tiers before a program is attached or a connection accepted, so that there is no
    /// moment without enforcement.
    async fn start(settings: Settings, given: Given) -> Result<Self, Failure> {
        let now = SystemTime::now();
        let state = StateFolder::lock(&settings.state_dir)?;
        let key = StoredKey::load_or_create(&settings.state_dir)?;
        let places = settings
            .locations
            .places(&[], key.get(), settings.min_token_length)?;
        let min_token_length = MinLength::from(settings.min_token_length);
        // Before the files are read, so that no change is missed.
        let paths = settings.denylist.iter().map(|source| source.path.clone());
        let watch = Watch::new(paths.collect());
        let files = settings.denylist.clone();
        let sources = Sources {
            files: settings.denylist,
            key,
            min_token_length: min_token_length.clone(),
            jwt_expiry: settings.jwt_expiry,
        };
        let sightings = Sightings::start(&settings.state_dir);
        let relay = relay(&sightings)?;
        let events = relay.sink();
        let read = || {
            let store = Store::open(&settings.state_dir, sources.key.get())?;
            let additions = Additions::open(store, now)?;
            Ok::<_, Failure>(sources.read(additions, now)?)
        };
        let kernel = settings.kernel.as_ref();
        let load = kernel.map(|kernel| || KernelTier::start(kernel, &places, events.clone()));
        let (loaded, tier) = side_by_side(read, load);
        let loaded = loaded?;
        let entries = loaded.list.records().len();
        let hashed = loaded.list.hashed().len();
        warn_of_claims(loaded.claims, settings.proxy.is_some());
        let (tier, map) = match tier.transpose()? {
            Some((tier, map)) if hashed > 0 => Some(tier.with_hashed(map)?),
            keyed_alone => keyed_alone,
        }
        .unzip();
        let keeper = Keeper::<KernelMap>::start(sources, loaded, map).map_err(Failure::from)?;
        let proxy = match settings.proxy {
            Some(proxy) => Some(ReadyProxy::bind(
                proxy,
                settings.intercept.clone(),
                places.clone(),
                keeper.reader(),
                events,
            )?),
            None => None,
        };
        let kernel = match (tier, settings.kernel) {
            (Some(tier), Some(settings)) => Some(RunningKernel::attach(tier, &settings).await?),
            _ => None,
        };
        let (requests, requested) = mpsc::channel(REQUESTS);
        let (questions, asked) = mpsc::channel(REQUESTS);
        let key = StoredKey::load_or_create(&settings.state_dir)?;
        let backing = Backing {
            key,
            min_token_length,
            jwt_expiry: settings.jwt_expiry,
            sources: files,
            sightings: sightings.clone(),
            keeper: requests,
            tiers: questions,
        };
        let mut in_force = InForce::new(
            given,
            settings.intercept.as_ref(),
            &places,
            &backing,
            StoredKey::load_or_create(&settings.state_dir)?,
        );
        let control = Control::bind(&settings.control, backing)?;
        if let Some(address) = control.remote_address() {
            tracing::info!(%address, "the control API is served over TLS");
        }
        let proxy = proxy.map(ReadyProxy::start).transpose()?;
        if kernel.is_none()
            && let Some(folder) = &settings.pin_dir
        {
            detach_unwanted(folder);
        }
        if let Some(proxy) = &proxy {
            in_force.with_proxy(proxy.reload.clone());
        }
        Ok(Self {
            in_force,
            kernel,
            proxy,
            keeping: tokio::spawn(keeper.keep(watch, requested)),
            control_counters: control.counters(),
            sightings,
            relay,
            control: tokio::spawn(control.serve()),
            asked,
            entries: entries + hashed,
            _state: state,
        })
    }

    /// Says that everything configured is enforced.
    fn announce(&self) {
        let kernel = self.kernel.as_ref();
        let proxy = self.proxy.as_ref();
        let tiers = match (kernel, proxy) {
            (Some(_), Some(_)) => "kernel, proxy",
            (Some(_), None) => "kernel",
            (None, _) => "proxy",
        };
        let entries = self.entries;
        tracing::info!(
            tiers,
            entries,
            interfaces = kernel.map(|kernel| &*kernel.interfaces),
            ports = kernel.map(|kernel| &*kernel.ports),
            proxy = proxy.map(|proxy| &*proxy.address),
            intercepted = self.interception().map(Interception::ports),
            "in force"
        );
        let status = format!("in force: {tiers}; {entries} entries");
        notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
    }

    /// Until a signal to stop, or until something ends that never should.
    async fn serve(&mut self, signals: &mut Signals, log: &Log) -> Result<(), Failure> {
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Told::Stop(name) => {
                        tracing::info!("stopping on {name}");
                        return Ok(());
                    }
                    Told::Count => self.count(log),
                    Told::Reload => self.reload(),
                },
                Some(reply) = self.asked.recv() => {
                    // Who asked may be gone.
                    let _heard = reply.send(self.status(log));
                }
                failure = ended_keeper(&mut self.keeping) => return Err(failure),
                failure = ended_kernel(self.kernel.as_mut()) => return Err(failure),
                failure = ended_proxy(self.proxy.as_mut()) => return Err(failure),
            }
        }
    }

    /// Reads the settings again. It takes as long as reading a few files does.
    fn reload(&mut self) {
        let kernel = self.kernel.as_mut().map(|kernel| &mut kernel.tier);
        match self.in_force.reload(kernel) {
            Ok(Outcome { changed, at_start }) => {
                tracing::info!(changed = changed.join(","), "the settings were read again");
                if !at_start.is_empty() {
                    let settings = at_start.join(",");
                    tracing::warn!(settings, "these settings change at the next start only");
                }
            }
            Err(error) => {
                let error = anyhow::Error::new(error);
                tracing::error!("the settings in force stay in force: {error:#}");
            }
        }
    }

    fn count(&self, log: &Log) {
        counters::log(self.counters(log));
    }

    fn counters(&self, log: &Log) -> impl Iterator<Item = (&'static str, Counted)> {
        let kernel = self.kernel.as_ref();
        let kernel = kernel.map(|kernel| kernel.tier.counters());
        let proxy = self.proxy.as_ref();
        let proxy = proxy.map(|proxy| ("proxy", proxy.counters.read()));
        kernel
            .into_iter()
            .flatten()
            .chain(proxy)
            .chain(self.intercepted())
            .chain([
                ("control", self.control_counters.read()),
                ("events", self.relay.counters()),
                ("sightings", self.sightings.counters()),
                ("log", log.counters()),
            ])
    }

    fn interception(&self) -> Option<&Interception> {
        self.proxy.as_ref()?.interception.as_ref()
    }

    fn intercepted(&self) -> Option<(&'static str, Counted)> {
        self.interception()
            .map(|interception| ("intercept", interception.counters()))
    }

    fn status(&self, log: &Log) -> TiersStatus {
        TiersStatus {
            kernel: self.kernel.as_ref().map(|kernel| KernelStatus {
                interfaces: kernel
                    .tier
                    .protected()
                    .into_iter()
                    .map(Into::into)
                    .collect(),
                ports: kernel.ports.clone(),
                pin_dir: kernel
                    .tier
                    .pin_dir()
                    .map(|folder| folder.display().to_string()),
            }),
            proxy: self.proxy.as_ref().map(|proxy| ProxyStatus {
                address: proxy.address.clone(),
            }),
            counters: counters::object(self.counters(log)),
        }
    }

    /// Detaches, ends connections, logs the counters.
    async fn stop(self, log: &Log) {
        self.control.abort();
        self.keeping.abort();
        let mut counted: Vec<(&str, Counted)> = Vec::from_iter(self.intercepted());
        if let Some(mut kernel) = self.kernel {
            kernel.tier.leave();
            counted.extend(kernel.tier.counters());
        }
        if let Some(proxy) = self.proxy {
            // It may have ended by itself.
            let _ended = proxy.stop.send(());
            if timeout(proxy.reload.drain() + END, proxy.serving)
                .await
                .is_err()
            {
                tracing::warn!("the proxy did not end its connections in time");
            }
            counted.push(("proxy", proxy.counters.read()));
        }
        self.relay.flush();
        self.sightings.flush().await;
        counted.push(("control", self.control_counters.read()));
        counted.push(("events", self.relay.counters()));
        counted.push(("sightings", self.sightings.counters()));
        counted.push(("log", log.counters()));
        counters::log(counted);
    }
}

/// What the tiers see is logged, and counted by token.
fn relay(sightings: &Sightings) -> Result<Relay, Failure> {
    let sightings = sightings.clone();
    let relay = Relay::start(move |events| {
        events.iter().for_each(token_seen);
        sightings.take(events);
    });
    relay.context("can't start a thread for events").map_err(os)
}

/// Reads the list, and loads the programs meanwhile: the kernel takes as long to verify them as we do for a long list.
fn side_by_side<T, U: Send>(
    read: impl FnOnce() -> T,
    load: Option<impl FnOnce() -> U + Send>,
) -> (T, Option<U>) {
    let runtime = Handle::current();
    thread::scope(|scope| {
        let loading = load.map(|load| {
            scope.spawn(move || {
                let _inside = runtime.enter();
                load()
            })
        });
        let read = read();
        let load = loading.map(thread::ScopedJoinHandle::join);
        (
            read,
            load.map(|loaded| loaded.unwrap_or_else(|panic| resume_unwind(panic))),
        )
    })
}

/// The proxy tier alone reads JWTs.
fn warn_of_claims(entries: usize, proxy: bool) {
    if entries > 0 && !proxy {
        tracing::warn!(
            "{entries} entries name claims of JWTs, and there is no proxy tier to read them"
        );
    }
}

impl RunningKernel {
    async fn attach(mut tier: KernelTier, settings: &KernelSettings) -> Result<Self, KernelError> {
        tier.attach().await?;
        Ok(Self {
            interfaces: tier.protected().join(","),
            ports: settings.ports.to_string(),
            tier,
        })
    }
}

impl ReadyProxy {
    fn bind(
        settings: ProxySettings,
        intercept: Option<InterceptSettings>,
        places: Places,
        denylist: SetReader,
        events: EventSink,
    ) -> Result<Self, Failure> {
        let (interception, own) = match intercept {
            Some(intercept) => {
                let (interception, own) = Interception::load(intercept)?;
                (Some(interception), Some(own))
            }
            None => (None, None),
        };
        let settings = ProxySettings {
            own: own.map(|own| Arc::new(own) as Arc<dyn OwnConnections>),
            ..settings
        };
        Ok(Self {
            proxy: Proxy::bind(settings, places, denylist, events)?,
            interception,
        })
    }

    fn start(mut self) -> Result<RunningProxy, KernelError> {
        if let (Some(interception), Some(listener)) =
            (&mut self.interception, self.proxy.listener())
        {
            interception.attach(listener)?;
        }
        let proxy = self.proxy;
        let (stop, stopped) = oneshot::channel::<()>();
        Ok(RunningProxy {
            address: proxy.local_addr().to_string(),
            counters: proxy.counter_reader(),
            reload: proxy.reload(),
            interception: self.interception,
            stop,
            serving: tokio::spawn(proxy.serve(async {
                // Where the sender is gone the process is on its way out too.
                let _told_or_gone = stopped.await;
            })),
        })
    }
}

async fn ended_keeper(keeping: &mut JoinHandle<Result<Infallible, JoinError>>) -> Failure {
    let error = match keeping.await {
        Ok(Err(error)) | Err(error) => error,
    };
    Failure::new(Exit::Internal, error)
}

async fn ended_kernel(kernel: Option<&mut RunningKernel>) -> Failure {
    match kernel {
        Some(kernel) => kernel.tier.run().await.into(),
        None => std::future::pending().await,
    }
}

async fn ended_proxy(proxy: Option<&mut RunningProxy>) -> Failure {
    let Some(proxy) = proxy else {
        return std::future::pending().await;
    };
    match (&mut proxy.serving).await {
        Ok(Ok(())) => Failure::new(Exit::Internal, anyhow::anyhow!("the proxy ended by itself")),
        Ok(Err(error)) => error.into(),
        Err(error) => Failure::new(Exit::Internal, error),
    }
}

/// Tells the service manager, where there is one.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager can't be told");
    }
}

/// What a signal asks for.
enum Told {
    Stop(&'static str),
    Count,
    Reload,
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    user1: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.interrupt.recv() => Told::Stop("SIGINT"),
            _ = self.terminate.recv() => Told::Stop("SIGTERM"),
            _ = self.hangup.recv() => Told::Reload,
            _ = self.user1.recv() => Told::Count,
        }
    }
}
