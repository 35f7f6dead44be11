//! Attaching the programs to interfaces, and keeping up with those that come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem::ManuallyDrop,
};

use aya::{
    Ebpf,
    maps::{Array, MapData},
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        links::FdLink,
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, qdisc_add_clsact},
    },
};
use aya_obj::generated::bpf_attach_type;
use tokenblock_ebpf::{flow::FlowKey, packet::Link};
use tracing::{debug, info, warn};

use super::{
    error::KernelError,
    interfaces::Interface,
    load::classifier,
    patterns::Patterns,
    pins::{self, Place, ReplaceError, SetPins},
    system,
    xdp::{Hold, Plan},
};
use crate::cli::Attach;

/// One way through an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hook {
    /// Into the host.
    Ingress,
    /// Out of it.
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

    fn place(self) -> Place {
        match self {
            Self::Ingress => Place::Ingress,
            Self::Egress => Place::Egress,
        }
    }

    fn attach_type(self) -> TcAttachType {
        match self {
            Self::Ingress => TcAttachType::Ingress,
            Self::Egress => TcAttachType::Egress,
        }
    }

    /// The same for programs that are attached by tcx.
    pub(super) fn tcx(self) -> bpf_attach_type {
        match self {
            Self::Ingress => bpf_attach_type::BPF_TCX_INGRESS,
            Self::Egress => bpf_attach_type::BPF_TCX_EGRESS,
        }
    }
}

/// The links that hold the programs to interfaces; dropped, they detach, but for those that are pinned.
pub struct Attachments {
    patterns: Patterns,
    uplinks: Option<Patterns>,
    tcx: bool,
    xdp: Plan,
    busy: bool,
    links: BTreeMap<u32, Attached>,
    pins: Option<SetPins>,
    /// How often programs were attached again that somebody else had detached.
    again: u64,
}

struct Attached {
    name: String,
    way: u32,
    links: Vec<Hooked>,
    xdp: Hold,
}

/// A program at a hook.
struct Hooked {
    hook: Hook,
    /// Its id.
    program: u32,
    link: Held,
}

/// A link of this process, or one that is pinned as well: that nobody ends by taking the pin away while this process runs.
enum Held {
    Own(SchedClassifierLink),
    #[expect(dead_code, reason = "held: dropping a link detaches its program")]
    Pinned(FdLink),
}

/// Whether programs are attached by tcx: by clsact else.
#[must_use]
pub(super) fn is_tcx(attach: Attach) -> bool {
    match attach {
        // tcx came with Linux 6.6 (kernel commit e420bed02507).
        Attach::Auto => system::kernel_at_least(6, 6),
        Attach::Tcx => true,
        Attach::Clsact => false,
    }
}

impl Attachments {
    /// Nothing attached yet. With `pins`, links outlive this.
    #[must_use]
    pub(super) fn new(
        patterns: Patterns,
        uplinks: Option<Patterns>,
        attach: Attach,
        xdp: Plan,
        pins: Option<SetPins>,
    ) -> Self {
        Self {
            patterns,
            uplinks,
            tcx: is_tcx(attach),
            xdp,
            busy: false,
            links: BTreeMap::new(),
            pins,
            again: 0,
        }
    }

    /// Attaches to all of `present` that are meant. One that is gone meanwhile is left out, unless it was named.
    ///
    /// # Errors
    /// [`KernelError::NoInterface`] where one that was named is not there, or why one can't be attached to.
    pub fn start(&mut self, ebpf: &mut Ebpf, present: &[Interface]) -> Result<(), KernelError> {
        self.require(&names(present))?;
        let mut there = present.to_vec();
        for interface in present {
            match self.attach(ebpf, interface) {
                Err(error) if system::has_interface(interface.index) => return Err(error),
                Err(_) => there.retain(|other| other.index != interface.index),
                Ok(()) => {}
            }
        }
        self.require(&names(&there))?;
        if let Some(pins) = &self.pins {
            pins.keep_only(&self.places())?;
        }
        if self.links.is_empty() {
            info!("no interface matches yet; those that appear will be protected");
        }
        Ok(())
    }

    /// All that were named must be among `names`.
    fn require(&self, names: &[&str]) -> Result<(), KernelError> {
        self.patterns.missing(names).map_or(Ok(()), |name| {
            Err(KernelError::NoInterface {
                name: name.to_owned(),
                known: names.join(", "),
            })
        })
    }

    /// The interface is there, new or changed. That it can't be attached to is a warning in the log, never an end.
    pub fn there(&mut self, ebpf: &mut Ebpf, interface: &Interface) {
        if let Err(error) = self.attach(ebpf, interface)
            && system::has_interface(interface.index)
        {
            warn!(
                interface = interface.name,
                error = &error as &dyn std::error::Error,
                "interface is not protected"
            );
        }
    }

    /// The interface with this index is gone.
    pub fn gone(&mut self, index: u32) {
        if let Some(gone) = self.take(index) {
            info!(interface = gone.name, "interface is gone");
        }
    }

    fn take(&mut self, index: u32) -> Option<Attached> {
        let gone = self.links.remove(&index)?;
        if let Some(pins) = &self.pins {
            for (place, _) in places(index, &gone) {
                pins.release(place, index);
            }
        }
        Some(gone)
    }

    /// The way of an interface of which somebody else has detached the program at this hook, of whose programs these were `found`.
    /// Nothing is attached to the interface then any more: attach to it again.
    pub(super) fn lost(&mut self, index: u32, hook: Hook, found: &[u32]) -> Option<u32> {
        let is_lost = |hooked: &Hooked| hooked.hook == hook && !found.contains(&hooked.program);
        let attached = self.links.get(&index)?;
        if !attached.links.iter().any(is_lost) {
            return None;
        }
        let lost = self.take(index)?;
        for hooked in lost.links {
            // What has the same numbers now may be somebody else's filter.
            if let (Held::Own(link), false) = (hooked.link, self.tcx)
                && hooked.hook == hook
            {
                let _gone = ManuallyDrop::new(link);
            }
        }
        self.again += 1;
        Some(lost.way)
    }

    /// How often programs were attached again that somebody else had detached.
    #[must_use]
    pub(super) fn again(&self) -> u64 {
        self.again
    }

    /// The hooks at which programs are held, each with the name of its interface.
    #[must_use]
    pub(super) fn hooks(&self) -> Vec<(u32, Hook, String)> {
        let of = |(index, attached): (&u32, &Attached)| {
            Hook::ALL.map(|hook| (*index, hook, attached.name.clone()))
        };
        self.links.iter().flat_map(of).collect()
    }

    /// The ids of the programs that are attached.
    pub(super) fn programs(&self) -> impl Iterator<Item = u32> {
        let links = self.links.values().flat_map(|attached| &attached.links);
        links.map(|hooked| hooked.program)
    }

    /// Whether programs are attached by tcx: by clsact else.
    #[must_use]
    pub(super) fn by_tcx(&self) -> bool {
        self.tcx
    }

    /// These interfaces are there, and no others.
    pub fn look(&mut self, ebpf: &mut Ebpf, present: &[Interface]) {
        let stays = |index: &u32| present.iter().any(|interface| interface.index == *index);
        let gone: Vec<u32> = self
            .links
            .keys()
            .filter(|index| !stays(index))
            .copied()
            .collect();
        for index in gone {
            self.gone(index);
        }
        for interface in present {
            self.there(ebpf, interface);
        }
    }

    /// There is something for XDP to drop.
    pub fn busy(&mut self, ebpf: &mut Ebpf) {
        if !self.busy {
            self.busy = true;
            for attached in self.links.values_mut() {
                attached.xdp.busy(ebpf);
            }
        }
    }

    /// Whether there is something for XDP to drop.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// There is nothing for XDP to drop any more.
    pub fn idle(&mut self) {
        self.busy = false;
        for attached in self.links.values_mut() {
            attached.xdp.idle();
        }
    }

    /// Whether an interface is protected that is this way, or one of those that are.
    #[must_use]
    pub fn has(&self, way: u32) -> bool {
        self.links.contains_key(&way) || self.links.values().any(|attached| attached.way == way)
    }

    /// Detaches from all interfaces, also where the links are pinned.
    pub fn clear(&mut self) {
        if let Some(pins) = &self.pins {
            pins.remove();
        }
        self.links.clear();
    }

    /// Detaches from all interfaces where links end with the process.
    pub fn leave(&mut self) {
        if self.pins.is_none() {
            self.links.clear();
        }
    }

    /// Whether links are pinned already.
    pub(super) fn has_pins(&self) -> bool {
        let pins = self.pins.as_ref();
        pins.is_some_and(SetPins::is_used)
    }

    /// The pins, where links outlive the process.
    pub(super) fn pins(&mut self) -> Option<&mut SetPins> {
        self.pins.as_mut()
    }

    /// Where links are held.
    fn places(&self) -> BTreeSet<(Place, u32)> {
        let links = self.links.iter();
        links
            .flat_map(|(index, attached)| places(*index, attached))
            .collect()
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
        let way = self.way(interface);
        if let Some(attached) = self.links.get_mut(&interface.index) {
            if attached.way != way {
                set_way(ebpf, interface.index, way)?;
                attached.way = way;
            }
            return Ok(());
        }
        if !self.patterns.matches(&interface.name) {
            return Ok(());
        }
        let Some(link) = interface.link else {
            return Err(KernelError::BadLink {
                name: interface.name.clone(),
            });
        };
        set_way(ebpf, interface.index, way)?;
        let Some(links) = self.attach_hooks(ebpf, interface, link)? else {
            return Ok(());
        };
        let mut xdp = Hold::new(self.xdp, ebpf, interface, self.pins.as_ref());
        if self.busy {
            xdp.busy(ebpf);
        }
        debug!(interface = interface.name, tcx = self.tcx, "attached");
        let name = interface.name.clone();
        let attached = Attached {
            name,
            way,
            links,
            xdp,
        };
        self.links.insert(interface.index, attached);
        Ok(())
    }

    /// The number of the way of an interface.
    fn way(&self, interface: &Interface) -> u32 {
        let joined = match &self.uplinks {
            Some(named) => named.matches(&interface.name).then_some(0),
            None => interface.joined,
        };
        let joined = joined.filter(|_| interface.index < FlowKey::INTERFACES);
        joined.map_or(interface.index, |master| FlowKey::JOINED | master)
    }

    /// Attaches to both ways of an interface; to none where it has another name by now, of which the kernel will tell. A link is made by
    /// name, which may be another interface's: twice attached to one, the programs would take each segment for a second copy.
    fn attach_hooks(
        &self,
        ebpf: &mut Ebpf,
        interface: &Interface,
        link: Link,
    ) -> Result<Option<Vec<Hooked>>, KernelError> {
        let is_called_so = || system::is_called(interface.index, &interface.name);
        if !is_called_so() {
            return Ok(None);
        }
        let attach = |hook| self.attach_hook(ebpf, interface, hook, link);
        let links: Result<Vec<_>, _> = Hook::ALL.into_iter().map(attach).collect();
        if is_called_so() {
            return links.map(Some);
        }
        if let Some(pins) = &self.pins {
            for hook in Hook::ALL {
                pins.release(hook.place(), interface.index);
            }
        }
        Ok(None)
    }

    fn attach_hook(
        &self,
        ebpf: &mut Ebpf,
        interface: &Interface,
        hook: Hook,
        link: Link,
    ) -> Result<Hooked, KernelError> {
        let program = classifier(ebpf, hook.program(link))?;
        let id = program.info().map_err(|source| KernelError::Attach {
            name: interface.name.clone(),
            source,
        });
        let hooked = |link, program| Hooked {
            hook,
            program,
            link,
        };
        let id = id?.id();
        let attach =
            |program: &mut SchedClassifier| self.attach_new(program, &interface.name, hook);
        let Some(pins) = &self.pins else {
            return attach(program).map(|link| hooked(Held::Own(link), id));
        };
        let hold = pins::Hold {
            program,
            interface: &interface.name,
            replace,
            attach: |program: &mut SchedClassifier| {
                attach(program)?
                    .try_into()
                    .map_err(|_by_netlink| KernelError::BadObject { what: "a tcx link" })
            },
        };
        let link = pins.hold(hook.place(), interface.index, hold)?;
        Ok(hooked(Held::Pinned(link), id))
    }

    fn attach_new(
        &self,
        program: &mut SchedClassifier,
        name: &str,
        hook: Hook,
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
        let id = program
            .attach_with_options(name, hook.attach_type(), options)
            .map_err(failed)?;
        program.take_link(id).map_err(failed)
    }
}

/// Tells the programs of which way an interface is.
fn set_way(ebpf: &mut Ebpf, index: u32, way: u32) -> Result<(), KernelError> {
    if index >= FlowKey::INTERFACES {
        return Ok(());
    }
    let what = "WAYS";
    let map = ebpf.map_mut(what).ok_or(KernelError::BadObject { what })?;
    let mut ways: Array<&mut MapData, u32> = Array::try_from(map)?;
    ways.set(index, index ^ way, 0)?;
    Ok(())
}

/// Puts a program in the place of the one under a link: each packet is judged by the one or the other.
fn replace(program: &mut SchedClassifier, link: FdLink) -> Result<FdLink, ReplaceError> {
    let id = program.attach_to_link(link.try_into()?)?;
    Ok(program.take_link(id)?.try_into()?)
}

/// Where an interface has links.
fn places(index: u32, attached: &Attached) -> impl Iterator<Item = (Place, u32)> {
    let hooks = Hook::ALL.into_iter().map(Hook::place);
    hooks
        .chain(attached.xdp.place())
        .map(move |place| (place, index))
}

fn names(interfaces: &[Interface]) -> Vec<&str> {
    let names = interfaces.iter();
    names.map(|interface| interface.name.as_str()).collect()
}

/// `EEXIST`.
const EXISTS: i32 = rustix::io::Errno::EXIST.raw_os_error();

/// Adds the qdisc that programs attach to before tcx; one that is there already serves.
fn add_clsact(name: &str) -> Result<(), KernelError> {
    match qdisc_add_clsact(name) {
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(EXISTS) => Ok(()),
        Ok(()) => Ok(()),
        Err(error) => Err(KernelError::Attach {
            name: name.to_owned(),
            source: ProgramError::from(error),
        }),
    }
}
