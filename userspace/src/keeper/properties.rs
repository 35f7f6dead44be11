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
use tokio::sync::oneshot;

use super::*;
use crate::{
    denylist::{Action, Expires, Identity, TokenDigest, identify, model::Model},
    sources::Grammar,
    state::{Store, StoredEntry},
};

/// Far from now, so that nothing is taken from the real clock; in seconds since 1970.
const START: u64 = 4_000_000_000;

/// Tokens by number, each with when it leaves, in seconds from the start.
type Tokens = Vec<(u8, Option<u8>)>;

#[derive(Clone, Debug)]
enum Step {
    Add(Tokens, bool),
    Remove(Vec<u8>),
    File(Tokens),
    Pass(u8),
    Fail(bool),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let tokens = || prop::collection::vec((0..12_u8, prop::option::of(1..60_u8)), 0..6);
    prop_oneof![
        4 => (tokens(), any::<bool>()).prop_map(|(tokens, bulk)| Step::Add(tokens, bulk)),
        2 => prop::collection::vec(0..12_u8, 0..4).prop_map(Step::Remove),
        3 => tokens().prop_map(Step::File),
        3 => (0..20_u8).prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::Fail),
        1 => Just(Step::Restart),
    ]
}

/// What should be: when each token leaves, by files and by additions.
#[derive(Default)]
struct Plain {
    now: u64,
    files: BTreeMap<u8, Option<u64>>,
    added: BTreeMap<u8, Option<u64>>,
}

impl Plain {
    fn is_left(&self, expires: Option<u64>) -> bool {
        expires.is_none_or(|at| at > self.now)
    }

    fn in_force(&self) -> BTreeSet<TokenDigest> {
        let both = self.files.iter().chain(&self.added);
        both.filter(|(_, expires)| self.is_left(**expires))
            .map(|(n, _)| token(*n).digest)
            .collect()
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
            min_token_length: 8,
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

    fn add(&mut self, tokens: &[(u8, Option<u64>)], in_bulk: bool) {
        let added = self.now();
        let entry = |(n, expires): &(u8, Option<u64>)| StoredEntry {
            identity: token(*n),
            action: Action::Block,
            expires: expires.map_or(Expires::NEVER, |at| {
                Expires::at(UNIX_EPOCH + Duration::from_secs(at))
            }),
            reason: None,
            source: None,
            added,
            claims: None,
        };
        let entries = tokens.iter().map(entry).collect();
        if in_bulk {
            let (reply, _answer) = oneshot::channel();
            let request = Request::Import(entries, Mode::Do, reply);
            self.keeper().serve(request);
        } else {
            let (reply, _answer) = oneshot::channel();
            let request = Request::Add(entries, Mode::Do, reply);
            self.keeper().serve(request);
        }
    }

    fn remove(&mut self, tokens: &[u8]) {
        let targets = tokens.iter().map(|n| Target::Token(token(*n))).collect();
        let (reply, _answer) = oneshot::channel();
        self.keeper().serve(Request::Remove(targets, reply));
    }

    fn write(&mut self, tokens: &[(u8, Option<u64>)]) {
        let mut list = String::new();
        for (n, expires) in tokens {
            let at = expires.map(|at| UNIX_EPOCH + Duration::from_secs(at));
            let at = at.map(|at| jiff::Timestamp::try_from(at).unwrap());
            let at = at.map_or(String::new(), |at| format!(" expires={at}"));
            writeln!(list, "{}{at}", text(*n)).unwrap();
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
                Step::Add(tokens, in_bulk) => {
                    let tokens = absolute(tokens);
                    bench.add(&tokens, in_bulk);
                    plain.added.extend(tokens);
                }
                Step::Remove(tokens) => {
                    bench.remove(&tokens);
                    plain.added.retain(|n, _| !tokens.contains(n));
                }
                Step::File(tokens) => {
                    let mut tokens = absolute(tokens);
                    // Of a token that is given twice the later expiry counts.
                    tokens.sort_by_key(|(n, at)| (*n, at.unwrap_or(u64::MAX)));
                    bench.write(&tokens);
                    plain.files = tokens.into_iter().collect();
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
            plain.added.retain(|_, expires| expires.is_none_or(|at| at > now));
            let expected = plain.in_force();
            let held: BTreeSet<_> = bench.kernel.map().into_keys().collect();
            let records = bench.keeper().denylist.records();
            let set: BTreeSet<_> = records.iter().map(|record| record.digest).collect();
            // Even a tier that fails lets nothing go that is listed; the set has all of it.
            prop_assert!(expected.is_subset(&set));
            if !fails {
                prop_assert_eq!(&set, &expected);
                prop_assert_eq!(&held, &expected);
                prop_assert_eq!(bench.keeper().denylist.len(), expected.len());
            }
            let (stored, _) = bench.keeper().additions.page(None, 100).unwrap();
            let stored: BTreeSet<_> = stored.iter().map(|entry| entry.identity.digest).collect();
            let added: BTreeSet<_> = plain.added.keys().map(|n| token(*n).digest).collect();
            prop_assert_eq!(stored, added);
        }
    }
}
