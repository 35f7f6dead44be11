//! Load at a fixed rate: what a request waits where all proxies get the same requests at the same times.
//!
//! Requests come at random (exponential intervals, the same for each proxy of a round), whether or not those before
//! were answered, as from many clients that know nothing of each other; and a wait counts from when the request was
//! due, not from when a connection was free for it. h2load's `--rps` sends in bursts each 10 ms, and counts from
//! sending, as do most: what waits behind a slow answer would not be seen. Each thread has a core of its own and never sleeps,
//! for to be woken takes longer than most answers.

mod connection;
mod driver;
mod generator;
mod protocol;
mod schedule;
mod turns;

use std::time::Duration;

use tokenblock_tests::bench::percentile;

pub(crate) use self::turns::measure;

/// What comes before that is sent and not counted.
const WARM: Duration = Duration::from_millis(30);

/// How often a round asks, and when.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Requests per second, of all threads.
    rate: f64,
    lasting: Duration,
    /// Where the random intervals begin.
    seed: u64,
}

impl Pace {
    /// How long requests are sent.
    fn seconds(&self) -> f64 {
        (WARM + self.lasting).as_secs_f64()
    }
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

fn microseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
