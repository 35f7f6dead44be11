//! What a request asks for and of whom, in the form that an upstream takes (RFC 9112 section 3).

use http::{
    HeaderValue, Method, Uri, Version,
    header::HOST,
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme},
};

use super::refuse::Reason;

/// Makes the target origin-form (or `*`), and `Host` the one field that says whom the client asks.
///
/// `default_host` stands in for a client of HTTP/1.0 that names no host.
///
/// # Errors
/// Why the request can't be forwarded.
pub(super) fn normalise(parts: &mut Parts, default_host: &HeaderValue) -> Result<(), Reason> {
    if parts.method == Method::CONNECT {
        return Err(Reason::Connect);
    }
    let uri = std::mem::take(&mut parts.uri).into_parts();
    let path = uri.path_and_query.unwrap_or(PathAndQuery::from_static("/"));
    if !(path.as_str().starts_with('/') || path.as_str() == "*" && parts.method == Method::OPTIONS)
    {
        return Err(Reason::Target);
    }
    match uri.authority {
        Some(authority) => {
            check_scheme(uri.scheme.as_ref())?;
            check_agrees(parts, &authority)?;
            parts.headers.insert(HOST, host_of(&authority)?);
        }
        None => check_host(parts, default_host)?,
    }
    parts.uri = Uri::from(path);
    Ok(())
}

/// Whether a target is a path of characters that every reader takes for the same.
pub(super) fn is_plain(target: &str) -> bool {
    let is_plain =
        |byte: &u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:@?".contains(byte);
    target.starts_with('/') && target.as_bytes().iter().all(is_plain)
}

/// Whether a `Host` field may be passed on.
pub(super) fn is_host(host: &[u8]) -> bool {
    host.iter().all(|byte| is_host_byte(*byte))
}

/// An absolute-form target may name what is served here, over whichever transport it came.
fn check_scheme(scheme: Option<&Scheme>) -> Result<(), Reason> {
    match scheme {
        None => Ok(()),
        Some(scheme) if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS => Ok(()),
        Some(_) => Err(Reason::Target),
    }
}

/// The authority of a target replaces `Host` (RFC 9112 section 3.2.2); credentials in it are an error
/// (RFC 9110 section 4.2.4).
fn host_of(authority: &Authority) -> Result<HeaderValue, Reason> {
    if authority.as_str().contains('@') {
        return Err(Reason::Target);
    }
    HeaderValue::from_str(authority.as_str()).map_err(|_invalid| Reason::Host)
}

/// Over HTTP/2, `Host` may say again whom the client asks, and no other (RFC 9113 section 8.3.1).
fn check_agrees(parts: &Parts, authority: &Authority) -> Result<(), Reason> {
    let is_it = |host: &HeaderValue| {
        let authority = authority.as_str().as_bytes();
        host.as_bytes().eq_ignore_ascii_case(authority)
    };
    let agrees = parts.version != Version::HTTP_2 || parts.headers.get_all(HOST).iter().all(is_it);
    agrees.then_some(()).ok_or(Reason::Host)
}

fn check_host(parts: &mut Parts, default_host: &HeaderValue) -> Result<(), Reason> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host.as_bytes()) => Ok(()),
        (None, _) if parts.version == Version::HTTP_10 => {
            parts.headers.insert(HOST, default_host.clone());
            Ok(())
        }
        _ => Err(Reason::Host),
    }
}

/// Bytes of `uri-host [":" port]` (RFC 3986 section 3.2.2), which leave no room for another authority.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&byte)
}

#[cfg(test)]
#[expect(clippy::unwrap_in_result, reason = "the result is what is tested")]
mod tests {
    use super::*;
    use http::Request;

    fn normalised(request: http::request::Builder) -> Result<(String, String), Reason> {
        let mut parts = request.body(()).unwrap().into_parts().0;
        let normal = normalise(&mut parts, &HeaderValue::from_static("default"));
        let host = parts.headers.get(HOST).map(|host| host.to_str().unwrap());
        let shown = (parts.uri.to_string(), host.unwrap_or_default().to_owned());
        normal.map(|()| shown)
    }

    #[test]
    fn targets_become_origin_form() {
        let ok = |request, uri: &str, host: &str| {
            assert_eq!(normalised(request), Ok((uri.to_owned(), host.to_owned())));
        };
        ok(Request::get("/a?b").header(HOST, "h:1"), "/a?b", "h:1");
        ok(
            Request::get("http://x:2/a?b").header(HOST, "h"),
            "/a?b",
            "x:2",
        );
        ok(Request::get("http://x").header(HOST, "h"), "/", "x");
        ok(Request::options("*").header(HOST, "h"), "*", "h");
        ok(Request::get("/").version(Version::HTTP_10), "/", "default");
    }

    #[test]
    fn what_names_nothing_here_is_refused() {
        let reason = |request| normalised(request).unwrap_err();
        assert_eq!(reason(Request::connect("a:1")), Reason::Connect);
        assert_eq!(reason(Request::get("*").header(HOST, "h")), Reason::Target);
        assert_eq!(reason(Request::get("ftp://x/")), Reason::Target);
        assert_eq!(reason(Request::get("http://u:p@x/")), Reason::Target);
        assert_eq!(reason(Request::get("/")), Reason::Host);
        assert_eq!(reason(Request::get("/").header(HOST, "a/b")), Reason::Host);
        let twice = Request::get("/").header(HOST, "a").header(HOST, "a");
        assert_eq!(reason(twice), Reason::Host);
        let http2 = |host| {
            let request = Request::get("https://x:2/").version(Version::HTTP_2);
            normalised(request.header(HOST, host))
        };
        assert_eq!(http2("x"), Err(Reason::Host));
        assert_eq!(http2("X:2"), Ok(("/".to_owned(), "x:2".to_owned())));
    }
}
