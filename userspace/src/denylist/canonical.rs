//! From the text of an entry to the identities under which it is enforced (the canonical form).
//!
//! The data path takes the canonical form of what stands on the wire while it reads
//! (`tokenblock_ebpf::candidate`); here the same is done for what stands on the list.

use sha2::{Digest as _, Sha256};
use tokenblock_ebpf::digest::{Domain, InstallationKey, TokenDigest};

use super::{Fingerprint, TokenId, jwt::decoded};
use crate::wiping::wipe_stack;

/// The identities of one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Whether it is identified as a whole or, being a compact JWS, by its signed part.
    pub domain: Domain,
    /// SHA-256 of the canonical form.
    pub id: TokenId,
    /// The keyed digest of the canonical form.
    pub digest: TokenDigest,
    /// The keyed fingerprint of the canonical form.
    pub fingerprint: Fingerprint,
}

/// Why a text is no entry. Says nothing of the text itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unlistable {
    /// It can do no good or only harm; the rest of the list is loaded.
    #[error(transparent)]
    Skipped(#[from] Skipped),
    /// It can't have been meant as it stands; the whole list is refused.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Why an entry is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Skipped {
    /// Short values are hit by chance.
    #[error("shorter than the minimum of {minimum} bytes (--min-token-length)")]
    TooShort {
        /// The shortest length that is taken, in bytes.
        minimum: u64,
    },
    /// A scanner's report, not the secret.
    #[error("reads like a scanner's redaction, not like a token; put the whole token here")]
    Redacted,
    /// Only lists whose lines are whole values can hold one.
    #[error("white space inside: no single credential of a request can look like this")]
    SeveralWords,
}

/// Why a text can't be a token: no candidate on the wire can hold such a byte, so the entry would never match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// White space ends every candidate.
    #[error("white space inside a token, perhaps a no-break space; retype it")]
    WhiteSpace,
    /// Control characters can't stand in a header.
    #[error(
        "a control or invisible character inside a token; was it copied with something around it?"
    )]
    Control,
    /// A quote ends every candidate.
    #[error("a double quote inside a token; write the token without quotes and without commas")]
    Quote,
}

/// Identifies a token under the installation key.
///
/// White space and one pair of double quotes around `text` don't count, as on the wire.
///
/// # Errors
/// Where `text` is no token that a tier could find.
pub fn identify(
    key: &InstallationKey,
    min_length: u64,
    text: &str,
) -> Result<Identity, Unlistable> {
    let identity = identify_token(key, min_length, text);
    // Where a hash was made its last block still lies.
    wipe_stack();
    identity
}

#[inline(never)]
fn identify_token(
    key: &InstallationKey,
    min_length: u64,
    text: &str,
) -> Result<Identity, Unlistable> {
    let token = unquote(text.trim_ascii());
    check_characters(token)?;
    if reads_redacted(token) {
        return Err(Skipped::Redacted.into());
    }
    let (domain, canonical) = match signed_part(token) {
        Some(signed) => (Domain::Jws, signed),
        None => (Domain::Exact, token),
    };
    if (canonical.len() as u64) < min_length {
        return Err(Skipped::TooShort {
            minimum: min_length,
        }
        .into());
    }
    Ok(Identity {
        domain,
        id: TokenId(Sha256::digest(canonical.as_bytes()).into()),
        digest: TokenDigest::of(key, domain, canonical.as_bytes()),
        fingerprint: Fingerprint::of(key, domain, canonical.as_bytes()),
    })
}

fn unquote(text: &str) -> &str {
    text.strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(text)
}

fn check_characters(token: &str) -> Result<(), Malformed> {
    // Without an early end, so that it becomes vector code: lists are long.
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"';
    if token.bytes().fold(true, |all, byte| all & is_plain(byte)) {
        return Ok(());
    }
    for c in token.chars() {
        match c {
            '"' => return Err(Malformed::Quote),
            // Zero-width characters and the byte order mark: invisible, and never part of a credential.
            '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' => return Err(Malformed::Control),
            c if c.is_control() => return Err(Malformed::Control),
            c if c.is_whitespace() => return Err(Malformed::WhiteSpace),
            _ => {}
        }
    }
    Ok(())
}

fn reads_redacted(token: &str) -> bool {
    let bytes = token.as_bytes();
    token.ends_with("...")
        || token.ends_with('…')
        || memchr::memchr_iter(b'*', bytes).any(|at| starts(bytes, at, b"***"))
        || memchr::memchr2_iter(b'r', b'R', bytes).any(|at| starts(bytes, at, b"redacted"))
}

/// Whether `word` stands at this index, in any case.
fn starts(bytes: &[u8], at: usize, word: &[u8]) -> bool {
    let found = bytes.get(at..at + word.len());
    found.is_some_and(|found| found.eq_ignore_ascii_case(word))
}

/// `header.payload` of a compact JWS (RFC 7515 section 3.1), with or without a signature after the second dot.
///
/// A detached payload (RFC 7515 appendix F) gives `None`: `header.` alone is shared by other tokens.
fn signed_part(token: &str) -> Option<&str> {
    let (header, rest) = token.split_once('.')?;
    let (payload, signature) = rest.split_once('.')?;
    let is_jws =
        !payload.is_empty() && is_base64(payload) && is_base64(signature) && is_jose_header(header);
    if !is_jws {
        return None;
    }
    token.get(..header.len() + 1 + payload.len())
}

/// Either alphabet, padded or not: verifiers differ in what they take.
fn is_base64(segment: &str) -> bool {
    let is_digit =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'+' | b'/' | b'=');
    segment.bytes().fold(true, |all, byte| all & is_digit(byte))
}

/// Whether the segment decodes to a JSON object with `alg` (RFC 7515 section 4.1.1).
fn is_jose_header(segment: &str) -> bool {
    decoded(segment)
        .is_some_and(|json| serde_json::from_slice::<HasAlg>(&json).is_ok_and(|header| header.0))
}

/// Whether a JSON object has a member `alg`; reads any object, keeps nothing.
struct HasAlg(bool);

impl<'de> serde::Deserialize<'de> for HasAlg {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> serde::de::Visitor<'de> for Members {
            type Value = HasAlg;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<HasAlg, A::Error> {
                let mut found = false;
                while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                    found |= name == "alg";
                    map.next_value::<serde::de::IgnoredAny>()?;
                }
                Ok(HasAlg(found))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use base64::{
        Engine as _,
        prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
    };
    use proptest::prelude::*;
    use tokenblock_ebpf::{inspect, location::LocationKind, rules::Rules};

    use super::*;

    const KEY: InstallationKey = InstallationKey([3; 16]);
    const JWT: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJzb21lIjoicGF5bG9hZDk5OTk5OTEifQ.\
                       NdeEQYz4vE56uJrniAHCDO2NeMJmlrUH5F_a5bQJOo4";

    fn id(text: &str) -> Result<Identity, Unlistable> {
        identify(&KEY, 8, text)
    }

    /// Whether the data path finds the entry in this header value.
    fn blocks(entry: &str, value: &str) -> bool {
        let entry = id(entry).unwrap();
        let rules = Rules::new(&KEY, 8, &[(LocationKind::Header, b"authorization")]).unwrap();
        inspect::header(
            &rules,
            b"Authorization",
            value.as_bytes(),
            &mut |_, digest| *digest == entry.digest,
        )
        .is_some()
    }

    #[test]
    fn a_jwt_is_its_signed_part_whatever_the_signature() {
        let (signed, _) = JWT.rsplit_once('.').unwrap();
        let entry = id(JWT).unwrap();
        assert_eq!(entry.domain, Domain::Jws);
        assert_eq!(entry, id(&format!("{signed}.")).unwrap());
        assert_eq!(entry, id(&format!("{signed}.AAAA=")).unwrap());
        assert_eq!(entry.id.0, <[u8; 32]>::from(Sha256::digest(signed)));
        assert!(blocks(JWT, &format!("Bearer {signed}.other-signature")));
        assert!(!blocks(JWT, &format!("Bearer {signed}x.other-signature")));
        assert_eq!(id(signed).unwrap().domain, Domain::Exact);
    }

    #[test]
    fn a_jose_header_is_read_as_leniently_as_verifiers_do() {
        // With `>` and `?` in it the alphabets differ.
        let json = br#"{"kid":"a>>>b???", "alg":null}"#;
        for header in [
            BASE64_STANDARD.encode(json),
            BASE64_URL_SAFE_NO_PAD.encode(json),
        ] {
            let token = format!("{header}.eyJhIjoxfQ.c2ln");
            assert_eq!(id(&token).unwrap().domain, Domain::Jws, "{token}");
        }
    }

    #[test]
    fn other_dotted_tokens_stay_exact() {
        let segment = |json: &str| BASE64_URL_SAFE_NO_PAD.encode(json);
        let alg = segment(r#"{"alg":"HS256"}"#);
        for token in [
            format!("{}.eyJhIjoxfQ.sig", segment(r#"{"typ":"JWT"}"#)),
            format!("{}.eyJhIjoxfQ.sig", segment(r#"["alg"]"#)),
            format!("{}.eyJhIjoxfQ.sig", segment("alg alg alg")),
            format!("{alg}..detached"),
            format!("{alg}.key.iv.ciphertext.tag"),
            format!("{alg}.payload"),
            "slack.token.with-three-parts".to_owned(),
            "com.example.reverse!".to_owned(),
        ] {
            assert_eq!(id(&token).unwrap().domain, Domain::Exact, "{token}");
        }
    }

    #[test]
    fn what_surrounds_a_token_does_not_count() {
        let plain = id("sk_live_0123456789").unwrap();
        assert_eq!(plain, id(" \t\"sk_live_0123456789\"\r").unwrap());
        assert_ne!(plain, id("SK_live_0123456789").unwrap());
    }

    #[test]
    fn short_and_redacted_texts_are_skipped() {
        for text in ["", "  ", "\"\"", "1234567", "\"1234567\""] {
            let short = Skipped::TooShort { minimum: 8 };
            assert_eq!(id(text), Err(short.into()), "{text:?}");
        }
        for text in [
            "REDACTED",
            "ghp_[redacted]",
            "ghp_***",
            "AKIA0123...",
            "AKIA0123…",
        ] {
            assert_eq!(id(text), Err(Skipped::Redacted.into()), "{text:?}");
        }
        // What counts is what is digested: this signed part is shorter than the minimum.
        let jwt = identify(&KEY, 100, JWT);
        assert_eq!(jwt, Err(Skipped::TooShort { minimum: 100 }.into()));
    }

    #[test]
    fn what_no_candidate_can_hold_is_malformed() {
        for (text, why) in [
            ("\"0123456789\",", Malformed::Quote),
            ("0123456789\u{1}", Malformed::Control),
            ("0123456789\u{7f}", Malformed::Control),
            ("01234\u{200b}56789", Malformed::Control),
            ("0123456789\u{a0}", Malformed::WhiteSpace),
            ("01234 56789", Malformed::WhiteSpace),
        ] {
            assert_eq!(id(text), Err(why.into()), "{text:?}");
        }
    }

    proptest! {
        /// What is listed is found on the wire, alone and behind a scheme; what differs in a byte is not.
        #[test]
        fn the_list_and_the_wire_agree(token in "[!#-~]{8,80}", other in "[!#-~]{8,80}") {
            prop_assume!(token != other && !reads_redacted(&token));
            prop_assert!(blocks(&token, &token));
            let value = format!("Bearer  {token}");
            prop_assert!(blocks(&token, &value));
            prop_assert!(!blocks(&token, &other));
        }

        #[test]
        fn any_text_is_answered(text: String) {
            if let Ok(identity) = id(&text) {
                prop_assert!(text.len() >= 8);
                prop_assert_eq!(identity.domain, Domain::Exact);
            }
        }
    }
}
