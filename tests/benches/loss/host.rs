//! A host behind a path, and what is sent to it and from it.

use std::{
    fs,
    path::{Path as FilePath, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tokenblock_tests::{
    bench::{LISTED, write_tokens},
    bodies::{Body, Framing},
    certificate::Certificate,
    client::{Answer, Client},
    netns::INTERFACE,
    origin::Origin,
    product::Product,
    relay::{Path, Relay},
};

/// Whether TCP forgets what a connection learned of its path (the kernel's ip-sysctl); per namespace.
const NO_METRICS: &str = "/proc/sys/net/ipv4/tcp_no_metrics_save";
/// By what TCP paces a connection (the kernel's ip-sysctl); per namespace.
const CONGESTION_CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
/// Where origins listen.
const ORIGIN: u16 = 8080;
/// Bytes of a body.
const LENGTH: usize = 1 << 20;
/// Entries of the list.
const ENTRIES: usize = 1000;
/// The longest transfer.
const PATIENCE: Duration = Duration::from_mins(2);
/// What is sent, by what figures call it.
pub(crate) const BODIES: [(&str, Body); 3] = [
    ("random", Body::Binary),
    ("text", Body::Text),
    ("json", Body::Json),
];

/// Which way a body goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Upload(Framing),
    Download,
}

impl Way {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Upload(Framing::Declared) => "upload",
            Self::Upload(Framing::Chunked) => "chunks",
            Self::Download => "download",
        }
    }
}

/// Where the program is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Program {
    /// On the way into the server's host.
    AtServer,
    /// On the way out of the client's.
    AtClient,
}

/// A host behind a path of its own.
pub(crate) struct Host {
    product: Option<Product>,
    origin: Origin,
    relay: Relay,
}

impl Host {
    /// Makes one whose connections are paced by `congestion`; `program` says where it is, if it is, by which binary, and in which
    /// folder that keeps what it needs.
    pub(crate) fn start(
        path: Path,
        congestion: &str,
        program: Option<(Program, &FilePath, &FilePath)>,
    ) -> Result<Self> {
        let relay = Relay::with_large_packets(path)?;
        for netns in [&relay.pair.client, &relay.pair.server] {
            // Without the first a connection would begin with what the last one learned of the path.
            for (setting, value) in [(NO_METRICS, "1"), (CONGESTION_CONTROL, congestion)] {
                netns
                    .enter(|| fs::write(setting, value))?
                    .with_context(|| format!("writing {value} to {setting}"))?;
            }
        }
        let origin = Origin::start(&relay.pair.server, ORIGIN)?;
        for (name, body) in BODIES {
            let page = String::from_utf8_lossy(&body.bytes(LENGTH)).into_owned();
            origin.put(&format!("/{name}"), &page);
        }
        let product = program
            .map(|(place, binary, folder)| protect(place, binary, folder, &relay))
            .transpose()?;
        Ok(Self {
            product,
            origin,
            relay,
        })
    }

    /// Sends a body; gives bytes per second, or none where the connection was reset.
    pub(crate) fn transfer(&self, way: Way, name: &str, body: Body) -> Result<Option<f64>> {
        let request = match way {
            Way::Upload(framing) => framing.request(&body.bytes(LENGTH)),
            Way::Download => format!(
                "GET /{name} HTTP/1.1\r\nHost: {}\r\n\r\n",
                Certificate::HOST
            )
            .into_bytes(),
        };
        let mut client = self.connect()?;
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

    /// What the programs, if there are any, have counted under these names.
    pub(crate) fn counted<'a>(&self, counters: &[&'a str]) -> Result<Vec<(&'a str, u64)>> {
        let Some(product) = &self.product else {
            return Ok(Vec::new());
        };
        let counted = |name: &&'a str| Ok((*name, product.kernel_counter(name)?));
        counters.iter().map(counted).collect()
    }

    /// Sees that the listed token is refused, where the program is.
    pub(crate) fn refuses(&self) -> Result<()> {
        if self.product.is_none() {
            return Ok(());
        }
        let request = format!("GET / HTTP/1.1\r\nAuthorization: Bearer {LISTED}\r\n\r\n");
        let answer = self.connect()?.exchange(request.as_bytes(), PATIENCE)?;
        ensure!(
            answer.status() != Some(200),
            "the listed token was not refused"
        );
        Ok(())
    }

    fn connect(&self) -> Result<Client> {
        let [server, _] = self.relay.pair.server_addresses(ORIGIN);
        Client::connect(&self.relay.pair.client, server)
    }
}

fn protect(place: Program, binary: &FilePath, folder: &FilePath, relay: &Relay) -> Result<Product> {
    fs::create_dir_all(folder).context("making a folder")?;
    let (netns, direction) = match place {
        Program::AtServer => (&relay.pair.server, "ingress"),
        Program::AtClient => (&relay.pair.client, "egress"),
    };
    let list = folder.join("tokens.txt");
    write_tokens(&list, ENTRIES)?;
    let arguments: Vec<PathBuf> = vec![
        "run".into(),
        "--log-format".into(),
        "json".into(),
        "--interface".into(),
        INTERFACE.into(),
        "--direction".into(),
        direction.into(),
        "--port".into(),
        ORIGIN.to_string().into(),
        "--denylist".into(),
        list,
        "--state-dir".into(),
        folder.join("state"),
    ];
    Product::start(binary, netns, &arguments)
}
