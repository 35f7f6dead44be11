//! The host's way in: judges parts of a request that a parser has already taken apart, or a whole stream.

use super::{
    digest::TokenDigest,
    filter::NoFilter,
    location::{LocationId, LocationKind, NameHash},
    rules::{NO_LOCATION, Rules},
    scan::{Scan, Source, Step},
};

/// A candidate that is on the denylist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Where it stood.
    pub location: LocationId,
    /// The digest that was found.
    pub digest: TokenDigest,
}

/// Judges one header field. `listed` says whether a digest is to be blocked; every candidate is offered to it
/// in order until it says yes.
pub fn header(
    rules: &Rules,
    name: &[u8],
    value: &[u8],
    listed: &mut impl FnMut(LocationId, &TokenDigest) -> bool,
) -> Option<Hit> {
    let location = rules.find(NameHash::of(LocationKind::Header, rules.name_seed, name));
    if location == NO_LOCATION {
        return None;
    }
    let mut scan = Scan::header_value(rules, location);
    stream(&mut scan, rules, value, listed).or_else(|| finish(&mut scan, rules, listed))
}

/// Judges a query (what follows the first `?` of a request target) or a form body.
pub fn query(
    rules: &Rules,
    query: &[u8],
    listed: &mut impl FnMut(LocationId, &TokenDigest) -> bool,
) -> Option<Hit> {
    let mut scan = Scan::query(rules);
    stream(&mut scan, rules, query, listed).or_else(|| finish(&mut scan, rules, listed))
}

/// Scans the next bytes of a stream from the saved state; `scan.pos` is 0 again afterwards.
pub fn stream(
    scan: &mut Scan,
    rules: &Rules,
    bytes: &[u8],
    listed: &mut impl FnMut(LocationId, &TokenDigest) -> bool,
) -> Option<Hit> {
    let hit = run(scan, rules, bytes, listed);
    scan.rebase();
    hit
}

/// Ends a stream: a value that reached its end is a candidate.
pub fn finish(
    scan: &mut Scan,
    rules: &Rules,
    listed: &mut impl FnMut(LocationId, &TokenDigest) -> bool,
) -> Option<Hit> {
    scan.finish(rules);
    run(scan, rules, &[][..], listed)
}

fn run<S: Source + ?Sized>(
    scan: &mut Scan,
    rules: &Rules,
    source: &S,
    listed: &mut impl FnMut(LocationId, &TokenDigest) -> bool,
) -> Option<Hit> {
    loop {
        match scan.step(rules, source, &NoFilter) {
            Step::More => {}
            Step::End => return None,
            Step::Lookup(digest) => {
                let location = scan.location();
                if listed(location, &digest) {
                    return Some(Hit { location, digest });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::digest::{Domain, InstallationKey};

    const KEY: InstallationKey = InstallationKey([3; 16]);
    const TOKEN: &[u8] = b"tok-en_ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    const JWT: &[u8] = b"eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJzb21lIjoicGF5bG9hZDk5OTk5OTEifQ.NdeEQYz4vE56uJrniAHCDO2NeMJmlrUH5F_a5bQJOo4";

    fn rules() -> Rules {
        let l: &[(LocationKind, &[u8])] = &[
            (LocationKind::Header, b"Authorization"),
            (LocationKind::Header, b"X-API-Key"),
            (LocationKind::Cookie, b"session"),
            (LocationKind::Cookie, b"test"),
            (LocationKind::Query, b"access_token"),
        ];
        Rules::new(&KEY, 8, l).unwrap()
    }

    #[expect(clippy::unwrap_in_result, reason = "a test fails by panicking")]
    fn hit(bytes: &[u8]) -> Option<LocationId> {
        let rules = rules();
        let exact = TokenDigest::of(&KEY, Domain::Exact, TOKEN);
        let signed = JWT.iter().rposition(|b| *b == b'.').unwrap();
        let jws = TokenDigest::of(&KEY, Domain::Jws, &JWT[..signed]);
        let mut scan = Scan::new(&rules);
        stream(&mut scan, &rules, bytes, &mut |_, d| {
            *d == exact || *d == jws
        })
        .map(|h| h.location)
    }

    fn check(template: &str, want: Option<LocationId>) {
        let text = template
            .replace("TOKEN", core::str::from_utf8(TOKEN).unwrap())
            .replace("JWT", core::str::from_utf8(JWT).unwrap());
        assert_eq!(hit(text.as_bytes()), want, "{template:?}");
        // From any cut on, the state carries over.
        for cut in 0..text.len() {
            let rules = rules();
            let exact = TokenDigest::of(&KEY, Domain::Exact, TOKEN);
            let signed = JWT.iter().rposition(|b| *b == b'.').unwrap();
            let jws = TokenDigest::of(&KEY, Domain::Jws, &JWT[..signed]);
            let mut listed = |_, d: &TokenDigest| *d == exact || *d == jws;
            let mut scan = Scan::new(&rules);
            let (a, b) = text.as_bytes().split_at(cut);
            let found = stream(&mut scan, &rules, a, &mut listed)
                .or_else(|| stream(&mut scan, &rules, b, &mut listed));
            assert_eq!(found.map(|h| h.location), want, "{template:?} cut at {cut}");
        }
    }

    #[test]
    fn headers() {
        for ok in [
            "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer TOKEN\r\n\r\n",
            "GET / HTTP/1.1\r\nauthorization:bearer  TOKEN\r\n\r\n",
            "GET / HTTP/1.1\nAuthorization: Bearer\tTOKEN \t\n\n",
            "GET / HTTP/1.1\r\nAUTHORIZATION: TOKEN\r\n\r\n",
            "GET / HTTP/1.1\r\nAuthorization: Token token=\"TOKEN\"\r\n\r\n",
            "GET / HTTP/1.1\r\nAuthorization: Bearer\r\n  TOKEN\r\n\r\n",
            "GET / HTTP/1.1\r\nAuthorization:\r\n\tBearer\r\n TOKEN\r\n\r\n",
            "GET / HTTP/1.1\r\nAuthorization: x\r\nAuthorization: Bearer TOKEN\r\n\r\n",
            "GET / HTTP/1.1\r\nAuthorization: Bearer JWT\r\n\r\n",
            "GET / HTTP/1.1\rAuthorization: Bearer TOKEN\r\r",
            // user:TOKEN
            "GET / HTTP/1.1\r\nAuthorization: Basic dXNlcjp0b2stZW5fQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVowMTIzNDU2Nzg5\r\n\r\n",
            // TOKEN:
            "GET / HTTP/1.1\r\nAuthorization: basic dG9rLWVuX0FCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaMDEyMzQ1Njc4OTo=\r\n\r\n",
        ] {
            check(ok, Some(0));
        }
        check("GET / HTTP/1.1\r\nX_Api.Key: TOKEN\r\n\r\n", Some(1));
        for no in [
            "GET / HTTP/1.1\r\nAuthorization: Bearer TOKENx\r\n\r\n",
            "GET / HTTP/1.1\r\nAuthorization: Bearer xTOKEN\r\n\r\n",
            "GET / HTTP/1.1\r\nX-Other: TOKEN\r\n\r\n",
            "GET / HTTP/1.1\r\nAuthorization: x\r\n\r\n TOKEN\r\n",
            "GET / HTTP/1.1\r\nAuthorization: x\n\n TOKEN\r\n",
            "GET / HTTP/1.1\r\nAuthorization: x\r\nX-Other:\r\n TOKEN\r\n",
        ] {
            check(no, None);
        }
    }

    #[test]
    fn cookies() {
        for ok in [
            "GET / HTTP/1.1\r\nCookie: session=TOKEN\r\n\r\n",
            "GET / HTTP/1.1\r\nCookie: a=b; Session=TOKEN; c=d\r\n\r\n",
            "GET / HTTP/1.1\r\nCookie: a=b;session=\"TOKEN\"\r\n\r\n",
            "GET / HTTP/1.1\r\nCookie: a=b session = TOKEN\r\n\r\n",
            "GET / HTTP/1.1\r\nCookie: session=tok%2den_ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789\r\n\r\n",
            "GET / HTTP/1.1\r\nCookie: session=\"\\164ok-en_ABCDEFGHIJKLMNOPQRSTUVWXYZ012345678\\9\"\r\n\r\n",
            "GET / HTTP/1.1\r\nCookie: a=b; x=y\r\n ;session=TOKEN\r\n\r\n",
            "GET / HTTP/1.1\r\nCookie: session=\r\n TOKEN\r\n\r\n",
            "GET / HTTP/1.1\r\nCookie: session=TOKEN,x\r\n\r\n",
        ] {
            check(ok, Some(2));
        }
        check("GET / HTTP/1.1\r\nCookie: test=JWT\r\n\r\n", Some(3));
        for no in [
            "GET / HTTP/1.1\r\nCookie: other=TOKEN\r\n\r\n",
            "GET / HTTP/1.1\r\nCookie: session=%74TOKEN\r\n\r\n",
            "GET / HTTP/1.1\r\nCookie: sessions=TOKEN\r\n\r\n",
        ] {
            check(no, None);
        }
    }

    #[test]
    fn queries() {
        for ok in [
            "GET /?access_token=TOKEN HTTP/1.1\r\n\r\n",
            "GET /x?a=b&access%5Ftoken=TOKEN&c HTTP/1.1\r\n\r\n",
            "GET /x?access.token[]=TOKEN HTTP/1.1\r\n\r\n",
            "GET /x?access%20token%5b%5d=TOKEN HTTP/1.1\r\n\r\n",
            "GET /x?access+token[k]=TOKEN HTTP/1.1\r\n\r\n",
            "GET /x?+access_token=TOKEN HTTP/1.1\r\n\r\n",
            "GET http://h/x?access_token=TOKEN#f HTTP/1.1\r\n\r\n",
            "GET /x?access_token=tok%2Den%5FABCDEFGHIJKLMNOPQRSTUVWXYZ012345678%39 HTTP/1.1\r\n\r\n",
            "GET /x?access_token=\"TOKEN\" HTTP/1.1\r\n\r\n",
            "GET /?access_token=JWT\n",
        ] {
            check(ok, Some(4));
        }
        for no in [
            "GET /access_token=TOKEN HTTP/1.1\r\n\r\n",
            "GET /x?access_tokens=TOKEN HTTP/1.1\r\n\r\n",
            "GET /x?access_token=TOKEN%41 HTTP/1.1\r\n\r\n",
            "GET /x?a=TOKEN HTTP/1.1\r\n\r\n",
        ] {
            check(no, None);
        }
    }
}
