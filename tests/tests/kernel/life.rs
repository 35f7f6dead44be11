//! The life of a denylist in the real maps, as the real programs read them.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use proptest::{
    prelude::*,
    test_runner::{TestCaseError, TestRunner},
};
use tokenblock::{
    denylist::{Listed, Sha256Digest, Snapshot, Tier, TokenDigest},
    kernel::{KernelError, KernelMap, map::HashedMap, object::Variant},
};
use tokenblock_ebpf::digest::Domain;
use tokenblock_tests::{
    bpf::{Fate, KEY, Programs, Setup, frame::Frame},
    gate,
    life::{Held, Kernel, Life, TOKENS, id, steps, text},
};

const CASES: u32 = 24;

/// The maps of both sets of programs, for one keeper after the other.
#[derive(Clone)]
struct Maps(Arc<Mutex<(KernelMap, HashedMap)>>);

impl Maps {
    fn with<T>(&self, job: impl FnOnce(&mut KernelMap, &mut HashedMap) -> T) -> T {
        let mut maps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (keyed, hashed) = &mut *maps;
        job(keyed, hashed)
    }
}

impl Tier for Maps {
    type Error = KernelError;

    fn add(&mut self, new: &[(TokenDigest, Listed)], listed: &Snapshot) -> Result<(), KernelError> {
        self.with(|keyed, _| keyed.add(new, listed))
    }

    fn remove(&mut self, digests: &[TokenDigest]) -> Result<(), KernelError> {
        self.with(|keyed, _| keyed.remove(digests))
    }

    fn change_hashed(
        &mut self,
        added: &[(Sha256Digest, Listed)],
        removed: &[Sha256Digest],
        _any: bool,
    ) -> Result<(), KernelError> {
        self.with(|_, hashed| hashed.change(added, removed))
    }
}

/// The programs and their maps; loaded once, since the verifier takes a second for them.
struct Loaded {
    programs: [Programs; 2],
    maps: Maps,
}

impl Loaded {
    fn new() -> Result<Self> {
        let load = |variant| {
            Programs::load(&Setup {
                variant,
                ..Setup::default()
            })
        };
        let (mut keyed, mut hashed) = (load(Variant::Keyed)?, load(Variant::Sha256)?);
        let maps = (keyed.take_keyed()?, hashed.take_hashed()?);
        Ok(Self {
            programs: [keyed, hashed],
            maps: Maps(Arc::new(Mutex::new(maps))),
        })
    }
}

impl Kernel for &mut Loaded {
    type Tier = Maps;

    fn start(&mut self) -> Result<Maps> {
        self.maps.with(|keyed, hashed| {
            let held: Vec<_> = keyed.entries().map(|entry| entry.0).collect();
            keyed.remove(&held)?;
            let mut all = Vec::new();
            for n in 0..TOKENS {
                let id = id(n)?;
                all.extend([Domain::Exact, Domain::Jws].map(|d| Sha256Digest::new(id.0, d)));
            }
            hashed.change(&[], &all)?;
            anyhow::Ok(())
        })?;
        Ok(self.maps.clone())
    }

    fn fail(&mut self, _fails: bool) {}

    fn held(&mut self) -> Result<Held> {
        Ok(self.maps.with(|keyed, hashed| Held {
            keyed: keyed.entries().map(|entry| entry.0).collect(),
            hashed: hashed.entries().map(|entry| entry.0).collect(),
        }))
    }

    fn blocked(&mut self) -> Result<Option<BTreeSet<u8>>> {
        let mut blocked = BTreeSet::new();
        for n in 0..TOKENS {
            let token = text(n);
            let request = format!("GET / HTTP/1.1\r\nAuthorization: Bearer {token}\r\n\r\n");
            let frame = Frame::v4(request).ethernet()?;
            for programs in &mut self.programs {
                if programs.run("ingress_ethernet", &frame)? == Fate::Dropped {
                    blocked.insert(n);
                }
            }
        }
        Ok(Some(blocked))
    }
}

#[test]
fn database_programs_and_proxy_agree_with_a_plain_model() {
    if !gate::programs("life::database_programs_and_proxy_agree_with_a_plain_model") {
        return;
    }
    let loaded = RefCell::new(Loaded::new().unwrap());
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(CASES)
    };
    let agrees = TestRunner::new(config).run(&steps(false), |steps| {
        let failed = |error: anyhow::Error| TestCaseError::fail(format!("{error:?}"));
        let mut loaded = loaded.borrow_mut();
        let mut life = Life::new(&mut *loaded, KEY).map_err(failed)?;
        for step in steps {
            let shown = format!("{step:?}");
            life.step(step)
                .map_err(|error| failed(error.context(shown)))?;
        }
        Ok(())
    });
    agrees.unwrap();
}
