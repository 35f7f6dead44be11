//! The identities of a token and what the tiers keep of an entry.

use std::fmt;

pub use tokenblock_ebpf::filter::Fingerprint;

/// SHA-256 of a token's canonical form: its public identity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(pub [u8; 32]);

/// The first six bytes of a [`TokenId`], as logs and events show it (12 hexadecimal digits).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShortTokenId(pub [u8; 6]);

/// What happens to a request that bears the token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Action {
    /// It is blocked.
    #[default]
    Block = 0,
    /// It passes and is reported.
    Alert = 1,
}

/// What a tier keeps of an entry, under its `TokenDigest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// For events.
    pub token: ShortTokenId,
    /// What to do.
    pub action: Action,
    /// By which the kernel tier lets the token through to its digest.
    pub fingerprint: Fingerprint,
}

impl TokenId {
    /// The part that is shown.
    #[must_use]
    pub fn short(&self) -> ShortTokenId {
        let mut short = [0; 6];
        short.copy_from_slice(&self.0[..6]);
        ShortTokenId(short)
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Display for ShortTokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for ShortTokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}
