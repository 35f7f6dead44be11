//! Exact bytes over TLS.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{Answer, Client, read_answer};
use crate::{certificate::Certificate, netns::Netns};

/// A TLS connection from inside a namespace.
#[derive(Debug)]
pub struct TlsClient {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

impl TlsClient {
    /// Connects, trusting `certificate` alone; offers HTTP/1.1.
    ///
    /// # Errors
    /// Where the server can't be reached or its certificate is another.
    pub fn connect(netns: &Netns, server: SocketAddr, certificate: &Certificate) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der())?;
        let mut config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = Certificate::HOST.try_into()?;
        let connection = ClientConnection::new(Arc::new(config), name)?;
        let tcp = Client::connect(netns, server)?.stream;
        let mut stream = StreamOwned::new(connection, tcp);
        stream.flush().context("the TLS handshake")?;
        Ok(Self { stream })
    }

    /// The client's end, as the proxy sees it.
    ///
    /// # Errors
    /// Where the socket is gone.
    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.stream.sock.local_addr()?)
    }

    /// Sends a request and waits for its response.
    ///
    /// # Errors
    /// Where it can't be sent.
    pub fn exchange(&mut self, request: &[u8], limit: Duration) -> Result<Answer> {
        self.stream.write_all(request).context("sending over TLS")?;
        self.stream.flush().context("sending over TLS")?;
        let set = |stream: &StreamOwned<ClientConnection, TcpStream>, left| {
            stream.sock.set_read_timeout(Some(left))
        };
        Ok(read_answer(&mut self.stream, &set, limit))
    }
}
