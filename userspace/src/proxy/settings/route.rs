//! Which requests go to which servers, as `[HOST][/PREFIX]=UPSTREAM[,UPSTREAM...]` says it.

use std::str::FromStr;

use super::{Upstream, UpstreamError};

/// Requests for a host and under a path, and the servers that take them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where the client has connected to; none stands for all.
    pub(in crate::proxy) port: Option<u16>,
    /// In lower case, without a port; none stands for all.
    pub(in crate::proxy) host: Option<String>,
    /// Starts with `/`; it and all that lies under it.
    pub(in crate::proxy) path: String,
    pub(in crate::proxy) upstreams: Vec<Upstream>,
}

/// Why a text names no route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No `=`.
    #[error("{0:?} is no route; one reads [HOST][/PREFIX]=UPSTREAM[,UPSTREAM...]")]
    NoEquals(String),
    /// Neither a host nor a prefix: `--upstream` says that.
    #[error("{0:?} names neither host nor path")]
    Empty(String),
    /// Not an upstream.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

impl Route {
    /// A route for all requests that came to this port, or for all.
    pub(in crate::proxy) fn rest(port: Option<u16>, upstreams: Vec<Upstream>) -> Self {
        Self {
            port,
            host: None,
            path: "/".to_owned(),
            upstreams,
        }
    }

    /// Whether it is for a request that came to this port, with this `Host` field and this path.
    pub(in crate::proxy) fn is_for(&self, port: u16, host: &[u8], path: &str) -> bool {
        let named = |name: &String| without_port(host).eq_ignore_ascii_case(name.as_bytes());
        let under = path.strip_prefix(self.path.trim_end_matches('/'));
        self.port.is_none_or(|own| own == port)
            && self.host.as_ref().is_none_or(named)
            && under.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl FromStr for Route {
    type Err = RouteError;

    fn from_str(text: &str) -> Result<Self, RouteError> {
        let no_equals = || RouteError::NoEquals(text.to_owned());
        let (from, to) = text.split_once('=').ok_or_else(no_equals)?;
        if from.is_empty() {
            return Err(RouteError::Empty(text.to_owned()));
        }
        let (host, path) = match from.split_once('/') {
            Some((host, path)) => (host, format!("/{path}")),
            None => (from, "/".to_owned()),
        };
        Ok(Self {
            port: None,
            host: (!host.is_empty()).then(|| host.to_ascii_lowercase()),
            path,
            upstreams: to.split(',').map(str::parse).collect::<Result<_, _>>()?,
        })
    }
}

/// The host of `host[:port]`; that of an IPv6 address stands in brackets.
fn without_port(host: &[u8]) -> &[u8] {
    let colon = host.iter().rposition(|byte| *byte == b':');
    let bracket = host.iter().rposition(|byte| *byte == b']');
    match colon {
        Some(colon) if bracket.is_none_or(|bracket| bracket < colon) => {
            host.get(..colon).unwrap_or(host)
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_for_a_host_and_what_lies_under_a_path() {
        let route: Route = "Shop.example/api=http://a:1,unix:/s".parse().unwrap();
        assert_eq!(route.upstreams.len(), 2);
        assert!(route.is_for(443, b"shop.EXAMPLE:8443", "/api"));
        assert!(route.is_for(443, b"shop.example", "/api/x"));
        assert!(!route.is_for(443, b"shop.example", "/apix"));
        assert!(!route.is_for(443, b"other.example", "/api"));
        let any: Route = "/=http://a".parse().unwrap();
        assert!(any.is_for(443, b"[::1]:80", "/x") && any.is_for(443, b"", "/"));
        let six: Route = "[::1]=http://a".parse().unwrap();
        assert!(six.is_for(443, b"[::1]:80", "/x") && six.is_for(443, b"[::1]", "/x"));
        let one = Route::rest(Some(8443), Vec::new());
        assert!(one.is_for(8443, b"h", "/x") && !one.is_for(443, b"h", "/x"));
        let error = |text: &str| text.parse::<Route>().unwrap_err();
        assert!(matches!(error("a"), RouteError::NoEquals(_)));
        assert!(matches!(error("=http://a"), RouteError::Empty(_)));
        assert!(matches!(error("a=b"), RouteError::Upstream(_)));
    }
}
