//! The data path of tokenblock, compiled for BPF and for the host alike.
//!
//! No maps, no helpers, no I/O: the kernel programs, the proxy, the tests and the fuzz targets judge bytes
//! with this code and bring their own input and output. The modules follow the data path:
//! [`packet`] -> [`scan`] -> [`candidate`] -> [`digest`] -> [`verdict`] -> [`event`].
#![no_std]
#![cfg_attr(target_arch = "bpf", no_builtins)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![expect(
    clippy::inline_always,
    reason = "a call costs the programs stack, and the verifier a frame; on the host it costs nothing"
)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_lossless,
    clippy::cast_sign_loss,
    reason = "words are taken apart into bytes, and sequence numbers compared, by casts; a checked one panics"
)]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "an arm named is a branch that the verifier walks"
)]

pub mod ban;
pub mod behind;
pub mod blocked;
#[cfg(not(feature = "sha256"))]
pub mod candidate;
#[cfg_attr(
    feature = "sha256",
    expect(dead_code, reason = "the scanner that digests so is not compiled")
)]
pub mod digest;
pub mod event;
pub mod filter;
#[cfg(not(feature = "sha256"))]
pub mod flow;
pub mod framing;
#[cfg(not(feature = "sha256"))]
pub mod inspect;
pub mod intercept;
pub mod location;
pub mod packet;
pub mod reply;
pub mod response;
pub mod rules;
#[cfg(not(feature = "sha256"))]
pub mod scan;
#[cfg(any(feature = "sha256", not(target_arch = "bpf")))]
pub mod sha256;
pub mod sums;
pub mod swar;
pub mod table;
pub mod verdict;

#[cfg(feature = "sha256")]
pub use sha256::{candidate, flow, inspect, scan};
