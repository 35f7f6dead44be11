//! Stands where `kernel::{KernelTier, KernelMap}` will: a binary without the kernel tier, which says so.

use std::sync::Arc;

use tokenblock_ebpf::rules::Rules;

use crate::{
    counters::Counted,
    denylist::{Listed, Tier, TokenDigest},
    event::EventSink,
    kernel::error::KernelError,
    settings::KernelSettings,
};

/// There is none yet.
#[derive(Clone, Copy, Debug)]
pub enum KernelTier {}

/// There is none yet.
#[derive(Clone, Copy, Debug)]
pub enum KernelMap {}

impl KernelTier {
    /// # Errors
    /// Always.
    pub fn start(
        _settings: &KernelSettings,
        _rules: &Rules,
        _locations: Arc<[Arc<str>]>,
        _events: EventSink,
    ) -> Result<Self, KernelError> {
        Err(KernelError::NoObject)
    }

    /// Its denylist.
    #[must_use]
    pub fn denylist(&self) -> KernelMap {
        match *self {}
    }

    /// # Errors
    /// None.
    pub fn attach(&mut self) -> Result<(), KernelError> {
        match *self {}
    }

    /// Reads events.
    pub async fn run(&mut self) -> KernelError {
        match *self {}
    }

    /// Its counters.
    #[must_use]
    pub fn counters(&self) -> Counted {
        match *self {}
    }
}

impl Tier for KernelMap {
    type Error = KernelError;

    fn add(&mut self, _: &[(TokenDigest, Listed)]) -> Result<(), KernelError> {
        match *self {}
    }

    fn remove(&mut self, _: &[TokenDigest]) -> Result<(), KernelError> {
        match *self {}
    }
}
