//! Loading the programs and giving them what they need.

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData},
    programs::{Program, SchedClassifier},
};
use tokenblock_ebpf::{
    rules::Rules,
    verdict::{PortSet, Settings},
};

use super::error::KernelError;

/// What the programs are loaded with.
pub struct Load<'a> {
    /// The BPF object.
    pub object: &'a [u8],
    /// Key and locations.
    pub rules: &'a Rules,
    /// Settings of the programs.
    pub settings: Settings,
    /// The protected ports.
    pub ports: &'a PortSet,
    /// Most entries that the denylist map can hold.
    pub capacity: u32,
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
    let mut ebpf = EbpfLoader::new()
        .map_max_entries("DENYLIST", request.capacity)
        .map_max_entries("FILTER", request.settings.filter_mask + 1)
        .load(request.object)
        .map_err(KernelError::from_load)?;
    set(&mut ebpf, "RULES", *request.rules)?;
    set(&mut ebpf, "SETTINGS", request.settings)?;
    set(&mut ebpf, "PORTS", *request.ports)?;
    for name in CLASSIFIERS {
        classifier(&mut ebpf, name)?
            .load()
            .map_err(KernelError::from_program)?;
    }
    Ok(ebpf)
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

fn set<T: aya::Pod>(ebpf: &mut Ebpf, name: &'static str, value: T) -> Result<(), KernelError> {
    let map = ebpf
        .map_mut(name)
        .ok_or(KernelError::BadObject { what: name })?;
    let mut array: Array<&mut MapData, T> = Array::try_from(map)?;
    array.set(0, value, 0)?;
    Ok(())
}
