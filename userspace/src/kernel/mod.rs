//! The kernel tier: loads and attaches the programs, fills their maps, reads their events.

pub mod attach;
mod batch;
mod beside;
pub mod counts;
pub mod debug;
pub mod error;
pub mod events;
mod filter;
pub mod flows;
mod generation;
mod hashed;
pub mod intercept;
pub mod interfaces;
mod live;
pub mod load;
pub mod map;
pub mod object;
pub mod patterns;
pub mod pins;
mod programs;
mod shared;
mod system;
mod table;
mod tier;
mod unjudged;
pub mod xdp;

pub use counts::Counts;
pub use error::KernelError;
pub use hashed::HashedTier;
pub use intercept::{InterceptSettings, Interception};
pub use live::LiveSettings;
pub use map::KernelMap;
pub use tier::KernelTier;
