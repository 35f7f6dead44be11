//! What the control API counts: what came, and each reason for which something was refused.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use strum::{EnumCount as _, VariantArray as _};

use super::refusal::Why;
use crate::counters::Counted;

/// Things that are counted besides refusals; shown as `control_<name>_total`.
#[derive(Clone, Copy, Debug, strum::EnumCount, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Counter {
    /// Connections to the socket.
    LocalConnections,
    /// Connections by TCP.
    RemoteConnections,
    /// Connections that could not be taken.
    AcceptFailed,
    /// Connections by TCP without a TLS handshake that succeeded in time.
    HandshakesFailed,
    /// Requests with an answer of any kind.
    Requests,
    /// Tokens that GitLab asked to revoke, and that were listed.
    GitlabTokens,
    /// Tokens that GitHub reported, and that were listed.
    GithubTokens,
    /// Tokens that a receiver was given and that can't be listed.
    ReceivedUnfit,
}

/// The counters; clones share them.
#[derive(Clone, Debug)]
pub struct ControlCounters(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    totals: [AtomicU64; Counter::COUNT],
    refused: [AtomicU64; Why::COUNT],
}

impl ControlCounters {
    /// All zero.
    pub(super) fn new() -> Self {
        Self(Arc::new(Counts {
            totals: [const { AtomicU64::new(0) }; Counter::COUNT],
            refused: [const { AtomicU64::new(0) }; Why::COUNT],
        }))
    }

    /// Counts one more.
    pub(super) fn add(&self, counter: Counter) {
        self.add_many(counter, 1);
    }

    /// Counts so many more.
    pub(super) fn add_many(&self, counter: Counter, many: usize) {
        if let Some(total) = self.0.totals.get(counter as usize) {
            total.fetch_add(many as u64, Ordering::Relaxed);
        }
    }

    /// Counts a request that was refused.
    pub(super) fn refuse(&self, why: Why) {
        if let Some(total) = self.0.refused.get(why as usize) {
            total.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Every counter with its name.
    #[must_use]
    pub fn read(&self) -> Counted {
        let value = |total: &AtomicU64| total.load(Ordering::Relaxed);
        let totals = Counter::VARIANTS.iter().zip(&self.0.totals);
        let totals = totals.map(|(counter, total)| {
            let name: &str = counter.into();
            (format!("control_{name}_total"), value(total))
        });
        let refused = Why::VARIANTS.iter().zip(&self.0.refused);
        let refused = refused.map(|(why, total)| {
            let name: &str = why.into();
            (format!("control_refused_{name}"), value(total))
        });
        totals.chain(refused).collect()
    }
}
