//! The same readings of the same bytes, digested by SHA-256: for entries of which nothing else is known.
//!
//! The scanner is compiled a second time with another [`digest`] under it, so that it can't but see what the
//! first one sees. For the host alone: the programs look up keyed digests only.

#[expect(clippy::duplicate_mod, reason = "the point of this module")]
#[path = "candidate.rs"]
pub mod candidate;
pub mod digest;
#[expect(clippy::duplicate_mod, reason = "the point of this module")]
#[path = "inspect.rs"]
pub mod inspect;
#[expect(clippy::duplicate_mod, reason = "the point of this module")]
#[path = "scan.rs"]
pub mod scan;

pub use crate::{filter, location, rules, swar};
