//! Where requests go to, as URLs name it.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use http::{Uri, uri::Scheme};

/// An upstream server, as `http://host:port`, `https://host:port` or `unix:/path` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    host: Host,
    port: u16,
    tls: bool,
}

/// A name to be resolved at each connection, or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Host {
    /// An address.
    Address(IpAddr),
    /// A name.
    Name(String),
    /// A socket in the file system; cleartext.
    Unix(PathBuf),
}

/// Why a text names no upstream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// A path that is not absolute.
    #[error("{0:?} names no absolute path; a socket reads unix:/path")]
    UnixPath(String),
    /// Not a URL.
    #[error("{0:?} is no URL; an upstream reads http://host:port")]
    NotAUrl(String),
    /// No scheme, or one that is not HTTP.
    #[error("{0:?} does not start with http:// or https://")]
    Scheme(String),
    /// A host is missing.
    #[error("{0:?} names no host")]
    NoHost(String),
    /// Credentials, a path or a query, which would be ignored.
    #[error("{0:?} has more than scheme, host and port")]
    TooMuch(String),
}

impl Upstream {
    pub(in crate::proxy) fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is reached over TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The host alone.
    pub(crate) fn server_name(&self) -> String {
        match &self.host {
            Host::Address(address) => address.to_string(),
            Host::Name(name) => name.clone(),
            Host::Unix(_) => "localhost".to_owned(),
        }
    }

    /// `host:port`, without the port where it is the scheme's own (RFC 9110 section 7.2).
    pub(in crate::proxy) fn authority(&self) -> String {
        let default_port = if self.tls { 443 } else { 80 };
        let host = match &self.host {
            Host::Address(IpAddr::V6(address)) => format!("[{address}]"),
            Host::Address(IpAddr::V4(address)) => address.to_string(),
            Host::Name(name) => name.clone(),
            Host::Unix(_) => return self.server_name(),
        };
        if self.port == default_port {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

impl FromStr for Upstream {
    type Err = UpstreamError;

    fn from_str(text: &str) -> Result<Self, UpstreamError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(text, Path::new(path));
        }
        if !text.contains("://") {
            return Err(UpstreamError::Scheme(text.to_owned()));
        }
        let not_a_url = |_: http::uri::InvalidUri| UpstreamError::NotAUrl(text.to_owned());
        let uri: Uri = text.parse().map_err(not_a_url)?;
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(UpstreamError::Scheme(text.to_owned())),
        };
        let no_host = || UpstreamError::NoHost(text.to_owned());
        let authority = uri.authority().ok_or_else(no_host)?;
        if authority.as_str().contains('@')
            || !matches!(uri.path(), "" | "/")
            || uri.query().is_some()
        {
            return Err(UpstreamError::TooMuch(text.to_owned()));
        }
        let host = authority.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if bare.is_empty() {
            return Err(no_host());
        }
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            // `host:` and `host:99999` have a colon and no port.
            None if authority.as_str() != host => {
                return Err(UpstreamError::NotAUrl(text.to_owned()));
            }
            None if tls => 443,
            None => 80,
        };
        Ok(Self {
            host: bare
                .parse()
                .map_or_else(|_| Host::Name(bare.to_owned()), Host::Address),
            port,
            tls,
        })
    }
}

fn unix(text: &str, path: &Path) -> Result<Upstream, UpstreamError> {
    if !path.is_absolute() {
        return Err(UpstreamError::UnixPath(text.to_owned()));
    }
    Ok(Upstream {
        host: Host::Unix(path.to_owned()),
        port: 0,
        tls: false,
    })
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Host::Unix(path) = &self.host {
            return write!(f, "unix:{}", path.display());
        }
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_are_urls_of_a_host() {
        for (text, shown) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://example.org", "http://example.org"),
            ("https://example.org:443/", "https://example.org"),
            ("http://[::1]:9", "http://[::1]:9"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
        ] {
            assert_eq!(text.parse::<Upstream>().unwrap().to_string(), shown);
        }
        let error = |text: &str| text.parse::<Upstream>().unwrap_err();
        assert!(matches!(error("127.0.0.1:80"), UpstreamError::Scheme(_)));
        assert!(matches!(error("unix:a"), UpstreamError::UnixPath(_)));
        assert!(matches!(error("ftp://a"), UpstreamError::Scheme(_)));
        assert!(matches!(error("http://a/b"), UpstreamError::TooMuch(_)));
        assert!(matches!(error("http://u:p@a"), UpstreamError::TooMuch(_)));
        assert!(matches!(error("http://a:99999"), UpstreamError::NotAUrl(_)));
        assert!(matches!(error("http://"), UpstreamError::NotAUrl(_)));
    }
}
