//! Random times, the same for each that is measured.

use std::time::{Duration, Instant};

/// When requests are due.
pub(super) struct Schedule {
    pub(super) next: Instant,
    /// Seconds, in the mean.
    interval: f64,
    /// Of splitmix64.
    state: u64,
}

impl Schedule {
    pub(super) fn new(began: Instant, interval: f64, seed: u64) -> Self {
        let mut schedule = Self {
            next: began,
            interval,
            state: seed,
        };
        schedule.step();
        schedule
    }

    pub(super) fn step(&mut self) {
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
