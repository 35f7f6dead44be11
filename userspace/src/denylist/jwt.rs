//! What the claims of a JWT say, read without verifying it: who holds it may say of it what he likes, so nothing
//! that a claim says can let a token pass that is listed.

use std::time::{Duration, UNIX_EPOCH};

use base64::{
    Engine as _,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::Deserialize;
use serde_json::Number;
use zeroize::Zeroizing;

use super::Expires;

/// The claims that say when a token ends (RFC 7519 section 4.1.4).
#[derive(Deserialize)]
struct Ends {
    exp: Option<Number>,
}

/// Decodes a segment; either alphabet, padded or not: verifiers differ in what they take.
pub(super) fn decoded(segment: &str) -> Option<Zeroizing<Vec<u8>>> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &URL_SAFE,
        GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let mut text = Zeroizing::new(segment.trim_end_matches('=').as_bytes().to_vec());
    for byte in text.iter_mut() {
        *byte = match *byte {
            b'+' => b'-',
            b'/' => b'_',
            other => other,
        };
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    LENIENT.decode_vec(&*text, &mut bytes).ok()?;
    Some(bytes)
}

/// When a signed JWT ends by its own word, and so long after; `None` where it doesn't say so, or is none.
#[must_use]
pub(crate) fn ends(token: &str, margin: Duration) -> Option<Expires> {
    let payload = decoded(token.split('.').nth(1)?)?;
    let claims: Ends = serde_json::from_slice(&payload).ok()?;
    let ends = Duration::try_from_secs_f64(claims.exp?.as_f64()?.max(0.0)).ok()?;
    let ends = UNIX_EPOCH.checked_add(ends)?.checked_add(margin)?;
    Some(Expires::at(ends))
}

#[cfg(test)]
mod tests {
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;

    use super::*;

    fn of(payload: &str) -> Option<Expires> {
        let payload = BASE64_URL_SAFE_NO_PAD.encode(payload);
        ends(
            &format!("eyJhbGciOiJub25lIn0.{payload}.x"),
            Duration::from_mins(1),
        )
    }

    #[test]
    fn the_end_is_that_of_the_token_and_the_margin() {
        let at = |seconds| Some(Expires::at(UNIX_EPOCH + Duration::from_secs(seconds)));
        assert_eq!(of(r#"{"exp":1000}"#), at(1060));
        assert_eq!(of(r#"{"sub":"a","exp":1000.25}"#), at(1061));
        assert_eq!(of(r#"{"exp":1e3}"#), at(1060));
        assert_eq!(of(r#"{"exp":-5}"#), at(60));
        for never in [
            "{}",
            r#"{"exp":null}"#,
            r#"{"exp":"1000"}"#,
            r#"{"exp":1e300}"#,
            r#"{"exp":1,"exp":2}"#,
            "[]",
            "exp",
        ] {
            assert_eq!(of(never), None, "{never}");
        }
        for none in ["", "a", "a.b", "a.!.b"] {
            assert_eq!(ends(none, Duration::ZERO), None, "{none}");
        }
    }
}
