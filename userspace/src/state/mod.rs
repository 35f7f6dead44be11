//! What was added through the control socket, kept over restarts: `folder -> store -> additions`.
//!
//! Hashes and metadata only, never a token.

mod additions;
mod entry;
mod error;
mod folder;
mod held;
mod store;

pub use additions::{Addition, Additions, Bulk, Outcome};
pub(crate) use entry::from_hex;
pub use entry::{EntryKey, StoredEntry};
pub use error::StateError;
pub use folder::StateFolder;
pub use store::Store;
