//! What the files say of the denylist: read, counted, warned of.

use std::{
    mem,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use indicatif::ProgressBar;

use super::FileStatus;
use crate::{
    denylist::{Claims, HashedSet, List, Record},
    key::StoredKey,
    progress,
    sources::{FileError, MinLength, Reading, Records, Source, Summary, read},
    state::Additions,
};

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

/// The sources as they were read at start.
pub struct Loaded {
    /// What is to be in force.
    pub list: List,
    /// How many of them name claims of JWTs, which the proxy tier alone can read.
    pub claims: usize,
    pub(super) of_files: Vec<Claims>,
    pub(super) hashed: HashedSet,
    pub(super) additions: Additions,
    pub(super) files: Vec<FileStatus>,
    pub(super) now: SystemTime,
}

/// What all files together gave.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) records: Records,
    read: Vec<(Source, Summary)>,
    /// Those that were read, and sources that could not be.
    pub(super) files: Vec<FileStatus>,
    pub(super) refused: Vec<FileError>,
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

    /// Reads all files, whatever becomes of single ones.
    pub(super) fn read_each(&self, bar: &ProgressBar) -> Gathered {
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
    pub(super) fn report(&self) {
        for (file, summary) in &self.read {
            report(file, summary);
        }
    }
}

/// What files and additions hold.
pub(super) fn merged(
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
