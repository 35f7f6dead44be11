//! The life of a denylist, step by step: whatever is added, removed, expired, reloaded and restarted, and
//! however the clock is set, database and tiers hold what a plain model holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs, iter,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use proptest::prelude::*;
use tempfile::TempDir;
use tokenblock::{
    denylist::{Action, Expires, Identity, Sha256Digest, Tier, TokenDigest, TokenId, identify},
    keeper::{Keeper, Mode, Request, Sources, Target},
    key::StoredKey,
    sources::{Change, Grammar, Source},
    state::{Additions, EntryKey, Store, StoredEntry, Subject},
};
use tokenblock_ebpf::digest::{Domain, InstallationKey};
use tokio::sync::oneshot;

/// How many tokens there are that come and go.
pub const TOKENS: u8 = 12;
/// Far from now, so that nothing is taken from the real clock; in seconds since 1970.
const START: u64 = 4_000_000_000;
/// Other tokens that come at a time: more than the kernel tier's first table holds.
const FILLERS: usize = 4000;

/// Tokens by number, each with when it leaves, in seconds from the start.
type Tokens = Vec<(u8, Option<u8>)>;

/// The same in seconds since 1970; none of them twice.
type Ends = BTreeMap<u8, Option<u64>>;

/// How a token is listed or taken off: itself, or by its SHA-256 alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// By its text.
    Text,
    /// By its hash.
    Hash,
}

/// What happens to the list.
#[derive(Clone, Debug)]
pub enum Step {
    /// Tokens are added, one by one or in bulk.
    Add(By, Tokens, bool),
    /// Tokens are removed.
    Remove(By, Vec<u8>),
    /// The file is written: tokens by their text, others by their hash, and whether many others stand in it.
    File(Tokens, Tokens, bool),
    /// The file is broken, until it is written again.
    Break,
    /// So many seconds pass.
    Pass(u8),
    /// The clock is set back by so many.
    SetBack(u8),
    /// The kernel tier fails from now on, or doesn't any more.
    Fail(bool),
    /// The process ends and starts again.
    Restart,
}

/// Steps, with a kernel tier that may `fail` or that doesn't.
pub fn steps(fail: bool) -> impl Strategy<Value = Vec<Step>> {
    let tokens = || prop::collection::vec((0..TOKENS, prop::option::of(1..60_u8)), 0..6);
    let by = || prop_oneof![2 => Just(By::Text), 1 => Just(By::Hash)];
    let numbers = || prop::collection::vec(0..TOKENS, 0..4);
    let many = || prop::bool::weighted(0.2);
    let step = prop_oneof![
        4 => (by(), tokens(), any::<bool>()).prop_map(|(by, tokens, bulk)| Step::Add(by, tokens, bulk)),
        2 => (by(), numbers()).prop_map(|(by, tokens)| Step::Remove(by, tokens)),
        3 => (tokens(), tokens(), many()).prop_map(|(texts, hashes, many)| Step::File(texts, hashes, many)),
        1 => Just(Step::Break),
        3 => (0..20_u8).prop_map(Step::Pass),
        1 => (0..40_u8).prop_map(Step::SetBack),
        1 => any::<bool>().prop_map(move |fails| Step::Fail(fail && fails)),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..25)
}

/// The kernel tier of a test.
pub trait Kernel {
    /// What the keeper gets.
    type Tier: Tier + 'static;

    /// A tier that is empty, as after a start.
    ///
    /// # Errors
    /// Where it can't be emptied.
    fn start(&mut self) -> Result<Self::Tier>;

    /// Has it fail, or not.
    fn fail(&mut self, fails: bool);

    /// What it holds.
    ///
    /// # Errors
    /// Where it can't be read.
    fn held(&mut self) -> Result<Held>;

    /// The tokens that it blocks, by their numbers, where it can be asked.
    ///
    /// # Errors
    /// Where it can't be run.
    fn blocked(&mut self) -> Result<Option<BTreeSet<u8>>>;
}

/// What a kernel tier holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Keyed digests.
    pub keyed: BTreeSet<TokenDigest>,
    /// What it looks hashes up by.
    pub hashed: BTreeSet<TokenDigest>,
}

impl Held {
    /// What it lacks of the other, and what it has besides: some of it.
    fn against(&self, other: &Self) -> (Self, Self) {
        const SOME: usize = 3;
        let lacks = |one: &BTreeSet<TokenDigest>, other: &BTreeSet<TokenDigest>| {
            other.difference(one).take(SOME).copied().collect()
        };
        let difference = |one: &Self, other: &Self| Self {
            keyed: lacks(&one.keyed, &other.keyed),
            hashed: lacks(&one.hashed, &other.hashed),
        };
        (difference(self, other), difference(other, self))
    }
}

/// What should be, by files and by additions, of tokens and of their hashes.
#[derive(Default)]
struct Plain {
    now: u64,
    files: Ends,
    added: Ends,
    hashed_files: Ends,
    hashed: Ends,
    fillers: bool,
}

impl Plain {
    fn is_left(&self, expires: Option<u64>) -> bool {
        expires.is_none_or(|at| at > self.now)
    }

    fn left<'a>(&self, files: &'a Ends, added: &'a Ends) -> BTreeSet<u8> {
        let both = files.iter().chain(added);
        let left = both.filter(|(_, expires)| self.is_left(**expires));
        left.map(|(n, _)| *n).collect()
    }

    fn by_text(&self) -> BTreeSet<u8> {
        self.left(&self.files, &self.added)
    }

    fn by_hash(&self) -> BTreeSet<u8> {
        self.left(&self.hashed_files, &self.hashed)
    }

    fn held(&self, key: &InstallationKey, fillers: &[TokenDigest]) -> Result<Held> {
        let mut held = Held::default();
        for n in self.by_text() {
            held.keyed.insert(token(key, n)?.digest);
        }
        held.keyed.extend(fillers.iter().filter(|_| self.fillers));
        for n in self.by_hash() {
            // A hash stands for its token however that is read.
            let id = token(key, n)?.id;
            let read = [Domain::Exact, Domain::Jws].map(|domain| Sha256Digest::new(id.0, domain));
            held.hashed.extend(read.map(|digest| digest.key()));
        }
        Ok(held)
    }
}

/// The text of a token.
#[must_use]
pub fn text(n: u8) -> String {
    format!("token-number-{n:03}")
}

fn filler(n: usize) -> String {
    format!("other-token-{n:05}")
}

fn token(key: &InstallationKey, n: u8) -> Result<Identity> {
    Ok(identify(key, 8, &text(n))?)
}

/// The id of a token.
///
/// # Errors
/// Never: the text is a token.
pub fn id(n: u8) -> Result<TokenId> {
    Ok(token(&InstallationKey([0; 16]), n)?.id)
}

/// A keeper over a state folder and a file, restarted at will.
pub struct Life<K: Kernel> {
    folder: TempDir,
    key: InstallationKey,
    /// What may be listed: of the tokens, and of the many others.
    digests: (Vec<TokenDigest>, Vec<TokenDigest>),
    seconds: Arc<AtomicU64>,
    kernel: K,
    keeper: Option<Keeper<K::Tier>>,
    plain: Plain,
    fails: bool,
}

impl<K: Kernel> Life<K> {
    /// An empty list under this key.
    ///
    /// # Errors
    /// Where the folder can't be made.
    pub fn new(kernel: K, key: InstallationKey) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("key");
        let digits: String = key.0.iter().flat_map(|byte| hex(*byte)).collect();
        fs::write(&path, digits)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&path, mode)?;
        fs::write(folder.path().join("list"), "")?;
        let digest = |text: String| Ok(identify(&key, 8, &text)?.digest);
        let tokens = (0..TOKENS).map(text).map(digest);
        let fillers = (0..FILLERS).map(filler).map(digest);
        let digests = (
            tokens.collect::<Result<_>>()?,
            fillers.collect::<Result<_>>()?,
        );
        let mut life = Self {
            folder,
            key,
            digests,
            seconds: Arc::new(AtomicU64::new(START)),
            kernel,
            keeper: None,
            plain: Plain {
                now: START,
                ..Plain::default()
            },
            fails: false,
        };
        life.restart()?;
        Ok(life)
    }

    /// Does what the step says, and asserts what is true then.
    ///
    /// # Errors
    /// What is not.
    pub fn step(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Add(by, tokens, in_bulk) => {
                let tokens = self.to_come(tokens);
                self.add(by, &tokens, in_bulk)?;
                match by {
                    By::Text => self.plain.added.extend(tokens),
                    By::Hash => self.plain.hashed.extend(tokens),
                }
            }
            Step::Remove(by, tokens) => {
                self.remove(by, &tokens)?;
                // Both ways a token is meant however it was added.
                self.plain.added.retain(|n, _| !tokens.contains(n));
                self.plain.hashed.retain(|n, _| !tokens.contains(n));
            }
            Step::File(texts, hashes, fillers) => {
                let [texts, hashes] = [texts, hashes].map(|tokens| self.to_come(tokens));
                self.plain.files = texts;
                self.plain.hashed_files = hashes;
                self.plain.fillers = fillers;
                self.write_file()?;
                self.keeper()?.reload(Change::Settled);
            }
            // What a tier has not let go stays in force while the file is broken, and for longer than this model knows.
            Step::Break if self.fails => {}
            Step::Break => {
                // What it held stays in force.
                fs::write(self.list(), "token-number-000\nno entry at all\n")?;
                self.keeper()?.reload(Change::Settled);
            }
            Step::Pass(seconds) => self.set_clock(self.plain.now + u64::from(seconds)),
            Step::SetBack(seconds) => {
                // The files are read again then; a broken one would not be.
                self.write_file()?;
                self.set_clock(self.plain.now - u64::from(seconds));
            }
            Step::Fail(fails) => {
                self.fails = fails;
                self.kernel.fail(fails);
            }
            Step::Restart => {
                self.fails = false;
                self.kernel.fail(false);
                // A broken one would be refused.
                self.write_file()?;
                self.restart()?;
            }
        }
        self.keeper()?.tick();
        self.check()
    }

    fn set_clock(&mut self, now: u64) {
        self.plain.now = now;
        self.seconds.store(now, Ordering::Relaxed);
    }

    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.plain.now)
    }

    fn keeper(&mut self) -> Result<&mut Keeper<K::Tier>> {
        self.keeper.as_mut().context("no keeper")
    }

    /// Only what is still to come is added, as the control socket has it; of what is given twice the later end counts.
    fn to_come(&self, tokens: Tokens) -> Ends {
        let mut ends = Ends::new();
        for (n, seconds) in tokens {
            let at = seconds.map(|seconds| START + u64::from(seconds));
            if self.plain.is_left(at) {
                let later = ends.get(&n).is_some_and(|known| match (known, at) {
                    (None, _) => true,
                    (Some(_), None) => false,
                    (Some(known), Some(at)) => *known > at,
                });
                if !later {
                    ends.insert(n, at);
                }
            }
        }
        ends
    }

    fn restart(&mut self) -> Result<()> {
        // One at a time has the database.
        self.keeper = None;
        let sources = Sources {
            files: vec![Source {
                path: self.list(),
                grammar: Grammar::Entries,
            }],
            key: StoredKey::load_or_create(self.folder.path())?,
            min_token_length: 8.into(),
            jwt_expiry: None,
        };
        let store = Store::open(self.folder.path(), sources.key.get())?;
        let additions = Additions::open(store, self.now())?;
        let loaded = sources.read(additions, self.now())?;
        let keeper = Keeper::start(sources, loaded, Some(self.kernel.start()?))?;
        let seconds = Arc::clone(&self.seconds);
        let clock = move || UNIX_EPOCH + Duration::from_secs(seconds.load(Ordering::Relaxed));
        self.keeper = Some(keeper.with_clock(clock));
        Ok(())
    }

    fn add(&mut self, by: By, tokens: &Ends, in_bulk: bool) -> Result<()> {
        let (key, added) = (self.key, self.now());
        let entry = |(n, expires): (&u8, &Option<u64>)| {
            let token = token(&key, *n)?;
            Ok(StoredEntry {
                identity: match by {
                    By::Text => token,
                    By::Hash => StoredEntry::identity_of_hash(token.id, None),
                },
                action: Action::Block,
                expires: expires.map_or(Expires::NEVER, |at| {
                    Expires::at(UNIX_EPOCH + Duration::from_secs(at))
                }),
                reason: None,
                source: None,
                added,
                subject: match by {
                    By::Text => Subject::Token,
                    By::Hash => Subject::Hash(None),
                },
            })
        };
        let entries = tokens.iter().map(entry).collect::<Result<Vec<_>>>()?;
        let keeper = self.keeper()?;
        if in_bulk {
            let (reply, _answer) = oneshot::channel();
            keeper.serve(Request::Import(vec![entries], Mode::Do, reply));
        } else {
            let (reply, _answer) = oneshot::channel();
            keeper.serve(Request::Add(entries, Mode::Do, reply));
        }
        Ok(())
    }

    fn remove(&mut self, by: By, tokens: &[u8]) -> Result<()> {
        let key = self.key;
        let target = |n: &u8| {
            let token = token(&key, *n)?;
            Ok(match by {
                By::Text => Target::Token(token),
                By::Hash => Target::Id(token.id),
            })
        };
        let targets = tokens.iter().map(target).collect::<Result<_>>()?;
        let (reply, _answer) = oneshot::channel();
        self.keeper()?.serve(Request::Remove(targets, reply));
        Ok(())
    }

    fn list(&self) -> PathBuf {
        self.folder.path().join("list")
    }

    fn write_file(&self) -> Result<()> {
        let plain = &self.plain;
        let mut list = String::new();
        let texts = plain.files.iter();
        let mut lines: Vec<_> = texts.map(|(n, at)| (text(*n), *at)).collect();
        for (n, at) in &plain.hashed_files {
            lines.push((format!("sha256:{}", id(*n)?), *at));
        }
        let fillers = (0..FILLERS).filter(|_| plain.fillers).map(filler);
        lines.extend(fillers.zip(iter::repeat(None)));
        for (text, expires) in lines {
            write!(list, "{text}")?;
            if let Some(at) = expires {
                let at = jiff::Timestamp::try_from(UNIX_EPOCH + Duration::from_secs(at))?;
                write!(list, " expires={at}")?;
            }
            list.push('\n');
        }
        Ok(fs::write(self.list(), list)?)
    }

    fn check(&mut self) -> Result<()> {
        let expected = self.plain.held(&self.key, &self.digests.1)?;
        let reader = self.keeper()?.reader();
        let (tokens, fillers) = &self.digests;
        let listed = tokens.iter().chain(fillers);
        let listed = listed.filter(|digest| reader.get(digest).is_some());
        let set: BTreeSet<TokenDigest> = listed.copied().collect();
        let entries = reader.hashed().map_or(Vec::new(), |set| set.entries());
        let hashed: BTreeSet<_> = entries.iter().map(|entry| entry.0.key()).collect();
        // Even where a tier fails nothing is let go that is listed; the set has all of it.
        let of_set = Held { keyed: set, hashed };
        let (missing, _) = of_set.against(&expected);
        ensure!(missing == Held::default(), "the set lacks {missing:?}");
        if !self.fails {
            let (_, besides) = of_set.against(&expected);
            ensure!(besides == Held::default(), "the set has {besides:?}");
            let (missing, besides) = self.kernel.held()?.against(&expected);
            let same = missing == Held::default() && besides == Held::default();
            ensure!(same, "the kernel tier lacks {missing:?}, has {besides:?}");
            if let Some(blocked) = self.kernel.blocked()? {
                let due = &self.plain.by_text() | &self.plain.by_hash();
                ensure!(
                    blocked == due,
                    "the kernel tier blocks {blocked:?}, not {due:?}"
                );
            }
            let (reply, mut answer) = oneshot::channel();
            self.keeper()?.serve(Request::Status(reply));
            let status = answer.try_recv()??;
            let entries = expected.keyed.len() + expected.hashed.len() / 2;
            ensure!(status.in_force == entries, "{status:?}, not {entries}");
            ensure!(status.level, "{status:?}");
        }
        self.check_stored()
    }

    fn check_stored(&mut self) -> Result<()> {
        let (reply, mut answer) = oneshot::channel();
        self.keeper()?.serve(Request::List(None, 100, reply));
        let (stored, _) = answer.try_recv()??;
        let stored: BTreeSet<_> = stored.iter().map(StoredEntry::key).collect();
        let mut due = BTreeSet::new();
        let none = Ends::new();
        for n in self.plain.left(&none, &self.plain.added) {
            due.insert(EntryKey::from(&token(&self.key, n)?));
        }
        for n in self.plain.left(&none, &self.plain.hashed) {
            due.insert(EntryKey::of_hash(&id(n)?, None));
        }
        ensure!(stored == due, "stored are {stored:?}, not {due:?}");
        Ok(())
    }
}

fn hex(byte: u8) -> [char; 2] {
    let digit = |n: u8| char::from_digit(n.into(), 16).unwrap_or('0');
    [digit(byte >> 4), digit(byte & 15)]
}
