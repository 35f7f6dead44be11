//! A path that loses, delays and reorders, frame by frame: a namespace in the middle, in which a thread carries frames
//! from one link to the other.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    netns::{INTERFACE, Netns, Pair},
    wire::{self, Wire},
};

/// The links in the middle, to the client and to the server.
const LINKS: [&str; 2] = ["client", "server"];
/// Longest sleep.
const TICK: Duration = Duration::from_millis(1);
/// Most frames that are taken from one link before the other has its turn.
const BURST: usize = 64;

/// What a path does to frames, in both directions.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// Of a hundred frames so many are lost.
    pub lost: u64,
    /// Of a hundred frames so many are sent on at once, before those that are on their way.
    pub early: u64,
    /// How long the others are on their way.
    pub delay: Duration,
}

/// A client and a server behind such a path; both end when dropped.
#[derive(Debug)]
pub struct Relay {
    /// The ends.
    pub pair: Pair,
    stop: Arc<AtomicBool>,
    carrier: Option<JoinHandle<()>>,
    _middle: Netns,
}

impl Relay {
    /// Makes the namespaces and carries from now on. Frames are no longer than a segment, and so is what TCP makes.
    ///
    /// # Errors
    /// As [`Pair::new`].
    pub fn new(path: Path) -> Result<Self> {
        // What is cut later than here would be lost or late in one piece.
        Self::between(path, |netns| {
            netns.ip(&format!("link set dev {INTERFACE} gso_max_segs 1"))?;
            Ok(())
        })
    }

    /// The same, but that TCP makes packets of up to 64 KiB, which are cut into segments on their way out, behind the programs, as
    /// a network card does.
    ///
    /// # Errors
    /// As [`Pair::new`].
    pub fn with_large_packets(path: Path) -> Result<Self> {
        Self::between(path, |netns| {
            netns.enter(|| wire::cut_in_software(INTERFACE))?
        })
    }

    fn between(path: Path, set: impl Fn(&Netns) -> Result<()>) -> Result<Self> {
        let middle = Netns::new()?;
        let pair = Pair::through(&middle, LINKS)?;
        for netns in [&pair.client, &pair.server] {
            set(netns)?;
        }
        let [client, server] = LINKS.map(|link| Wire::open(&middle, link));
        let wires = [client?, server?];
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let carrier = thread::spawn(move || carry(&wires, path, &stopped));
        Ok(Self {
            pair,
            stop,
            carrier: Some(carrier),
            _middle: middle,
        })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(carrier) = self.carrier.take() {
            // A panic of it shows in the test as frames that are missing.
            drop(carrier.join());
        }
    }
}

/// A frame on its way: when it is due, the how manieth it is, to which link it goes.
type Due = Reverse<(Instant, u64, usize, Vec<u8>)>;

fn carry(wires: &[Wire; 2], path: Path, stop: &AtomicBool) {
    let mut buffer = vec![0; wire::MAX];
    let mut way: BinaryHeap<Due> = BinaryHeap::new();
    let mut count = 0;
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut percent = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % 100
    };
    while !stop.load(Ordering::Relaxed) {
        let mut idle = true;
        for (from, to) in [(0, 1), (1, 0)] {
            for _ in 0..BURST {
                // An interface that goes away ends the test as well.
                let Ok(Some(frame)) = wires[from].receive(&mut buffer, Duration::ZERO) else {
                    break;
                };
                idle = false;
                count += 1;
                if percent() < path.lost {
                    continue;
                }
                let early = percent() < path.early;
                let due = Instant::now() + if early { Duration::ZERO } else { path.delay };
                way.push(Reverse((due, count, to, frame.to_vec())));
            }
        }
        while way
            .peek()
            .is_some_and(|Reverse((due, ..))| *due <= Instant::now())
        {
            let Some(Reverse((_, _, to, frame))) = way.pop() else {
                break;
            };
            // Lost, as on any path.
            wires[to].send(&frame).unwrap_or_default();
        }
        if idle {
            let next = way
                .peek()
                .map(|Reverse((due, ..))| due.saturating_duration_since(Instant::now()));
            thread::sleep(next.unwrap_or(TICK).min(TICK));
        }
    }
}
