//! Which upstream a request goes to: first the route, then one of the route's servers.

use std::{cell::Cell, rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Uri, header};

use super::{Pool, check::Condition, health::State};
use crate::proxy::{
    counters::Counters,
    error::ProxyError,
    refuse::Reason,
    settings::{Balance, ProxySettings, Route, Upstream},
    tls::UpstreamTls,
};

/// Routes whose files are read; every worker makes its own [`Routes`] of them.
#[derive(Clone)]
pub(in crate::proxy) struct RouteSeeds(Arc<[(Route, Vec<ServerSeed>)]>);

/// A server that takes requests, as all workers have it.
#[derive(Clone)]
pub(super) struct ServerSeed {
    pub(super) upstream: Upstream,
    pub(super) tls: Option<UpstreamTls>,
    pub(super) condition: Arc<Condition>,
}

/// The routes of one worker, those that say most first.
pub(in crate::proxy) struct Routes(Vec<(Route, Rc<Group>)>);

/// Servers that can stand in for each other.
pub(in crate::proxy) struct Group {
    servers: Vec<Rc<Pool>>,
    balance: Balance,
    next: Cell<usize>,
}

impl RouteSeeds {
    /// The routes of the settings; requests that none is for go to `upstream`. What the checks of servers say is known
    /// from `before`, the routes that these are to replace.
    ///
    /// # Errors
    /// Where a file that an upstream needs can't be used.
    pub(in crate::proxy) fn new(
        settings: &ProxySettings,
        before: Option<&Self>,
    ) -> Result<Self, ProxyError> {
        let checked = settings.check.is_some();
        let before = before.filter(|_| checked).map(Self::servers);
        // An upstream of several routes is one.
        let mut servers: Vec<ServerSeed> = before.unwrap_or_default();
        let mut upstreams = vec![settings.upstream.clone()];
        upstreams.extend(settings.more_upstreams.iter().cloned());
        let of_port =
            |(port, upstream): &(u16, Upstream)| Route::rest(Some(*port), vec![upstream.clone()]);
        let rest: Vec<Route> = settings.by_port.iter().map(of_port).collect();
        let rest: Vec<Route> = rest
            .into_iter()
            .chain([Route::rest(None, upstreams)])
            .collect();
        let mut routes: Vec<&Route> = settings.routes.iter().chain(&rest).collect();
        routes.sort_by_key(|route| (route.host.is_none(), std::cmp::Reverse(route.path.len())));
        let seed = |route: &Route| {
            let seeds = route.upstreams.iter().map(|upstream| {
                let known = servers.iter().find(|known| known.upstream == *upstream);
                let condition = known.map(|known| Arc::clone(&known.condition));
                let seed = server_seed(upstream, settings, condition.unwrap_or_default())?;
                servers.push(seed.clone());
                Ok(seed)
            });
            Ok((
                route.clone(),
                seeds.collect::<Result<Vec<_>, ProxyError>>()?,
            ))
        };
        let seeds = routes.into_iter().map(seed);
        Ok(Self(seeds.collect::<Result<Vec<_>, ProxyError>>()?.into()))
    }

    /// Every server, once.
    pub(super) fn servers(&self) -> Vec<ServerSeed> {
        let mut servers: Vec<ServerSeed> = Vec::new();
        for server in self.0.iter().flat_map(|(_, servers)| servers) {
            if servers
                .iter()
                .all(|known| known.upstream != server.upstream)
            {
                servers.push(server.clone());
            }
        }
        servers
    }
}

fn server_seed(
    upstream: &Upstream,
    settings: &ProxySettings,
    condition: Arc<Condition>,
) -> Result<ServerSeed, ProxyError> {
    let tls = if upstream.is_tls() {
        let (tls, http) = (&settings.upstream_tls, settings.upstream_http);
        Some(UpstreamTls::new(upstream, tls, http)?)
    } else {
        None
    };
    Ok(ServerSeed {
        upstream: upstream.clone(),
        tls,
        condition,
    })
}

impl Routes {
    /// One worker's routes, without connections yet.
    pub(in crate::proxy) fn new(
        seeds: &RouteSeeds,
        settings: &Arc<ProxySettings>,
        counters: &Arc<Counters>,
    ) -> Self {
        let group = |servers: &[ServerSeed]| {
            let pool =
                |server: &ServerSeed| Pool::new(server, Arc::clone(settings), Arc::clone(counters));
            Rc::new(Group {
                servers: servers.iter().map(pool).collect(),
                balance: settings.balance,
                next: Cell::new(0),
            })
        };
        let routes = seeds.0.iter();
        Self(
            routes
                .map(|(route, servers)| (route.clone(), group(servers)))
                .collect(),
        )
    }

    /// The same routes over connections that are all for one client.
    pub(in crate::proxy) fn for_client(&self, preamble: &Bytes) -> Self {
        let group = |group: &Group| {
            let servers = group.servers.iter();
            Rc::new(Group {
                servers: servers.map(|s| s.for_client(preamble.clone())).collect(),
                balance: group.balance,
                next: Cell::new(group.next.get()),
            })
        };
        let routes = self.0.iter();
        Self(
            routes
                .map(|(route, servers)| (route.clone(), group(servers)))
                .collect(),
        )
    }

    /// Who serves this request that came to `port`; the last route is for all that no other is for.
    pub(in crate::proxy) fn find(
        &self,
        port: u16,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Option<&Rc<Group>> {
        // The usual settings have one route: nothing to compare.
        if let [(_, only)] = &self.0[..] {
            return Some(only);
        }
        let host = headers.get(header::HOST).map_or(&b""[..], |h| h.as_bytes());
        self.find_for(port, host, uri.path())
    }

    /// The same by the host and the path.
    pub(in crate::proxy) fn find_for(
        &self,
        port: u16,
        host: &[u8],
        path: &str,
    ) -> Option<&Rc<Group>> {
        let found = self
            .0
            .iter()
            .find(|(route, _)| route.is_for(port, host, path));
        found.map(|(_, group)| group)
    }

    /// Every server's connections.
    pub(in crate::proxy) fn pools(&self) -> impl Iterator<Item = &Rc<Pool>> {
        self.0.iter().flat_map(|(_, group)| &group.servers)
    }
}

impl Group {
    /// How many servers can be tried.
    pub(in crate::proxy) fn len(&self) -> usize {
        self.servers.len()
    }

    /// Why no server took a request, the last one for `last`: there is none, where all of several are left out.
    pub(in crate::proxy) fn exhausted(&self, last: Reason) -> Reason {
        let is_out = |server: &Rc<Pool>| server.state() != State::Well;
        if self.servers.len() < 2 || !self.servers.iter().all(is_out) {
            return last;
        }
        let servers: Vec<String> = self
            .servers
            .iter()
            .map(|s| s.upstream.to_string())
            .collect();
        let why: &str = last.into();
        tracing::warn!(upstreams = servers.join(","), why, "no upstream is usable");
        Reason::NoUpstream
    }

    /// The server to ask: one that is due for a probe, or one of those that are well. Where none is, any that isn't known
    /// to be down: a request that fails costs no more than one that is refused.
    pub(in crate::proxy) fn pick(&self) -> Option<&Rc<Pool>> {
        if let [only] = &self.servers[..] {
            return (!only.condition.is_down()).then_some(only);
        }
        let turn = self.next.get();
        self.next.set(turn.wrapping_add(1));
        let states: Vec<State> = self.servers.iter().map(|s| s.state()).collect();
        let with = |wanted| {
            let servers = self.servers.iter().zip(&states);
            servers
                .filter(move |(_, state)| **state == wanted)
                .map(|(server, _)| server)
        };
        if let Some(probed) = with(State::Probe).next() {
            probed.on_probe();
            return Some(probed);
        }
        let well: Vec<&Rc<Pool>> = with(State::Well).collect();
        let candidates = if well.is_empty() {
            self.servers
                .iter()
                .filter(|s| !s.condition.is_down())
                .collect()
        } else {
            well
        };
        // Equals take turns.
        let start = turn.checked_rem(candidates.len())?;
        let in_turn = candidates.iter().cycle().skip(start).take(candidates.len());
        match self.balance {
            Balance::RoundRobin => in_turn.copied().next(),
            Balance::LeastConnections => in_turn.copied().min_by_key(|server| server.active()),
        }
    }
}
