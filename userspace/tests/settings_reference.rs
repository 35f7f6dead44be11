//! The reference of the settings says what the command line has.

use std::{env, fs, path::Path};

use tokenblock::cli::reference::reference;

/// Set to anything: the page is written anew.
const UPDATE: &str = "TOKENBLOCK_UPDATE_REFERENCE";

#[test]
fn the_page_is_that_of_the_command_line() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/settings.md");
    let expected = reference();
    if env::var_os(UPDATE).is_some() {
        fs::write(&page, &expected).unwrap();
    }
    let found = fs::read_to_string(&page).unwrap_or_default();
    assert!(
        found == expected,
        "docs/settings.md is not what the command line has: run\n\
         {UPDATE}=1 cargo test -p tokenblock --test settings_reference"
    );
}
