//! Who is at the other end of the socket.

use std::os::fd::AsRawFd as _;

use tokio::net::UnixStream;

/// Most groups of a user (`NGROUPS_MAX` is larger; nobody's control group is behind so many).
const GROUPS: usize = 1024;

/// Whether the peer is root, this process's own user, or a member of `group`.
pub(super) fn is_allowed(stream: &UnixStream, group: Option<u32>) -> bool {
    let Ok(peer) = stream.peer_cred() else {
        return false;
    };
    let own = rustix::process::geteuid().as_raw();
    let of_group = |group: u32| peer.gid() == group || groups(stream).contains(&group);
    peer.uid() == 0 || peer.uid() == own || group.is_some_and(of_group)
}

/// The peer's supplementary groups, as they were when it connected (socket(7), `SO_PEERGROUPS`).
fn groups(stream: &UnixStream) -> Vec<u32> {
    let mut groups = vec![0_u32; GROUPS];
    let mut bytes = u32::try_from(size_of_val(&*groups)).unwrap_or(0);
    // SAFETY: the socket is open, and the kernel writes no more than `bytes` bytes of group ids into `groups`.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    };
    groups.truncate(if result == 0 {
        bytes as usize / size_of::<u32>()
    } else {
        0
    });
    groups
}
