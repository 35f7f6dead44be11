//! Uploads and downloads over paths that lose and reorder, with the kernel tier and without.
//!
//! Two hosts alike, each behind a relay of its own; they are loaded in turns, a connection for each body, so that none
//! inherits another's window. `--full` takes more rounds.
#![expect(
    clippy::print_stderr,
    reason = "the figures go to standard output, the rest to standard error"
)]

use std::{
    env, fs,
    path::{Path as FilePath, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;
use tokenblock_tests::{
    bench::{LISTED, figure, load_average, median, write_tokens},
    bodies::{Body, Framing},
    certificate::Certificate,
    client::{Answer, Client},
    gate,
    netns::INTERFACE,
    origin::Origin,
    product::Product,
    relay::{Path, Relay},
};

/// Whether TCP forgets what a connection learned of its path (the kernel's ip-sysctl); per namespace.
const NO_METRICS: &str = "/proc/sys/net/ipv4/tcp_no_metrics_save";
/// Where origins listen.
const ORIGIN: u16 = 8080;
/// Bytes of a body.
const LENGTH: usize = 1 << 20;
/// Entries of the list.
const ENTRIES: usize = 1000;
/// What a transfer must reach of what it does without the program.
const LIMIT: f64 = 0.90;
/// The longest transfer.
const PATIENCE: Duration = Duration::from_mins(2);
/// One way of frames.
const DELAY: Duration = Duration::from_millis(2);
/// The paths, by what figures call them: of a hundred frames so many are lost, so many early.
const PATHS: [(&str, u64, u64); 3] = [("loss_1", 1, 0), ("loss_5", 5, 0), ("reordering_25", 0, 25)];
const BODIES: [(&str, Body); 3] = [
    ("random", Body::Binary),
    ("text", Body::Text),
    ("json", Body::Json),
];
/// What is loaded.
const WAYS: [Way; 3] = [
    Way::Upload(Framing::Declared),
    Way::Upload(Framing::Chunked),
    Way::Download,
];

/// A host behind a path.
struct Host {
    product: Option<Product>,
    origin: Origin,
    relay: Relay,
}

/// Which way a body goes.
#[derive(Clone, Copy, Debug)]
enum Way {
    Upload(Framing),
    Download,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Upload(Framing::Declared) => "upload",
            Self::Upload(Framing::Chunked) => "chunks",
            Self::Download => "download",
        }
    }
}

impl Host {
    fn start(path: Path, protected: Option<(&FilePath, &TempDir)>) -> Result<Self> {
        let relay = Relay::new(path)?;
        for netns in [&relay.pair.client, &relay.pair.server] {
            // Else a connection would begin with what the last one learned of the path.
            netns
                .enter(|| fs::write(NO_METRICS, "1"))?
                .with_context(|| NO_METRICS.to_owned())?;
        }
        let origin = Origin::start(&relay.pair.server, ORIGIN)?;
        for (name, body) in BODIES {
            let page = String::from_utf8_lossy(&body.bytes(LENGTH)).into_owned();
            origin.put(&format!("/{name}"), &page);
        }
        let product = protected
            .map(|(binary, folder)| protect(binary, folder, &relay))
            .transpose()?;
        Ok(Self {
            product,
            origin,
            relay,
        })
    }

    /// Sends a body; gives bytes per second, or none where the connection was reset.
    fn transfer(&self, way: Way, name: &str, body: Body) -> Result<Option<f64>> {
        let [server, _] = self.relay.pair.server_addresses(ORIGIN);
        let request = match way {
            Way::Upload(framing) => framing.request(&body.bytes(LENGTH)),
            Way::Download => format!(
                "GET /{name} HTTP/1.1\r\nHost: {}\r\n\r\n",
                Certificate::HOST
            )
            .into_bytes(),
        };
        let mut client = Client::connect(&self.relay.pair.client, server)?;
        let begun = Instant::now();
        // A connection that is reset while the body is sent counts as one that is reset.
        let answer = client.exchange(&request, PATIENCE).unwrap_or(Answer::Reset);
        let took = begun.elapsed();
        self.origin.forget();
        if answer.status().is_none() {
            return Ok(None);
        }
        ensure!(answer.status() == Some(200), "{way:?}, {name}: {answer:?}");
        #[expect(clippy::cast_precision_loss, reason = "a power of two")]
        Ok(Some(LENGTH as f64 / took.as_secs_f64()))
    }
}

fn protect(binary: &FilePath, folder: &TempDir, relay: &Relay) -> Result<Product> {
    let list = folder.path().join("tokens.txt");
    write_tokens(&list, ENTRIES)?;
    let arguments: Vec<PathBuf> = vec![
        "run".into(),
        "--log-format".into(),
        "json".into(),
        "--interface".into(),
        INTERFACE.into(),
        "--port".into(),
        ORIGIN.to_string().into(),
        "--denylist".into(),
        list,
        "--state-dir".into(),
        folder.path().join("state"),
    ];
    Product::start(binary, &relay.pair.server, &arguments)
}

/// Both hosts in turns; prints the figures of one path.
fn measure(binary: &FilePath, name: &str, path: Path, rounds: usize) -> Result<()> {
    let folder = tempfile::tempdir().context("making a folder")?;
    let hosts = [
        Host::start(path, None)?,
        Host::start(path, Some((binary, &folder)))?,
    ];
    for way in WAYS {
        let mut all = [Vec::new(), Vec::new()];
        let mut resets = [0.0; 2];
        for (what, body) in BODIES {
            let mut rates = [Vec::new(), Vec::new()];
            for round in 0..rounds {
                for turn in 0..hosts.len() {
                    let n = (round + turn) % hosts.len();
                    match hosts[n].transfer(way, what, body)? {
                        Some(rate) => rates[n].push(rate),
                        None => resets[n] += 1.0,
                    }
                }
            }
            let [none, ours] = rates.clone().map(median);
            figure(
                &format!("{name}_{}_ratio_{what}", way.name()),
                ours / none,
                "x",
            );
            for (all, rates) in all.iter_mut().zip(rates) {
                all.extend(rates);
            }
        }
        let [none, ours] = all.map(median);
        let ratio = ours / none;
        let name = format!("{name}_{}", way.name());
        figure(&format!("{name}_mbytes_per_s_none"), none / 1e6, "MB/s");
        figure(
            &format!("{name}_mbytes_per_s_tokenblock"),
            ours / 1e6,
            "MB/s",
        );
        figure(&format!("{name}_ratio"), ratio, "x");
        let [none, ours] = resets;
        figure(&format!("{name}_resets_none"), none, "connections");
        figure(&format!("{name}_resets_tokenblock"), ours, "connections");
        if ratio < LIMIT {
            eprintln!("{name}_ratio is {ratio:.3}: BELOW {LIMIT}");
        }
    }
    if let Some(product) = &hosts[1].product {
        let counted = [
            "ahead",
            "too_early",
            "duplicate",
            "old_timestamp",
            "gap_conflict",
            "settled",
        ];
        for counter in counted {
            eprintln!("{name}: {counter} {}", product.kernel_counter(counter)?);
        }
    }
    hosts[1].refuses()
}

impl Host {
    /// Sees that the listed token is refused.
    fn refuses(&self) -> Result<()> {
        let [server, _] = self.relay.pair.server_addresses(ORIGIN);
        let mut client = Client::connect(&self.relay.pair.client, server)?;
        let request = format!("GET / HTTP/1.1\r\nAuthorization: Bearer {LISTED}\r\n\r\n");
        let answer = client.exchange(request.as_bytes(), PATIENCE)?;
        ensure!(
            answer.status() != Some(200),
            "the listed token was not refused"
        );
        Ok(())
    }
}

fn main() -> Result<()> {
    let mut rounds = 9;
    for argument in env::args().skip(1) {
        match argument.as_str() {
            // `cargo bench` adds the first, `cargo test --benches` and listing tools the others.
            "--bench" => {}
            "--test" | "--list" => return Ok(()),
            "--full" => rounds = 31,
            other => bail!("unknown argument `{other}`; known: --full"),
        }
    }
    let binary = gate::product("the loss bench").context("start it by `cargo xtask bench loss`")?;
    eprintln!("load average before: {}", load_average());
    for (name, lost, early) in PATHS {
        let path = Path {
            lost,
            early,
            delay: DELAY,
        };
        measure(&binary, name, path, rounds)?;
    }
    eprintln!("load average afterwards: {}", load_average());
    Ok(())
}
