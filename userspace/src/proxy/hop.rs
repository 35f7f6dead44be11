//! Header fields at a hop: what ends here, what is added for the next (RFC 9110 section 7.6).

use std::net::{IpAddr, SocketAddr};

use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
    header::{self, Entry},
};

/// Fields that speak to the next hop only.
const HOP_BY_HOP: [HeaderName; 6] = [
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Fields that a `Connection` field can't take away: removing them would change who is asked, or what is
/// recorded of who asks.
const KEPT: [HeaderName; 2] = [header::HOST, header::CONTENT_LENGTH];

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Writes one field.
pub(super) fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Whether a field of this name speaks to the next hop only.
pub(super) fn ends_here(name: &str) -> bool {
    let is = |known: &HeaderName| name.eq_ignore_ascii_case(known.as_str());
    // Most fields are told by their length.
    matches!(name.len(), 2 | 7 | 10 | 14 | 16 | 17)
        && (is(&header::CONNECTION) || HOP_BY_HOP.iter().any(is))
}

/// Whether a `Connection` field names this one, and can.
pub(super) fn is_named(name: &str, fields: &[httparse::Header<'_>]) -> bool {
    let is = |known: &HeaderName| name.eq_ignore_ascii_case(known.as_str());
    let connection = fields
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case(header::CONNECTION.as_str()));
    !KEPT.iter().any(is)
        && connection
            .flat_map(|field| field.value.split(|byte| *byte == b','))
            .any(|option| option.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
}

/// What the fields added to each request of one client connection say.
#[derive(Clone, Debug)]
pub(super) struct Provenance {
    address: HeaderValue,
    protocol: HeaderValue,
    forwarded: HeaderValue,
    /// Whether what the client says of where a request comes from is kept.
    trusted: bool,
}

impl Provenance {
    /// Of requests that `client` sends over TLS or in cleartext. A trusted client is a proxy that says whose
    /// requests they are.
    pub(super) fn new(client: SocketAddr, tls: bool, trusted: bool) -> Self {
        let protocol = if tls { "https" } else { "http" };
        let address = client.ip().to_canonical();
        let node = match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("\"[{address}]\""),
        };
        Self {
            address: visible(&address.to_string()),
            protocol: HeaderValue::from_static(protocol),
            forwarded: visible(&format!("for={node};proto={protocol}")),
            trusted,
        }
    }

    /// Whether what a client says in this field is not passed on as it stands.
    pub(super) fn replaces(&self, name: &str) -> bool {
        let is = |known: &HeaderName| name.eq_ignore_ascii_case(known.as_str());
        match name.len() {
            9 => is(&header::FORWARDED),
            15 => is(&X_FORWARDED_FOR),
            16 => !self.trusted && is(&X_FORWARDED_HOST),
            17 => !self.trusted && is(&X_FORWARDED_PROTO),
            _ => false,
        }
    }

    /// Writes where a request with these fields comes from, as [`Provenance::stamp`] does; it came over HTTP of the
    /// version `via`.
    pub(super) fn write<'f, I: Iterator<Item = (&'f str, &'f [u8])>>(
        &self,
        out: &mut Vec<u8>,
        fields: impl Fn() -> I,
        host: &[u8],
        via: &str,
    ) {
        self.write_joined(out, &X_FORWARDED_FOR, &self.address, fields());
        self.write_joined(out, &header::FORWARDED, &self.forwarded, fields());
        for (name, value) in [
            (&X_FORWARDED_PROTO, self.protocol.as_bytes()),
            (&X_FORWARDED_HOST, host),
        ] {
            let is_it = |(said, _): (&str, _)| said.eq_ignore_ascii_case(name.as_str());
            if !(self.trusted && fields().any(is_it)) {
                write_field(out, name.as_str(), value);
            }
        }
        out.extend_from_slice(b"via: ");
        out.extend_from_slice(via.as_bytes());
        out.extend_from_slice(b" tokenblock\r\n");
    }

    /// A field to which those before us may have said something.
    fn write_joined<'f>(
        &self,
        out: &mut Vec<u8>,
        name: &HeaderName,
        own: &HeaderValue,
        fields: impl Iterator<Item = (&'f str, &'f [u8])>,
    ) {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        let said =
            fields.filter(|(said, _)| self.trusted && said.eq_ignore_ascii_case(name.as_str()));
        for (_, value) in said {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(own.as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    /// Says where a request comes from. What a client that isn't trusted claims of that is replaced.
    pub(super) fn stamp(&self, headers: &mut HeaderMap, via: Version) {
        if !self.trusted {
            for name in [
                X_FORWARDED_FOR,
                X_FORWARDED_PROTO,
                X_FORWARDED_HOST,
                header::FORWARDED,
            ] {
                headers.remove(name);
            }
        }
        headers.append(X_FORWARDED_FOR, self.address.clone());
        headers.append(header::FORWARDED, self.forwarded.clone());
        if self.trusted {
            join(headers, &X_FORWARDED_FOR, b", ");
            join(headers, &header::FORWARDED, b", ");
        }
        headers
            .entry(X_FORWARDED_PROTO)
            .or_insert_with(|| self.protocol.clone());
        if let Some(host) = headers.get(header::HOST).cloned() {
            headers.entry(X_FORWARDED_HOST).or_insert(host);
        }
        let via = HeaderValue::from_static(match via {
            Version::HTTP_2 => "2.0 tokenblock",
            Version::HTTP_10 => "1.0 tokenblock",
            _ => "1.1 tokenblock",
        });
        headers.append(header::VIA, via);
    }
}

/// Removes what ends at this hop, with what `Connection` names.
pub(super) fn strip(headers: &mut HeaderMap) {
    if let Entry::Occupied(connection) = headers.entry(header::CONNECTION) {
        let (_, values) = connection.remove_entry_mult();
        let values: Vec<HeaderValue> = values.collect();
        for name in values.iter().flat_map(options) {
            if !KEPT.contains(&name) {
                headers.remove(name);
            }
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Whether the body of a request comes as it is: in no transfer coding but `chunked`, once.
pub(super) fn is_body_plain(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(only), None) => only
            .as_bytes()
            .trim_ascii()
            .eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

/// Whether a body comes in a coding of its own (RFC 9110 section 8.4), so that its bytes don't say what it says.
pub(super) fn is_coded(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(header::CONTENT_ENCODING).iter();
    codings
        .flat_map(|codings| codings.as_bytes().split(|byte| *byte == b','))
        .any(|coding| !coding.trim_ascii().eq_ignore_ascii_case(b"identity"))
}

/// Says that a body of unknown length follows.
pub(super) fn set_chunked(headers: &mut HeaderMap) {
    headers.insert(
        header::TRANSFER_ENCODING,
        HeaderValue::from_static("chunked"),
    );
}

/// The protocols that an HTTP/1.1 request or response wants to change to (RFC 9110 section 7.8), but those in which requests
/// would go on unread.
pub(super) fn upgrade(version: Version, headers: &HeaderMap) -> Option<HeaderValue> {
    let protocols = headers
        .get_all(header::UPGRADE)
        .iter()
        .flat_map(|offer| offer.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|protocol| !protocol.is_empty() && !carries_requests(protocol));
    let protocols: Vec<&[u8]> = protocols.collect();
    let upgrade = HeaderValue::from_bytes(&protocols.join(&b", "[..])).ok()?;
    let asked = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(options)
        .any(|name| name == header::UPGRADE);
    (version == Version::HTTP_11 && asked && !upgrade.is_empty()).then_some(upgrade)
}

/// Whether a protocol is HTTP, by whichever name, or TLS with HTTP in it (RFC 2817).
fn carries_requests(protocol: &[u8]) -> bool {
    let name = protocol.split(|byte| *byte == b'/').next();
    let name = name.unwrap_or_default().trim_ascii();
    [&b"http"[..], b"h2", b"h2c", b"h3", b"tls"]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
}

/// Asks for the change of protocol at this hop too.
pub(super) fn set_upgrade(headers: &mut HeaderMap, protocols: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocols);
}

/// Whether the client takes trailers (RFC 9110 section 10.1.4).
pub(super) fn takes_trailers(headers: &HeaderMap) -> bool {
    let words = |value: &HeaderValue| {
        let words = value.as_bytes().split(|b| *b == b',');
        words
            .map(<[u8]>::trim_ascii)
            .any(|word| word.eq_ignore_ascii_case(b"trailers"))
    };
    headers.get_all(header::TE).iter().any(words)
}

/// Says to the next hop that trailers are taken.
pub(super) fn set_takes_trailers(headers: &mut HeaderMap, version: Version) {
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    if version != Version::HTTP_2 {
        headers.append(header::CONNECTION, HeaderValue::from_static("te"));
    }
}

/// Joins the crumbs of an HTTP/2 cookie into the one field of HTTP/1.1 (RFC 9113 section 8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    join(headers, &header::COOKIE, b"; ");
}

/// Leaves one of several fields that say the same length, which the library has seen to (RFC 9110 section 8.6).
pub(super) fn say_length_once(headers: &mut HeaderMap) {
    if let Entry::Occupied(mut length) = headers.entry(header::CONTENT_LENGTH)
        && length.iter().nth(1).is_some()
    {
        let first = length.get().clone();
        length.insert(first);
    }
}

/// Makes one field of all of this name.
fn join(headers: &mut HeaderMap, name: &HeaderName, separator: &[u8]) {
    let mut values = headers.get_all(name).iter();
    let (Some(first), Some(second)) = (values.next(), values.next()) else {
        return;
    };
    let mut joined = first.as_bytes().to_vec();
    for value in std::iter::once(second).chain(values) {
        joined.extend_from_slice(separator);
        joined.extend_from_slice(value.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
        headers.insert(name, joined);
    }
}

/// The names in a `Connection` field; what is no name is passed over.
fn options(value: &HeaderValue) -> impl Iterator<Item = HeaderName> {
    value
        .as_bytes()
        .split(|b| *b == b',')
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
}

/// Text made here, of visible ASCII alone.
fn visible(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn what_connection_names_ends_here() {
        let mut map = headers(&[
            ("connection", "close, X-Mine , host"),
            ("connection", "x-other"),
            ("x-mine", "1"),
            ("x-other", "2"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("host", "a"),
            ("accept", "b"),
        ]);
        strip(&mut map);
        assert_eq!(map, headers(&[("host", "a"), ("accept", "b")]));
    }

    #[test]
    fn the_client_cannot_say_who_it_is() {
        let mut map = headers(&[("x-forwarded-for", "10.0.0.1"), ("host", "h")]);
        let client = "[::ffff:192.0.2.1]:7".parse().unwrap();
        Provenance::new(client, true, false).stamp(&mut map, Version::HTTP_2);
        let want = headers(&[
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "h"),
            ("forwarded", "for=192.0.2.1;proto=https"),
            ("via", "2.0 tokenblock"),
            ("host", "h"),
        ]);
        assert_eq!(map, want);
    }

    #[test]
    fn a_trusted_proxy_says_for_whom_it_asks() {
        let mut map = headers(&[
            ("x-forwarded-for", "192.0.2.9"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "for=192.0.2.9"),
        ]);
        let client = "[2001:db8::1]:7".parse().unwrap();
        Provenance::new(client, false, true).stamp(&mut map, Version::HTTP_11);
        let want = headers(&[
            ("x-forwarded-for", "192.0.2.9, 2001:db8::1"),
            ("x-forwarded-proto", "https"),
            (
                "forwarded",
                "for=192.0.2.9, for=\"[2001:db8::1]\";proto=http",
            ),
            ("via", "1.1 tokenblock"),
        ]);
        assert_eq!(map, want);
    }

    #[test]
    fn crumbs_are_joined_in_order() {
        let mut map = headers(&[("cookie", "a=b"), ("cookie", "c=d"), ("cookie", "e=f")]);
        join_cookies(&mut map);
        assert_eq!(map, headers(&[("cookie", "a=b; c=d; e=f")]));
    }

    #[test]
    fn an_upgrade_needs_both_fields_and_http_1_1() {
        let asked = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
        ]);
        assert!(upgrade(Version::HTTP_11, &asked).is_some());
        assert!(upgrade(Version::HTTP_10, &asked).is_none());
        assert!(upgrade(Version::HTTP_11, &headers(&[("upgrade", "websocket")])).is_none());
        let offers = headers(&[
            ("connection", "upgrade"),
            ("upgrade", "h2c, , websocket,HTTP/2.0"),
            ("upgrade", "TLS/1.3, x/1"),
        ]);
        let left = upgrade(Version::HTTP_11, &offers).unwrap();
        assert_eq!(left, "websocket, x/1");
    }
}
