//! Where a token stands: header names, cookie names, query parameters.

use crate::{digest::Tail, swar};

/// What kind of name a location has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum LocationKind {
    /// A header field; its value is the candidate.
    Header = 0,
    /// A cookie inside a `Cookie` header field.
    Cookie = 1,
    /// A parameter of the query of the request target.
    Query = 2,
}

/// Index of a configured location, in the order in which it was given to [`crate::rules::Rules::new`].
pub type LocationId = u16;

/// Hash of a location name after folding; different kinds never meet.
///
/// Not keyed and not collision-free on purpose: a false match makes one more candidate, and a candidate is
/// blocked only if it is a listed token.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct NameHash {
    state: u64,
    tail: Tail,
}

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

impl NameHash {
    /// The hash of an empty name of this kind.
    #[inline(always)]
    #[must_use]
    pub fn new(kind: LocationKind, seed: u64) -> Self {
        let state = seed ^ (kind as u64).wrapping_mul(MULTIPLIER);
        Self {
            state,
            tail: Tail::new(),
        }
    }

    /// Takes the first `n` (0..=8) bytes of `word`, folded.
    #[inline(always)]
    pub fn absorb(&mut self, word: u64, n: u32) {
        if let Some(block) = self.tail.push(swar::fold(word), n) {
            self.state = mix(self.state, block);
        }
    }

    /// A hash of the state.
    #[inline(always)]
    pub(crate) fn signature(&self) -> u64 {
        mix(self.state, self.tail.padded())
    }

    /// Bytes taken so far.
    #[inline(always)]
    #[must_use]
    pub fn len(&self) -> u64 {
        self.tail.len()
    }

    /// Whether nothing was taken yet.
    #[inline(always)]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tail.is_empty()
    }

    /// The hash of the name so far; never 0, which marks a free slot.
    #[inline(always)]
    #[must_use]
    pub fn finish(&self) -> u64 {
        mix(self.state, self.tail.padded()) | 1
    }

    /// Hash of a header name of `words` whole words and the first `n` (0..=7) bytes of the last.
    #[inline(always)]
    #[must_use]
    pub fn of_words(seed: u64, words: [u64; 3], whole: u32, n: u32) -> u64 {
        let mut state = Self::new(LocationKind::Header, seed).state;
        if whole > 0 {
            state = mix(state, swar::fold(words[0]));
        }
        if whole > 1 {
            state = mix(state, swar::fold(words[1]));
        }
        let last = if whole > 1 {
            words[2]
        } else if whole > 0 {
            words[1]
        } else {
            words[0]
        };
        let len = u64::from(whole * 8 + n);
        mix(state, swar::keep(swar::fold(last), n) | len << 56) | 1
    }

    /// Hash of a name that lies in memory.
    #[must_use]
    pub fn of(kind: LocationKind, seed: u64, name: &[u8]) -> u64 {
        let mut hash = Self::new(kind, seed);
        for byte in name {
            hash.absorb(u64::from(*byte), 1);
        }
        hash.finish()
    }
}

#[inline(always)]
pub(crate) fn mix(state: u64, block: u64) -> u64 {
    let x = (state ^ block).wrapping_mul(MULTIPLIER);
    x ^ x >> 29
}
