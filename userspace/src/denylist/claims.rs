//! Entries that name claims of JWTs (RFC 7519 section 4.1, RFC 7515 section 4.1.4) in place of a token: all tokens of
//! a leaked signing key, or one user's from before a breach.
//!
//! Such an entry is listed like a token, under the identity of its conditions; here is what leads from a JWT in a
//! request to that identity. So action, expiry, removal and counting are those of any entry. JWTs are read without
//! verifying them: who changes a claim to slip through has a token that no verifier takes.

use std::{collections::HashMap, fmt, sync::Arc};

use arc_swap::ArcSwap;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokenblock_ebpf::digest::{Domain, InstallationKey, TokenDigest};
use zeroize::{Zeroize as _, Zeroizing};

use super::{Fingerprint, Identity, TokenId, jwt::decoded};

/// A claim, or the one header parameter, that an entry can name.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[strum(serialize_all = "lowercase")]
pub enum Claim {
    /// The token's own id.
    Jti,
    /// The key that signed it.
    Kid,
    /// Whose it is.
    Sub,
    /// Who issued it.
    Iss,
}

/// Claims and the values that they must have.
pub type Asked<'a> = Vec<(Claim, &'a str)>;

/// What a JWT must claim, all of it; values as keyed digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// By [`Claim`]; at least one is there.
    values: [Option<TokenDigest>; 4],
    /// Issued before this, in seconds since 1970; a JWT that doesn't say when counts as issued before.
    before: Option<u64>,
}

/// The conditions of an entry, and under what it is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims {
    /// What a JWT must claim.
    pub conditions: Conditions,
    /// Of the entry.
    pub digest: TokenDigest,
}

impl Claim {
    fn name(self) -> &'static str {
        self.into()
    }

    fn digest(self, key: &InstallationKey, value: &str) -> TokenDigest {
        let text = Zeroizing::new(format!("{}={value}", self.name()));
        TokenDigest::of(key, Domain::Exact, text.as_bytes())
    }
}

impl Conditions {
    /// Of these values; the last of a claim counts.
    #[must_use]
    pub fn new(key: &InstallationKey, values: &[(Claim, &str)], before: Option<u64>) -> Self {
        let mut conditions = Self {
            before,
            ..Self::default()
        };
        for (claim, value) in values {
            if let Some(place) = conditions.values.get_mut(*claim as usize) {
                *place = Some(claim.digest(key, value));
            }
        }
        conditions
    }

    /// What an entry with these conditions is listed under. No candidate on the wire has a line feed in it.
    #[must_use]
    pub fn identity(
        key: &InstallationKey,
        values: &[(Claim, &str)],
        before: Option<u64>,
    ) -> Identity {
        let mut values = values.to_vec();
        values.sort_unstable();
        let mut text = Zeroizing::new(String::from("\njwt"));
        for (claim, value) in values {
            text.extend(["\n", claim.name(), "=", value]);
        }
        if let Some(before) = before {
            text.extend(["\nbefore=", &before.to_string()]);
        }
        Identity {
            domain: Domain::Exact,
            id: TokenId(Sha256::digest(text.as_bytes()).into()),
            digest: TokenDigest::of(key, Domain::Exact, text.as_bytes()),
            fingerprint: Fingerprint::of(key, Domain::Exact, text.as_bytes()),
        }
    }

    /// As stored: a byte that says which are there, and each.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let there = self.values.iter().enumerate();
        let mask = there.fold(0, |mask, (at, value)| {
            mask | u8::from(value.is_some()) << at
        });
        let mut bytes = vec![mask | u8::from(self.before.is_some()) << self.values.len()];
        bytes.extend(self.values.iter().flatten().flat_map(|value| value.0));
        bytes.extend(self.before.into_iter().flat_map(u64::to_be_bytes));
        bytes
    }

    /// The opposite of [`Conditions::to_bytes`]; `None` where no version wrote such bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (mask, mut bytes) = bytes.split_first()?;
        let mut conditions = Self::default();
        for (at, place) in conditions.values.iter_mut().enumerate() {
            if mask >> at & 1 == 1 {
                let value;
                (value, bytes) = bytes.split_first_chunk()?;
                *place = Some(TokenDigest(*value));
            }
        }
        if mask >> conditions.values.len() & 1 == 1 {
            let before;
            (before, bytes) = bytes.split_first_chunk()?;
            conditions.before = Some(u64::from_be_bytes(*before));
        }
        bytes.is_empty().then_some(conditions)
    }

    /// The names of what is asked for, without values: `kid`, `iss,sub,before`.
    #[must_use]
    pub fn names(&self) -> String {
        use strum::VariantArray as _;
        let there = Claim::VARIANTS.iter().zip(self.values);
        let names = there.filter_map(|(claim, value)| value.map(|_| claim.name()));
        let names: Vec<_> = names.chain(self.before.map(|_| "before")).collect();
        names.join(",")
    }

    /// The first claim that is asked for; the order is from the rare ones to the common.
    fn rarest(&self) -> Option<TokenDigest> {
        self.values.iter().flatten().next().copied()
    }

    fn are_met(&self, claimed: &Claimed) -> bool {
        let values = self.values.iter().zip(&claimed.values);
        let met = values.fold(true, |met, (asked, has)| {
            met & (asked.is_none() || asked == has)
        });
        let early = self.before.is_none_or(|before| {
            let issued = claimed.issued.unwrap_or(f64::NEG_INFINITY);
            // Times have fewer digits than f64.
            issued < std::time::Duration::from_secs(before).as_secs_f64()
        });
        met && early
    }
}

/// What a JWT claims of itself.
struct Claimed {
    values: [Option<TokenDigest>; 4],
    issued: Option<f64>,
    /// Under what the scanner looks the JWT itself up.
    digest: TokenDigest,
}

#[derive(Deserialize)]
struct Header {
    kid: Option<Value>,
}

#[derive(Deserialize)]
struct Payload {
    jti: Option<Value>,
    sub: Option<Value>,
    iss: Option<Value>,
    iat: Option<Value>,
}

/// All entries that name claims. Without `Debug` on purpose: it has the key.
#[derive(Default)]
pub struct ClaimSet {
    /// By the rarest of their conditions.
    by_value: HashMap<TokenDigest, Vec<Claims>>,
    key: Option<InstallationKey>,
}

impl ClaimSet {
    /// Of these entries, which may hold the same more than once.
    #[must_use]
    pub fn new(key: &InstallationKey, entries: impl IntoIterator<Item = Claims>) -> Self {
        let mut by_value = HashMap::<_, Vec<Claims>>::new();
        for entry in entries {
            let Some(rarest) = entry.conditions.rarest() else {
                continue;
            };
            let same = by_value.entry(rarest).or_default();
            if !same.contains(&entry) {
                same.push(entry);
            }
        }
        Self {
            by_value,
            key: Some(*key),
        }
    }

    /// The entries.
    pub fn entries(&self) -> impl Iterator<Item = &Claims> {
        self.by_value.values().flatten()
    }

    /// The JWTs that stand somewhere in a value and meet the conditions of an entry: under what the scanner looks each
    /// up, and under what the entry is listed. Whether the scanner sees them where they stand is for it to say.
    #[must_use]
    pub fn in_value(&self, value: &[u8]) -> Vec<(TokenDigest, TokenDigest)> {
        let Some(key) = &self.key else {
            return Vec::new();
        };
        let mut found = Vec::new();
        each_reading(value, |text| {
            each_jwt(text, |jwt| {
                if let Some(claimed) = claimed(key, jwt) {
                    self.matching(&claimed, &mut found);
                }
            });
        });
        found
    }

    fn matching(&self, claimed: &Claimed, found: &mut Vec<(TokenDigest, TokenDigest)>) {
        let lists = claimed.values.iter().flatten();
        let entries = lists.filter_map(|value| self.by_value.get(value)).flatten();
        let met = entries.filter(|entry| entry.conditions.are_met(claimed));
        for entry in met {
            let pair = (claimed.digest, entry.digest);
            if !found.contains(&pair) {
                found.push(pair);
            }
        }
    }
}

/// Wipes its copy of the key.
impl Drop for ClaimSet {
    fn drop(&mut self) {
        if let Some(key) = &mut self.key {
            key.0.zeroize();
        }
    }
}

/// What is in force, for those who read it and for the one who changes it; clones share it.
#[derive(Clone, Default)]
pub struct ClaimsReader(Arc<ArcSwap<ClaimSet>>);

/// Hides what is in force.
impl fmt::Debug for ClaimsReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClaimsReader")
    }
}

impl ClaimsReader {
    /// What is in force; `None` where that is nothing, so that no JWT need be read.
    #[must_use]
    pub fn current(&self) -> Option<Arc<ClaimSet>> {
        let current = self.0.load();
        (!current.by_value.is_empty()).then(|| Arc::clone(&current))
    }

    /// Puts another set in force.
    pub fn store(&self, set: ClaimSet) {
        self.0.store(Arc::new(set));
    }
}

/// A value as it stands, and as the scanner may decode it.
fn each_reading(value: &[u8], mut read: impl FnMut(&[u8])) {
    read(value);
    if value.iter().any(|byte| matches!(byte, b'%' | b'\\')) {
        read(&unescaped(value));
    }
    // Basic credentials (RFC 7617).
    for word in value.split(u8::is_ascii_whitespace) {
        if word.len() > 32 && !word.contains(&b'.') {
            let text = str::from_utf8(word).ok().and_then(decoded);
            if let Some(text) = text {
                read(&text);
            }
        }
    }
}

/// `%xx`, and in cookies `\ooo` and `\c`.
fn unescaped(value: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(value.len()));
    let mut rest = value;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        let (radix, digits) = match byte {
            b'%' => (16, 2),
            b'\\' => (8, 3),
            _ => {
                bytes.push(*byte);
                continue;
            }
        };
        let number = after
            .get(..digits)
            .and_then(|text| str::from_utf8(text).ok());
        let number = number.and_then(|text| u8::from_str_radix(text, radix).ok());
        match number {
            Some(number) => {
                bytes.push(number);
                rest = after.get(digits..).unwrap_or_default();
            }
            None if *byte == b'%' => bytes.push(*byte),
            // What is escaped stands for itself.
            None => {}
        }
    }
    bytes
}

/// Shows what reads like `header.payload.` and more: runs of the characters of base64 with dots in them.
fn each_jwt(text: &[u8], mut show: impl FnMut(&str)) {
    let in_jwt = |byte: &u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'+' | b'/' | b'=' | b'.')
    };
    for run in text.split(|byte| !in_jwt(byte)) {
        let Some(run) = str::from_utf8(run).ok().filter(|run| run.contains('.')) else {
            continue;
        };
        show(run);
        // `name=value`, where both are made of these characters.
        let header = run.split('.').next().unwrap_or_default();
        let name = header.trim_end_matches('=').rfind('=');
        if let Some(value) = name.and_then(|at| run.get(at + 1..)) {
            show(value);
        }
    }
}

fn claimed(key: &InstallationKey, jwt: &str) -> Option<Claimed> {
    let (header, rest) = jwt.split_once('.')?;
    let (payload, _signature) = rest.split_once('.')?;
    let signed = jwt.get(..header.len() + 1 + payload.len())?;
    let header: Header = parsed(header)?;
    let payload: Payload = parsed(payload)?;
    let digest = |claim: Claim, value: Option<Value>| match value {
        Some(Value::String(text)) => Some(claim.digest(key, &Zeroizing::new(text))),
        _ => None,
    };
    Some(Claimed {
        values: [
            digest(Claim::Jti, payload.jti),
            digest(Claim::Kid, header.kid),
            digest(Claim::Sub, payload.sub),
            digest(Claim::Iss, payload.iss),
        ],
        issued: payload.iat.as_ref().and_then(Value::as_f64),
        digest: TokenDigest::of(key, Domain::Jws, signed.as_bytes()),
    })
}

/// An object; of a member that is there twice the last counts, as for most verifiers.
fn parsed<T: DeserializeOwned>(segment: &str) -> Option<T> {
    let json = decoded(segment)?;
    let object: Value = serde_json::from_slice(&json).ok()?;
    serde_json::from_value(object).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::{
        Engine as _,
        prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
    };

    use super::*;

    const KEY: InstallationKey = InstallationKey([3; 16]);

    fn jwt(header: &str, payload: &str) -> String {
        let encode = |json: &str| BASE64_URL_SAFE_NO_PAD.encode(json);
        format!("{}.{}.c2ln", encode(header), encode(payload))
    }

    fn set(values: &[(Claim, &str)], before: Option<u64>) -> ClaimSet {
        let entry = Claims {
            conditions: Conditions::new(&KEY, values, before),
            digest: Conditions::identity(&KEY, values, before).digest,
        };
        ClaimSet::new(&KEY, [entry, entry])
    }

    fn meets(values: &[(Claim, &str)], before: Option<u64>, header: &str, payload: &str) -> bool {
        let found = set(values, before).in_value(jwt(header, payload).as_bytes());
        assert!(found.len() < 2, "{found:?}");
        !found.is_empty()
    }

    #[test]
    fn all_conditions_must_be_met_and_by_strings_alone() {
        use Claim::{Iss, Jti, Kid, Sub};
        let header = r#"{"alg":"RS256","kid":"k1"}"#;
        let payload = r#"{"iss":"https://idp","sub":"alice","jti":"7","iat":1000}"#;
        for values in [
            &[(Kid, "k1")][..],
            &[(Jti, "7")],
            &[(Sub, "alice"), (Iss, "https://idp")],
            &[
                (Iss, "https://idp"),
                (Kid, "k1"),
                (Jti, "7"),
                (Sub, "alice"),
            ],
        ] {
            assert!(meets(values, None, header, payload), "{values:?}");
            assert!(meets(values, Some(1001), header, payload), "{values:?}");
            assert!(!meets(values, Some(1000), header, payload), "{values:?}");
            // One that doesn't say when it was issued may be from before.
            let undated = payload.replace("\"iat\":1000", "\"x\":1");
            assert!(meets(values, Some(1), header, &undated), "{values:?}");
        }
        for values in [
            &[(Kid, "k2")][..],
            &[(Kid, "K1")],
            &[(Sub, "k1")],
            &[(Sub, "alice"), (Iss, "https://idp/")],
            &[(Sub, "alice"), (Kid, "k2")],
        ] {
            assert!(!meets(values, None, header, payload), "{values:?}");
        }
        assert!(!meets(&[(Jti, "7")], None, header, r#"{"jti":7}"#));
        assert!(!meets(&[(Sub, "a")], None, "{}", "[]"));
        // Another type of another claim is no way out.
        let odd = r#"{"sub":"alice","jti":[1],"iss":{},"iat":"x"}"#;
        assert!(meets(&[(Sub, "alice")], Some(1), "{}", odd));
        // Nor is a member that is there twice: verifiers take the last.
        let twice = r#"{"sub":"bob","sub":"alice"}"#;
        assert!(meets(&[(Sub, "alice")], None, "{}", twice));
    }

    #[test]
    fn a_jwt_is_found_wherever_the_scanner_may_see_it() {
        let claims = set(&[(Claim::Sub, "alice")], None);
        let jwt = jwt(r#"{"alg":"none"}"#, r#"{"sub":"alice"}"#);
        let (signed, _) = jwt.rsplit_once('.').unwrap();
        let expected = TokenDigest::of(&KEY, Domain::Jws, signed.as_bytes());
        let each =
            |write: &dyn Fn(u8) -> String| jwt.bytes().map(write).collect::<Vec<_>>().concat();
        let escaped = each(&|byte| format!("%{byte:02X}"));
        let octal = each(&|byte| format!("\\{byte:03o}"));
        let basic = BASE64_STANDARD.encode(format!("user:{jwt}"));
        for value in [
            jwt.clone(),
            format!("Bearer {jwt}"),
            format!("Token token=\"{jwt}\""),
            format!("access_token={jwt}&x=y"),
            format!("a=b; session={jwt}; c=d"),
            format!("session=\"{jwt}\""),
            format!("session={escaped}"),
            format!("session=\"{octal}\""),
            format!("Basic {basic}"),
            format!("Basic {}", basic.trim_end_matches('=')),
            format!("{signed}."),
        ] {
            let found = claims.in_value(value.as_bytes());
            assert!(found.iter().any(|(jwt, _)| *jwt == expected), "{value}");
        }
        for value in [
            "",
            ".",
            "..",
            "a.b.c",
            "\u{e9}.\u{e9}.",
            "%",
            "\\",
            "%zz\\9",
            signed,
        ] {
            assert!(claims.in_value(value.as_bytes()).is_empty(), "{value}");
        }
    }

    #[test]
    fn conditions_are_read_as_they_were_stored() {
        for (values, before) in [
            (&[(Claim::Kid, "a")][..], None),
            (&[(Claim::Iss, "a"), (Claim::Jti, "b")], Some(7)),
        ] {
            let conditions = Conditions::new(&KEY, values, before);
            let bytes = conditions.to_bytes();
            assert_eq!(Conditions::from_bytes(&bytes), Some(conditions));
            assert_eq!(Conditions::from_bytes(&bytes[1..]), None);
        }
        assert_eq!(Conditions::from_bytes(&[]), None);
        let time = Duration::from_secs(7).as_secs();
        let names = Conditions::new(&KEY, &[(Claim::Iss, "a"), (Claim::Kid, "b")], Some(time));
        assert_eq!(names.names(), "kid,iss,before");
    }
}
