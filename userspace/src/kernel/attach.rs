//! Attaching the programs to interfaces, and keeping up with those that come and go.

use std::collections::BTreeMap;

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, TcAttachType, XdpMode,
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, qdisc_add_clsact},
        xdp::XdpLink,
    },
};
use tokenblock_ebpf::packet::Link;
use tracing::{debug, info, warn};

use super::{
    error::KernelError,
    interfaces::{Change, Interface},
    load::{classifier, xdp},
    patterns::Patterns,
    system,
};
use crate::cli::{Direction, Xdp};

/// One way through an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Hook {
    Ingress,
    Egress,
}

impl Hook {
    /// Requests pass one of them, what their servers acknowledge the other.
    const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    fn program(self, link: Link) -> &'static str {
        match (self, link) {
            (Self::Ingress, Link::Ethernet) => "ingress_ethernet",
            (Self::Egress, Link::Ethernet) => "egress_ethernet",
            (Self::Ingress, Link::Ip) => "ingress_ip",
            (Self::Egress, Link::Ip) => "egress_ip",
        }
    }

    fn attach_type(self) -> TcAttachType {
        match self {
            Self::Ingress => TcAttachType::Ingress,
            Self::Egress => TcAttachType::Egress,
        }
    }
}

/// The links that hold the programs to interfaces; dropped, they detach.
pub struct Attachments {
    patterns: Patterns,
    tcx: bool,
    xdp: &'static [XdpMode],
    links: BTreeMap<u32, Attached>,
}

struct Attached {
    name: String,
    #[expect(dead_code, reason = "held: dropping a link detaches its program")]
    links: Vec<SchedClassifierLink>,
    #[expect(dead_code, reason = "held: dropping a link detaches its program")]
    xdp: Option<XdpLink>,
}

impl Attachments {
    /// Nothing attached yet.
    #[must_use]
    pub fn new(patterns: Patterns, direction: Direction, xdp: Xdp) -> Self {
        // tcx came with Linux 6.6 (kernel commit e420bed02507).
        let tcx = system::kernel_at_least(6, 6);
        Self {
            patterns,
            tcx,
            // XDP sees what comes in.
            xdp: match direction {
                Direction::Egress => &[],
                Direction::Ingress | Direction::Both => modes(xdp),
            },
            links: BTreeMap::new(),
        }
    }

    /// Attaches to all of `present` that are meant.
    ///
    /// # Errors
    /// [`KernelError::NoInterface`] where one that was named is not there, or why one can't be attached to.
    pub fn start(&mut self, ebpf: &mut Ebpf, present: &[Interface]) -> Result<(), KernelError> {
        let names: Vec<&str> = present
            .iter()
            .map(|interface| interface.name.as_str())
            .collect();
        if let Some(name) = self.patterns.missing(&names) {
            return Err(KernelError::NoInterface {
                name: name.to_owned(),
                known: names.join(", "),
            });
        }
        for interface in present {
            self.attach(ebpf, interface)?;
        }
        if self.links.is_empty() {
            info!("no interface matches yet; those that appear will be protected");
        }
        Ok(())
    }

    /// Follows a change. An interface that can't be attached to is an error in the log, never an end.
    pub fn follow(&mut self, ebpf: &mut Ebpf, change: &Change) {
        match change {
            Change::Gone(index) => {
                if let Some(gone) = self.links.remove(index) {
                    info!(interface = gone.name, "interface is gone");
                }
            }
            Change::There(interface) => {
                if let Err(error) = self.attach(ebpf, interface) {
                    warn!(
                        interface = interface.name,
                        error = &error as &dyn std::error::Error,
                        "interface is not protected"
                    );
                }
            }
        }
    }

    /// Detaches from all interfaces.
    pub fn clear(&mut self) {
        self.links.clear();
    }

    /// Names of the interfaces that are protected.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.links
            .values()
            .map(|attached| attached.name.as_str())
            .collect()
    }

    fn attach(&mut self, ebpf: &mut Ebpf, interface: &Interface) -> Result<(), KernelError> {
        if self.links.contains_key(&interface.index) || !self.patterns.matches(&interface.name) {
            return Ok(());
        }
        let Some(link) = interface.link else {
            return Err(KernelError::BadLink {
                name: interface.name.clone(),
            });
        };
        let mut links = Vec::with_capacity(Hook::ALL.len());
        for hook in Hook::ALL {
            links.push(self.attach_hook(ebpf, &interface.name, hook, link)?);
        }
        let xdp = self.attach_xdp(ebpf, &interface.name, link);
        debug!(
            interface = interface.name,
            tcx = self.tcx,
            xdp = xdp.is_some(),
            "attached"
        );
        let name = interface.name.clone();
        self.links
            .insert(interface.index, Attached { name, links, xdp });
        Ok(())
    }

    /// Attaches the XDP program by the first mode that works. It only saves work, so that none works is no
    /// error.
    fn attach_xdp(&self, ebpf: &mut Ebpf, name: &str, link: Link) -> Option<XdpLink> {
        if link == Link::Ip {
            return None;
        }
        let (last, first) = self.xdp.split_last()?;
        let program = match xdp(ebpf) {
            Ok(program) => program,
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "XDP can't help");
                return None;
            }
        };
        let mut attach = |mode| {
            let id = program.attach(name, mode)?;
            program.take_link(id)
        };
        first
            .iter()
            .find_map(|mode| attach(*mode).ok())
            .or_else(|| match attach(*last) {
                Ok(link) => Some(link),
                Err(error) => {
                    warn!(
                        interface = name,
                        error = &error as &dyn std::error::Error,
                        "XDP can't help on this interface; it is protected all the same"
                    );
                    None
                }
            })
    }

    fn attach_hook(
        &self,
        ebpf: &mut Ebpf,
        name: &str,
        hook: Hook,
        link: Link,
    ) -> Result<SchedClassifierLink, KernelError> {
        let failed = |source| KernelError::Attach {
            name: name.to_owned(),
            source,
        };
        let options = if self.tcx {
            TcAttachOptions::TcxOrder(LinkOrder::first())
        } else {
            add_clsact(name)?;
            TcAttachOptions::Netlink(NlOptions::default())
        };
        let program = classifier(ebpf, hook.program(link))?;
        let id = program
            .attach_with_options(name, hook.attach_type(), options)
            .map_err(failed)?;
        program.take_link(id).map_err(failed)
    }
}

/// The modes to try, in this order.
fn modes(xdp: Xdp) -> &'static [XdpMode] {
    match xdp {
        Xdp::Auto => &[XdpMode::Driver, XdpMode::Skb],
        Xdp::Native => &[XdpMode::Driver],
        Xdp::Generic => &[XdpMode::Skb],
        Xdp::Off => &[],
    }
}

/// Adds the qdisc that programs attach to before tcx; one that is there already serves.
fn add_clsact(name: &str) -> Result<(), KernelError> {
    match qdisc_add_clsact(name) {
        Err(TcError::AlreadyAttached) | Ok(()) => Ok(()),
        Err(error) => Err(KernelError::Attach {
            name: name.to_owned(),
            source: ProgramError::from(error),
        }),
    }
}
