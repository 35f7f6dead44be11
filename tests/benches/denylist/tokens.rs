//! Made-up tokens, and files of them.

use std::{
    fmt::Write as _,
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
};

use anyhow::Result;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

/// An opaque token of 40 bytes.
pub(crate) fn opaque(n: usize) -> String {
    hex(&Sha256::digest(n.to_le_bytes())[..20])
}

/// What stands in the place of a token of which the SHA-256 alone is known.
pub(crate) fn hash(token: &str) -> String {
    format!("sha256:{}", hex(&Sha256::digest(token)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a text does not fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}

/// A JWT of 810 bytes.
pub(crate) fn jwt(n: usize) -> String {
    let unique = opaque(n);
    let payload = format!(
        r#"{{"sub":"{unique}","scope":"{}"}}"#,
        "read write ".repeat(25)
    );
    let header = BASE64_URL_SAFE_NO_PAD.encode(br#"{"alg":"RS256","typ":"JWT"}"#);
    let mut token = format!("{header}.{}.", BASE64_URL_SAFE_NO_PAD.encode(payload));
    while token.len() < 810 {
        token += &unique;
    }
    token.truncate(810);
    token
}

/// Writes a list of so many tokens.
pub(crate) fn write(file: &Path, tokens: usize, make: fn(usize) -> String) -> Result<()> {
    write_from(file, 0, tokens, make)
}

/// The same of those from the `first` on.
pub(crate) fn write_from(
    file: &Path,
    first: usize,
    tokens: usize,
    make: fn(usize) -> String,
) -> Result<()> {
    let mut to = BufWriter::new(File::create(file)?);
    for n in first..first + tokens {
        writeln!(to, "{}", make(n))?;
    }
    Ok(to.flush()?)
}
