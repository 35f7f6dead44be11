//! The life of a denylist over a kernel tier that is a plain map, and that fails at times.

use std::collections::BTreeSet;

use anyhow::Result;
use proptest::prelude::*;
use tokenblock::denylist::model::Model;
use tokenblock_ebpf::digest::InstallationKey;
use tokenblock_tests::life::{Held, Kernel, Life, steps};

/// The map, to be looked into.
#[derive(Default)]
struct Map(Model);

impl Kernel for Map {
    type Tier = Model;

    fn start(&mut self) -> Result<Model> {
        self.0 = Model::default();
        Ok(self.0.clone())
    }

    fn fail(&mut self, fails: bool) {
        self.0.fail(fails);
    }

    fn held(&mut self) -> Result<Held> {
        let hashed = self.0.hashed().into_iter();
        Ok(Held {
            keyed: self.0.map().into_keys().collect(),
            hashed: hashed.map(|entry| entry.0.key()).collect(),
        })
    }

    fn blocked(&mut self) -> Result<Option<BTreeSet<u8>>> {
        Ok(None)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn database_and_tiers_agree_with_a_plain_model(steps in steps(true)) {
        let mut life = Life::new(Map::default(), InstallationKey([0xab; 16])).unwrap();
        for step in steps {
            let shown = format!("{step:?}");
            let done = life.step(step);
            prop_assert!(done.is_ok(), "{shown}: {:?}", done.err());
        }
    }
}
