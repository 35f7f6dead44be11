//! A scan that starts anew in the midst of a stream, is saved and resumed.

use core::mem::MaybeUninit;

use super::super::{
    digest::HOLDS_BYTES,
    location::{LocationId, mix},
    rules::Rules,
    swar,
};
use super::{Mode, ONE_LINE, Scan};

impl Scan {
    /// Sets the state to the start of a line, at position 0. Whatever else the state holds is set when it is
    /// entered, so a state of zeros may be restarted too.
    #[inline(always)]
    pub fn restart(&mut self) {
        self.pos = 0;
        self.mode = Mode::Line;
        self.fold = Mode::Skip;
        self.after_cr = 0;
        self.glanced = 0;
        self.in_query = 0;
        self.also = 0;
        self.forget_message();
        self.value.rest();
    }

    /// The state at the start of the value of a header location.
    #[must_use]
    pub fn header_value(rules: &Rules, location: LocationId) -> Self {
        let mut scan = Self::new(rules);
        scan.enter_header(rules, location);
        scan
    }

    /// The state at the start of a query.
    #[must_use]
    pub fn query(rules: &Rules) -> Self {
        let mut scan = Self::new(rules);
        scan.enter_query(rules);
        scan
    }

    /// The location whose candidate was completed last.
    #[inline(always)]
    #[must_use]
    pub fn location(&self) -> LocationId {
        self.value.location()
    }

    /// Sets the state to a place in a request target, perhaps before it, or behind a part of its query.
    #[inline(always)]
    pub fn restart_in_target(&mut self) {
        self.restart();
        self.mode = Mode::BeforeTarget;
        self.in_query = u32::MAX;
    }

    /// As [`Scan::restart_inside_target`], for who reads no more than the line. It may be a path, which white space does not end.
    #[inline(always)]
    pub fn restart_in_last_target(&mut self) {
        self.restart_inside_target();
        self.headers = ONE_LINE;
    }

    /// Sets the state to the middle of a request target.
    #[inline(always)]
    pub fn restart_inside_target(&mut self) {
        self.restart_in_target();
        self.fold = Mode::Target;
    }

    /// Sets the state to a place of which nothing is known: the start of a line, which finds all that the rest
    /// of a line would show, and, should a method end here, the white space behind it.
    #[inline(always)]
    pub fn restart_anywhere(&mut self) {
        self.restart();
        self.fold = Mode::BeforeTarget;
    }

    /// Sets the state to the middle of a line of which nothing more matters.
    #[inline(always)]
    pub fn restart_in_line(&mut self) {
        self.restart();
        self.mode = Mode::Skip;
    }

    /// Sets the state to behind a CR.
    #[inline(always)]
    pub fn restart_after_cr(&mut self) {
        self.restart();
        self.after_cr = 1;
    }

    /// Sets the state to the middle of what may be a method. Bytes beyond ASCII are taken for its end, also where it has begun
    /// with such: then one word more is looked at as a target than if the method were not cut.
    #[inline(always)]
    pub fn restart_in_method(&mut self) {
        self.restart();
        self.mode = Mode::Method;
        self.name_ended = 0;
    }

    /// Takes a copy of another state.
    #[inline(always)]
    pub fn copy(&mut self, from: &Self) {
        if HOLDS_BYTES {
            tokenblock_scan_copy(self, from);
        } else {
            self.copy_words(from);
        }
    }

    #[inline(always)]
    fn copy_words(&mut self, from: &Self) {
        const WORDS: usize = size_of::<Scan>() / 8;
        const { assert!(size_of::<Scan>() == WORDS * 8 && align_of::<Scan>() == 8) };
        let (from, to) = (
            (&raw const *from).cast::<u64>(),
            (&raw mut *self).cast::<u64>(),
        );
        let mut i = 0;
        while i < WORDS {
            // Word by word: LLVM would make an assignment a call of a byte-wise memmove, and the verifier walks
            // through each of its rounds.
            // SAFETY: both are WORDS words; padding is copied as what it is.
            unsafe {
                to.add(i)
                    .cast::<MaybeUninit<u64>>()
                    .write(from.add(i).cast::<MaybeUninit<u64>>().read());
            }
            i += 1;
        }
    }

    /// Hides what the state holds of a candidate from who reads the place where it is kept, or shows it again.
    #[inline(always)]
    pub(crate) fn seal(&mut self, rules: &Rules, salt: u64) {
        self.value.seal(rules, salt);
    }

    /// Leaves nothing of a candidate behind; the state is of no more use.
    #[inline(always)]
    pub fn wipe(&mut self) {
        self.value.wipe();
    }

    /// Takes a saved state.
    #[inline(always)]
    pub fn resume(&mut self, saved: &Self) {
        self.copy(saved);
        self.pos = 0;
        self.forget_message();
    }

    /// A hash of all that decides how reading goes on.
    #[inline(always)]
    #[must_use]
    pub fn signature(&self) -> u64 {
        // What was noted of a name counts no more.
        let rests = self.is_closed() || self.is_plain_line() || self.is_plain_cr();
        let name_ended = u32::from(!rests) * self.name_ended;
        let fold = u32::from(!self.is_closed()) * self.fold as u32;
        let in_name = swar::is_zero(self.mode as u32 ^ Mode::QueryName as u32);
        let high = in_name * swar::is_zero(self.escape ^ 1) * self.escape_high;
        let modes = u64::from(self.mode as u32) << 48
            | u64::from(fold) << 40
            | u64::from(self.after_cr) << 32
            | u64::from(name_ended) << 31
            | u64::from(in_name * self.escape) << 24
            | u64::from(high) << 16
            | u64::from(in_name * self.array);
        let mut hash = mix(modes, 0);
        // Elsewhere it is that of a name that is over.
        if matches!(self.mode, Mode::Name | Mode::QueryName | Mode::CookieName) {
            hash = mix(hash, self.name.signature());
        }
        if self.mode as u32 == Mode::Value as u32 || self.fold as u32 == Mode::Value as u32 {
            hash = mix(hash, self.value.signature());
        }
        hash ^ self.signature_of_also()
    }
}

/// [`Scan::copy`] where the state is large: under a name that other objects could call, since such a function the verifier
/// walks through once, and not from each place that calls it. Gives 0, for the verifier wants a value.
#[cfg_attr(target_arch = "bpf", inline(never), unsafe(no_mangle))]
extern "C" fn tokenblock_scan_copy(to: *mut Scan, from: *const Scan) -> u64 {
    // SAFETY: `Scan::copy` passes references; the verifier sees to the rest.
    if let (Some(to), Some(from)) = unsafe { (to.as_mut(), from.as_ref()) } {
        to.copy_words(from);
    }
    0
}
