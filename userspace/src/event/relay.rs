//! Events on their way from the tiers to whoever takes them: `tier -> queue -> thread -> log, sightings`.
//!
//! A refused request pays for putting its event into a queue and for nothing else. The first event after a quiet time
//! wakes the thread; while more come it looks every [`NAP`] by itself, so that a flood of them wakes nobody, and hands
//! them on in bulk. Where many wait it stops for [`BREATH`] between two bulks: what it takes for one is the longest
//! that a worker on the same core waits for it.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel},
    },
    thread,
    time::Duration,
};

use super::{EventSink, TokenSeen};
use crate::counters::Counted;

/// Events that wait at most; beyond them events are lost, and counted, so that no request ever waits.
const WAITING: usize = 64 * 1024;
/// Events that are handed on at a time at most.
const BULK: usize = 64;
/// How often is looked for more while events come.
const NAP: Duration = Duration::from_millis(2);
/// Rest between two bulks while more wait.
const BREATH: Duration = Duration::from_micros(20);
/// Longest wait at the end for what was reported to be taken.
const PATIENCE: Duration = Duration::from_secs(1);

/// Hands events on. Its thread ends when it and all of its sinks are gone.
#[derive(Debug)]
pub struct Relay {
    to: Sender<Message>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    waiting: AtomicUsize,
    lost: AtomicU64,
}

enum Message {
    Seen(TokenSeen),
    Flush(SyncSender<()>),
}

impl Relay {
    /// Hands on to `take`, on a thread of its own; never an empty bulk.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(take: impl FnMut(Vec<TokenSeen>) + Send + 'static) -> io::Result<Self> {
        let (to, from) = channel();
        let counts = Arc::new(Counts::default());
        let counted = Arc::clone(&counts);
        thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || work(&from, &counted, take))?;
        Ok(Self { to, counts })
    }

    /// Where events are reported.
    #[must_use]
    pub fn sink(&self) -> EventSink {
        let (to, counts) = (self.to.clone(), Arc::clone(&self.counts));
        EventSink::new(move |event| {
            let requests = event.requests;
            let before = counts.waiting.fetch_add(1, Ordering::Relaxed);
            if before >= WAITING || to.send(Message::Seen(event)).is_err() {
                counts.waiting.fetch_sub(1, Ordering::Relaxed);
                counts.lost.fetch_add(requests, Ordering::Relaxed);
            }
        })
    }

    /// Waits until all that was reported so far was taken, but not for long.
    pub fn flush(&self) {
        let (done, is_done) = sync_channel(1);
        let asked = self.to.send(Message::Flush(done)).is_ok();
        if !asked || is_done.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the last events are not reported");
        }
    }

    /// The counters.
    #[must_use]
    pub fn counters(&self) -> Counted {
        let lost = self.counts.lost.load(Ordering::Relaxed);
        vec![("events_lost".to_owned(), lost)]
    }
}

fn work(from: &Receiver<Message>, counts: &Counts, mut take: impl FnMut(Vec<TokenSeen>)) {
    while let Ok(first) = from.recv() {
        let mut next = Some(first);
        while next.is_some() {
            let (bulk, flushed) = gather(next.into_iter().chain(from.try_iter()));
            counts.waiting.fetch_sub(bulk.len(), Ordering::Relaxed);
            let is_full = bulk.len() == BULK;
            if !bulk.is_empty() {
                take(bulk);
            }
            if let Some(flushed) = flushed {
                // Who asked may have lost patience.
                let _heard = flushed.send(());
            } else {
                thread::sleep(if is_full { BREATH } else { NAP });
            }
            next = from.try_recv().ok();
        }
    }
}

/// One bulk, and who waits for it to be taken.
fn gather(messages: impl Iterator<Item = Message>) -> (Vec<TokenSeen>, Option<SyncSender<()>>) {
    let mut bulk = Vec::new();
    for message in messages {
        match message {
            Message::Seen(event) => bulk.push(event),
            Message::Flush(done) => return (bulk, Some(done)),
        }
        if bulk.len() == BULK {
            break;
        }
    }
    (bulk, None)
}

#[cfg(test)]
mod tests {
    use std::{
        net::Ipv4Addr,
        sync::{Mutex, PoisonError},
        time::{Instant, SystemTime},
    };

    use super::*;
    use crate::{
        denylist::ShortTokenId,
        event::{Outcome, Tier},
    };

    fn event(number: u32) -> TokenSeen {
        let [a, b, c, d] = number.to_be_bytes();
        TokenSeen {
            time: SystemTime::UNIX_EPOCH,
            tier: Tier::Proxy,
            source: (Ipv4Addr::LOCALHOST, 1).into(),
            destination: (Ipv4Addr::LOCALHOST, 2).into(),
            location: Arc::from("header authorization"),
            token: ShortTokenId([0, 0, a, b, c, d]),
            outcome: Outcome::Blocked,
            requests: 1,
        }
    }

    #[test]
    fn all_events_come_in_order_and_in_bulks() {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let by_thread = Arc::clone(&taken);
        let relay = Relay::start(move |bulk| {
            assert!((1..=BULK).contains(&bulk.len()));
            by_thread.lock().unwrap().push(bulk);
        })
        .unwrap();
        let sink = relay.sink();
        let all = 5000;
        (0..all).for_each(|number| sink.report(event(number)));
        relay.flush();
        let bulks = taken.lock().unwrap();
        let tokens = bulks.iter().flatten().map(|event| event.token);
        assert!(tokens.eq((0..all).map(|number| event(number).token)));
        assert!(bulks.len() < 500, "{}", bulks.len());
        assert_eq!(relay.counters()[0].1, 0);
    }

    #[test]
    fn what_finds_no_room_is_lost_and_counted() {
        let taken = Arc::new(Mutex::new(0));
        let hold = taken.lock().unwrap();
        let by_thread = Arc::clone(&taken);
        let relay = Relay::start(move |bulk| {
            *by_thread.lock().unwrap_or_else(PoisonError::into_inner) += bulk.len();
        })
        .unwrap();
        let sink = relay.sink();
        let (room, more) = (u32::try_from(WAITING).unwrap(), 2000);
        (0..room + more).for_each(|number| sink.report(event(number)));
        let lost = relay.counters()[0].1;
        // One bulk may have been taken out before.
        let most = u64::from(more);
        assert!((most - BULK as u64..=most).contains(&lost), "{lost}");
        drop(hold);
        let start = Instant::now();
        let all = u64::from(room + more);
        while *taken.lock().unwrap() as u64 + lost < all {
            assert!(start.elapsed() < Duration::from_secs(10));
            thread::sleep(Duration::from_millis(1));
        }
    }
}
