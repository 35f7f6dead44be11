//! Why a proxy can't start.

use std::{io, net::SocketAddr, path::PathBuf};

use super::settings::Listen;

/// What stands in the way of a running proxy.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Something else listens there.
    #[error("{0} is in use by another process")]
    AddressInUse(SocketAddr),
    /// The listener can't be made.
    #[error("can't listen on {listen}")]
    Listen {
        /// The configured address.
        listen: Listen,
        /// The system's answer.
        source: io::Error,
    },
    /// Not one socket.
    #[error(
        "the service manager has passed {0} sockets; `--proxy-listen systemd` takes one TCP socket (ListenStream=)"
    )]
    Passed(usize),
    /// A certificate, key or list of authorities can't be read, or is no PEM.
    #[error("can't read {}: {reason}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file without the PEM section that is looked for.
    #[error("{} holds no {what} in PEM form", path.display())]
    EmptyPem {
        /// The file.
        path: PathBuf,
        /// `certificate` or `private key`.
        what: &'static str,
    },
    /// Certificate and key are of different pairs.
    #[error("the key in {} does not belong to the certificate in {}", key.display(), cert.display())]
    KeyMismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The TLS library takes the certificate or its key not.
    #[error("certificate {} with key {} can't be used", cert.display(), key.display())]
    Certificate {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The name by which an upstream's certificate is checked is none.
    #[error("the upstream has no name that a certificate can be for: {0}")]
    ServerName(String),
    /// Nothing to check an upstream's certificate against.
    #[error("the system has no certificate authorities; name a file that has")]
    NoSystemRoots,
    /// The TLS library takes the settings not.
    #[error("the TLS settings can't be used")]
    Tls(#[from] rustls::Error),
    /// A worker's thread or event loop can't be made.
    #[error("can't start a proxy worker")]
    Worker(#[source] io::Error),
}
