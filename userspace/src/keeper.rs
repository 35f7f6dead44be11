//! Keeps the denylist in force what its sources say: `sources -> denylist -> tiers`.

mod requests;
mod sources;

use std::{
    collections::HashSet,
    convert::Infallible,
    mem,
    pin::pin,
    time::{Duration, Instant, SystemTime},
};

use indicatif::ProgressBar;
use tokio::{sync::mpsc, task::JoinError, time::sleep};

pub use self::requests::{
    ChangeError, Checked, FileStatus, Imported, ListStatus, Mode, Removed, Request, Target,
};
pub use self::sources::{Loaded, Sources};

use self::sources::merged;
use crate::{
    denylist::{ClaimSet, Claims, ClaimsReader, Denylist, HashedSet, SetReader, Tier, TokenDigest},
    giving_way::giving_way,
    sources::{Change, Watch},
    state::{Additions, Expired},
    wiping::{give_back, spawn_wiped},
};

/// A tier that could not take a change is tried again after this long.
const RETRY: Duration = Duration::from_secs(5);
/// Longest sleep before the wall clock is looked at again: it may be set while we sleep.
const CLOCK: Duration = Duration::from_secs(1);

/// The sources and the denylist that they fill.
pub struct Keeper<K> {
    sources: Sources,
    denylist: Denylist<K>,
    /// What was added at run time.
    additions: Additions,
    /// What leads from JWTs to entries that name claims: those of the files, ...
    claims: Vec<Claims>,
    /// ... and all, as the proxy reads them.
    claims_in_force: ClaimsReader,
    /// What the files hold that is known by its SHA-256 alone.
    hashed: HashedSet,
    /// Whether a tier failed to take a change by request of those.
    hashed_owed: bool,
    /// The last change, where a tier failed to take it.
    missed: Option<Change>,
    /// Tokens whose last change by request a tier failed to take.
    owed: HashSet<TokenDigest>,
    /// The files as they were last read, ...
    files: Vec<FileStatus>,
    /// ... when that was, ...
    read: SystemTime,
    /// ... and why one of them was refused.
    refused: Option<String>,
    /// What time it is, ...
    clock: Clock,
    /// ... and the latest that it was when something may have left.
    latest: SystemTime,
    /// When what a tier did not take was last tried.
    tried: Instant,
}

type Clock = Box<dyn Fn() -> SystemTime + Send>;

impl<K: Tier + 'static> Keeper<K> {
    /// A keeper that has brought what was read from `sources` into force.
    ///
    /// # Errors
    /// Where the kernel tier could not take it.
    pub fn start(sources: Sources, loaded: Loaded, kernel: Option<K>) -> Result<Self, K::Error> {
        let mut denylist = Denylist::new(kernel);
        denylist.apply(&loaded.list)?;
        drop(loaded.list);
        give_back();
        let mut keeper = Self {
            sources,
            denylist,
            additions: loaded.additions,
            claims: loaded.of_files,
            claims_in_force: ClaimsReader::default(),
            hashed: loaded.hashed,
            hashed_owed: false,
            missed: None,
            owed: HashSet::new(),
            files: loaded.files,
            read: SystemTime::now(),
            refused: None,
            clock: Box::new(SystemTime::now),
            latest: loaded.now,
            tried: Instant::now(),
        };
        keeper.read_claims();
        Ok(keeper)
    }

    /// The same by another clock than the system's.
    #[must_use]
    pub fn with_clock(self, clock: impl Fn() -> SystemTime + Send + 'static) -> Self {
        let clock = Box::new(clock);
        Self { clock, ..self }
    }

    /// Has the proxy read JWTs for what files and additions say of them now.
    fn read_claims(&mut self) {
        if self.claims.is_empty()
            && self.additions.memory.claims().next().is_none()
            && self.claims_in_force.current().is_none()
        {
            return;
        }
        let all = self
            .claims
            .iter()
            .copied()
            .chain(self.additions.memory.claims());
        let set = ClaimSet::new(self.sources.key.get(), all);
        self.claims_in_force.store(set);
    }

    /// For the proxy to read.
    #[must_use]
    pub fn reader(&self) -> SetReader {
        let reader = self.denylist.reader();
        reader.with_claims(self.claims_in_force.clone())
    }

    /// Follows the sources, the clock and what is asked for.
    ///
    /// # Errors
    /// Never returns but where the thread that changes the tiers panicked.
    pub async fn keep(
        mut self,
        mut watch: Watch,
        mut requests: mpsc::Receiver<Request>,
    ) -> Result<Infallible, JoinError> {
        loop {
            let change = {
                // Not dropped on a tick of the clock: it may be about to report.
                let mut changed = pin!(watch.changed());
                loop {
                    tokio::select! {
                        change = &mut changed => break change,
                        Some(request) = requests.recv() => {
                            self = self.aside(move |keeper| keeper.serve(request)).await?;
                        }
                        () = sleep(self.next_tick()) => self = self.aside(Self::look_at_clock).await?,
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
        spawn_wiped(move || {
            work(&mut self);
            self
        })
        .await
    }

    fn next_tick(&self) -> Duration {
        let until = |at: SystemTime| {
            at.duration_since(SystemTime::now())
                .unwrap_or(Duration::ZERO)
        };
        let expiries = [
            self.denylist.next_expiry(),
            self.additions.memory.next_expiry(),
        ];
        let expiries = expiries.into_iter().flatten();
        expiries.map(until).fold(CLOCK, Duration::min)
    }

    /// Does what is due at this time, and tries again what a tier did not take, if that was a while ago.
    fn look_at_clock(&mut self) {
        if self.tried.elapsed() < RETRY {
            self.pass_time(false);
        } else {
            self.tick();
        }
    }

    /// Does what is due at this time; [`Keeper::keep`] does so by itself.
    pub fn tick(&mut self) {
        self.tried = Instant::now();
        self.pass_time(true);
    }

    fn pass_time(&mut self, retry: bool) {
        let now = (self.clock)();
        if seconds(now) < seconds(self.latest) {
            self.set_back(now);
        }
        self.latest = now;
        let Expired {
            digests: mut changed,
            hashed,
        } = self.additions.expire(now);
        let of_additions = changed.len() + hashed;
        if retry {
            changed.extend(self.owed.drain());
        }
        // An error is told where it happens, and what is owed then is owed again.
        let _told = self.settle(changed);
        if hashed > 0 || retry && self.hashed_owed {
            let _told = self.settle_hashed(None);
        }
        match self.denylist.expire(now) {
            Ok(of_files) if of_files + of_additions == 0 => {}
            Ok(of_files) => {
                tracing::info!(expired = of_files + of_additions, "entries expired");
            }
            Err(error) => tracing::error!(%error, "expired entries could not be removed"),
        }
        if let Some(change) = self.missed.filter(|_| retry) {
            self.reload(change);
        }
        self.additions.look();
        self.additions.memory.tidy();
    }

    /// Brings back what had left by a later time than it is now.
    fn set_back(&mut self, now: SystemTime) {
        let by = self.latest.duration_since(now).unwrap_or_default();
        tracing::warn!(
            seconds = by.as_secs(),
            "the clock was set back: what has left since that time is listed again"
        );
        if let Err(error) = self.additions.read_again(now) {
            tracing::error!(%error, "what was added can't be read again");
        }
        self.reload(Change::Settled);
    }

    /// Reads the sources again. While one of them is refused or unsettled nothing is removed: the list in force
    /// counts as one more source.
    pub fn reload(&mut self, change: Change) {
        giving_way(|| self.reload_now(change));
        give_back();
    }

    fn reload_now(&mut self, change: Change) {
        let mut gathered = self.sources.read_each(&ProgressBar::hidden());
        if change == Change::Settled {
            gathered.report();
            for error in &gathered.refused {
                tracing::error!("{error}; the list in force stays in force");
            }
            self.read = SystemTime::now();
            self.refused = gathered.refused.first().map(ToString::to_string);
            self.files = gathered.files;
        }
        if change == Change::Unsettled || !gathered.refused.is_empty() {
            let in_force = self.additions.memory.without(self.denylist.records());
            let kept = in_force.filter(|record| !self.owed.contains(&record.digest));
            gathered.records.tokens.extend(kept);
            gathered.records.hashed.extend(self.hashed.iter());
            gathered.records.claims.append(&mut self.claims);
        }
        self.claims = mem::take(&mut gathered.records.claims);
        // Before the entries are listed: a JWT that leads to none passes.
        self.read_claims();
        let (records, now) = (gathered.records, (self.clock)());
        self.hashed = HashedSet::merge(records.hashed, now);
        let list = merged(records.tokens, &self.hashed, &mut self.additions, now);
        match self.denylist.apply(&list) {
            Ok(changed) => {
                self.missed = None;
                self.owed.clear();
                self.hashed_owed = false;
                if changed.added + changed.removed > 0 {
                    let (added, removed, entries) =
                        (changed.added, changed.removed, self.denylist.len());
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

/// Since 1970: entries leave at a full second.
fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
