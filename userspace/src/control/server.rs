//! Where a running tokenblock is: at its socket, or at an address by TCP.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use http::HeaderValue;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use zeroize::Zeroizing;

use super::{args::SocketArgs, client::ClientError, settings::socket_in};
use crate::{
    exit::{Exit, Failure},
    proxy::{Upstream, UpstreamHttp, UpstreamTls, UpstreamTlsSettings},
    settings::{SettingsError, Surroundings},
};

/// Both ends of a conversation.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Where a running tokenblock is.
pub(super) enum Server {
    /// At this socket.
    Socket(PathBuf),
    /// At an address.
    Remote(Box<Remote>),
}

/// An address, and what is shown there.
pub(super) struct Remote {
    url: String,
    upstream: Upstream,
    tls: UpstreamTls,
    credential: HeaderValue,
}

impl Server {
    /// As the arguments say.
    pub(super) fn new(at: &SocketArgs) -> Result<Self, Failure> {
        if let Some(url) = &at.control_url {
            return Ok(Self::Remote(Box::new(Remote::new(url, at)?)));
        }
        Ok(Self::Socket(match (&at.control_socket, &at.state_dir) {
            (Some(path), _) => path.clone(),
            (None, Some(folder)) => socket_in(folder),
            (None, None) => {
                let folder = Surroundings::of_process().state_dir();
                socket_in(&folder.ok_or(SettingsError::NoStateDir)?)
            }
        }))
    }

    /// What requests show, where that is needed.
    pub(super) fn credential(&self) -> Option<&HeaderValue> {
        match self {
            Self::Socket(_) => None,
            Self::Remote(remote) => Some(&remote.credential),
        }
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> Result<Box<dyn Stream>, ClientError> {
        match self {
            Self::Socket(path) => match UnixStream::connect(path).await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    Err(ClientError::Denied(path.clone()))
                }
                Err(_) => Err(ClientError::NobodyThere(path.clone())),
            },
            Self::Remote(remote) => {
                let unreachable = |error| ClientError::Unreachable {
                    url: remote.url.clone(),
                    error,
                };
                let address = (remote.upstream.server_name(), remote.upstream.port());
                let stream = TcpStream::connect(address).await.map_err(unreachable)?;
                let stream = remote.tls.connect(stream, true).await;
                Ok(Box::new(stream.map_err(unreachable)?))
            }
        }
    }
}

impl Remote {
    fn new(url: &str, at: &SocketArgs) -> Result<Self, Failure> {
        let wrong = |what: String| Failure::new(Exit::Usage, anyhow::anyhow!("{what}"));
        let upstream: Upstream =
            url.parse().ok().filter(Upstream::is_tls).ok_or_else(|| {
                wrong(format!("--control-url {url:?}: it reads https://host:port"))
            })?;
        let Some(path) = &at.control_credential else {
            return Err(wrong(
                "--control-credential is needed with --control-url".to_owned(),
            ));
        };
        let settings = UpstreamTlsSettings {
            ca: at.control_ca.clone(),
            ..UpstreamTlsSettings::default()
        };
        Ok(Self {
            url: url.to_owned(),
            tls: UpstreamTls::new(&upstream, &settings, UpstreamHttp::Http1)?,
            credential: credential(path)?,
            upstream,
        })
    }
}

/// The first credential of a file.
fn credential(path: &Path) -> Result<HeaderValue, Failure> {
    let text = fs::read_to_string(path).map(Zeroizing::new);
    let text = text
        .with_context(|| format!("{}: can't be read", path.display()))
        .map_err(|error| Failure::new(Exit::NoInput, error))?;
    let mut lines = text.lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
    let header = first.and_then(|credential| {
        let shown = Zeroizing::new(format!("Bearer {credential}"));
        HeaderValue::from_str(&shown).ok()
    });
    let mut header = header.ok_or_else(|| {
        let none = anyhow::anyhow!("{}: there is no credential in it", path.display());
        Failure::new(Exit::Data, none)
    })?;
    header.set_sensitive(true);
    Ok(header)
}
