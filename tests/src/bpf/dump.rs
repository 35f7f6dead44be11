//! The bytes of any map, whatever its types: what an administrator's `bpftool map dump` shows.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use anyhow::{Context as _, Result};
use aya::maps::{MapInfo, MapType};

/// All keys and values of the map with this id, and of the maps that it holds, one behind the other. A ring buffer has
/// none: it is read by mapping.
///
/// # Errors
/// Where the map can't be read.
pub fn contents(id: u32) -> Result<Vec<u8>> {
    let info = MapInfo::from_id(id)?;
    let name = info.name_as_str().unwrap_or("?").to_owned();
    let kind = info.map_type()?;
    if kind == MapType::RingBuf {
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
