//! Keeps values off the list that can do no good there, or only harm.

use std::sync::OnceLock;

use tokenblock_ebpf::digest::InstallationKey;

use super::Finding;
use crate::denylist::{Identity, Skipped, Unlistable, identify};

/// Longest token in bytes, so that its line in a list has room for attributes.
const LONGEST: usize = 60 * 1024;
/// Bits of entropy by the frequency of characters: of one character ...
const LEAST_PER_CHARACTER: f64 = 2.0;
/// ... and of the value. Eight different characters have 24.
const LEAST_IN_ALL: f64 = 22.0;

/// What documentation and templates put in place of a secret, wherever it stands in a value.
const MARKS: [&str; 21] = [
    "${",
    "{{",
    "change-me",
    "change_me",
    "changeme",
    "changeit",
    "example",
    "insert-",
    "insert_",
    "my-api-key",
    "my_api_key",
    "my-secret",
    "my_secret",
    "placeholder",
    "replace-me",
    "replace_me",
    "replaceme",
    "your-",
    "your_",
    "yourapikey",
    "yourtoken",
];
/// Whole values, but for digits and punctuation around them.
const COMMON: [&str; 20] = [
    "abc",
    "admin",
    "apikey",
    "default",
    "dummy",
    "fake",
    "foobar",
    "letmein",
    "none",
    "null",
    "passw0rd",
    "password",
    "qwerty",
    "root",
    "sample",
    "secret",
    "test",
    "testtoken",
    "token",
    "undefined",
];

/// Why a finding is not listed. Says nothing of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Unfit {
    /// The report doesn't hold the secret.
    #[error("the report holds no secret")]
    Withheld,
    /// The report holds a part of it.
    #[error("redacted")]
    Redacted,
    /// Somebody looked at it.
    #[error("resolved as a false positive")]
    Dismissed,
    /// Short values are hit by chance.
    #[error("too short")]
    TooShort,
    /// Longer than any credential.
    #[error("too long")]
    TooLong,
    /// Nothing in a request can look like it: a key in several lines, a sentence.
    #[error("no single word")]
    NotAWord,
    /// It stands where a secret is to be put.
    #[error("a placeholder")]
    Placeholder,
    /// It can be guessed, so others may use it too.
    #[error("too little entropy")]
    LowEntropy,
}

/// The identity of the secret of a finding, which may be listed. `force` takes placeholders and what has little
/// entropy too.
///
/// # Errors
/// Why it may not.
pub fn fit(finding: &Finding, min_length: u64, force: bool) -> Result<Identity, Unfit> {
    // The keyed digest isn't used; the public identity doesn't depend on the key.
    const KEY: InstallationKey = InstallationKey([0; 16]);
    let secret = match &finding.secret {
        Some(secret) if !secret.trim().is_empty() => secret.trim(),
        Some(_) | None => return Err(Unfit::Withheld),
    };
    if finding.dismissed {
        return Err(Unfit::Dismissed);
    }
    let identity = identify(&KEY, min_length, secret).map_err(|why| match why {
        Unlistable::Skipped(Skipped::TooShort { .. }) => Unfit::TooShort,
        Unlistable::Skipped(Skipped::Redacted) => Unfit::Redacted,
        Unlistable::Skipped(Skipped::SeveralWords) | Unlistable::Malformed(_) => Unfit::NotAWord,
    })?;
    if secret.len() > LONGEST {
        return Err(Unfit::TooLong);
    }
    if !force {
        guard(secret)?;
    }
    Ok(identity)
}

/// Whether a value is one that others may use too, so that to list it would block what has nothing to do with a leak.
///
/// # Errors
/// [`Unfit::Placeholder`] or [`Unfit::LowEntropy`].
pub fn guard(value: &str) -> Result<(), Unfit> {
    if is_placeholder(value) {
        return Err(Unfit::Placeholder);
    }
    if has_little_entropy(value) {
        return Err(Unfit::LowEntropy);
    }
    Ok(())
}

fn is_placeholder(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    let core = lower.trim_matches(|c: char| !c.is_ascii_alphabetic());
    let enclosed = |open, close| value.starts_with(open) && value.ends_with(close);
    // Fewer are in one random token of thirty thousand.
    let blanked = value.contains("xxxxx") || value.contains("XXXXX");
    blanked
        || MARKS.iter().any(|mark| lower.contains(mark))
        || COMMON.contains(&core)
        || enclosed('<', '>')
        || enclosed('[', ']')
        || enclosed('%', '%')
        || value.starts_with('$')
}

fn has_little_entropy(value: &str) -> bool {
    let bits = entropy(value.as_bytes());
    bits < LEAST_PER_CHARACTER
        || bits * length(value.len()) < LEAST_IN_ALL
        || is_sequence(value.as_bytes())
}

/// `n * log2(n)`; nothing for 0, which stands for what isn't there.
static SMALL: OnceLock<[f64; 8]> = OnceLock::new();

/// Shannon entropy of the bytes' frequencies, in bits a byte.
fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0_usize; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    let bits = |count: usize| length(count) * length(count).log2();
    // Nearly all counts are small, and logarithms take long.
    let small: [f64; 8] = *SMALL.get_or_init(|| std::array::from_fn(|n| bits(n.max(1))));
    let of_count = |count: &usize| match small.get(*count) {
        Some(bits) => *bits,
        None => bits(*count),
    };
    let all: f64 = counts.iter().map(of_count).sum();
    length(bytes.len()).log2() - all / length(bytes.len())
}

fn length(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::MAX, f64::from)
}

/// Whether most bytes follow their neighbour: `12345678`, `abcdefgh`, `98765432`.
fn is_sequence(bytes: &[u8]) -> bool {
    let following = bytes
        .windows(2)
        .filter(|pair| matches!(pair, [a, b] if a.abs_diff(*b) <= 1))
        .count();
    following * 3 > bytes.len() * 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::Secret;

    fn of(text: &str, force: bool) -> Result<Identity, Unfit> {
        let secret = Some(Secret::new(text.to_owned()));
        fit(&Finding::new("test", secret), 8, force)
    }

    #[test]
    fn placeholders_and_guessable_values_need_force() {
        for (text, why) in [
            ("changeme123", Unfit::Placeholder),
            ("ChangeMe-please", Unfit::Placeholder),
            ("xxxxxxxxxxxxxxxx", Unfit::Placeholder),
            ("your-api-key-here", Unfit::Placeholder),
            ("AKIAIOSFODNN7EXAMPLE", Unfit::Placeholder),
            ("<api-token-of-prod>", Unfit::Placeholder),
            ("{{access_token}}", Unfit::Placeholder),
            ("${ACCESS_TOKEN}", Unfit::Placeholder),
            ("%API_TOKEN%", Unfit::Placeholder),
            ("Password123!", Unfit::Placeholder),
            ("00000000000000000000", Unfit::LowEntropy),
            ("abababababababababab", Unfit::LowEntropy),
            ("123456789012", Unfit::LowEntropy),
            ("abcdefghijklmnop", Unfit::LowEntropy),
            ("aabbccdd", Unfit::LowEntropy),
        ] {
            assert_eq!(of(text, false), Err(why), "{text}");
            assert!(of(text, true).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_can_never_be_a_token_is_refused_whatever_is_forced() {
        for (text, why) in [
            ("", Unfit::Withheld),
            ("  ", Unfit::Withheld),
            ("short", Unfit::TooShort),
            ("ghp_****************", Unfit::Redacted),
            ("REDACTED", Unfit::Redacted),
            ("AKIA2E0A8F...", Unfit::Redacted),
            (
                "-----BEGIN KEY-----\nMIIE\n-----END KEY-----",
                Unfit::NotAWord,
            ),
            ("correct horse battery", Unfit::NotAWord),
        ] {
            assert_eq!(of(text, true), Err(why), "{text}");
        }
        assert_eq!(of(&"aB3d".repeat(20_000), true), Err(Unfit::TooLong));
        let withheld = Finding::new("test", None);
        assert_eq!(fit(&withheld, 8, true), Err(Unfit::Withheld));
    }

    #[test]
    fn real_credentials_pass() {
        for text in [
            "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
            "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
            "glpat-x8rKq2sT1vYw3zA5bC7d",
            "5f4dcc3b5aa765d61d8327deb882cf99",
            "aB3dE6gH",
            "ghp_16C7e42F2xXxX12E7710c838347Ae178B4a",
            "9021774358",
            "hunter22-2019",
        ] {
            assert!(of(text, false).is_ok(), "{text}: {:?}", of(text, false));
        }
    }
}
