//! Judges a request by the shared rules and the denylist, and reports what is found.

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use http::{HeaderMap, Uri};
use tokenblock_ebpf::{inspect, location::LocationId, rules::Rules};

use super::counters::{Counter, Counters};
use crate::{
    denylist::{Action, Listed, SetReader, ShortTokenId, TokenDigest},
    event::{EventSink, Outcome, Tier, TokenSeen},
};

/// Both ends of a client connection, as events show them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    /// The client.
    pub(super) source: SocketAddr,
    /// The address that it connected to.
    pub(super) destination: SocketAddr,
}

/// What is to happen to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Verdict {
    /// It is forwarded.
    Pass,
    /// It bears a listed token; that was reported.
    Block,
}

/// All that is needed to judge requests; cheap to clone.
#[derive(Clone)]
pub(super) struct Inspector {
    pub(super) rules: Arc<Rules>,
    pub(super) locations: Arc<[Arc<str>]>,
    pub(super) denylist: SetReader,
    pub(super) events: EventSink,
    pub(super) monitor: bool,
}

impl Inspector {
    /// Judges the head of a request: every field and the query of its target.
    pub(super) fn head(
        &self,
        counters: &Counters,
        ends: Ends,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Verdict {
        let mut judge = Judge::new(self, counters, ends);
        if let Some(query) = uri.query()
            && judge.query(query.as_bytes()) == Verdict::Block
        {
            return Verdict::Block;
        }
        judge.fields(headers)
    }

    /// Judges fields that came after the body (RFC 9110 section 6.5).
    pub(super) fn trailers(
        &self,
        counters: &Counters,
        ends: Ends,
        trailers: &HeaderMap,
    ) -> Verdict {
        Judge::new(self, counters, ends).fields(trailers)
    }
}

/// One request being judged.
struct Judge<'a> {
    inspector: &'a Inspector,
    counters: &'a Counters,
    ends: Ends,
    /// Tokens that were reported and passed; one report a request is enough.
    alerted: Vec<ShortTokenId>,
}

impl<'a> Judge<'a> {
    fn new(inspector: &'a Inspector, counters: &'a Counters, ends: Ends) -> Self {
        Self {
            inspector,
            counters,
            ends,
            alerted: Vec::new(),
        }
    }

    fn fields(&mut self, headers: &HeaderMap) -> Verdict {
        let rules = Arc::clone(&self.inspector.rules);
        for (name, value) in headers {
            let mut listed = |location, digest: &TokenDigest| self.candidate(location, digest);
            let name = name.as_str().as_bytes();
            if inspect::header(&rules, name, value.as_bytes(), &mut listed).is_some() {
                return Verdict::Block;
            }
        }
        Verdict::Pass
    }

    fn query(&mut self, query: &[u8]) -> Verdict {
        let rules = Arc::clone(&self.inspector.rules);
        let mut listed = |location, digest: &TokenDigest| self.candidate(location, digest);
        match inspect::query(&rules, query, &mut listed) {
            Some(_) => Verdict::Block,
            None => Verdict::Pass,
        }
    }

    /// Whether this candidate blocks the request. What is found is reported.
    fn candidate(&mut self, location: LocationId, digest: &TokenDigest) -> bool {
        let Some(listed) = self.inspector.denylist.get(digest) else {
            return false;
        };
        let blocks = listed.action == Action::Block && !self.inspector.monitor;
        if blocks {
            self.counters.add(Counter::Blocked);
            self.report(location, listed, Outcome::Blocked);
        } else if !self.alerted.contains(&listed.token) {
            self.alerted.push(listed.token);
            self.counters.add(Counter::Alerted);
            self.report(location, listed, Outcome::Alerted);
        }
        blocks
    }

    fn report(&self, location: LocationId, listed: Listed, outcome: Outcome) {
        let location = self.inspector.locations.get(usize::from(location));
        self.inspector.events.report(TokenSeen {
            time: SystemTime::now(),
            tier: Tier::Proxy,
            source: self.ends.source,
            destination: self.ends.destination,
            location: location.map_or_else(|| Arc::from("unknown"), Arc::clone),
            token: listed.token,
            outcome,
        });
    }
}
