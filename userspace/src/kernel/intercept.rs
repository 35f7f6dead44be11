//! Hands new connections to the ports of local services to the proxy, by a program that the kernel asks who listens
//! (`BPF_PROG_TYPE_SK_LOOKUP`).
//!
//! The services keep their ports and their sockets. Connections keep their addresses, so the proxy sees whom they were
//! for. Each port has a program of its own: what keeps one shut while no proxy runs can be taken away for that one.

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
    /// The services' ports; at least one.
    pub ports: Vec<u16>,
    /// Where connections are refused, not left to the service, while there is no proxy: the folder in a BPF file system
    /// in which the program outlives this process.
    pub closed: Option<PathBuf>,
    /// That folder, where an earlier process may have left one.
    pub pins: PathBuf,
}

/// The programs, loaded, and attached for as long as this lives.
pub struct Interception {
    settings: InterceptSettings,
    programs: Vec<OnePort>,
}

/// The program of one port.
struct OnePort {
    port: u16,
    ebpf: Ebpf,
    proxy: SockMap<MapData>,
    passed: PerCpuArray<MapData, [u64; PASSAGES.len()]>,
    link: Option<FdLink>,
}

/// The near ends of connections.
type Ends = HashMap<MapData, End, u32>;

/// The proxy's own connections to the services, while they are made; by port.
pub struct OwnEnds(Vec<(u16, Mutex<Ends>)>);

impl Interception {
    /// Loads the programs; nothing is intercepted yet.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel refuses one, for the most likely reason.
    pub fn load(settings: InterceptSettings) -> Result<(Self, OwnEnds), KernelError> {
        let (mut programs, mut ends) = (Vec::new(), Vec::new());
        for port in &settings.ports {
            let (program, own) = OnePort::load(*port, settings.closed.is_some())?;
            programs.push(program);
            ends.push((*port, Mutex::new(own)));
        }
        Ok((Self { settings, programs }, OwnEnds(ends)))
    }

    /// Intercepts from now on: `listener` gets the connections.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel refuses it.
    pub fn attach(&mut self, listener: BorrowedFd<'_>) -> Result<(), KernelError> {
        let settings = &self.settings;
        self.programs
            .iter_mut()
            .try_for_each(|program| program.attach(listener, settings))
    }

    /// The services' ports, separated by commas.
    #[must_use]
    pub fn ports(&self) -> String {
        let ports: Vec<_> = self.programs.iter().map(|p| p.port.to_string()).collect();
        ports.join(",")
    }

    /// What came of connections so far.
    #[must_use]
    pub fn counters(&self) -> Counted {
        let passed: Vec<_> = self
            .programs
            .iter()
            .filter_map(|program| program.passed.get(&0, 0).ok())
            .collect();
        let sum = |i| {
            let by_cpu = passed.iter().flat_map(|by_cpu| by_cpu.iter());
            by_cpu.filter_map(|counts| counts.get(i)).sum()
        };
        let names = PASSAGES.iter().enumerate();
        names
            .map(|(i, name)| ((*name).to_owned(), sum(i)))
            .collect()
    }
}

impl OnePort {
    fn load(port: u16, closed: bool) -> Result<(Self, Ends), KernelError> {
        let bytes = object::programs(Variant::Keyed)?;
        let names = maps_to_shrink(bytes)?;
        let mut loader = EbpfLoader::new();
        for name in &names {
            loader.map_max_entries(name, 1);
        }
        let mut ebpf = loader.load(bytes).map_err(KernelError::from_load)?;
        let what = Intercept {
            port: port.into(),
            closed: closed.into(),
        };
        let mut array: Array<_, Intercept> = Array::try_from(map(&mut ebpf, MAPS[0])?)?;
        array.set(0, what, 0)?;
        let proxy = SockMap::try_from(map(&mut ebpf, MAPS[1])?)?;
        let own = HashMap::try_from(map(&mut ebpf, MAPS[2])?)?;
        let passed = PerCpuArray::try_from(map(&mut ebpf, MAPS[3])?)?;
        program(&mut ebpf)?
            .load()
            .map_err(KernelError::from_program)?;
        let program = Self {
            port,
            ebpf,
            proxy,
            passed,
            link: None,
        };
        Ok((program, own))
    }

    fn attach(
        &mut self,
        listener: BorrowedFd<'_>,
        settings: &InterceptSettings,
    ) -> Result<(), KernelError> {
        self.proxy.set(0, &listener, 0)?;
        let netns = fs::File::open(NETNS).map_err(KernelError::Netns)?;
        let program = program(&mut self.ebpf)?;
        let id = program.attach(netns).map_err(KernelError::Program)?;
        let link: SkLookupLink = program.take_link(id).map_err(KernelError::Program)?;
        let link = FdLink::from(link);
        // An earlier process may have left its program; ours is asked already.
        unpin(&pin_of(&settings.pins, self.port))?;
        self.link = Some(match &settings.closed {
            Some(folder) => pin(link, folder, self.port)?,
            None => link,
        });
        Ok(())
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
        Err(source) if !is_absent(&source) && !is_hidden(path) => Err(KernelError::Pin {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Whether this process may not even see what is there: it has kept nothing there itself. The usual folder of BPF file
/// systems is root's alone.
fn is_hidden(path: &Path) -> bool {
    let seen = fs::symlink_metadata(path);
    let hidden = seen.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
    if hidden {
        tracing::debug!(path = %path.display(), "no permission to look for what was kept");
    }
    hidden
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
    /// Changes what is noted of connections to this destination; nothing where its port is none of ours.
    fn change(
        &self,
        destination: SocketAddr,
        change: impl FnOnce(&mut Ends) -> Result<(), aya::maps::MapError>,
    ) -> io::Result<()> {
        let ends = self.0.iter().find(|(port, _)| *port == destination.port());
        let Some((_, ends)) = ends else {
            return Ok(());
        };
        let mut ends = ends.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut ends).map_err(io::Error::other)
    }
}

impl OwnConnections for OwnEnds {
    fn are_to(&self, destination: SocketAddr) -> bool {
        self.0.iter().any(|(port, _)| *port == destination.port())
    }

    fn begin(&self, source: SocketAddr, destination: SocketAddr) -> io::Result<()> {
        self.change(destination, |ends| ends.insert(end(source), 0, 0))
    }

    fn end(&self, source: SocketAddr, destination: SocketAddr) {
        // It is there, or the kernel is out of order.
        let _gone = self.change(destination, |ends| ends.remove(&end(source)));
    }
}

impl fmt::Debug for OwnEnds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.0.iter().map(|(port, _)| port);
        f.write_str("OwnEnds")?;
        f.debug_list().entries(ports).finish()
    }
}

fn end(address: SocketAddr) -> End {
    let ip: IpAddr = address.ip();
    End::new(ip, address.port())
}
