//! Other settings for a proxy that runs.

use std::{sync::Arc, time::Duration};

use tokenblock_ebpf::rules::Rules;
use tokio::sync::watch;

use super::{
    accept::Live, error::ProxyError, inspect::Inspector, settings::ProxySettings, tls::ServerTls,
    upstream::RouteSeeds,
};

/// Gives a running proxy other settings; cheap to clone.
#[derive(Clone)]
pub struct ProxyReload {
    pub(super) live: Arc<watch::Sender<Arc<Live>>>,
    pub(super) tls: Option<Arc<ServerTls>>,
}

/// Where tokens stand: the rules, and how events call the locations of their ids.
#[derive(Clone)]
pub struct Places {
    /// By which they are found.
    pub rules: Arc<Rules>,
    /// By id.
    pub locations: Arc<[Arc<str>]>,
}

impl ProxyReload {
    /// Whether clients come over TLS.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// How long connections have to end from the order to stop on.
    #[must_use]
    pub fn drain(&self) -> Duration {
        self.live.borrow().settings.timeouts.drain
    }

    /// Puts `settings` in force: for new connections, and for the next request of each that is open (but what holds for
    /// a connection as a whole: its TLS session, its time limits and those of its frames). All of them or, where
    /// one can't be used, none. Address, threads, and whether clients come over TLS stay as they were; without
    /// `places` so do those, and whether listed tokens are only reported.
    ///
    /// # Errors
    /// What can't be used, with the file.
    pub fn apply(&self, settings: ProxySettings, places: Option<Places>) -> Result<(), ProxyError> {
        let before = Arc::clone(&self.live.borrow());
        let settings = ProxySettings {
            listen: before.settings.listen,
            workers: before.settings.workers,
            takeover: before.settings.takeover,
            own: before.settings.own.clone(),
            ..settings
        };
        let routes = RouteSeeds::new(&settings, Some(&before.routes))?;
        if let (Some(tls), Some(settings)) = (&self.tls, settings.server_tls()) {
            tls.commit(tls.prepare(settings)?);
        }
        let mut inspector = before.inspector.clone();
        if let Some(Places { rules, locations }) = places {
            inspector = Inspector {
                rules,
                locations,
                monitor: settings.monitor,
                ..inspector
            };
        }
        self.live.send_replace(Arc::new(Live {
            settings: Arc::new(settings),
            tls: before.tls.clone(),
            routes,
            inspector,
        }));
        Ok(())
    }
}
