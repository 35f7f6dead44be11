//! The second set of programs, for entries that are known by their SHA-256 alone: there while there are any.

use std::sync::mpsc::{SyncSender, sync_channel};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{error::KernelError, map::HashedMap};
use crate::denylist::{Listed, Sha256Digest};

/// What the list asks of the tier.
pub(super) enum Request {
    /// Load the programs, attach them behind the others, and give their map.
    Load(SyncSender<Result<HashedMap, KernelError>>),
    /// Take them off.
    Unload,
}

/// The list's end.
pub struct HashedTier {
    requests: UnboundedSender<Request>,
    map: Option<HashedMap>,
}

impl HashedTier {
    /// The list's end and the tier's.
    pub(super) fn new() -> (Self, UnboundedReceiver<Request>) {
        let (requests, requested) = unbounded_channel();
        let map = None;
        (Self { requests, map }, requested)
    }

    /// Takes the map of programs that are loaded already.
    pub(super) fn take(&mut self, map: HashedMap) {
        self.map = Some(map);
    }

    /// Lists entries and takes others off, after which there are `any` or none. Brings the programs where they are needed,
    /// and waits for the tier then, which must be running; where they aren't any more they find nothing at once, and are
    /// taken off a little later.
    ///
    /// # Errors
    /// [`KernelError`] where the programs can't be had, or did not take all.
    pub(super) fn change(
        &mut self,
        added: &[(Sha256Digest, Listed)],
        removed: &[Sha256Digest],
        any: bool,
    ) -> Result<(), KernelError> {
        match &mut self.map {
            Some(map) => map.change(added, removed)?,
            none if any => none.insert(load(&self.requests)?).change(added, removed)?,
            None => {}
        }
        if !any && self.map.take().is_some() {
            // A tier that is gone has taken them off.
            let _told_or_gone = self.requests.send(Request::Unload);
        }
        Ok(())
    }
}

fn load(requests: &UnboundedSender<Request>) -> Result<HashedMap, KernelError> {
    let (reply, answer) = sync_channel(1);
    let _told_or_gone = requests.send(Request::Load(reply));
    match answer.recv() {
        Ok(loaded) => loaded,
        Err(_gone) => Err(KernelError::Stopping),
    }
}
