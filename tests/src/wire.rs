//! Whole frames from and to an interface, past the TCP of the namespace that it is in.

use std::{
    io::ErrorKind,
    mem::MaybeUninit,
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::retry_on_intr,
    net::{RecvFlags, SendFlags},
};

use crate::netns::Netns;

/// Bytes of `struct virtio_net_hdr`, which stands in front of each frame: what the kernel has yet to do to it
/// (complete a checksum, cut it into segments). All zero: nothing.
pub const PREFIX: usize = 10;
/// Most bytes of a frame with its prefix: a packet of 64 KiB that is not cut into segments yet.
pub const MAX: usize = 72 * 1024;
/// Bytes that wait in the kernel, to be read.
const BUFFER: i32 = 8 * 1024 * 1024;

/// A packet socket (packet(7)) on one interface. It does not see what is sent through it.
#[derive(Debug)]
pub struct Wire(OwnedFd);

impl Wire {
    /// Opens it on `interface` of `netns`.
    ///
    /// # Errors
    /// Where there is no such interface, or no privilege.
    pub fn open(netns: &Netns, interface: &str) -> Result<Self> {
        netns
            .enter(|| Self::open_here(interface))?
            .with_context(|| format!("a packet socket on {interface}"))
    }

    fn open_here(interface: &str) -> Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::PACKET, socket2::Type::RAW, None)?;
        socket.set_nonblocking(true)?;
        let fd = socket.as_raw_fd();
        for (level, option, value) in [
            (libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1),
            (libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1),
            (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER),
            (libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, BUFFER),
        ] {
            let size = libc::socklen_t::try_from(size_of::<i32>())?;
            // SAFETY: the option is an integer, and lives.
            if unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), size) } != 0
            {
                bail!(std::io::Error::last_os_error());
            }
        }
        let index = rustix::net::netdevice::name_to_index(&socket, interface)?;
        // SAFETY: all zero is a socket address.
        let mut address: libc::sockaddr_ll = unsafe { MaybeUninit::zeroed().assume_init() };
        address.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET)?;
        address.sll_protocol = u16::try_from(libc::ETH_P_ALL)?.to_be();
        address.sll_ifindex = i32::try_from(index)?;
        let size = libc::socklen_t::try_from(size_of_val(&address))?;
        // SAFETY: an address of this size.
        if unsafe { libc::bind(fd, (&raw const address).cast(), size) } != 0 {
            bail!(std::io::Error::last_os_error());
        }
        Ok(Self(socket.into()))
    }

    /// Sends a prefix and a frame.
    ///
    /// # Errors
    /// Where the interface refuses it.
    pub fn send(&self, prefixed: &[u8]) -> Result<()> {
        rustix::net::send(&self.0, prefixed, SendFlags::empty()).context("sending a frame")?;
        Ok(())
    }

    /// The next prefix and frame, or `None` where none comes within `limit`.
    ///
    /// # Errors
    /// Where the interface is gone.
    pub fn receive<'a>(&self, buffer: &'a mut [u8], limit: Duration) -> Result<Option<&'a [u8]>> {
        let mut polled = [PollFd::new(&self.0, PollFlags::IN)];
        let limit = Timespec::try_from(limit)?;
        // It ends early where the machine is stopped and goes on.
        let polled = retry_on_intr(|| rustix::event::poll(&mut polled, Some(&limit)))?;
        if polled == 0 {
            return Ok(None);
        }
        match rustix::net::recv(&self.0, &mut *buffer, RecvFlags::empty()) {
            Ok((count, _)) => Ok(buffer.get(..count)),
            Err(error) if std::io::Error::from(error).kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error).context("receiving a frame"),
        }
    }
}

/// Has an interface of this namespace take no packets that are longer than a segment: the kernel cuts them before.
///
/// # Errors
/// Where there is no such interface, or it can't be told so.
pub fn cut_in_software(interface: &str) -> Result<()> {
    /// `struct ethtool_value`: turn segmentation in the device on or off (`ETHTOOL_STSO`).
    #[repr(C)]
    struct Segmentation {
        command: u32,
        on: u32,
    }
    const SET_SEGMENTATION: u32 = 0x1f;
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    let mut off = Segmentation {
        command: SET_SEGMENTATION,
        on: 0,
    };
    // SAFETY: all zero is a request.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    // Its last byte stays 0.
    let name = request.ifr_name.iter_mut().take(libc::IF_NAMESIZE - 1);
    for (to, from) in name.zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut off).cast();
    // SAFETY: a request whose data is what the command wants, and lives.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) } != 0 {
        bail!(std::io::Error::last_os_error());
    }
    Ok(())
}
