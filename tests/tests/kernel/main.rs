//! The real kernel programs on single packets.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agreement;
mod answers;
mod budget;
mod flood;
mod flows;
mod growth;
mod life;
mod memo;
mod modes;
mod multipath;
mod reasons;
mod secrecy;
mod traces;
mod verdicts;
mod xdp;

use tokenblock::kernel::{load::CLASSIFIERS, object::Variant};
use tokenblock_tests::{
    bpf::{MAX_FRAME, Programs, Setup, frame::Frame},
    fixtures::{Fixture, OPAQUE},
    gate,
};

/// The programs with the fixtures' denylist, or `None` after a line that says why not.
fn fixtures_listed(test: &str) -> Option<Programs> {
    gate::programs(test).then(|| Programs::with_fixtures(&Setup::default()).unwrap())
}

/// Both sets of programs with the fixtures' denylist, the one by its tokens, the other by their SHA-256; none after a
/// line that says why not.
fn each_variant(test: &str) -> Vec<Programs> {
    if !gate::programs(test) {
        return Vec::new();
    }
    let load = |variant| {
        let setup = Setup {
            variant,
            ..Setup::default()
        };
        Programs::with_fixtures(&setup).unwrap()
    };
    [Variant::Keyed, Variant::Sha256].map(load).into()
}

/// A request that must be dropped.
fn compromised() -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {OPAQUE}\r\n\r\n").into_bytes()
}

/// The frame as each program would get it.
fn for_each_program(frame: &Frame) -> [(&'static str, Vec<u8>); 4] {
    CLASSIFIERS.map(|program| {
        let bytes = if program.ends_with("_ip") {
            frame.ip()
        } else {
            frame.ethernet()
        };
        (program, bytes.unwrap())
    })
}

/// The request as bytes, where one frame holds it.
fn in_one_frame(fixture: &Fixture) -> Option<Vec<u8>> {
    const HEADERS: usize = 200;
    let bytes = fixture.bytes("origin.test");
    (bytes.len() + HEADERS <= MAX_FRAME).then_some(bytes)
}
