//! Whether an upstream can be asked, learned from the requests themselves.

use std::cell::Cell;

use tokio::time::Instant;

use crate::proxy::settings::HealthSettings;

/// What one worker has learned of one upstream.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Failures in a row.
    failures: Cell<u32>,
    ejected_until: Cell<Option<Instant>>,
}

/// Whether to ask an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It answers.
    Well,
    /// It did not, a while ago: one request may try it.
    Probe,
    /// It does not.
    Ejected,
    /// It says itself that it can't, or is silent: it is not asked, whatever the others do.
    Down,
}

impl Health {
    /// Whether to ask it now.
    pub(super) fn state(&self) -> State {
        match self.ejected_until.get() {
            None => State::Well,
            Some(until) if until <= Instant::now() => State::Probe,
            Some(_) => State::Ejected,
        }
    }

    /// A request is sent to try it; others wait for what comes of that.
    pub(super) fn on_probe(&self, settings: &HealthSettings) {
        self.ejected_until
            .set(Some(Instant::now() + settings.eject));
    }

    /// It has answered; true where that brings it back.
    pub(super) fn on_success(&self) -> bool {
        self.failures.set(0);
        self.ejected_until.take().is_some()
    }

    /// It has not; true where that ejects it.
    pub(super) fn on_failure(&self, settings: &HealthSettings) -> bool {
        let failures = self.failures.get().saturating_add(1);
        self.failures.set(failures);
        if failures < settings.failures {
            return false;
        }
        let first = self.ejected_until.get().is_none();
        self.ejected_until
            .set(Some(Instant::now() + settings.eject));
        first
    }
}
