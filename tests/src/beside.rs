//! What somebody else may do to programs that are attached.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType, loaded_links};

use crate::netns::Netns;

/// Commands of bpf(2).
const LINK_GET_FD_BY_ID: i32 = 30;
const LINK_DETACH: i32 = 34;

/// Detaches all that tcx runs at a hook of an interface (`bpftool link detach`), whoever holds it.
///
/// # Errors
/// Where there is nothing, or the kernel refuses.
pub fn detach(netns: &Netns, interface: &str, hook: TcAttachType) -> Result<()> {
    let (_, programs) = netns.enter(|| SchedClassifier::query_tcx(interface, hook))??;
    ensure!(!programs.is_empty(), "nothing is attached");
    for link in loaded_links() {
        let link = link?;
        if programs
            .iter()
            .any(|program| program.id() == link.program_id())
        {
            detach_link(link.id()).context("detaching a link")?;
        }
    }
    Ok(())
}

fn detach_link(id: u32) -> io::Result<()> {
    let fd = bpf(LINK_GET_FD_BY_ID, id)?;
    // SAFETY: the kernel has just made it.
    let link = unsafe { OwnedFd::from_raw_fd(fd) };
    bpf(LINK_DETACH, link.as_raw_fd().cast_unsigned()).map(drop)
}

/// One command, whose attributes are one word of 32 bits.
fn bpf(command: i32, word: u32) -> io::Result<RawFd> {
    let attributes = [word, 0, 0, 0];
    // SAFETY: these commands read so many bytes at most, and write none.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    RawFd::try_from(done)
        .ok()
        .filter(|done| *done >= 0)
        .ok_or_else(io::Error::last_os_error)
}
