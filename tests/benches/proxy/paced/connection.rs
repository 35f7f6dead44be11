//! A TLS connection that is asked, and read when something came.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use rustls::ClientConnection;
use tokenblock_tests::certificate::Certificate;

use super::protocol::Protocol;
use crate::tls;

pub(super) struct Connection {
    tls: ClientConnection,
    socket: TcpStream,
    protocol: Protocol,
}

impl Connection {
    /// Connects, with all that comes before the first request.
    pub(super) fn open(
        address: SocketAddr,
        certificate: &Certificate,
        mut protocol: Protocol,
    ) -> Result<Self> {
        let config = tls::config(certificate, protocol.alpn())?;
        let mut tls = ClientConnection::new(config, Certificate::HOST.try_into()?)?;
        let mut socket = TcpStream::connect(address).context("connecting")?;
        socket.set_nodelay(true)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).context("TLS")?;
        }
        tls.writer().write_all(&protocol.begin())?;
        let mut connection = Self {
            tls,
            socket,
            protocol,
        };
        connection.flush()?;
        connection.socket.set_nonblocking(true)?;
        Ok(connection)
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Sends a request.
    pub(super) fn send(&mut self, due: Instant) -> Result<()> {
        let request = self.protocol.request(due);
        self.tls.writer().write_all(request)?;
        self.flush()
    }

    /// Reads what has come; gives when those requests were due that are answered with it.
    pub(super) fn receive(&mut self, done: &mut Vec<Instant>) -> Result<()> {
        match self.tls.read_tls(&mut self.socket) {
            Ok(read) => ensure!(read > 0, "a connection was closed"),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("reading"),
        }
        let state = self.tls.process_new_packets()?;
        let input = self.protocol.input();
        let had = input.len();
        input.resize(had + state.plaintext_bytes_to_read(), 0);
        if had < input.len() {
            self.tls.reader().read_exact(&mut input[had..])?;
            let owed = self.protocol.take(done)?;
            self.tls.writer().write_all(&owed)?;
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket).context("sending")?;
        }
        Ok(())
    }
}
