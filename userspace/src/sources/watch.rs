//! Says when denylist files may have changed.
//!
//! The folders are watched, not the files: that sees atomic renames, files that are deleted and made again,
//! and the symbolic links that Kubernetes swaps (each link on the way is watched in its folder). A slow poll
//! of the files' metadata sees what inotify can't (network and overlay file systems).

use std::{
    collections::{HashMap, HashSet},
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use tokio::{
    io::unix::AsyncFd,
    time::{Instant, Interval, MissedTickBehavior, interval_at, timeout_at},
};

use super::folder::{is_list, lists};

/// A change is reported when nothing more has happened for this long ...
const QUIET: Duration = Duration::from_millis(50);
/// ... and at the latest after this.
const LATEST: Duration = Duration::from_millis(500);
/// Between two looks at the metadata, with inotify and without.
const POLL: Duration = Duration::from_secs(5);
const POLL_ALONE: Duration = Duration::from_millis(500);
/// As many as the kernel follows.
const MAX_LINKS: usize = 40;

/// What a change allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A file may still be half-written: what it holds counts, what it lacks doesn't.
    Unsettled,
    /// The files are as their writers left them.
    Settled,
}

/// Watches a set of files, and of folders with lists in them.
#[derive(Debug)]
pub struct Watch {
    given: Vec<PathBuf>,
    inotify: Option<AsyncFd<Inotify>>,
    folders: HashMap<WatchDescriptor, Folder>,
    /// Files that were written to and not closed since.
    writing: HashSet<PathBuf>,
    prints: Vec<(PathBuf, Option<Fingerprint>)>,
    /// Whether the last report was [`Change::Unsettled`].
    unsettled: bool,
    poll: Interval,
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    names: HashSet<OsString>,
    /// Whether all lists in it count, those too that are yet to come.
    of_lists: bool,
}

/// What a look found.
struct Seen {
    /// A file is another than it was.
    changed: bool,
    /// A folder is watched that was not.
    wider: bool,
}

/// Tells versions of a file apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Watch {
    /// Starts watching; changes from now on are reported. To be called in a tokio runtime.
    ///
    /// Where inotify can't be had (its limits are reached) the files are polled twice a second.
    #[must_use]
    pub fn new(given: Vec<PathBuf>) -> Self {
        let inotify = Inotify::init().and_then(|inotify| {
            // SAFETY: it owns its descriptor, and gives that one and no other for as long as it lives.
            unsafe { AsyncFd::register(inotify) }.map_err(io::Error::from)
        });
        if let Err(error) = &inotify {
            tracing::warn!(%error, "no inotify: denylist files are polled");
        }
        let period = if inotify.is_ok() { POLL } else { POLL_ALONE };
        let mut poll = interval_at(Instant::now() + period, period);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watch = Self {
            given,
            inotify: inotify.ok(),
            folders: HashMap::new(),
            writing: HashSet::new(),
            prints: Vec::new(),
            unsettled: false,
            poll,
        };
        watch.look();
        watch
    }

    /// Waits for the next change. Dropping the future may lose one: give it a task of its own.
    pub async fn changed(&mut self) -> Change {
        loop {
            tokio::select! {
                relevant = events(self.inotify.as_mut(), &mut self.folders, &mut self.writing) => {
                    if relevant {
                        self.settle().await;
                        if self.look().wider {
                            // Who writes into a folder that wasn't watched until now is noticed from here on.
                            self.settle().await;
                            self.look();
                        }
                        return self.report(!self.writing.is_empty());
                    }
                }
                _ = self.poll.tick() => {
                    if self.look().changed {
                        return self.report(true);
                    }
                    if self.unsettled {
                        // Nobody wrote for a whole interval.
                        self.writing.clear();
                        return self.report(false);
                    }
                }
            }
        }
    }

    /// Takes what follows closely.
    async fn settle(&mut self) {
        let latest = Instant::now() + LATEST;
        loop {
            let until = latest.min(Instant::now() + QUIET);
            let more = events(self.inotify.as_mut(), &mut self.folders, &mut self.writing);
            if timeout_at(until, more).await.is_err() {
                return;
            }
        }
    }

    fn report(&mut self, unsettled: bool) -> Change {
        self.unsettled = unsettled;
        if unsettled {
            Change::Unsettled
        } else {
            Change::Settled
        }
    }

    /// Follows the links anew, and says what is otherwise than at the last look.
    fn look(&mut self) -> Seen {
        let files = self.files();
        let wider = self.follow(&files);
        let prints = files
            .into_iter()
            .map(|file| {
                let print = Fingerprint::of(&file);
                (file, print)
            })
            .collect();
        let changed = self.prints != prints;
        self.prints = prints;
        Seen { changed, wider }
    }

    /// The files that there are now.
    fn files(&self) -> Vec<PathBuf> {
        let lists = |path: &PathBuf| match lists(path) {
            Ok(Some(lists)) => lists,
            // Who reads it says what is wrong with it.
            Ok(None) | Err(_) => vec![path.clone()],
        };
        self.given.iter().flat_map(lists).collect()
    }

    /// Watches the folders that hold the files and the links on the way to them, and no others; says whether one of them
    /// was not watched before.
    fn follow(&mut self, files: &[PathBuf]) -> bool {
        let Some(inotify) = &self.inotify else {
            return false;
        };
        let mut watches = inotify.get_ref().watches();
        let mut folders = HashMap::<WatchDescriptor, Folder>::new();
        let named = self.given.iter().chain(files).flat_map(|file| steps(file));
        let of_lists = self.given.iter().filter(|path| path.is_dir());
        let to_watch = named
            .map(|(path, name)| (path, Some(name)))
            .chain(of_lists.map(|path| (path.clone(), None)));
        for (path, name) in to_watch {
            // A folder that isn't there is found by the poll when it comes.
            let Ok(descriptor) = watches.add(&path, mask()) else {
                continue;
            };
            let folder = folders.entry(descriptor).or_insert(Folder {
                path,
                names: HashSet::new(),
                of_lists: false,
            });
            match name {
                Some(name) => drop(folder.names.replace(name)),
                None => folder.of_lists = true,
            }
        }
        let before = std::mem::take(&mut self.folders);
        for descriptor in before.keys() {
            if !folders.contains_key(descriptor) {
                // It may be gone with its folder.
                drop(watches.remove(descriptor.clone()));
            }
        }
        let wider = folders.keys().any(|folder| !before.contains_key(folder));
        self.folders = folders;
        wider
    }
}

fn mask() -> WatchMask {
    WatchMask::MODIFY
        | WatchMask::CLOSE_WRITE
        | WatchMask::ATTRIB
        | WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::MOVE
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::ONLYDIR
}

/// Waits for events; true where one concerns a watched file. Loses nothing when dropped.
async fn events(
    inotify: Option<&mut AsyncFd<Inotify>>,
    folders: &mut HashMap<WatchDescriptor, Folder>,
    writing: &mut HashSet<PathBuf>,
) -> bool {
    let Some(inotify) = inotify else {
        return std::future::pending().await;
    };
    let Ok(mut ready) = inotify.readable_mut().await else {
        return std::future::pending().await;
    };
    let mut buffer = [0; 4096];
    let read = ready.try_io(|inotify| match inotify.get_mut().read_events(&mut buffer) {
        Ok(events) => Ok(events
            .map(|e| (e.wd, e.mask, e.name.map(OsStr::to_owned)))
            .collect::<Vec<_>>()),
        Err(error) => Err(error),
    });
    let Ok(Ok(events)) = read else { return false };
    let mut relevant = false;
    for (descriptor, mask, name) in events {
        relevant |= mask.contains(EventMask::Q_OVERFLOW);
        if let Some(folder) = folders.get(&descriptor) {
            relevant |= folder.note(mask, name.as_deref(), writing);
        }
    }
    relevant
}

impl Folder {
    /// Whether the event concerns a watched name, and whether a writer has that file open.
    fn note(&self, mask: EventMask, name: Option<&OsStr>, writing: &mut HashSet<PathBuf>) -> bool {
        let Some(name) = name else { return true };
        let is_watched = self.names.contains(name) || (self.of_lists && is_list(name));
        if !is_watched {
            return false;
        }
        let path = self.path.join(name);
        // Who makes a file opens it, unless it is a link or a folder.
        let opened = mask.contains(EventMask::CREATE)
            && !mask.contains(EventMask::ISDIR)
            && !path.is_symlink();
        if opened || mask.contains(EventMask::MODIFY) {
            writing.insert(path);
        } else if !mask.contains(EventMask::ATTRIB) {
            writing.remove(&path);
        }
        true
    }
}

impl Fingerprint {
    fn of(file: &Path) -> Option<Self> {
        let metadata = fs::metadata(file).ok()?;
        Some(Self {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// Each symbolic link on the way to `file` and what the last of them leads to, as folder and name.
fn steps(file: &Path) -> Vec<(PathBuf, OsString)> {
    let absolute = std::path::absolute(file).unwrap_or_else(|_: io::Error| file.to_owned());
    let mut ahead = reversed(&absolute);
    let (mut at, mut steps) = (PathBuf::from("/"), Vec::new());
    while let Some(part) = ahead.pop() {
        match Path::new(&part).components().next() {
            Some(Component::RootDir) => at = PathBuf::from("/"),
            Some(Component::ParentDir) => drop(at.pop()),
            Some(Component::Normal(name)) => {
                let here = at.join(name);
                match fs::read_link(&here) {
                    Ok(target) if steps.len() < MAX_LINKS => {
                        steps.push((at.clone(), part));
                        ahead.extend(reversed(&target));
                    }
                    _ => {
                        if ahead.is_empty() {
                            steps.push((at.clone(), part));
                        }
                        at = here;
                    }
                }
            }
            Some(Component::CurDir | Component::Prefix(_)) | None => {}
        }
    }
    steps
}

fn reversed(path: &Path) -> Vec<OsString> {
    let parts = path.components().map(|part| part.as_os_str().to_owned());
    parts.rev().collect()
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _, os::unix::fs::symlink};

    use tempfile::TempDir;
    use tokio::time::timeout;

    use super::*;

    /// Less than it takes until a watch with inotify looks by itself.
    const PATIENCE: Duration = Duration::from_secs(4);
    /// Time in which anything that happened would have been reported.
    const SETTLED: Duration = Duration::from_millis(300);

    /// A folder with a file `list`, watched.
    fn watched() -> (TempDir, PathBuf, Watch) {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list");
        fs::write(&list, "first").unwrap();
        let watch = Watch::new(vec![list.clone()]);
        (folder, list, watch)
    }

    async fn reported(watch: &mut Watch) -> Option<Change> {
        timeout(PATIENCE, watch.changed()).await.ok()
    }

    /// A writer that is interrupted half-way is reported twice.
    async fn settled(watch: &mut Watch) -> bool {
        match reported(watch).await {
            Some(Change::Unsettled) => reported(watch).await == Some(Change::Settled),
            other => other == Some(Change::Settled),
        }
    }

    #[tokio::test]
    async fn rewriting_renaming_and_removing_are_settled_changes() {
        let (folder, list, mut watch) = watched();
        fs::write(&list, "second").unwrap();
        assert!(settled(&mut watch).await);

        let other = folder.path().join("other");
        fs::write(&other, "third").unwrap();
        fs::rename(&other, &list).unwrap();
        assert!(settled(&mut watch).await);

        fs::remove_file(&list).unwrap();
        assert!(settled(&mut watch).await);
        fs::write(&list, "fourth").unwrap();
        assert!(settled(&mut watch).await);
    }

    #[tokio::test]
    async fn a_file_that_is_held_open_is_unsettled_until_it_is_closed() {
        let (_folder, list, mut watch) = watched();
        let mut file = File::create(&list).unwrap();
        file.write_all(b"half").unwrap();
        assert_eq!(reported(&mut watch).await, Some(Change::Unsettled));
        file.write_all(b" and half").unwrap();
        assert_eq!(reported(&mut watch).await, Some(Change::Unsettled));
        drop(file);
        assert_eq!(reported(&mut watch).await, Some(Change::Settled));
    }

    #[tokio::test]
    async fn other_files_of_the_folder_are_not_reported() {
        let (folder, _list, mut watch) = watched();
        fs::write(folder.path().join("other"), "x").unwrap();
        let nothing = timeout(SETTLED, watch.changed()).await;
        assert!(nothing.is_err(), "{nothing:?}");
    }

    #[tokio::test]
    async fn without_inotify_the_poll_sees_changes_and_waits_for_rest() {
        let (_folder, list, mut watch) = watched();
        watch.inotify = None;
        watch.poll = tokio::time::interval(Duration::from_millis(100));
        fs::write(&list, "another").unwrap();
        assert_eq!(reported(&mut watch).await, Some(Change::Unsettled));
        assert_eq!(reported(&mut watch).await, Some(Change::Settled));
        let nothing = timeout(SETTLED, watch.changed()).await;
        assert!(nothing.is_err(), "{nothing:?}");
    }

    #[tokio::test]
    async fn lists_that_come_to_a_folder_change_and_go_are_reported_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Watch::new(vec![folder.path().to_owned()]);
        let list = folder.path().join("one.list");
        fs::write(&list, "first").unwrap();
        assert!(settled(&mut watch).await);
        fs::write(&list, "second").unwrap();
        assert!(settled(&mut watch).await);

        fs::write(folder.path().join("notes.txt"), "x").unwrap();
        let nothing = timeout(SETTLED, watch.changed()).await;
        assert!(nothing.is_err(), "{nothing:?}");

        fs::rename(
            folder.path().join("notes.txt"),
            folder.path().join("two.list"),
        )
        .unwrap();
        assert!(settled(&mut watch).await);
        fs::remove_file(&list).unwrap();
        assert!(settled(&mut watch).await);
    }

    #[tokio::test]
    async fn the_poll_sees_lists_come_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Watch::new(vec![folder.path().to_owned()]);
        watch.inotify = None;
        watch.poll = tokio::time::interval(Duration::from_millis(100));
        let list = folder.path().join("one.list");
        fs::write(&list, "first").unwrap();
        assert!(settled(&mut watch).await);
        fs::remove_file(&list).unwrap();
        assert!(settled(&mut watch).await);
    }

    /// As the kubelet does it: `list -> ..data/list`, `..data -> ..1`, and `..data` is swapped.
    #[tokio::test]
    async fn the_swap_of_a_link_on_the_way_is_reported_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let version = |name: &str| {
            fs::create_dir(path(name)).unwrap();
            fs::write(path(name).join("list"), name).unwrap();
            symlink(name, path("..tmp")).unwrap();
            fs::rename(path("..tmp"), path("..data")).unwrap();
        };
        version("..1");
        symlink("..data/list", path("list")).unwrap();
        let names: Vec<_> = steps(&path("list"))
            .into_iter()
            .map(|(_, name)| name)
            .collect();
        assert_eq!(names, ["list", "..data", "list"]);

        let mut watch = Watch::new(vec![path("list")]);
        for name in ["..2", "..3"] {
            version(name);
            assert!(settled(&mut watch).await, "{name}");
        }
        // And the file that the links lead to now.
        fs::write(path("..3").join("list"), "again").unwrap();
        assert!(settled(&mut watch).await);
    }

    #[test]
    fn links_in_a_circle_end() {
        let folder = tempfile::tempdir().unwrap();
        symlink("b", folder.path().join("a")).unwrap();
        symlink("a", folder.path().join("b")).unwrap();
        assert!(steps(&folder.path().join("a")).len() <= MAX_LINKS + 1);
    }
}
