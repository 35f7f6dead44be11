//! The shared data path on the host: the fixtures however they are cut, the scanner against the reference,
//! the two tiers against each other.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod adrift;
mod again;
mod agreement;
mod connection;
mod copies;
mod cuts;
mod filtered;
mod flow;
mod fresh;
mod gaps;
mod generate;
mod guess;
mod heedless;
mod late;
mod life;
mod loss;
mod memo;
mod packets;
mod parity;
mod pieces;
mod reasons;
mod repeats;
mod replay;
mod responses;
mod starts;
mod trust;
mod usual;
mod wrap;
