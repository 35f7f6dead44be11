//! The denylist: entries, and the two forms in which the tiers hold it.

mod canonical;
mod claims;
mod expiries;
mod hashed;
pub(crate) mod jwt;
mod list;
pub mod model;
pub(crate) mod overlay;
mod set;
mod store;
mod table;
mod token;

pub use canonical::{Identity, Malformed, Skipped, Unlistable, identify};
pub use claims::{Asked, Claim, ClaimSet, Claims, ClaimsReader, Conditions};
pub use hashed::{HashedChange, HashedReader, HashedRecord, HashedSet, Sha256Digest};
pub use list::{Entry, Expires, List, Record};
pub use set::{ProxySet, SetReader, Snapshot};
pub use store::{Changed, Denylist};
pub use token::{Action, Fingerprint, Listed, ShortTokenId, TokenId};
pub use tokenblock_ebpf::digest::TokenDigest;

/// A tier's own copy of the denylist. Additions are in force when the call returns.
pub trait Tier: Send {
    /// Why the tier could not take a change.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Adds entries, or replaces what is listed under the same digest. `listed` is what the tier holds besides, or part of
    /// that, for one that must look at all of it to grow.
    ///
    /// # Errors
    /// Where not all of them are in force; what was listed before stays listed.
    fn add(
        &mut self,
        entries: &[(TokenDigest, Listed)],
        listed: &Snapshot,
    ) -> Result<(), Self::Error>;

    /// Removes entries; one that is not there is no error.
    ///
    /// # Errors
    /// Where not all of them are gone.
    fn remove(&mut self, digests: &[TokenDigest]) -> Result<(), Self::Error>;

    /// Lists entries that are known by their SHA-256 alone, or lists them otherwise, and takes others off then; `any` says
    /// whether there are any of that kind afterwards.
    ///
    /// # Errors
    /// Where not all of them are in force, or not all others gone; what was listed before stays listed where they are
    /// not.
    fn change_hashed(
        &mut self,
        added: &[(Sha256Digest, Listed)],
        removed: &[Sha256Digest],
        any: bool,
    ) -> Result<(), Self::Error>;
}
