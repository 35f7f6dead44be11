//! What a file says, read again when the file changes.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;

use super::remote::RemoteError;
use crate::look::{Look, look_at};

/// A file, and what it said when it was last read well.
pub(super) struct Watched<T> {
    path: PathBuf,
    read: fn(&Path) -> Result<T, RemoteError>,
    current: ArcSwap<T>,
    /// How it looked when it was last read, well or badly.
    seen: Mutex<Look>,
}

impl<T> Watched<T> {
    /// Reads the file.
    ///
    /// # Errors
    /// Where it can't be used.
    pub(super) fn new(
        path: PathBuf,
        read: fn(&Path) -> Result<T, RemoteError>,
    ) -> Result<Self, RemoteError> {
        let seen = Mutex::new(look_at(&path));
        let current = ArcSwap::from_pointee(read(&path)?);
        Ok(Self {
            path,
            read,
            current,
            seen,
        })
    }

    /// What it says.
    pub(super) fn get(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Reads it again where it has changed; what can't be used is reported once, and what was in force stays.
    pub(super) fn refresh(&self) {
        let now = look_at(&self.path);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return;
        }
        *seen = now;
        let path = self.path.display();
        match (self.read)(&self.path) {
            Ok(new) => {
                self.current.store(Arc::new(new));
                tracing::info!("{path} was read again");
            }
            Err(error) => tracing::error!("{error}; what it said before stays in force"),
        }
    }
}
