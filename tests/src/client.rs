//! Clients: exact bytes in chosen segments over TCP or TLS, and curl.

mod answer;
mod tls;

use std::{
    io::{ErrorKind, Read, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

pub use answer::Answer;
pub use tls::TlsClient;

use crate::netns::Netns;

/// How long a connection may take to come up: on a path that loses packets some SYNs are sent again, the fourth after 7 s.
const CONNECT: Duration = Duration::from_secs(20);

/// A TCP connection from inside a namespace.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
}

impl Client {
    /// Connects; every write leaves as a segment of its own.
    ///
    /// # Errors
    /// Where the server can't be reached.
    pub fn connect(netns: &Netns, server: SocketAddr) -> Result<Self> {
        let stream = netns
            .enter(|| TcpStream::connect_timeout(&server, CONNECT))?
            .with_context(|| format!("connecting to {server}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream })
    }

    /// The client's end, as the origin sees it.
    ///
    /// # Errors
    /// Where the socket is gone.
    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.stream.local_addr()?)
    }

    /// Sends one segment (or, above the segment size, as few as the kernel makes of it).
    ///
    /// # Errors
    /// Where the connection is broken.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("sending")
    }

    /// Gives the connection up at once: no byte of it is sent again.
    ///
    /// # Errors
    /// Where the socket is gone.
    pub fn abort(self) -> Result<()> {
        Ok(rustix::net::sockopt::set_socket_linger(
            &self.stream,
            Some(Duration::ZERO),
        )?)
    }

    /// The next response, waited for at most `limit`.
    #[must_use]
    pub fn answer(&mut self, limit: Duration) -> Answer {
        read_answer(
            &mut self.stream,
            &|stream, left| stream.set_read_timeout(Some(left)),
            limit,
        )
    }

    /// Reads until so many bytes have come.
    ///
    /// # Errors
    /// Where the connection ends before, or nothing comes within `limit`.
    pub fn take(&mut self, count: usize, limit: Duration) -> Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.stream.set_read_timeout(Some(limit))?;
        self.stream.read_exact(&mut bytes).context("reading")?;
        Ok(bytes)
    }

    /// All that comes until the connection ends, and whether it ended by a reset.
    ///
    /// # Errors
    /// Where it does not end within `limit` of the last byte.
    pub fn rest(&mut self, limit: Duration) -> Result<(Vec<u8>, bool)> {
        let mut bytes = Vec::new();
        self.stream.set_read_timeout(Some(limit))?;
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => Ok((bytes, false)),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok((bytes, true)),
            Err(error) => Err(error).context("reading to the end"),
        }
    }

    /// Sends a request at once and waits for its response.
    ///
    /// # Errors
    /// Where it can't be sent.
    pub fn exchange(&mut self, request: &[u8], limit: Duration) -> Result<Answer> {
        self.send(request)?;
        Ok(self.answer(limit))
    }
}

/// Runs curl in a namespace; gives the status code (0 where there was no answer) and the body.
///
/// # Errors
/// Where curl can't be started.
pub fn curl(netns: &Netns, args: &[&str]) -> Result<(u16, String)> {
    let output = netns
        .command("curl")
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "20",
            "--write-out",
            "\n%{http_code}",
        ])
        .args(args)
        .output()
        .context("starting curl")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap_or((&text, "0"));
    Ok((status.trim().parse().unwrap_or(0), body.to_owned()))
}

fn read_answer<S: Read>(
    stream: &mut S,
    set_timeout: &dyn Fn(&S, Duration) -> std::io::Result<()>,
    limit: Duration,
) -> Answer {
    let deadline = Instant::now() + limit;
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(response) = answer::parse(&bytes) {
            return response;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || set_timeout(stream, left).is_err() {
            return Answer::Silence(bytes);
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Answer::Closed(bytes),
            Ok(count) => bytes.extend_from_slice(buffer.get(..count).unwrap_or(&[])),
            // A read with a time limit ends so where the machine is stopped and goes on.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Answer::of_error(&error, bytes),
        }
    }
}
