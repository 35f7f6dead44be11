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
    denylist::{Denylist, HashedSet, List, SetReader, Tier},
    key::StoredKey,
    sources::{Change, FileError, Reading, Records, Source, Summary, Watch, read},
};

/// A tier that could not take a change is tried again after this long.
const RETRY: Duration = Duration::from_secs(5);
/// Longest sleep before the wall clock is looked at again: it may be set while we sleep.
const CLOCK: Duration = Duration::from_secs(5);

/// The files that entries come from, and what their text is read with.
pub struct Sources {
    /// The files, and folders of files.
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

/// What all files together gave.
#[derive(Default)]
struct Gathered {
    records: Records,
    read: Vec<(Source, Summary)>,
    refused: Vec<FileError>,
}

impl Sources {
    /// Reads all files, for the start; warns of the lines that are left out.
    ///
    /// # Errors
    /// The first file that is refused. A folder without lists is none: nothing is in force that it could
    /// release.
    pub fn read(&self) -> Result<List, FileError> {
        let gathered = self.read_each();
        gathered.report();
        for error in gathered.refused {
            if !matches!(error, FileError::NoLists(_)) {
                return Err(error);
            }
            tracing::warn!("{error}");
        }
        Ok(merged(gathered.records))
    }

    fn read_each(&self) -> Gathered {
        let reading = Reading {
            key: self.key.get(),
            min_token_length: self.min_token_length,
        };
        let mut gathered = Gathered::default();
        for source in &self.files {
            let files = source.files().unwrap_or_else(|error| {
                gathered.refused.push(error);
                Vec::new()
            });
            for file in files {
                match read(&file, reading, &mut gathered.records) {
                    Ok(summary) => gathered.read.push((file, summary)),
                    Err(error) => gathered.refused.push(error),
                }
            }
        }
        gathered
    }
}

impl Gathered {
    /// Warns of what was left out.
    fn report(&self) {
        for (file, summary) in &self.read {
            report(file, summary);
        }
    }
}

fn merged(records: Records) -> List {
    let now = SystemTime::now();
    List::merge(records.tokens, now).with_hashed(HashedSet::merge(records.hashed, now))
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
    if summary.hashed > 0 {
        tracing::warn!(
            "{path}: {} entries are known by their SHA-256 alone: the proxy tier enforces them, the kernel tier \
             doesn't",
            summary.hashed
        );
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
        let mut gathered = self.sources.read_each();
        if change == Change::Settled {
            gathered.report();
            for error in &gathered.refused {
                tracing::error!("{error}; the list in force stays in force");
            }
        }
        if change == Change::Unsettled || !gathered.refused.is_empty() {
            gathered.records.tokens.extend(self.denylist.records());
            gathered.records.hashed.extend(self.denylist.hashed());
        }
        let list = merged(gathered.records);
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

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File, OpenOptions},
        io::Write as _,
        path::{Path, PathBuf},
        time::Instant,
    };

    use tempfile::TempDir;
    use tokenblock_ebpf::digest::InstallationKey;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::{
        denylist::{ProxySet, identify, model::Model},
        sources::Grammar,
    };

    const SECOND: Duration = Duration::from_secs(1);

    /// A keeper at work on files of a folder.
    struct Kept {
        folder: TempDir,
        key: InstallationKey,
        reader: SetReader,
        task: JoinHandle<Result<Infallible, JoinError>>,
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
                min_token_length: 8,
            };
            let list = sources.read().unwrap();
            let keeper = Keeper::<ProxySet>::start(sources, &list, None).unwrap();
            Self {
                key: *key.get(),
                reader: keeper.reader(),
                task: tokio::spawn(keeper.keep(watch)),
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
            min_token_length: 8,
        };
        let (kernel, list) = (Model::default(), sources.read().unwrap());
        let mut keeper = Keeper::start(sources, &list, Some(kernel.clone())).unwrap();
        assert_eq!(kernel.map().len(), 1);

        kernel.fail(true);
        fs::write(&path, "token-two\ntoken-three\n").unwrap();
        keeper.reload(Change::Settled);
        assert_eq!(keeper.next_tick(), RETRY.min(CLOCK));
        // The proxy has what it is to have; nothing was released.
        assert_eq!(keeper.denylist.records().len(), 3);

        kernel.fail(false);
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
