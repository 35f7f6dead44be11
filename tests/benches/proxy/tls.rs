//! What the bench's own clients take for TLS.

use std::sync::Arc;

use anyhow::Result;
use rustls::{ClientConfig, RootCertStore};
use tokenblock_tests::certificate::Certificate;

/// That certificate, and this protocol.
pub(crate) fn config(certificate: &Certificate, alpn: &[u8]) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der())?;
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(Arc::new(config))
}
