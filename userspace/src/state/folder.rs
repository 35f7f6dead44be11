//! One process at a time has the state folder.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use super::StateError;

const FILE: &str = "lock";

/// The state folder, locked until this is dropped or the process ends.
#[derive(Debug)]
pub struct StateFolder {
    _lock: File,
}

impl StateFolder {
    /// Takes the folder; makes it where there is none.
    ///
    /// # Errors
    /// [`StateError::Locked`] where another process has it, [`StateError::Folder`] where it can't be written to.
    pub fn lock(folder: &Path) -> Result<Self, StateError> {
        let path = folder.join(FILE);
        let failed = |error| StateError::Folder {
            folder: folder.to_owned(),
            error,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StateError::Locked(folder.to_owned())),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_holder() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let held = StateFolder::lock(&state).unwrap();
        let second = StateFolder::lock(&state).expect_err("locked");
        assert!(matches!(second, StateError::Locked(_)), "{second}");
        drop(held);
        StateFolder::lock(&state).unwrap();
    }
}
