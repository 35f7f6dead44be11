//! What is known of the tokens that were seen, in bounded memory.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::SystemTime,
};

use crate::{
    denylist::ShortTokenId,
    event::{Outcome, TokenSeen},
};

/// Sources that are known of a token: the last ones.
pub const SOURCES: usize = 4;
/// Tokens that are known at once; beyond them, those are forgotten that were not seen for longest.
const TOKENS: usize = 65_536;
/// How many are forgotten at a time, so that the oldest need not be looked for each time.
const FORGOTTEN: usize = TOKENS / 16;

/// What is known of one token that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Requests that bore it.
    pub hits: u64,
    /// Those of them that were blocked.
    pub blocked: u64,
    /// When it was first seen.
    pub first: SystemTime,
    /// When it was last seen.
    pub last: SystemTime,
    /// From where, and when last from there; the last one first, at most [`SOURCES`].
    pub sources: Vec<(IpAddr, SystemTime)>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Table {
    known: HashMap<ShortTokenId, Sighting>,
    changed: HashSet<ShortTokenId>,
}

/// What is to be stored: the new state of each token, `None` of one that is forgotten.
pub(super) type Changes = Vec<(ShortTokenId, Option<Sighting>)>;

impl Table {
    /// What is known of earlier runs.
    pub(super) fn of(known: HashMap<ShortTokenId, Sighting>) -> Self {
        Self {
            known,
            changed: HashSet::new(),
        }
    }

    /// Takes an event in; says how many tokens were forgotten for it.
    pub(super) fn see(&mut self, event: &TokenSeen) -> u64 {
        let new = !self.known.contains_key(&event.token);
        let forgotten = if new && self.known.len() >= TOKENS {
            self.forget()
        } else {
            0
        };
        self.known
            .entry(event.token)
            .or_insert_with(|| Sighting {
                hits: 0,
                blocked: 0,
                first: event.time,
                last: event.time,
                sources: Vec::new(),
            })
            .see(event);
        self.changed.insert(event.token);
        forgotten
    }

    fn forget(&mut self) -> u64 {
        let mut oldest: Vec<_> = self.known.iter().map(|(t, s)| (s.last, *t)).collect();
        oldest.select_nth_unstable_by_key(FORGOTTEN, |(last, _)| *last);
        oldest.truncate(FORGOTTEN);
        for (_, token) in &oldest {
            self.known.remove(token);
            self.changed.insert(*token);
        }
        oldest.len() as u64
    }

    pub(super) fn get(&self, token: ShortTokenId) -> Option<&Sighting> {
        self.known.get(&token)
    }

    pub(super) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// What has changed since this was asked last.
    pub(super) fn take_changes(&mut self) -> Changes {
        let change = |token| (token, self.known.get(&token).cloned());
        self.changed.drain().map(change).collect()
    }

    /// They could not be stored.
    pub(super) fn changes_lost(&mut self, changes: Changes) {
        self.changed
            .extend(changes.into_iter().map(|(token, _)| token));
    }
}

impl Sighting {
    fn see(&mut self, event: &TokenSeen) {
        self.hits += event.requests;
        if event.outcome == Outcome::Blocked {
            self.blocked += event.requests;
        }
        self.last = self.last.max(event.time);
        let source = event.source.ip();
        self.sources.retain(|(known, _)| *known != source);
        self.sources.insert(0, (source, event.time));
        self.sources.truncate(SOURCES);
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, sync::Arc, time::Duration};

    use super::*;
    use crate::event::Tier;

    fn event(token: u32, source: u8, second: u64, outcome: Outcome) -> TokenSeen {
        let [a, b, c, d] = token.to_be_bytes();
        TokenSeen {
            time: SystemTime::UNIX_EPOCH + Duration::from_secs(second),
            tier: Tier::Proxy,
            source: (Ipv4Addr::new(10, 0, 0, source), 1234).into(),
            destination: (Ipv4Addr::LOCALHOST, 443).into(),
            location: Arc::from("header authorization"),
            token: ShortTokenId([a, b, c, d, 0, 0]),
            outcome,
            requests: 1,
        }
    }

    #[test]
    fn the_last_sources_are_known_each_once() {
        let mut table = Table::default();
        for (source, second) in [(1, 1), (2, 2), (1, 3), (3, 4), (4, 5), (5, 6)] {
            table.see(&event(7, source, second, Outcome::Blocked));
        }
        table.see(&event(7, 5, 7, Outcome::Alerted));
        let token = event(7, 0, 0, Outcome::Blocked).token;
        let seen = table.get(token).unwrap();
        assert_eq!((seen.hits, seen.blocked), (7, 6));
        let at = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        assert_eq!((seen.first, seen.last), (at(1), at(7)));
        let sources: Vec<_> = seen
            .sources
            .iter()
            .map(|(ip, at)| (ip.to_string(), *at))
            .collect();
        let expected = [(5, 7), (4, 5), (3, 4), (1, 3)];
        assert_eq!(
            sources,
            expected.map(|(n, s)| (format!("10.0.0.{n}"), at(s)))
        );
    }

    #[test]
    fn beyond_the_bound_those_are_forgotten_that_were_not_seen_for_longest() {
        let mut table = Table::default();
        let tokens = u32::try_from(TOKENS).unwrap();
        for token in 0..tokens {
            assert_eq!(
                table.see(&event(token, 1, token.into(), Outcome::Blocked)),
                0
            );
        }
        table.take_changes();
        let late = u64::from(tokens);
        // The first is seen again.
        table.see(&event(0, 1, late, Outcome::Blocked));
        let forgotten = table.see(&event(tokens, 1, late, Outcome::Blocked));
        assert_eq!(forgotten, FORGOTTEN as u64);
        assert_eq!(table.known.len(), TOKENS - FORGOTTEN + 1);
        let known = |token| {
            table
                .get(event(token, 1, 0, Outcome::Blocked).token)
                .is_some()
        };
        assert!(known(0) && known(tokens) && known(tokens - 1) && !known(1));
        assert_eq!(table.take_changes().len(), FORGOTTEN + 2);
    }
}
