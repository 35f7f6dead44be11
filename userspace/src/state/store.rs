//! The database: entries by [`EntryKey`] in one redb file, each change on disk before it returns.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use redb::{
    Builder, Database, DatabaseError, ReadableDatabase as _, ReadableTable, StorageError,
    TableDefinition, backends::FileBackend,
};
use tempfile::NamedTempFile;
use tokenblock_ebpf::digest::{Domain, InstallationKey, TokenDigest};

use super::{
    StateError,
    entry::{EntryKey, Row, StoredEntry, Subject},
};
use crate::denylist::Conditions;

const FILE: &str = "denylist.redb";
const ENTRIES: TableDefinition<'_, &[u8; 33], Row<'_>> = TableDefinition::new("entries");
/// What JWTs must claim, of those entries that are not of one token: as `Conditions::to_bytes` gives it.
const CLAIMS: TableDefinition<'_, &[u8; 33], &[u8]> = TableDefinition::new("claims");
/// By name: the format, and the digest of nothing by which the installation key is known again.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const FORMAT: &str = "format";
const KEY: &str = "key";
/// The format that this version writes; each earlier one is migrated on opening. The first had no claims, the second no
/// entries of which the SHA-256 alone is known.
const CURRENT: u64 = 3;
const OLDER: [u64; 2] = [1, 2];
/// Bytes of the file that are kept in memory; the tiers hold what is asked for often.
const CACHE: usize = 16 << 20;

/// The open database.
pub struct Store {
    path: PathBuf,
    /// The format and the key as they are written.
    key: TokenDigest,
    /// `None` after a failure, until it can be opened again.
    database: Option<Database>,
    /// The file that was opened, by device and number.
    file: Option<(u64, u64)>,
}

impl Store {
    /// Opens the database of a state folder, which this process has locked; makes it where there is none.
    ///
    /// Every page is checked against its checksum.
    ///
    /// # Errors
    /// [`StateError`]; a damaged database is never taken for an empty one.
    pub fn open(folder: &Path, key: &InstallationKey) -> Result<Self, StateError> {
        let mut store = Self {
            path: folder.join(FILE),
            key: TokenDigest::of(key, Domain::Exact, b""),
            database: None,
            file: None,
        };
        store.reopen()?;
        Ok(store)
    }

    fn reopen(&mut self) -> Result<&Database, StateError> {
        if self.database.is_none() {
            self.check_there()?;
            let length = match fs::metadata(&self.path) {
                Ok(metadata) => metadata.len(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.create()?;
                    1
                }
                Err(error) => return Err(self.io(error)),
            };
            if length == 0 {
                // redb would take it for a new one.
                return Err(self.corrupt("the file is empty"));
            }
            let database = builder().open(&self.path);
            let database = database.map_err(|error| self.failed_open(error))?;
            self.check_meta(&database)?;
            self.database = Some(database);
            self.file = file_at(&self.path);
        }
        self.database
            .as_ref()
            .ok_or_else(|| self.corrupt("it is not open"))
    }

    /// Whether what is written would be found after a restart.
    ///
    /// # Errors
    /// [`StateError::Gone`] where another file, or none, is in the place of the one that was opened.
    pub fn check_there(&self) -> Result<(), StateError> {
        if self.file.is_some() && self.file != file_at(&self.path) {
            return Err(StateError::Gone(self.path.clone()));
        }
        Ok(())
    }

    /// Whole or not at all, so that no crash leaves half of it.
    fn create(&self) -> Result<(), StateError> {
        let io = |error| self.io(error);
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let new = NamedTempFile::new_in(folder).map_err(io)?;
        let backend = FileBackend::new(new.reopen().map_err(io)?);
        let backend = backend.map_err(|error| self.failed_open(error))?;
        let database = builder().create_with_backend(backend);
        let database = database.map_err(|error| self.failed_open(error))?;
        let written = || -> Result<(), redb::Error> {
            let write = database.begin_write()?;
            write.open_table(ENTRIES)?;
            write.open_table(CLAIMS)?;
            let mut meta = write.open_table(META)?;
            meta.insert(FORMAT, &CURRENT.to_be_bytes()[..])?;
            meta.insert(KEY, &self.key.0[..])?;
            drop(meta);
            Ok(write.commit()?)
        };
        written().map_err(|error| self.failed(error))?;
        drop(database);
        new.as_file().sync_all().map_err(io)?;
        new.persist_noclobber(&self.path)
            .map_err(|lost| io(lost.error))?;
        File::open(folder).and_then(|f| f.sync_all()).map_err(io)
    }

    fn check_meta(&self, database: &Database) -> Result<(), StateError> {
        let read = || -> Result<_, redb::Error> {
            let meta = database.begin_read()?.open_table(META)?;
            let value =
                |name| Ok::<_, redb::Error>(meta.get(name)?.map(|value| value.value().to_vec()));
            Ok((value(FORMAT)?, value(KEY)?))
        };
        let (format, key) = read().map_err(|error| self.failed(error))?;
        let format = format.and_then(|bytes| bytes.try_into().ok());
        let format = format.map(u64::from_be_bytes);
        match format {
            Some(found) if found == CURRENT || OLDER.contains(&found) => {}
            Some(found) if found > CURRENT => {
                let path = self.path.clone();
                return Err(StateError::Newer {
                    path,
                    found,
                    known: CURRENT,
                });
            }
            _ => return Err(self.corrupt("it has no known format")),
        }
        if key.as_deref() != Some(&self.key.0[..]) {
            return Err(StateError::OtherKey(self.path.clone()));
        }
        match format {
            Some(older) if older != CURRENT => self.migrate(database, older),
            _ => Ok(()),
        }
    }

    /// From an older format, whole or not at all.
    fn migrate(&self, database: &Database, from: u64) -> Result<(), StateError> {
        let written = || -> Result<(), redb::Error> {
            let write = database.begin_write()?;
            write.open_table(CLAIMS)?;
            let mut meta = write.open_table(META)?;
            meta.insert(FORMAT, &CURRENT.to_be_bytes()[..])?;
            drop(meta);
            Ok(write.commit()?)
        };
        written().map_err(|error| self.failed(error))?;
        let path = self.path.display();
        tracing::info!("{path} was migrated from format {from} to {CURRENT}");
        Ok(())
    }

    /// Writes and removes entries, all or none; they are on disk when it returns.
    ///
    /// # Errors
    /// Where the disk didn't take it; nothing is changed then, and the next call tries to open the database anew.
    pub fn write<'a>(
        &mut self,
        put: impl IntoIterator<Item = &'a StoredEntry>,
        remove: &[EntryKey],
    ) -> Result<(), StateError> {
        self.check_there()?;
        let database = self.reopen()?;
        let written = move || -> Result<(), redb::Error> {
            let write = database.begin_write()?;
            let mut entries = write.open_table(ENTRIES)?;
            let mut claims = write.open_table(CLAIMS)?;
            for key in remove {
                entries.remove(&key.0)?;
                claims.remove(&key.0)?;
            }
            for entry in put {
                let key = entry.key();
                entries.insert(&key.0, entry.row())?;
                if let Subject::Claims(conditions) = &entry.subject {
                    claims.insert(&key.0, &conditions.to_bytes()[..])?;
                }
            }
            drop((entries, claims));
            Ok(write.commit()?)
        };
        let result = written();
        self.done(result)
    }

    /// Closes the database after a failure: redb takes nothing more then.
    fn done<T>(&mut self, result: Result<T, redb::Error>) -> Result<T, StateError> {
        result.map_err(|error| {
            self.database = None;
            self.failed(error)
        })
    }

    /// The entry under this key.
    ///
    /// # Errors
    /// Where the disk can't be read.
    pub fn get(&mut self, key: &EntryKey) -> Result<Option<StoredEntry>, StateError> {
        Ok(self.get_all(&[*key])?.pop().flatten())
    }

    /// The entry under each of these keys; quick where they ascend.
    ///
    /// # Errors
    /// Where the disk can't be read.
    pub fn get_all(&mut self, keys: &[EntryKey]) -> Result<Vec<Option<StoredEntry>>, StateError> {
        let database = self.reopen()?;
        let read = || -> Result<_, redb::Error> {
            let read = database.begin_read()?;
            let (entries, claims) = (read.open_table(ENTRIES)?, read.open_table(CLAIMS)?);
            let get = |key: &EntryKey| {
                let row = entries.get(&key.0)?;
                row.map(|row| entry(*key, &row.value(), &claims))
                    .transpose()
            };
            keys.iter()
                .map(get)
                .collect::<Result<Vec<_>, redb::Error>>()
        };
        let found = read();
        let found = self.done(found)?.into_iter();
        found
            .map(|found| match found {
                Some(None) => Err(self.corrupt("an entry of no known form")),
                found => Ok(found.flatten()),
            })
            .collect()
    }

    /// Up to `limit` entries behind `after`, ascending by key.
    ///
    /// # Errors
    /// Where the disk can't be read.
    pub fn page(
        &mut self,
        after: Option<EntryKey>,
        limit: usize,
    ) -> Result<Vec<StoredEntry>, StateError> {
        use std::ops::Bound::{Excluded, Unbounded};
        let database = self.reopen()?;
        let read = || -> Result<Option<Vec<_>>, redb::Error> {
            let read = database.begin_read()?;
            let (entries, claims) = (read.open_table(ENTRIES)?, read.open_table(CLAIMS)?);
            let from = after.as_ref().map_or(Unbounded, |key| Excluded(&key.0));
            let rows = entries.range::<&[u8; 33]>((from, Unbounded))?.take(limit);
            rows.map(|row| {
                let (key, row) = row?;
                entry(EntryKey(*key.value()), &row.value(), &claims)
            })
            .collect()
        };
        let found = read();
        self.done(found)?
            .ok_or_else(|| self.corrupt("an entry of no known form"))
    }

    /// Shows all entries, ascending by key, without reasons and sources.
    ///
    /// # Errors
    /// Where the disk can't be read.
    pub fn each(&mut self, mut show: impl FnMut(StoredEntry)) -> Result<(), StateError> {
        let database = self.reopen()?;
        let mut read = || -> Result<Option<()>, redb::Error> {
            let read = database.begin_read()?;
            let (entries, claims) = (read.open_table(ENTRIES)?, read.open_table(CLAIMS)?);
            // Few, where there are any: most rows need not be looked up a second time.
            let claims = claims.iter()?.map(|row| {
                let (key, conditions) = row?;
                Ok((*key.value(), Conditions::from_bytes(conditions.value())))
            });
            let claims = claims.collect::<Result<HashMap<_, _>, redb::Error>>()?;
            for row in entries.iter()? {
                let (key, row) = row?;
                let key = EntryKey(*key.value());
                let (digest, fingerprint, action, expires, added, ..) = row.value();
                let row = (digest, fingerprint, action, expires, added, None, None);
                let Some(mut entry) = StoredEntry::of_row(key, &row) else {
                    return Ok(None);
                };
                if let Some(conditions) = claims.get(&key.0) {
                    let Some(conditions) = conditions else {
                        return Ok(None);
                    };
                    entry.subject = Subject::Claims(Box::new(*conditions));
                }
                show(entry);
            }
            Ok(Some(()))
        };
        let read = read();
        self.done(read)?
            .ok_or_else(|| self.corrupt("an entry of no known form"))
    }

    fn io(&self, error: io::Error) -> StateError {
        StateError::Io {
            path: self.path.clone(),
            error,
        }
    }

    fn corrupt(&self, what: &str) -> StateError {
        StateError::Corrupt {
            path: self.path.clone(),
            what: what.to_owned(),
        }
    }

    fn failed(&self, error: redb::Error) -> StateError {
        if let redb::Error::Io(error) = error {
            self.io(error)
        } else if matches!(error, redb::Error::PreviousIo) {
            self.io(io::Error::other(error.to_string()))
        } else {
            self.corrupt(&error.to_string())
        }
    }

    fn failed_open(&self, error: DatabaseError) -> StateError {
        // That is what redb says of a file that is none of its own.
        let foreign = |error: &io::Error| {
            let kind = error.kind();
            matches!(
                kind,
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            )
        };
        if let DatabaseError::Storage(StorageError::Io(error)) = &error
            && foreign(error)
        {
            return self.corrupt(&error.to_string());
        }
        self.failed(error.into())
    }
}

/// What tells a file from another in its place.
fn file_at(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// The entry of a row, with what it claims; `None` where no version wrote it.
fn entry(
    key: EntryKey,
    row: &Row<'_>,
    claims: &impl ReadableTable<&'static [u8; 33], &'static [u8]>,
) -> Result<Option<StoredEntry>, redb::Error> {
    let Some(entry) = StoredEntry::of_row(key, row) else {
        return Ok(None);
    };
    let Some(conditions) = claims.get(&key.0)? else {
        return Ok(Some(entry));
    };
    let conditions = Conditions::from_bytes(conditions.value());
    Ok(conditions.map(|conditions| StoredEntry {
        subject: Subject::Claims(Box::new(conditions)),
        ..entry
    }))
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .set_cache_size(CACHE)
        .set_check_integrity_on_open(true);
    builder
}
