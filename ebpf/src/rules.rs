//! What to look for: the installation key, the locations, the shortest candidate.

use crate::{
    digest::{InstallationKey, SipSeed},
    filter::FingerprintSeed,
    location::{LocationId, LocationKind, NameHash},
};

/// Most location names, of all kinds together.
pub const MAX_LOCATIONS: usize = 64;
/// Longest location name in bytes.
pub const MAX_NAME: usize = 64;

const SLOTS: usize = 256;
/// First bytes of names that are told apart.
const FIRSTS: usize = 32;
/// Blocks of 64 bits; at most [`MAX_LOCATIONS`] times [`MAX_NAME`] beginnings set two bits each.
const BEGINNINGS: usize = 1024;
/// In a slot's `location`: the `Transfer-Encoding` header.
pub const TRANSFER_ENCODING: LocationId = 0xfffb;
/// In a slot's `location`: the `Cookie` header itself, whose value holds cookies.
pub const COOKIE_HEADER: LocationId = 0xfffc;
/// In a slot's `location`: the `Content-Length` header.
pub const CONTENT_LENGTH: LocationId = 0xfffd;
/// In a slot's `location`: the method with which HTTP/2 begins (RFC 9113 section 3.4).
pub const HTTP2_METHOD: LocationId = 0xfffe;
/// No location.
pub const NO_LOCATION: LocationId = 0xffff;

/// One place of the name table.
#[derive(Clone, Copy)]
#[repr(C)]
struct Slot {
    hash: u64,
    location: u64,
}

/// The rules in the form that both tiers read; lies in a BPF array map as it is.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Rules {
    /// State of a new digest under the installation key.
    pub seed: SipSeed,
    /// Key material of fingerprints.
    pub fingerprint: FingerprintSeed,
    /// Candidates shorter than this many bytes are not looked up.
    pub min_len: u64,
    /// With it the hash of a name begins. All rules have the same, so that a name of which a part was read under others is
    /// found under these.
    pub name_seed: u64,
    /// Chosen so that no two names share a slot.
    spread: u64,
    /// For each first byte of a header's name, but for its upper bits: a bit for each length of such a name.
    lengths: [u64; FIRSTS],
    /// The same of names of parameters.
    parameters: [u64; FIRSTS],
    names: [Slot; SLOTS],
    /// Bits of the hashes of all beginnings of header names.
    beginnings: [u64; BEGINNINGS],
}

/// Why locations can't be made into [`Rules`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RulesError {
    /// More than [`MAX_LOCATIONS`] names.
    TooMany,
    /// The name at this index is longer than [`MAX_NAME`] bytes.
    TooLong(usize),
    /// The name at this index is empty.
    Empty(usize),
    /// The name at this index has a byte that can't stand in a name of its kind.
    BadByte(usize, u8),
    /// No seed separates the names.
    NoSeed,
}

impl Rules {
    /// Rules for these locations; a location's id is its index.
    ///
    /// # Errors
    /// As [`Rules::numbered`].
    pub fn new(
        key: &InstallationKey,
        min_len: u64,
        locations: &[(LocationKind, &[u8])],
    ) -> Result<Self, RulesError> {
        let id = |index| LocationId::try_from(index).unwrap_or(NO_LOCATION);
        Self::numbered(key, min_len, locations, id)
    }

    /// Rules for these locations; `id` gives the id of the one at an index.
    ///
    /// # Errors
    /// [`RulesError`] where a name can't be a location. A name given twice (or twice up to folding) keeps its
    /// first id.
    pub fn numbered(
        key: &InstallationKey,
        min_len: u64,
        locations: &[(LocationKind, &[u8])],
        id: impl Fn(usize) -> LocationId,
    ) -> Result<Self, RulesError> {
        if locations.len() > MAX_LOCATIONS {
            return Err(RulesError::TooMany);
        }
        for (index, (kind, name)) in locations.iter().enumerate() {
            check_name(index, *kind, name)?;
        }
        let mut rules = Self {
            seed: SipSeed::new(key),
            fingerprint: FingerprintSeed::new(key),
            min_len,
            name_seed: 0,
            spread: 1,
            lengths: [0; FIRSTS],
            parameters: [0; FIRSTS],
            names: [Slot {
                hash: 0,
                location: 0,
            }; SLOTS],
            beginnings: [0; BEGINNINGS],
        };
        for spread in (1..2_000_000).step_by(2) {
            rules.spread = spread;
            rules.names = [Slot {
                hash: 0,
                location: 0,
            }; SLOTS];
            if rules.fill(locations, &id) {
                rules.note_header(b"cookie");
                rules.note_header(b"content-length");
                rules.note_header(b"transfer-encoding");
                rules.note_header(b"pri");
                for (kind, name) in locations {
                    match kind {
                        LocationKind::Header => rules.note_header(name),
                        LocationKind::Query => {
                            note_length(&mut rules.parameters, name);
                            rules.note_beginnings(*kind, name);
                        }
                        LocationKind::Cookie => {}
                    }
                }
                return Ok(rules);
            }
        }
        Err(RulesError::NoSeed)
    }

    fn fill(
        &mut self,
        locations: &[(LocationKind, &[u8])],
        id: &impl Fn(usize) -> LocationId,
    ) -> bool {
        self.put(LocationKind::Header, b"cookie", COOKIE_HEADER)
            && self.put(LocationKind::Header, b"content-length", CONTENT_LENGTH)
            && self.put(LocationKind::Header, b"transfer-encoding", TRANSFER_ENCODING)
            && locations
                .iter()
                .enumerate()
                .all(|(index, (kind, name))| self.put(*kind, name, id(index)))
            // A location that is called so comes first.
            && self.put(LocationKind::Header, b"pri", HTTP2_METHOD)
    }

    fn put(&mut self, kind: LocationKind, name: &[u8], location: LocationId) -> bool {
        let hash = NameHash::of(kind, self.name_seed, name);
        let slot = &mut self.names[slot_of(hash, self.spread)];
        if slot.hash != 0 {
            return slot.hash == hash;
        }
        *slot = Slot {
            hash,
            location: u64::from(location),
        };
        true
    }

    /// Notes what is looked for of a header's name.
    fn note_header(&mut self, name: &[u8]) {
        note_length(&mut self.lengths, name);
        self.note_beginnings(LocationKind::Header, name);
    }

    fn note_beginnings(&mut self, kind: LocationKind, name: &[u8]) {
        for end in 1..=name.len() {
            let hash = NameHash::of(kind, self.name_seed, &name[..end]);
            let (block, bits) = beginning(hash);
            self.beginnings[block] |= bits;
        }
    }

    /// False only if no name of a location in a header or a query begins with a name of this hash.
    #[inline(always)]
    #[must_use]
    pub fn may_begin(&self, hash: u64) -> bool {
        let (block, bits) = beginning(hash);
        self.beginnings[block] & bits == bits
    }

    /// False only if a header whose name has `len` bytes, the first of them `first`, is no location and says nothing of the
    /// framing, nor is the name the method of HTTP/2.
    #[inline(always)]
    #[must_use]
    pub fn may_know(&self, first: u8, len: u32) -> bool {
        self.lengths[usize::from(first) & (FIRSTS - 1)] >> (len & 63) & 1 != 0
    }

    /// False only if a parameter whose name has `len` bytes, none of them an escape and the first of them `first`, is no
    /// location.
    #[inline(always)]
    #[must_use]
    pub fn may_know_parameter(&self, first: u8, len: u32) -> bool {
        self.parameters[usize::from(first) & (FIRSTS - 1)] >> (len & 63) & 1 != 0
    }

    /// The location with this name hash, [`COOKIE_HEADER`], or [`NO_LOCATION`].
    #[inline(always)]
    #[must_use]
    pub fn find(&self, hash: u64) -> LocationId {
        let slot = &self.names[slot_of(hash, self.spread)];
        if slot.hash == hash {
            slot.location as LocationId
        } else {
            NO_LOCATION
        }
    }
}

/// Notes that there is a name of this length and first byte.
fn note_length(lengths: &mut [u64; FIRSTS], name: &[u8]) {
    let bit = 1 << (name.len() & 63);
    let first = name.first().copied().unwrap_or(0);
    if first.is_ascii_alphanumeric() {
        lengths[usize::from(first) & (FIRSTS - 1)] |= bit;
    } else {
        // Many bytes stand for it.
        for lengths in lengths {
            *lengths |= bit;
        }
    }
}

#[inline(always)]
fn slot_of(hash: u64, spread: u64) -> usize {
    (hash.wrapping_mul(spread) >> 56) as usize & (SLOTS - 1)
}

/// Where [`Rules::may_begin`] looks.
#[inline(always)]
fn beginning(hash: u64) -> (usize, u64) {
    let bits = 1 << (hash >> 32 & 63) | 1 << (hash >> 26 & 63);
    ((hash >> 46) as usize & (BEGINNINGS - 1), bits)
}

fn check_name(index: usize, kind: LocationKind, name: &[u8]) -> Result<(), RulesError> {
    if name.is_empty() {
        return Err(RulesError::Empty(index));
    }
    if name.len() > MAX_NAME {
        return Err(RulesError::TooLong(index));
    }
    let bad: &[u8] = match kind {
        LocationKind::Header => b":",
        LocationKind::Cookie => b"=;,",
        LocationKind::Query => b"=&#%",
    };
    match name
        .iter()
        .find(|b| **b <= b' ' || **b == 0x7f || bad.contains(b))
    {
        Some(byte) => Err(RulesError::BadByte(index, *byte)),
        None => Ok(()),
    }
}

#[cfg(feature = "user")]
mod user {
    // SAFETY: `repr(C)`, integers only, no padding (every field is made of u64).
    unsafe impl aya::Pod for super::Rules {}
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::{format, string::String, vec::Vec};

    #[test]
    fn finds_names_by_kind_case_and_separator() {
        let rules = Rules::new(
            &InstallationKey([0; 16]),
            8,
            &[
                (LocationKind::Header, b"X-API-Key"),
                (LocationKind::Cookie, b"session"),
            ],
        )
        .unwrap();
        let find = |kind, name: &[u8]| rules.find(NameHash::of(kind, rules.name_seed, name));
        assert_eq!(find(LocationKind::Header, b"x_api.KEY"), 0);
        assert_eq!(find(LocationKind::Cookie, b"Session"), 1);
        assert_eq!(find(LocationKind::Header, b"session"), NO_LOCATION);
        assert_eq!(find(LocationKind::Header, b"COOKIE"), COOKIE_HEADER);
        assert_eq!(find(LocationKind::Header, b"X-API-Ke"), NO_LOCATION);
    }

    #[test]
    fn takes_as_many_names_as_it_says() {
        let names: Vec<String> = (0..=MAX_LOCATIONS)
            .map(|i| format!("x-token-{i}"))
            .collect();
        let all: Vec<(LocationKind, &[u8])> = names
            .iter()
            .map(|n| (LocationKind::Header, n.as_bytes()))
            .collect();
        let key = InstallationKey([0; 16]);
        let rules = Rules::new(&key, 8, &all[..MAX_LOCATIONS]).unwrap();
        for (id, (kind, name)) in all[..MAX_LOCATIONS].iter().enumerate() {
            assert_eq!(
                usize::from(rules.find(NameHash::of(*kind, rules.name_seed, name))),
                id
            );
        }
        assert_eq!(Rules::new(&key, 8, &all).err(), Some(RulesError::TooMany));
    }
}
