//! `tokenblock`: one denylist of compromised tokens, enforced in the kernel and in a TLS proxy.
//!
//! For the list: `sources -> denylist -> (kernel map | proxy set)`. For a request: `accept -> inspect ->
//! forward | refuse`. For what is seen: `events -> log`.

pub mod cli;
pub mod config_file;
pub mod control;
pub mod counters;
pub mod denylist;
pub mod event;
pub mod exit;
mod giving_way;
pub mod import;
pub mod keeper;
pub mod kernel;
pub mod key;
pub mod log;
mod look;
pub mod places;
mod progress;
pub mod proxy;
pub mod reload;
pub mod run;
pub mod settings;
pub mod sightings;
pub mod sources;
pub mod state;
pub mod wiping;
