//! An entry as the database holds it.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokenblock_ebpf::digest::Domain;

use crate::denylist::{
    Action, Conditions, Entry, Expires, Fingerprint, Identity, Record, TokenDigest, TokenId,
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
    /// What JWTs must claim, where it is no entry of one token.
    pub claims: Option<Conditions>,
}

/// What entries are stored under, in the order of their [`TokenId`]s: the id and one byte for the domain.
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
            Domain::Exact => 0,
            Domain::Jws => 1,
        };
        Self::new(&identity.id, domain)
    }
}

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
    pub fn of_id(id: &TokenId) -> [Self; 2] {
        [0, 1].map(|domain| Self::new(id, domain))
    }

    /// The first eight bytes, as a number of the same order.
    pub(super) fn leading(&self) -> u64 {
        let (leading, _) = self.0.split_first_chunk().unwrap_or((&[0; 8], &[]));
        u64::from_be_bytes(*leading)
    }

    fn parts(&self) -> Option<(TokenId, Domain)> {
        let (domain, id) = self.0.split_last()?;
        let domain = match domain {
            0 => Domain::Exact,
            1 => Domain::Jws,
            _ => return None,
        };
        Some((TokenId(id.try_into().ok()?), domain))
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
        let (id, domain) = key.parts()?;
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
            claims: None,
        })
    }

    /// What the tiers need of it.
    #[must_use]
    pub fn record(&self) -> Record {
        Record::from(&Entry {
            identity: self.identity,
            action: self.action,
            expires: self.expires,
            reason: None,
            source: None,
        })
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
