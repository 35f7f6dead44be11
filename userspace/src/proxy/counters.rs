//! What the proxy counts. Every early exit has a variant here or in [`Reason`].

use std::sync::atomic::{AtomicU64, Ordering};

use strum::{EnumCount, VariantArray};

use super::refuse::Reason;

/// Things that are counted besides refusals; each is shown as `proxy_<name>_total`.
#[derive(Clone, Copy, Debug, strum::EnumCount, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Counter {
    /// Connections taken from the listener.
    Connections,
    /// Requests read.
    Requests,
    /// Requests handed to an upstream.
    Forwarded,
    /// Requests refused for a listed token.
    Blocked,
    /// Listed tokens that were reported and passed.
    Alerted,
    /// Forms that are longer than what of them is judged.
    FormsCut,
    /// Connections made to an upstream.
    UpstreamConnects,
    /// Requests sent again, because a kept-alive upstream connection was closed under them.
    UpstreamRetries,
    /// Upstreams that were left out for a while.
    UpstreamsEjected,
    /// Responses of upstreams that broke off behind their head.
    ResponsesBroken,
    /// Times that an upstream was asked whether it is well.
    HealthChecks,
    /// Times that it said no, or nothing.
    HealthChecksFailed,
    /// Upstreams that are left out for that, until they pass their checks again.
    UpstreamsDown,
    /// Requests whose connection was handed over to another protocol.
    Upgrades,
}

/// Why a client connection was given up before or between requests; shown as `proxy_closed_<name>`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, strum::EnumCount, strum::IntoStaticStr, strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Closed {
    /// The listener gave an error in place of a connection.
    AcceptFailed,
    /// As many connections as allowed are open.
    TooManyConnections,
    /// As many connections as allowed are open from the same source.
    TooManyFromSource,
    /// It was made to the proxy itself, which takes only what is intercepted.
    NotIntercepted,
    /// A request head is larger, or has more fields, than allowed.
    HeaderTooLarge,
    /// More HTTP/2 streams were reset than allowed.
    ResetFlood,
    /// More came over HTTP/2 than the library takes: streams that it has to reset, CONTINUATION frames, DATA frames of
    /// single bytes.
    Http2Excess,
    /// More HTTP/2 frames that carry nothing came than allowed.
    ControlFlood,
    /// A source that must send a PROXY protocol header sent something else, or broke off.
    Preamble,
    /// That header took too long.
    PreambleTimeout,
    /// The TLS handshake failed.
    Handshake,
    /// The TLS handshake took too long.
    HandshakeTimeout,
    /// A request head took too long.
    HeaderTimeout,
    /// No request came for too long.
    IdleTimeout,
    /// A request body stalled for too long.
    BodyTimeout,
    /// Nothing came through an upgraded connection for too long.
    TunnelTimeout,
    /// The client stopped reading a response for too long.
    WriteTimeout,
    /// The client broke the protocol, or went away in mid-message.
    Protocol,
    /// The drain deadline passed.
    DrainDeadline,
}

/// One worker's counters; written by that worker alone, read by anyone.
///
/// Aligned so that two workers never share a cache line.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Counters {
    totals: [AtomicU64; Counter::COUNT],
    closed: [AtomicU64; Closed::COUNT],
    refused: [AtomicU64; Reason::COUNT],
}

impl Counters {
    /// All zero.
    pub(super) fn new() -> Self {
        Self {
            totals: [const { AtomicU64::new(0) }; Counter::COUNT],
            closed: [const { AtomicU64::new(0) }; Closed::COUNT],
            refused: [const { AtomicU64::new(0) }; Reason::COUNT],
        }
    }

    /// Counts one.
    pub(super) fn add(&self, counter: Counter) {
        increment(&self.totals, counter as usize);
    }

    /// Counts one connection that was given up.
    pub(super) fn close(&self, why: Closed) {
        increment(&self.closed, why as usize);
    }

    /// Counts one refused request.
    pub(super) fn refuse(&self, reason: Reason) {
        increment(&self.refused, reason as usize);
    }
}

/// The sums over all workers, by name.
pub(super) fn sums<'a>(workers: impl Iterator<Item = &'a Counters> + Clone) -> Vec<(String, u64)> {
    let totals = named::<Counter>(&workers.clone().map(|w| &w.totals[..]), "", "_total");
    let closed = named::<Closed>(&workers.clone().map(|w| &w.closed[..]), "closed_", "");
    let refused = named::<Reason>(&workers.map(|w| &w.refused[..]), "refused_", "");
    totals.into_iter().chain(closed).chain(refused).collect()
}

fn named<'a, K>(
    workers: &(impl Iterator<Item = &'a [AtomicU64]> + Clone),
    prefix: &str,
    suffix: &str,
) -> Vec<(String, u64)>
where
    K: VariantArray + Copy + Into<&'static str> + 'static,
{
    let sum = |index| {
        let one = |worker: &'a [AtomicU64]| {
            let counter = worker.get(index);
            counter.map_or(0, |n: &AtomicU64| n.load(Ordering::Relaxed))
        };
        workers.clone().map(one).sum()
    };
    let name = |kind: K| format!("proxy_{prefix}{}{suffix}", kind.into());
    K::VARIANTS
        .iter()
        .enumerate()
        .map(|(index, kind)| (name(*kind), sum(index)))
        .collect()
}

fn increment(counters: &[AtomicU64], index: usize) {
    if let Some(counter) = counters.get(index) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
