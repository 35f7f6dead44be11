//! What an idle TLS connection costs a proxy, after it has served a request.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tokenblock_tests::{bench::figure, certificate::Certificate};

use crate::{
    Bench,
    proxies::{Contender, Kind},
    tls,
};

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Opens so many connections, one after the other, with one request each; measures once nothing moves.
pub(crate) fn measure(bench: &Bench, kind: Kind, connections: usize) -> Result<()> {
    let tokens = bench.folder.path().join("none.txt");
    std::fs::write(&tokens, "")?;
    let mut contender = Contender::start(bench, kind, &tokens)?;
    contender.wait(bench, false)?;
    let config = tls::config(&bench.certificate, b"http/1.1")?;
    let address = SocketAddr::from(([127, 0, 0, 1], kind.port()));
    let before = contender.process.memory()?;
    let open: Vec<Stream> = bench.netns.enter(|| {
        (0..connections)
            .map(|_| connect(address, &config))
            .collect::<Result<_>>()
    })??;
    // The last answers' work is over by then.
    std::thread::sleep(Duration::from_millis(500));
    let taken = contender.process.memory()?.saturating_sub(before);
    #[expect(clippy::cast_precision_loss, reason = "a few hundred megabytes")]
    let each = taken as f64 / open.len() as f64 / 1000.0;
    figure(&format!("{}_idle_connection_kb", kind.name()), each, "kB");
    Ok(())
}

fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<Stream> {
    let name = Certificate::HOST.try_into()?;
    let connection = ClientConnection::new(Arc::clone(config), name)?;
    let tcp = TcpStream::connect(address).context("connecting")?;
    tcp.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut stream = StreamOwned::new(connection, tcp);
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
    let mut answer = [0; 4096];
    let read = stream.read(&mut answer).context("reading an answer")?;
    ensure!(answer[..read].starts_with(b"HTTP/1.1 200"), "no answer");
    Ok(stream)
}
