//! Leaks that finders send by themselves: `gate -> body -> plan -> keeper`.
//!
//! Served by TCP only, each where its setting is given. What can't be listed is counted and left out; the rest of
//! the same request is listed.

mod github;
mod gitlab;

use std::time::SystemTime;

use http::{Method, Response, request::Parts};
use hyper::body::Incoming;
use tokio::sync::{Semaphore, SemaphorePermit};

pub(super) use self::{github::Github, gitlab::Gitlab};
use super::{
    api::{EntryError, to_the_second},
    body::{self, BodyError},
    counters::Counter,
    desk::{Answer, Desk},
    refusal::Refusal,
    remote::RemoteError,
    settings::RemoteSettings,
};
use crate::{
    denylist::Action,
    import::{Addition, Finding, Plan},
    keeper::{Mode, Request},
    sources::writable,
    state::{StoredEntry, Subject},
};

/// Requests that are worked on at once; senders try again later.
const AT_ONCE: usize = 4;

/// The receivers that are switched on.
pub(super) struct Receivers {
    gitlab: Option<Gitlab>,
    github: Option<Github>,
    room: Semaphore,
}

impl Receivers {
    /// Reads their files.
    ///
    /// # Errors
    /// Where one can't be used.
    pub(super) fn new(settings: &RemoteSettings) -> Result<Self, RemoteError> {
        let (gitlab, github) = (settings.gitlab.as_ref(), settings.github_keys.clone());
        Ok(Self {
            gitlab: gitlab.map(Gitlab::new).transpose()?,
            github: github.map(Github::new).transpose()?,
            room: Semaphore::new(AT_ONCE),
        })
    }

    /// Reads the files again that have changed.
    pub(super) fn refresh(&self) {
        if let Some(gitlab) = &self.gitlab {
            gitlab.refresh();
        }
        if let Some(github) = &self.github {
            github.refresh();
        }
    }

    /// The receiver that this path belongs to.
    pub(super) fn at(&self, path: &str) -> Option<Receiver<'_>> {
        match path {
            gitlab::TYPES | gitlab::REVOKE => self.gitlab.as_ref().map(Receiver::Gitlab),
            github::PATH => self.github.as_ref().map(Receiver::Github),
            _ => None,
        }
    }

    fn room(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        self.room.try_acquire().map_err(|_full| Refusal::Busy)
    }

    /// Answers a request to one of them.
    ///
    /// # Errors
    /// Where it isn't from who it should be, is malformed, or can't be done now.
    pub(super) async fn answer(
        &self,
        receiver: Receiver<'_>,
        desk: &Desk,
        head: &Parts,
        body: Incoming,
    ) -> Result<Response<Answer>, Refusal> {
        match receiver {
            Receiver::Gitlab(gitlab) => {
                gitlab.check(&head.headers)?;
                match (head.uri.path(), &head.method) {
                    (gitlab::TYPES, &Method::GET) => gitlab.types(),
                    (gitlab::REVOKE, &Method::POST) => {
                        let _room = self.room()?;
                        gitlab.revoke(desk, &body::read(body).await?).await
                    }
                    _ => Err(Refusal::Method),
                }
            }
            Receiver::Github(_) if head.method != Method::POST => Err(Refusal::Method),
            Receiver::Github(github) => {
                let _room = self.room()?;
                let body = body::read(body).await?;
                github.check(&head.headers, &body)?;
                github.leaked(desk, &body).await
            }
        }
    }
}

/// One of the receivers.
pub(super) enum Receiver<'a> {
    Gitlab(&'a Gitlab),
    Github(&'a Github),
}

/// Lists what can be listed, and says what of it that was.
async fn list(desk: &Desk, findings: Vec<Finding>, counter: Counter) -> Result<Plan, Refusal> {
    let plan = Plan::of(findings, desk.min_token_length(), false);
    let unfit = plan.refusals.len();
    desk.counters().add_many(Counter::ReceivedUnfit, unfit);
    for (why, count) in plan.refused() {
        tracing::warn!("{count} reported tokens are not listed: {why}");
    }
    let now = SystemTime::now();
    let identifying = desk.identifying();
    let entry = |addition: &Addition| {
        let text = |text: &str| Some(writable(text).into_owned()).filter(|text| !text.is_empty());
        // Whatever it looks like, it is a token.
        let identity = identifying.text(&addition.secret)?;
        Ok(StoredEntry {
            identity,
            action: Action::Block,
            expires: identifying.0.expires(&identity, &addition.secret, None),
            reason: addition.reason().as_deref().and_then(text),
            source: text(&addition.tools.join(",")),
            added: to_the_second(now),
            subject: Subject::Token,
        })
    };
    let entries: Vec<_> = plan
        .additions
        .iter()
        .map(entry)
        .collect::<Result<_, EntryError>>()
        // They were identified before.
        .map_err(|error| BodyError::Malformed(error.to_string()))?;
    let reported = entries.len();
    let entries: Vec<_> = entries
        .into_iter()
        .filter(|entry| !entry.expires.is_past(now))
        .collect();
    let ended = reported - entries.len();
    desk.counters().add_many(Counter::ReceivedUnfit, ended);
    if entries.is_empty() {
        return Ok(plan);
    }
    let added = desk
        .ask(|reply| Request::Add(entries, Mode::Do, reply))
        .await?;
    desk.counters().add_many(counter, added.len());
    tracing::info!("{} reported tokens are listed", added.len());
    Ok(plan)
}
