//! Which certificate a client gets, by the name that it asks for (RFC 6066 section 3).

use std::{collections::HashMap, sync::Arc};

use rustls::{
    SignatureScheme,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// Certificates by the names that they are for.
#[derive(Debug)]
pub(super) struct Certificates {
    /// For clients that ask for no name, or for one that no certificate is for; the first is the default.
    all: Vec<Arc<CertifiedKey>>,
    /// Lower-case names, `*.` in front of those that stand for one label more. A name can have several
    /// certificates, of different kinds of key.
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
}

impl Certificates {
    /// The first of `certificates` is the default.
    ///
    /// # Errors
    /// Where a certificate can't be parsed.
    pub(super) fn new(certificates: Vec<CertifiedKey>) -> Result<Self, rustls::Error> {
        let all: Vec<Arc<CertifiedKey>> = certificates.into_iter().map(Arc::new).collect();
        let mut by_name: HashMap<String, Vec<Arc<CertifiedKey>>> = HashMap::new();
        for certificate in &all {
            let leaf = webpki::EndEntityCert::try_from(certificate.end_entity_cert()?)
                .map_err(|error| rustls::Error::General(error.to_string()))?;
            for name in leaf.valid_dns_names() {
                let known = by_name.entry(name.to_ascii_lowercase()).or_default();
                known.push(Arc::clone(certificate));
            }
        }
        Ok(Self { all, by_name })
    }

    fn named(&self, name: &str) -> Option<&[Arc<CertifiedKey>]> {
        // rustls gives names in lower case; some clients leave the root's dot behind one.
        let name = name.strip_suffix('.').unwrap_or(name);
        let exact = self.by_name.get(name);
        let wildcard = || self.by_name.get(&format!("*.{}", name.split_once('.')?.1));
        exact.or_else(wildcard).map(Vec::as_slice)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificates = hello
            .server_name()
            .and_then(|name| self.named(name))
            .unwrap_or(&self.all);
        let usable = |c: &&Arc<CertifiedKey>| can_sign(c, hello.signature_schemes());
        let found = certificates.iter().find(usable);
        found.or_else(|| certificates.first()).map(Arc::clone)
    }
}

fn can_sign(certificate: &CertifiedKey, schemes: &[SignatureScheme]) -> bool {
    certificate.key.choose_scheme(schemes).is_some()
}

#[cfg(test)]
mod tests {
    use rustls::{crypto::aws_lc_rs::sign::any_supported_type, pki_types::PrivateKeyDer};

    use super::*;

    fn certified(name: &str) -> CertifiedKey {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        CertifiedKey::new(
            vec![made.cert.der().clone()],
            any_supported_type(&key).unwrap(),
        )
    }

    #[test]
    fn the_roots_dot_behind_a_name_is_passed_over() {
        let names = ["a.example", "b.example", "*.c.example"];
        let certificates = Certificates::new(names.map(certified).into()).unwrap();
        for (asked, wanted) in [
            ("b.example", Some(1)),
            ("b.example.", Some(1)),
            ("x.c.example.", Some(2)),
            ("b.example..", None),
            (".", None),
        ] {
            let found = certificates.named(asked).and_then(<[_]>::first);
            let found = certificates
                .all
                .iter()
                .position(|one| found.is_some_and(|found| Arc::ptr_eq(one, found)));
            assert_eq!(found, wanted, "{asked}");
        }
    }
}
