//! The settings, read again while tokenblock runs: what is wrong is refused whole, what can't be changed waits.

use std::{env, sync::Arc};

use tokio::sync::mpsc;

use crate::{
    cli::{
        Cli, CliError, Command,
        given::{Change, Given},
    },
    control::Backing,
    keeper::Request,
    kernel::{InterceptSettings, KernelError, KernelTier},
    key::StoredKey,
    places::Places,
    proxy::{ProxyError, ProxyReload, ProxySettings},
    settings::{Settings, SettingsError, Surroundings},
    sources::MinLength,
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
    /// The kernel tier can't take them.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The command line is not one that runs anything.
    #[error("the command line is not that of `tokenblock run`")]
    NotRun,
}

/// The settings in force.
pub struct InForce {
    given: Given,
    key: StoredKey,
    /// What the locations are called, by their ids, now and before.
    names: Arc<[Arc<str>]>,
    min_token_length: MinLength,
    /// The ports that are intercepted until the end: where their requests go follows from them.
    intercept: Vec<u16>,
    proxy: Option<ProxyReload>,
    /// Who reads the files.
    keeper: mpsc::Sender<Request>,
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
    /// What the process was started with, with the parts that follow a change of it.
    #[must_use]
    pub fn new(
        given: Given,
        intercept: Option<&InterceptSettings>,
        places: &Places,
        backing: &Backing,
        key: StoredKey,
    ) -> Self {
        Self {
            given,
            key,
            names: Arc::clone(&places.locations),
            min_token_length: backing.min_token_length.clone(),
            intercept: intercept.map_or_else(Vec::new, |intercept| intercept.ports.clone()),
            proxy: None,
            keeper: backing.keeper.clone(),
        }
    }

    /// The proxy runs now.
    pub fn with_proxy(&mut self, proxy: ProxyReload) {
        self.proxy = Some(proxy);
    }

    /// Reads the settings again, and puts those in force that can be: in the proxy tier and in `kernel`.
    ///
    /// # Errors
    /// [`ReloadError`]; nothing has changed then.
    pub fn reload(&mut self, kernel: Option<&mut KernelTier>) -> Result<Outcome, ReloadError> {
        let Command::Run(mut args) = Cli::read(env::args_os())?.command else {
            return Err(ReloadError::NotRun);
        };
        let given = args.given.clone();
        let monitor = args.monitor;
        args.proxy.intercept.clone_from(&self.intercept);
        let settings = Settings::check(*args, &Surroundings::of_process())?;
        let differing = self.given.changes(&given);
        let (changed, at_start) = differing
            .into_iter()
            .partition(|flag| self.takes(flag, &settings));
        let outcome = Outcome { changed, at_start };
        if !outcome.changed.is_empty() {
            self.apply(settings, monitor, kernel)?;
        }
        self.given.take(&given, &outcome.changed);
        Ok(outcome)
    }

    /// Whether a change of this setting can be put in force now.
    fn takes(&self, flag: &str, settings: &Settings) -> bool {
        match Change::of(flag) {
            Change::AtReload => true,
            Change::AtReloadOfProxy => match (&self.proxy, &settings.proxy) {
                (Some(running), Some(wanted)) => {
                    running.has_tls() == wanted.tls.is_some()
                        || !["tls-cert", "tls-key"].contains(&flag)
                }
                _ => false,
            },
            Change::AtStart => false,
        }
    }

    /// First all that can fail, then the rest: no tier takes what another refuses.
    fn apply(
        &mut self,
        settings: Settings,
        monitor: bool,
        kernel: Option<&mut KernelTier>,
    ) -> Result<(), ReloadError> {
        let least = settings.min_token_length;
        let places = settings
            .locations
            .places(&self.names, self.key.get(), least)?;
        let prepared = match &self.proxy {
            Some(running) => {
                let wanted = settings.proxy.unwrap_or_else(|| running.settings());
                let wanted = ProxySettings { monitor, ..wanted };
                let prepared = running.prepare(wanted, Some(places.clone()))?;
                Some((running, prepared))
            }
            None => None,
        };
        if let Some(kernel) = kernel {
            kernel.change(&places, monitor)?;
        }
        if let Some((running, prepared)) = prepared {
            running.commit(prepared);
        }
        self.names = places.locations;
        if self.min_token_length.get() != least {
            self.min_token_length.set(least);
            // Not waited for: the keeper may itself wait for the kernel tier. Without one the process is on its way out.
            let keeper = self.keeper.clone();
            tokio::spawn(async move { keeper.send(Request::ReadAgain).await.is_ok() });
        }
        Ok(())
    }
}
