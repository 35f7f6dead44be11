//! tokenblock with both tiers.

use std::{
    ffi::OsString,
    fs,
    io::{Read as _, Write as _},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};
use tokenblock::{
    denylist::{Action, Expires, identify},
    key::StoredKey,
    state::{Store, StoredEntry, Subject},
};
use tokenblock_tests::{
    bpf::dump,
    client::TlsClient,
    netns::{INTERFACE, SERVER_V4},
    product::Product,
};

use crate::{Bench, MILLION, anonymous, figure, tokens, until};

const CLEARTEXT: u16 = 8080;
const TLS: u16 = 8443;
/// Additions that are measured.
const ADDITIONS: usize = 50;

pub(crate) fn measure(bench: &Bench, large: bool) -> Result<()> {
    let ours = Ours(bench);
    let list = bench.folder.path().join("list");
    let next = bench.folder.path().join("next");
    tokens::write(&next, MILLION, tokens::opaque)?;

    // From a file, while it runs.
    tokens::write(&list, 1, |_| "the-only-token-so-far".to_owned())?;
    let product = ours.start(&["--denylist", &list.to_string_lossy()])?;
    let before = Ours::memory(&product)?;
    let began = Instant::now();
    fs::rename(&next, &list)?;
    ours.until_refused(&tokens::opaque(MILLION - 1))?;
    figure("load_1m_s", began.elapsed().as_secs_f64(), "s");
    // What was freed goes back to the system a little later.
    std::thread::sleep(Duration::from_secs(2));
    let after = Ours::memory(&product)?;
    let each = |before: f64, after: f64, entries: usize| (after - before) / entries as f64;
    let proxy = each(before.0, after.0, MILLION);
    figure("bytes_per_entry_proxy", proxy, "B");
    let kernel = each(before.1, after.1, MILLION);
    figure("bytes_per_entry_both", proxy + kernel, "B");

    // One more.
    let added = ours.add_some(str::to_owned)?;
    figure("add_one_at_1m_ms", added[ADDITIONS / 2], "ms");
    figure("add_one_at_1m_p98_ms", added[ADDITIONS * 98 / 100], "ms");
    drop(product);

    // At start.
    let began = Instant::now();
    let product = ours.spawn(&["--denylist", &list.to_string_lossy()])?;
    ours.until_refused(&tokens::opaque(MILLION - 1))?;
    figure("start_1m_s", began.elapsed().as_secs_f64(), "s");

    // Long tokens.
    tokens::write(&next, MILLION, tokens::jwt)?;
    let began = Instant::now();
    fs::rename(&next, &list)?;
    ours.until_refused(&tokens::jwt(MILLION - 1))?;
    figure("load_1m_jwt_s", began.elapsed().as_secs_f64(), "s");
    drop(product);

    // One more hash beside as many hashes.
    fs::remove_dir_all(bench.folder.path().join("state"))?;
    tokens::write(&list, MILLION, |n| tokens::hash(&tokens::opaque(n)))?;
    let product = ours.start(&["--denylist", &list.to_string_lossy()])?;
    ours.until_refused(&tokens::opaque(MILLION - 1))?;
    let added = ours.add_some(tokens::hash)?;
    figure("add_one_hash_at_1m_ms", added[ADDITIONS / 2], "ms");

    drop(product);

    // By the API, all of them new.
    fs::remove_dir_all(bench.folder.path().join("state"))?;
    tokens::write(&next, MILLION, tokens::opaque)?;
    tokens::write(&list, 1, |_| "the-only-token-so-far".to_owned())?;
    let product = ours.start(&["--denylist", &list.to_string_lossy()])?;
    let began = Instant::now();
    ours.import(&next)?;
    figure("import_1m_s", began.elapsed().as_secs_f64(), "s");
    ensure!(
        ours.refuses(&tokens::opaque(MILLION - 1)),
        "an import was answered and is not in force"
    );
    drop(product);
    fs::remove_dir_all(bench.folder.path().join("state"))?;
    if large {
        ten_million(bench)?;
    }
    Ok(())
}

fn ten_million(bench: &Bench) -> Result<()> {
    const ENTRIES: usize = 10 * MILLION;
    let ours = Ours(bench);
    let list = bench.folder.path().join("list");
    let next = bench.folder.path().join("next");
    tokens::write(&next, ENTRIES, tokens::opaque)?;
    tokens::write(&list, 1, |_| "the-only-token-so-far".to_owned())?;
    let product = ours.start(&["--denylist", &list.to_string_lossy()])?;
    let before = Ours::memory(&product)?;
    let began = Instant::now();
    fs::rename(&next, &list)?;
    ours.until_refused(&tokens::opaque(ENTRIES - 1))?;
    figure("load_10m_s", began.elapsed().as_secs_f64(), "s");
    std::thread::sleep(Duration::from_secs(2));
    let after = Ours::memory(&product)?;
    let each = |before: f64, after: f64| (after - before) / ENTRIES as f64;
    let both = each(before.0, after.0) + each(before.1, after.1);
    figure("bytes_per_entry_both_10m", both, "B");
    drop(product);
    tokens::write(&list, 1, |_| "the-only-token-so-far".to_owned())?;

    fill_database(bench, ENTRIES)?;
    let began = Instant::now();
    let product = ours.spawn(&["--denylist", &list.to_string_lossy()])?;
    ours.until_refused(&tokens::opaque(ENTRIES - 1))?;
    figure("start_10m_database_s", began.elapsed().as_secs_f64(), "s");
    std::thread::sleep(Duration::from_secs(2));
    let after = Ours::memory(&product)?;
    let both = each(before.0, after.0) + each(before.1, after.1);
    figure("bytes_per_addition_both_10m", both, "B");
    drop(product);
    // What is in the database is listed in what is measured next, too.
    fs::remove_dir_all(bench.folder.path().join("state"))?;
    Ok(())
}

/// As so many additions would have left it.
fn fill_database(bench: &Bench, entries: usize) -> Result<()> {
    const BATCH: usize = 500_000;
    let folder = bench.folder.path().join("state");
    let key = StoredKey::load_or_create(&folder)?;
    let mut store = Store::open(&folder, key.get())?;
    let entry = |n: usize| {
        Ok(StoredEntry {
            identity: identify(key.get(), 8, &tokens::opaque(n))?,
            action: Action::Block,
            expires: Expires::NEVER,
            reason: None,
            source: None,
            added: SystemTime::now(),
            subject: Subject::Token,
        })
    };
    // In the order of the database: else each batch would write all of its pages.
    let mut order: Vec<_> = (0..entries)
        .map(|n| (Sha256::digest(tokens::opaque(n)), n))
        .collect();
    order.sort_unstable();
    for batch in order.chunks(BATCH) {
        let batch: Result<Vec<_>> = batch.iter().map(|(_, n)| entry(*n)).collect();
        store.write(&batch?, &[])?;
    }
    Ok(())
}

pub(crate) struct Ours<'a>(pub(crate) &'a Bench);

/// Where the proxy tier listens.
pub(crate) fn tls() -> SocketAddr {
    (SERVER_V4, TLS).into()
}

impl Ours<'_> {
    fn arguments(&self, more: &[&str]) -> Vec<OsString> {
        let bench = self.0;
        let folder = bench.folder.path();
        let mut all: Vec<OsString> = vec!["run".into(), "--state-dir".into()];
        all.push(folder.join("state").into());
        all.extend(["--interface", INTERFACE, "--port", &CLEARTEXT.to_string()].map(Into::into));
        all.extend(["--proxy-listen".into(), format!("0.0.0.0:{TLS}").into()]);
        all.extend([
            "--tls-cert".into(),
            bench.certificate.cert_file.clone().into(),
        ]);
        all.extend([
            "--tls-key".into(),
            bench.certificate.key_file.clone().into(),
        ]);
        let upstream = format!("http://127.0.0.1:{}", bench.origin.port());
        all.extend(["--upstream".into(), upstream.into()]);
        all.extend(more.iter().map(Into::into));
        all
    }

    pub(crate) fn start(&self, more: &[&str]) -> Result<Product> {
        Product::start(&self.0.binary, &self.0.pair.server, &self.arguments(more))
    }

    fn spawn(&self, more: &[&str]) -> Result<Product> {
        Product::spawn(&self.0.binary, &self.0.pair.server, &self.arguments(more))
    }

    /// Whether both tiers refuse a token.
    pub(crate) fn refuses(&self, token: &str) -> bool {
        let bench = self.0;
        bench.status(CLEARTEXT, token) == Some(403) && self.status_by_tls(token) == Some(403)
    }

    pub(crate) fn until_refused(&self, token: &str) -> Result<()> {
        until("refused", || self.refuses(token))
    }

    fn status_by_tls(&self, token: &str) -> Option<u16> {
        let bench = self.0;
        let client = TlsClient::connect(&bench.pair.client, tls(), &bench.certificate);
        let mut client = client.ok()?;
        let request =
            format!("GET / HTTP/1.1\r\nHost: origin.test\r\nAuthorization: Bearer {token}\r\n\r\n");
        let answer = client.exchange(request.as_bytes(), Duration::from_secs(2));
        answer.ok()?.status()
    }

    /// Adds tokens one by one, each `listed` so; milliseconds until each answer, the least first.
    fn add_some(&self, listed: fn(&str) -> String) -> Result<Vec<f64>> {
        let added = (0..ADDITIONS).map(|n| self.add(&tokens::opaque(MILLION + n), listed));
        let mut added: Vec<f64> = added.collect::<Result<_>>()?;
        added.sort_unstable_by(f64::total_cmp);
        Ok(added)
    }

    /// Adds a token; milliseconds until the answer, after which both tiers refuse it.
    fn add(&self, token: &str, listed: fn(&str) -> String) -> Result<f64> {
        let listed = listed(token);
        let body = format!(r#"{{"entries":[{{"token":"{listed}"}}]}}"#);
        let request = format!(
            "POST /v1/entries HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let socket = self.0.folder.path().join("state/control.sock");
        let began = Instant::now();
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let took = began.elapsed().as_secs_f64() * 1e3;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        ensure!(
            self.refuses(token),
            "an addition was answered and is not in force"
        );
        Ok(took)
    }

    /// Adds a list by the command, which returns when both tiers refuse its tokens.
    fn import(&self, list: &Path) -> Result<()> {
        let state = self.0.folder.path().join("state");
        let mut command = Command::new(&self.0.binary);
        command.args(["deny", "import", "--force", "--list", "--state-dir"]);
        let status = command
            .arg(state)
            .arg(list)
            .stdout(Stdio::null())
            .status()?;
        ensure!(status.success(), "deny import: {status}");
        Ok(())
    }

    /// Bytes of the process and of its BPF maps.
    fn memory(product: &Product) -> Result<(f64, f64)> {
        let pid = product.pid();
        let maps = dump::maps_of(pid).context("the maps of tokenblock")?;
        let maps: u64 = maps.into_iter().map(dump::memory).sum::<Result<u64>>()?;
        Ok((anonymous(pid)?, maps as f64))
    }
}
