//! The server's end: `accept -> peer -> route -> keeper -> answer`.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{Method, Request as HttpRequest, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{
    net::UnixStream,
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};

use super::{
    api::{
        AddRequest, AddedAnswer, CheckRequest, CheckedAnswer, Entries, EntryAnswer, EntryError,
        ErrorAnswer, Identifying, Page, RemoveRequest, RemovedAnswer, StatusAnswer, TiersStatus,
    },
    body::{self, BodyError},
    peer,
    settings::ControlSettings,
    socket::{Socket, SocketError},
};
use crate::{
    keeper::{ChangeError, Request},
    key::StoredKey,
};

/// Connections at once; more wait.
const CONNECTIONS: usize = 32;
/// Longest time for the head of a request, and between two requests.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// Longest time for an answer; a reload of a long list comes first.
const ANSWER_PATIENCE: Duration = Duration::from_mins(1);
/// Longest time for the running tiers to say how they are.
const TIERS_PATIENCE: Duration = Duration::from_secs(2);
/// Entries of a page, unless told, and at most.
const PAGE: usize = 100;
const LONGEST_PAGE: usize = 10_000;
const OPENAPI: &str = include_str!("openapi.json");

/// Asks the running tiers how they are.
pub type Questions = mpsc::Sender<oneshot::Sender<TiersStatus>>;

/// The control socket, listening; [`Control::serve`] makes it answer.
pub struct Control {
    socket: Socket,
    group: Option<u32>,
    desk: Arc<Desk>,
}

/// What requests are answered from.
struct Desk {
    key: StoredKey,
    min_token_length: u64,
    keeper: mpsc::Sender<Request>,
    tiers: Questions,
    started: Instant,
}

/// Why a request has no success.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("there is no such path; /v1/openapi.json has them")]
    NotFound,
    #[error("this path doesn't take this method")]
    Method,
    #[error("this user may not control this tokenblock")]
    Peer,
    #[error("the parameter {0}")]
    Parameter(&'static str),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("entry {index}: {error}; nothing is changed")]
    Entry { index: usize, error: EntryError },
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error("no answer in time; a change that was asked for may yet come into force")]
    Silence,
}

impl Control {
    /// Listens. Nothing is answered yet.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn bind(
        settings: &ControlSettings,
        key: StoredKey,
        min_token_length: u64,
        keeper: mpsc::Sender<Request>,
        tiers: Questions,
    ) -> Result<Self, SocketError> {
        Ok(Self {
            socket: Socket::bind(settings)?,
            group: settings.group,
            desk: Arc::new(Desk {
                key,
                min_token_length,
                keeper,
                tiers,
                started: Instant::now(),
            }),
        })
    }

    /// Answers until dropped.
    pub async fn serve(self) -> Infallible {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let permit = Arc::clone(&room).acquire_owned().await;
            let stream = match self.socket.accept().await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a control connection can't be taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let allowed = peer::is_allowed(&stream, self.group);
            let desk = Arc::clone(&self.desk);
            tokio::spawn(async move {
                let _permit = permit;
                desk.converse(stream, allowed).await;
            });
        }
    }
}

impl Desk {
    async fn converse(&self, stream: UnixStream, allowed: bool) {
        let service = service_fn(async |request| {
            let answer = if allowed {
                timeout(ANSWER_PATIENCE, self.answer(request)).await
            } else {
                Ok(Err(Refusal::Peer))
            };
            let answer = answer.unwrap_or(Err(Refusal::Silence));
            Ok::<_, Infallible>(answer.unwrap_or_else(|refusal| refusal.response()))
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

    async fn answer(
        &self,
        request: HttpRequest<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Refusal> {
        let (head, body) = request.into_parts();
        match (head.uri.path(), &head.method) {
            ("/v1/entries", &Method::POST) => json(&self.add(body::json(body).await?).await?),
            ("/v1/entries", &Method::DELETE) => json(&self.remove(body::json(body).await?).await?),
            ("/v1/entries", &Method::GET) => json(&self.list(head.uri.query()).await?),
            ("/v1/check", &Method::POST) => json(&self.check(body::json(body).await?).await?),
            ("/v1/status", &Method::GET) => json(&self.status().await?),
            ("/v1/openapi.json", &Method::GET) => Ok(response(StatusCode::OK, OPENAPI)),
            ("/v1/entries" | "/v1/check" | "/v1/status" | "/v1/openapi.json", _) => {
                Err(Refusal::Method)
            }
            _ => Err(Refusal::NotFound),
        }
    }

    async fn add(&self, request: AddRequest) -> Result<Entries<AddedAnswer>, Refusal> {
        let now = SystemTime::now();
        let entries = each(&request.entries, |new| self.identifying().entry(new, now))?;
        drop(request);
        let added = self.ask(|reply| Request::Add(entries, reply)).await?;
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

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, ChangeError>>) -> Request,
    ) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        let sent = self.keeper.send(request(reply)).await;
        sent.map_err(|_keeper_ended| Refusal::Silence)?;
        let answer = answer.await.map_err(|_keeper_ended| Refusal::Silence)?;
        Ok(answer?)
    }

    fn identifying(&self) -> Identifying<'_> {
        Identifying {
            key: self.key.get(),
            min_token_length: self.min_token_length,
        }
    }
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

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Peer => StatusCode::FORBIDDEN,
            Self::Body(BodyError::TooLong) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Body(BodyError::TooSlow) => StatusCode::REQUEST_TIMEOUT,
            Self::Parameter(_) | Self::Body(_) => StatusCode::BAD_REQUEST,
            Self::Entry { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Change(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Silence => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    fn response(&self) -> Response<Full<Bytes>> {
        let index = match self {
            Self::Entry { index, .. } => Some(*index),
            Self::NotFound
            | Self::Method
            | Self::Peer
            | Self::Parameter(_)
            | Self::Body(_)
            | Self::Change(_)
            | Self::Silence => None,
        };
        let error = self.to_string();
        // Strings and numbers can't fail to be JSON.
        let text = serde_json::to_vec(&ErrorAnswer { error, index }).unwrap_or_default();
        response(self.status(), text)
    }
}

fn json(answer: &impl Serialize) -> Result<Response<Full<Bytes>>, Refusal> {
    let text = serde_json::to_vec(answer).map_err(|_never| Refusal::Silence)?;
    Ok(response(StatusCode::OK, text))
}

fn response(status: StatusCode, json: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(json.into()));
    *response.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
