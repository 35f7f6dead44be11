//! The host's network interfaces, as rtnetlink tells of them: those there are, and those that come and go.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use rtnetlink::{
    Handle, MulticastGroup, new_multicast_connection,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        link::{InfoPortKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage},
        tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
    },
};
use tokenblock_ebpf::packet::Link;
use tokio::task::JoinHandle;

use super::{attach::Hook, error::KernelError};

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index, unique while it exists.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// How its frames begin; `None` where they begin otherwise than any that can be judged.
    pub link: Option<Link>,
    /// Whether a driver of hardware is behind it; the kernel names the kind of all others.
    pub hardware: bool,
    /// One of several that lead to the same network, so that packets of one connection may come by any of them: the index of what they
    /// are members of, or 0 where they are of hardware and no members.
    pub joined: Option<u32>,
}

/// What happened to an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is there, new or changed (a new name, for instance).
    There(Interface),
    /// The one with this index is gone.
    Gone(u32),
    /// More happened at once than the kernel keeps for a listener: look at all of them.
    Missed,
}

/// A connection to rtnetlink in the network namespace of the thread that opened it.
pub struct Interfaces {
    handle: Handle,
    messages: Pin<Box<dyn Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Send>>,
    connection: JoinHandle<()>,
}

impl Interfaces {
    /// Opens the connection; changes from now on are kept until [`Interfaces::change`] takes them.
    ///
    /// # Errors
    /// [`KernelError::Netlink`] where the kernel gives no socket.
    pub fn open() -> Result<Self, KernelError> {
        let (connection, handle, messages) =
            new_multicast_connection(&[MulticastGroup::Link]).map_err(KernelError::netlink)?;
        let messages = Box::pin(messages.map(|(message, _)| message));
        Ok(Self {
            handle,
            messages,
            connection: tokio::spawn(connection),
        })
    }

    /// All interfaces there are.
    ///
    /// # Errors
    /// [`KernelError::Netlink`] where the kernel does not answer.
    pub async fn all(&self) -> Result<Vec<Interface>, KernelError> {
        self.handle
            .link()
            .get()
            .execute()
            .try_filter_map(|message| async move { Ok(interface(&message)) })
            .try_collect()
            .await
            .map_err(KernelError::netlink)
    }

    /// What the filters of a clsact qdisc run at a hook of this interface, in their order: ids of programs, and 0 for each other filter.
    ///
    /// # Errors
    /// [`KernelError::Netlink`] where the kernel does not answer.
    pub(super) async fn filters(&self, index: u32, hook: Hook) -> Result<Vec<u32>, KernelError> {
        let request = self.handle.traffic_filter(index.cast_signed()).get();
        let request = match hook {
            Hook::Ingress => request.ingress(),
            Hook::Egress => request.egress(),
        };
        request
            .execute()
            .try_filter_map(|message| async move { Ok(filter(&message)) })
            .try_collect()
            .await
            .map_err(KernelError::netlink)
    }

    /// The next change; `None` once the connection is lost.
    pub async fn change(&mut self) -> Option<Change> {
        loop {
            let message = self.messages.next().await?;
            if matches!(message.payload, NetlinkPayload::Overrun(_)) {
                return Some(Change::Missed);
            }
            let NetlinkPayload::InnerMessage(message) = message.payload else {
                continue;
            };
            if let RouteNetlinkMessage::DelLink(link) = &message {
                return Some(Change::Gone(link.header.index));
            }
            if let RouteNetlinkMessage::NewLink(link) = &message
                && let Some(interface) = interface(link)
            {
                return Some(Change::There(interface));
            }
        }
    }
}

impl Drop for Interfaces {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// What runs a filter; none where the message tells of the place of several.
fn filter(message: &TcMessage) -> Option<u32> {
    if message.header.handle == TcHandle::UNSPEC {
        return None;
    }
    let attributes = message.attributes.iter();
    let options = attributes.filter_map(|attribute| {
        if let TcAttribute::Options(options) = attribute {
            Some(options)
        } else {
            None
        }
    });
    let id = options.flatten().find_map(|option| {
        if let TcOption::Bpf(TcFilterBpfOption::ProgId(id)) = option {
            Some(*id)
        } else {
            None
        }
    });
    Some(id.unwrap_or_default())
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "dozens of link layers carry no IP"
)]
fn interface(message: &LinkMessage) -> Option<Interface> {
    let name = message.attributes.iter().find_map(|attribute| {
        if let LinkAttribute::IfName(name) = attribute {
            Some(name.clone())
        } else {
            None
        }
    })?;
    let link = match message.header.link_layer_type {
        LinkLayerType::Ether | LinkLayerType::Loopback => Some(Link::Ethernet),
        LinkLayerType::None
        | LinkLayerType::Ppp
        | LinkLayerType::Rawip
        | LinkLayerType::Tunnel
        | LinkLayerType::Tunnel6
        | LinkLayerType::Sit
        | LinkLayerType::Ipgre
        | LinkLayerType::Ip6gre => Some(Link::Ip),
        _ => None,
    };
    let is_kind = |info: &LinkInfo| matches!(info, LinkInfo::Kind(_));
    let has_kind = message.attributes.iter().any(|attribute| {
        matches!(attribute, LinkAttribute::LinkInfo(infos) if infos.iter().any(is_kind))
    });
    let is_loopback = message.header.link_layer_type == LinkLayerType::Loopback;
    let hardware = !has_kind && !is_loopback;
    Some(Interface {
        index: message.header.index,
        name,
        link,
        hardware,
        joined: joined(message, hardware),
    })
}

/// See [`Interface::joined`]. What comes in by a member of a bridge passes that as well; so does what comes by one of a bond, but by
/// no other member.
fn joined(message: &LinkMessage, hardware: bool) -> Option<u32> {
    let attributes = message.attributes.iter();
    let master = attributes.clone().find_map(|attribute| {
        if let LinkAttribute::Controller(index) = attribute {
            Some(*index)
        } else {
            None
        }
    });
    let Some(master) = master else {
        return hardware.then_some(0);
    };
    let is_shared = |info: &LinkInfo| {
        matches!(
            info,
            LinkInfo::PortKind(InfoPortKind::Bond | InfoPortKind::Team | InfoPortKind::Vrf)
        )
    };
    let mut infos = attributes.filter_map(|attribute| {
        if let LinkAttribute::LinkInfo(infos) = attribute {
            Some(infos)
        } else {
            None
        }
    });
    let shared = infos.any(|infos| infos.iter().any(is_shared));
    shared.then_some(master)
}
