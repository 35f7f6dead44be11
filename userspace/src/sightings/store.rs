//! The sightings on disk, in a database of their own: it is written late, and losing it loses no entry.

use std::{
    collections::HashMap,
    fs,
    net::{IpAddr, Ipv6Addr},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use redb::{Builder, Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::table::{Changes, Sighting, Table};
use crate::denylist::ShortTokenId;

const FILE: &str = "hits.redb";
/// What can't be used is left under this name.
const DAMAGED: &str = "hits.redb.damaged";
/// Hits, those that were blocked, first and last time in seconds since 1970, sources.
type Row<'a> = (u64, u64, u64, u64, &'a [u8]);
/// By the first bytes of the `TokenId`. The name has the format in it: another one is another table.
const HITS: TableDefinition<'_, &[u8; 6], Row<'_>> = TableDefinition::new("hits-1");
/// Address and seconds since 1970.
const SOURCE: usize = 16 + 8;
/// Bytes of the file that are kept in memory; it is read once.
const CACHE: usize = 1 << 20;

/// The database.
pub(super) struct Store {
    path: PathBuf,
    /// `None` after a failure, until it can be opened again: redb takes nothing more then.
    database: Option<Database>,
}

impl Store {
    /// Opens the database of a state folder, or makes it; gives what is in it.
    ///
    /// # Errors
    /// Where the disk can't be used.
    pub(super) fn open(folder: &Path) -> anyhow::Result<(Self, Table)> {
        let path = folder.join(FILE);
        match Self::read(&path) {
            Ok(opened) => Ok(opened),
            Err(error) if path.exists() && is_damage(&error) => {
                let aside = folder.join(DAMAGED);
                tracing::warn!(
                    "{error:#}; it is set aside as {}, hits are counted anew",
                    aside.display()
                );
                fs::rename(&path, aside).context("can't set it aside")?;
                Self::read(&path)
            }
            Err(error) => Err(error),
        }
    }

    fn read(path: &Path) -> anyhow::Result<(Self, Table)> {
        let read = || -> Result<_, redb::Error> {
            let database = opened(path)?;
            let hits = database.begin_read()?.open_table(HITS)?;
            let mut known = HashMap::new();
            for row in hits.iter()? {
                let (token, row) = row?;
                known.insert(ShortTokenId(*token.value()), sighting(row.value()));
            }
            Ok((database, known))
        };
        let (database, known) = read().with_context(|| format!("{}", path.display()))?;
        let store = Self {
            path: path.to_owned(),
            database: Some(database),
        };
        Ok((store, Table::of(known)))
    }

    /// Brings changes to disk, all or none.
    ///
    /// # Errors
    /// Where the disk didn't take them; the next call tries to open the database anew.
    pub(super) fn write(&mut self, changes: &Changes) -> anyhow::Result<()> {
        let written = self.try_write(changes);
        if written.is_err() {
            self.database = None;
        }
        written.with_context(|| format!("{}", self.path.display()))
    }

    fn try_write(&mut self, changes: &Changes) -> Result<(), redb::Error> {
        let database = match self.database.take() {
            Some(database) => database,
            None => opened(&self.path)?,
        };
        let write = self.database.insert(database).begin_write()?;
        let mut hits = write.open_table(HITS)?;
        for (token, sighting) in changes {
            match sighting {
                Some(seen) => {
                    let sources = sources(seen);
                    let (first, last) = (seconds(seen.first), seconds(seen.last));
                    let row = (seen.hits, seen.blocked, first, last, &sources[..]);
                    hits.insert(&token.0, row)?;
                }
                None => drop(hits.remove(&token.0)?),
            }
        }
        drop(hits);
        Ok(write.commit()?)
    }
}

/// Whether the file is to blame, and not the disk: a full one is no reason to set it aside.
fn is_damage(error: &anyhow::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    match error.downcast_ref() {
        // That is what redb says of a file that is none of its own.
        Some(redb::Error::Io(error)) => matches!(error.kind(), InvalidData | UnexpectedEof),
        Some(_) | None => true,
    }
}

/// The database with its table, made where there is none.
fn opened(path: &Path) -> Result<Database, redb::Error> {
    private(path).map_err(redb::Error::Io)?;
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE);
    let database = builder.create(path)?;
    let write = database.begin_write()?;
    write.open_table(HITS)?;
    write.commit()?;
    Ok(database)
}

/// Makes the file with its mode, where there is none.
fn private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = fs::OpenOptions::new();
    let options = options.create(true).truncate(false).write(true).mode(0o600);
    options.open(path).map(drop)
}

fn sources(seen: &Sighting) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(seen.sources.len() * SOURCE);
    for (source, last) in &seen.sources {
        let source = match source {
            IpAddr::V4(source) => source.to_ipv6_mapped(),
            IpAddr::V6(source) => *source,
        };
        bytes.extend(source.octets());
        bytes.extend(seconds(*last).to_be_bytes());
    }
    bytes
}

fn sighting((hits, blocked, first, last, sources): Row<'_>) -> Sighting {
    let (sources, _) = sources.as_chunks::<SOURCE>();
    let source = |bytes: &[u8; SOURCE]| {
        let (address, last) = bytes.split_first_chunk::<16>()?;
        let address = Ipv6Addr::from(*address).to_canonical();
        Some((address, time(u64::from_be_bytes(last.try_into().ok()?))))
    };
    Sighting {
        hits,
        blocked,
        first: time(first),
        last: time(last),
        sources: sources.iter().filter_map(source).collect(),
    }
}

fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn time(seconds: u64) -> SystemTime {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    time.unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_there_when_it_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let token = |n| ShortTokenId([n; 6]);
        let seen = Sighting {
            hits: 3,
            blocked: 2,
            first: time(1000),
            last: time(2000),
            sources: vec![
                ("10.0.0.1".parse().unwrap(), time(2000)),
                ("2001:db8::1".parse().unwrap(), time(1000)),
            ],
        };
        let (mut store, table) = Store::open(folder.path()).unwrap();
        assert!(table.get(token(1)).is_none());
        let some = |n| (token(n), Some(seen.clone()));
        store.write(&vec![some(1), some(2)]).unwrap();
        store.write(&vec![(token(2), None)]).unwrap();
        drop(store);
        let (store, table) = Store::open(folder.path()).unwrap();
        assert_eq!(table.get(token(1)), Some(&seen));
        assert!(table.get(token(2)).is_none());
        drop(store);

        fs::write(folder.path().join(FILE), "something else, and no database").unwrap();
        let (store, table) = Store::open(folder.path()).unwrap();
        assert!(table.get(token(1)).is_none() && folder.path().join(DAMAGED).exists());
        drop(store);

        // What can't be opened for another reason is left alone.
        let path = folder.path().join(FILE);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(Store::open(folder.path()).is_err() && path.is_dir());
    }
}
