//! Certificates, keys and stapled responses, read from files.

use std::{fs, io, path::Path};

use rustls::{crypto::CryptoProvider, sign::CertifiedKey};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject as _},
};

use crate::proxy::{error::ProxyError, settings::TlsFiles};

/// Reads a chain and its key, and sees that they belong together. An OCSP response in DER form that lies
/// beside the certificate under its name and `.ocsp` is stapled (RFC 6066 section 8).
///
/// # Errors
/// Where a file can't be used.
pub(super) fn certified_key(
    files: &TlsFiles,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, ProxyError> {
    let chain = certificates(&files.cert)?;
    let certified = CertifiedKey::from_der(chain, private_key(&files.key)?, provider);
    let mut certified = certified.map_err(|source| {
        let (cert, key) = (files.cert.clone(), files.key.clone());
        if matches!(source, rustls::Error::InconsistentKeys(_)) {
            ProxyError::KeyMismatch { cert, key }
        } else {
            ProxyError::Certificate { cert, key, source }
        }
    })?;
    certified.ocsp = staple(&files.cert)?;
    Ok(certified)
}

/// Reads a key.
///
/// # Errors
/// Where the file can't be used.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, ProxyError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| pem_error(path, "private key", &error))
}

/// All certificates of a file; at least one.
///
/// # Errors
/// Where the file can't be used.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ProxyError> {
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

fn staple(cert: &Path) -> Result<Option<Vec<u8>>, ProxyError> {
    let path = super::staple_path(cert);
    match fs::read(&path) {
        Ok(response) => Ok(Some(response)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ProxyError::Pem {
            reason: error.to_string(),
            path,
        }),
    }
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
