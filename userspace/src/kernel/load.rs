//! Loading the programs and giving them what they need.

use std::{
    net::{IpAddr, Ipv4Addr},
    panic::resume_unwind,
    path::PathBuf,
    thread::{self, ScopedJoinHandle},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{
        Array, ArrayOfMaps, MapData,
        lpm_trie::{Key, LpmTrie},
    },
    programs::{Program, ProgramError, SchedClassifier, Xdp},
};
use ipnet::IpNet;
use tokenblock_ebpf::{
    flow::PlaceKeys,
    rules::Rules,
    sums::SumKeys,
    verdict::{PortSet, Settings},
};

use zeroize::Zeroizing;

use super::{
    debug,
    error::KernelError,
    flows::table_size,
    generation::Generation,
    object::{Variant, programs},
};

/// What the programs are loaded with.
pub struct Load<'a> {
    /// Which programs.
    pub variant: Variant,
    /// Key and locations.
    pub rules: &'a Rules,
    /// Settings of the programs.
    pub settings: Settings,
    /// The protected ports.
    pub ports: &'a PortSet,
    /// Most flows that are kept on record.
    pub flows: u32,
    /// What the places of flows in their table depend on; nobody else is to know.
    pub place_keys: PlaceKeys,
    /// Networks that are never banned.
    pub exempt: &'a [IpNet],
    /// Maps that are taken from their pins, or pinned there.
    pub kept: &'a [(&'static str, PathBuf)],
}

/// The hooks of the object, by the way a packet goes and the way its frame begins.
pub const CLASSIFIERS: [&str; 4] = [
    "ingress_ethernet",
    "egress_ethernet",
    "ingress_ip",
    "egress_ip",
];

/// Loads the object into the kernel; nothing is attached yet.
///
/// # Errors
/// [`KernelError`] where the kernel refuses it, for the most likely reason.
pub fn load(request: &Load<'_>) -> Result<Ebpf, KernelError> {
    let level = debug::level();
    let mut loader = EbpfLoader::new();
    for (name, path) in request.kept {
        loader.map_pin_path(name, path);
    }
    let mut ebpf = loader
        .override_global("AYA_LOG_LEVEL", &level, true)
        .override_global("PLACE_KEYS", &request.place_keys, true)
        .map_max_entries("FLOWS", table_size(request.flows)?)
        .map_max_entries("EXEMPT", len_of(request.exempt))
        .map_max_entries("COPIES", copies(request.settings))
        .load(programs(request.variant)?)
        .map_err(KernelError::from_load)?;
    NewRules::make(request.rules)?.put(&mut ebpf)?;
    set(&mut ebpf, "SETTINGS", request.settings)?;
    set(&mut ebpf, "PORTS", *request.ports)?;
    set(&mut ebpf, "SUM_KEYS", sum_keys()?)?;
    exempt(&mut ebpf, request.exempt)?;
    for name in CLASSIFIERS {
        classifier(&mut ebpf, name)?;
    }
    verify(&mut ebpf)?;
    Ok(ebpf)
}

/// Rules for programs, on their way there.
pub(super) struct NewRules(Array<MapData, Rules>);

impl NewRules {
    /// Has the kernel hold them.
    ///
    /// # Errors
    /// [`KernelError::Map`] where it has no memory.
    pub(super) fn make(rules: &Rules) -> Result<Self, KernelError> {
        let mut array = Array::create(1, 0)?;
        array.set(0, *rules, 0)?;
        Ok(Self(array))
    }

    /// Puts them in the place of those in force: each packet is judged by the ones or the others. Once this returns none is
    /// judged by the others any more.
    ///
    /// # Errors
    /// [`KernelError::BadObject`] where the programs have no such place.
    pub(super) fn put(&self, ebpf: &mut Ebpf) -> Result<(), KernelError> {
        let what = "RULES";
        let map = ebpf.map_mut(what).ok_or(KernelError::BadObject { what })?;
        let mut outer: ArrayOfMaps<&mut MapData, Array<MapData, Rules>> =
            ArrayOfMaps::try_from(map)?;
        outer.set(0, &self.0, 0)?;
        Generation::of(ebpf)?.bump();
        Ok(())
    }
}

/// Loads the classifiers, all at once: the verifier takes a tenth of a second and more for each.
fn verify(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    let classifiers = ebpf.programs_mut().filter_map(|(name, program)| {
        let program: Result<&mut SchedClassifier, _> = program.try_into();
        program.ok().filter(|_| CLASSIFIERS.contains(&name))
    });
    let verified: Result<(), ProgramError> = thread::scope(|scope| {
        let verifying: Vec<_> = classifiers
            .map(|program| scope.spawn(|| program.load()))
            .collect();
        verifying
            .into_iter()
            .map(ScopedJoinHandle::join)
            .try_for_each(
                // A panic is passed on.
                |result| result.unwrap_or_else(|panic| resume_unwind(panic)),
            )
    });
    verified.map_err(KernelError::from_program)
}

/// The classifier of this name.
///
/// # Errors
/// [`KernelError::BadObject`] where the object has none.
pub fn classifier<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, KernelError> {
    if let Some(Program::SchedClassifier(program)) = ebpf.program_mut(name) {
        Ok(program)
    } else {
        Err(KernelError::BadObject { what: name })
    }
}

/// Bits of an address that say that IPv4 is mapped into IPv6 (RFC 4291 section 2.5.5.2).
const MAPPED_BITS: u32 = 96;

/// How many pieces of what was passed on its way out are remembered: some 90 MB that no server has acknowledged.
fn copies(settings: Settings) -> u32 {
    const COPIES: u32 = 65_536;
    let sends = settings.judged >> 1 & 1 != 0;
    if sends { COPIES } else { 1 }
}

/// Room for that many networks, and for all of IPv4.
fn len_of(networks: &[IpNet]) -> u32 {
    u32::try_from(networks.len())
        .unwrap_or(u32::MAX)
        .saturating_add(1)
}

/// Exempts networks from bans; IPv4 ones are mapped into IPv6, as addresses in packets are. IPv6 networks that would hold
/// all of IPv4 so (`::/0`) do not.
fn exempt(ebpf: &mut Ebpf, networks: &[IpNet]) -> Result<(), KernelError> {
    let what = "EXEMPT";
    let map = ebpf.map_mut(what).ok_or(KernelError::BadObject { what })?;
    let mut trie: LpmTrie<&mut MapData, [u8; 16], u32> = LpmTrie::try_from(map)?;
    let mapped = |address: Ipv4Addr, bits: u32| {
        Key::new(MAPPED_BITS + bits, address.to_ipv6_mapped().octets())
    };
    trie.insert(&mapped(Ipv4Addr::UNSPECIFIED, 0), 0, 0)?;
    for network in networks {
        let bits = network.prefix_len().into();
        let key = match network.network() {
            IpAddr::V4(address) => mapped(address, bits),
            IpAddr::V6(address) => Key::new(bits, address.octets()),
        };
        trie.insert(&key, 1, 0)?;
    }
    Ok(())
}

/// The program that drops frames of blocked flows, loaded on its first use: it needs Linux 5.18
/// (`bpf_xdp_load_bytes`), a version more than the others.
///
/// # Errors
/// [`KernelError`] where the object has none, or the kernel refuses it.
pub fn xdp(ebpf: &mut Ebpf) -> Result<&mut Xdp, KernelError> {
    let what = "xdp_ethernet";
    let Some(Program::Xdp(program)) = ebpf.program_mut(what) else {
        return Err(KernelError::BadObject { what });
    };
    match program.load() {
        Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(program),
        Err(error) => Err(KernelError::from_program(error)),
    }
}

/// Places of flows that nobody knows.
///
/// # Errors
/// [`KernelError::Random`].
pub fn place_keys() -> Result<PlaceKeys, KernelError> {
    let mut keys = PlaceKeys::default();
    for key in keys.as_flattened_mut() {
        *key = getrandom::u64().map_err(KernelError::Random)?;
    }
    Ok(keys)
}

/// Keys that nobody knows.
fn sum_keys() -> Result<SumKeys, KernelError> {
    let mut bytes = Zeroizing::new([0; SumKeys::BYTES]);
    getrandom::fill(bytes.as_mut()).map_err(KernelError::Random)?;
    Ok(SumKeys::new(&bytes))
}

fn set<T: aya::Pod>(ebpf: &mut Ebpf, name: &'static str, value: T) -> Result<(), KernelError> {
    let map = ebpf
        .map_mut(name)
        .ok_or(KernelError::BadObject { what: name })?;
    let mut array: Array<&mut MapData, T> = Array::try_from(map)?;
    array.set(0, value, 0)?;
    Ok(())
}
