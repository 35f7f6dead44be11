//! The page of the reasons has all of them.

use std::{fs, path::Path};

use tokenblock::settings::REASONS;
use tokenblock_ebpf::verdict::{COUNTERS, Policies, Policy};

#[test]
fn the_page_has_every_counter_and_the_defaults() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reasons.md");
    let page = fs::read_to_string(file).unwrap();
    for name in COUNTERS {
        assert!(page.contains(&format!("`{name}`")), "no {name}");
    }
    for reason in REASONS {
        let default = match Policies::default().of(reason) {
            Policy::Pass => "pass",
            Policy::Drop => "drop",
            Policy::Reset => "reset",
        };
        let begin = format!("| `{}` |", reason.name());
        let row = page.lines().find(|line| line.starts_with(&begin)).unwrap();
        assert!(row.contains(&format!("| `{default}` |")), "{row}");
    }
}
