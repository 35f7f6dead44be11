//! Certificates, keys and what is agreed with a client in the TLS handshake.

use std::{path::Path, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ResolvesServerCert, ServerSessionMemoryCache},
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject as _},
};

use super::{error::ProxyError, settings::TlsFiles};

/// Sessions that are kept for clients of TLS 1.2 that resume by id, not by ticket.
const SESSIONS: usize = 1024;

/// What every worker's handshakes go by.
///
/// # Errors
/// Where a file can't be used.
pub(super) fn server_config(files: &TlsFiles) -> Result<Arc<ServerConfig>, ProxyError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let certificate = Arc::new(SingleCertAndKey::from(load(files, &provider)?));
    let mut config = configure(provider, certificate)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn configure(
    provider: Arc<CryptoProvider>,
    certificates: Arc<dyn ResolvesServerCert>,
) -> Result<ServerConfig, ProxyError> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(config)
}

/// Reads a chain and its key, and sees that they belong together.
fn load(files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, ProxyError> {
    let chain = certificates(&files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| pem_error(&files.key, "private key", &error))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|source| {
        let (cert, key) = (files.cert.clone(), files.key.clone());
        if matches!(source, rustls::Error::InconsistentKeys(_)) {
            ProxyError::KeyMismatch { cert, key }
        } else {
            ProxyError::Certificate { cert, key, source }
        }
    })
}

/// All certificates of a PEM file; at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ProxyError> {
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| pem_error(path, "certificate", &error))?;
    if chain.is_empty() {
        return Err(ProxyError::EmptyPem {
            path: path.to_owned(),
            what: "certificate",
        });
    }
    Ok(chain)
}

fn pem_error(path: &Path, what: &'static str, error: &pem::Error) -> ProxyError {
    let path = path.to_owned();
    if matches!(error, pem::Error::NoItemsFound) {
        return ProxyError::EmptyPem { path, what };
    }
    ProxyError::Pem {
        path,
        reason: error.to_string(),
    }
}
