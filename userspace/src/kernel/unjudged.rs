//! What passes unjudged is told once: it is no error, and nobody should have to look for it in the counters.

use tokenblock_ebpf::verdict::{Counter, Policies, Policy};
use tracing::warn;

use crate::counters::Counted;

/// What could carry a listed token past the kernel tier, and what can be done about it.
const TOLD: [(Counter, &str); 8] = [
    (
        Counter::Http2,
        "HTTP/2 without TLS compresses its header fields: --policy http2=reset keeps it out, and the proxy tier judges it",
    ),
    (
        Counter::Encapsulated,
        "tunnelled packets are judged where they are unpacked: protect that interface too, or --policy encapsulated=drop",
    ),
    (
        Counter::Fragment,
        "IP fragments to a protected port are not judged: --policy fragment=drop keeps them out",
    ),
    (
        Counter::SourceRouted,
        "packets to a protected port with a source route are not judged: --policy source_routed=drop keeps them out",
    ),
    (
        Counter::RoutedTunnel,
        "packets inside others with an IPv6 routing header are not judged: --policy routed_tunnel=drop keeps them out",
    ),
    (
        Counter::HeadersTooLong,
        "packets with more than 128 bytes of headers are not judged: --policy headers_too_long=drop keeps them out",
    ),
    (
        Counter::FlowTableFull,
        "more connections than --max-flows: requests that are cut over segments are not all judged",
    ),
    (
        Counter::GapConflict,
        "segments that can be read in two ways are passed: --policy gap_conflict=reset ends their connections",
    ),
];

/// What was told already.
#[derive(Debug)]
pub(super) struct Unjudged {
    untold: Vec<(Counter, &'static str)>,
}

impl Unjudged {
    /// Nothing was told; what these policies let pass will be.
    pub(super) fn new(policies: &Policies) -> Self {
        let passed = |(reason, _): &(Counter, &str)| policies.of(*reason) == Policy::Pass;
        Self {
            untold: TOLD.into_iter().filter(passed).collect(),
        }
    }

    /// Tells what has passed since the last look and was not told yet.
    pub(super) fn look(&mut self, counted: &Counted) {
        self.untold.retain(|(reason, hint)| {
            let count = counted.iter().find(|(name, _)| name == reason.name());
            let passed = count.is_some_and(|(_, count)| *count > 0);
            if passed {
                warn!(reason = reason.name(), "packets pass unjudged: {hint}");
            }
            !passed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_told_once() {
        let mut policies = Policies::default();
        policies.set(Counter::Fragment, Policy::Pass);
        let mut unjudged = Unjudged::new(&policies);
        let told = |unjudged: &Unjudged| {
            let untold: Vec<_> = unjudged.untold.iter().map(|(reason, _)| *reason).collect();
            ![Counter::Fragment]
                .iter()
                .all(|reason| untold.contains(reason))
        };
        assert!(
            !unjudged
                .untold
                .iter()
                .any(|(reason, _)| *reason == Counter::GapConflict)
        );
        unjudged.look(&vec![("fragment".to_owned(), 0)]);
        assert!(!told(&unjudged));
        unjudged.look(&vec![("fragment".to_owned(), 2), ("http2".to_owned(), 0)]);
        assert!(told(&unjudged));
        assert!(
            unjudged
                .untold
                .iter()
                .any(|(reason, _)| *reason == Counter::Http2)
        );
    }
}
