//! Where requests are answered: `access -> route -> keeper -> answer`.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{Method, Request as HttpRequest, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};

use super::{
    api::{
        AddRequest, AddedAnswer, CheckRequest, CheckedAnswer, Entries, EntryAnswer, EntryError,
        Identifying, NewEntry, Page, RemoveRequest, RemovedAnswer, SeenAnswer, StatusAnswer,
        TiersStatus,
    },
    body,
    counters::{ControlCounters, Counter},
    export,
    files::Files,
    refusal::{Refusal, Why, json, response},
    remote::Gate,
    upload,
};
use crate::{
    denylist::{ShortTokenId, TokenId},
    keeper::{ChangeError, Mode, Request},
    key::StoredKey,
    sightings::Sightings,
    sources::{MinLength, Source},
    state::from_hex,
    wiping::spawn_wiped,
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
pub(super) const LONGEST_PAGE: usize = 10_000;
const IMPORT: &str = "/v1/import";
const EXPORT: &str = "/v1/export";
const OPENAPI: &str = include_str!("openapi.json");

/// Asks the running tiers how they are.
pub type Questions = mpsc::Sender<oneshot::Sender<TiersStatus>>;

/// The body of an answer.
pub(super) type Answer = BoxBody<Bytes, Infallible>;

/// What is said of a list beside its lines.
#[derive(Clone, Copy)]
pub(super) struct Upload {
    /// Take placeholders and values of little entropy too.
    pub(super) force: bool,
    /// Refuse all where a line can't be listed, in place of leaving it out.
    pub(super) strict: bool,
    pub(super) mode: Mode,
}

/// The running parts that the API speaks for.
pub struct Backing {
    /// For the digests.
    pub key: StoredKey,
    /// Shorter tokens are refused, in bytes.
    pub min_token_length: MinLength,
    /// How long after its `exp` a JWT leaves by itself, where it does.
    pub jwt_expiry: Option<Duration>,
    /// The denylist files.
    pub sources: Vec<Source>,
    /// What was seen of tokens.
    pub sightings: Sightings,
    /// Who changes the list.
    pub keeper: mpsc::Sender<Request>,
    /// Who knows the tiers.
    pub tiers: Questions,
}

/// What requests are answered from.
pub(super) struct Desk {
    files: Files,
    /// Held by who reads the files again: that takes a processor.
    reader: Semaphore,
    sightings: Sightings,
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
    /// A desk whose answers come from the running parts.
    pub(super) fn new(backing: Backing) -> Self {
        Self {
            files: Files {
                sources: backing.sources.into(),
                key: Arc::new(backing.key),
                min_token_length: backing.min_token_length,
                jwt_expiry: backing.jwt_expiry,
            },
            reader: Semaphore::new(1),
            sightings: backing.sightings,
            keeper: backing.keeper,
            tiers: backing.tiers,
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
            // Who has sent its request and says that nothing more comes still waits for the answer.
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a control connection ended early");
        }
    }

    async fn reply(
        self: &Arc<Self>,
        request: HttpRequest<Incoming>,
        access: &Access,
    ) -> Response<Answer> {
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
        self: &Arc<Self>,
        request: HttpRequest<Incoming>,
        access: &Access,
    ) -> Result<Response<Answer>, Refusal> {
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
            (EXPORT, &Method::GET) => {
                let [files] = flags(head.uri.query(), [("files", true)])?;
                Ok(export::export(self, files))
            }
            ("/v1/check", &Method::POST) => json(&self.check(body::json(body).await?).await?),
            ("/v1/status", &Method::GET) => json(&self.status().await?),
            ("/v1/openapi.json", &Method::GET) => Ok(response(StatusCode::OK, OPENAPI)),
            (
                "/v1/entries" | IMPORT | EXPORT | "/v1/check" | "/v1/status" | "/v1/openapi.json",
                _,
            ) => Err(Refusal::Method),
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
        let targets = each(&request.entries, |named| self.identifying().named(named))?;
        drop(request);
        let removed = self.ask(|reply| Request::Remove(targets, reply)).await?;
        let entries = removed.into_iter().map(RemovedAnswer::from).collect();
        Ok(Entries { entries })
    }

    async fn check(&self, request: CheckRequest) -> Result<Entries<CheckedAnswer>, Refusal> {
        let targets = each(&request.tokens, |token| self.identifying().target(token))?;
        drop(request);
        let checked = self.ask(|reply| Request::Check(targets, reply)).await?;
        let in_files = checked.iter().filter(|one| one.in_files != Some(false));
        let in_files: Vec<_> = in_files.map(|checked| checked.id).collect();
        let files = self.in_files(in_files).await?;
        let mut entries: Vec<_> = checked.into_iter().map(CheckedAnswer::from).collect();
        let seen = self.seen(entries.iter().map(|entry| &*entry.short)).await;
        for (entry, seen) in entries.iter_mut().zip(seen) {
            entry.seen = seen;
            entry.found(files.get(&entry.id).map_or(&[][..], Vec::as_slice));
        }
        Ok(Entries { entries })
    }

    /// Where files list these tokens, by id.
    async fn in_files(
        &self,
        tokens: Vec<TokenId>,
    ) -> Result<HashMap<String, Vec<EntryAnswer>>, Refusal> {
        if tokens.is_empty() {
            return Ok(HashMap::new());
        }
        let _turn = self.reader.acquire().await;
        let files = self.files.clone();
        let found = spawn_wiped(move || files.of(&tokens)).await;
        found.map_err(|_panicked| Refusal::Silence)
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
        let mut entries: Vec<_> = page.into_iter().map(EntryAnswer::from).collect();
        self.sight(&mut entries).await;
        Ok(Page {
            entries,
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

    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    pub(super) fn min_token_length(&self) -> u64 {
        self.files.min_token_length.get()
    }

    pub(super) fn identifying(&self) -> Identifying<'_> {
        Identifying(self.files.reading())
    }

    /// Says of entries what was seen of their tokens.
    pub(super) async fn sight(&self, entries: &mut [EntryAnswer]) {
        let seen = self.seen(entries.iter().map(|entry| &*entry.short)).await;
        for (entry, seen) in entries.iter_mut().zip(seen) {
            entry.seen = seen;
        }
    }

    /// What was seen of tokens, by their short ids.
    async fn seen<'a>(&self, tokens: impl Iterator<Item = &'a str>) -> Vec<Option<SeenAnswer>> {
        let short = |text| ShortTokenId(from_hex(text).unwrap_or_default());
        let seen = self.sightings.of(tokens.map(short).collect()).await;
        seen.into_iter()
            .map(|seen| seen.map(SeenAnswer::from))
            .collect()
    }
}

fn mode(dry_run: bool) -> Mode {
    if dry_run { Mode::DryRun } else { Mode::Do }
}

/// What is said of a list.
fn uploaded(query: Option<&str>) -> Result<Upload, Refusal> {
    let known = ["force", "strict", "dry_run"].map(|name| (name, false));
    let [force, strict, dry_run] = flags(query, known)?;
    Ok(Upload {
        force,
        strict,
        mode: mode(dry_run),
    })
}

/// The values of parameters that are true or false; each with what it is where it isn't given.
fn flags<const N: usize>(
    query: Option<&str>,
    known: [(&'static str, bool); N],
) -> Result<[bool; N], Refusal> {
    let mut values = known.map(|(_, default)| default);
    for (name, text) in query.into_iter().flat_map(parameters) {
        let flag = known.iter().position(|(known, _)| *known == name);
        let flag = flag.and_then(|at| values.get_mut(at));
        let flag = flag.ok_or(Refusal::Parameter(
            "is not known; /v1/openapi.json has those of each path",
        ))?;
        let value = text.parse();
        *flag = value.map_err(|_no_bool| Refusal::Parameter("takes true or false"))?;
    }
    Ok(values)
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
