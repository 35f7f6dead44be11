//! The stream of a flow, made exact without a copy of it.
//!
//! Every byte of a flow is passed once. What is passed is scanned from the state in which the byte before it
//! was left, so the application can read nothing that was not judged in its place: a second copy of bytes that
//! the receiver has not acknowledged is dropped, whatever it says. See "The flow engine" in ARCHITECTURE.md.

mod body;
mod connection;
mod copies;
mod ends;
mod gaps;
mod guess;
mod held;
mod key;
mod left;
mod memo;
mod passed;
mod place;
mod record;
mod repeat;
mod scans;
mod stamps;
mod trust;

pub use self::{
    copies::{Copied, Pieces},
    key::{FlowKey, Gap, GapKey, PlaceKeys},
    left::Left,
    memo::{Recalled, Rest},
    passed::Conflict,
    place::Place,
    record::Flow,
    repeat::Passed,
    scans::{STEPS, Start},
};

/// Whether sequence number `a` is before `b` (RFC 9293 section 3.4).
#[inline(always)]
#[must_use]
pub const fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}
