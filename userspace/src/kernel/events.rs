//! From the ring buffer to events.

use std::{
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
    time::SystemTime,
};

use aya::maps::{MapData, RingBuf};
use tokenblock_ebpf::{event::Event, packet::Address};
use tokio::io::{Interest, unix::AsyncFd};
use tracing::warn;

use super::error::KernelError;
use crate::{
    denylist::ShortTokenId,
    event::{EventSink, Outcome, Tier, TokenSeen},
};

/// Reads the programs' events.
pub struct Events {
    buffer: AsyncFd<RingBuf<MapData>>,
    locations: Arc<[Arc<str>]>,
    sink: EventSink,
}

impl Events {
    /// Events from this ring buffer go to `sink`; `locations` are named by their ids.
    ///
    /// # Errors
    /// Where the runtime can't watch the buffer.
    pub fn new(
        buffer: RingBuf<MapData>,
        locations: Arc<[Arc<str>]>,
        sink: EventSink,
    ) -> Result<Self, KernelError> {
        // SAFETY: the buffer owns its file descriptor, and is dropped with the registration.
        let buffer = unsafe { AsyncFd::register_with_interest(buffer, Interest::READABLE) }
            .map_err(|error| KernelError::Watch(error.into()))?;
        Ok(Self {
            buffer,
            locations,
            sink,
        })
    }

    /// Names the locations anew.
    pub(super) fn name(&mut self, locations: &Arc<[Arc<str>]>) {
        self.locations = Arc::clone(locations);
    }

    /// Waits for events and reports all that are there. Says whether a request was blocked.
    ///
    /// # Errors
    /// Where the runtime can't wait.
    pub async fn forward(&mut self) -> Result<bool, KernelError> {
        let mut ready = self
            .buffer
            .readable_mut()
            .await
            .map_err(KernelError::Watch)?;
        let mut blocked = false;
        while let Some(record) = ready.get_inner_mut().next() {
            if let Some(event) = Event::from_bytes(&record) {
                blocked |= event.blocked != 0;
                report(&event, &self.locations, &self.sink);
            }
        }
        ready.clear_ready();
        Ok(blocked)
    }

    /// Reports what is there without waiting.
    pub fn drain(&mut self) {
        while let Some(record) = self.buffer.get_mut().next() {
            if let Some(event) = Event::from_bytes(&record) {
                report(&event, &self.locations, &self.sink);
            }
        }
    }
}

fn report(event: &Event, locations: &[Arc<str>], sink: &EventSink) {
    if event.banned == 0 {
        sink.report(seen(event, locations));
    } else {
        let source = address(&event.source, event.source_port).ip();
        warn!(%source, "source banned: it goes on to send compromised tokens");
    }
}

fn seen(event: &Event, locations: &[Arc<str>]) -> TokenSeen {
    let location = locations
        .get(usize::from(event.location))
        .map_or_else(|| Arc::from("unknown"), Arc::clone);
    TokenSeen {
        time: SystemTime::now(),
        tier: Tier::Kernel,
        source: address(&event.source, event.source_port),
        destination: address(&event.destination, event.destination_port),
        location,
        token: ShortTokenId(event.token),
        outcome: if event.blocked == 0 {
            Outcome::Alerted
        } else {
            Outcome::Blocked
        },
        requests: 1,
    }
}

fn address(address: &Address, port: u16) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from(address.octets()).to_canonical(), port)
}
