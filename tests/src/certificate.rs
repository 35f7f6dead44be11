//! A certificate for the proxy under test, and its key, as files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::PublicKeyData as _;
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};

/// A self-signed certificate for [`Certificate::HOST`].
#[derive(Debug)]
pub struct Certificate {
    der: CertificateDer<'static>,
    public_key: Vec<u8>,
    /// The certificate as PEM.
    pub cert_file: PathBuf,
    /// Its private key as PEM.
    pub key_file: PathBuf,
}

impl Certificate {
    /// The name in the certificate.
    pub const HOST: &'static str = "origin.test";

    /// Makes a certificate; its files lie in `folder` and begin with `name`.
    ///
    /// # Errors
    /// Where the files can't be written.
    pub fn new(folder: &Path, name: &str) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed([Self::HOST.to_owned()])?;
        let cert_file = folder.join(format!("{name}.crt"));
        let key_file = folder.join(format!("{name}.key"));
        fs::write(&cert_file, made.cert.pem()).context("writing a certificate")?;
        fs::write(&key_file, made.signing_key.serialize_pem()).context("writing a key")?;
        Ok(Self {
            der: made.cert.der().clone(),
            public_key: made.signing_key.subject_public_key_info(),
            cert_file,
            key_file,
        })
    }

    /// The SHA-256 of its public key (`SubjectPublicKeyInfo`, RFC 5280 section 4.1), as base64: what browsers take a
    /// key by.
    #[must_use]
    pub fn key_pin(&self) -> String {
        STANDARD.encode(Sha256::digest(&self.public_key))
    }

    /// The certificate itself.
    #[must_use]
    pub fn der(&self) -> CertificateDer<'static> {
        self.der.clone()
    }
}
