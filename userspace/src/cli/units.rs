//! Values with a unit, as settings give them.

use std::{
    fmt::{self, Display},
    str::FromStr,
    time::Duration,
};

use bytesize::ByteSize;
use jiff::SignedDuration;
use tokenblock_ebpf::verdict::LATEST_TRUST;

/// A duration, as `10s`, `800ms` or `1m 30s` says it; longer than nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

/// Why a text is no [`Span`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// No number with a unit.
    #[error("a duration reads 10s, 800ms, 5m or 1h 30m")]
    Malformed,
    /// Zero, or less.
    #[error("a duration is longer than nothing")]
    Nothing,
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let span: SignedDuration = text
            .trim()
            .parse()
            .map_err(|_no_duration| SpanError::Malformed)?;
        match Duration::try_from(span) {
            Ok(span) if !span.is_zero() => Ok(Self(span)),
            Ok(_) | Err(_) => Err(SpanError::Nothing),
        }
    }
}

impl Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SignedDuration::try_from(self.0) {
            Ok(span) => write!(f, "{span:#}"),
            Err(_too_long) => write!(f, "{}s", self.0.as_secs()),
        }
    }
}

/// When a declared body is trusted: after so many bytes, as `64MiB` says it, or `never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trust(pub u32);

/// Why a text is no [`Trust`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// No number with a unit.
    #[error("a size reads 64MiB, 500MB or 1000000; or `never`")]
    Malformed,
    /// Not among those that can be.
    #[error("a size from 1 byte to {most}; or `never`", most = ByteSize(LATEST_TRUST.into()).display().iec())]
    Range,
}

impl Trust {
    /// Not at all.
    pub const NEVER: Self = Self(0);

    /// After so many bytes, or the most that can be.
    #[must_use]
    pub fn after(bytes: u64) -> Self {
        Self(
            u32::try_from(bytes)
                .unwrap_or(u32::MAX)
                .clamp(1, LATEST_TRUST),
        )
    }
}

impl FromStr for Trust {
    type Err = TrustError;

    fn from_str(text: &str) -> Result<Self, TrustError> {
        if text.trim().eq_ignore_ascii_case("never") {
            return Ok(Self::NEVER);
        }
        let size: ByteSize = text
            .trim()
            .parse()
            .map_err(|_no_size| TrustError::Malformed)?;
        let trust = Self::after(size.as_u64());
        if u64::from(trust.0) == size.as_u64() {
            Ok(trust)
        } else {
            Err(TrustError::Range)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_is_a_size_or_never() {
        for (text, bytes) in [
            ("never", 0),
            (" Never ", 0),
            ("1", 1),
            ("64MiB", 64 << 20),
            ("64 MiB", 64 << 20),
            ("500MB", 500_000_000),
            ("1GiB", LATEST_TRUST),
        ] {
            assert_eq!(text.parse(), Ok(Trust(bytes)), "{text:?}");
        }
        for (text, error) in [
            ("", TrustError::Malformed),
            ("much", TrustError::Malformed),
            ("-1", TrustError::Malformed),
            ("0", TrustError::Range),
            ("2GiB", TrustError::Range),
        ] {
            assert_eq!(text.parse::<Trust>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn spans_read_as_they_show() {
        for (text, shown, millis) in [
            ("800ms", "800ms", 800),
            ("90s", "1m 30s", 90_000),
            ("1m 30s", "1m 30s", 90_000),
            (" 2h ", "2h", 7_200_000),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.0, Duration::from_millis(millis));
            assert_eq!(span.to_string(), shown);
        }
        for (text, error) in [
            ("10", SpanError::Malformed),
            ("", SpanError::Malformed),
            ("soon", SpanError::Malformed),
            ("0s", SpanError::Nothing),
            ("-1s", SpanError::Nothing),
        ] {
            assert_eq!(text.parse::<Span>(), Err(error), "{text:?}");
        }
    }
}
