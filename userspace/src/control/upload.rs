//! A list that is sent as the lines of a denylist file: `lines -> entries -> keeper`, worked on while it comes.

use std::{collections::BTreeMap, thread::available_parallelism, time::SystemTime};

use futures_util::{StreamExt as _, stream::FuturesOrdered};
use hyper::body::Incoming;
use tokio::task::JoinHandle;

use super::{
    api::{EntryError, ImportAnswer, Noted, harmless_text, to_the_second},
    body::{Chunk, Lines},
    desk::{Desk, Upload},
    files::Files,
    refusal::Refusal,
};
use crate::{
    denylist::Entry,
    import,
    keeper::Request,
    sources::{LineError, Uploaded, upload},
    state::{StoredEntry, Subject},
    wiping::spawn_wiped,
};

/// Most refused lines that are named one by one.
const NAMED: usize = 20;

/// What lines are read with.
#[derive(Clone)]
struct Reader {
    files: Files,
    now: SystemTime,
    force: bool,
    strict: bool,
}

/// What some lines gave.
#[derive(Default)]
struct Read {
    entries: Vec<StoredEntry>,
    left_out: LeftOut,
}

/// What all lines gave so far.
#[derive(Default)]
struct Gathered {
    /// As they came: in one piece they would be moved again and again.
    entries: Vec<Vec<StoredEntry>>,
    left_out: LeftOut,
}

/// Lines that are left out.
#[derive(Default)]
struct LeftOut {
    counts: BTreeMap<String, u64>,
    named: Vec<Noted>,
}

/// Why the whole list is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    #[error(transparent)]
    Line(#[from] LineError),
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// It can't be listed, and nothing is to be left out.
    #[error("{0}")]
    LeftOut(String),
}

/// Lists what a body holds, all or nothing.
pub(super) async fn import(
    desk: &Desk,
    given: Upload,
    body: Incoming,
) -> Result<ImportAnswer, Refusal> {
    let reader = Reader {
        files: desk.files().clone(),
        now: SystemTime::now(),
        force: given.force,
        strict: given.strict,
    };
    let at_once = available_parallelism().map_or(1, usize::from);
    let mut lines = Lines::new(body);
    let (mut working, mut read) = (FuturesOrdered::new(), Gathered::default());
    while let Some(chunk) = lines.next().await? {
        let reader = reader.clone();
        working.push_back(spawn_wiped(move || reader.read(&chunk)));
        if working.len() >= at_once {
            read.take(working.next().await)?;
        }
    }
    while !working.is_empty() {
        read.take(working.next().await)?;
    }
    let (entries, mode) = (read.entries, given.mode);
    let imported = desk
        .ask(|reply| Request::Import(entries, mode, reply))
        .await?;
    let LeftOut { counts, named } = read.left_out;
    Ok(ImportAnswer::new(given.mode, imported, counts, named))
}

type Done = Result<Read, (u64, UploadError)>;

impl Gathered {
    /// Takes in what the next lines gave.
    fn take(&mut self, done: Option<<JoinHandle<Done> as Future>::Output>) -> Result<(), Refusal> {
        let done = done.unwrap_or_else(|| Ok(Ok(Read::default())));
        let read = done.map_err(|_panicked| Refusal::Silence)?;
        let read = read.map_err(|(number, error)| Refusal::Line { number, error })?;
        self.entries.push(read.entries);
        for (why, count) in read.left_out.counts {
            *self.left_out.counts.entry(why).or_default() += count;
        }
        let room = NAMED.saturating_sub(self.left_out.named.len());
        self.left_out
            .named
            .extend(read.left_out.named.into_iter().take(room));
        Ok(())
    }
}

impl Reader {
    fn read(&self, chunk: &Chunk) -> Done {
        let mut read = Read::default();
        let lines = chunk.text.split(|byte| *byte == b'\n');
        for (number, line) in (chunk.first..).zip(lines) {
            match self.line(line) {
                Ok(Some(Ok(entry))) => read.entries.push(entry),
                Ok(Some(Err(why))) if self.strict => {
                    return Err((number, UploadError::LeftOut(why)));
                }
                Ok(Some(Err(why))) => read.left_out.add(number, why),
                Ok(None) => {}
                Err(error) => return Err((number, error)),
            }
        }
        Ok(read)
    }

    fn line(&self, line: &[u8]) -> Result<Option<Result<StoredEntry, String>>, UploadError> {
        let reading = self.files.reading();
        let (entry, token, subject) = match upload(reading, self.now, line)? {
            Uploaded::Entry(entry, token) => (entry, Some(token), Subject::Token),
            Uploaded::Claims(entry, claims) => {
                (entry, None, Subject::Claims(Box::new(claims.conditions)))
            }
            Uploaded::Hashed(record, said) => {
                let entry = Entry {
                    identity: StoredEntry::identity_of_hash(record.id, record.domain),
                    action: record.action,
                    expires: record.expires,
                    reason: said.reason,
                    source: said.source,
                };
                (entry, None, Subject::Hash(record.domain))
            }
            Uploaded::Skipped(why) => return Ok(Some(Err(why.to_string()))),
            Uploaded::Blank => return Ok(None),
        };
        let guarded = token.filter(|_| !self.force);
        let unfit = guarded.and_then(|token| import::guard(token).err());
        if let Some(why) = unfit {
            if self.strict {
                return Err(EntryError::from(why).into());
            }
            return Ok(Some(Err(why.to_string())));
        }
        if entry.expires.is_past(self.now) {
            return Ok(Some(Err("expired".to_owned())));
        }
        Ok(Some(Ok(StoredEntry {
            identity: entry.identity,
            action: entry.action,
            expires: entry.expires,
            reason: harmless_text("reason", entry.reason, token)?,
            source: harmless_text("source", entry.source, token)?,
            added: to_the_second(self.now),
            subject,
        })))
    }
}

impl LeftOut {
    fn add(&mut self, line: u64, why: String) {
        *self.counts.entry(why.clone()).or_default() += 1;
        if self.named.len() < NAMED {
            self.named.push(Noted { line, why });
        }
    }
}
