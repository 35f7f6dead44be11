//! What is reported of each block or alert, the same for both tiers. Never holds a token.

mod relay;

use std::{fmt, net::SocketAddr, sync::Arc, time::SystemTime};

pub use self::relay::Relay;
use crate::denylist::ShortTokenId;

/// The tier that saw the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// The TC program.
    Kernel,
    /// The TLS proxy.
    Proxy,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The request was blocked.
    Blocked,
    /// The request passed: the entry's action is `alert`, or the tier runs with `--monitor`.
    Alerted,
}

/// One listed token, seen in one request, or in several alike.
#[derive(Clone, Debug)]
pub struct TokenSeen {
    /// When the tier saw it.
    pub time: SystemTime,
    /// The tier that saw it.
    pub tier: Tier,
    /// The client's end.
    pub source: SocketAddr,
    /// The server's end.
    pub destination: SocketAddr,
    /// Where the token stood, for instance `header authorization`.
    pub location: Arc<str>,
    /// The first bytes of its `TokenId`.
    pub token: ShortTokenId,
    /// What was done.
    pub outcome: Outcome,
    /// How many requests that is: more than one where several alike came within a second. The time is then that of the
    /// first of them.
    pub requests: u64,
}

/// Takes events; cheap to clone, never blocks the data path.
#[derive(Clone)]
pub struct EventSink(Arc<dyn Fn(TokenSeen) + Send + Sync>);

impl EventSink {
    /// A sink that hands every event to `take`.
    pub fn new(take: impl Fn(TokenSeen) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    /// Reports an event.
    pub fn report(&self, event: TokenSeen) {
        (self.0)(event);
    }
}

impl fmt::Debug for EventSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventSink")
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Proxy => "proxy",
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blocked => "blocked",
            Self::Alerted => "alerted",
        })
    }
}
