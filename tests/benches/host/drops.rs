//! What becomes of segments behind a blocked request, and what each costs: dropped in TC, or by XDP in either of its modes.
//!
//! They are sent through a packet socket, and the core that sends one takes it in at the other end of the link: what is measured is both.

use std::{net::TcpListener, thread, time::Instant};

use anyhow::{Context as _, Result, ensure};
use tokenblock_tests::{
    bench::{LISTED, cores, figure, write_tokens},
    netns::{INTERFACE, Pair},
    poll,
    product::Product,
    raw::{RawClient, RawHost, Segment},
};

use crate::{Bench, contenders::START};

/// What is asked for, the counter of what is dropped so, and the figure.
const MODES: [(&str, &str, &str); 3] = [
    ("off", "blocked_again", "drop_tc_ns"),
    ("generic", "xdp_blocked", "drop_xdp_generic_ns"),
    ("native", "xdp_blocked", "drop_xdp_native_ns"),
];
/// Rounds, in which the modes take turns; the best counts.
const ROUNDS: usize = 9;
/// Segments of a round.
const SEGMENTS: u32 = 20_000;
const PORT: u16 = 8080;
/// The client's port, and its first sequence number.
const CLIENT: u16 = 40_000;
const FIRST: u32 = 1000;

/// A host on which a request was blocked.
struct Blocked {
    product: Product,
    client: RawClient,
    segment: Segment,
    counter: &'static str,
    name: &'static str,
    best: f64,
    _pair: Pair,
}

impl Blocked {
    fn start(bench: &Bench, mode: (&str, &'static str, &'static str)) -> Result<Self> {
        let (xdp, counter, name) = mode;
        let pair = Pair::new()?;
        let [server, _] = pair.server_addresses(PORT);
        let listener = pair.server.enter(|| TcpListener::bind(server))??;
        thread::spawn(move || {
            // Held, so that no socket of the server is closed.
            let _streams: Vec<_> = listener.incoming().collect();
        });
        let list = bench.folder.path().join("few.txt");
        write_tokens(&list, 1000)?;
        let port = PORT.to_string();
        let (list, state) = (list.display().to_string(), bench.folder.path().join(name));
        let state = state.display().to_string();
        let args = [
            "run",
            "--denylist",
            &list,
            "--interface",
            INTERFACE,
            "--port",
            &port,
            "--on-hit=drop",
            "--xdp",
            xdp,
            "--log-format=json",
            "--state-dir",
            &state,
        ];
        let product = Product::start(&bench.binary, &pair.server, &args)?;
        let mut client = RawHost::new(&pair)?.client(server, CLIENT)?;
        client.connect(FIRST)?;
        let request =
            format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {LISTED}\r\n\r\n");
        let segment = client.segment(0, request);
        client.send(&segment)?;
        let blocked = || matches!(product.kernel_counter("blocked"), Ok(1)).then_some(());
        poll::until(START, blocked).context("nothing was blocked")?;
        Ok(Self {
            product,
            client,
            segment,
            counter,
            name,
            best: f64::INFINITY,
            _pair: pair,
        })
    }

    fn round(&mut self) -> Result<()> {
        let began = Instant::now();
        self.client.repeat(&self.segment, SEGMENTS)?;
        let each = began.elapsed().as_secs_f64() * 1e9 / f64::from(SEGMENTS);
        self.best = self.best.min(each);
        Ok(())
    }
}

/// Measures all modes.
pub(crate) fn measure(bench: &Bench) -> Result<()> {
    let mut hosts = Vec::new();
    for mode in MODES {
        hosts.push(Blocked::start(bench, mode)?);
    }
    cores::take(cores::MEASURED.parse()?)?;
    for _ in 0..ROUNDS {
        for host in &mut hosts {
            host.round()?;
        }
    }
    for host in &hosts {
        let dropped = host.product.kernel_counter(host.counter)?;
        let all = u64::from(SEGMENTS) * ROUNDS as u64;
        ensure!(dropped >= all, "{}: {dropped} of {all}", host.name);
        eprintln!("{:<24} {:>9.0}", host.name, host.best);
        figure(host.name, host.best, "ns");
    }
    Ok(())
}
