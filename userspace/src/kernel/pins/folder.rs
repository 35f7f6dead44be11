//! The folder of `--pin-dir`: whose it is, and what stands in it.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use aya::programs::links::PinnedLink;
use rustix::fs::statfs;
use tracing::info;

use super::{
    error::PinDirError,
    name::{Name, StateId},
};
use crate::{counters::Counted, kernel::object::Variant};

/// `BPF_FS_MAGIC`, linux/magic.h.
const BPF_FS: u32 = 0xcafe_4a11;
/// The network namespace of this thread: interfaces are numbered within it.
const NETNS: &str = "/proc/thread-self/ns/net";
/// Begins the names of the folders of one network namespace each, ...
const OF_NETNS: &str = "net-";
/// ... and those of the pins of `--intercept-fail closed`, which may be beside them.
const OF_INTERCEPT: &str = "intercept-";
/// Nobody else is to open a pin.
const MODE: u32 = 0o700;

/// The folder, held by this process alone until it is dropped.
#[derive(Debug)]
pub(in crate::kernel) struct PinFolder {
    root: PathBuf,
    /// What is of this network namespace.
    here: PathBuf,
    _lock: File,
    pub(super) counts: Counts,
}

/// What was done with pins.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) replaced: AtomicU64,
    pub(super) attached: AtomicU64,
    pub(super) removed: AtomicU64,
    pub(super) flows: AtomicU64,
}

impl Counts {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    /// Replaced, attached, removed, and connections taken over.
    fn read(&self) -> [u64; 4] {
        [&self.replaced, &self.attached, &self.removed, &self.flows]
            .map(|count| count.load(Relaxed))
    }
}

impl PinFolder {
    /// Takes the folder; makes it where there is none.
    ///
    /// # Errors
    /// [`PinDirError`]; nothing has changed then.
    pub(in crate::kernel) fn open(root: &Path) -> Result<Self, PinDirError> {
        if !is_on_bpf(root)? {
            return Err(PinDirError::NotBpf(root.to_owned()));
        }
        make(root)?;
        let lock = lock(root)?;
        let netns = fs::metadata(NETNS).map_err(PinDirError::io("look at", NETNS))?;
        let folder = Self {
            root: root.to_owned(),
            here: root.join(format!("{OF_NETNS}{:x}", netns.ino())),
            _lock: lock,
            counts: Counts::default(),
        };
        for (name, path) in entries(root)? {
            if path == folder.here || name.starts_with(OF_INTERCEPT) {
                continue;
            }
            if !name.starts_with(OF_NETNS) {
                return Err(PinDirError::Foreign(path));
            }
            // Of no use to anybody where it is empty.
            if fs::remove_dir(&path).is_err() {
                return Err(PinDirError::OtherNetns {
                    found: path,
                    root: root.to_owned(),
                });
            }
        }
        make(&folder.here)?;
        folder.tidy()?;
        Ok(folder)
    }

    /// Takes away what starts have left that did not come to attach anything.
    fn tidy(&self) -> Result<(), PinDirError> {
        let names = self.names()?;
        let is_linked = |of: Variant, id: StateId| {
            let mut names = names.iter();
            names.any(|(name, _)| {
                matches!(name, Name::Link { set, state, .. } if (*set, *state) == (of, id))
            })
        };
        for (name, path) in &names {
            match name {
                Name::HalfMade(..) => remove_state(path)?,
                Name::State(set, id) if !is_linked(*set, *id) => remove_state(path)?,
                Name::State(..) | Name::Link { .. } => {}
            }
        }
        Ok(())
    }

    /// The folder as it was given.
    pub(in crate::kernel) fn root(&self) -> &Path {
        &self.root
    }

    /// What stands in it of this network namespace.
    ///
    /// # Errors
    /// [`PinDirError::Foreign`] where there is anything else.
    pub(super) fn names(&self) -> Result<Vec<(Name, PathBuf)>, PinDirError> {
        names(&self.here)
    }

    /// Where the pin of this name is, or is to be.
    pub(super) fn path(&self, name: Name) -> PathBuf {
        self.here.join(name.to_string())
    }

    /// Takes away all of these programs: they are detached once this returns, where nobody holds their links.
    ///
    /// # Errors
    /// [`PinDirError`] at the first that can't be taken away.
    pub(in crate::kernel) fn remove(&self, set: Variant) -> Result<(), PinDirError> {
        for (name, path) in self.names()? {
            if name.set() == set {
                self.remove_one(name, &path)?;
            }
        }
        Ok(())
    }

    pub(super) fn remove_one(&self, name: Name, path: &Path) -> Result<(), PinDirError> {
        match name {
            Name::Link { .. } => {
                remove_link(path)?;
                Counts::count(&self.counts.removed);
                Ok(())
            }
            Name::State(..) | Name::HalfMade(..) => remove_state(path),
        }
    }

    /// Logs what was taken over, and that it outlives this process.
    pub(in crate::kernel) fn say(&self) {
        let [replaced, attached, removed, flows_taken_over] = self.counts.read();
        info!(
            pin_dir = %self.root.display(),
            replaced,
            attached,
            removed,
            flows_taken_over,
            "the programs outlive this process"
        );
    }

    /// With names: how many links have got other programs, how many were made and taken away, and how many connections were
    /// taken over.
    pub(in crate::kernel) fn counted(&self) -> Counted {
        ["replaced", "attached", "removed", "flows_taken_over"]
            .map(str::to_owned)
            .into_iter()
            .zip(self.counts.read())
            .collect()
    }
}

/// Whether programs are kept in a folder, whoever has it.
pub(super) fn is_used(root: &Path) -> bool {
    let folders = entries(root).unwrap_or_default();
    folders.into_iter().any(|(name, path)| {
        let names = || names(&path).unwrap_or_default();
        let is_link = |(name, _): &(Name, PathBuf)| matches!(name, Name::Link { .. });
        name.starts_with(OF_NETNS) && names().iter().any(is_link)
    })
}

/// Takes away what is kept in a folder, in whatever network namespace it is attached; gives the number of links.
///
/// # Errors
/// [`PinDirError`]; what is none of ours is left, and told.
pub(super) fn clear(root: &Path) -> Result<usize, PinDirError> {
    if fs::metadata(root).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(0);
    }
    if !is_on_bpf(root)? {
        return Err(PinDirError::NotBpf(root.to_owned()));
    }
    let _lock = lock(root)?;
    let (mut links, mut foreign) = (0, None);
    for (name, path) in entries(root)? {
        if !name.starts_with(OF_NETNS) {
            foreign = foreign.or_else(|| (!name.starts_with(OF_INTERCEPT)).then_some(path));
            continue;
        }
        for (name, path) in entries(&path)? {
            match Name::parse(&name) {
                Some(Name::Link { .. }) => {
                    remove_link(&path)?;
                    links += 1;
                }
                Some(Name::State(..) | Name::HalfMade(..)) => remove_state(&path)?,
                None => foreign = foreign.or(Some(path)),
            }
        }
        // Not where something else is left in it.
        let _removed = fs::remove_dir(&path);
    }
    if let Some(path) = foreign {
        return Err(PinDirError::Foreign(path));
    }
    // It may hold what is kept of intercepted ports.
    let _removed = fs::remove_dir(root);
    Ok(links)
}

/// Whether the folder, or what it is to be made in, is on a BPF file system.
fn is_on_bpf(folder: &Path) -> Result<bool, PinDirError> {
    let mut at = folder;
    loop {
        match statfs(at) {
            Ok(found) => return Ok(u32::try_from(found.f_type) == Ok(BPF_FS)),
            Err(rustix::io::Errno::NOENT) => match at.parent() {
                Some(parent) if parent == Path::new("") => at = Path::new("."),
                Some(parent) => at = parent,
                None => return Ok(false),
            },
            Err(error) => return Err(PinDirError::io("look at", at)(error.into())),
        }
    }
}

fn make(folder: &Path) -> Result<(), PinDirError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(MODE);
    builder
        .create(folder)
        .map_err(PinDirError::io("make the folder", folder))
}

/// A BPF file system holds no file that could be locked, but its folders can be.
fn lock(root: &Path) -> Result<File, PinDirError> {
    let folder = File::open(root).map_err(PinDirError::io("open the folder", root))?;
    match folder.try_lock() {
        Ok(()) => Ok(folder),
        Err(TryLockError::WouldBlock) => Err(PinDirError::Locked(root.to_owned())),
        Err(TryLockError::Error(error)) => Err(PinDirError::io("lock the folder", root)(error)),
    }
}

fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, PinDirError> {
    let read = || -> io::Result<Vec<_>> {
        fs::read_dir(folder)?
            .map(|entry| {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                Ok((name, entry.path()))
            })
            .collect()
    };
    read().map_err(PinDirError::io("read the folder", folder))
}

fn names(folder: &Path) -> Result<Vec<(Name, PathBuf)>, PinDirError> {
    let entries = entries(folder)?.into_iter();
    entries
        .map(|(text, path)| match Name::parse(&text) {
            Some(name) => Ok((name, path)),
            None => Err(PinDirError::Foreign(path)),
        })
        .collect()
}

/// The program is detached when this returns, where nobody else holds the link. The kernel would take its time were the pin
/// the last to hold it.
fn remove_link(path: &Path) -> Result<(), PinDirError> {
    let held = PinnedLink::from_pin(path);
    let removed = fs::remove_file(path);
    drop(held);
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(PinDirError::io("take away", path)(error))
        }
        _ => Ok(()),
    }
}

pub(super) fn remove_state(path: &Path) -> Result<(), PinDirError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(PinDirError::io("take away", path)(error))
        }
        _ => Ok(()),
    }
}

pub(super) fn make_state(path: &Path) -> Result<(), PinDirError> {
    make(path)
}
