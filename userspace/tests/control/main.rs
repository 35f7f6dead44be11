//! The control socket and its commands, on real processes: what is acknowledged is enforced, and is never lost.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails fails the test that calls it"
)]

mod api;
mod claims;
mod commands;
mod crashes;
mod disk;
mod hashes;
mod lists;
mod peers;
mod prompt;
mod receivers;
mod remote;
mod sightings;
mod support;
