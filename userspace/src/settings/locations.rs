//! Where tokens stand.

use std::{
    fmt::{self, Display},
    sync::Arc,
};

use tokenblock_ebpf::{
    digest::InstallationKey,
    location::{LocationId, LocationKind},
    rules::{NO_LOCATION, Rules, RulesError},
};

use super::{SettingsError, error::WrongName, given};
use crate::{cli::RunArgs, places::Places};

/// Most names that ids are kept for.
const MAX_IDS: usize = 0xf000;

/// Where tokens stand; a location's id is its index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locations(Vec<Location>);

/// One place where a token can stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// What has the name.
    pub kind: LocationKind,
    /// The name, as given.
    pub name: String,
}

impl Locations {
    pub(super) fn check(args: &RunArgs) -> Result<Self, SettingsError> {
        let header = given(args.apifw_denylist_tokens_header_name.clone());
        let cookie = given(args.apifw_denylist_tokens_cookie_name.clone());
        let of_kind = |kind| {
            move |name: &String| Location {
                kind,
                name: name.trim().to_owned(),
            }
        };
        let headers = args
            .header
            .iter()
            .chain(&header)
            .map(of_kind(LocationKind::Header));
        let cookies = args
            .cookie
            .iter()
            .chain(&cookie)
            .map(of_kind(LocationKind::Cookie));
        let queries = args.query.iter().map(of_kind(LocationKind::Query));
        let mut locations = Vec::new();
        for location in headers.chain(cookies).chain(queries) {
            if location.kind == LocationKind::Header && location.name.eq_ignore_ascii_case("cookie")
            {
                return Err(SettingsError::CookieHeader);
            }
            if !locations.contains(&location) {
                locations.push(location);
            }
        }
        if locations.is_empty() {
            return Err(SettingsError::NoLocation);
        }
        let locations = Self(locations);
        // The names are checked where they are used; the key doesn't matter to them.
        locations.places(&[], &InstallationKey([0; 16]), args.min_token_length)?;
        Ok(locations)
    }

    /// The rules by which both tiers find these locations, and their names. `known` has the names by the ids that they have had
    /// so far; they keep them, so that these places can take the place of others while tokenblock runs.
    ///
    /// # Errors
    /// Where there are too many, or a name can't be one of its kind; not for checked settings.
    pub fn places(
        &self,
        known: &[Arc<str>],
        key: &InstallationKey,
        min_token_length: u64,
    ) -> Result<Places, SettingsError> {
        let mut names = if known.len() < MAX_IDS {
            known.to_vec()
        } else {
            // An event of the moment may get a wrong name, after a thousand changes of all names.
            Vec::new()
        };
        let ids: Vec<LocationId> = self
            .names()
            .iter()
            .map(|name| {
                let index = names.iter().position(|known| known == name);
                if index.is_none() {
                    names.push(Arc::clone(name));
                }
                LocationId::try_from(index.unwrap_or(names.len() - 1)).unwrap_or(NO_LOCATION)
            })
            .collect();
        let locations: Vec<_> = self.0.iter().map(|l| (l.kind, l.name.as_bytes())).collect();
        let id = |index| ids.get(index).copied().unwrap_or(NO_LOCATION);
        let rules = Rules::numbered(key, min_token_length, &locations, id);
        Ok(Places {
            rules: Arc::new(rules.map_err(|error| self.explain(error))?),
            locations: names.into(),
        })
    }

    fn explain(&self, error: RulesError) -> SettingsError {
        let (index, why) = match error {
            RulesError::TooMany => return SettingsError::TooManyLocations(self.0.len()),
            RulesError::TooLong(index) => (index, WrongName::TooLong),
            RulesError::Empty(index) => (index, WrongName::Empty),
            RulesError::BadByte(index, byte) => (index, WrongName::Byte(byte)),
            RulesError::NoSeed => (self.0.len() - 1, WrongName::Clash),
        };
        match self.0.get(index) {
            Some(location) => SettingsError::Name {
                location: location.clone(),
                why,
            },
            None => SettingsError::NoLocation,
        }
    }

    /// What events call the locations, by their ids.
    #[must_use]
    pub fn names(&self) -> Arc<[Arc<str>]> {
        self.0
            .iter()
            .map(|location| location.to_string().into())
            .collect()
    }
}

/// As events show it: `header authorization`, `cookie session`, `query api_key`.
impl Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            LocationKind::Header => write!(f, "header {}", self.name.to_ascii_lowercase()),
            LocationKind::Cookie => write!(f, "cookie {}", self.name),
            LocationKind::Query => write!(f, "query {}", self.name),
        }
    }
}
