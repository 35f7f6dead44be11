//! Values with a unit, as settings give them.

use std::{
    fmt::{self, Display},
    str::FromStr,
    time::Duration,
};

use jiff::SignedDuration;

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

#[cfg(test)]
mod tests {
    use super::*;

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
