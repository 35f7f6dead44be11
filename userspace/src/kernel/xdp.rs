//! When and how the XDP program is attached to an interface. It only saves work: where it can't be attached, the
//! interface is protected all the same.

use aya::{
    Ebpf,
    programs::{Xdp as Program, XdpMode, links::FdLink, xdp::XdpLink},
};
use rustix::io::Errno;
use tokenblock_ebpf::packet::Link;
use tracing::warn;

use super::{
    error::KernelError,
    interfaces::Interface,
    load::xdp,
    pins::{self, Place, ReplaceError, SetPins},
    system,
};
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
    always: Option<Always>,
    while_busy: Option<XdpLink>,
}

/// A link that is held as long as the interface is protected.
enum Always {
    Own {
        #[expect(dead_code, reason = "held: dropping a link detaches its program")]
        link: XdpLink,
    },
    /// It outlives the process.
    Pinned {
        #[expect(dead_code, reason = "held, as the other")]
        link: FdLink,
        place: Place,
    },
}

impl Hold {
    /// Attaches what is held always.
    pub(super) fn new(
        plan: Plan,
        ebpf: &mut Ebpf,
        interface: &Interface,
        pins: Option<&SetPins>,
    ) -> Self {
        let mut hold = Self {
            plan,
            interface: interface.clone(),
            always: None,
            while_busy: None,
        };
        if let Some(mode) = plan.always(interface) {
            hold.always = match pins {
                Some(pins) => hold.attach_pinned(ebpf, mode, pins),
                None => hold.attach(ebpf, mode).map(|link| Always::Own { link }),
            };
        }
        hold
    }

    /// Where a link outlives the process.
    pub(super) fn place(&self) -> Option<Place> {
        match self.always {
            Some(Always::Pinned { place, .. }) => Some(place),
            Some(Always::Own { .. }) | None => None,
        }
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
        self.told(mode, || self.attach_new(xdp(ebpf)?, mode))
    }

    fn attach_pinned(&self, ebpf: &mut Ebpf, mode: XdpMode, pins: &SetPins) -> Option<Always> {
        let (place, other) = match mode {
            XdpMode::Driver => (Place::XdpNative, Place::XdpGeneric),
            XdpMode::Default | XdpMode::Skb | XdpMode::Hardware => {
                (Place::XdpGeneric, Place::XdpNative)
            }
        };
        let index = self.interface.index;
        // An interface has one program there, in one mode.
        pins.release(other, index);
        self.told(mode, || {
            let hold = pins::Hold {
                program: xdp(ebpf)?,
                interface: &self.interface.name,
                replace,
                attach: |program: &mut Program| {
                    let link = self.attach_new(program, mode)?;
                    link.try_into()
                        .map_err(|_by_netlink| KernelError::BadObject {
                            what: "an XDP link",
                        })
                },
            };
            let link = pins.hold(place, index, hold)?;
            Ok(Always::Pinned { link, place })
        })
    }

    fn attach_new(&self, program: &mut Program, mode: XdpMode) -> Result<XdpLink, KernelError> {
        let failed = |source| KernelError::Attach {
            name: self.interface.name.clone(),
            source,
        };
        let id = program
            .attach_to_if_index(self.interface.index, mode)
            .map_err(failed)?;
        program.take_link(id).map_err(failed)
    }

    /// What came of attaching; why it failed is a warning in the log.
    fn told<T>(&self, mode: XdpMode, attach: impl FnOnce() -> Result<T, KernelError>) -> Option<T> {
        if self.interface.link != Some(Link::Ethernet) {
            return None;
        }
        let error: Box<dyn std::error::Error> = match attach() {
            Ok(link) => return Some(link),
            Err(error) if is_taken(&error) => Box::new(Taken),
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

/// Puts a program in the place of the one under a link.
fn replace(program: &mut Program, link: FdLink) -> Result<FdLink, ReplaceError> {
    let id = program.attach_to_link(link.try_into()?)?;
    Ok(program.take_link(id)?.try_into()?)
}

/// An interface has one XDP program, and that in one mode.
#[derive(Debug, thiserror::Error)]
#[error("another XDP program is attached to it")]
struct Taken;

/// Whether the kernel refuses the program for the sake of another.
fn is_taken(error: &KernelError) -> bool {
    system::has_errno(error, &[Errno::BUSY, Errno::EXIST])
}
