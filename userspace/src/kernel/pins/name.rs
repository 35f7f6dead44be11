//! What pins are called: a folder of them is read by its names alone.

use std::fmt;

use crate::kernel::object::Variant;

/// What the connections of a set of programs are kept under; drawn anew whenever they are not taken over, so that no two
/// are confused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StateId {
    /// What has to be the same for them to be taken over.
    pub(super) fingerprint: u64,
    /// Drawn.
    pub(super) drawn: u64,
}

/// Where a link holds a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::kernel) enum Place {
    /// tcx, incoming.
    Ingress,
    /// tcx, outgoing.
    Egress,
    /// XDP in the driver.
    XdpNative,
    /// XDP in the network stack.
    XdpGeneric,
}

/// One pin of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// A link.
    Link {
        /// Which programs.
        set: Variant,
        /// Where.
        place: Place,
        /// Of which interface.
        index: u32,
        /// With which connections.
        state: StateId,
    },
    /// A folder of the maps that hold connections.
    State(Variant, StateId),
    /// The same, half made.
    HalfMade(Variant, StateId),
}

impl Place {
    pub(super) const ALL: [Self; 4] = [
        Self::Ingress,
        Self::Egress,
        Self::XdpNative,
        Self::XdpGeneric,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
            Self::XdpNative => "xdp_native",
            Self::XdpGeneric => "xdp_generic",
        }
    }

    /// Whether requests are judged there.
    pub(super) fn judges(self) -> bool {
        matches!(self, Self::Ingress | Self::Egress)
    }
}

const STATE: &str = "flows";
const HALF_MADE: &str = "half";

fn set_name(set: Variant) -> &'static str {
    match set {
        Variant::Keyed => "keyed",
        Variant::Sha256 => "sha256",
    }
}

impl Name {
    /// The name of which this is the text. A BPF file system takes no dots.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (set, rest) = text.split_once('-')?;
        let set = [Variant::Keyed, Variant::Sha256]
            .into_iter()
            .find(|known| set_name(*known) == set)?;
        let (what, rest) = rest.split_once('-')?;
        match what {
            STATE => Some(Self::State(set, StateId::parse(rest)?)),
            HALF_MADE => Some(Self::HalfMade(set, StateId::parse(rest)?)),
            _ => {
                let place = Place::ALL.into_iter().find(|place| place.name() == what)?;
                let (index, state) = rest.split_once('-')?;
                Some(Self::Link {
                    set,
                    place,
                    index: index.parse().ok()?,
                    state: StateId::parse(state)?,
                })
            }
        }
    }

    /// Of which programs it is.
    pub(super) fn set(&self) -> Variant {
        match self {
            Self::Link { set, .. } | Self::State(set, _) | Self::HalfMade(set, _) => *set,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = set_name(self.set());
        match self {
            Self::Link {
                place,
                index,
                state,
                ..
            } => write!(f, "{set}-{}-{index}-{state}", place.name()),
            Self::State(_, state) => write!(f, "{set}-{STATE}-{state}"),
            Self::HalfMade(_, state) => write!(f, "{set}-{HALF_MADE}-{state}"),
        }
    }
}

/// Hexadecimal digits of a word.
const DIGITS: usize = 16;

impl StateId {
    fn parse(text: &str) -> Option<Self> {
        let (fingerprint, drawn) = text.split_at_checked(DIGITS)?;
        let word = |digits: &str| {
            let plain = digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit());
            u64::from_str_radix(digits, 16).ok().filter(|_| plain)
        };
        Some(Self {
            fingerprint: word(fingerprint)?,
            drawn: word(drawn)?,
        })
    }
}

impl fmt::Display for StateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.fingerprint, self.drawn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let state = StateId {
            fingerprint: 0xfe,
            drawn: u64::MAX,
        };
        for set in [Variant::Keyed, Variant::Sha256] {
            let links = Place::ALL.map(|place| Name::Link {
                set,
                place,
                index: 7,
                state,
            });
            for name in [Name::State(set, state), Name::HalfMade(set, state)]
                .into_iter()
                .chain(links)
            {
                let text = name.to_string();
                assert_eq!(Name::parse(&text), Some(name), "{text}");
                assert!(!text.contains('.'), "{text}");
            }
        }
    }

    #[test]
    fn other_names_are_none() {
        let state = "0".repeat(32);
        for text in [
            String::new(),
            "keyed".to_owned(),
            format!("keyed-{state}"),
            format!("keyed-ingress-{state}"),
            format!("keyed-ingress-x-{state}"),
            format!("keyed-sideways-1-{state}"),
            format!("other-ingress-1-{state}"),
            format!("keyed-flows-{state}0"),
            format!("keyed-flows-+{}", "0".repeat(31)),
            format!("keyed-flows-{}", "0".repeat(15)),
        ] {
            assert_eq!(Name::parse(&text), None, "{text}");
        }
    }
}
