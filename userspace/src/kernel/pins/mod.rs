//! What outlives the process: links and maps, pinned in a folder on a BPF file system.
//!
//! A link that is pinned keeps its program, and a program its maps. So the links alone are what enforces; the next process
//! makes programs with a list and settings of their own, and puts them under the same links. What connections have come to
//! lies in maps that are pinned too, for the next programs to go on with.

mod detach;
mod error;
mod folder;
mod name;
mod set;

pub use detach::{DetachArgs, detach, detach_unwanted, say_what_stays};
pub use error::PinDirError;

pub(super) use folder::PinFolder;
pub(super) use name::Place;
pub(super) use set::{Hold, ReplaceError, SetPins};
