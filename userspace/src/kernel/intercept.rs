//! Hands new connections to a local service's port to the proxy, by a program that the kernel asks who listens
//! (`BPF_PROG_TYPE_SK_LOOKUP`).
//!
//! The service keeps its port and its sockets. Connections keep their addresses, so the proxy sees whom they were for.

use std::{
    fmt, fs, io,
    net::{IpAddr, SocketAddr},
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, PerCpuArray, SockMap},
    programs::{Program, SkLookup, links::FdLink, sk_lookup::SkLookupLink},
};
use aya_obj::Object;
use tokenblock_ebpf::intercept::{End, Intercept, PASSAGES};

use super::{
    error::KernelError,
    object::{self, Variant},
};
use crate::{counters::Counted, proxy::OwnConnections};

/// The network namespace of this process.
const NETNS: &str = "/proc/self/ns/net";
/// The program.
const PROGRAM: &str = "intercept";
/// Maps of the object that the program uses; the others are made as small as can be.
const MAPS: [&str; 4] = ["INTERCEPT", "PROXY", "OWN", "PASSED"];

/// What is intercepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterceptSettings {
    /// The service's port.
    pub port: u16,
    /// Where connections are refused, not left to the service, while there is no proxy: the folder in a BPF file system
    /// in which the program outlives this process.
    pub closed: Option<PathBuf>,
    /// That folder, where an earlier process may have left one.
    pub pins: PathBuf,
}

/// The program, loaded, and attached for as long as this lives.
pub struct Interception {
    settings: InterceptSettings,
    ebpf: Ebpf,
    proxy: SockMap<MapData>,
    passed: PerCpuArray<MapData, [u64; PASSAGES.len()]>,
    link: Option<FdLink>,
}

/// The proxy's own connections to the service, while they are made.
pub struct OwnEnds {
    port: u16,
    ends: Mutex<HashMap<MapData, End, u32>>,
}

impl Interception {
    /// Loads the program; nothing is intercepted yet.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel refuses it, for the most likely reason.
    pub fn load(settings: InterceptSettings) -> Result<(Self, OwnEnds), KernelError> {
        let bytes = object::programs(Variant::Keyed)?;
        let names = maps_to_shrink(bytes)?;
        let mut loader = EbpfLoader::new();
        for name in &names {
            loader.map_max_entries(name, 1);
        }
        let mut ebpf = loader.load(bytes).map_err(KernelError::from_load)?;
        let what = Intercept {
            port: settings.port.into(),
            closed: settings.closed.is_some().into(),
        };
        let mut array: Array<_, Intercept> = Array::try_from(map(&mut ebpf, MAPS[0])?)?;
        array.set(0, what, 0)?;
        let proxy = SockMap::try_from(map(&mut ebpf, MAPS[1])?)?;
        let own = OwnEnds {
            port: settings.port,
            ends: Mutex::new(HashMap::try_from(map(&mut ebpf, MAPS[2])?)?),
        };
        let passed = PerCpuArray::try_from(map(&mut ebpf, MAPS[3])?)?;
        program(&mut ebpf)?
            .load()
            .map_err(KernelError::from_program)?;
        let interception = Self {
            settings,
            ebpf,
            proxy,
            passed,
            link: None,
        };
        Ok((interception, own))
    }

    /// Intercepts from now on: `listener` gets the connections.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel refuses it.
    pub fn attach(&mut self, listener: BorrowedFd<'_>) -> Result<(), KernelError> {
        self.proxy.set(0, &listener, 0)?;
        let netns = fs::File::open(NETNS).map_err(KernelError::Netns)?;
        let program = program(&mut self.ebpf)?;
        let id = program.attach(netns).map_err(KernelError::Program)?;
        let link: SkLookupLink = program.take_link(id).map_err(KernelError::Program)?;
        let link = FdLink::from(link);
        // An earlier process may have left its program; ours is asked already.
        unpin(&pin_of(&self.settings.pins, self.settings.port))?;
        self.link = Some(match &self.settings.closed {
            Some(folder) => pin(link, folder, self.settings.port)?,
            None => link,
        });
        Ok(())
    }

    /// The service's port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.settings.port
    }

    /// What came of connections so far.
    #[must_use]
    pub fn counters(&self) -> Counted {
        let Ok(by_cpu) = self.passed.get(&0, 0) else {
            return Counted::new();
        };
        let sum = |i| by_cpu.iter().filter_map(|counts| counts.get(i)).sum();
        let names = PASSAGES.iter().enumerate();
        names
            .map(|(i, name)| ((*name).to_owned(), sum(i)))
            .collect()
    }
}

fn map(ebpf: &mut Ebpf, what: &'static str) -> Result<aya::maps::Map, KernelError> {
    ebpf.take_map(what).ok_or(KernelError::BadObject { what })
}

fn program(ebpf: &mut Ebpf) -> Result<&mut SkLookup, KernelError> {
    match ebpf.program_mut(PROGRAM) {
        Some(Program::SkLookup(program)) => Ok(program),
        _ => Err(KernelError::BadObject { what: PROGRAM }),
    }
}

/// The loader makes all maps of the object, whoever uses them.
fn maps_to_shrink(object: &[u8]) -> Result<Vec<String>, KernelError> {
    let object =
        Object::parse(object).map_err(|_malformed| KernelError::BadObject { what: PROGRAM })?;
    let unused = |name: &String| !name.starts_with('.') && !MAPS.contains(&&**name);
    Ok(object.maps.into_keys().filter(unused).collect())
}

fn pin_of(folder: &Path, port: u16) -> PathBuf {
    folder.join(format!("intercept-{port}"))
}

fn unpin(path: &Path) -> Result<(), KernelError> {
    match fs::remove_file(path) {
        Err(source) if !is_absent(&source) => Err(KernelError::Pin {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn pin(link: FdLink, folder: &Path, port: u16) -> Result<FdLink, KernelError> {
    let path = pin_of(folder, port);
    let failed = |source| KernelError::Pin {
        path: path.clone(),
        source,
    };
    fs::create_dir_all(folder).map_err(failed)?;
    let pinned = link
        .pin(&path)
        .map_err(|error| failed(io::Error::other(error)))?;
    Ok(pinned.into())
}

impl OwnEnds {
    fn change(
        &self,
        change: impl FnOnce(&mut HashMap<MapData, End, u32>) -> Result<(), aya::maps::MapError>,
    ) -> io::Result<()> {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut ends).map_err(io::Error::other)
    }
}

impl OwnConnections for OwnEnds {
    fn are_to(&self, destination: SocketAddr) -> bool {
        destination.port() == self.port
    }

    fn begin(&self, source: SocketAddr) -> io::Result<()> {
        self.change(|ends| ends.insert(end(source), 0, 0))
    }

    fn end(&self, source: SocketAddr) {
        // It is there, or the kernel is out of order.
        let _gone = self.change(|ends| ends.remove(&end(source)));
    }
}

impl fmt::Debug for OwnEnds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnEnds")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

fn end(address: SocketAddr) -> End {
    let ip: IpAddr = address.ip();
    End::new(ip, address.port())
}
