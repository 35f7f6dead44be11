//! What bodies cost in segments as large as the kernel makes them: over a link, by the kernel's own count.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::{
    programs::TcAttachType,
    sys::{Stats, enable_stats},
};
use tokenblock_tests::{
    bpf::{Programs, frame::Frame},
    netns::{INTERFACE, Pair, SERVER_V4},
};

use crate::measure::{EGRESS, Measured, PROGRAM};

/// Parts of a body, of which the best counts, and their bytes: some dozens of segments.
const PARTS: usize = 128;
const PART: usize = 4 << 20;
/// Parts in which the sender finds out how much it may send at once.
const FIRST: usize = 8;
/// Bytes that are sent at once.
const PIECE: usize = 1 << 16;
const KIB: f64 = 1024.0;
/// Segments of fewer bytes on the average are not what is measured here.
const LARGE: f64 = 32.0 * KIB;

/// Two hosts, before one of which the programs stand.
pub(crate) struct Link {
    pair: Pair,
    /// The kernel counts while it is open.
    _stats: OwnedFd,
}

impl Link {
    pub(crate) fn new(programs: &mut Programs) -> Result<Self> {
        let pair = Pair::new()?;
        pair.server.enter(|| -> Result<()> {
            programs.attach(PROGRAM, INTERFACE, TcAttachType::Ingress)?;
            programs.attach(EGRESS, INTERFACE, TcAttachType::Egress)
        })??;
        Ok(Self {
            pair,
            _stats: enable_stats(Stats::RunTime)?,
        })
    }

    /// Nanoseconds for each KiB of a body of these bytes over and over, all that a segment costs besides in it.
    pub(crate) fn each_kib(&self, programs: &mut Programs, body: &[u8]) -> Result<Measured> {
        let address = SocketAddr::new(SERVER_V4, Frame::SERVER_PORT);
        let listener = self.pair.server.enter(|| TcpListener::bind(address))??;
        thread::scope(|scope| {
            let server = scope.spawn(move || read_all(&listener));
            let mut client = self.pair.client.enter(|| TcpStream::connect(address))??;
            let length = (FIRST + PARTS) * PART;
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
            client.write_all(head.as_bytes())?;
            let piece: Vec<u8> = body.iter().copied().cycle().take(PIECE).collect();
            let mut parts = Vec::with_capacity(PARTS);
            let mut first = Ran::of(programs)?;
            let mut before = first;
            for part in 0..FIRST + PARTS {
                for _ in 0..PART / PIECE {
                    client.write_all(&piece).context("sending a body")?;
                }
                let now = Ran::of(programs)?;
                if part < FIRST {
                    first = now;
                } else if now.bytes > before.bytes {
                    let took = now.took.saturating_sub(before.took).as_secs_f64() * 1e9;
                    parts.push(took * KIB / (now.bytes - before.bytes) as f64);
                }
                before = now;
            }
            let segment = (before.bytes - first.bytes) as f64 / (before.runs - first.runs) as f64;
            ensure!(segment > LARGE, "segments of {segment:.0} bytes");
            drop(client);
            server
                .join()
                .map_err(|_panic| anyhow!("the server panicked"))??;
            programs.events();
            Ok(Measured::of(parts))
        })
    }
}

/// Takes one connection, and what comes by it.
fn read_all(listener: &TcpListener) -> Result<()> {
    let (mut connection, _) = listener.accept()?;
    let mut read = vec![0; 4 * PIECE];
    while connection.read(&mut read)? > 0 {}
    Ok(())
}

/// What the kernel has counted so far, and the program.
#[derive(Clone, Copy)]
struct Ran {
    runs: u64,
    took: Duration,
    bytes: u64,
}

impl Ran {
    fn of(programs: &mut Programs) -> Result<Self> {
        let (runs, took) = programs.ran(PROGRAM)?;
        let bytes = programs
            .totals()?
            .get("scanned_bytes")
            .copied()
            .context("no such counter")?;
        Ok(Self { runs, took, bytes })
    }
}
