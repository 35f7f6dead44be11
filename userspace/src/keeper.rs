//! Keeps the denylist in force what its sources say: `sources -> denylist -> tiers`.

mod requests;

use std::{
    collections::HashSet,
    convert::Infallible,
    mem,
    path::PathBuf,
    pin::pin,
    time::{Duration, Instant, SystemTime},
};

use indicatif::ProgressBar;
use rustix::{process::setpriority_process, thread::gettid};
use tokio::{sync::mpsc, task::JoinError, time::sleep};

pub use self::requests::{
    ChangeError, Checked, FileStatus, Imported, ListStatus, Mode, Removed, Request, Target,
};

use crate::{
    denylist::{
        ClaimSet, Claims, ClaimsReader, Denylist, HashedSet, List, Record, SetReader, Tier,
        TokenDigest,
    },
    key::StoredKey,
    progress,
    sources::{Change, FileError, MinLength, Reading, Records, Source, Summary, Watch, read},
    state::{Additions, Expired},
    wiping::{give_back, spawn_wiped},
};

/// A tier that could not take a change is tried again after this long.
const RETRY: Duration = Duration::from_secs(5);
/// Longest sleep before the wall clock is looked at again: it may be set while we sleep.
const CLOCK: Duration = Duration::from_secs(1);

/// The files that entries come from, and what their text is read with.
pub struct Sources {
    /// The files, and folders of files.
    pub files: Vec<Source>,
    /// For the digests.
    pub key: StoredKey,
    /// Entries shorter than this many bytes are skipped.
    pub min_token_length: MinLength,
    /// How long after its `exp` a JWT leaves by itself, where it does.
    pub jwt_expiry: Option<Duration>,
}

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

/// The sources as they were read at start.
pub struct Loaded {
    /// What is to be in force.
    pub list: List,
    /// How many of them name claims of JWTs, which the proxy tier alone can read.
    pub claims: usize,
    of_files: Vec<Claims>,
    hashed: HashedSet,
    additions: Additions,
    files: Vec<FileStatus>,
    now: SystemTime,
}

/// What all files together gave.
#[derive(Default)]
struct Gathered {
    records: Records,
    read: Vec<(Source, Summary)>,
    /// Those that were read, and sources that could not be.
    files: Vec<FileStatus>,
    refused: Vec<FileError>,
}

impl Sources {
    /// Reads all files, to be in force with the additions from `now` on; warns of the lines that are left out.
    ///
    /// # Errors
    /// The first file that is refused. A folder without lists is none: nothing is in force that it could
    /// release.
    pub fn read(&self, mut additions: Additions, now: SystemTime) -> Result<Loaded, FileError> {
        let bar = progress::of_bytes(self.bytes());
        let gathered = self.read_each(&bar);
        bar.finish_and_clear();
        gathered.report();
        for error in gathered.refused {
            if !matches!(error, FileError::NoLists(_)) {
                return Err(error);
            }
            tracing::warn!("{error}");
        }
        let mut records = gathered.records;
        let of_files = mem::take(&mut records.claims);
        let hashed = HashedSet::merge(mem::take(&mut records.hashed), now);
        Ok(Loaded {
            list: merged(records.tokens, &hashed, &mut additions, now),
            claims: of_files.len() + additions.memory.claims().count(),
            of_files,
            hashed,
            additions,
            files: gathered.files,
            now,
        })
    }

    /// How long the files are, as far as that can be told.
    fn bytes(&self) -> u64 {
        let sources = self.files.iter();
        let files = sources.flat_map(|source| source.files().unwrap_or_default());
        let sizes = files.filter_map(|file| file.path.metadata().ok());
        sizes.map(|metadata| metadata.len()).sum()
    }

    fn read_each(&self, bar: &ProgressBar) -> Gathered {
        let reading = Reading {
            key: self.key.get(),
            min_token_length: self.min_token_length.get(),
            jwt_expiry: self.jwt_expiry,
        };
        let mut gathered = Gathered::default();
        for source in &self.files {
            match source.files() {
                Ok(files) => files
                    .into_iter()
                    .for_each(|file| gathered.read(file, reading, bar)),
                Err(error) => gathered.refuse(source.path.clone(), error),
            }
        }
        gathered
    }
}

impl Gathered {
    fn read(&mut self, file: Source, reading: Reading<'_>, bar: &ProgressBar) {
        match read(&file, reading, &mut self.records, bar) {
            Ok(summary) => {
                self.files.push(FileStatus {
                    path: file.path.clone(),
                    entries: Some(summary.entries),
                });
                self.read.push((file, summary));
            }
            Err(error) => self.refuse(file.path, error),
        }
    }

    fn refuse(&mut self, path: PathBuf, error: FileError) {
        let entries = None;
        self.files.push(FileStatus { path, entries });
        self.refused.push(error);
    }

    /// Warns of what was left out.
    fn report(&self) {
        for (file, summary) in &self.read {
            report(file, summary);
        }
    }
}

/// What files and additions hold.
fn merged(
    tokens: Vec<Record>,
    hashed: &HashedSet,
    additions: &mut Additions,
    now: SystemTime,
) -> List {
    let hashed = hashed.joined(additions.memory.hashed(), now);
    List::merge(additions.memory.merged(tokens), now).with_hashed(hashed)
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
    if summary.claims > 0 {
        tracing::warn!(
            "{path}: {} entries name claims of JWTs: the proxy tier enforces them, the kernel tier doesn't",
            summary.claims
        );
    }
    if summary.entries == 0 {
        tracing::warn!("{path}: the list is empty");
    }
}

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

/// Runs what keeps all processors busy on threads that give way to those that serve requests.
fn giving_way<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    /// As nice(1) counts.
    const NICE: i32 = 10;
    let pool = rayon::ThreadPoolBuilder::new()
        .start_handler(|_| {
            // Where that is refused it runs as others do.
            let _refused = setpriority_process(Some(gettid()), NICE);
        })
        .build();
    match pool {
        Ok(pool) => pool.install(work),
        Err(_no_threads) => work(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File, OpenOptions},
        io::Write as _,
        path::{Path, PathBuf},
    };

    use tempfile::TempDir;
    use tokenblock_ebpf::digest::InstallationKey;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::{
        denylist::{identify, model::Model},
        sources::Grammar,
        state::Store,
    };

    const SECOND: Duration = Duration::from_secs(1);

    /// A keeper at work on files of a folder.
    struct Kept {
        folder: TempDir,
        key: InstallationKey,
        reader: SetReader,
        task: JoinHandle<Result<Infallible, JoinError>>,
        _requests: mpsc::Sender<Request>,
    }

    fn additions(folder: &Path) -> Additions {
        let key = StoredKey::load_or_create(folder).unwrap();
        let store = Store::open(folder, key.get()).unwrap();
        Additions::open(store, SystemTime::now()).unwrap()
    }

    impl Drop for Kept {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    impl Kept {
        /// `given` are the sources, `files` what is written before.
        fn new(given: &[&str], files: &[(&str, &str)]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let key = StoredKey::load_or_create(folder.path()).unwrap();
            let path = |name: &str| folder.path().join(name);
            for (name, text) in files {
                fs::create_dir_all(path(name).parent().unwrap()).unwrap();
                fs::write(path(name), text).unwrap();
            }
            let paths: Vec<PathBuf> = given.iter().map(|name| path(name)).collect();
            let watch = Watch::new(paths.clone());
            let grammar = Grammar::Entries;
            let sources = Sources {
                files: paths
                    .into_iter()
                    .map(|path| Source { path, grammar })
                    .collect(),
                key: StoredKey::load_or_create(folder.path()).unwrap(),
                min_token_length: 8.into(),
                jwt_expiry: None,
            };
            let loaded = sources
                .read(additions(folder.path()), SystemTime::now())
                .unwrap();
            let keeper = Keeper::<Model>::start(sources, loaded, None).unwrap();
            let (requests, requested) = mpsc::channel(1);
            Self {
                key: *key.get(),
                reader: keeper.reader(),
                task: tokio::spawn(keeper.keep(watch, requested)),
                _requests: requests,
                folder,
            }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.path(name), text).unwrap();
        }

        fn is_listed(&self, token: &str) -> bool {
            let identity = identify(&self.key, 8, token).unwrap();
            self.reader.get(&identity.digest).is_some()
        }

        async fn becomes(&self, token: &str, listed: bool) {
            let start = Instant::now();
            while self.is_listed(token) != listed {
                assert!(
                    start.elapsed() < SECOND,
                    "{token}: {} for a second",
                    !listed
                );
                sleep(Duration::from_millis(5)).await;
            }
        }

        /// Time in which anything that happened to files would have been seen.
        async fn settles(&self) {
            sleep(Duration::from_millis(300)).await;
        }
    }

    fn replace(path: &Path, text: &str) {
        let new = path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, path).unwrap();
    }

    #[tokio::test]
    async fn a_rewritten_and_a_replaced_file_are_in_force_within_a_second() {
        let kept = Kept::new(&["list"], &[("list", "token-one\ntoken-two\n")]);
        assert!(kept.is_listed("token-one") && kept.is_listed("token-two"));
        kept.write("list", "token-two\ntoken-three\n");
        kept.becomes("token-one", false).await;
        assert!(kept.is_listed("token-two") && kept.is_listed("token-three"));
        replace(&kept.path("list"), "token-four\n");
        kept.becomes("token-two", false).await;
        assert!(kept.is_listed("token-four"));
    }

    #[tokio::test]
    async fn a_broken_or_missing_file_unblocks_nothing_and_holds_up_no_addition() {
        let kept = Kept::new(&["a", "b"], &[("a", "token-one\n"), ("b", "token-two\n")]);
        kept.write("a", "token-new\ntoken-one oops\n");
        kept.settles().await;
        assert!(kept.is_listed("token-one") && !kept.is_listed("token-new"));

        kept.write("b", "token-three\n");
        kept.becomes("token-three", true).await;
        assert!(kept.is_listed("token-one") && kept.is_listed("token-two"));

        fs::remove_file(kept.path("a")).unwrap();
        kept.settles().await;
        assert!(kept.is_listed("token-one"));

        kept.write("a", "token-new\n");
        kept.becomes("token-one", false).await;
        assert!(
            !kept.is_listed("token-two")
                && kept.is_listed("token-three")
                && kept.is_listed("token-new")
        );
    }

    #[tokio::test]
    async fn the_lists_of_a_folder_come_and_go_and_a_folder_that_is_gone_unblocks_nothing() {
        let kept = Kept::new(&["lists"], &[("lists/a.list", "token-one\n")]);
        kept.write("lists/b.list", "token-two\n");
        kept.becomes("token-two", true).await;
        kept.write("lists/other", "token-three\n");

        fs::remove_file(kept.path("lists/a.list")).unwrap();
        kept.becomes("token-one", false).await;
        assert!(kept.is_listed("token-two") && !kept.is_listed("token-three"));

        // As where a volume is no longer mounted.
        fs::remove_file(kept.path("lists/b.list")).unwrap();
        kept.settles().await;
        assert!(kept.is_listed("token-two"));
        fs::remove_dir_all(kept.path("lists")).unwrap();
        kept.settles().await;
        assert!(kept.is_listed("token-two"));
    }

    #[tokio::test]
    async fn a_file_whose_place_a_folder_takes_and_the_way_back_are_in_force_within_a_second() {
        let kept = Kept::new(&["list"], &[("list", "token-one\ntoken-two\n")]);
        fs::remove_file(kept.path("list")).unwrap();
        fs::create_dir(kept.path("list")).unwrap();
        kept.write("list/a.list", "token-two\ntoken-three\n");
        kept.becomes("token-three", true).await;
        kept.becomes("token-one", false).await;
        assert!(kept.is_listed("token-two"));
        // It is watched as any folder is.
        kept.write("list/b.list", "token-four\n");
        kept.becomes("token-four", true).await;
        fs::remove_file(kept.path("list/a.list")).unwrap();
        kept.becomes("token-two", false).await;

        fs::remove_dir_all(kept.path("list")).unwrap();
        kept.settles().await;
        assert!(kept.is_listed("token-four"));
        kept.write("list", "token-five\n");
        kept.becomes("token-five", true).await;
        kept.becomes("token-four", false).await;
        kept.write("list", "token-six\n");
        kept.becomes("token-five", false).await;

        // By renames, as one move: there is a list all the time.
        fs::create_dir(kept.path("other")).unwrap();
        kept.write("other/c.list", "token-seven\n");
        fs::rename(kept.path("list"), kept.path("gone")).unwrap();
        fs::rename(kept.path("other"), kept.path("list")).unwrap();
        kept.becomes("token-six", false).await;
        assert!(kept.is_listed("token-seven"));
        kept.write("list/c.list", "token-eight\n");
        kept.becomes("token-seven", false).await;
    }

    #[tokio::test]
    async fn a_half_written_file_unblocks_nothing_until_it_is_closed() {
        let kept = Kept::new(&["list"], &[("list", "token-one\ntoken-two\n")]);
        let mut file = File::create(kept.path("list")).unwrap();
        kept.settles().await;
        assert!(kept.is_listed("token-one") && kept.is_listed("token-two"));
        file.write_all(b"token-three\ntoken-half").unwrap();
        kept.becomes("token-three", true).await;
        assert!(kept.is_listed("token-one"));
        file.write_all(b"-one\ntoken-one\n").unwrap();
        drop(file);
        kept.becomes("token-two", false).await;
        assert!(kept.is_listed("token-one") && kept.is_listed("token-three"));
        assert!(!kept.is_listed("token-half") && kept.is_listed("token-half-one"));
    }

    #[tokio::test]
    async fn appended_lines_are_in_force_while_the_file_stays_open() {
        let kept = Kept::new(&["list"], &[("list", "token-one\n")]);
        let mut file = OpenOptions::new()
            .append(true)
            .open(kept.path("list"))
            .unwrap();
        for token in ["token-two", "token-three"] {
            writeln!(file, "{token}").unwrap();
            kept.becomes(token, true).await;
        }
    }

    #[test]
    fn what_the_kernel_tier_did_not_take_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        fs::write(&path, "token-one\n").unwrap();
        let sources = Sources {
            files: vec![Source {
                path: path.clone(),
                grammar: Grammar::Entries,
            }],
            key: StoredKey::load_or_create(folder.path()).unwrap(),
            min_token_length: 8.into(),
            jwt_expiry: None,
        };
        let loaded = sources
            .read(additions(folder.path()), SystemTime::now())
            .unwrap();
        let kernel = Model::default();
        let mut keeper = Keeper::start(sources, loaded, Some(kernel.clone())).unwrap();
        assert_eq!(kernel.map().len(), 1);

        kernel.fail(true);
        fs::write(&path, "token-two\ntoken-three\n").unwrap();
        keeper.reload(Change::Settled);
        assert!(keeper.missed.is_some());
        // The proxy has what it is to have; nothing was released.
        assert_eq!(keeper.denylist.records().len(), 3);

        kernel.fail(false);
        // Not each second: that would be much for a long list.
        keeper.tried = Instant::now();
        keeper.look_at_clock();
        assert_eq!(keeper.denylist.records().len(), 3);
        keeper.tick();
        let in_force = keeper.denylist.records();
        assert_eq!(in_force.len(), 2);
        assert!(
            kernel
                .map()
                .into_keys()
                .eq(in_force.iter().map(|record| record.digest))
        );
    }

    #[tokio::test]
    async fn an_entry_leaves_at_its_second() {
        let expires = SystemTime::now() + Duration::from_millis(1_200);
        let text = jiff::Timestamp::try_from(expires).unwrap().to_string();
        let kept = Kept::new(
            &["list"],
            &[("list", &format!("token-one expires={text}\ntoken-two\n"))],
        );
        while SystemTime::now() < expires {
            assert!(kept.is_listed("token-one"));
            sleep(Duration::from_millis(20)).await;
        }
        // The next full second, and a little.
        sleep(Duration::from_millis(1_100)).await;
        assert!(!kept.is_listed("token-one") && kept.is_listed("token-two"));
    }
}
