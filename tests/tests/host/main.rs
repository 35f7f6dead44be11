//! The whole host: the real product in namespaces, between real clients and an origin that remembers what it saw.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod answers;
mod bans;
mod beside;
mod browser;
mod churn;
mod clients;
mod clock;
mod control;
mod evasions;
mod flood;
mod framing;
mod harness;
mod hashed;
mod intercept;
mod lab;
mod libraries;
mod lifecycle;
mod list;
mod loss;
mod modes;
mod multipath;
mod pinned;
mod pipelines;
mod raw_segments;
mod refused_starts;
mod reload;
mod secrecy;
mod segments;
mod settings;
mod unit;
mod uplinks;
mod upstreams;
mod verdicts;
mod xdp;
