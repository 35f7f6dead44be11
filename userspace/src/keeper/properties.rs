//! Whatever is added, removed, expired, reloaded and restarted: database and tiers hold what a plain model holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use proptest::prelude::*;
use tempfile::TempDir;
use tokenblock_ebpf::digest::Domain;
use tokio::sync::oneshot;

use super::*;
use crate::{
    denylist::{Action, Expires, Identity, Sha256Digest, TokenDigest, identify, model::Model},
    sources::Grammar,
    state::{EntryKey, Store, StoredEntry, Subject},
};

/// Far from now, so that nothing is taken from the real clock; in seconds since 1970.
const START: u64 = 4_000_000_000;

/// Tokens by number, each with when it leaves, in seconds from the start.
type Tokens = Vec<(u8, Option<u8>)>;

/// How a token is listed or taken off: itself, or by its SHA-256 alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Text,
    Hash,
}

#[derive(Clone, Debug)]
enum Step {
    Add(By, Tokens, bool),
    Remove(By, Vec<u8>),
    /// The second by their hashes.
    File(Tokens, Tokens),
    Pass(u8),
    Fail(bool),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let tokens = || prop::collection::vec((0..12_u8, prop::option::of(1..60_u8)), 0..6);
    let by = || prop_oneof![2 => Just(By::Text), 1 => Just(By::Hash)];
    prop_oneof![
        4 => (by(), tokens(), any::<bool>()).prop_map(|(by, tokens, bulk)| Step::Add(by, tokens, bulk)),
        2 => (by(), prop::collection::vec(0..12_u8, 0..4)).prop_map(|(by, tokens)| Step::Remove(by, tokens)),
        3 => (tokens(), tokens()).prop_map(|(tokens, hashed)| Step::File(tokens, hashed)),
        3 => (0..20_u8).prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::Fail),
        1 => Just(Step::Restart),
    ]
}

/// When each token leaves.
type Ends = BTreeMap<u8, Option<u64>>;

/// What should be, by files and by additions, of tokens and of their hashes.
#[derive(Default)]
struct Plain {
    now: u64,
    files: Ends,
    added: Ends,
    hashed_files: Ends,
    hashed: Ends,
}

impl Plain {
    fn is_left(&self, expires: Option<u64>) -> bool {
        expires.is_none_or(|at| at > self.now)
    }

    fn in_force(&self) -> BTreeSet<TokenDigest> {
        self.left(&self.files, &self.added)
            .map(|n| token(n).digest)
            .collect()
    }

    /// A hash stands for its token however that is read.
    fn hashed_in_force(&self) -> BTreeSet<Sha256Digest> {
        let read = |n| [Domain::Exact, Domain::Jws].map(|d| Sha256Digest::new(token(n).id.0, d));
        let left = self.left(&self.hashed_files, &self.hashed);
        left.flat_map(read).collect()
    }

    fn left<'a>(&self, files: &'a Ends, added: &'a Ends) -> impl Iterator<Item = u8> {
        let both = files.iter().chain(added);
        both.filter(|(_, expires)| self.is_left(**expires))
            .map(|(n, _)| *n)
    }
}

fn text(n: u8) -> String {
    format!("token-number-{n:03}")
}

fn key() -> tokenblock_ebpf::digest::InstallationKey {
    tokenblock_ebpf::digest::InstallationKey([0xab; 16])
}

fn token(n: u8) -> Identity {
    identify(&key(), 8, &text(n)).unwrap()
}

/// A keeper, restarted at will.
struct Bench {
    folder: TempDir,
    seconds: Arc<AtomicU64>,
    kernel: Model,
    keeper: Option<Keeper<Model>>,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        fs::write(&key, "ab".repeat(16)).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&key, mode).unwrap();
        fs::write(folder.path().join("list"), "").unwrap();
        let mut bench = Self {
            folder,
            seconds: Arc::new(AtomicU64::new(START)),
            kernel: Model::default(),
            keeper: None,
        };
        bench.restart();
        bench
    }

    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.seconds.load(Ordering::Relaxed))
    }

    fn restart(&mut self) {
        self.keeper = None;
        self.kernel = Model::default();
        let sources = Sources {
            files: vec![Source {
                path: self.folder.path().join("list"),
                grammar: Grammar::Entries,
            }],
            key: StoredKey::load_or_create(self.folder.path()).unwrap(),
            min_token_length: 8.into(),
            jwt_expiry: None,
        };
        let store = Store::open(self.folder.path(), sources.key.get()).unwrap();
        let additions = Additions::open(store, self.now()).unwrap();
        let loaded = sources.read(additions, self.now()).unwrap();
        let mut keeper = Keeper::start(sources, loaded, Some(self.kernel.clone())).unwrap();
        let seconds = Arc::clone(&self.seconds);
        let clock = move || UNIX_EPOCH + Duration::from_secs(seconds.load(Ordering::Relaxed));
        keeper.clock = Box::new(clock);
        self.keeper = Some(keeper);
    }

    fn keeper(&mut self) -> &mut Keeper<Model> {
        self.keeper.as_mut().unwrap()
    }

    fn add(&mut self, by: By, tokens: &[(u8, Option<u64>)], in_bulk: bool) {
        let added = self.now();
        let entry = |(n, expires): &(u8, Option<u64>)| StoredEntry {
            identity: match by {
                By::Text => token(*n),
                By::Hash => StoredEntry::identity_of_hash(token(*n).id, None),
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
        };
        let entries = tokens.iter().map(entry).collect();
        if in_bulk {
            let (reply, _answer) = oneshot::channel();
            let request = Request::Import(vec![entries], Mode::Do, reply);
            self.keeper().serve(request);
        } else {
            let (reply, _answer) = oneshot::channel();
            let request = Request::Add(entries, Mode::Do, reply);
            self.keeper().serve(request);
        }
    }

    fn remove(&mut self, by: By, tokens: &[u8]) {
        let target = |n: &u8| match by {
            By::Text => Target::Token(token(*n)),
            By::Hash => Target::Id(token(*n).id),
        };
        let targets = tokens.iter().map(target).collect();
        let (reply, _answer) = oneshot::channel();
        self.keeper().serve(Request::Remove(targets, reply));
    }

    fn write(&mut self, tokens: &[(u8, Option<u64>)], hashed: &[(u8, Option<u64>)]) {
        let mut list = String::new();
        let hashed = hashed
            .iter()
            .map(|(n, at)| (format!("sha256:{}", token(*n).id), at));
        let tokens = tokens.iter().map(|(n, at)| (text(*n), at));
        for (text, expires) in tokens.chain(hashed) {
            let at = expires.map(|at| UNIX_EPOCH + Duration::from_secs(at));
            let at = at.map(|at| jiff::Timestamp::try_from(at).unwrap());
            let at = at.map_or(String::new(), |at| format!(" expires={at}"));
            writeln!(list, "{text}{at}").unwrap();
        }
        fs::write(self.folder.path().join("list"), list).unwrap();
        self.keeper().reload(Change::Settled);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn database_and_tiers_agree_with_a_plain_model(steps in prop::collection::vec(step(), 1..25)) {
        let (mut bench, mut plain, mut fails) = (Bench::new(), Plain::default(), false);
        plain.now = START;
        for step in steps {
            // Only what is still to come is added, as the control socket has it.
            let absolute = |tokens: Tokens| -> Vec<(u8, Option<u64>)> {
                let at = |(n, expires): (u8, Option<u8>)| (n, expires.map(|e| START + u64::from(e)));
                tokens.into_iter().map(at).filter(|(_, at)| plain.is_left(*at)).collect()
            };
            match step {
                Step::Add(by, tokens, in_bulk) => {
                    let tokens = absolute(tokens);
                    bench.add(by, &tokens, in_bulk);
                    match by {
                        By::Text => plain.added.extend(tokens),
                        By::Hash => plain.hashed.extend(tokens),
                    }
                }
                Step::Remove(by, tokens) => {
                    bench.remove(by, &tokens);
                    // Both ways a token is meant however it was added.
                    plain.added.retain(|n, _| !tokens.contains(n));
                    plain.hashed.retain(|n, _| !tokens.contains(n));
                }
                Step::File(tokens, hashed) => {
                    let (mut tokens, mut hashed) = (absolute(tokens), absolute(hashed));
                    // Of a token that is given twice the later expiry counts.
                    for tokens in [&mut tokens, &mut hashed] {
                        tokens.sort_by_key(|(n, at)| (*n, at.unwrap_or(u64::MAX)));
                    }
                    bench.write(&tokens, &hashed);
                    plain.files = tokens.into_iter().collect();
                    plain.hashed_files = hashed.into_iter().collect();
                }
                Step::Pass(seconds) => {
                    plain.now += u64::from(seconds);
                    bench.seconds.store(plain.now, Ordering::Relaxed);
                }
                Step::Fail(fail) => {
                    fails = fail;
                    bench.kernel.fail(fail);
                }
                Step::Restart => {
                    fails = false;
                    bench.restart();
                }
            }
            bench.keeper().tick();
            let now = plain.now;
            for added in [&mut plain.added, &mut plain.hashed] {
                added.retain(|_, expires| expires.is_none_or(|at| at > now));
            }
            let expected = plain.in_force();
            let expected_hashed = plain.hashed_in_force();
            let hashed = bench.keeper().denylist.hashed();
            let hashed: BTreeSet<_> = hashed.entries().into_iter().map(|entry| entry.0).collect();
            let held_hashed = bench.kernel.hashed().into_iter().map(|entry| entry.0);
            let held_hashed: BTreeSet<_> = held_hashed.collect();
            prop_assert!(expected_hashed.is_subset(&hashed));
            if !fails {
                prop_assert_eq!(&hashed, &expected_hashed);
                prop_assert_eq!(&held_hashed, &expected_hashed);
            }
            let held: BTreeSet<_> = bench.kernel.map().into_keys().collect();
            let records = bench.keeper().denylist.records();
            let set: BTreeSet<_> = records.iter().map(|record| record.digest).collect();
            // Even a tier that fails lets nothing go that is listed; the set has all of it.
            prop_assert!(expected.is_subset(&set));
            if !fails {
                prop_assert_eq!(&set, &expected);
                prop_assert_eq!(&held, &expected);
                let entries = expected.len() + expected_hashed.len() / 2;
                prop_assert_eq!(bench.keeper().denylist.len(), entries);
            }
            let (stored, _) = bench.keeper().additions.page(None, 100).unwrap();
            let stored: BTreeSet<_> = stored.iter().map(StoredEntry::key).collect();
            let added = plain.added.keys().map(|n| EntryKey::from(&token(*n)));
            let hashed = plain.hashed.keys().map(|n| EntryKey::of_hash(&token(*n).id, None));
            prop_assert_eq!(stored, added.chain(hashed).collect());
        }
    }
}
