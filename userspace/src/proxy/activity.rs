//! What a client connection is doing since when, and the one timer that holds it to its time limits.
//!
//! Requests come by the ten thousand a second, time limits are seconds long: nothing is armed or disarmed for
//! a request. The connection notes what happens (a few stores), and one timer looks at the notes when the
//! earliest limit could have passed.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use super::{counters::Closed, settings::Timeouts, stalls::Stalls};

/// Notes of one connection. Atomic only because the connection's stream may be handed to another thread's
/// task on an upgrade as far as types can tell; in fact one thread uses them.
#[derive(Debug)]
pub(super) struct Activity {
    base: Instant,
    /// Requests that were read and not yet answered in full.
    requests: AtomicU64,
    /// Request bodies of which the next bytes are waited for.
    bodies_waiting: AtomicU64,
    /// When bytes came, or were first waited for.
    last_read: AtomicU64,
    /// Whether heads come among other frames, so that bytes don't tell of one.
    http2: AtomicBool,
    /// The limit that the client went beyond.
    fault: OnceLock<Closed>,
    /// How long the client may go on sending a request body of HTTP/1 that is not read to its end, in milliseconds; 0
    /// where there is none.
    body_left: AtomicU64,
    /// When the first byte of a request head came; 0 while none is being read.
    head_since: AtomicU64,
    /// When the last request was over.
    idle_since: AtomicU64,
    /// Since when the client takes nothing of what waits for it; 0 while it does.
    write_since: AtomicU64,
}

impl Activity {
    /// A connection that was made just now. Its first head is waited for from the start.
    pub(super) fn new() -> Self {
        Self {
            base: Instant::now(),
            requests: AtomicU64::new(0),
            bodies_waiting: AtomicU64::new(0),
            last_read: AtomicU64::new(1),
            http2: AtomicBool::new(false),
            fault: OnceLock::new(),
            body_left: AtomicU64::new(0),
            head_since: AtomicU64::new(1),
            idle_since: AtomicU64::new(1),
            write_since: AtomicU64::new(0),
        }
    }

    /// Bytes came from the client.
    pub(super) fn on_read(&self) {
        let now = self.now();
        set(&self.last_read, now);
        let between = get(&self.requests) == 0 && get(&self.head_since) == 0;
        if between && !self.http2.load(Ordering::Relaxed) {
            set(&self.head_since, now);
        }
    }

    /// The connection speaks HTTP/2.
    pub(super) fn on_http2(&self) {
        self.http2.store(true, Ordering::Relaxed);
    }

    /// The client went beyond a limit; the first one counts.
    pub(super) fn on_fault(&self, why: Closed) {
        self.fault.get_or_init(|| why);
    }

    /// The limit that the client went beyond.
    pub(super) fn fault(&self) -> Option<Closed> {
        self.fault.get().copied()
    }

    /// The rest of a request body of HTTP/1 is not read yet, or will never be: the client may go on sending it for so
    /// long after the connection's last response.
    pub(super) fn on_body_left(&self, patience: Duration) {
        let patience = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        set(&self.body_left, patience);
    }

    /// Nothing of the request body is awaited any more.
    pub(super) fn on_body_done(&self) {
        set(&self.body_left, 0);
    }

    /// How long the client may go on sending a body, where one is left.
    pub(super) fn body_left(&self) -> Option<Duration> {
        let patience = get(&self.body_left);
        (patience != 0).then(|| Duration::from_millis(patience))
    }

    /// The client takes no more bytes.
    pub(super) fn on_write_blocked(&self) {
        if get(&self.write_since) == 0 {
            set(&self.write_since, self.now());
        }
    }

    /// The client took bytes.
    pub(super) fn on_write(&self) {
        if get(&self.write_since) != 0 {
            set(&self.write_since, 0);
        }
    }

    /// A request head is complete.
    pub(super) fn on_request(&self) {
        set(&self.head_since, 0);
        set(&self.requests, get(&self.requests) + 1);
    }

    /// A request was answered in full, or given up.
    pub(super) fn on_answered(&self) {
        let left = get(&self.requests).saturating_sub(1);
        set(&self.requests, left);
        if left == 0 {
            set(&self.idle_since, self.now());
        }
    }

    /// The next bytes of a request body are waited for, or no longer.
    pub(super) fn on_body_waiting(&self, waiting: bool) {
        let count = get(&self.bodies_waiting);
        let count = if waiting {
            // A client can't be late with what nobody had asked it for.
            set(&self.last_read, self.now());
            count + 1
        } else {
            count.saturating_sub(1)
        };
        set(&self.bodies_waiting, count);
    }

    /// Runs until a limit has passed; says which.
    pub(super) async fn overdue(&self, limits: &Timeouts, stalls: &Stalls) -> Closed {
        loop {
            let (deadline, why) = self.next_deadline(limits, stalls);
            if deadline <= Instant::now() {
                return why;
            }
            sleep_until(deadline).await;
        }
    }

    /// The limit that would pass first if nothing more happened.
    ///
    /// What begins from now on can't be overdue before the shortest limit has passed, so looking again then is
    /// soon enough.
    fn next_deadline(&self, limits: &Timeouts, stalls: &Stalls) -> (Instant, Closed) {
        let shortest = limits
            .header
            .min(limits.body)
            .min(limits.write)
            .min(limits.idle);
        let again = (Instant::now() + shortest, Closed::IdleTimeout);
        let waits = [
            (get(&self.write_since), limits.write, Closed::WriteTimeout),
            (stalls.oldest(), limits.write, Closed::WriteTimeout),
            self.waits_for_client(limits),
        ];
        waits
            .into_iter()
            .filter(|(since, ..)| *since != 0)
            .map(|(since, limit, why)| (self.base + Duration::from_millis(since) + limit, why))
            .fold(
                again,
                |first, next| if next.0 < first.0 { next } else { first },
            )
    }

    fn waits_for_client(&self, limits: &Timeouts) -> (u64, Duration, Closed) {
        if get(&self.requests) > 0 {
            if get(&self.bodies_waiting) > 0 {
                return (get(&self.last_read), limits.body, Closed::BodyTimeout);
            }
            return (0, Duration::ZERO, Closed::IdleTimeout);
        }
        match get(&self.head_since) {
            0 => (get(&self.idle_since), limits.idle, Closed::IdleTimeout),
            since => (since, limits.header, Closed::HeaderTimeout),
        }
    }

    /// When the connection was made.
    pub(super) fn start(&self) -> Instant {
        self.base
    }

    /// Milliseconds since the connection was made; at least 1, as 0 stands for "not".
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .max(1)
    }
}

fn get(note: &AtomicU64) -> u64 {
    note.load(Ordering::Relaxed)
}

fn set(note: &AtomicU64, value: u64) {
    note.store(value, Ordering::Relaxed);
}
