//! The fuzz targets over the bytes that were kept.

use std::{fs, panic, path::Path};

use tokenblock_tests::fuzz::{TARGETS, Target};

#[test]
fn of_every_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (name, target) in TARGETS {
        let count = replay(&corpus.join(name), target);
        assert!(count > 0, "{name} has no corpus");
    }
}

/// Runs a target over each file of a folder; says how many there are.
fn replay(folder: &Path, target: Target) -> usize {
    let files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    for file in &files {
        let bytes = fs::read(file).unwrap();
        let done = panic::catch_unwind(|| target(&bytes));
        assert!(done.is_ok(), "{}", file.display());
    }
    files.len()
}
