//! A worker stays awake for a moment where that has paid.
//!
//! To sleep and to be woken costs some microseconds, on a virtual machine more than all else of a request. With few connections to an
//! upstream that is near, the next bytes are closer than that. So a worker that has just had some looks again and again for [`LIMIT`]
//! before it sleeps. Where nothing has come of that it sleeps at once the next times, up to [`MOST`] of them: what is far away, or has
//! to run on the same processor first, costs no more than a few looks in a hundred.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use tokio::{sync::Notify, task::yield_now};

/// How long nothing may come.
const LIMIT: Duration = Duration::from_micros(20);
/// What has to come, once it stays awake, for that to have paid.
const ENOUGH: u64 = 2;
/// How often it sleeps at once at most, between two tries.
const MOST: u32 = 63;

/// One worker's. Nothing in it is locked.
#[derive(Debug, Default)]
pub(super) struct Linger {
    /// Requests and responses that came.
    events: Cell<u64>,
    is_asleep: Cell<bool>,
    /// Told of the first that comes after a sleep.
    first: Notify,
}

/// Whether to try.
#[derive(Debug, Default)]
struct Patience {
    /// Times that are left out now.
    left_out: u32,
    /// And after the next failure.
    next: u32,
}

impl Patience {
    /// Whether this time is not left out.
    fn is_due(&mut self) -> bool {
        let due = self.left_out == 0;
        self.left_out = self.left_out.saturating_sub(1);
        due
    }

    /// Notes what came of a try.
    fn note(&mut self, came: u64) {
        self.next = if came >= ENOUGH {
            0
        } else {
            (self.next * 2 + 1).min(MOST)
        };
        self.left_out = self.next;
    }
}

impl Linger {
    /// A request or a response has come.
    pub(super) fn note(&self) {
        self.events.set(self.events.get().wrapping_add(1));
        if self.is_asleep.get() {
            self.first.notify_one();
        }
    }

    /// Runs beside the worker's other tasks: while it has its turn again and again, the event loop does not sleep.
    pub(super) async fn run(&self) {
        let mut patience = Patience::default();
        loop {
            self.is_asleep.set(true);
            self.first.notified().await;
            if patience.is_due() {
                self.is_asleep.set(false);
                patience.note(self.stay().await);
            }
        }
    }

    /// Stays awake until nothing has come for [`LIMIT`]; says how much came.
    async fn stay(&self) -> u64 {
        let first = self.events.get();
        let (mut seen, mut since) = (first, Instant::now());
        loop {
            yield_now().await;
            let events = self.events.get();
            if events != seen {
                (seen, since) = (events, Instant::now());
            } else if since.elapsed() > LIMIT {
                return seen.wrapping_sub(first);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn what_does_not_pay_is_tried_ever_more_seldom_and_what_pays_each_time() {
        let mut patience = Patience::default();
        let tries = (0..1000).filter(|_| {
            let due = patience.is_due();
            if due {
                patience.note(ENOUGH - 1);
            }
            due
        });
        // The first six, 1, 3, 7, 15 and 31 apart from each other, and then each 64th.
        assert_eq!(tries.count(), 6 + (1000_usize - 126).div_ceil(64));
        while !patience.is_due() {}
        patience.note(ENOUGH);
        assert!((0..10).all(|_| {
            let due = patience.is_due();
            patience.note(ENOUGH);
            due
        }));
    }

    #[test]
    fn it_stays_awake_while_something_comes_and_sleeps_then() {
        let options = tokio::runtime::LocalOptions::default();
        let runtime = tokio::runtime::Builder::new_current_thread().build_local(options);
        runtime.unwrap().block_on(async {
            let linger = Rc::new(Linger::default());
            let running = Rc::clone(&linger);
            let task = tokio::task::spawn_local(async move { running.run().await });
            yield_now().await;
            assert!(linger.is_asleep.get());
            for _ in 0..100 {
                linger.note();
                yield_now().await;
            }
            assert!(!linger.is_asleep.get());
            while !linger.is_asleep.get() {
                yield_now().await;
            }
            task.abort();
        });
    }
}
