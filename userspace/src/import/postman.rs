//! Postman: collections (2.0 and 2.1) and environments.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};

use super::{
    Finding, Format, ReportError, Secret,
    credential::{is_name_of_one, of_header},
    json,
};

/// Fields of Postman's authorization settings that hold a secret; `value` is the API key.
const AUTH_FIELDS: [&str; 11] = [
    "accessToken",
    "clientSecret",
    "consumerSecret",
    "password",
    "refreshToken",
    "secret",
    "secretKey",
    "sessionToken",
    "token",
    "tokenSecret",
    "value",
];

/// As a file, or as the API wraps it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Document {
    Collection(Folder),
    Environment(Environment),
    WrappedCollection { collection: Folder },
    WrappedEnvironment { environment: Environment },
}

#[derive(Deserialize)]
struct Environment {
    values: Vec<Pair>,
}

/// A collection, or a folder in one.
#[derive(Deserialize)]
struct Folder {
    item: Vec<Item>,
    auth: Option<Auth>,
    #[serde(default)]
    variable: Vec<Pair>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Folder(Folder),
    Request(Requested),
}

#[derive(Deserialize)]
struct Requested {
    name: Option<String>,
    request: Text<Request>,
    #[serde(default)]
    response: Vec<Saved>,
}

/// A request that was saved with its answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Saved {
    original_request: Option<Text<Request>>,
}

#[derive(Deserialize)]
struct Request {
    auth: Option<Auth>,
    #[serde(default)]
    header: Option<Text<Vec<Pair>>>,
    url: Option<Text<Url>>,
}

#[derive(Deserialize)]
struct Url {
    #[serde(default)]
    query: Option<Vec<Pair>>,
}

/// What may also stand as mere text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text<T> {
    Parts(T),
    Text(IgnoredAny),
}

impl<T> Text<T> {
    fn parts(self) -> Option<T> {
        match self {
            Self::Parts(parts) => Some(parts),
            Self::Text(_) => None,
        }
    }
}

#[derive(Deserialize)]
struct Pair {
    key: Option<String>,
    value: Option<Text<Secret>>,
    /// Of a variable: `secret` where Postman hides it.
    r#type: Option<String>,
}

/// Settings by scheme; beside them `type` says which is in use.
#[derive(Deserialize)]
struct Auth(BTreeMap<String, Scheme>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Scheme {
    /// 2.1
    List(Vec<Pair>),
    /// 2.0
    Map(BTreeMap<String, Text<Secret>>),
    Other(IgnoredAny),
}

/// What is found, and in which folder.
#[derive(Default)]
struct Found {
    findings: Vec<Finding>,
    place: Vec<String>,
}

pub(super) fn findings(report: &[u8]) -> Result<Vec<Finding>, ReportError> {
    let documents: Vec<Document> = json::values(Format::Postman, report)?;
    let mut found = Found::default();
    for document in documents {
        match document {
            Document::Collection(folder) | Document::WrappedCollection { collection: folder } => {
                found.folder(folder);
            }
            Document::Environment(environment) | Document::WrappedEnvironment { environment } => {
                found.variables(environment.values);
            }
        }
    }
    Ok(found.findings)
}

impl Found {
    fn push(&mut self, rule: String, secret: Secret) {
        let finding = Finding::new("postman", Some(secret))
            .rule([Some(rule)])
            .place([Some(self.place.join("/"))]);
        self.findings.push(finding);
    }

    fn folder(&mut self, folder: Folder) {
        self.auth(folder.auth);
        self.variables(folder.variable);
        for item in folder.item {
            match item {
                Item::Folder(folder) => self.folder(folder),
                Item::Request(requested) => self.requested(requested),
            }
        }
    }

    fn requested(&mut self, requested: Requested) {
        self.place.extend(requested.name);
        let saved = requested.response.into_iter();
        let saved = saved.filter_map(|saved| saved.original_request);
        for request in [requested.request].into_iter().chain(saved) {
            if let Some(request) = request.parts() {
                self.request(request);
            }
        }
        self.place.clear();
    }

    fn request(&mut self, request: Request) {
        self.auth(request.auth);
        for header in request.header.and_then(Text::parts).unwrap_or_default() {
            self.named("header", header, of_header);
        }
        let url = request.url.and_then(Text::parts);
        for parameter in url.and_then(|url| url.query).unwrap_or_default() {
            self.named("query", parameter, |value| Secret::new(value.to_owned()));
        }
    }

    fn variables(&mut self, variables: Vec<Pair>) {
        for variable in variables {
            let hidden = variable.r#type.as_deref() == Some("secret");
            if let (Some(name), Some(value)) = (variable.key, variable.value.and_then(Text::parts))
                && (hidden || is_name_of_one(&name))
            {
                self.push(format!("variable {name}"), of_header(&value));
            }
        }
    }

    fn named(&mut self, kind: &str, pair: Pair, secret: impl Fn(&str) -> Secret) {
        if let (Some(name), Some(value)) = (pair.key, pair.value.and_then(Text::parts))
            && is_name_of_one(&name)
        {
            self.push(format!("{kind} {name}"), secret(&value));
        }
    }

    fn auth(&mut self, auth: Option<Auth>) {
        for (scheme, fields) in auth.into_iter().flat_map(|auth| auth.0) {
            let fields: Vec<(String, Option<Secret>)> = match fields {
                Scheme::List(pairs) => pairs
                    .into_iter()
                    .map(|pair| {
                        let value = pair.value.and_then(Text::parts);
                        (pair.key.unwrap_or_default(), value)
                    })
                    .collect(),
                Scheme::Map(fields) => fields
                    .into_iter()
                    .map(|(name, value)| (name, value.parts()))
                    .collect(),
                Scheme::Other(_) => Vec::new(),
            };
            for (name, value) in fields {
                if let Some(value) = value.filter(|_| AUTH_FIELDS.contains(&name.as_str())) {
                    self.push(format!("auth {scheme} {name}"), value);
                }
            }
        }
    }
}
