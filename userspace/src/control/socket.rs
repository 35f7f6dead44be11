//! The control socket's file: made with its mode and group before anybody can connect, removed when dropped.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown},
        net::UnixStream as StdStream,
    },
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};

use super::settings::ControlSettings;

/// `sun_path`, less the final NUL.
const LONGEST: usize = 107;
/// Of the folder in which the socket is made.
const NEW: &str = ".tokenblock-";

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// No socket can have this path.
    #[error(
        "the control socket's path {} is longer than {LONGEST} bytes; give another with --control-socket",
        .0.display()
    )]
    TooLong(PathBuf),
    /// Another process listens there, or something else is there.
    #[error("the control socket {} is in use, or is no socket", .0.display())]
    InUse(PathBuf),
    /// It can't be made.
    #[error("the control socket {}: {error}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// A socket that listens.
pub(super) struct Socket {
    listener: UnixListener,
    settings: ControlSettings,
    path: PathBuf,
    /// What stands at the path, by device and number.
    file: Option<(u64, u64)>,
}

impl Socket {
    /// Listens; takes the place of a socket that nobody listens at any more.
    pub(super) fn bind(settings: &ControlSettings) -> Result<Self, SocketError> {
        let path = std::path::absolute(&settings.path).unwrap_or_else(|_| settings.path.clone());
        if path.as_os_str().len() > LONGEST {
            return Err(SocketError::TooLong(path));
        }
        if !is_free(&path) {
            return Err(SocketError::InUse(path));
        }
        match made(settings, &path) {
            Ok(listener) => Ok(Self {
                listener,
                settings: settings.clone(),
                file: file_at(&path),
                path,
            }),
            Err(error) => Err(SocketError::Io { path, error }),
        }
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }

    /// Makes the socket again where somebody has removed it: else nobody could control this process any more.
    pub(super) fn look(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok() {
            return;
        }
        let path = self.path.display();
        // Where its folder is gone too, that is told of the state.
        if let Ok(listener) = made(&self.settings, &self.path) {
            self.listener = listener;
            self.file = file_at(&self.path);
            tracing::warn!("the control socket {path} was removed; it is there again");
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // It may have been removed, or be another's.
        if self.file == file_at(&self.path) {
            drop(fs::remove_file(&self.path));
        }
    }
}

fn file_at(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Whether nothing is there, or a socket of a process that is gone.
fn is_free(path: &Path) -> bool {
    match fs::symlink_metadata(path) {
        Err(error) => error.kind() == io::ErrorKind::NotFound,
        Ok(there) => {
            let answered = || StdStream::connect(path).map(drop);
            let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
            there.file_type().is_socket() && answered().err().is_some_and(refused)
        }
    }
}

/// Under another name first, so that no moment has the wrong mode.
fn made(settings: &ControlSettings, path: &Path) -> io::Result<UnixListener> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let new = tempfile::Builder::new()
        .prefix(NEW)
        .rand_bytes(6)
        .tempdir_in(folder)?;
    // By a short way, since the path may be as long as it can be.
    let bound = new.path().join("s");
    let listener = if bound.as_os_str().len() > LONGEST {
        let opened = fs::File::open(new.path())?;
        let short = format!(
            "/proc/self/fd/{}/s",
            std::os::fd::AsRawFd::as_raw_fd(&opened)
        );
        UnixListener::bind(short)?
    } else {
        UnixListener::bind(&bound)?
    };
    if settings.group.is_some() {
        chown(&bound, None, settings.group)?;
    }
    fs::set_permissions(&bound, fs::Permissions::from_mode(settings.mode))?;
    fs::rename(&bound, path)?;
    Ok(listener)
}
