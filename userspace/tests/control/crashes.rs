//! `kill -9` while additions stream in: none that was acknowledged is lost, and it starts clean.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::support::{Host, IN_FILE, fed, outcome, tokens};

/// How many times it is killed; otherwise by `TOKENBLOCK_TEST_KILLS`.
const KILLS: u64 = 30;
/// How long it is killed besides, by `TOKENBLOCK_TEST_KILL_MINUTES`; for hours of it.
const MINUTES: u64 = 0;
const WRITERS: u64 = 3;

/// Adds tokens one by one until the process is gone; gives those that were acknowledged.
fn storm(socket: &Path, next: &AtomicU64) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let Ok(mut stream) = UnixStream::connect(socket) else {
        return acknowledged;
    };
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    loop {
        let token = format!("storm-token-{:08}", next.fetch_add(1, Ordering::Relaxed));
        let body = format!("{{\"entries\":[{{\"token\":\"{token}\"}}]}}");
        let head = format!(
            "POST /v1/entries HTTP/1.1\r\nHost: a\r\nContent-Length: {}",
            body.len()
        );
        if stream
            .write_all(format!("{head}\r\n\r\n{body}").as_bytes())
            .is_err()
        {
            return acknowledged;
        }
        match answer(&mut answers) {
            Some(200) => acknowledged.push(token),
            Some(other) => panic!("status {other}"),
            None => return acknowledged,
        }
    }
}

/// The status of one whole answer.
fn answer(from: &mut impl std::io::BufRead) -> Option<u16> {
    let (mut status, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        if from.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(code) = line.strip_prefix("http/1.1 ") {
            status = code.get(..3)?.parse().ok();
        } else if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().ok()?;
        } else if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).ok()?;
    status
}

/// Kills that are still to come.
struct Rounds {
    done: u64,
    kills: u64,
    until: Instant,
}

impl Rounds {
    fn new() -> Self {
        let set = |name, otherwise| env::var(name).map_or(otherwise, |n| n.parse().unwrap());
        let minutes = set("TOKENBLOCK_TEST_KILL_MINUTES", MINUTES);
        Self {
            done: 0,
            kills: set("TOKENBLOCK_TEST_KILLS", KILLS),
            until: Instant::now() + Duration::from_mins(minutes),
        }
    }

    fn next(&mut self) -> Option<u64> {
        let more = self.done < self.kills || Instant::now() < self.until;
        more.then(|| {
            self.done += 1;
            self.done - 1
        })
    }
}

#[test]
fn a_bulk_is_there_whole_or_not_at_all_after_a_kill() {
    const BULK: usize = 5000;
    let host = Host::new();
    let mut rounds = Rounds::new();
    let mut acknowledged = 0;
    while let Some(round) = rounds.next() {
        let mut running = host.start(&[]);
        let list = tokens(&format!("bulk-{round:06}"), BULK);
        let mut import = host.tokenblock(&["deny", "import", "--force", "--list", "-"]);
        import.stdin(Stdio::piped());
        let code = thread::scope(|scope| {
            let importing = scope.spawn(|| outcome(fed(import, &list)).0);
            // Some are killed before, some while, some after it is stored.
            thread::sleep(Duration::from_millis(20 + round * 53 % 400));
            running.kill();
            importing.join().unwrap()
        });
        acknowledged += usize::from(code == 0);
        // The next start needn't read all of them again.
        if round % 10 == 9 {
            assert_whole(&host, BULK, &mut acknowledged);
        }
    }
    assert_whole(&host, BULK, &mut acknowledged);
}

/// Asserts that every bulk that was acknowledged is there, and none in part; removes them.
fn assert_whole(host: &Host, bulk: usize, acknowledged: &mut usize) {
    let running = host.start(&[]);
    let (code, out, error) = host.call(&["deny", "list", "--added", "--json"], "");
    assert_eq!(code, 0, "{error}");
    let added = out.lines().count();
    assert!(
        added.is_multiple_of(bulk) && added >= *acknowledged * bulk,
        "{added}"
    );
    running.stop();
    fs::remove_file(host.path("state/denylist.redb")).unwrap();
    *acknowledged = 0;
}

#[test]
fn no_acknowledged_addition_is_lost_to_kills() {
    let mut rounds = Rounds::new();
    let host = Host::new();
    let socket: PathBuf = host.path("state/control.sock");
    let next = AtomicU64::new(0);
    let mut acknowledged = BTreeSet::new();
    while let Some(round) = rounds.next() {
        let mut running = host.start(&[]);
        let added = thread::scope(|scope| {
            let storms: Vec<_> = (0..WRITERS)
                .map(|_| scope.spawn(|| storm(&socket, &next)))
                .collect();
            // Any instant will do; this spreads them.
            let until = Instant::now() + Duration::from_millis(5 + round * 37 % 120);
            let process = rustix::process::Pid::from_child(&running.child);
            for version in 0.. {
                // Files and settings are read again meanwhile.
                let list = format!("{IN_FILE}\n{}", tokens(&format!("file-{version}"), 100));
                fs::write(host.path("next"), list).unwrap();
                fs::rename(host.path("next"), host.path("list")).unwrap();
                rustix::process::kill_process(process, rustix::process::Signal::HUP).unwrap();
                if Instant::now() >= until {
                    break;
                }
                thread::sleep(Duration::from_millis(2));
            }
            running.kill();
            let added = storms.into_iter().flat_map(|storm| storm.join().unwrap());
            added.collect::<Vec<_>>()
        });
        acknowledged.extend(added);
    }
    assert!(
        acknowledged.len() > 100,
        "only {} additions",
        acknowledged.len()
    );
    let running = host.start(&[]);
    let tokens: Vec<_> = acknowledged.iter().map(String::as_str).collect();
    let tokens = tokens.join("\n");
    let (code, out, error) = host.call(&["deny", "check"], &tokens);
    assert_eq!(code, 0, "{error}");
    assert_eq!(out.lines().count(), acknowledged.len());
    let last = acknowledged.last().unwrap();
    assert!(running.blocks(last) && running.blocks(IN_FILE));
    // Besides, at most those whose answers were on their way.
    let added = host.added().len() as u64;
    assert!(
        added <= acknowledged.len() as u64 + rounds.done * WRITERS,
        "{added}"
    );
}
