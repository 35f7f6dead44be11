//! With a filter in front of the digest, as the kernel tier has it, no listed candidate is missed.

use std::collections::HashSet;

use proptest::{prelude::*, sample::Index};
use tokenblock_ebpf::{
    digest::{InstallationKey, TokenDigest},
    filter::{Filter, Fingerprint},
};
use tokenblock_tests::{
    reference::{self, Candidate, Config},
    scanned::{rules, scanned},
};

use crate::generate::{many_cases, sizes, stream};

/// The sharpest filter there can be: it lets through what is listed, and nothing else.
struct Sharp(HashSet<Fingerprint>);

impl Sharp {
    fn new(config: &Config, listed: &[Candidate]) -> Self {
        let key = InstallationKey(config.key);
        let fingerprint = |c: &Candidate| Fingerprint::of(&key, c.domain, &c.text);
        Self(listed.iter().map(fingerprint).collect())
    }
}

impl Filter for Sharp {
    fn is_on(&self) -> bool {
        true
    }

    fn may_hold(&self, fingerprint: Fingerprint) -> bool {
        self.0.contains(&fingerprint)
    }
}

proptest! {
    #![proptest_config(many_cases())]

    #[test]
    fn what_is_listed_is_found((config, bytes) in stream(), which: [Index; 3], sizes in sizes()) {
        let candidates = reference::stream(&config, &bytes);
        let listed: Vec<Candidate> = match &candidates[..] {
            [] => Vec::new(),
            all => which.iter().map(|index| index.get(all).clone()).collect(),
        };
        let digests: HashSet<TokenDigest> = listed.iter().map(|c| c.digest(&config)).collect();
        let want: Vec<_> = candidates
            .iter()
            .map(|c| (c.location, c.digest(&config)))
            .filter(|(_, digest)| digests.contains(digest))
            .collect();
        let filter = Sharp::new(&config, &listed);
        let rules = rules(&config).unwrap();
        for sizes in [&[usize::MAX][..], &sizes] {
            let mut found = scanned(&rules, &bytes, sizes, &filter);
            found.retain(|(_, digest)| digests.contains(digest));
            let text = String::from_utf8_lossy(&bytes);
            prop_assert_eq!(&found, &want, "in pieces of {:?}: {:?}", sizes, text);
        }
    }
}
