//! How the scanner stands where a segment ends, in short.

use super::super::{rules::Rules, scan::Scan};

/// How the scanner's state was left, in short; what can't be said so is kept whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Left {
    /// Nothing up to the next line end can be part of a candidate.
    Closed = 0,
    /// At the first byte of a line.
    Line = 1,
    /// In a request target, before its query.
    Target = 2,
    /// In what may be a method, and is no location's name.
    Method = 3,
    /// Between a CR and the LF that may follow; then at the first byte of a line.
    AfterCr = 4,
    /// Elsewhere: the state is needed.
    Open = 5,
}

impl Left {
    /// How `scan` was left.
    #[inline(always)]
    #[must_use]
    pub fn of(scan: &Scan, rules: &Rules) -> Self {
        if scan.is_closed() {
            Self::Closed
        } else if scan.is_plain_line() || scan.is_indented() {
            Self::Line
        } else if scan.is_plain_cr() {
            Self::AfterCr
        } else if scan.is_target() {
            Self::Target
        } else if scan.is_method(rules) {
            Self::Method
        } else {
            Self::Open
        }
    }

    /// As a number from 1 on, for a state that is kept beside it; see [`Scan::keep_beside`].
    #[inline(always)]
    pub(super) fn number(self) -> u32 {
        self as u32 + 1
    }

    /// The one of this number.
    #[inline(always)]
    pub(super) fn numbered(number: u32) -> Self {
        match number {
            2 => Self::Line,
            3 => Self::Target,
            4 => Self::Method,
            5 => Self::AfterCr,
            _ => Self::Closed,
        }
    }

    /// Whether what was scanned as the start of a line and as a target was also scanned from here.
    #[inline(always)]
    #[must_use]
    pub fn is_light(self) -> bool {
        (self as u32) < Self::Open as u32
    }
}
