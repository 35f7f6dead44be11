//! Requests with a listed token on their way to the log: those that repeat go together.
//!
//! Who was refused and tries again in a loop does so ten thousand times a second. The first such request is reported at
//! once; those like it (same client's end, token, location and outcome) are counted for [`WINDOW`], and reported then,
//! as one event that says how many they are.

use std::{
    cell::RefCell,
    collections::{HashMap, hash_map::Entry},
    net::SocketAddr,
    time::Duration,
};

use tokenblock_ebpf::location::LocationId;
use tokio::{sync::Notify, time::sleep};

use crate::{
    denylist::ShortTokenId,
    event::{EventSink, Outcome, TokenSeen},
};

/// What repeats is reported this often.
const WINDOW: Duration = Duration::from_secs(1);
/// Kinds of events that are known at once; beyond them each event is reported by itself.
const KINDS: usize = 4096;

/// What events have in common that go together.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) source: SocketAddr,
    pub(super) token: ShortTokenId,
    pub(super) location: LocationId,
    pub(super) outcome: Outcome,
}

/// Those of one worker.
pub(super) struct Hits {
    sink: EventSink,
    /// What was reported within the window, and what repeats it since.
    known: RefCell<HashMap<Kind, Option<TokenSeen>>>,
    /// Told when there is one again.
    some: Notify,
}

impl Hits {
    /// Reports to `sink`.
    pub(super) fn new(sink: EventSink) -> Self {
        Self {
            sink,
            known: RefCell::default(),
            some: Notify::new(),
        }
    }

    /// Takes one in, which `event` makes.
    pub(super) fn take(&self, kind: Kind, event: impl FnOnce() -> TokenSeen) {
        let mut known = self.known.borrow_mut();
        let is_first = known.is_empty();
        let has_room = known.len() < KINDS;
        match known.entry(kind) {
            Entry::Occupied(mut entry) => match entry.get_mut() {
                Some(repeated) => repeated.requests += 1,
                waiting @ None => *waiting = Some(event()),
            },
            Entry::Vacant(entry) => {
                if has_room {
                    entry.insert(None);
                }
                self.sink.report(event());
                if is_first {
                    self.some.notify_one();
                }
            }
        }
    }

    /// Reports what repeats, window by window.
    pub(super) async fn watch(&self) {
        loop {
            self.some.notified().await;
            while !self.known.borrow().is_empty() {
                sleep(WINDOW).await;
                self.settle();
            }
        }
    }

    /// Reports what has come together, and forgets what has not been repeated.
    pub(super) fn settle(&self) {
        self.known
            .borrow_mut()
            .retain(|_, repeated| match repeated.take() {
                Some(event) => {
                    self.sink.report(event);
                    true
                }
                None => false,
            });
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::Ipv4Addr,
        sync::{Arc, Mutex},
        time::SystemTime,
    };

    use super::*;
    use crate::event::Tier;

    /// Requests of each event that was reported so far, with the port that they came from.
    type Reported = Arc<Mutex<Vec<(u16, u64)>>>;

    fn hits() -> (Hits, Reported) {
        let reported = Reported::default();
        let to = Arc::clone(&reported);
        let sink = EventSink::new(move |event| {
            let mut all = to.lock().unwrap();
            all.push((event.source.port(), event.requests));
        });
        (Hits::new(sink), reported)
    }

    fn hit(hits: &Hits, port: u16, token: u8) {
        let source = (Ipv4Addr::LOCALHOST, port).into();
        let kind = Kind {
            source,
            token: ShortTokenId([token; 6]),
            location: 0,
            outcome: Outcome::Blocked,
        };
        hits.take(kind, || TokenSeen {
            time: SystemTime::UNIX_EPOCH,
            tier: Tier::Proxy,
            source,
            destination: source,
            location: Arc::from("header authorization"),
            token: kind.token,
            outcome: kind.outcome,
            requests: 1,
        });
    }

    #[test]
    fn what_repeats_is_one_event_that_says_how_often() {
        let (hits, reported) = hits();
        let taken = || std::mem::take(&mut *reported.lock().unwrap());
        for _ in 0..5 {
            hit(&hits, 1, 7);
        }
        hit(&hits, 1, 8);
        hit(&hits, 2, 7);
        // The first of each kind waits for nothing.
        assert_eq!(taken(), [(1, 1), (1, 1), (2, 1)]);
        hits.settle();
        assert_eq!(taken(), [(1, 4)]);
        // One that goes on is reported once a window, one that was over begins anew.
        hit(&hits, 1, 7);
        hit(&hits, 1, 7);
        hit(&hits, 2, 7);
        assert_eq!(taken(), [(2, 1)]);
        hits.settle();
        assert_eq!(taken(), [(1, 2)]);
        hits.settle();
        hits.settle();
        assert_eq!(taken(), []);
        hit(&hits, 1, 7);
        assert_eq!(taken(), [(1, 1)]);
    }

    #[test]
    fn what_finds_no_room_is_reported_by_itself() {
        let (hits, reported) = hits();
        let ports = u16::try_from(KINDS).unwrap() + 5;
        for _ in 0..3 {
            (0..ports).for_each(|port| hit(&hits, port, 1));
        }
        let room = u64::from(ports) - 5;
        assert_eq!(reported.lock().unwrap().len() as u64, room + 3 * 5);
        hits.settle();
        let all: u64 = reported.lock().unwrap().iter().map(|(_, n)| n).sum();
        assert_eq!(all, 3 * u64::from(ports));
    }
}
