//! Keeps the denylist in force what its sources say: `sources -> denylist -> tiers`.

use std::{
    convert::Infallible,
    pin::pin,
    time::{Duration, SystemTime},
};

use tokio::{
    task::{JoinError, spawn_blocking},
    time::sleep,
};

use crate::{
    denylist::{Denylist, List, Record, SetReader, Tier},
    key::StoredKey,
    sources::{Change, FileError, Reading, Source, Summary, Watch, read},
};

/// A tier that could not take a change is tried again after this long.
const RETRY: Duration = Duration::from_secs(5);
/// Longest sleep before the wall clock is looked at again: it may be set while we sleep.
const CLOCK: Duration = Duration::from_secs(5);

/// The files that entries come from, and what their text is read with.
pub struct Sources {
    /// The files.
    pub files: Vec<Source>,
    /// For the digests.
    pub key: StoredKey,
    /// Entries shorter than this many bytes are skipped.
    pub min_token_length: u64,
}

/// The sources and the denylist that they fill.
pub struct Keeper<K> {
    sources: Sources,
    denylist: Denylist<K>,
    /// The last change, where a tier failed to take it.
    missed: Option<Change>,
}

impl Sources {
    /// Reads all files; warns of the lines that are left out.
    ///
    /// # Errors
    /// The first file that is refused.
    pub fn read(&self) -> Result<List, FileError> {
        let (records, refused) = self.read_each();
        match refused.into_iter().next() {
            None => Ok(List::merge(records, SystemTime::now())),
            Some(error) => Err(error),
        }
    }

    /// The records of the files that can be read, and why others can't.
    fn read_each(&self) -> (Vec<Record>, Vec<FileError>) {
        let reading = Reading {
            key: self.key.get(),
            min_token_length: self.min_token_length,
        };
        let (mut records, mut refused) = (Vec::new(), Vec::new());
        for file in &self.files {
            match read(file, reading, &mut records) {
                Ok(summary) => report(file, &summary),
                Err(error) => refused.push(error),
            }
        }
        (records, refused)
    }
}

fn report(file: &Source, summary: &Summary) {
    let path = file.path.display();
    for line in &summary.named {
        tracing::warn!("{path}:{}: skipped: {}", line.number, line.why);
    }
    let unnamed = summary.skipped.saturating_sub(summary.named.len() as u64);
    if unnamed > 0 {
        tracing::warn!("{path}: {unnamed} more lines skipped");
    }
    if summary.entries == 0 {
        tracing::warn!("{path}: the list is empty");
    }
}

impl<K: Tier + 'static> Keeper<K> {
    /// A keeper that has brought `list`, as read from `sources`, into force.
    ///
    /// # Errors
    /// Where the kernel tier could not take it.
    pub fn start(sources: Sources, list: &List, kernel: Option<K>) -> Result<Self, K::Error> {
        let mut denylist = Denylist::new(kernel);
        denylist.apply(list)?;
        Ok(Self {
            sources,
            denylist,
            missed: None,
        })
    }

    /// For the proxy to read.
    #[must_use]
    pub fn reader(&self) -> SetReader {
        self.denylist.reader()
    }

    /// Follows the sources and the clock.
    ///
    /// # Errors
    /// Never returns but where the thread that changes the tiers panicked.
    pub async fn keep(mut self, mut watch: Watch) -> Result<Infallible, JoinError> {
        loop {
            let change = {
                // Not dropped on a tick of the clock: it may be about to report.
                let mut changed = pin!(watch.changed());
                loop {
                    tokio::select! {
                        change = &mut changed => break change,
                        () = sleep(self.next_tick()) => self = self.aside(Self::tick).await?,
                    }
                }
            };
            self = self.aside(move |keeper| keeper.reload(change)).await?;
        }
    }

    /// Runs what may take a second away from the threads that serve requests.
    async fn aside(
        mut self,
        work: impl FnOnce(&mut Self) + Send + 'static,
    ) -> Result<Self, JoinError> {
        spawn_blocking(move || {
            work(&mut self);
            self
        })
        .await
    }

    fn next_tick(&self) -> Duration {
        let expiry = self.denylist.next_expiry().map(|at| {
            at.duration_since(SystemTime::now())
                .unwrap_or(Duration::ZERO)
        });
        let retry = self.missed.map(|_| RETRY);
        [expiry, retry]
            .into_iter()
            .flatten()
            .fold(CLOCK, Duration::min)
    }

    fn tick(&mut self) {
        match self.denylist.expire(SystemTime::now()) {
            Ok(0) => {}
            Ok(expired) => tracing::info!(expired, "entries expired"),
            Err(error) => tracing::error!(%error, "expired entries could not be removed"),
        }
        if let Some(change) = self.missed {
            self.reload(change);
        }
    }

    /// Reads the sources again. While one of them is refused or unsettled nothing is removed: the list in force
    /// counts as one more source.
    fn reload(&mut self, change: Change) {
        let (mut records, refused) = self.sources.read_each();
        if change == Change::Settled {
            for error in &refused {
                tracing::error!("{error}; the list in force stays in force");
            }
        }
        if change == Change::Unsettled || !refused.is_empty() {
            records.extend(self.denylist.records());
        }
        let list = List::merge(records, SystemTime::now());
        match self.denylist.apply(&list) {
            Ok(changed) => {
                self.missed = None;
                if changed.added + changed.removed > 0 {
                    let (added, removed, entries) =
                        (changed.added, changed.removed, list.records().len());
                    tracing::info!(added, removed, entries, "denylist changed, in force");
                }
            }
            Err(error) => {
                self.missed = Some(change);
                tracing::error!(%error, "the kernel tier did not take the change; will be tried again");
            }
        }
    }
}
