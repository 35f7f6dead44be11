//! Why a request has no success, and how that is said.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use serde::Serialize;

use super::{
    api::{EntryError, ErrorAnswer},
    body::BodyError,
    desk::Answer,
    upload::UploadError,
};
use crate::keeper::ChangeError;

/// Why a request has no success.
#[derive(Debug, strum::EnumDiscriminants, thiserror::Error)]
#[strum_discriminants(
    name(Why),
    vis(pub(super)),
    derive(strum::EnumCount, strum::IntoStaticStr, strum::VariantArray),
    strum(serialize_all = "snake_case"),
    doc = "The kinds of [`Refusal`], for the counters."
)]
pub(super) enum Refusal {
    #[error("there is no such path; /v1/openapi.json has them")]
    NotFound,
    #[error("this path doesn't take this method")]
    Method,
    #[error("this user may not control this tokenblock")]
    Peer,
    #[error("no credential that is known here")]
    Credential,
    #[error("a report without a signature")]
    Unsigned,
    #[error("a report signed by a key that is not known here")]
    SigningKey,
    #[error("the signature is not that of this report")]
    Signature,
    #[error("entry {index}: tokens of this type are not taken here; nothing is changed")]
    TokenType { index: usize },
    #[error("too many requests at once; try again later")]
    Busy,
    #[error("the parameter {0}")]
    Parameter(&'static str),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("entry {index}: {error}; nothing is changed")]
    Entry { index: usize, error: EntryError },
    #[error("line {number}: {error}; nothing is changed")]
    Line { number: u64, error: UploadError },
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error("no answer in time; a change that was asked for may yet come into force")]
    Silence,
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Peer => StatusCode::FORBIDDEN,
            Self::Credential | Self::Unsigned | Self::SigningKey | Self::Signature => {
                StatusCode::UNAUTHORIZED
            }
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::Body(BodyError::TooLong | BodyError::ListTooLong) => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Self::Body(BodyError::TooSlow) => StatusCode::REQUEST_TIMEOUT,
            Self::Parameter(_) | Self::Body(_) | Self::TokenType { .. } => StatusCode::BAD_REQUEST,
            Self::Entry { .. } | Self::Line { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Change(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Silence => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// A field that says what to do about it.
    fn hint(&self) -> Option<(HeaderName, &'static str)> {
        if matches!(self, Self::Credential) {
            return Some((header::WWW_AUTHENTICATE, "Bearer realm=\"tokenblock\""));
        }
        matches!(self, Self::Busy).then_some((header::RETRY_AFTER, "1"))
    }

    /// The answer.
    pub(super) fn response(&self) -> Response<Answer> {
        let index = if let Self::Entry { index, .. } | Self::TokenType { index } = self {
            Some(*index)
        } else {
            None
        };
        let error = self.to_string();
        // Strings and numbers can't fail to be JSON.
        let text = serde_json::to_vec(&ErrorAnswer { error, index }).unwrap_or_default();
        let mut response = response(self.status(), text);
        if let Some((name, value)) = self.hint() {
            let value = HeaderValue::from_static(value);
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// A success.
pub(super) fn json(answer: &impl Serialize) -> Result<Response<Answer>, Refusal> {
    let text = serde_json::to_vec(answer).map_err(|_never| Refusal::Silence)?;
    Ok(response(StatusCode::OK, text))
}

/// An answer with a JSON body.
pub(super) fn response(status: StatusCode, json: impl Into<Bytes>) -> Response<Answer> {
    let mut response = Response::new(Full::new(json.into()).boxed());
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
