//! What is agreed in TLS handshakes, with clients and with upstreams.

mod client;
mod pem;
mod server;
mod sni;

use std::path::{Path, PathBuf};

pub(in crate::proxy) use self::server::Prepared as PreparedTls;
pub(crate) use self::{client::UpstreamTls, server::ServerTls};

/// Where the OCSP response to staple lies.
fn staple_path(cert: &Path) -> PathBuf {
    let mut name = cert.as_os_str().to_owned();
    name.push(".ocsp");
    name.into()
}
