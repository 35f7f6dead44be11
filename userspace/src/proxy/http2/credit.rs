//! Bytes of bodies that a client takes on all streams of its connection (RFC 9113 section 5.2).
//!
//! The library is lent a part of them, and more of it before it has used that up; from the rest refusals are paid that
//! it knows nothing of. So both together never send more than the client takes.

/// What the library may have at a time, and what it has when it is lent more. Of what a client takes that says little,
/// it is not lent all.
const LENT: u32 = 1 << 20;
const LOW: u32 = 32 << 10;
/// What there has to be besides for streams that wait for more of it.
const AMPLE: u32 = 4 * FIRST;
/// What a client takes before it says anything (section 6.9.2), all of which is lent.
const FIRST: u32 = 65_535;
/// The most that a client can take (section 6.9.1).
const MOST: u32 = u32::MAX >> 1;

/// The account of one connection.
pub(super) struct Credit {
    lent: u32,
    left: u32,
    /// Whether the client takes so much that it asks for more before all but the library's part is used up.
    is_ample: bool,
    /// Whether somebody knows that [`Credit::lend`] would give something.
    is_known: bool,
}

impl Credit {
    pub(super) fn new() -> Self {
        Self {
            lent: FIRST,
            left: 0,
            is_ample: false,
            is_known: false,
        }
    }

    /// The client takes so many bytes more; `None` where these are too many.
    pub(super) fn add(&mut self, more: u32) -> Option<()> {
        let left = self.left.checked_add(more)?;
        (left.checked_add(self.lent)? <= MOST).then(|| {
            self.left = left;
            self.is_ample |= left >= AMPLE;
        })
    }

    /// The library has sent so many bytes.
    pub(super) fn on_sent(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.lent = self.lent.saturating_sub(bytes);
    }

    /// Whether [`Credit::lend`] gives something by now; true once.
    pub(super) fn becomes_due(&mut self) -> bool {
        self.is_due() && !std::mem::replace(&mut self.is_known, true)
    }

    fn is_due(&self) -> bool {
        self.lent < LOW && self.left >= 4
    }

    /// What the library is to be told that it may send besides.
    pub(super) fn lend(&mut self) -> Option<u32> {
        self.is_due().then(|| {
            self.is_known = false;
            // Who asks for more when half is used must get to see that half without the library.
            let share = if self.is_ample {
                self.left / 4
            } else {
                self.left
            };
            let more = share.min(LENT - self.lent);
            self.lent += more;
            self.left -= more;
            more
        })
    }

    /// Whether so many bytes can be sent without the library.
    pub(super) fn has(&self, bytes: usize) -> bool {
        u32::try_from(bytes).is_ok_and(|bytes| bytes <= self.left)
    }

    /// What there is for others than the library.
    pub(super) fn left(&self) -> usize {
        usize::try_from(self.left).unwrap_or(usize::MAX)
    }

    /// Whether streams may wait for more of it: what is left is so much that a client that reads it says that it takes more.
    pub(super) fn is_ample(&self) -> bool {
        self.is_ample
    }

    /// They are sent.
    pub(super) fn spend(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.left = self.left.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_lent_and_spent_than_the_client_takes() {
        let mut credit = Credit::new();
        assert!(!credit.has(1));
        credit.add(2 * LENT).unwrap();
        assert!(!credit.is_due() && credit.has(1));
        let (mut taken, mut sent) = (FIRST + 2 * LENT, 0);
        let mut lent = FIRST;
        while credit.has(1000) || lent > 0 {
            lent += credit.lend().unwrap_or(0);
            if credit.has(1000) {
                credit.spend(1000);
                sent += 1000;
            }
            let by_library = lent.min(50_000);
            credit.on_sent(usize::try_from(by_library).unwrap());
            lent -= by_library;
            sent += by_library;
            if taken < 5 * LENT {
                credit.add(LENT).unwrap();
                taken += LENT;
            }
        }
        assert!(sent <= taken && taken - sent < 1000, "{sent} of {taken}");
        assert!(Credit::new().add(MOST).is_none());
        assert!(Credit::new().add(u32::MAX).is_none());
        Credit::new().add(MOST - FIRST).unwrap();
    }
}
