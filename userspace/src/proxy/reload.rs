//! Other settings for a proxy that runs.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{
    accept::Live,
    error::ProxyError,
    inspect::Inspector,
    settings::ProxySettings,
    tls::{PreparedTls, ServerTls},
    upstream::RouteSeeds,
};
use crate::places::Places;

/// Gives a running proxy other settings; cheap to clone.
#[derive(Clone)]
pub struct ProxyReload {
    pub(super) live: Arc<watch::Sender<Arc<Live>>>,
    pub(super) tls: Option<Arc<ServerTls>>,
}

/// Settings that can be used, and all that is made of them.
pub struct Prepared {
    live: Live,
    tls: Option<PreparedTls>,
}

impl ProxyReload {
    /// Whether clients come over TLS.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> ProxySettings {
        ProxySettings::clone(&self.live.borrow().settings)
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
        let prepared = self.prepare(settings, places)?;
        self.commit(prepared);
        Ok(())
    }

    /// The first half of that, which can fail.
    ///
    /// # Errors
    /// What can't be used, with the file.
    pub fn prepare(
        &self,
        settings: ProxySettings,
        places: Option<Places>,
    ) -> Result<Prepared, ProxyError> {
        let before = Arc::clone(&self.live.borrow());
        let settings = ProxySettings {
            listen: before.settings.listen,
            workers: before.settings.workers,
            takeover: before.settings.takeover,
            own: before.settings.own.clone(),
            ..settings
        };
        let routes = RouteSeeds::new(&settings, Some(&before.routes))?;
        let tls = match (&self.tls, settings.server_tls()) {
            (Some(tls), Some(settings)) => Some(tls.prepare(settings)?),
            _ => None,
        };
        let mut inspector = before.inspector.clone();
        if let Some(Places { rules, locations }) = places {
            inspector = Inspector {
                rules,
                locations,
                monitor: settings.monitor,
                ..inspector
            };
        }
        let live = Live {
            settings: Arc::new(settings),
            tls: before.tls.clone(),
            routes,
            inspector,
        };
        Ok(Prepared { live, tls })
    }

    /// The second half.
    pub fn commit(&self, prepared: Prepared) {
        if let (Some(running), Some(tls)) = (&self.tls, prepared.tls) {
            running.commit(tls);
        }
        self.live.send_replace(Arc::new(prepared.live));
    }
}
