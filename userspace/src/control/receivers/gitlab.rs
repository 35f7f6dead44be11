//! GitLab's Token Revocation API: it asks what can be revoked, and sends what it found.

use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use serde::{Deserialize, Serialize};

use super::super::{
    body,
    counters::Counter,
    credential::Credentials,
    desk::{Answer, Desk},
    refusal::{Refusal, json},
    remote::RemoteError,
    settings::GitlabSettings,
    watched::Watched,
};
use crate::import::{Finding, Secret};

pub(super) const TYPES: &str = "/v1/revocable_token_types";
pub(super) const REVOKE: &str = "/v1/revoke_tokens";

/// The receiver for GitLab.
pub(in crate::control) struct Gitlab {
    settings: GitlabSettings,
    credentials: Watched<Credentials>,
}

#[derive(Serialize)]
struct Types<'a> {
    types: &'a [String],
}

/// One finding; a later version may say more of it.
#[derive(Deserialize)]
struct Revocation {
    #[serde(rename = "type")]
    kind: String,
    token: Secret,
    location: Option<String>,
}

impl Gitlab {
    pub(super) fn new(settings: &GitlabSettings) -> Result<Self, RemoteError> {
        Ok(Self {
            credentials: Watched::new(settings.credential.clone(), Credentials::read)?,
            settings: settings.clone(),
        })
    }

    pub(super) fn refresh(&self) {
        self.credentials.refresh();
    }

    /// GitLab sends its credential as it is; with a scheme before it, it counts too.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let shown = headers.get(&self.settings.header);
        let shown = shown.and_then(|value| value.to_str().ok()).map(str::trim);
        let known = shown.is_some_and(|shown| {
            let word = shown.rsplit(' ').next().unwrap_or_default();
            self.credentials.get().has(word)
        });
        known.then_some(()).ok_or(Refusal::Credential)
    }

    pub(super) fn types(&self) -> Result<Response<Answer>, Refusal> {
        json(&Types {
            types: &self.settings.types,
        })
    }

    pub(super) async fn revoke(
        &self,
        desk: &Desk,
        body: &[u8],
    ) -> Result<Response<Answer>, Refusal> {
        let revocations: Vec<Revocation> = body::parse(body)?;
        let types = &self.settings.types;
        if let Some(index) = revocations.iter().position(|r| !types.contains(&r.kind)) {
            return Err(Refusal::TokenType { index });
        }
        let finding = |revocation: Revocation| Finding {
            rule: revocation.kind,
            place: revocation.location.unwrap_or_default(),
            ..Finding::new("gitlab", Some(revocation.token))
        };
        let findings = revocations.into_iter().map(finding).collect();
        super::list(desk, findings, Counter::GitlabTokens).await?;
        let mut accepted = Response::new(Empty::new().boxed());
        *accepted.status_mut() = StatusCode::NO_CONTENT;
        Ok(accepted)
    }
}
