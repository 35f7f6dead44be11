//! Where requests are answered: `access -> route -> keeper -> answer`.

use std::{
    convert::Infallible,
    io,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{Method, Request as HttpRequest, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    api::{
        AddRequest, AddedAnswer, CheckRequest, CheckedAnswer, Entries, EntryAnswer, EntryError,
        Identifying, NewEntry, Page, RemoveRequest, RemovedAnswer, StatusAnswer, TiersStatus,
    },
    body,
    counters::{ControlCounters, Counter},
    refusal::{Refusal, Why, json, response},
    remote::Gate,
    upload,
};
use crate::{
    keeper::{ChangeError, Mode, Request},
    key::StoredKey,
    sources::Reading,
};

/// Longest time for the head of a request, and between two requests.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// Longest time for an answer; a reload of a long list comes first.
const ANSWER_PATIENCE: Duration = Duration::from_mins(1);
/// The same for a list of any length.
const IMPORT_PATIENCE: Duration = Duration::from_mins(15);
/// Longest time for the running tiers to say how they are.
const TIERS_PATIENCE: Duration = Duration::from_secs(2);
/// Until the next connection is taken, after one could not be.
const PAUSE: Duration = Duration::from_millis(100);
/// Entries of a page, unless told, and at most.
const PAGE: usize = 100;
const LONGEST_PAGE: usize = 10_000;
const IMPORT: &str = "/v1/import";
const OPENAPI: &str = include_str!("openapi.json");

/// Asks the running tiers how they are.
pub type Questions = mpsc::Sender<oneshot::Sender<TiersStatus>>;

/// What is said of a list beside its lines.
#[derive(Clone, Copy)]
pub(super) struct Upload {
    /// Take placeholders and values of little entropy too.
    pub(super) force: bool,
    pub(super) mode: Mode,
}

/// What requests are answered from.
pub(super) struct Desk {
    key: Arc<StoredKey>,
    min_token_length: u64,
    jwt_expiry: Option<Duration>,
    keeper: mpsc::Sender<Request>,
    tiers: Questions,
    started: Instant,
    counters: ControlCounters,
}

/// How a request came, and what lets it in.
pub(super) enum Access {
    /// Over the socket, from a user who may, or may not, use it.
    Local(bool),
    /// Over TCP.
    Remote(Arc<Gate>),
}

impl Desk {
    /// A desk whose answers come from the keeper and the running tiers.
    pub(super) fn new(
        key: StoredKey,
        min_token_length: u64,
        jwt_expiry: Option<Duration>,
        keeper: mpsc::Sender<Request>,
        tiers: Questions,
    ) -> Self {
        Self {
            key: Arc::new(key),
            min_token_length,
            jwt_expiry,
            keeper,
            tiers,
            started: Instant::now(),
            counters: ControlCounters::new(),
        }
    }

    pub(super) fn counters(&self) -> &ControlCounters {
        &self.counters
    }

    /// Counts a connection that could not be taken, and waits before the next is tried.
    pub(super) async fn pause_after(&self, error: &io::Error) {
        self.counters.add(Counter::AcceptFailed);
        tracing::warn!(%error, "a control connection can't be taken");
        tokio::time::sleep(PAUSE).await;
    }

    /// Answers all requests of a connection.
    pub(super) async fn converse(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        access: Access,
    ) {
        let access = Arc::new(access);
        let service = service_fn(move |request| {
            let (desk, access) = (Arc::clone(&self), Arc::clone(&access));
            async move { Ok::<_, Infallible>(desk.reply(request, &access).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_PATIENCE)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a control connection ended early");
        }
    }

    async fn reply(
        &self,
        request: HttpRequest<Incoming>,
        access: &Access,
    ) -> Response<Full<Bytes>> {
        self.counters.add(Counter::Requests);
        let patience = match request.uri().path() {
            IMPORT => IMPORT_PATIENCE,
            _ => ANSWER_PATIENCE,
        };
        let answer = timeout(patience, self.answer(request, access)).await;
        answer
            .unwrap_or(Err(Refusal::Silence))
            .unwrap_or_else(|refusal| {
                self.counters.refuse(Why::from(&refusal));
                refusal.response()
            })
    }

    async fn answer(
        &self,
        request: HttpRequest<Incoming>,
        access: &Access,
    ) -> Result<Response<Full<Bytes>>, Refusal> {
        let (head, body) = request.into_parts();
        match access {
            Access::Local(true) => {}
            Access::Local(false) => return Err(Refusal::Peer),
            Access::Remote(gate) => match gate.receivers.at(head.uri.path()) {
                Some(receiver) => {
                    let receivers = &gate.receivers;
                    return receivers.answer(receiver, self, &head, body).await;
                }
                None => gate.check(&head.headers)?,
            },
        }
        match (head.uri.path(), &head.method) {
            ("/v1/entries", &Method::POST) => json(&self.add(body::json(body).await?).await?),
            ("/v1/entries", &Method::DELETE) => json(&self.remove(body::json(body).await?).await?),
            ("/v1/entries", &Method::GET) => json(&self.list(head.uri.query()).await?),
            (IMPORT, &Method::POST) => {
                let given = uploaded(head.uri.query())?;
                json(&upload::import(self, given, body).await?)
            }
            ("/v1/check", &Method::POST) => json(&self.check(body::json(body).await?).await?),
            ("/v1/status", &Method::GET) => json(&self.status().await?),
            ("/v1/openapi.json", &Method::GET) => Ok(response(StatusCode::OK, OPENAPI)),
            ("/v1/entries" | IMPORT | "/v1/check" | "/v1/status" | "/v1/openapi.json", _) => {
                Err(Refusal::Method)
            }
            _ => Err(Refusal::NotFound),
        }
    }

    async fn add(&self, request: AddRequest) -> Result<Entries<AddedAnswer>, Refusal> {
        let now = SystemTime::now();
        let identifying = self.identifying();
        let entry = |new: &NewEntry| identifying.entry(new, now, request.force);
        let entries = each(&request.entries, entry)?;
        let mode = mode(request.dry_run);
        drop(request);
        let added = self.ask(|reply| Request::Add(entries, mode, reply)).await?;
        let entries = added.into_iter().map(AddedAnswer::from).collect();
        Ok(Entries { entries })
    }

    async fn remove(&self, request: RemoveRequest) -> Result<Entries<RemovedAnswer>, Refusal> {
        let targets = each(&request.entries, |named| self.identifying().target(named))?;
        drop(request);
        let removed = self.ask(|reply| Request::Remove(targets, reply)).await?;
        let entries = removed.into_iter().map(RemovedAnswer::from).collect();
        Ok(Entries { entries })
    }

    async fn check(&self, request: CheckRequest) -> Result<Entries<CheckedAnswer>, Refusal> {
        let tokens = each(&request.tokens, |token| self.identifying().token(token))?;
        drop(request);
        let checked = self.ask(|reply| Request::Check(tokens, reply)).await?;
        let entries = checked.into_iter().map(CheckedAnswer::from).collect();
        Ok(Entries { entries })
    }

    async fn list(&self, query: Option<&str>) -> Result<Page, Refusal> {
        let (mut after, mut limit) = (None, PAGE);
        for (name, value) in query.into_iter().flat_map(parameters) {
            match name {
                "after" => {
                    let key = value.parse();
                    after = Some(key.map_err(|_no_key| {
                        Refusal::Parameter("after is the `next` of another page")
                    })?);
                }
                "limit" => {
                    let number = value.parse().ok();
                    let number = number.filter(|n| (1..=LONGEST_PAGE).contains(n));
                    limit = number.ok_or(Refusal::Parameter("limit is from 1 to 10000"))?;
                }
                _ => return Err(Refusal::Parameter("is none of after and limit")),
            }
        }
        let (page, next) = self.ask(|r| Request::List(after, limit, r)).await?;
        Ok(Page {
            entries: page.into_iter().map(EntryAnswer::from).collect(),
            next: next.map(|key| key.to_string()),
        })
    }

    async fn status(&self) -> Result<StatusAnswer, Refusal> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.tiers.send(reply).await.ok()?;
            answer.await.ok()
        };
        let tiers = timeout(TIERS_PATIENCE, asked).await.ok().flatten();
        let tiers = tiers.ok_or(Refusal::Silence)?;
        let list = self.ask(Request::Status).await?;
        let uptime = self.started.elapsed().as_secs();
        Ok(StatusAnswer::new(tiers, list, uptime))
    }

    /// Asks the keeper.
    pub(super) async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, ChangeError>>) -> Request,
    ) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        let sent = self.keeper.send(request(reply)).await;
        sent.map_err(|_keeper_ended| Refusal::Silence)?;
        let answer = answer.await.map_err(|_keeper_ended| Refusal::Silence)?;
        Ok(answer?)
    }

    pub(super) fn key(&self) -> Arc<StoredKey> {
        Arc::clone(&self.key)
    }

    pub(super) fn jwt_expiry(&self) -> Option<Duration> {
        self.jwt_expiry
    }

    pub(super) fn min_token_length(&self) -> u64 {
        self.min_token_length
    }

    pub(super) fn identifying(&self) -> Identifying<'_> {
        Identifying(Reading {
            key: self.key.get(),
            min_token_length: self.min_token_length,
            jwt_expiry: self.jwt_expiry,
        })
    }
}

fn mode(dry_run: bool) -> Mode {
    if dry_run { Mode::DryRun } else { Mode::Do }
}

/// What is said of a list.
fn uploaded(query: Option<&str>) -> Result<Upload, Refusal> {
    let (mut force, mut dry_run) = (false, false);
    for (name, value) in query.into_iter().flat_map(parameters) {
        let flag = match name {
            "force" => &mut force,
            "dry_run" => &mut dry_run,
            _ => return Err(Refusal::Parameter("is none of force and dry_run")),
        };
        let value = value.parse();
        *flag = value.map_err(|_no_bool| Refusal::Parameter("takes true or false"))?;
    }
    Ok(Upload {
        force,
        mode: mode(dry_run),
    })
}

fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// All of a request's entries, or the first that is wrong.
fn each<T, U>(
    entries: &[T],
    check: impl Fn(&T) -> Result<U, EntryError>,
) -> Result<Vec<U>, Refusal> {
    let checked = |(index, entry)| check(entry).map_err(|error| Refusal::Entry { index, error });
    entries.iter().enumerate().map(checked).collect()
}
