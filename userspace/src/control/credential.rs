//! The credentials of those who come by TCP: kept as hashes, compared in a time that tells nothing of them.

use std::{fs::File, io::Read as _, os::unix::fs::MetadataExt as _, path::Path};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::remote::RemoteError;

/// Shortest credential in bytes: what `openssl rand -hex 16` gives.
pub(super) const SHORTEST: usize = 32;
/// Largest file in bytes.
const LARGEST: u64 = 64 << 10;

/// SHA-256 of each credential of a file.
pub(super) struct Credentials(Vec<[u8; 32]>);

impl Credentials {
    /// Reads a file of credentials, one a line; blank lines and lines that start with `#` don't count.
    ///
    /// # Errors
    /// Where it can't be read, others may read it, or it holds none that is long enough.
    pub(super) fn read(path: &Path) -> Result<Self, RemoteError> {
        let failed = |error| RemoteError::Read {
            path: path.to_owned(),
            error,
        };
        let file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.mode() & 0o777;
        if mode & 0o007 != 0 {
            let path = path.to_owned();
            return Err(RemoteError::Exposed { path, mode });
        }
        let mut text = Zeroizing::new(String::with_capacity(1024));
        file.take(LARGEST)
            .read_to_string(&mut text)
            .map_err(failed)?;
        Self::of(&text).ok_or_else(|| RemoteError::Weak(path.to_owned()))
    }

    /// All of a file's; `None` where there is none, or one is too short.
    fn of(text: &str) -> Option<Self> {
        let lines = text.lines().map(str::trim);
        let given: Vec<_> = lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .collect();
        let strong = !given.is_empty() && given.iter().all(|line| line.len() >= SHORTEST);
        strong.then(|| Self(given.into_iter().map(hash).collect()))
    }

    /// Whether this is one of them. All are looked at, whichever it is.
    pub(super) fn has(&self, shown: &str) -> bool {
        let shown = hash(shown);
        let same = |known: &[u8; 32]| verify_slices_are_equal(known, &shown).is_ok();
        self.0
            .iter()
            .fold(false, |found, known| found | same(known))
    }
}

/// So that what is compared has one length.
fn hash(credential: &str) -> [u8; 32] {
    Sha256::digest(credential.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_of_several_is_taken_and_short_ones_are_refused() {
        let (one, two) = ("a".repeat(SHORTEST), "b".repeat(SHORTEST));
        let credentials = Credentials::of(&format!("# old\n{one}\n\n  {two}\r\n")).unwrap();
        assert!(credentials.has(&one) && credentials.has(&two));
        assert!(!credentials.has("") && !credentials.has(one.trim_end_matches("aa")));
        assert!(!credentials.has(&format!("{one}{two}")));
        for weak in ["", "# nothing\n", "short\n"] {
            assert!(Credentials::of(weak).is_none(), "{weak:?}");
        }
        assert!(Credentials::of(&format!("{one}\nshort")).is_none());
    }
}
