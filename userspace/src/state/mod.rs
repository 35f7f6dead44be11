//! What was added through the control socket, kept over restarts: `folder -> store -> additions`.
//!
//! Hashes and metadata only, never a token.

mod additions;
mod entry;
mod error;
mod folder;
mod held;
mod memory;
mod store;

pub use additions::{Addition, Additions, Bulk, Expired, Outcome};
pub(crate) use entry::from_hex;
pub use entry::{EntryKey, StoredEntry, Subject};
pub use error::StateError;
pub use folder::StateFolder;
pub use memory::{Before, Memory};
pub use store::Store;
