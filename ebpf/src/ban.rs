//! Banning a source that goes on to send compromised tokens.

/// When a source is banned, and for how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct BanRule {
    /// Blocked requests that it takes; 0: no source is banned.
    pub hits: u32,
    /// Zero.
    pub reserved: u32,
    /// Nanoseconds, counted from the first, in which they must fall.
    pub window: u64,
    /// Nanoseconds for which the source is banned, counted from the last.
    pub duration: u64,
}

impl BanRule {
    /// Whether any source can be banned.
    #[inline(always)]
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.hits != 0
    }
}

/// What is remembered of a source of blocked requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Offender {
    /// Nanoseconds since boot of the first request that counts.
    pub since: u64,
    /// Until when the source is banned; 0: it is not.
    pub until: u64,
    /// Requests since then.
    pub hits: u64,
}

impl Offender {
    /// Counts a blocked request at `now` (nanoseconds since boot); true where it gets the source banned.
    #[inline(always)]
    pub fn hit(&mut self, rule: &BanRule, now: u64) -> bool {
        if self.hits == 0 || now.wrapping_sub(self.since) > rule.window {
            self.since = now;
            self.hits = 0;
        }
        self.hits += 1;
        if !rule.is_on() || self.hits < u64::from(rule.hits) || self.is_banned(now) {
            return false;
        }
        self.until = now.wrapping_add(rule.duration);
        self.hits = 0;
        true
    }

    /// Whether the source is banned at `now`.
    #[inline(always)]
    #[must_use]
    pub fn is_banned(&self, now: u64) -> bool {
        now < self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: BanRule = BanRule {
        hits: 3,
        reserved: 0,
        window: 100,
        duration: 1000,
    };

    #[test]
    fn so_many_hits_in_the_window_ban() {
        let mut source = Offender::default();
        assert!(!source.hit(&RULE, 10));
        assert!(!source.hit(&RULE, 60));
        assert!(source.hit(&RULE, 110));
        assert!(source.is_banned(110) && source.is_banned(1109) && !source.is_banned(1110));
        // A banned source is not banned again by what was under way.
        assert!(!source.hit(&RULE, 111) && !source.hit(&RULE, 112) && !source.hit(&RULE, 113));
        assert!(!source.is_banned(1110));
    }

    #[test]
    fn hits_further_apart_do_not() {
        let mut source = Offender::default();
        for at in [10, 60, 111, 212, 313] {
            assert!(!source.hit(&RULE, at), "{at}");
            assert!(!source.is_banned(at));
        }
    }

    #[test]
    fn without_a_rule_nobody_is_banned() {
        let mut source = Offender::default();
        for at in 0..10 {
            assert!(!source.hit(&BanRule::default(), at));
        }
    }
}
