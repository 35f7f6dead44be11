//! When and how the XDP program is attached to an interface. It only saves work: where it can't be attached, the
//! interface is protected all the same.

use aya::{
    Ebpf,
    programs::{ProgramError, XdpMode, xdp::XdpLink},
};
use rustix::io::Errno;
use tokenblock_ebpf::packet::Link;
use tracing::warn;

use super::{interfaces::Interface, load::xdp};
use crate::cli::{Direction, Xdp};

/// Which modes are tried, and when.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    xdp: Xdp,
}

impl Plan {
    /// XDP sees what comes in, so it is of no use to requests that go out.
    #[must_use]
    pub fn new(xdp: Xdp, direction: Direction) -> Self {
        let xdp = match direction {
            Direction::Egress => Xdp::Off,
            Direction::Ingress | Direction::Both => xdp,
        };
        Self { xdp }
    }

    /// What is held as long as the interface is protected.
    ///
    /// A device of hardware has the frame before the kernel made a packet of it. One of software has a packet
    /// already, and a program in its driver costs all traffic (veth: its peer segments each GSO packet).
    fn always(self, interface: &Interface) -> Option<XdpMode> {
        match self.xdp {
            Xdp::Auto if interface.hardware => Some(XdpMode::Driver),
            Xdp::Auto | Xdp::Off => None,
            Xdp::Native => Some(XdpMode::Driver),
            Xdp::Generic => Some(XdpMode::Skb),
        }
    }

    /// What is held while there is something to drop: it costs a copy of some packets.
    fn while_busy(self) -> Option<XdpMode> {
        match self.xdp {
            Xdp::Auto => Some(XdpMode::Skb),
            Xdp::Native | Xdp::Generic | Xdp::Off => None,
        }
    }
}

/// The XDP program's hold on one interface.
pub struct Hold {
    plan: Plan,
    interface: Interface,
    always: Option<XdpLink>,
    while_busy: Option<XdpLink>,
}

impl Hold {
    /// Attaches what is held always.
    pub fn new(plan: Plan, ebpf: &mut Ebpf, interface: &Interface) -> Self {
        let mut hold = Self {
            plan,
            interface: interface.clone(),
            always: None,
            while_busy: None,
        };
        if let Some(mode) = plan.always(interface) {
            hold.always = hold.attach(ebpf, mode);
        }
        hold
    }

    /// There is something to drop.
    pub fn busy(&mut self, ebpf: &mut Ebpf) {
        if let Some(mode) = self.plan.while_busy()
            && self.always.is_none()
            && self.while_busy.is_none()
        {
            self.while_busy = self.attach(ebpf, mode);
        }
    }

    /// There is nothing to drop.
    pub fn idle(&mut self) {
        self.while_busy = None;
    }

    fn attach(&self, ebpf: &mut Ebpf, mode: XdpMode) -> Option<XdpLink> {
        if self.interface.link != Some(Link::Ethernet) {
            return None;
        }
        let attached = xdp(ebpf).map(|program| -> Result<XdpLink, ProgramError> {
            let id = program.attach_to_if_index(self.interface.index, mode)?;
            program.take_link(id)
        });
        let error: Box<dyn std::error::Error> = match attached {
            Ok(Ok(link)) => return Some(link),
            Ok(Err(error)) if is_taken(&error) => Box::new(Taken),
            Ok(Err(error)) => error.into(),
            Err(error) => error.into(),
        };
        warn!(
            interface = self.interface.name,
            ?mode,
            error = &*error,
            "XDP can't help on this interface; it is protected all the same"
        );
        None
    }
}

/// An interface has one XDP program, and that in one mode.
#[derive(Debug, thiserror::Error)]
#[error("another XDP program is attached to it")]
struct Taken;

/// Whether the kernel refuses the program for the sake of another.
fn is_taken(error: &ProgramError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            let number = error.raw_os_error();
            return [Errno::BUSY, Errno::EXIST]
                .iter()
                .any(|errno| number == Some(errno.raw_os_error()));
        }
        cause = error.source();
    }
    false
}
