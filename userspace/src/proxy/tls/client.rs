//! The side that an upstream sees.

use std::{io, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::pem;
use crate::proxy::{
    error::ProxyError,
    settings::{Upstream, UpstreamHttp, UpstreamTlsSettings},
};

/// How an upstream is spoken to over TLS: its certificate is always verified, there is no way around it.
#[derive(Clone)]
pub(crate) struct UpstreamTls {
    /// Offers what the settings allow.
    any: TlsConnector,
    /// Offers HTTP/1.1 alone, for requests that need it (upgrades).
    http1: TlsConnector,
    name: ServerName<'static>,
}

impl UpstreamTls {
    /// Reads authorities, certificate and key.
    ///
    /// # Errors
    /// Where a file can't be used, or no authority is known.
    pub(crate) fn new(
        upstream: &Upstream,
        settings: &UpstreamTlsSettings,
        http: UpstreamHttp,
    ) -> Result<Self, ProxyError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = configure(settings, &provider)?;
        let with = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
            TlsConnector::from(Arc::new(config))
        };
        let any = match http {
            UpstreamHttp::Http1 => with(&[b"http/1.1"]),
            UpstreamHttp::Http2 => with(&[b"h2"]),
            UpstreamHttp::Negotiated => with(&[b"h2", b"http/1.1"]),
        };
        let name = match &settings.server_name {
            Some(name) => name.clone(),
            None => upstream.server_name(),
        };
        let name = ServerName::try_from(name)
            .map_err(|error| ProxyError::ServerName(error.to_string()))?;
        Ok(Self {
            any,
            http1: with(&[b"http/1.1"]),
            name,
        })
    }

    /// Makes a handshake.
    ///
    /// # Errors
    /// Where the upstream is not who it should be, or breaks off.
    pub(crate) async fn connect(
        &self,
        stream: TcpStream,
        http1_only: bool,
    ) -> io::Result<TlsStream<TcpStream>> {
        let connector = if http1_only { &self.http1 } else { &self.any };
        connector.connect(self.name.clone(), stream).await
    }
}

fn configure(
    settings: &UpstreamTlsSettings,
    provider: &Arc<CryptoProvider>,
) -> Result<ClientConfig, ProxyError> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(settings)?);
    let Some(files) = &settings.client else {
        return Ok(builder.with_no_client_auth());
    };
    let certified = pem::certified_key(files, provider)?;
    let resolver = rustls::sign::SingleCertAndKey::from(certified);
    Ok(builder.with_client_cert_resolver(Arc::new(resolver)))
}

/// The authorities of the given file, or the system's.
fn roots(settings: &UpstreamTlsSettings) -> Result<RootCertStore, ProxyError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &settings.ca {
        for certificate in pem::certificates(path)? {
            roots.add(certificate).map_err(|error| ProxyError::Pem {
                path: path.clone(),
                reason: error.to_string(),
            })?;
        }
        return Ok(roots);
    }
    // Some system stores hold a certificate or two that no parser takes.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(ProxyError::NoSystemRoots);
    }
    Ok(roots)
}
