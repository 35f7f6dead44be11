//! HTTP archives (HAR 1.2): the credentials of recorded requests, and the cookies that answers set.

use serde::Deserialize;

use super::{
    Finding, Format, ReportError, Secret,
    credential::{is_name_of_one, of_header},
    json,
};

#[derive(Deserialize)]
struct Archive {
    log: Log,
}

#[derive(Deserialize)]
struct Log {
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    request: Request,
    response: Option<Response>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    url: Secret,
    #[serde(default)]
    headers: Vec<Pair>,
    #[serde(default)]
    cookies: Vec<Pair>,
    post_data: Option<PostData>,
}

#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    cookies: Vec<Pair>,
}

#[derive(Deserialize)]
struct Pair {
    name: String,
    value: Secret,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PostData {
    mime_type: Option<String>,
    text: Option<Secret>,
}

pub(super) fn findings(report: &[u8]) -> Result<Vec<Finding>, ReportError> {
    let archives: Vec<Archive> = json::values(Format::Har, report)?;
    let entries = archives.into_iter().flat_map(|archive| archive.log.entries);
    Ok(entries.flat_map(of_entry).collect())
}

fn of_entry(entry: Entry) -> Vec<Finding> {
    let request = entry.request;
    let place = without_query(&request.url);
    let mut named: Vec<(String, Secret)> = Vec::new();
    for header in request.headers {
        if header.name.eq_ignore_ascii_case("cookie") {
            named.extend(crumbs(&header.value));
        } else {
            let secret = of_header(&header.value);
            named.push((format!("header {}", header.name), secret));
        }
    }
    let set = entry.response.map(|response| response.cookies);
    for cookie in request.cookies.into_iter().chain(set.into_iter().flatten()) {
        named.push((format!("cookie {}", cookie.name), cookie.value));
    }
    if let Some((_, query)) = request.url.split_once('?') {
        named.extend(parameters("query", query));
    }
    let is_form = |data: &PostData| {
        let kind = data.mime_type.as_deref().unwrap_or_default();
        kind.starts_with("application/x-www-form-urlencoded")
    };
    if let Some(form) = request.post_data.filter(is_form).and_then(|data| data.text) {
        named.extend(parameters("form", &form));
    }
    named
        .into_iter()
        .filter(|(name, _)| is_name_of_one(name))
        .map(|(name, secret)| {
            Finding::new("har", Some(secret))
                .rule([Some(name)])
                .place([Some(place.clone())])
        })
        .collect()
}

/// `a=b; c=d`
fn crumbs(value: &str) -> Vec<(String, Secret)> {
    let crumb = |crumb: &str| {
        let (name, value) = crumb.trim().split_once('=')?;
        Some((format!("cookie {name}"), Secret::new(value.to_owned())))
    };
    value.split(';').filter_map(crumb).collect()
}

fn parameters<'a>(kind: &'a str, encoded: &'a str) -> impl Iterator<Item = (String, Secret)> + 'a {
    let encoded = encoded.split('#').next().unwrap_or_default();
    form_urlencoded::parse(encoded.as_bytes())
        .map(move |(name, value)| (format!("{kind} {name}"), Secret::new(value.into_owned())))
}

/// What a query or the part with a user's name holds may be a secret.
fn without_query(url: &str) -> String {
    let bare = url.split(['?', '#']).next().unwrap_or_default();
    match bare.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}/{path}")
        }
        None => bare.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_neither_query_nor_user() {
        assert_eq!(
            without_query("https://u:p@h.example:8443/a/b?token=x#y"),
            "https://h.example:8443/a/b"
        );
        assert_eq!(without_query("http://h.example"), "http://h.example/");
    }
}
