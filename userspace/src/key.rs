//! The installation key: made at the first start, kept in the state folder.

use std::{
    fs::{DirBuilder, File},
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;
use tokenblock_ebpf::digest::InstallationKey;
use zeroize::{Zeroize as _, Zeroizing};

const FILE: &str = "key";
/// 128 bits as hexadecimal digits; the line end comes on top.
const DIGITS: usize = 32;

/// The installation key, wiped when it is dropped. Without `Debug` on purpose.
pub struct StoredKey(InstallationKey);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The state folder can't be used.
    #[error("the state folder {}: {error}; give another with --state-dir", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The key file can't be read or made.
    #[error("the installation key {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Others may read or write it.
    #[error(
        "the installation key {} may be read or written by others (mode {mode:03o}); make sure that nobody \
         has, then `chmod 600` it",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It holds something else.
    #[error(
        "{} is no installation key (32 hexadecimal digits); restore it, or remove it to have a new one made",
        .0.display()
    )]
    Malformed(PathBuf),
    /// The system has no random numbers.
    #[error("no random numbers for a new installation key: {0}")]
    Random(getrandom::Error),
}

impl StoredKey {
    /// Reads the key from the state folder; makes folder and key where there are none.
    ///
    /// # Errors
    /// [`KeyError`]; a key that others may read is refused.
    pub fn load_or_create(folder: &Path) -> Result<Self, KeyError> {
        let path = folder.join(FILE);
        match File::open(&path) {
            Ok(file) => read(file, path),
            Err(error) if error.kind() == ErrorKind::NotFound => create(folder, path),
            Err(error) => Err(KeyError::Io { path, error }),
        }
    }

    /// The key, for digests.
    #[must_use]
    pub fn get(&self) -> &InstallationKey {
        &self.0
    }
}

impl Drop for StoredKey {
    fn drop(&mut self) {
        self.0.0.zeroize();
    }
}

fn read(file: File, path: PathBuf) -> Result<StoredKey, KeyError> {
    let mut text = Zeroizing::new(String::with_capacity(DIGITS + 2));
    let metadata = file.metadata();
    let read = file.take(DIGITS as u64 + 2).read_to_string(&mut text);
    match metadata {
        Err(error) => return Err(KeyError::Io { path, error }),
        Ok(metadata) if metadata.mode() & 0o077 != 0 => {
            let mode = metadata.mode() & 0o777;
            return Err(KeyError::Exposed { path, mode });
        }
        Ok(_) => {}
    }
    match read {
        Ok(_) => parse(&text).ok_or(KeyError::Malformed(path)),
        Err(error) if error.kind() == ErrorKind::InvalidData => Err(KeyError::Malformed(path)),
        Err(error) => Err(KeyError::Io { path, error }),
    }
}

fn parse(text: &str) -> Option<StoredKey> {
    let digits = text.strip_suffix('\n').unwrap_or(text);
    let well_formed = digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let number = u128::from_str_radix(digits, 16)
        .ok()
        .filter(|_| well_formed)?;
    Some(StoredKey(InstallationKey(number.to_be_bytes())))
}

/// Two processes that start at once end with the same key: whose link comes second reads the first's.
fn create(folder: &Path, path: PathBuf) -> Result<StoredKey, KeyError> {
    let failed = |error| KeyError::Folder {
        folder: folder.to_owned(),
        error,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(failed)?;
    let mut bytes = Zeroizing::new([0; 16]);
    getrandom::fill(bytes.as_mut()).map_err(KeyError::Random)?;
    let text = Zeroizing::new(format!("{:032x}\n", u128::from_be_bytes(*bytes)));
    let written = NamedTempFile::new_in(folder).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        Ok(file)
    });
    match written.map_err(failed)?.persist_noclobber(&path) {
        Ok(_file) => {
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(failed)?;
            Ok(StoredKey(InstallationKey(*bytes)))
        }
        Err(lost) if lost.error.kind() == ErrorKind::AlreadyExists => match File::open(&path) {
            Ok(file) => read(file, path),
            Err(error) => Err(KeyError::Io { path, error }),
        },
        Err(lost) => Err(failed(lost.error)),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, fs, os::unix::fs::PermissionsExt as _, thread};

    use super::*;

    #[test]
    fn is_made_once_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("a/b");
        let first = StoredKey::load_or_create(&state).unwrap();
        let again = StoredKey::load_or_create(&state).unwrap();
        assert!(first.get().0 == again.get().0 && first.get().0 != [0; 16]);
        assert_eq!(
            fs::metadata(state.join("key")).unwrap().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::metadata(&state).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1);
    }

    #[test]
    fn processes_that_start_at_once_agree() {
        let folder = tempfile::tempdir().unwrap();
        let keys: HashSet<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| StoredKey::load_or_create(folder.path()).unwrap().get().0))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(keys.len(), 1);
    }

    #[test]
    fn what_is_exposed_or_malformed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let outcome = |text: &[u8], mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            StoredKey::load_or_create(folder.path())
                .map(|key| key.get().0)
                .map_err(|e| e.to_string())
        };
        let good = b"000102030405060708090a0b0c0d0e0f\n";
        let bytes: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        assert_eq!(outcome(good, 0o600), Ok(bytes));
        assert_eq!(outcome(&good[..32], 0o400), Ok(bytes));
        let exposed = outcome(good, 0o640).expect_err("exposed");
        assert!(
            exposed.contains("mode 640") && exposed.contains("chmod 600"),
            "{exposed}"
        );
        for text in [
            &b""[..],
            b"+00102030405060708090a0b0c0d0e0f",
            b"00",
            &[0xff; 32],
            &[b'0'; 40],
        ] {
            let malformed = outcome(text, 0o600).expect_err("malformed");
            assert!(malformed.contains("is no installation key"), "{malformed}");
        }
    }
}
