//! Judges a request by the shared rules and the denylist, and reports what is found.

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use http::{
    HeaderMap, Uri,
    header::{COOKIE, SEC_WEBSOCKET_PROTOCOL},
};
use tokenblock_ebpf::{inspect, location::LocationId, rules::Rules, scan::Scan, sha256};
use zeroize::{Zeroize as _, Zeroizing};

use super::{
    counters::{Counter, Counters},
    hits::{Hits, Kind},
    spellings,
};
use crate::{
    denylist::{Action, ClaimSet, HashedSet, Listed, SetReader, ShortTokenId, TokenDigest},
    event::{EventSink, Outcome, Tier, TokenSeen},
    wiping::wipe_deep_stack,
};

type Sha256 = sha256::digest::TokenDigest;

/// Both ends of a client connection, as events show them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    /// The client.
    pub(super) source: SocketAddr,
    /// The address that it connected to.
    pub(super) destination: SocketAddr,
}

/// Where a request was read: what counts it, and whose it is.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) counters: &'a Counters,
    pub(super) hits: &'a Hits,
    pub(super) ends: Ends,
}

/// A form that is judged while it passes (RFC 6750 section 2.2).
pub(super) struct Form {
    scan: Scan,
    /// Where entries are known by their SHA-256 alone.
    sha256: Option<sha256::scan::Scan>,
    /// Where entries name claims of JWTs: the parameter that has not ended yet, since a JWT is read whole.
    parameter: Option<Zeroizing<Vec<u8>>>,
    /// Bytes that are still to be judged.
    left: u64,
    /// Whether it was longer than that.
    cut: bool,
}

/// Longest parameter of a form that is looked through for JWTs, in bytes.
const LONGEST_PARAMETER: usize = 64 << 10;

/// What is to happen to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Verdict {
    /// It is forwarded.
    Pass,
    /// It bears a listed token; that was reported.
    Block,
}

impl Verdict {
    fn of(hit: bool) -> Self {
        if hit { Self::Block } else { Self::Pass }
    }
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
    pub(super) fn head(&self, scene: Scene<'_>, uri: &Uri, headers: &HeaderMap) -> Verdict {
        let mut judge = Judge::new(self, scene);
        if let Some(query) = uri.query()
            && judge.query(query.as_bytes()) == Verdict::Block
        {
            return Verdict::Block;
        }
        judge.map(headers)
    }

    /// Judges the head of a request that was read without making a map of its fields.
    pub(super) fn plain<'f>(
        &self,
        scene: Scene<'_>,
        query: Option<&str>,
        fields: impl Iterator<Item = (&'f str, &'f [u8])>,
    ) -> Verdict {
        let mut judge = Judge::new(self, scene);
        if let Some(query) = query
            && judge.query(query.as_bytes()) == Verdict::Block
        {
            return Verdict::Block;
        }
        judge.fields(fields)
    }

    /// A form of which at most `limit` bytes are judged.
    pub(super) fn form(&self, limit: u64) -> Form {
        Form {
            scan: Scan::query(&self.rules),
            sha256: self
                .denylist
                .hashed()
                .map(|_| sha256::scan::Scan::query(&self.rules)),
            parameter: self.denylist.claims().map(|_| Zeroizing::default()),
            left: limit,
            cut: false,
        }
    }

    /// Judges the next bytes of a form; `last` says that no more come. What lies beyond the limit passes.
    pub(super) fn form_bytes(
        &self,
        scene: Scene<'_>,
        form: &mut Form,
        bytes: &[u8],
        last: bool,
    ) -> Verdict {
        let within = usize::try_from(form.left).map_or(bytes.len(), |left| left.min(bytes.len()));
        form.left -= within as u64;
        if within < bytes.len() && !form.cut {
            form.cut = true;
            scene.counters.add(Counter::FormsCut);
        }
        let bytes = bytes.get(..within).unwrap_or_default();
        let mut judge = Judge::new(self, scene);
        let ends = last && !form.cut;
        let rules = &self.rules;
        let mut listed = |location, digest: &TokenDigest| judge.candidate(location, digest);
        let mut hit = inspect::stream(&mut form.scan, rules, bytes, &mut listed).is_some();
        if ends {
            hit = hit || inspect::finish(&mut form.scan, rules, &mut listed).is_some();
        }
        if let Some(scan) = form.sha256.as_mut().filter(|_| !hit) {
            let mut listed = |location, digest: &Sha256| judge.hashed(location, digest);
            hit = sha256::inspect::stream(scan, rules, bytes, &mut listed).is_some();
            if ends {
                hit = hit || sha256::inspect::finish(scan, rules, &mut listed).is_some();
            }
        }
        if let Some(parameter) = form.parameter.as_mut().filter(|_| !hit) {
            hit = judge.parameters(parameter, bytes, ends);
        }
        Verdict::of(hit)
    }

    /// Judges fields that came after the body (RFC 9110 section 6.5).
    pub(super) fn trailers(&self, scene: Scene<'_>, trailers: &HeaderMap) -> Verdict {
        Judge::new(self, scene).map(trailers)
    }
}

/// One request being judged.
struct Judge<'a> {
    inspector: &'a Inspector,
    scene: Scene<'a>,
    /// What is known by its SHA-256 alone; `None` where that is nothing.
    hashed: Option<Arc<HashedSet>>,
    /// What names claims of JWTs; `None` where that is nothing.
    claims: Option<Arc<ClaimSet>>,
    /// Tokens that were reported and passed; one report a request is enough.
    alerted: Vec<ShortTokenId>,
}

/// A block of SHA-256 is 64 bytes of a token as they stand, and lay on the stack.
impl Drop for Judge<'_> {
    fn drop(&mut self) {
        if self.hashed.is_some() {
            wipe_deep_stack();
        }
    }
}

impl<'a> Judge<'a> {
    fn new(inspector: &'a Inspector, scene: Scene<'a>) -> Self {
        Self {
            inspector,
            scene,
            hashed: inspector.denylist.hashed(),
            claims: inspector.denylist.claims(),
            alerted: Vec::new(),
        }
    }

    fn map(&mut self, headers: &HeaderMap) -> Verdict {
        let fields = headers.iter();
        self.fields(fields.map(|(name, value)| (name.as_str(), value.as_bytes())))
    }

    fn fields<'f>(&mut self, mut fields: impl Iterator<Item = (&'f str, &'f [u8])>) -> Verdict {
        Verdict::of(fields.any(|(name, value)| {
            if name.eq_ignore_ascii_case(SEC_WEBSOCKET_PROTOCOL.as_str()) {
                self.protocols(value)
            } else {
                self.field(name, value)
            }
        }))
    }

    fn field(&mut self, name: &str, value: &[u8]) -> bool {
        self.read(name, value)
            || !value.is_ascii() && self.read(name, &spellings::with_plain_spaces(value))
            || self.spelled(name, value)
    }

    /// Whether there is a hit in other spellings of a value.
    fn spelled(&mut self, name: &str, value: &[u8]) -> bool {
        if name.eq_ignore_ascii_case(COOKIE.as_str()) {
            return spellings::json_cookies(value).any(|cookie| self.read(name, &cookie));
        }
        spellings::credentials(value).is_some_and(|plain| self.read(name, &plain))
    }

    fn read(&mut self, name: &str, value: &[u8]) -> bool {
        let rules = &self.inspector.rules;
        let mut listed = |location, digest: &TokenDigest| self.candidate(location, digest);
        let name = name.as_bytes();
        if inspect::header(rules, name, value, &mut listed).is_some() {
            return true;
        }
        if self.hashed.is_some() {
            let mut listed = |location, digest: &Sha256| self.hashed(location, digest);
            if sha256::inspect::header(rules, name, value, &mut listed).is_some() {
                return true;
            }
        }
        self.claimed(value, |mut listed| {
            inspect::header(rules, name, value, &mut listed).is_some()
        })
    }

    /// Whether a JWT that the scanner sees in a value claims what an entry names. The value is looked through first,
    /// and scanned again where that finds something: so its places and spellings are those of any token.
    fn claimed(
        &mut self,
        value: &[u8],
        scan: impl FnOnce(&mut dyn FnMut(LocationId, &TokenDigest) -> bool) -> bool,
    ) -> bool {
        let found = match &self.claims {
            Some(claims) => claims.in_value(value),
            None => return false,
        };
        if found.is_empty() {
            return false;
        }
        scan(&mut |location, digest| {
            let entries = found.iter().filter(|(jwt, _)| jwt == digest);
            // Each is reported, up to the first that blocks.
            entries
                .into_iter()
                .any(|(_, entry)| self.candidate(location, entry))
        })
    }

    /// Each protocol that a WebSocket client offers is a value of its own.
    fn protocols(&mut self, value: &[u8]) -> bool {
        let name = SEC_WEBSOCKET_PROTOCOL;
        value.split(|byte| *byte == b',').any(|protocol| {
            let mut spelled = spellings::protocol(protocol).into_iter();
            self.field(name.as_str(), protocol)
                || spelled.any(|token| self.field(name.as_str(), &token))
        })
    }

    fn query(&mut self, query: &[u8]) -> Verdict {
        let plain = spellings::query(query);
        Verdict::of(self.read_query(query) || plain.is_some_and(|query| self.read_query(&query)))
    }

    fn read_query(&mut self, query: &[u8]) -> bool {
        let rules = Arc::clone(&self.inspector.rules);
        let rules = &*rules;
        let mut listed = |location, digest: &TokenDigest| self.candidate(location, digest);
        let mut hit = inspect::query(rules, query, &mut listed).is_some();
        if !hit && self.hashed.is_some() {
            let mut listed = |location, digest: &Sha256| self.hashed(location, digest);
            hit = sha256::inspect::query(rules, query, &mut listed).is_some();
        }
        hit || self.claimed(query, |mut listed| {
            inspect::query(rules, query, &mut listed).is_some()
        })
    }

    /// Whether a JWT in the parameters of a form claims what an entry names. `open` is the one that these bytes go on with, and
    /// afterwards the one that they leave open, unless the form `ends` with them.
    fn parameters(&mut self, open: &mut Zeroizing<Vec<u8>>, bytes: &[u8], ends: bool) -> bool {
        let rules = Arc::clone(&self.inspector.rules);
        let mut parts = bytes.split(|byte| matches!(byte, b'&' | b';')).peekable();
        while let Some(part) = parts.next() {
            let long = open.len() + part.len() > LONGEST_PARAMETER;
            if long && open.len() <= LONGEST_PARAMETER {
                self.scene.counters.add(Counter::FormsCut);
            }
            // One byte too many says that the rest of it is passed over.
            let room = (LONGEST_PARAMETER + 1).saturating_sub(open.len());
            open.extend_from_slice(part.get(..room).unwrap_or(part));
            if parts.peek().is_none() && !ends {
                break;
            }
            let hit = open.len() <= LONGEST_PARAMETER
                && self.claimed(open, |mut listed| {
                    inspect::query(&rules, open, &mut listed).is_some()
                });
            open.zeroize();
            if hit {
                return true;
            }
        }
        false
    }

    /// Whether this candidate blocks the request. What is found is reported.
    fn candidate(&mut self, location: LocationId, digest: &TokenDigest) -> bool {
        let listed = self.inspector.denylist.get(digest);
        listed.is_some_and(|listed| self.found(location, listed))
    }

    /// The same where the candidate's SHA-256 is known.
    fn hashed(&mut self, location: LocationId, digest: &Sha256) -> bool {
        let hashed = self.hashed.as_ref();
        let listed = hashed.and_then(|hashed| hashed.get(digest, SystemTime::now()));
        listed.is_some_and(|listed| self.found(location, listed))
    }

    fn found(&mut self, location: LocationId, listed: Listed) -> bool {
        let blocks = listed.action == Action::Block && !self.inspector.monitor;
        if blocks {
            self.scene.counters.add(Counter::Blocked);
            self.report(location, listed, Outcome::Blocked);
        } else if !self.alerted.contains(&listed.token) {
            self.alerted.push(listed.token);
            self.scene.counters.add(Counter::Alerted);
            self.report(location, listed, Outcome::Alerted);
        }
        blocks
    }

    fn report(&self, location: LocationId, listed: Listed, outcome: Outcome) {
        let Ends {
            source,
            destination,
        } = self.scene.ends;
        let token = listed.token;
        let kind = Kind {
            source,
            token,
            location,
            outcome,
        };
        self.scene.hits.take(kind, || {
            let name = self.inspector.locations.get(usize::from(location));
            TokenSeen {
                time: SystemTime::now(),
                tier: Tier::Proxy,
                source,
                destination,
                location: name.map_or_else(|| Arc::from("unknown"), Arc::clone),
                token,
                outcome,
                requests: 1,
            }
        });
    }
}
