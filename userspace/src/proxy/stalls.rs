//! Which responses of an HTTP/2 connection wait for their client to take more.
//!
//! A client can hold its window shut, and nothing is written then that could block: only that nobody asks for
//! the next frame of a body tells of it.

use std::{cell::RefCell, rc::Rc};

use super::connection::Peer;

const FREE: u64 = u64::MAX;
const MOVING: u64 = 0;

/// Since when each response waits, in the milliseconds of the connection's activity.
#[derive(Debug, Default)]
pub(super) struct Stalls(RefCell<Vec<u64>>);

/// One response's note; taken back when dropped.
pub(super) struct Stall {
    peer: Rc<Peer>,
    slot: usize,
}

impl Stalls {
    /// Since when the one that waits longest does; 0 where none does.
    pub(super) fn oldest(&self) -> u64 {
        let slots = self.0.borrow();
        let waiting = slots.iter().filter(|s| **s != FREE && **s != MOVING);
        waiting.min().copied().unwrap_or(MOVING)
    }

    fn take(&self, since: u64) -> usize {
        let mut slots = self.0.borrow_mut();
        let free = slots.iter().position(|slot| *slot == FREE);
        if let Some(slot) = free.and_then(|free| slots.get_mut(free)) {
            *slot = since;
        } else {
            slots.push(since);
        }
        free.unwrap_or(slots.len() - 1)
    }

    fn set(&self, slot: usize, since: u64) {
        if let Some(slot) = self.0.borrow_mut().get_mut(slot) {
            *slot = since;
        }
    }
}

impl Stall {
    /// A response that waits for its client from now on.
    pub(super) fn begin(peer: &Rc<Peer>) -> Self {
        Self {
            slot: peer.client.stalls.take(peer.client.activity.now()),
            peer: Rc::clone(peer),
        }
    }

    /// The client has taken all; the upstream's turn.
    pub(super) fn moves(&self) {
        self.peer.client.stalls.set(self.slot, MOVING);
    }

    /// The client's turn.
    pub(super) fn waits(&self) {
        self.peer
            .client
            .stalls
            .set(self.slot, self.peer.client.activity.now());
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        self.peer.client.stalls.set(self.slot, FREE);
    }
}
