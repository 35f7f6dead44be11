//! Where tokens stand, as both tiers know it.

use std::sync::Arc;

use tokenblock_ebpf::rules::Rules;

/// Where tokens stand: the rules, and how events call the locations of their ids.
#[derive(Clone)]
pub struct Places {
    /// By which they are found.
    pub rules: Arc<Rules>,
    /// By id.
    pub locations: Arc<[Arc<str>]>,
}
