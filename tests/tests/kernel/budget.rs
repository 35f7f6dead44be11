//! What the programs cost to load: the verifier gives up at a million instructions.

use std::io::Write as _;

use tokenblock::kernel::{load::CLASSIFIERS, object::Variant};
use tokenblock_tests::{
    bpf::{Programs, Setup},
    gate,
};

/// Most instructions that the verifier may walk through for one program: room for kernels that see less.
const VERIFIED: u32 = 500_000;

#[test]
fn the_verifier_has_room_left() {
    if !gate::programs("the_verifier_has_room_left") {
        return;
    }
    for variant in [Variant::Keyed, Variant::Sha256] {
        let setup = Setup {
            variant,
            ..Setup::default()
        };
        let mut programs = Programs::load(&setup).unwrap();
        for program in CLASSIFIERS {
            let (verified, machine_code) = programs.size(program).unwrap();
            let line = format!(
                "{program}, {variant:?}: {verified} instructions verified, {machine_code} bytes of machine code\n"
            );
            // Not by `eprintln!`, which the runner keeps to itself.
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            assert!(verified < VERIFIED, "{program}, {variant:?}: {verified}");
        }
    }
}
