//! A client, a network, the product with one tier or both, an origin behind it.

use std::{
    ffi::OsString,
    fs,
    net::SocketAddr,
    ops::Deref,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;
use tokenblock_ebpf::location::LocationKind;
use tokenblock_tests::{
    certificate::Certificate,
    client::{Answer, Client, TlsClient},
    fixtures::{LOCATIONS, TOKENS, Token, list_file},
    netns::{INTERFACE, Pair},
    origin::Origin,
    poll,
    product::{Event, Product, canonical},
    relay::Relay,
};

/// Where the origin listens: what the kernel tier protects.
pub(crate) const ORIGIN_PORT: u16 = 8080;
/// Where the proxy listens.
pub(crate) const PROXY_PORT: u16 = 8443;
/// How long an answer, an event or an end may take on a machine that has much else to do.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
/// How long a client waits for an answer that must not come.
pub(crate) const SILENCE: Duration = Duration::from_millis(50);

/// The tier under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    Kernel,
    Proxy,
}

/// Client and server, and what is between them.
pub(crate) enum Ends {
    Linked(Pair),
    Relayed(Relay),
}

impl Deref for Ends {
    type Target = Pair;

    fn deref(&self) -> &Pair {
        match self {
            Self::Linked(pair) => pair,
            Self::Relayed(relay) => &relay.pair,
        }
    }
}

impl From<Pair> for Ends {
    fn from(pair: Pair) -> Self {
        Self::Linked(pair)
    }
}

impl From<Relay> for Ends {
    fn from(relay: Relay) -> Self {
        Self::Relayed(relay)
    }
}

/// A BPF file system of the test's own; what is kept there ends with it.
pub(crate) struct BpfFs(TempDir);

impl BpfFs {
    pub(crate) fn mount() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "bpf", "bpf"])
            .arg(folder.path())
            .status();
        assert!(mount.unwrap().success());
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        // Lazily: a process that ends meanwhile may still hold a folder.
        drop(
            Command::new("umount")
                .arg("--lazy")
                .arg(self.path())
                .status(),
        );
    }
}

/// What the product is given, before it runs.
pub(crate) struct Bench {
    pub(crate) pair: Ends,
    pub(crate) origin: Origin,
    pub(crate) folder: TempDir,
    pub(crate) certificate: Certificate,
    binary: PathBuf,
}

/// The product in force between client and origin.
pub(crate) struct Lab {
    pub(crate) bench: Bench,
    pub(crate) product: Product,
    tier: Tier,
}

/// What came of one request.
pub(crate) struct Exchange {
    pub(crate) answer: Answer,
    pub(crate) client: SocketAddr,
    /// Events that were reported before it: an earlier client may have had its port.
    before: usize,
}

impl Bench {
    /// Namespaces, origin and certificate; the denylist lists all tokens of the fixtures.
    pub(crate) fn new(binary: PathBuf) -> Self {
        Self::between(Pair::new().unwrap(), binary)
    }

    /// The same in namespaces that are there.
    pub(crate) fn between(pair: impl Into<Ends>, binary: PathBuf) -> Self {
        let pair = pair.into();
        let folder = tempfile::tempdir().unwrap();
        let bench = Self {
            origin: Origin::start(&pair.server, ORIGIN_PORT).unwrap(),
            certificate: Certificate::new(folder.path(), "server").unwrap(),
            pair,
            folder,
            binary,
        };
        fs::write(bench.list(), list_file(TOKENS)).unwrap();
        bench
    }

    /// The denylist file.
    pub(crate) fn list(&self) -> PathBuf {
        self.folder.path().join("denylist")
    }

    /// Arguments of every run: denylist, locations, state, log.
    pub(crate) fn common(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["run".into()];
        args.extend(["--denylist".into(), self.list().into()]);
        for (kind, name) in LOCATIONS {
            let flag = match kind {
                LocationKind::Header => "--header",
                LocationKind::Cookie => "--cookie",
                LocationKind::Query => "--query",
            };
            args.extend([flag.into(), name.into()]);
        }
        args.extend([
            "--state-dir".into(),
            self.folder.path().join("state").into(),
        ]);
        args.extend(["--log-format".into(), "json".into()]);
        args
    }

    /// Arguments of a tier.
    pub(crate) fn tier(&self, tier: Tier) -> Vec<OsString> {
        let args: Vec<OsString> = match tier {
            Tier::Kernel => vec!["--interface".into(), INTERFACE.into()],
            Tier::Proxy => vec![
                "--proxy-listen".into(),
                format!("[::]:{PROXY_PORT}").into(),
                "--tls-cert".into(),
                self.certificate.cert_file.clone().into(),
                "--tls-key".into(),
                self.certificate.key_file.clone().into(),
                "--upstream".into(),
                format!("http://127.0.0.1:{ORIGIN_PORT}").into(),
            ],
        };
        let port = ["--port".to_owned(), ORIGIN_PORT.to_string()].map(OsString::from);
        args.into_iter()
            .chain(port.into_iter().filter(|_| tier == Tier::Kernel))
            .collect()
    }

    /// Arguments of a run that judges what leaves the host.
    pub(crate) fn egress(&self) -> Vec<OsString> {
        let mut args = self.common();
        args.extend(self.tier(Tier::Kernel));
        args.extend(["--direction", "egress"].map(OsString::from));
        args
    }

    /// Starts the product at the server and waits until it is in force.
    pub(crate) fn start(self, tier: Tier, more: &[&str]) -> Lab {
        let mut args = self.common();
        args.extend(self.tier(tier));
        args.extend(more.iter().map(OsString::from));
        let product = Product::start(&self.binary, &self.pair.server, &args).unwrap();
        Lab {
            bench: self,
            product,
            tier,
        }
    }

    /// The product with these arguments, not waited for.
    pub(crate) fn spawn(&self, args: &[OsString]) -> Product {
        Product::spawn(&self.binary, &self.pair.server, args).unwrap()
    }

    /// The product in force with these arguments.
    pub(crate) fn start_with(&self, args: &[OsString]) -> Product {
        Product::start(&self.binary, &self.pair.server, args).unwrap()
    }

    /// The product in force with these arguments at the client's end.
    pub(crate) fn start_at_client(&self, args: &[OsString]) -> Product {
        Product::start(&self.binary, &self.pair.client, args).unwrap()
    }
}

impl Lab {
    /// All tokens listed, one tier in force.
    pub(crate) fn new(binary: PathBuf, tier: Tier) -> Self {
        Bench::new(binary).start(tier, &[])
    }

    /// Ends the product, where it still runs, and starts another on the same files.
    pub(crate) fn restarted(self) -> Self {
        let Self {
            bench,
            product,
            tier,
        } = self;
        drop(product);
        bench.start(tier, &[])
    }

    /// Where clients of this tier connect to, IPv4 first.
    pub(crate) fn servers(&self) -> [SocketAddr; 2] {
        self.bench.pair.server_addresses(match self.tier {
            Tier::Kernel => ORIGIN_PORT,
            Tier::Proxy => PROXY_PORT,
        })
    }

    /// Sends a request on a connection of its own and waits for the answer.
    pub(crate) fn exchange(&self, server: SocketAddr, request: &[u8], limit: Duration) -> Exchange {
        let netns = &self.bench.pair.client;
        let before = self.product.events().len();
        match self.tier {
            Tier::Kernel => {
                let mut client = Client::connect(netns, server).unwrap();
                let answer = client.exchange(request, limit).unwrap();
                let address = client.address().unwrap();
                client.abort().unwrap();
                Exchange {
                    answer,
                    client: address,
                    before,
                }
            }
            Tier::Proxy => {
                let mut client =
                    TlsClient::connect(netns, server, &self.bench.certificate).unwrap();
                let answer = client.exchange(request, limit).unwrap();
                Exchange {
                    answer,
                    client: client.address().unwrap(),
                    before,
                }
            }
        }
    }

    /// A request that bears `token`.
    pub(crate) fn request(token: Token) -> Vec<u8> {
        format!(
            "GET / HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\r\n",
            Certificate::HOST,
            token.text()
        )
        .into_bytes()
    }

    /// Whether a request with `token` is blocked now.
    pub(crate) fn blocks(&self, token: Token) -> bool {
        let [server, _] = self.servers();
        let answer = self.exchange(server, &Self::request(token), LIMIT).answer;
        match (self.tier, answer.status()) {
            (_, Some(200)) => false,
            (_, Some(403)) => true,
            (tier, other) => panic!("{tier:?}: {other:?} {answer:?}\n{}", self.product.log()),
        }
    }

    /// What was reported of a request so far.
    pub(crate) fn events_of(&self, exchange: &Exchange) -> Vec<Event> {
        let source = canonical(exchange.client);
        let events = self.product.events().into_iter().skip(exchange.before);
        events.filter(|event| event.source == source).collect()
    }

    /// Asserts that exactly one event was reported of this client, and gives it.
    pub(crate) fn only_event(&self, exchange: &Exchange, name: &str) -> Event {
        let reported = || Some(self.events_of(exchange)).filter(|events| !events.is_empty());
        let events = poll::until(LIMIT, reported).unwrap_or_default();
        let [event] = &events[..] else {
            panic!(
                "{name}: one event expected, not {events:?}\n{}",
                self.product.log()
            );
        };
        event.clone()
    }

    /// Asserts that neither the log nor the state holds a listed token in plain text.
    pub(crate) fn assert_no_token_shown(&self) {
        let log = self.product.log();
        for token in TOKENS {
            assert!(
                !log.contains(&token.text()),
                "{token:?} stands in the log:\n{log}"
            );
        }
        assert_no_token_in(&self.bench.folder.path().join("state"));
    }
}

fn assert_no_token_in(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            assert_no_token_in(&entry.path());
            continue;
        }
        let Ok(bytes) = fs::read(entry.path()) else {
            continue;
        };
        for token in TOKENS {
            let text = token.text();
            let found = bytes
                .windows(text.len())
                .any(|window| window == text.as_bytes());
            assert!(!found, "{token:?} stands in {}", entry.path().display());
        }
    }
}
