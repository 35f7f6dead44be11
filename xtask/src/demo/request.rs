//! The requests of the demonstration, and what curl got for each.

use std::{fmt, path::Path};

use anyhow::{Context as _, Result};

use super::{
    ORIGIN_PORT, TLS_PORT,
    lab::{Lab, SERVER_ADDRESS},
    product::Files,
};

/// The token that has leaked: a JWT, signed with HS256.
pub(crate) const LEAKED_TOKEN: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.\
    eyJzb21lIjoicGF5bG9hZDk5OTk5OTEifQ.NdeEQYz4vE56uJrniAHCDO2NeMJmlrUH5F_a5bQJOo4";

/// The same signature: its last character has two bits that no decoder looks at.
const RESPELLED_TOKEN: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.\
    eyJzb21lIjoicGF5bG9hZDk5OTk5OTEifQ.NdeEQYz4vE56uJrniAHCDO2NeMJmlrUH5F_a5bQJOo5";

/// Another token of the same issuer, which has not leaked.
const CLEAN_TOKEN: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.\
    eyJzb21lIjoicGF5bG9hZDk5OTk5OTIifQ.NdeEQYz4vE56uJrniAHCDO2NeMJmlrUH5F_a5bQJOo4";

/// curl gives up after this many seconds.
const MAX_TIME: &str = "1.5";

/// A request, to be sent over cleartext and over TLS.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// For the reader.
    pub(crate) name: &'static str,
    /// Whether it bears the leaked token.
    pub(crate) compromised: bool,
    header: Option<String>,
    query: String,
}

/// How it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// HTTP, judged by the kernel tier.
    Cleartext,
    /// HTTPS, judged by the proxy tier.
    Tls,
}

/// What the client got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The application's.
    Passed,
    /// Another status code than the application's.
    Status(String),
    /// None: curl's exit code.
    Nothing(Option<i32>),
}

/// The requests, in the order in which they are sent.
pub(crate) fn all() -> Vec<Request> {
    let header = |header: String| (Some(header), String::new());
    let bearer = |token: &str| header(format!("Authorization: Bearer {token}"));
    [
        ("no token", false, (None, String::new())),
        ("another token", false, bearer(CLEAN_TOKEN)),
        ("Authorization: Bearer", true, bearer(LEAKED_TOKEN)),
        (
            "Cookie: test=",
            true,
            header(format!("Cookie: test={LEAKED_TOKEN}")),
        ),
        (
            "?access_token=",
            true,
            (None, format!("?access_token={LEAKED_TOKEN}")),
        ),
        (
            "its signature spelled otherwise",
            true,
            bearer(RESPELLED_TOKEN),
        ),
    ]
    .map(|(name, compromised, (header, query))| Request {
        name,
        compromised,
        header,
        query,
    })
    .into()
}

impl Request {
    /// Sends it from the client's side, with curl.
    ///
    /// # Errors
    /// Where curl can't be started, or is refused the certificate.
    pub(crate) async fn send(
        &self,
        transport: Transport,
        path: &str,
        lab: &Lab,
        files: &Files,
    ) -> Result<Answer> {
        let (scheme, port) = match transport {
            Transport::Cleartext => ("http", ORIGIN_PORT),
            Transport::Tls => ("https", TLS_PORT),
        };
        let mut curl = lab.client().command(Path::new("curl"));
        curl.args(["--silent", "--max-time", MAX_TIME, "--noproxy", "*"])
            .args(["--output", "/dev/null", "--write-out", "%{http_code}"])
            .arg("--cacert")
            .arg(files.certificate())
            .arg(format!(
                "{scheme}://{SERVER_ADDRESS}:{port}{path}{}",
                self.query
            ));
        if let Some(header) = &self.header {
            curl.args(["--header", header]);
        }
        let output = curl
            .kill_on_drop(true)
            .output()
            .await
            .context("starting curl")?;
        let status = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(match (output.status.success(), status.as_str()) {
            (true, "200") => Answer::Passed,
            (true, _) => Answer::Status(status),
            (false, _) => Answer::Nothing(output.status.code()),
        })
    }
}

impl Answer {
    /// Whether this is how a compromised request ends: with a refusal, or without an answer because its
    /// packet was dropped (curl's 28) or its connection ended (52, 56).
    pub(crate) fn is_block(&self) -> bool {
        match self {
            Self::Passed => false,
            Self::Status(status) => status == "403",
            Self::Nothing(code) => matches!(code, Some(28 | 52 | 56)),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.pad("200"),
            Self::Status(status) if self.is_block() => f.pad(&format!("blocked ({status})")),
            Self::Status(status) => f.pad(status),
            Self::Nothing(Some(28)) => f.pad("blocked (no answer)"),
            Self::Nothing(Some(52 | 56)) => f.pad("blocked (reset)"),
            Self::Nothing(code) => f.pad(&format!("curl failed: {code:?}")),
        }
    }
}
