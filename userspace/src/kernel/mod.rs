//! The kernel tier: loads and attaches the programs, fills their maps, reads their events.

pub mod error;
pub mod load;
