//! An entry as the database holds it.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokenblock_ebpf::digest::Domain;

use crate::denylist::{
    Action, Conditions, Entry, Expires, Fingerprint, HashedRecord, Identity, Record, TokenDigest,
    TokenId,
};

/// An entry with what is known of it, but not the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// The token's identities.
    pub identity: Identity,
    /// What to do with a request that bears it.
    pub action: Action,
    /// When it leaves the list.
    pub expires: Expires,
    /// Why it is listed.
    pub reason: Option<String>,
    /// Where it was found.
    pub source: Option<String>,
    /// When it was first added, to the second.
    pub added: SystemTime,
    /// What it lists.
    pub subject: Subject,
}

/// What an entry lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A token.
    Token,
    /// JWTs that claim this. Apart, since few entries are of that kind and a bulk has very many.
    Claims(Box<Conditions>),
    /// A token of which the SHA-256 alone is known, and perhaps as what it was read. Its other identities stand for
    /// nothing.
    Hash(Option<Domain>),
}

/// What entries are stored under, in the order of their [`TokenId`]s: the id and one byte for the domain, and for
/// whether the id is all that is known.
///
/// Reads and writes as 66 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryKey(pub [u8; 33]);

/// The columns: digest, fingerprint, action, expiry, time added (both seconds since 1970), reason, source.
pub(super) type Row<'a> = (
    &'a [u8; 16],
    u64,
    u8,
    u64,
    u64,
    Option<&'a str>,
    Option<&'a str>,
);

impl From<&Identity> for EntryKey {
    fn from(identity: &Identity) -> Self {
        let domain = match identity.domain {
            Domain::Exact => EXACT,
            Domain::Jws => JWS,
        };
        Self::new(&identity.id, domain)
    }
}

/// The last bytes of keys.
const EXACT: u8 = 0;
const JWS: u8 = 1;
const HASH: u8 = 2;
const HASH_EXACT: u8 = 3;
const HASH_JWS: u8 = 4;

impl EntryKey {
    fn new(id: &TokenId, domain: u8) -> Self {
        let mut key = [domain; 33];
        for (byte, of_id) in key.iter_mut().zip(id.0) {
            *byte = of_id;
        }
        Self(key)
    }

    /// The keys that an id can stand under.
    #[must_use]
    pub fn of_id(id: &TokenId) -> [Self; 5] {
        [EXACT, JWS, HASH, HASH_EXACT, HASH_JWS].map(|domain| Self::new(id, domain))
    }

    /// The key of an entry of which the SHA-256 alone is known.
    #[must_use]
    pub fn of_hash(id: &TokenId, domain: Option<Domain>) -> Self {
        let domain = match domain {
            None => HASH,
            Some(Domain::Exact) => HASH_EXACT,
            Some(Domain::Jws) => HASH_JWS,
        };
        Self::new(id, domain)
    }

    /// The keys of all entries that list a token.
    #[must_use]
    pub fn of_token(token: &Identity) -> [Self; 3] {
        let of_hash = |domain| Self::of_hash(&token.id, domain);
        [
            Self::from(token),
            of_hash(None),
            of_hash(Some(token.domain)),
        ]
    }

    /// The first eight bytes, as a number of the same order.
    pub(super) fn leading(&self) -> u64 {
        let (leading, _) = self.0.split_first_chunk().unwrap_or((&[0; 8], &[]));
        u64::from_be_bytes(*leading)
    }

    fn parts(&self) -> Option<(TokenId, Domain, Subject)> {
        let (domain, id) = self.0.split_last()?;
        let hash = |domain: Option<Domain>| {
            let subject = Subject::Hash(domain);
            (domain.unwrap_or(Domain::Exact), subject)
        };
        let (domain, subject) = match *domain {
            EXACT => (Domain::Exact, Subject::Token),
            JWS => (Domain::Jws, Subject::Token),
            HASH => hash(None),
            HASH_EXACT => hash(Some(Domain::Exact)),
            HASH_JWS => hash(Some(Domain::Jws)),
            _ => return None,
        };
        Some((TokenId(id.try_into().ok()?), domain, subject))
    }
}

impl fmt::Display for EntryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Not 66 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not 66 hexadecimal digits")]
pub struct NoKey;

impl FromStr for EntryKey {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<Self, NoKey> {
        from_hex(text).map(Self).ok_or(NoKey)
    }
}

/// Bytes from exactly twice as many hexadecimal digits.
pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let digit = |c: char| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut digits = text.chars();
    let mut bytes = [0; N];
    for byte in &mut bytes {
        *byte = digit(digits.next()?)? << 4 | digit(digits.next()?)?;
    }
    Some(bytes)
}

impl StoredEntry {
    /// What is stored under [`EntryKey`].
    pub(super) fn row(&self) -> Row<'_> {
        (
            &self.identity.digest.0,
            self.identity.fingerprint.0,
            self.action as u8,
            self.expires.to_stored(),
            seconds(self.added),
            self.reason.as_deref(),
            self.source.as_deref(),
        )
    }

    /// The entry of a row, or `None` where no version wrote such a row.
    pub(super) fn of_row(key: EntryKey, row: &Row<'_>) -> Option<Self> {
        let (digest, fingerprint, action, expires, added, reason, source) = *row;
        let (id, domain, subject) = key.parts()?;
        let action = [Action::Block, Action::Alert]
            .into_iter()
            .find(|known| *known as u8 == action)?;
        Some(Self {
            identity: Identity {
                domain,
                id,
                digest: TokenDigest(*digest),
                fingerprint: Fingerprint(fingerprint),
            },
            action,
            expires: Expires::from_stored(expires),
            reason: reason.map(ToOwned::to_owned),
            source: source.map(ToOwned::to_owned),
            added: UNIX_EPOCH.checked_add(Duration::from_secs(added))?,
            subject,
        })
    }

    /// What it is stored under.
    #[must_use]
    pub fn key(&self) -> EntryKey {
        match self.subject {
            Subject::Token | Subject::Claims(_) => EntryKey::from(&self.identity),
            Subject::Hash(domain) => EntryKey::of_hash(&self.identity.id, domain),
        }
    }

    /// What the tiers need of it, where they look it up by its keyed digest.
    #[must_use]
    pub fn record(&self) -> Option<Record> {
        match self.subject {
            Subject::Token | Subject::Claims(_) => Some(Record::from(&Entry {
                identity: self.identity,
                action: self.action,
                expires: self.expires,
                reason: None,
                source: None,
            })),
            Subject::Hash(_) => None,
        }
    }

    /// What they need of it, where its SHA-256 is all that is known.
    #[must_use]
    pub fn hashed(&self) -> Option<HashedRecord> {
        match self.subject {
            Subject::Token | Subject::Claims(_) => None,
            Subject::Hash(domain) => Some(HashedRecord {
                id: self.identity.id,
                domain,
                action: self.action,
                expires: self.expires,
            }),
        }
    }

    /// The identities of an entry whose SHA-256 is all that is known.
    #[must_use]
    pub fn identity_of_hash(id: TokenId, domain: Option<Domain>) -> Identity {
        Identity {
            domain: domain.unwrap_or(Domain::Exact),
            id,
            digest: TokenDigest([0; 16]),
            fingerprint: Fingerprint(0),
        }
    }

    /// What it becomes when it is given again, now: the newer attributes count, what is only said once stays.
    #[must_use]
    pub fn updated(&self, again: Self) -> Self {
        Self {
            reason: again.reason.or_else(|| self.reason.clone()),
            source: again.source.or_else(|| self.source.clone()),
            added: self.added,
            ..again
        }
    }
}

/// Whole seconds since 1970.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
