//! GitHub's secret scanning partner push: signed reports of leaked tokens, and feedback on each.

use std::{collections::BTreeMap, fs, path::Path, path::PathBuf};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, Response};
use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::super::{
    body,
    counters::Counter,
    desk::{Answer, Desk},
    refusal::{Refusal, json},
    remote::RemoteError,
    watched::Watched,
};
use crate::import::{Finding, Secret, Unfit, fit};

pub(super) const PATH: &str = "/v1/github";
const IDENTIFIER: &str = "github-public-key-identifier";
const SIGNATURE: &str = "github-public-key-signature";

/// The receiver for GitHub.
pub(in crate::control) struct Github {
    keys: Watched<Keys>,
}

/// ECDSA keys on P-256 by their identifiers.
struct Keys(BTreeMap<String, ParsedPublicKey>);

/// As `https://api.github.com/meta/public_keys/secret_scanning` gives them.
#[derive(Deserialize)]
struct PublicKeys {
    public_keys: Vec<PublicKey>,
}

#[derive(Deserialize)]
struct PublicKey {
    key_identifier: String,
    /// In PEM form.
    key: String,
}

/// One leaked token; a later version may say more of it.
#[derive(Deserialize)]
struct Leak {
    token: Secret,
    #[serde(rename = "type")]
    kind: String,
    url: Option<String>,
    source: Option<String>,
}

/// What GitHub wants to hear of a token.
#[derive(Serialize)]
struct Feedback {
    /// SHA-256 of the token as it came, in hexadecimal digits.
    token_hash: String,
    token_type: String,
    label: Label,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Label {
    TruePositive,
    FalsePositive,
}

impl Github {
    pub(super) fn new(keys: PathBuf) -> Result<Self, RemoteError> {
        Ok(Self {
            keys: Watched::new(keys, Keys::read)?,
        })
    }

    pub(super) fn refresh(&self) {
        self.keys.refresh();
    }

    /// Whether the body is signed by a key of GitHub's.
    pub(super) fn check(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), Refusal> {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let (Some(key), Some(signature)) = (header(IDENTIFIER), header(SIGNATURE)) else {
            return Err(Refusal::Unsigned);
        };
        let keys = self.keys.get();
        let key = keys.0.get(key).ok_or(Refusal::SigningKey)?;
        let signature = BASE64_STANDARD.decode(signature);
        let signature = signature.map_err(|_no_base64| Refusal::Signature)?;
        let verified = key.verify_sig(body, &signature);
        verified.map_err(|_wrong| Refusal::Signature)
    }

    pub(super) async fn leaked(
        &self,
        desk: &Desk,
        body: &[u8],
    ) -> Result<Response<Answer>, Refusal> {
        let leaks: Vec<Leak> = body::parse(body)?;
        let findings: Vec<_> = leaks.into_iter().map(Finding::from).collect();
        let feedback: Vec<_> = findings.iter().filter_map(|f| feedback(desk, f)).collect();
        super::list(desk, findings, Counter::GithubTokens).await?;
        json(&feedback)
    }
}

impl From<Leak> for Finding {
    fn from(leak: Leak) -> Self {
        Self {
            rule: leak.kind,
            place: leak.url.or(leak.source).unwrap_or_default(),
            ..Self::new("github", Some(leak.token))
        }
    }
}

/// What is listed counts as true, a placeholder as false; of what can't be judged nothing is said.
fn feedback(desk: &Desk, finding: &Finding) -> Option<Feedback> {
    let label = match fit(finding, desk.min_token_length(), false) {
        Ok(_) => Label::TruePositive,
        Err(Unfit::Placeholder | Unfit::LowEntropy) => Label::FalsePositive,
        Err(_) => return None,
    };
    let hash = Sha256::digest(finding.secret.as_ref()?.as_bytes());
    Some(Feedback {
        token_hash: format!("{hash:x}"),
        token_type: finding.rule.clone(),
        label,
    })
}

impl Keys {
    fn read(path: &Path) -> Result<Self, RemoteError> {
        let text = fs::read(path).map_err(|error| RemoteError::Read {
            path: path.to_owned(),
            error,
        })?;
        Self::of(&text).map_err(|what| RemoteError::Keys {
            path: path.to_owned(),
            what,
        })
    }

    fn of(text: &[u8]) -> Result<Self, String> {
        let given: PublicKeys = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let keys = given.public_keys.into_iter().map(|given| {
            let der = SubjectPublicKeyInfoDer::from_pem_slice(given.key.as_bytes());
            let key = der
                .ok()
                .and_then(|der| ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, der.as_ref()).ok());
            let identifier = given.key_identifier;
            match key {
                Some(key) => Ok((identifier, key)),
                None => Err(format!(
                    "the key {identifier} is no ECDSA key on P-256 in PEM form"
                )),
            }
        });
        let keys: BTreeMap<_, _> = keys.collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Err("there is no key in it".to_owned());
        }
        Ok(Self(keys))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example that GitHub's documentation signs with a test key.
    const KEYS: &str = r#"{"public_keys":[{"key_identifier":"f9525bf080f75b3506ca1ead061add62b8633a346606dc5fe544e29231c6ee0d","key":"-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEsz9ugWDj5jK5ELBK42ynytbo38gP\nHzZFI03Exwz8Lh/tCfL3YxwMdLjB+bMznsanlhK0RwcGP3IDb34kQDIo3Q==\n-----END PUBLIC KEY-----\n","is_current":true}]}"#;
    const IDENTIFIED: &str = "f9525bf080f75b3506ca1ead061add62b8633a346606dc5fe544e29231c6ee0d";
    const SIGNED: &str = "MEUCIFLZzeK++IhS+y276SRk2Pe5LfDrfvTXu6iwKKcFGCrvAiEAhHN2kDOhy2I6eGkOFmxNkOJ+L2y8oQ9A2T9GGJo6WJY=";
    const BODY: &[u8] =
        br#"[{"token":"some_token","type":"some_type","url":"some_url","source":"some_source"}]"#;

    #[test]
    fn a_signature_counts_for_its_key_and_its_body_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        fs::write(&path, KEYS).unwrap();
        let github = Github::new(path).unwrap();
        let check = |key: &str, signature: &str, body: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(IDENTIFIER, key.parse().unwrap());
            headers.insert(SIGNATURE, signature.parse().unwrap());
            github.check(&headers, body)
        };
        assert!(check(IDENTIFIED, SIGNED, BODY).is_ok());
        let other = BODY.to_ascii_uppercase();
        for (result, name) in [
            (check(IDENTIFIED, SIGNED, &other), "Signature"),
            (check(IDENTIFIED, "not base64", BODY), "Signature"),
            (
                check(IDENTIFIED, SIGNED.trim_end_matches("6WJY="), BODY),
                "Signature",
            ),
            (check(IDENTIFIED, "", BODY), "Signature"),
            (check("other", SIGNED, BODY), "SigningKey"),
            (github.check(&HeaderMap::new(), BODY), "Unsigned"),
        ] {
            let refusal = result.expect_err(name);
            assert!(format!("{refusal:?}").starts_with(name), "{refusal:?}");
        }
    }

    #[test]
    fn keys_of_another_kind_are_refused() {
        for text in [
            "",
            "{}",
            r#"{"public_keys":[]}"#,
            r#"{"public_keys":[{"key_identifier":"a","key":"x"}]}"#,
        ] {
            assert!(Keys::of(text.as_bytes()).is_err(), "{text}");
        }
    }
}
