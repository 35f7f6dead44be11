//! The requests of the demonstration, and what curl got for each.

use std::fmt;

use anyhow::{Context as _, Result};
use tokenblock_tests::{
    certificate::Certificate,
    fixtures::Token,
    netns::{Netns, SERVER_V4},
};

use crate::{ORIGIN_PORT, TLS_PORT};

/// curl gives up after this many seconds.
const MAX_TIME: &str = "1.5";

/// Where requests come from, and whom the client trusts.
#[derive(Debug)]
pub(crate) struct Site<'a> {
    /// The client's namespace.
    pub(crate) client: &'a Netns,
    /// The proxy's certificate.
    pub(crate) certificate: &'a Certificate,
}

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
    /// A status code.
    Status(String),
    /// Nothing; curl's exit code.
    Nothing(Option<i32>),
}

/// The requests, in the order in which they are sent.
pub(crate) fn all() -> [Request; 6] {
    let leaked = Token::Wallarm.text();
    // Of the same issuer, with another payload.
    let clean = leaked.replacen("OTEifQ", "OTIifQ", 1);
    // The signature's last character has two bits that no decoder looks at.
    let respelled = leaked.trim_end_matches('4').to_owned() + "5";
    let header = |header: String| (Some(header), String::new());
    let bearer = |token: &str| header(format!("Authorization: Bearer {token}"));
    [
        ("no token", false, (None, String::new())),
        ("a token that is not listed", false, bearer(&clean)),
        ("Authorization: Bearer", true, bearer(&leaked)),
        (
            "Cookie: test=",
            true,
            header(format!("Cookie: test={leaked}")),
        ),
        (
            "?access_token=",
            true,
            (None, format!("?access_token={leaked}")),
        ),
        ("its signature spelled otherwise", true, bearer(&respelled)),
    ]
    .map(|(name, compromised, (header, query))| Request {
        name,
        compromised,
        header,
        query,
    })
}

impl Request {
    /// Sends it to `path`, with curl.
    ///
    /// # Errors
    /// Where curl can't be started.
    pub(crate) fn send(&self, transport: Transport, path: &str, site: &Site<'_>) -> Result<Answer> {
        let host = Certificate::HOST;
        let (scheme, port) = match transport {
            Transport::Cleartext => ("http", ORIGIN_PORT),
            Transport::Tls => ("https", TLS_PORT),
        };
        let mut curl = site.client.command("curl");
        curl.args(["--silent", "--max-time", MAX_TIME, "--noproxy", "*"])
            .args(["--output", "/dev/null", "--write-out", "%{http_code}"])
            .arg("--cacert")
            .arg(&site.certificate.cert_file)
            .args(["--resolve", &format!("{host}:{port}:{SERVER_V4}")])
            .arg(format!("{scheme}://{host}:{port}{path}{}", self.query));
        if let Some(header) = &self.header {
            curl.args(["--header", header]);
        }
        let output = curl.output().context("starting curl")?;
        if !output.status.success() {
            return Ok(Answer::Nothing(output.status.code()));
        }
        Ok(Answer::Status(String::from_utf8(output.stdout)?))
    }
}

impl Answer {
    /// Whether it is the application's.
    pub(crate) fn passed(&self) -> bool {
        matches!(self, Self::Status(status) if status == "200")
    }

    /// Whether this is how a compromised request ends, in either tier.
    pub(crate) fn is_block(&self) -> bool {
        matches!(self, Self::Status(status) if status == "403")
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&match self {
            Self::Status(status) if self.is_block() => format!("blocked ({status})"),
            Self::Status(status) => status.clone(),
            Self::Nothing(code) => format!("curl failed: {code:?}"),
        })
    }
}
