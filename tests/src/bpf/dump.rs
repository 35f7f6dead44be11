//! The bytes of any map, whatever its types: what an administrator's `bpftool map dump` shows.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use anyhow::{Context as _, Result};
use aya::maps::{MapInfo, MapType};

/// All keys and values of the map with this id, and of the maps that it holds, one behind the other. A ring buffer has
/// none: it is read by mapping. One of sockets has nothing else.
///
/// # Errors
/// Where the map can't be read.
pub fn contents(id: u32) -> Result<Vec<u8>> {
    let info = MapInfo::from_id(id)?;
    let name = info.name_as_str().unwrap_or("?").to_owned();
    let kind = info.map_type()?;
    if matches!(kind, MapType::RingBuf | MapType::SockMap) {
        return Ok(Vec::new());
    }
    let value_size = info.value_size() as usize;
    let per_cpu = [
        MapType::PerCpuArray,
        MapType::PerCpuHash,
        MapType::LruPerCpuHash,
    ];
    let slots = if per_cpu.contains(&kind) {
        aya::util::nr_cpus().map_err(|(_, error)| error)?
    } else {
        1
    };
    let fd = info.fd()?;
    let fd = fd.as_fd().as_raw_fd();
    let mut key: Option<Vec<u8>> = None;
    let mut value = vec![0; value_size.next_multiple_of(8) * slots];
    let mut all = Vec::new();
    loop {
        let mut next = vec![0; info.key_size() as usize];
        if !call(NEXT_KEY, fd, key.as_deref(), &mut next).with_context(|| name.clone())? {
            return Ok(all);
        }
        if call(LOOKUP, fd, Some(&next), &mut value).with_context(|| name.clone())? {
            all.extend_from_slice(&next);
            if kind == MapType::ArrayOfMaps {
                // Seen from here a map is its id.
                let id = value.first_chunk().map(|id| u32::from_ne_bytes(*id));
                all.extend(contents(id.context("no id")?)?);
            } else {
                all.extend_from_slice(&value);
            }
        }
        key = Some(next);
    }
}

/// Ids of the maps that a process holds by their descriptors, and of those in them.
///
/// # Errors
/// Where the process or a map can't be read.
pub fn maps_of(pid: u32) -> Result<BTreeSet<u32>> {
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor may be closed meanwhile.
        let Ok(text) = fs::read_to_string(entry?.path()) else {
            continue;
        };
        let Some(id) = field(&text, "map_id:") else {
            continue;
        };
        let id = u32::try_from(id)?;
        all.insert(id);
        let info = MapInfo::from_id(id)?;
        if info.map_type()? == MapType::ArrayOfMaps {
            all.extend(inner(id)?);
        }
    }
    Ok(all)
}

/// Ids of the maps in a map of maps.
fn inner(id: u32) -> Result<Vec<u32>> {
    let info = MapInfo::from_id(id)?;
    let fd = info.fd()?;
    let fd = fd.as_fd().as_raw_fd();
    let mut inner = Vec::new();
    for index in 0..info.max_entries() {
        let mut id = [0; 8];
        if call(LOOKUP, fd, Some(&index.to_ne_bytes()), &mut id)? {
            inner.extend(id.first_chunk().map(|id| u32::from_ne_bytes(*id)));
        }
    }
    Ok(inner)
}

/// Bytes of memory that the kernel counts for this map.
///
/// # Errors
/// Where the map is gone.
pub fn memory(id: u32) -> Result<u64> {
    let fd = MapInfo::from_id(id)?.fd()?;
    let number = fd.as_fd().as_raw_fd();
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?;
    field(&text, "memlock:").context("no memlock")
}

fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().parse().ok()
}

/// `BPF_MAP_LOOKUP_ELEM`.
const LOOKUP: libc::c_long = 1;
/// `BPF_MAP_GET_NEXT_KEY`.
const NEXT_KEY: libc::c_long = 4;

/// The part of `union bpf_attr` that the map commands read.
#[repr(C)]
struct Attributes {
    fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// False where there is no such element.
fn call(command: libc::c_long, fd: i32, key: Option<&[u8]>, out: &mut [u8]) -> io::Result<bool> {
    let attributes = Attributes {
        fd: fd.unsigned_abs(),
        padding: 0,
        key: key.map_or(0, |key| key.as_ptr().addr() as u64),
        value: out.as_mut_ptr().expose_provenance() as u64,
        flags: 0,
    };
    // SAFETY: the caller's slices have the sizes that the kernel reads and writes, rounded as it rounds them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ENOENT) {
        return Ok(false);
    }
    Err(error)
}
