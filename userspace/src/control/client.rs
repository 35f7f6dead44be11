//! The client's end of the control API.

use std::{
    convert::Infallible,
    io,
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{runtime, time::timeout};
use zeroize::Zeroizing;

use super::{api::ErrorAnswer, server::Server};
use crate::exit::Failure;

/// Longest time for an answer.
const PATIENCE: Duration = Duration::from_secs(90);
/// The same for a list of any length.
const LONG_PATIENCE: Duration = Duration::from_mins(15);
/// Bytes that are sent at once.
const PIECE: usize = 256 << 10;

/// Why there is no answer, or none that was hoped for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no tokenblock answers at {}; is `tokenblock run` up, with this state folder?", .0.display())]
    NobodyThere(PathBuf),
    /// The socket's mode.
    #[error("this user may not use the control socket {}", .0.display())]
    Denied(PathBuf),
    /// Nobody answers by TCP, or it is somebody else.
    #[error("no tokenblock answers at {url}: {error}")]
    Unreachable {
        /// The address.
        url: String,
        /// Why.
        error: io::Error,
    },
    /// It was not done; with its reason.
    #[error("{error}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The reason.
        error: String,
    },
    /// No answer to a question, or one that can't be read.
    #[error("no answer that can be read ({0})")]
    Broken(String),
    /// The same, where a change was asked for.
    #[error(
        "no answer that can be read ({0}); what was asked for is done whole or not at all: ask again, that does no harm"
    )]
    Unsettled(String),
}

impl ClientError {
    /// Of a request for a change.
    fn of_change(self) -> Self {
        match self {
            Self::Broken(error) => Self::Unsettled(error),
            other @ (Self::NobodyThere(_)
            | Self::Denied(_)
            | Self::Unreachable { .. }
            | Self::Refused { .. }
            | Self::Unsettled(_)) => other,
        }
    }
}

/// Asks a running tokenblock.
pub(super) struct Client {
    server: Server,
    runtime: runtime::Runtime,
}

impl Client {
    /// Of this server.
    pub(super) fn new(server: Server) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self { server, runtime })
    }

    /// Asks for what is under `path`.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.exchange(Method::GET, path, Full::default(), PATIENCE)
    }

    /// Asks for what is under `path`, and shows each line of it.
    pub(super) fn lines(
        &self,
        path: &str,
        mut show: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.runtime.block_on(async {
            let answer = self.connected(Method::GET, path, Full::default()).await?;
            if answer.status() != StatusCode::OK {
                let status = answer.status();
                let text = answer.into_body().collect().await.map_err(broken)?;
                return Err(refused(status, &text.to_bytes()).into());
            }
            let mut body = answer.into_body();
            let mut text = Vec::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(broken)?;
                text.extend_from_slice(&frame.into_data().unwrap_or_default());
                let end = memchr::memrchr(b'\n', &text).map_or(0, |at| at + 1);
                let rest = text.split_off(end);
                let lines = text.split(|byte| *byte == b'\n');
                lines
                    .filter(|line| !line.is_empty())
                    .try_for_each(&mut show)?;
                text = rest;
            }
            Ok(())
        })
    }

    /// Asks for a change by a body, which is wiped afterwards.
    pub(super) fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.ask(method, path, body).map_err(ClientError::of_change)
    }

    /// Asks a question by a body, which is wiped afterwards.
    pub(super) fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(broken)?;
        // As its owner, `Bytes` wipes it when the last clone is gone.
        let body = Bytes::from_owner(Zeroizing::new(body));
        self.exchange(method, path, Full::new(body), PATIENCE)
    }

    /// Asks for a change by text that may be long, which is wiped afterwards; `sent` is told how many bytes went.
    pub(super) fn send_text<T: DeserializeOwned>(
        &self,
        path: &str,
        text: Zeroizing<Vec<u8>>,
        sent: impl FnMut(usize) + Send + Unpin + 'static,
    ) -> Result<T, ClientError> {
        let body = Text {
            rest: Bytes::from_owner(text),
            sent,
        };
        self.exchange(Method::POST, path, body, LONG_PATIENCE)
            .map_err(ClientError::of_change)
    }

    fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: impl Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
        patience: Duration,
    ) -> Result<T, ClientError> {
        // In the runtime, which has the clock.
        let answer = async { timeout(patience, self.answer(method, path, body)).await };
        let answered = self.runtime.block_on(answer);
        let (status, text) = answered.map_err(broken)??;
        if status == StatusCode::OK {
            return serde_json::from_slice(&text).map_err(broken);
        }
        Err(refused(status, &text))
    }

    async fn answer(
        &self,
        method: Method,
        path: &str,
        body: impl Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let answer = self.connected(method, path, body).await?;
        let status = answer.status();
        let text = answer.into_body().collect().await.map_err(broken)?;
        Ok((status, text.to_bytes()))
    }

    /// The head of the answer; its body comes while the runtime runs.
    async fn connected(
        &self,
        method: Method,
        path: &str,
        body: impl Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = self.server.connect().await?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(broken)?;
        // Its end is the end of the answer.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "tokenblock")
            .header(header::CONTENT_TYPE, "application/json")
            .body(body);
        let mut request = request.map_err(broken)?;
        if let Some(credential) = self.server.credential() {
            let headers = request.headers_mut();
            headers.insert(header::AUTHORIZATION, credential.clone());
        }
        sender.send_request(request).await.map_err(broken)
    }
}

/// A body in pieces.
struct Text<F> {
    rest: Bytes,
    sent: F,
}

impl<F: FnMut(usize) + Unpin> Body for Text<F> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = self.rest.len().min(PIECE);
        if length == 0 {
            return Poll::Ready(None);
        }
        let piece = self.rest.split_to(length);
        (self.sent)(length);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

fn refused(status: StatusCode, text: &[u8]) -> ClientError {
    match serde_json::from_slice::<ErrorAnswer>(text) {
        Ok(answer) => ClientError::Refused {
            status: status.as_u16(),
            error: answer.error,
        },
        Err(error) => broken(error),
    }
}

fn broken(error: impl std::fmt::Display) -> ClientError {
    ClientError::Broken(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_said_to_be_done_or_not() {
        let question = || broken("it is gone");
        assert_eq!(
            question().to_string(),
            "no answer that can be read (it is gone)"
        );
        let change = question().of_change().to_string();
        assert!(change.ends_with("ask again, that does no harm"), "{change}");
    }
}
