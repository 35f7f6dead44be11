//! What the control socket asks of the keeper, and its answers.
//!
//! A change is on disk first and in force in every tier then, before it is answered.

use std::{collections::HashSet, panic::resume_unwind, path::PathBuf, thread, time::SystemTime};

use tokio::sync::oneshot;

use super::Keeper;
use crate::{
    denylist::{Claims, Denylist, Identity, Record, Tier, TokenDigest, TokenId},
    state::{Addition, EntryKey, StateError, StoredEntry},
};

/// Where an answer goes; nobody listens where the client is gone.
type Reply<T> = oneshot::Sender<Result<T, ChangeError>>;

/// What is asked of the keeper.
pub enum Request {
    /// Add entries, or change them.
    Add(Vec<StoredEntry>, Mode, Reply<Vec<Addition>>),
    /// Add very many entries, and count what that did.
    Import(Vec<StoredEntry>, Mode, Reply<Imported>),
    /// Remove entries.
    Remove(Vec<Target>, Reply<Vec<Removed>>),
    /// Say what is in force of tokens.
    Check(Vec<Identity>, Reply<Vec<Checked>>),
    /// Up to so many additions behind a key, and where to go on.
    List(
        Option<EntryKey>,
        usize,
        Reply<(Vec<StoredEntry>, Option<EntryKey>)>,
    ),
    /// How the list is.
    Status(Reply<ListStatus>),
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

/// What is to be removed.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// A token.
    Token(Identity),
    /// All tokens with this id.
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
    /// What is in force, if anything.
    pub in_force: Option<Record>,
    /// The addition, where it was added.
    pub added: Option<StoredEntry>,
    /// Whether a file lists it.
    pub in_files: bool,
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
    pub(super) fn serve(&mut self, request: Request) {
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
        }
        self.denylist.tidy();
        self.additions.tidy();
    }

    fn add(&mut self, entries: Vec<StoredEntry>) -> Result<Vec<Addition>, ChangeError> {
        let in_force = in_force(&self.denylist, &self.owed);
        let added = self.additions.add(entries, in_force);
        let added = added.inspect_err(unstored)?;
        let digests: Vec<_> = added.iter().map(|a| a.entry.identity.digest).collect();
        self.read_claims();
        self.settle(digests)?;
        Ok(added)
    }

    /// Disk and tiers take a second each of a million entries, so they take them side by side; where the disk fails
    /// the tiers give them back.
    fn import(&mut self, entries: Vec<StoredEntry>, mode: Mode) -> Result<Imported, ChangeError> {
        let bulk = self.additions.plan_bulk(entries)?;
        let imported = Imported {
            added: bulk.added,
            updated: bulk.updated,
            unchanged: bulk.unchanged,
        };
        if mode == Mode::DryRun || bulk.changed.is_empty() {
            return Ok(imported);
        }
        let in_force = in_force(&self.denylist, &self.owed);
        let before = self.additions.hold_all(&bulk.changed, in_force);
        let digests: Vec<_> = bulk.changed.iter().map(|e| e.identity.digest).collect();
        self.read_claims();
        let now = (self.clock)();
        let changed = bulk.changed.iter();
        let effective = changed.filter_map(|entry| self.additions.effective_of(entry, now));
        let records: Vec<_> = effective.collect();
        let (additions, denylist) = (&mut self.additions, &mut self.denylist);
        let (stored, taken) = thread::scope(|scope| {
            let taking = scope.spawn(|| denylist.insert(&records));
            let stored = additions.write(&bulk.changed, &[]);
            (
                stored,
                taking.join().unwrap_or_else(|panic| resume_unwind(panic)),
            )
        });
        if let Err(error) = stored {
            unstored(&error);
            self.additions.take_back(&bulk.changed, before);
            self.read_claims();
            // An error is told where it happens, and what is owed then is tried again.
            let _told = self.settle(digests);
            return Err(error.into());
        }
        if let Err(error) = taken {
            return Err(self.owe(digests, &error));
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
        let (now, hashed) = ((self.clock)(), self.denylist.reader().hashed());
        let (mut entries, mut digests) = (entries.into_iter(), Vec::new());
        for target in targets {
            let of_target = entries.by_ref().take(target.keys().len());
            let gone: Vec<Identity> = of_target.flatten().map(|e| e.identity).collect();
            let by_hash = |token| {
                let hashed = hashed.as_ref();
                hashed.is_some_and(|set| set.record(token, now).is_some())
            };
            let in_files = match target {
                Target::Token(token) if gone.is_empty() => {
                    self.denylist.get(&token.digest).is_some() || by_hash(token)
                }
                Target::Token(_) | Target::Id(_) => gone
                    .iter()
                    .any(|token| self.additions.in_files(&token.digest, now) || by_hash(token)),
            };
            removed.push(Removed {
                id: target.id(),
                removed: !gone.is_empty(),
                in_files,
            });
            digests.extend(gone.iter().map(|token| token.digest));
        }
        self.settle(digests)?;
        Ok(removed)
    }

    fn check(&mut self, tokens: &[Identity]) -> Result<Vec<Checked>, ChangeError> {
        let now = (self.clock)();
        let hashed = self.denylist.reader().hashed();
        let check = |token: &Identity| {
            let hashed = hashed.as_ref().and_then(|set| set.record(token, now));
            let in_force = self.denylist.get(&token.digest).into_iter().chain(hashed);
            let in_force = in_force.reduce(|mut one, other| {
                one.join(&other);
                one
            });
            let added = self.additions.find(&EntryKey::from(token))?;
            let in_files = match &added {
                Some(_) => hashed.is_some() || self.additions.in_files(&token.digest, now),
                None => in_force.is_some(),
            };
            Ok(Checked {
                id: token.id,
                in_force,
                added,
                in_files,
            })
        };
        tokens.iter().map(check).collect()
    }

    fn status(&self) -> ListStatus {
        ListStatus {
            in_force: self.denylist.len(),
            added: self.additions.len(),
            claims: self.claims_in_force.current().map_or(0, |set| {
                let listed = |entry: &&Claims| self.denylist.get(&entry.digest).is_some();
                set.entries().filter(listed).count()
            }),
            files: self.files.clone(),
            read: self.read,
            refused: self.refused.clone(),
            level: self.denylist.is_level() && self.owed.is_empty() && self.missed.is_none(),
            failure: self.additions.failure().map(ToOwned::to_owned),
        }
    }

    /// Brings into force what the additions and the files say of these tokens, which were added at some time.
    pub(super) fn settle(&mut self, digests: Vec<TokenDigest>) -> Result<(), ChangeError> {
        let now = (self.clock)();
        let (mut listed, mut gone) = (Vec::new(), Vec::new());
        for digest in &digests {
            match self.additions.effective(digest, now) {
                Some(record) => listed.push(record),
                None => gone.push(*digest),
            }
        }
        let result = self.denylist.insert(&listed);
        let result = result.and_then(|()| self.denylist.withdraw(&gone));
        if let Err(error) = result {
            return Err(self.owe(digests, &error));
        }
        self.additions.settled(&digests);
        Ok(())
    }

    /// Remembers what a tier did not take.
    fn owe(&mut self, digests: Vec<TokenDigest>, error: &K::Error) -> ChangeError {
        tracing::error!(%error, "the kernel tier did not take the change; will be tried again");
        self.owed.extend(digests);
        ChangeError::Tier(error.to_string())
    }
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
            Self::Token(token) => vec![EntryKey::from(token)],
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
