//! Entries of the denylist files, read again where somebody asks: nothing is held in memory for them.

use std::{
    collections::{HashMap, HashSet},
    ops::ControlFlow,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::api::{EntryAnswer, FilePlace, shown};
use crate::{
    denylist::TokenId,
    key::StoredKey,
    sources::{FileError, Found, MinLength, Reading, Said, Source, visit},
};

/// The files, and what their text is read with; cheap to clone.
#[derive(Clone)]
pub(super) struct Files {
    pub(super) sources: Arc<[Source]>,
    pub(super) key: Arc<StoredKey>,
    pub(super) min_token_length: MinLength,
    pub(super) jwt_expiry: Option<Duration>,
}

impl Files {
    /// What text is read with.
    pub(super) fn reading(&self) -> Reading<'_> {
        Reading {
            key: self.key.get(),
            min_token_length: self.min_token_length.get(),
            jwt_expiry: self.jwt_expiry,
        }
    }

    /// Shows each entry that has not expired to `show`, until that has seen enough; gives the files that can't be read.
    pub(super) fn each(
        &self,
        mut show: impl FnMut(EntryAnswer) -> ControlFlow<()>,
    ) -> Vec<FileError> {
        let now = SystemTime::now();
        let mut refused = Vec::new();
        let mut enough = false;
        for source in self.sources.iter() {
            let files = source.files().unwrap_or_else(|error| {
                refused.push(error);
                Vec::new()
            });
            for file in files {
                let mut visitor = |line, found: Found<'_>| {
                    let place = FilePlace::new(&file.path, line);
                    let flow = match answer(&found, place, now) {
                        Some(entry) => show(entry),
                        None => ControlFlow::Continue(()),
                    };
                    enough = flow.is_break();
                    flow
                };
                if let Err(error) = visit(&file, self.reading(), &mut visitor) {
                    refused.push(error);
                }
                if enough {
                    return refused;
                }
            }
        }
        refused
    }

    /// The entries of these tokens, by id.
    pub(super) fn of(&self, tokens: &[TokenId]) -> HashMap<String, Vec<EntryAnswer>> {
        let wanted: HashSet<TokenId> = tokens.iter().copied().collect();
        let mut found = HashMap::<_, Vec<_>>::new();
        self.each(|entry| {
            if crate::state::from_hex(&entry.id).is_some_and(|id| wanted.contains(&TokenId(id))) {
                found.entry(entry.id.clone()).or_default().push(entry);
            }
            ControlFlow::Continue(())
        });
        found
    }
}

fn answer(found: &Found<'_>, place: FilePlace, now: SystemTime) -> Option<EntryAnswer> {
    let (id, action, expires, reason, source) = match found {
        Found::Token(entry, _) => (
            entry.identity.id,
            entry.action,
            entry.expires,
            entry.reason,
            entry.source,
        ),
        Found::Hashed(record, Said { reason, source }) => {
            (record.id, record.action, record.expires, *reason, *source)
        }
    };
    let (jwt, hash) = match found {
        Found::Token(_, claims) => (claims.map(|claims| claims.conditions.names()), None),
        Found::Hashed(record, _) => (None, Some(record.domain.into())),
    };
    if expires.is_past(now) {
        return None;
    }
    Some(EntryAnswer {
        id: id.to_string(),
        short: id.short().to_string(),
        action: action.into(),
        expires: expires.time().and_then(shown),
        reason: reason.map(ToOwned::to_owned),
        source: source.map(ToOwned::to_owned),
        added: None,
        file: Some(place),
        jwt,
        hash,
        seen: None,
    })
}

impl FilePlace {
    fn new(path: &Path, line: u64) -> Self {
        Self {
            path: path.display().to_string(),
            line,
        }
    }
}
