//! What the control socket asks of the keeper, and its answers.
//!
//! A change is on disk first and in force in every tier then, before it is answered.

use std::{
    collections::{BTreeSet, HashSet},
    path::PathBuf,
    time::SystemTime,
};

use tokio::sync::oneshot;

use super::Keeper;
use crate::{
    denylist::{
        Action, Changed, Claims, Denylist, Expires, HashedSet, Identity, Record, Tier, TokenDigest,
        TokenId,
    },
    sources::Change,
    state::{Addition, EntryKey, StateError, StoredEntry, Subject},
};

/// Of more hashes all are looked at, which is quicker then.
const MANY: usize = 1024;

/// Where an answer goes; nobody listens where the client is gone.
type Reply<T> = oneshot::Sender<Result<T, ChangeError>>;

/// What is asked of the keeper.
pub enum Request {
    /// Add entries, or change them.
    Add(Vec<StoredEntry>, Mode, Reply<Vec<Addition>>),
    /// Add very many entries, and count what that did.
    Import(Vec<Vec<StoredEntry>>, Mode, Reply<Imported>),
    /// Remove entries.
    Remove(Vec<Target>, Reply<Vec<Removed>>),
    /// Say what is in force of tokens, and what was added under ids.
    Check(Vec<Target>, Reply<Vec<Checked>>),
    /// Up to so many additions behind a key, and where to go on.
    List(
        Option<EntryKey>,
        usize,
        Reply<(Vec<StoredEntry>, Option<EntryKey>)>,
    ),
    /// How the list is.
    Status(Reply<ListStatus>),
    /// Read the files again, though none has changed: they are to be read otherwise.
    ReadAgain,
}

/// Whether what is asked for is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It is.
    #[default]
    Do,
    /// It is only said what would be done.
    DryRun,
}

/// What an import did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Tokens that were not among the additions.
    pub added: usize,
    /// Those that were, with other attributes.
    pub updated: usize,
    /// Those that were, as they are.
    pub unchanged: usize,
}

/// What is meant.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// All entries of a token.
    Token(Identity),
    /// All entries with this id.
    Id(TokenId),
}

/// What a removal did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The token.
    pub id: TokenId,
    /// Whether it was among the additions.
    pub removed: bool,
    /// Whether a file lists it, so that it stays in force.
    pub in_files: bool,
}

/// What is in force of a token.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The token.
    pub id: TokenId,
    /// What is in force, if anything: what becomes of requests, and until when.
    pub in_force: Option<(Action, Expires)>,
    /// The addition, where it was added.
    pub added: Option<StoredEntry>,
    /// Whether a file lists it, as far as that is known: of an id the files alone know it.
    pub in_files: Option<bool>,
}

/// A denylist file as it was last read.
#[derive(Clone, Debug)]
pub struct FileStatus {
    /// The file.
    pub path: PathBuf,
    /// Its entries, where it was not refused.
    pub entries: Option<u64>,
}

/// How the list is.
#[derive(Clone, Debug)]
pub struct ListStatus {
    /// Entries in force.
    pub in_force: usize,
    /// Those that were added at run time.
    pub added: usize,
    /// Those that name claims of JWTs, which the proxy tier alone can read.
    pub claims: usize,
    /// The files.
    pub files: Vec<FileStatus>,
    /// When the files were last read.
    pub read: SystemTime,
    /// Why one of them was refused then.
    pub refused: Option<String>,
    /// Whether every tier has all of the list.
    pub level: bool,
    /// Why the last change could not be stored.
    pub failure: Option<String>,
}

/// Why a change is not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// It could not be stored; nothing is changed.
    #[error("nothing is changed, since it can't be stored; what is in force stays in force: {0}")]
    State(#[from] StateError),
    /// It is stored, but a tier has not taken it yet.
    #[error("it is stored, but not in force in the kernel tier; that is tried again: {0}")]
    Tier(String),
}

impl<K: Tier + 'static> Keeper<K> {
    /// Does what is asked and answers.
    pub fn serve(&mut self, request: Request) {
        // A client that is gone needs no answer.
        match request {
            Request::Add(entries, Mode::Do, reply) => drop(reply.send(self.add(entries))),
            Request::Add(entries, Mode::DryRun, reply) => {
                let plan = self.additions.plan(entries);
                drop(reply.send(plan.map_err(ChangeError::from)));
            }
            Request::Import(entries, mode, reply) => drop(reply.send(self.import(entries, mode))),
            Request::Remove(targets, reply) => drop(reply.send(self.withdraw(&targets))),
            Request::Check(tokens, reply) => drop(reply.send(self.check(&tokens))),
            Request::List(after, limit, reply) => {
                let page = self.additions.page(after, limit);
                drop(reply.send(page.map_err(ChangeError::from)));
            }
            Request::Status(reply) => drop(reply.send(Ok(self.status()))),
            Request::ReadAgain => self.reload(Change::Settled),
        }
        self.denylist.tidy();
        self.additions.memory.tidy();
    }

    fn add(&mut self, entries: Vec<StoredEntry>) -> Result<Vec<Addition>, ChangeError> {
        let in_force = in_force(&self.denylist, &self.owed);
        let added = self.additions.add(entries, in_force);
        let added = added.inspect_err(unstored)?;
        let records = added.iter().filter_map(|a| a.entry.record());
        let digests: Vec<_> = records.map(|record| record.digest).collect();
        self.read_claims();
        let hashes = hashes(added.iter().map(|addition| &addition.entry));
        self.settle_all(digests, &hashes)?;
        Ok(added)
    }

    /// Disk and tiers take a second each of a million entries, so they take them side by side; where the disk fails
    /// the tiers give them back.
    fn import(
        &mut self,
        entries: Vec<Vec<StoredEntry>>,
        mode: Mode,
    ) -> Result<Imported, ChangeError> {
        let bulk = self.additions.plan_bulk(entries)?;
        let imported = Imported {
            added: bulk.added,
            updated: bulk.updated,
            unchanged: bulk.unchanged,
        };
        if mode == Mode::DryRun || bulk.changed.is_empty() {
            return Ok(imported);
        }
        let now = (self.clock)();
        // Each id at most three times, so that more than a few are known to be more.
        let by_hash = bulk.changed.iter().filter(|entry| entry.hashed().is_some());
        let hashes = hashes(by_hash.take(3 * MANY + 1));
        let records = bulk.changed.iter().filter_map(StoredEntry::record);
        let digests: Vec<_> = records.map(|record| record.digest).collect();
        let mut all = bulk.changed.iter();
        let claims = all.any(|entry| matches!(entry.subject, Subject::Claims(_)));
        let (denylist, owed, of_files) = (&mut self.denylist, &self.owed, &self.hashed);
        let (stored, (before, taken)) = self.additions.write_beside(&bulk.changed, |memory| {
            let before = memory.hold_all(&bulk.changed, in_force(denylist, owed));
            let changed = bulk.changed.iter();
            let effective = changed.filter_map(|entry| memory.effective_of(entry, now));
            let records: Vec<_> = effective.collect();
            let taken = denylist.insert(&records).and_then(|()| {
                if !hashes.is_empty() {
                    bring_hashed(denylist, of_files, memory.hashed(), Some(&hashes), now)?;
                }
                Ok(())
            });
            (before, taken)
        });
        if let Err(error) = stored {
            unstored(&error);
            self.additions.memory.take_back(&bulk.changed, before);
            self.read_claims();
            // An error is told where it happens, and what is owed then is tried again.
            let _told = self.settle_all(digests, &hashes);
            return Err(error.into());
        }
        if claims {
            self.read_claims();
        }
        if let Err(error) = taken {
            return Err(self.owe(digests, !hashes.is_empty(), &error));
        }
        Ok(imported)
    }

    fn withdraw(&mut self, targets: &[Target]) -> Result<Vec<Removed>, ChangeError> {
        let keys: Vec<_> = targets.iter().flat_map(Target::keys).collect();
        let entries = self
            .additions
            .remove(&keys)
            .inspect_err(|error| tracing::error!(%error, "a removal could not be stored"))?;
        let mut removed = Vec::with_capacity(targets.len());
        let now = (self.clock)();
        let (mut entries, mut digests) = (entries.into_iter(), Vec::new());
        let mut of_hashes = BTreeSet::new();
        for target in targets {
            let of_target = entries.by_ref().take(target.keys().len());
            let gone: Vec<StoredEntry> = of_target.flatten().collect();
            let records = || gone.iter().filter_map(StoredEntry::record);
            let in_files = match target {
                Target::Token(token) => {
                    let by_text = records().any(|record| record.digest == token.digest);
                    self.files_list(token, by_text, now)
                }
                Target::Id(_) => {
                    records().any(|record| self.additions.memory.in_files(&record.digest, now))
                }
            };
            let left = self.hashed.left(now);
            let by_hash = match target {
                Target::Token(token) => left.record(token, now).is_some(),
                Target::Id(id) => left.of_id(id).next().is_some(),
            };
            removed.push(Removed {
                id: target.id(),
                removed: !gone.is_empty(),
                in_files: in_files || by_hash,
            });
            digests.extend(records().map(|record| record.digest));
            of_hashes.append(&mut hashes(&gone));
        }
        self.settle_all(digests, &of_hashes)?;
        Ok(removed)
    }

    /// Whether a file lists a token by its text, where that was `added` too or was not.
    fn files_list(&self, token: &Identity, added: bool, now: SystemTime) -> bool {
        if added {
            self.additions.memory.in_files(&token.digest, now)
        } else {
            self.denylist.get(&token.digest).is_some()
        }
    }

    fn check(&mut self, targets: &[Target]) -> Result<Vec<Checked>, ChangeError> {
        let now = (self.clock)();
        let check = |target: &Target| {
            let mut added = None;
            for key in target.keys() {
                added = added.or(self.additions.find(&key)?);
            }
            let in_force = |action, expires| Some((action, expires));
            let checked = match target {
                Target::Token(token) => {
                    let by_hash = self.denylist.hashed().record(token, now);
                    let listed = self.denylist.get(&token.digest).into_iter().chain(by_hash);
                    let listed = listed.reduce(|mut one, other| {
                        one.join(&other);
                        one
                    });
                    let hashed = self.hashed.record(token, now).is_some();
                    let by_text = self.additions.memory.has(&token.digest);
                    Checked {
                        id: token.id,
                        in_force: listed
                            .and_then(|record| in_force(record.listed.action, record.expires)),
                        added,
                        in_files: Some(hashed || self.files_list(token, by_text, now)),
                    }
                }
                Target::Id(id) => Checked {
                    id: *id,
                    in_force: added
                        .as_ref()
                        .and_then(|entry| in_force(entry.action, entry.expires)),
                    added,
                    in_files: None,
                },
            };
            Ok(checked)
        };
        targets.iter().map(check).collect()
    }

    fn status(&self) -> ListStatus {
        ListStatus {
            in_force: self.denylist.len(),
            added: self.additions.memory.len(),
            claims: self.claims_in_force.current().map_or(0, |set| {
                let listed = |entry: &&Claims| self.denylist.get(&entry.digest).is_some();
                set.entries().filter(listed).count()
            }),
            files: self.files.clone(),
            read: self.read,
            refused: self.refused.clone(),
            level: self.denylist.is_level()
                && self.owed.is_empty()
                && !self.hashed_owed
                && self.missed.is_none(),
            failure: self.additions.failure().map(ToOwned::to_owned),
        }
    }

    /// Brings into force what the additions and the files say of these tokens, which were added at some time.
    pub(super) fn settle(&mut self, digests: Vec<TokenDigest>) -> Result<(), ChangeError> {
        let now = (self.clock)();
        let (mut listed, mut gone) = (Vec::new(), Vec::new());
        for digest in &digests {
            match self.additions.memory.effective(digest, now) {
                Some(record) => listed.push(record),
                None => gone.push(*digest),
            }
        }
        let result = self.denylist.insert(&listed);
        let result = result.and_then(|()| self.denylist.withdraw(&gone));
        if let Err(error) = result {
            return Err(self.owe(digests, false, &error));
        }
        self.additions.memory.settled(&digests);
        if self.owed.is_empty() {
            self.denylist.owes_nothing();
        }
        Ok(())
    }

    /// The same of entries that are known by their SHA-256 alone: of these ids, or of all.
    pub(super) fn settle_hashed(
        &mut self,
        ids: Option<&BTreeSet<TokenId>>,
    ) -> Result<(), ChangeError> {
        // What is owed may be any.
        let ids = ids.filter(|_| !self.hashed_owed);
        let added = self.additions.memory.hashed();
        let now = (self.clock)();
        match bring_hashed(&mut self.denylist, &self.hashed, added, ids, now) {
            Ok(_changed) => {
                self.hashed_owed = false;
                Ok(())
            }
            Err(error) => Err(self.owe(Vec::new(), true, &error)),
        }
    }

    fn settle_all(
        &mut self,
        digests: Vec<TokenDigest>,
        hashes: &BTreeSet<TokenId>,
    ) -> Result<(), ChangeError> {
        let settled = self.settle(digests);
        if !hashes.is_empty() {
            self.settle_hashed(Some(hashes))?;
        }
        settled
    }

    /// Remembers what a tier did not take.
    fn owe(&mut self, digests: Vec<TokenDigest>, hashed: bool, error: &K::Error) -> ChangeError {
        tracing::error!(%error, "the kernel tier did not take the change; will be tried again");
        self.owed.extend(digests);
        self.hashed_owed |= hashed;
        ChangeError::Tier(error.to_string())
    }
}

/// Brings into force what files and additions hold of these hashes together, or of all.
fn bring_hashed<K: Tier>(
    denylist: &mut Denylist<K>,
    files: &HashedSet,
    added: &HashedSet,
    ids: Option<&BTreeSet<TokenId>>,
    now: SystemTime,
) -> Result<Changed, K::Error> {
    let Some(ids) = ids.filter(|ids| ids.len() <= MANY) else {
        return denylist.replace_hashed(files.joined(added, now));
    };
    let of_both = ids
        .iter()
        .flat_map(|id| files.of_id(id).chain(added.of_id(id)));
    let records = HashedSet::merge(of_both.collect(), now);
    denylist.change_hashed(ids, &records.iter().collect::<Vec<_>>())
}

/// Those of entries that are known by their SHA-256 alone.
fn hashes<'a>(entries: impl IntoIterator<Item = &'a StoredEntry>) -> BTreeSet<TokenId> {
    let hashed = entries.into_iter().filter_map(StoredEntry::hashed);
    hashed.map(|record| record.id).collect()
}

/// What is in force under a digest, as far as every tier is known to have it.
fn in_force<K: Tier>(
    denylist: &Denylist<K>,
    owed: &HashSet<TokenDigest>,
) -> impl Fn(&TokenDigest) -> Option<Record> {
    move |digest| {
        let record = denylist.get(digest);
        record.filter(|_| !owed.contains(digest))
    }
}

fn unstored(error: &StateError) {
    tracing::error!(%error, "an addition could not be stored");
}

impl Target {
    fn keys(&self) -> Vec<EntryKey> {
        match self {
            Self::Token(token) => EntryKey::of_token(token).to_vec(),
            Self::Id(id) => EntryKey::of_id(id).to_vec(),
        }
    }

    fn id(&self) -> TokenId {
        match self {
            Self::Token(token) => token.id,
            Self::Id(id) => *id,
        }
    }
}
