//! The same readings of the same bytes, digested by SHA-256: for entries of which nothing else is known.
//!
//! Scanner and flow engine are compiled a second time with another [`digest`] under them, so that they can't but see
//! what the first ones see. The host has both at once; the programs are built twice, the second time with the feature
//! `sha256`, which puts these modules in the place of the first ones.

#[cfg_attr(
    not(feature = "sha256"),
    expect(clippy::duplicate_mod, reason = "the point of this module")
)]
#[path = "candidate.rs"]
pub mod candidate;
pub mod digest;
#[cfg_attr(
    not(feature = "sha256"),
    expect(clippy::duplicate_mod, reason = "the point of this module")
)]
#[path = "flow/mod.rs"]
pub mod flow;
#[cfg_attr(
    not(feature = "sha256"),
    expect(clippy::duplicate_mod, reason = "the point of this module")
)]
#[path = "inspect.rs"]
pub mod inspect;
#[cfg_attr(
    not(feature = "sha256"),
    expect(clippy::duplicate_mod, reason = "the point of this module")
)]
#[path = "scan/mod.rs"]
pub mod scan;

pub use crate::{behind, filter, framing, location, packet, response, rules, sums, swar};
