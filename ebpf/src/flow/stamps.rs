//! What the receiver would refuse because it has taken what was sent later (PAWS, RFC 7323 section 5).
//!
//! A segment that is passed and refused would be missing behind the hook, and its second copy a duplicate. On a path that
//! reorders there are many: one that is sent again and overtakes makes those on their way too old.

use super::{Flow, before};

/// By how much a segment may be older than what the receiver has taken, on the sender's clock: what Linux allows
/// (`TCP_PAWS_WINDOW`). Others allow nothing, and what they refuse is found missing.
const OLDER: u32 = 1;

impl Flow {
    /// The receiver echoes this timestamp; 0: none. As [`Flow::settle`].
    #[inline(always)]
    pub fn hear_echo(&mut self, echo: u32) {
        if echo != 0 {
            self.echoed = echo;
        }
    }

    /// Whether the receiver will refuse the segment under judgement; `lost`: for long it has not answered what was passed.
    #[inline(always)]
    pub(super) fn is_old(&self, lost: bool) -> bool {
        if self.next_stamp == 0 || self.echoed == 0 {
            return false;
        }
        // What was passed where the receiver stands will have been taken before this one.
        let known = self.stamped != 0 && before(self.settled, self.stamped_to);
        let newer = known && before(self.echoed, self.stamped);
        let recent = if newer && !lost {
            self.stamped
        } else {
            self.echoed
        };
        before(self.next_stamp.wrapping_add(OLDER), recent)
    }

    /// The segment under judgement, `start..end`, is passed. Only the timestamp of one counts that begins where the receiver's
    /// last acknowledgment stands (RFC 7323 section 4.3).
    #[inline(always)]
    pub(super) fn note_stamp(&mut self, start: u32, end: u32) {
        if self.next_stamp == 0 || self.knows_settled == 0 {
            return;
        }
        let pending = self.stamped != 0 && before(self.settled, self.stamped_to);
        if !before(self.settled, start) {
            if !pending || before(self.stamped, self.next_stamp) {
                self.stamped = self.next_stamp;
            }
            self.stamped_to = end;
        }
    }
}
