//! The settings, read again while tokenblock runs: what is wrong is refused whole, what can't be changed waits.

use std::{env, sync::Arc};

use crate::{
    cli::{
        Cli, CliError, Command,
        given::{Change, Given},
    },
    key::StoredKey,
    proxy::{Places, ProxyError, ProxyReload},
    settings::{Settings, SettingsError, Surroundings},
};

/// Why settings that were read again are not in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// A flag, a variable or the file.
    #[error(transparent)]
    Cli(#[from] CliError),
    /// They can't be meant.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// What they name can't be used.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The command line is not one that runs anything.
    #[error("the command line is not that of `tokenblock run`")]
    NotRun,
}

/// The settings in force.
pub struct InForce {
    given: Given,
    key: StoredKey,
    min_token_length: u64,
    has_kernel: bool,
    /// The ports that are intercepted until the end: where their requests go follows from them.
    intercept: Vec<u16>,
    proxy: Option<ProxyReload>,
}

/// What came of reading the settings again; flags, each without its dashes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What has changed and is in force.
    pub changed: Vec<String>,
    /// What has changed and waits for the next start.
    pub at_start: Vec<String>,
}

impl InForce {
    /// What the process was started with, before it is used up.
    #[must_use]
    pub fn new(given: Given, settings: &Settings, key: StoredKey) -> Self {
        Self {
            given,
            key,
            min_token_length: settings.min_token_length,
            has_kernel: settings.kernel.is_some(),
            intercept: settings
                .intercept
                .as_ref()
                .map_or_else(Vec::new, |intercept| intercept.ports.clone()),
            proxy: None,
        }
    }

    /// The proxy runs now.
    pub fn with_proxy(&mut self, proxy: ProxyReload) {
        self.proxy = Some(proxy);
    }

    /// Reads the settings again, and puts those in force that can be.
    ///
    /// # Errors
    /// [`ReloadError`]; nothing has changed then.
    pub fn reload(&mut self) -> Result<Outcome, ReloadError> {
        let Command::Run(mut args) = Cli::read(env::args_os())?.command else {
            return Err(ReloadError::NotRun);
        };
        let given = args.given.clone();
        args.proxy.intercept.clone_from(&self.intercept);
        let settings = Settings::check(*args, &Surroundings::of_process())?;
        let differing = self.given.changes(&given);
        let (changed, at_start) = differing
            .into_iter()
            .partition(|flag| self.takes(flag, &settings));
        let outcome = Outcome { changed, at_start };
        if !outcome.changed.is_empty() {
            self.apply(settings)?;
        }
        self.given.take(&given, &outcome.changed);
        Ok(outcome)
    }

    /// Whether a change of this setting can be put in force now.
    fn takes(&self, flag: &str, settings: &Settings) -> bool {
        let (Some(running), Some(wanted)) = (&self.proxy, &settings.proxy) else {
            return false;
        };
        if running.has_tls() != wanted.tls.is_some() && ["tls-cert", "tls-key"].contains(&flag) {
            return false;
        }
        match Change::of(flag) {
            Change::AtReload => true,
            Change::AtReloadOfProxy => !self.has_kernel,
            Change::AtStart => false,
        }
    }

    fn apply(&self, settings: Settings) -> Result<(), ReloadError> {
        let (Some(running), Some(wanted)) = (&self.proxy, settings.proxy) else {
            return Ok(());
        };
        let places = if self.has_kernel {
            None
        } else {
            let locations = &settings.locations;
            Some(Places {
                rules: Arc::new(locations.rules(self.key.get(), self.min_token_length)?),
                locations: locations.names(),
            })
        };
        Ok(running.apply(wanted, places)?)
    }
}
