//! Load at a fixed rate: what a request waits where all proxies get the same requests at the same times.
//!
//! Requests come at random (exponential intervals, the same for each proxy of a round), whether or not those before
//! were answered, as from many clients that know nothing of each other; and a wait counts from when the request was
//! due, not from when a connection was free for it. h2load's `--rps` sends in bursts each 10 ms, and counts from
//! sending, as do most: what waits behind a slow answer would not be seen. Each thread has a core of its own and never sleeps,
//! for to be woken takes longer than most answers.

mod connection;
mod protocol;
mod turns;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::event::epoll;
use tokenblock_tests::bench::{cores, percentile};

pub(crate) use self::turns::measure;
use self::{connection::Connection, protocol::Protocol};
use crate::{Bench, load::Load};

/// What comes before that is sent and not counted.
const WARM: Duration = Duration::from_millis(100);
/// The longest that the last answers are waited for.
const END: Duration = Duration::from_secs(5);

/// What to send, and how often.
#[derive(Clone, Copy, Debug)]
struct Pace<'a> {
    load: &'a Load,
    /// Requests per second, of all threads.
    rate: f64,
    lasting: Duration,
    /// Where the random intervals begin.
    seed: u64,
}

/// What requests have waited, in microseconds.
#[derive(Clone, Debug, Default)]
struct Waits {
    /// From when one was due until its answer was there.
    answered: Vec<f64>,
    /// From when one was due until the generator looked at the clock: its own part.
    late: Vec<f64>,
}

impl Waits {
    fn p50(&mut self) -> f64 {
        percentile(&mut self.answered, 50)
    }

    fn p99(&mut self) -> f64 {
        percentile(&mut self.answered, 99)
    }

    /// The generator's part.
    fn late_p99(&mut self) -> f64 {
        percentile(&mut self.late, 99)
    }
}

impl Pace<'_> {
    /// How long requests are sent.
    fn seconds(&self) -> f64 {
        (WARM + self.lasting).as_secs_f64()
    }

    /// Loads what listens on `port`.
    ///
    /// # Errors
    /// Where a connection breaks, or an answer is another than is due.
    fn run(&self, bench: &Bench, port: u16) -> Result<Waits> {
        cores::let_others();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let cores: Vec<usize> = cores::LOAD
            .split(',')
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let connections = usize::try_from(self.load.connections)? / cores.len();
        let drivers = bench.netns.enter(|| -> Result<Vec<Driver>> {
            let one = || Connection::open(address, &bench.certificate, Protocol::new(self.load));
            let some = || (0..connections).map(|_| one()).collect::<Result<Vec<_>>>();
            let drivers = cores
                .iter()
                .map(|_| Driver::new(some()?, usize::try_from(self.load.streams)?));
            drivers.collect()
        })??;
        #[expect(clippy::cast_precision_loss, reason = "two")]
        let interval = cores.len() as f64 / self.rate;
        let began = Instant::now();
        let waits = thread::scope(|scope| {
            let threads: Vec<_> = std::iter::zip(drivers, &cores)
                .map(|(driver, core)| {
                    let seed = self.seed ^ (*core as u64) << 32;
                    let schedule = Schedule::new(began, interval, seed);
                    scope.spawn(move || -> Result<Waits> {
                        cores::take(*core)?;
                        driver.drive(schedule, began + WARM, began + WARM + self.lasting)
                    })
                })
                .collect();
            let ended = threads.into_iter().map(|thread| {
                thread
                    .join()
                    .map_err(|_panic| anyhow!("a generator panicked"))?
            });
            ended.collect::<Result<Vec<_>>>()
        });
        let waits =
            waits.with_context(|| format!("{} at a fixed rate to port {port}", self.load.name))?;
        Ok(waits.into_iter().fold(Waits::default(), |mut all, one| {
            all.answered.extend(one.answered);
            all.late.extend(one.late);
            all
        }))
    }
}

/// When requests are due.
struct Schedule {
    next: Instant,
    /// Seconds, in the mean.
    interval: f64,
    /// Of splitmix64.
    state: u64,
}

impl Schedule {
    fn new(began: Instant, interval: f64, seed: u64) -> Self {
        let mut schedule = Self {
            next: began,
            interval,
            state: seed,
        };
        schedule.step();
        schedule
    }

    fn step(&mut self) {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        #[expect(clippy::cast_precision_loss, reason = "53 bits are left")]
        let uniform = ((z >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        self.next += Duration::from_secs_f64(-uniform.ln() * self.interval);
    }
}

/// One thread's connections.
struct Driver {
    connections: Vec<Connection>,
    epoll: std::os::fd::OwnedFd,
    /// Connections that take another request, in turns; once for each.
    free: VecDeque<usize>,
    /// Requests that wait for one.
    due: VecDeque<Instant>,
    open: usize,
}

impl Driver {
    fn new(connections: Vec<Connection>, streams: usize) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (n, connection) in connections.iter().enumerate() {
            let data = epoll::EventData::new_u64(n as u64);
            epoll::add(&epoll, connection.socket(), data, epoll::EventFlags::IN)?;
        }
        let free = (0..streams).flat_map(|_| 0..connections.len()).collect();
        Ok(Self {
            connections,
            epoll,
            free,
            due: VecDeque::new(),
            open: 0,
        })
    }

    /// Sends what is due until `end`; counts what was due from `begin` on.
    fn drive(mut self, mut schedule: Schedule, begin: Instant, end: Instant) -> Result<Waits> {
        let mut waits = Waits::default();
        let mut done = Vec::new();
        loop {
            let now = Instant::now();
            while schedule.next <= now && schedule.next < end {
                if schedule.next >= begin {
                    waits.late.push(microseconds(now - schedule.next));
                }
                self.due.push_back(schedule.next);
                schedule.step();
            }
            self.send()?;
            self.receive(&mut done)?;
            if !done.is_empty() {
                let now = Instant::now();
                let counted = done.drain(..).filter(|due| *due >= begin);
                waits
                    .answered
                    .extend(counted.map(|due| microseconds(now - due)));
            }
            if schedule.next >= end && self.due.is_empty() && self.open == 0 {
                return Ok(waits);
            }
            ensure!(
                now < end + END,
                "{} requests without an answer",
                self.open + self.due.len()
            );
        }
    }

    fn send(&mut self) -> Result<()> {
        while !self.due.is_empty()
            && let Some(n) = self.free.pop_front()
        {
            let connection = self.connections.get_mut(n).context("no such connection")?;
            let due = self.due.pop_front().context("nothing is due")?;
            connection.send(due)?;
            self.open += 1;
        }
        Ok(())
    }

    /// Takes what answers there are.
    fn receive(&mut self, done: &mut Vec<Instant>) -> Result<()> {
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }; 16];
        let ready = epoll::wait(
            &self.epoll,
            &mut events[..],
            Some(&rustix::time::Timespec::default()),
        )?;
        for event in events.iter().take(ready) {
            let n = usize::try_from(event.data.u64())?;
            let connection = self.connections.get_mut(n).context("no such connection")?;
            let before = done.len();
            connection.receive(done)?;
            let answered = done.len() - before;
            self.open -= answered;
            self.free.extend(std::iter::repeat_n(n, answered));
        }
        Ok(())
    }
}

fn microseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
