//! Why settings can't be meant.

use thiserror::Error;
use tokenblock_ebpf::rules::{MAX_LOCATIONS, MAX_NAME};

use super::{Location, PolicyError};
use crate::{
    control::ControlSettingsError,
    proxy::{RouteError, UpstreamError},
};

/// Why settings can't be meant.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// Nothing would be enforced anywhere.
    #[error(
        "no tier: give --interface NAME for cleartext HTTP on that interface, --proxy-listen ADDR:PORT for \
         HTTPS, or both"
    )]
    NoTier,
    /// Nothing would be enforced.
    #[error("no denylist: give --denylist FILE, a file of compromised tokens, one a line")]
    NoDenylist,
    /// A setting is needed by another.
    #[error("{needed} is needed with {by}")]
    Needed {
        /// What is missing.
        needed: &'static str,
        /// What needs it.
        by: &'static str,
    },
    /// A value is empty.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// Not a port.
    #[error("--port {0:?}: a port is a number from 1 to 65535, or `all`")]
    Port(String),
    /// `all` with numbers.
    #[error("--port all takes every port; leave out the others")]
    PortAllAndMore,
    /// Not a policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Not a rule for bans.
    #[error(
        "--ban {0:?}: N/T/D reads, for instance, 5/60/600: after 5 blocked requests within 60 seconds, for 600 \
         seconds"
    )]
    Ban(String),
    /// Not a network.
    #[error("{flag} {text:?}: a network reads 10.0.0.0/8 or 2001:db8::/32, an address 10.0.0.1")]
    Network {
        /// The setting.
        flag: &'static str,
        /// As given.
        text: String,
    },
    /// Not an interface.
    #[error(
        "--interface {0:?}: an interface has no blanks and no `/` in its name, and at most 15 bytes"
    )]
    Interface(String),
    /// Not an address.
    #[error(
        "--proxy-listen {0:?}: an address to listen on reads 0.0.0.0:8443 or [::]:8443; `systemd` takes the \
         socket of a service manager"
    )]
    Listen(String),
    /// Not an address.
    #[error("--control-listen {0:?}: an address to listen on reads 127.0.0.1:8444 or [::]:8444")]
    ControlListen(String),
    /// Not a header.
    #[error("--gitlab-header {0:?}: no header can be called so")]
    GitlabHeader(String),
    /// Not for both families.
    #[error(
        "--proxy-listen {0:?} can't take what --intercept hands over, IPv4 and IPv6: leave it out, or give [::]:PORT"
    )]
    InterceptListen(String),
    /// Not an upstream.
    #[error("--upstream {0}")]
    Upstream(#[from] UpstreamError),
    /// Not a route.
    #[error("--route {0}")]
    Route(#[from] RouteError),
    /// Not a path.
    #[error("--upstream-check {0:?}: a path begins with `/`")]
    CheckPath(String),
    /// Not a host.
    #[error("--upstream-check-host {0:?}: a host reads example.org or example.org:8080")]
    CheckHost(String),
    /// Not a certificate with its key.
    #[error("--certificate {0:?}: a certificate and its key read CERT:KEY, two paths without `:`")]
    Certificate(String),
    /// Not the value of a header field.
    #[error("--refusal-content-type {0:?} can't be the value of a header field")]
    ContentType(String),
    /// The header of cookies is no location of its own.
    #[error("--header Cookie: cookies are read one by one; give their names with --cookie NAME")]
    CookieHeader,
    /// No location at all.
    #[error("no place to look: give at least one --header, --cookie or --query")]
    NoLocation,
    /// Too many locations.
    #[error(
        "{0} headers, cookies and query parameters are more than the {MAX_LOCATIONS} that can be read"
    )]
    TooManyLocations(usize),
    /// A name that can't be one of its kind.
    #[error("{location}: {why}")]
    Name {
        /// The location.
        location: Location,
        /// What is wrong with its name.
        why: WrongName,
    },
    /// There is no place for state.
    #[error("no folder for the installation key: HOME is not set; give --state-dir DIR")]
    NoStateDir,
    /// Nobody could control it so.
    #[error(transparent)]
    Control(#[from] ControlSettingsError),
}

/// What is wrong with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WrongName {
    /// It is empty.
    #[error("the name is empty")]
    Empty,
    /// It is too long.
    #[error("the name is longer than {MAX_NAME} bytes")]
    TooLong,
    /// It has a byte that never stands in such a name.
    #[error("the name has a byte {0:#04x} that can't stand there")]
    Byte(u8),
    /// The hash table has no room for it.
    #[error("the name clashes with the others; leave one out")]
    Clash,
}
