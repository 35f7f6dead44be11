//! What must stay true for long: memory while bodies pass, and every answer while all settings change.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tokenblock_tests::{
    bench::{LISTED, cores, figure, write_tokens},
    certificate::Certificate,
};

use crate::{
    Bench,
    proxies::{Contender, Kind, ORIGIN, origin, status},
};

/// Bytes each way.
const STREAMED: u64 = 10 << 30;
/// What memory may grow by while they pass.
const GROWTH: u64 = 16 << 20;
/// Requests while everything is reloaded.
const REQUESTS: u64 = 1_000_000;
/// Requests of one start of the load generator, with connections of its own.
const BATCH: u64 = 50_000;
/// Pauses between changes.
const LIST_PAUSE: Duration = Duration::from_millis(100);
const CERTIFICATE_PAUSE: Duration = Duration::from_secs(1);

/// Where the origin of long bodies listens.
const STREAMING: u16 = ORIGIN + 1;
/// What ours says when it has taken a certificate.
const TAKEN: &str = "new certificates are in force";

/// Runs all; fails where something is not as it must be.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    bodies(bench)?;
    reloads(bench)
}

/// Bodies of ten gibibytes, each way, over both versions.
fn bodies(bench: &Bench) -> Result<()> {
    bench.netns.enter(|| -> Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", STREAMING))?;
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(|| drop(serve_bodies(stream)));
            }
        });
        Ok(())
    })??;
    let tokens = bench.folder.path().join("none.txt");
    write_tokens(&tokens, 0)?;
    let log = bench.folder.path().join("log");
    let mut proxy = Contender::logging(bench, &tokens, STREAMING, &log)?;
    proxy.wait(bench, false)?;
    let file = bench.folder.path().join("body");
    // A hole: it takes no room on disk.
    fs::File::create(&file)?.set_len(STREAMED)?;
    for (name, version) in [("h1", "--http1.1"), ("h2", "--http2")] {
        for (way, path, arguments) in [
            ("download", "/download", vec!["-o", "/dev/null"]),
            ("upload", "/upload", vec!["-T", path_text(&file)?]),
        ] {
            let began = Instant::now();
            let mut curl = bench.netns.command("curl");
            let port = Kind::Ours.port();
            let resolve = format!("{}:{port}:127.0.0.1", Certificate::HOST);
            let mut child = curl
                .args(["-sSf", "--noproxy", "*", version, "--resolve", &resolve])
                .args(["-w", "%{size_download} %{size_upload}"])
                .args(arguments)
                .arg("--cacert")
                .arg(&bench.certificate.cert_file)
                .arg(format!("https://{}:{port}{path}", Certificate::HOST))
                .stdout(std::process::Stdio::piped())
                .spawn()
                .context("starting curl")?;
            // The first moments fill caches and windows.
            thread::sleep(Duration::from_millis(500));
            let (mut least, mut most) = (u64::MAX, 0);
            while child.try_wait()?.is_none() {
                let memory = proxy.process.memory()?;
                (least, most) = (least.min(memory), most.max(memory));
                thread::sleep(Duration::from_millis(50));
            }
            let output = child.wait_with_output()?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            ensure!(
                output.status.success() && said.contains(&STREAMED.to_string()),
                "{name} {way}: {said}"
            );
            let growth = most.saturating_sub(least);
            ensure!(growth <= GROWTH, "{name} {way}: {growth} bytes more");
            let seconds = began.elapsed().as_secs_f64();
            figure(&format!("{name}_{way}_10gib_s"), seconds, "s");
            figure(
                &format!("{name}_{way}_10gib_memory_mib"),
                mebibytes(most),
                "MiB",
            );
            figure(
                &format!("{name}_{way}_10gib_growth_mib"),
                mebibytes(growth),
                "MiB",
            );
        }
    }
    Ok(())
}

/// Sends a body, or reads one and says that it came.
fn serve_bodies(stream: TcpStream) -> Result<()> {
    let mut reader = BufReader::with_capacity(1 << 18, stream.try_clone()?);
    let mut writer = stream;
    let chunk = vec![b'x'; 1 << 18];
    loop {
        let (mut line, mut length, mut path) = (String::new(), 0, String::new());
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let text = line.trim().to_ascii_lowercase();
            if text.is_empty() {
                break;
            }
            if path.is_empty() {
                text.split(' ').nth(1).unwrap_or("/").clone_into(&mut path);
            }
            if let Some(value) = text.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink())?;
        let answer = if path == "/download" { STREAMED } else { 0 };
        write!(
            writer,
            "HTTP/1.1 200 OK\r\ncontent-length: {answer}\r\n\r\n"
        )?;
        let mut left = answer;
        while left > 0 {
            let len = left.min(chunk.len() as u64);
            writer.write_all(&chunk[..usize::try_from(len)?])?;
            left -= len;
        }
    }
}

/// A million requests, while the certificate and the list are replaced again and again.
fn reloads(bench: &Bench) -> Result<()> {
    let _origin = origin(bench)?;
    let tokens = bench.folder.path().join("reloaded.txt");
    write_tokens(&tokens, 1000)?;
    let log = bench.folder.path().join("log");
    let mut proxy = Contender::logging(bench, &tokens, ORIGIN, &log)?;
    proxy.wait(bench, true)?;
    let done = AtomicBool::new(false);
    let (lists, certificates) = (AtomicU64::new(0), AtomicU64::new(0));
    let clean = thread::scope(|scope| {
        let list = scope.spawn(|| change_list(&tokens, &done, &lists));
        let certificate = scope.spawn(|| change_certificate(bench, &done, &certificates));
        let clean = (0..REQUESTS / BATCH).try_for_each(|batch| {
            proxy.process.check()?;
            send(bench, batch % 2 == 1)?;
            let listed = status(bench, Kind::Ours, LISTED);
            ensure!(listed == Some(403), "a listed token: {listed:?}");
            Ok(())
        });
        done.store(true, Ordering::Relaxed);
        for changing in [list, certificate] {
            changing
                .join()
                .map_err(|_panic| anyhow::anyhow!("a change failed"))??;
        }
        clean
    });
    clean?;
    let taken = fs::read_to_string(&log)?.matches(TAKEN).count();
    ensure!(taken > 1, "certificates were taken {taken} times");
    #[expect(clippy::cast_precision_loss, reason = "some thousand")]
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
    figure("reload_requests", 1e6, "");
    figure("reload_lists", count(&lists), "");
    figure("reload_certificates", count(&certificates), "");
    Ok(())
}

/// One batch; every answer is a 200.
fn send(bench: &Bench, http2: bool) -> Result<()> {
    let mut command = cores::pinned(&bench.netns, cores::LOAD, "h2load");
    command.args(["--threads", "2", "--clients", "64"]);
    if http2 {
        command.args(["--max-concurrent-streams", "4"]);
    } else {
        command.arg("--h1");
    }
    let output = command
        .args(["--requests", &BATCH.to_string()])
        .args(["--header", "Authorization: Bearer clean-0123456789"])
        .arg(format!("https://127.0.0.1:{}/", Kind::Ours.port()))
        .output()
        .context("starting h2load")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        text.contains(&format!("status codes: {BATCH} 2xx, 0 3xx, 0 4xx, 0 5xx"))
            && text.contains(" 0 failed, 0 errored, 0 timeout"),
        "{text}"
    );
    Ok(())
}

fn change_list(tokens: &Path, done: &AtomicBool, changes: &AtomicU64) -> Result<()> {
    let next = tokens.with_extension("next");
    while !done.load(Ordering::Relaxed) {
        let entries =
            500 + 250 * usize::from(changes.fetch_add(1, Ordering::Relaxed).is_multiple_of(2));
        write_tokens(&next, entries)?;
        fs::rename(&next, tokens)?;
        thread::sleep(LIST_PAUSE);
    }
    Ok(())
}

fn change_certificate(bench: &Bench, done: &AtomicBool, changes: &AtomicU64) -> Result<()> {
    while !done.load(Ordering::Relaxed) {
        // In another place: in its own, the files are of two pairs for a moment.
        let next = Certificate::new(bench.folder.path(), "next")?;
        fs::rename(&next.key_file, &bench.certificate.key_file)?;
        fs::rename(&next.cert_file, &bench.certificate.cert_file)?;
        changes.fetch_add(1, Ordering::Relaxed);
        thread::sleep(CERTIFICATE_PAUSE);
    }
    Ok(())
}

fn path_text(path: &Path) -> Result<&str> {
    path.to_str().context("a folder whose name is no text")
}

fn mebibytes(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a few hundred megabytes")]
    let bytes = bytes as f64;
    bytes / f64::from(1 << 20)
}
