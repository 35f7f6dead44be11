//! The side that clients see; read again when its files change.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{
        NoServerSessionStorage, ProducesTickets, ServerSessionMemoryCache, StoresServerSessions,
        WebPkiClientVerifier, danger::ClientCertVerifier,
    },
    version::{TLS12, TLS13},
};
use tokio_rustls::TlsAcceptor;

use super::{pem, sni::Certificates, staple_path};
use crate::{
    look::{self, Look, look_at},
    proxy::{
        error::ProxyError,
        settings::{ServerTlsSettings, TlsFiles, TlsVersion},
    },
};

/// Sessions that are kept for clients of TLS 1.2 that resume by id, not by ticket.
const SESSIONS: usize = 1024;

/// The handshake settings in force.
pub(crate) struct ServerTls {
    settings: ArcSwap<ServerTlsSettings>,
    provider: Arc<CryptoProvider>,
    /// Shared by all that is in force one after the other, so that clients resume across a reload.
    tickets: Arc<dyn ProducesTickets>,
    sessions: Arc<dyn StoresServerSessions>,
    current: ArcSwap<ServerConfig>,
    /// How the files looked when they were read last, well or badly.
    seen: Mutex<Vec<Look>>,
}

/// Handshake settings whose files are read.
pub(in crate::proxy) struct Prepared {
    settings: ServerTlsSettings,
    config: ServerConfig,
    seen: Vec<Look>,
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// Where one can't be used.
    pub(in crate::proxy) fn new(settings: ServerTlsSettings) -> Result<Self, ProxyError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let tickets = aws_lc_rs::Ticketer::new()?;
        let sessions: Arc<dyn StoresServerSessions> = ServerSessionMemoryCache::new(SESSIONS);
        let seen = look(&settings);
        let first = configure(&settings, &provider, &tickets, &sessions)?;
        Ok(Self {
            settings: ArcSwap::from_pointee(settings),
            provider,
            tickets,
            sessions,
            current: ArcSwap::from_pointee(first),
            seen: Mutex::new(seen),
        })
    }

    /// With one certificate and every default, for HTTP/1.1 alone.
    ///
    /// # Errors
    /// Where a file can't be used.
    pub(crate) fn of(files: TlsFiles) -> Result<Self, ProxyError> {
        Self::new(ServerTlsSettings {
            default: files,
            more: Vec::new(),
            min_version: TlsVersion::default(),
            client_ca: None,
            http2: false,
        })
    }

    /// For the next handshake.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }

    /// Looks at the files again and again; never returns. What can't be used is reported once, and what was
    /// in force stays.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut pause = tokio::time::interval(look::EVERY);
        loop {
            pause.tick().await;
            let tls = Arc::clone(&self);
            if let Err(error) = tokio::task::spawn_blocking(move || tls.refresh()).await {
                tracing::error!(%error, "can't look at the certificates");
            }
        }
    }

    /// Reads the files of other settings.
    ///
    /// # Errors
    /// Where one can't be used.
    pub(in crate::proxy) fn prepare(
        &self,
        settings: ServerTlsSettings,
    ) -> Result<Prepared, ProxyError> {
        let seen = look(&settings);
        let config = configure(&settings, &self.provider, &self.tickets, &self.sessions)?;
        Ok(Prepared {
            settings,
            config,
            seen,
        })
    }

    /// Puts what was prepared in force.
    pub(in crate::proxy) fn commit(&self, prepared: Prepared) {
        // Who looks at the files meanwhile waits, and sees all of it.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        self.settings.store(Arc::new(prepared.settings));
        self.current.store(Arc::new(prepared.config));
        *seen = prepared.seen;
    }

    fn refresh(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let settings = self.settings.load();
        let now = look(&settings);
        if *seen == now {
            return;
        }
        *seen = now;
        match configure(&settings, &self.provider, &self.tickets, &self.sessions) {
            Ok(config) => {
                self.current.store(Arc::new(config));
                tracing::info!("new certificates are in force");
            }
            Err(error) => {
                let error = anyhow::Error::new(error);
                tracing::error!("the certificates stay as they were: {error:#}");
            }
        }
    }
}

fn configure(
    settings: &ServerTlsSettings,
    provider: &Arc<CryptoProvider>,
    tickets: &Arc<dyn ProducesTickets>,
    sessions: &Arc<dyn StoresServerSessions>,
) -> Result<ServerConfig, ProxyError> {
    let certificates = settings
        .certificates()
        .map(|files| pem::certified_key(files, provider))
        .collect::<Result<Vec<_>, _>>()?;
    let versions: &[&'static SupportedProtocolVersion] = match settings.min_version {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(client_verifier(settings, provider)?)
        .with_cert_resolver(Arc::new(Certificates::new(certificates)?));
    let http2 = settings.http2.then(|| b"h2".to_vec());
    config.alpn_protocols = http2.into_iter().chain([b"http/1.1".to_vec()]).collect();
    if settings.client_ca.is_none() {
        config.session_storage = Arc::clone(sessions);
        config.ticketer = Arc::clone(tickets);
    } else {
        // A resumed session isn't asked for its certificate again: with client certificates, every session
        // is a new one. Left alone, the library would keep some itself.
        config.session_storage = Arc::new(NoServerSessionStorage {});
    }
    Ok(config)
}

fn client_verifier(
    settings: &ServerTlsSettings,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, ProxyError> {
    let Some(path) = &settings.client_ca else {
        return Ok(WebPkiClientVerifier::no_client_auth());
    };
    let unusable = |reason: String| ProxyError::Pem {
        path: path.clone(),
        reason,
    };
    let mut roots = RootCertStore::empty();
    for certificate in pem::certificates(path)? {
        let added = roots.add(certificate);
        added.map_err(|error| unusable(error.to_string()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| unusable(error.to_string()))
}

fn look(settings: &ServerTlsSettings) -> Vec<Look> {
    let of_pair = |files: &TlsFiles| {
        let staple = staple_path(&files.cert);
        [files.cert.clone(), files.key.clone(), staple]
    };
    let paths = settings.certificates().flat_map(of_pair);
    paths
        .chain(settings.client_ca.clone())
        .map(|path| look_at(&path))
        .collect()
}
