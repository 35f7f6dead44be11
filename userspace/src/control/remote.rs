//! The same API over TCP: TLS, and a credential in place of the user that a socket tells.

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener as StdListener},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, header};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};

use super::{
    counters::Counter,
    credential::{Credentials, SHORTEST},
    desk::{Access, Desk},
    receivers::Receivers,
    refusal::Refusal,
    settings::RemoteSettings,
    watched::Watched,
};
use crate::{
    look,
    proxy::{ProxyError, ServerTls},
};

/// Connections at once; more wait.
const CONNECTIONS: usize = 128;
/// Longest time for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Why the API can't be served over TCP.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// It can't be listened on.
    #[error("--control-listen {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// Certificate or key can't be used.
    #[error(transparent)]
    Tls(#[from] ProxyError),
    /// A file can't be read.
    #[error("{}: can't be read: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Others may read a credential.
    #[error("{}: may be read or written by others (mode {mode:03o}); make a new one, with mode 600", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Credentials that could be guessed, or none.
    #[error("{}: a credential has {SHORTEST} characters or more, one a line; `openssl rand -hex 32` makes one", .0.display())]
    Weak(PathBuf),
    /// GitHub's keys are none.
    #[error("{}: no public keys as GitHub's API gives them: {what}", path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// The API's address, listened on.
pub(super) struct Remote {
    listener: TcpListener,
    tls: Arc<ServerTls>,
    gate: Arc<Gate>,
}

/// Who is let in by TCP, and to what.
pub(super) struct Gate {
    /// Where there are none, the API itself is closed.
    credentials: Option<Watched<Credentials>>,
    /// Who comes with something else to show.
    pub(super) receivers: Receivers,
}

impl Remote {
    /// Reads the files and listens. Nothing is answered yet.
    ///
    /// # Errors
    /// [`RemoteError`]
    pub(super) fn bind(settings: &RemoteSettings) -> Result<Self, RemoteError> {
        let failed = |error| RemoteError::Listen {
            address: settings.listen,
            error,
        };
        let gate = Gate::new(settings)?;
        let tls = ServerTls::of(settings.tls.clone())?;
        let listener = StdListener::bind(settings.listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self {
            listener: TcpListener::from_std(listener).map_err(failed)?,
            tls: Arc::new(tls),
            gate: Arc::new(gate),
        })
    }

    /// Where it listens, with the port where 0 was asked for.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Answers, and reads the files again when they change, until dropped.
    pub(super) async fn serve(self, desk: Arc<Desk>) -> Infallible {
        let watch = async {
            tokio::join!(
                Arc::clone(&self.tls).watch(),
                Arc::clone(&self.gate).watch()
            )
            .1
        };
        tokio::select! {
            never = self.accept(&desk) => never,
            never = watch => never,
        }
    }

    async fn accept(&self, desk: &Arc<Desk>) -> Infallible {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let permit = Arc::clone(&room).acquire_owned().await;
            let (stream, client) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    desk.pause_after(&error).await;
                    continue;
                }
            };
            desk.counters().add(Counter::RemoteConnections);
            let (acceptor, gate) = (self.tls.acceptor(), Arc::clone(&self.gate));
            let desk = Arc::clone(desk);
            tokio::spawn(async move {
                let _permit = permit;
                match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => desk.converse(stream, Access::Remote(gate)).await,
                    Ok(Err(error)) => {
                        desk.counters().add(Counter::HandshakesFailed);
                        tracing::debug!(%client, %error, "no TLS session with the control API");
                    }
                    Err(_elapsed) => desk.counters().add(Counter::HandshakesFailed),
                }
            });
        }
    }
}

impl Gate {
    fn new(settings: &RemoteSettings) -> Result<Self, RemoteError> {
        let credentials = settings.credential.clone();
        let credentials = credentials.map(|path| Watched::new(path, Credentials::read));
        Ok(Self {
            credentials: credentials.transpose()?,
            receivers: Receivers::new(settings)?,
        })
    }

    /// Lets a request with a known credential in (RFC 6750 section 2.1).
    ///
    /// # Errors
    /// [`Refusal::Credential`]
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let shown = headers.get(header::AUTHORIZATION);
        let shown = shown.and_then(|value| value.to_str().ok());
        let bearer = shown.and_then(|value| value.split_once(' '));
        let has = |credential: &str| {
            let known = self.credentials.as_ref();
            known.is_some_and(|known| known.get().has(credential.trim()))
        };
        let known = bearer.is_some_and(|(scheme, credential)| {
            scheme.eq_ignore_ascii_case("bearer") && has(credential)
        });
        known.then_some(()).ok_or(Refusal::Credential)
    }

    fn refresh(&self) {
        if let Some(credentials) = &self.credentials {
            credentials.refresh();
        }
        self.receivers.refresh();
    }

    async fn watch(self: Arc<Self>) -> Infallible {
        let mut pause = tokio::time::interval(look::EVERY);
        loop {
            pause.tick().await;
            let gate = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || gate.refresh());
            if let Err(error) = looked.await {
                tracing::error!(%error, "can't look at the credentials");
            }
        }
    }
}
