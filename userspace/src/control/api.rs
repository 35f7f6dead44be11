//! What is said over the control socket: the JSON of requests and answers, as `openapi.json` describes it.

use std::{collections::BTreeMap, net::IpAddr, time::SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokenblock_ebpf::digest::Domain;
use zeroize::Zeroizing;

use crate::{
    denylist::{Action, Identity, TokenId, Unlistable, identify},
    import::{Unfit, guard},
    keeper::{Checked, FileStatus, Imported, ListStatus, Mode, Removed, Target},
    sightings::Sighting,
    sources::{self, LineError, Reading},
    state::{Addition, Outcome, StoredEntry, Subject},
};

/// Longest reason or source in bytes.
const LONGEST_TEXT: usize = 1024;

/// `POST /v1/entries`.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AddRequest {
    pub(super) entries: Vec<NewEntry>,
    /// Take placeholders and values of little entropy too.
    #[serde(default)]
    pub(super) force: bool,
    /// Only say what would be done.
    #[serde(default)]
    pub(super) dry_run: bool,
}

/// One entry to be added. Without `Debug` on purpose.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewEntry {
    pub(super) token: Zeroizing<String>,
    /// Of a hash, as what the token was read.
    pub(super) kind: Option<KindName>,
    #[serde(default)]
    pub(super) action: ActionName,
    /// RFC 3339, or a duration from now.
    pub(super) expires: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) source: Option<String>,
}

/// `DELETE /v1/entries`.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoveRequest {
    pub(super) entries: Vec<Named>,
}

/// A token, or the id of one.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Named {
    Token(Zeroizing<String>),
    Id(String),
}

/// `POST /v1/check`.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckRequest {
    pub(super) tokens: Vec<Zeroizing<String>>,
}

/// [`Domain`], as it is called.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum KindName {
    /// The whole token was hashed
    Exact,
    /// The first two segments of a JWT were, and the dot between them
    Jws,
}

/// [`Action`], as it is called.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum ActionName {
    /// Requests that bear the token are blocked
    #[default]
    Block,
    /// They pass and are reported
    Alert,
}

/// What was hashed of the token of an entry that is known by its SHA-256 alone.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum HashedName {
    /// All of it, or the signed part of a JWT: that isn't known.
    Either,
    /// [`KindName::Exact`].
    Exact,
    /// [`KindName::Jws`].
    Jws,
}

impl HashedName {
    /// As it stands in `kind=`, where it does.
    pub(super) fn kind(self) -> Option<KindName> {
        match self {
            Self::Either => None,
            Self::Exact => Some(KindName::Exact),
            Self::Jws => Some(KindName::Jws),
        }
    }
}

impl From<Option<Domain>> for HashedName {
    fn from(read: Option<Domain>) -> Self {
        match read {
            None => Self::Either,
            Some(Domain::Exact) => Self::Exact,
            Some(Domain::Jws) => Self::Jws,
        }
    }
}

impl KindName {
    /// As it is written.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Jws => "jws",
        }
    }
}

impl ActionName {
    /// As it is written.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Alert => "alert",
        }
    }
}

/// Why one entry of a request, and with it the request, is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EntryError {
    #[error(transparent)]
    Token(#[from] Unlistable),
    #[error(transparent)]
    Line(#[from] LineError),
    #[error(
        "{0}: others may use it too, and would be blocked; it is taken with --force (`force` in the API)"
    )]
    Guarded(#[from] Unfit),
    #[error(
        "expires takes a time such as 2027-01-31T12:00:00Z or a duration such as 90d or 12h, still to come"
    )]
    Expires,
    #[error(
        "its own exp has passed, so it would leave at once (--jwt-expiry); expires says when it leaves all the same"
    )]
    Ended,
    #[error("{0} is longer than {LONGEST_TEXT} bytes")]
    TooLong(&'static str),
    #[error("{0} has a control character or a double quote in it")]
    Character(&'static str),
    #[error("{0} holds the token itself")]
    HoldsToken(&'static str),
    #[error("an id is 64 hexadecimal digits")]
    Id,
}

/// What tokens are identified with.
#[derive(Clone, Copy)]
pub(super) struct Identifying<'a>(pub(super) Reading<'a>);

impl Identifying<'_> {
    /// Of a token, whatever it begins with.
    pub(super) fn text(self, token: &str) -> Result<Identity, EntryError> {
        Ok(identify(self.0.key, self.0.min_token_length, token)?)
    }

    /// What a token means, or conditions or a hash that stand in its place.
    fn subject(
        self,
        token: &str,
        kind: Option<KindName>,
    ) -> Result<(Identity, Subject), EntryError> {
        let kind = kind.map(Domain::from);
        if let Some(id) = sources::hashed(token) {
            let identity = StoredEntry::identity_of_hash(id?, kind);
            return Ok((identity, Subject::Hash(kind)));
        }
        if kind.is_some() {
            return Err(LineError::KindOfToken.into());
        }
        if let Some(claims) = sources::claims(self.0, token) {
            let (identity, claims) = claims?;
            return Ok((identity, Subject::Claims(Box::new(claims.conditions))));
        }
        Ok((self.text(token)?, Subject::Token))
    }

    /// What is meant by a token, or by what stands in its place.
    pub(super) fn target(self, token: &str) -> Result<Target, EntryError> {
        let (identity, subject) = self.subject(token, None)?;
        Ok(match subject {
            Subject::Token | Subject::Claims(_) => Target::Token(identity),
            Subject::Hash(_) => Target::Id(identity.id),
        })
    }

    pub(super) fn named(self, named: &Named) -> Result<Target, EntryError> {
        match named {
            Named::Token(token) => self.target(token),
            Named::Id(id) => {
                let id = crate::state::from_hex(id).ok_or(EntryError::Id)?;
                Ok(Target::Id(TokenId(id)))
            }
        }
    }

    pub(super) fn entry(
        self,
        new: &NewEntry,
        now: SystemTime,
        force: bool,
    ) -> Result<StoredEntry, EntryError> {
        let (identity, subject) = self.subject(&new.token, new.kind)?;
        let token = (subject == Subject::Token).then(|| new.token.trim_ascii());
        if let Some(token) = token.filter(|_| !force) {
            guard(token.trim_matches('"'))?;
        }
        let said = new.expires.as_deref();
        let said = said.map(|text| sources::expires(text, now));
        let said = said.transpose().map_err(|_no_time| EntryError::Expires)?;
        let expires = self.0.expires(&identity, token.unwrap_or_default(), said);
        if expires.is_past(now) {
            return Err(match said {
                Some(_) => EntryError::Expires,
                None => EntryError::Ended,
            });
        }
        Ok(StoredEntry {
            identity,
            action: new.action.into(),
            expires,
            reason: harmless_text("reason", new.reason.as_deref(), token)?,
            source: harmless_text("source", new.source.as_deref(), token)?,
            added: to_the_second(now),
            subject,
        })
    }
}

/// A reason or a source that can be kept.
///
/// # Errors
/// Where it is too long, can't stand in a denylist file, or holds the token.
pub(super) fn harmless_text(
    name: &'static str,
    given: Option<&str>,
    token: Option<&str>,
) -> Result<Option<String>, EntryError> {
    let Some(given) = given.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    if given.len() > LONGEST_TEXT {
        return Err(EntryError::TooLong(name));
    }
    if given.contains(|c: char| c.is_control() || c == '"') {
        return Err(EntryError::Character(name));
    }
    if token.is_some_and(|token| given.contains(token.trim_ascii().trim_matches('"'))) {
        return Err(EntryError::HoldsToken(name));
    }
    Ok(Some(given.to_owned()))
}

/// Without the fraction of a second.
pub(super) fn to_the_second(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let fraction = since.map_or(0, |since| since.subsec_nanos());
    time - std::time::Duration::from_nanos(fraction.into())
}

/// RFC 3339, in UTC.
pub(super) fn shown(time: SystemTime) -> Option<String> {
    Timestamp::try_from(time).ok().map(|time| time.to_string())
}

/// An entry.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct EntryAnswer {
    pub(super) id: String,
    pub(super) short: String,
    pub(super) action: ActionName,
    pub(super) expires: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) source: Option<String>,
    /// When it was added, if it was.
    pub(super) added: Option<String>,
    /// Where it stands, if it was not.
    pub(super) file: Option<FilePlace>,
    /// What JWTs must claim, by name, where it is no entry of one token.
    pub(super) jwt: Option<String>,
    /// What was hashed, where its SHA-256 is all that is known of the token.
    pub(super) hash: Option<HashedName>,
    /// What was seen of the token.
    pub(super) seen: Option<SeenAnswer>,
}

/// A line of a denylist file.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct FilePlace {
    pub(super) path: String,
    /// Counted from 1.
    pub(super) line: u64,
}

/// What was seen of a token.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct SeenAnswer {
    /// Requests that bore it.
    pub(super) hits: u64,
    /// Those that were blocked.
    pub(super) blocked: u64,
    pub(super) first: Option<String>,
    pub(super) last: Option<String>,
    /// The last first.
    pub(super) sources: Vec<SeenFrom>,
}

/// Where a token was seen from.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct SeenFrom {
    pub(super) address: IpAddr,
    pub(super) last: Option<String>,
}

impl From<Sighting> for SeenAnswer {
    fn from(seen: Sighting) -> Self {
        let from = |(address, last)| SeenFrom {
            address,
            last: shown(to_the_second(last)),
        };
        Self {
            hits: seen.hits,
            blocked: seen.blocked,
            first: shown(to_the_second(seen.first)),
            last: shown(to_the_second(seen.last)),
            sources: seen.sources.into_iter().map(from).collect(),
        }
    }
}

/// What an addition did.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum OutcomeName {
    Added,
    Updated,
    Unchanged,
}

/// An entry after an addition.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct AddedAnswer {
    pub(super) outcome: OutcomeName,
    #[serde(flatten)]
    pub(super) entry: EntryAnswer,
}

/// What a removal did.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct RemovedAnswer {
    pub(super) id: String,
    pub(super) removed: bool,
    pub(super) in_files: bool,
}

/// `POST /v1/import`.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct ImportAnswer {
    /// Whether nothing was done.
    pub(super) dry_run: bool,
    pub(super) added: usize,
    pub(super) updated: usize,
    pub(super) unchanged: usize,
    /// How many lines are left out, by reason.
    pub(super) refused: BTreeMap<String, u64>,
    /// The first of them.
    pub(super) lines: Vec<Noted>,
}

/// A line that is left out.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Noted {
    /// Counted from 1.
    pub(super) line: u64,
    pub(super) why: String,
}

impl ImportAnswer {
    pub(super) fn new(
        mode: Mode,
        imported: Imported,
        refused: BTreeMap<String, u64>,
        lines: Vec<Noted>,
    ) -> Self {
        Self {
            dry_run: mode == Mode::DryRun,
            added: imported.added,
            updated: imported.updated,
            unchanged: imported.unchanged,
            refused,
            lines,
        }
    }
}

/// What is in force of a token.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct CheckedAnswer {
    pub(super) id: String,
    pub(super) short: String,
    pub(super) listed: bool,
    pub(super) action: Option<ActionName>,
    pub(super) expires: Option<String>,
    pub(super) in_files: bool,
    pub(super) addition: Option<EntryAnswer>,
    /// The lines of files that list it.
    pub(super) files: Vec<EntryAnswer>,
    /// What was seen of it, listed or not.
    pub(super) seen: Option<SeenAnswer>,
}

/// The answer to all but lists and states.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Entries<T> {
    pub(super) entries: Vec<T>,
}

/// A line of `GET /v1/export`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Listed {
    Error { error: String },
    Entry(Box<EntryAnswer>),
}

/// `GET /v1/entries`.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Page {
    pub(super) entries: Vec<EntryAnswer>,
    /// For the parameter `after` of the next page.
    pub(super) next: Option<String>,
}

/// What the running tiers say.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct TiersStatus {
    /// The kernel tier, where there is one.
    pub kernel: Option<KernelStatus>,
    /// The proxy tier, where there is one.
    pub proxy: Option<ProxyStatus>,
    /// All counters, by part and name.
    pub counters: Value,
}

/// Where the kernel tier enforces.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct KernelStatus {
    /// Interfaces that programs are attached to.
    pub interfaces: Vec<String>,
    /// The servers' ports.
    pub ports: String,
    /// The folder in which the programs outlive the process, where they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin_dir: Option<String>,
}

/// Where the proxy tier enforces.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ProxyStatus {
    /// The address that it listens on.
    pub address: String,
}

/// `GET /v1/status`.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct StatusAnswer {
    /// Whether all that is configured is enforced.
    pub(super) in_force: bool,
    pub(super) version: String,
    pub(super) uptime_seconds: u64,
    pub(super) tiers: TiersStatus,
    pub(super) entries: EntryCounts,
    /// Why the last change by request could not be stored.
    pub(super) store_error: Option<String>,
    pub(super) last_reload: Reload,
}

/// How many entries there are.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct EntryCounts {
    pub(super) in_force: usize,
    pub(super) added: usize,
    /// Those that name claims of JWTs; the proxy tier alone enforces them.
    pub(super) proxy_only: usize,
    pub(super) files: Vec<FileCount>,
}

/// A file and its entries; none where it was refused.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct FileCount {
    pub(super) path: String,
    pub(super) entries: Option<u64>,
}

/// The last time that the files were read.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Reload {
    pub(super) at: Option<String>,
    pub(super) error: Option<String>,
}

/// Every answer that is no success.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct ErrorAnswer {
    pub(super) error: String,
    /// Which entry of the request is meant, counted from 0.
    pub(super) index: Option<usize>,
}

impl StatusAnswer {
    pub(super) fn new(tiers: TiersStatus, list: ListStatus, uptime_seconds: u64) -> Self {
        let attached = tiers.kernel.as_ref();
        let attached = attached.is_none_or(|kernel| !kernel.interfaces.is_empty());
        let file = |file: FileStatus| FileCount {
            path: file.path.display().to_string(),
            entries: file.entries,
        };
        Self {
            in_force: attached && list.level,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds,
            tiers,
            entries: EntryCounts {
                in_force: list.in_force,
                added: list.added,
                proxy_only: list.claims,
                files: list.files.into_iter().map(file).collect(),
            },
            store_error: list.failure,
            last_reload: Reload {
                at: shown(list.read),
                error: list.refused,
            },
        }
    }
}

impl CheckedAnswer {
    /// Takes in the lines of files that list it. Of an id nobody but the files may have known that.
    pub(super) fn found(&mut self, files: &[EntryAnswer]) {
        self.files = files.to_vec();
        if self.files.is_empty() {
            return;
        }
        self.in_files = true;
        if !self.listed {
            let blocks = files.iter().any(|entry| entry.action == ActionName::Block);
            self.action = Some(if blocks {
                ActionName::Block
            } else {
                ActionName::Alert
            });
            // The latest; as text they are in the order of time.
            let ends = files.iter().map(|entry| entry.expires.clone());
            self.expires = ends
                .collect::<Option<Vec<_>>>()
                .and_then(|all| all.into_iter().max());
            self.listed = true;
        }
    }
}

impl From<KindName> for Domain {
    fn from(name: KindName) -> Self {
        match name {
            KindName::Exact => Self::Exact,
            KindName::Jws => Self::Jws,
        }
    }
}

impl From<ActionName> for Action {
    fn from(name: ActionName) -> Self {
        match name {
            ActionName::Block => Self::Block,
            ActionName::Alert => Self::Alert,
        }
    }
}

impl From<Action> for ActionName {
    fn from(action: Action) -> Self {
        match action {
            Action::Block => Self::Block,
            Action::Alert => Self::Alert,
        }
    }
}

impl From<StoredEntry> for EntryAnswer {
    fn from(entry: StoredEntry) -> Self {
        Self {
            id: entry.identity.id.to_string(),
            short: entry.identity.id.short().to_string(),
            action: entry.action.into(),
            expires: entry.expires.time().and_then(shown),
            reason: entry.reason,
            source: entry.source,
            added: shown(entry.added),
            file: None,
            hash: match &entry.subject {
                Subject::Hash(read) => Some((*read).into()),
                Subject::Token | Subject::Claims(_) => None,
            },
            jwt: match entry.subject {
                Subject::Claims(conditions) => Some(conditions.names()),
                Subject::Token | Subject::Hash(_) => None,
            },
            seen: None,
        }
    }
}

impl From<Addition> for AddedAnswer {
    fn from(addition: Addition) -> Self {
        Self {
            outcome: match addition.outcome {
                Outcome::Added => OutcomeName::Added,
                Outcome::Updated => OutcomeName::Updated,
                Outcome::Unchanged => OutcomeName::Unchanged,
            },
            entry: addition.entry.into(),
        }
    }
}

impl From<Removed> for RemovedAnswer {
    fn from(removed: Removed) -> Self {
        Self {
            id: removed.id.to_string(),
            removed: removed.removed,
            in_files: removed.in_files,
        }
    }
}

impl From<Checked> for CheckedAnswer {
    fn from(checked: Checked) -> Self {
        let in_force = checked.in_force;
        Self {
            id: checked.id.to_string(),
            short: checked.id.short().to_string(),
            listed: in_force.is_some(),
            action: in_force.map(|(action, _)| action.into()),
            expires: in_force.and_then(|(_, expires)| expires.time().and_then(shown)),
            in_files: checked.in_files.unwrap_or(false),
            addition: checked.added.map(EntryAnswer::from),
            files: Vec::new(),
            seen: None,
        }
    }
}
