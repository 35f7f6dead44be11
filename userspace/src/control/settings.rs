//! The settings of the control socket, checked.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use http::HeaderName;

use crate::proxy::TlsFiles;

/// The socket's name in the state folder.
const FILE: &str = "control.sock";

/// Where the control socket is and who may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlSettings {
    /// Its path.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: u32,
    /// The group whose members may use it besides root and this user.
    pub group: Option<u32>,
    /// Where the same is served by TCP. Default: nowhere.
    pub remote: Option<RemoteSettings>,
}

/// How the API is served by TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSettings {
    /// The address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Certificate and key.
    pub tls: TlsFiles,
    /// The file of credentials, of which each request shows one; without it, receivers alone are served.
    pub credential: Option<PathBuf>,
    /// GitLab, where it may send leaked tokens.
    pub gitlab: Option<GitlabSettings>,
    /// The file of GitHub's public keys, where GitHub may send leaked tokens.
    pub github_keys: Option<PathBuf>,
}

/// How GitLab sends leaked tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitlabSettings {
    /// The file of credentials, of which GitLab shows one.
    pub credential: PathBuf,
    /// The header that it stands in.
    pub header: HeaderName,
    /// Types of tokens that GitLab is told to send; at least one.
    pub types: Vec<String>,
}

/// Why the settings can't be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlSettingsError {
    /// Not permission bits.
    #[error("--control-mode {0:?}: permission bits are three octal digits, for instance 660")]
    Mode(String),
    /// Not a group.
    #[error("--control-group {0:?}: there is no such group")]
    Group(String),
}

impl ControlSettings {
    /// Checks what was given.
    ///
    /// # Errors
    /// The first [`ControlSettingsError`].
    pub fn check(
        path: Option<PathBuf>,
        mode: &str,
        group: Option<&str>,
        state_dir: &Path,
    ) -> Result<Self, ControlSettingsError> {
        let bits = u32::from_str_radix(mode, 8).ok();
        let bits = bits.filter(|bits| *bits <= 0o777 && !mode.starts_with('+'));
        Ok(Self {
            path: path.unwrap_or_else(|| socket_in(state_dir)),
            mode: bits.ok_or_else(|| ControlSettingsError::Mode(mode.to_owned()))?,
            group: group.map(group_id).transpose()?,
            remote: None,
        })
    }
}

/// The control socket of a state folder.
pub(super) fn socket_in(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

/// By number or by name.
fn group_id(text: &str) -> Result<u32, ControlSettingsError> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    match nix::unistd::Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) | Err(_) => Err(ControlSettingsError::Group(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mode: &str, group: Option<&str>) -> Result<(u32, Option<u32>), ControlSettingsError> {
        ControlSettings::check(None, mode, group, Path::new("/s")).map(|s| {
            assert_eq!(s.path, Path::new("/s/control.sock"));
            (s.mode, s.group)
        })
    }

    #[test]
    fn modes_are_octal_and_groups_are_there() {
        assert_eq!(check("600", None), Ok((0o600, None)));
        assert_eq!(check("0660", Some("7")), Ok((0o660, Some(7))));
        assert_eq!(check("600", Some("root")), Ok((0o600, Some(0))));
        for mode in ["", "+60", "888", "1777", "rw"] {
            let wrong = ControlSettingsError::Mode(mode.to_owned());
            assert_eq!(check(mode, None), Err(wrong));
        }
        let none = "no-such-group";
        let wrong = ControlSettingsError::Group(none.to_owned());
        assert_eq!(check("600", Some(none)), Err(wrong));
    }
}
