//! On one complete, well-formed request the kernel tier and the proxy tier agree.

use http::Uri;
use proptest::prelude::*;
use tokenblock_ebpf::{inspect, scan::Scan};
use tokenblock_tests::fixtures::{Expected, Form, TOKENS, Token, all};

use crate::{cuts::Judge, generate::many_cases};

/// The kernel tier's way: the bytes as a stream.
fn by_stream(judge: &Judge, request: &[u8]) -> Expected {
    let mut scan = Scan::new(&judge.rules);
    let hit = inspect::stream(&mut scan, &judge.rules, request, &mut |_, digest| {
        judge.is_listed(digest)
    });
    judge.verdict(hit)
}

/// The proxy tier's way: what an HTTP parser hands over. `None` where the parser refuses the request.
fn by_parts(judge: &Judge, request: &[u8]) -> Option<Expected> {
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut parsed = httparse::Request::new(&mut headers);
    if !parsed.parse(request).ok()?.is_complete() {
        return None;
    }
    let target: Uri = parsed.path?.parse().ok()?;
    let mut listed = |_, digest: &_| judge.is_listed(digest);
    let in_query = target
        .query()
        .and_then(|query| inspect::query(&judge.rules, query.as_bytes(), &mut listed));
    let hit = in_query.or_else(|| {
        parsed.headers.iter().find_map(|field| {
            inspect::header(
                &judge.rules,
                field.name.as_bytes(),
                field.value,
                &mut listed,
            )
        })
    });
    Some(judge.verdict(hit))
}

#[test]
fn on_the_fixtures() {
    let judge = Judge::new();
    for fixture in all()
        .into_iter()
        .filter(|fixture| fixture.form == Form::Strict)
    {
        let request = fixture.bytes("origin.test");
        assert_eq!(
            by_stream(&judge, &request),
            fixture.expected,
            "{}",
            fixture.name
        );
        assert_eq!(
            by_parts(&judge, &request),
            Some(fixture.expected),
            "{}",
            fixture.name
        );
    }
}

#[test]
fn what_a_strict_parser_takes_of_the_raw_forms_is_blocked_too() {
    let judge = Judge::new();
    for fixture in all()
        .into_iter()
        .filter(|fixture| fixture.form == Form::Raw)
    {
        if let Some(verdict) = by_parts(&judge, &fixture.bytes("origin.test")) {
            assert_eq!(verdict, fixture.expected, "{}", fixture.name);
        }
    }
}

/// Text in which a listed token is frequent, without the characters of `not`.
fn text(not: &'static [char]) -> impl Strategy<Value = String> {
    let part = prop_oneof![
        3 => prop::sample::select(TOKENS).prop_map(Token::text),
        2 => prop::sample::select(&["Bearer ", "Basic ", "basic  ", "\t", " ", ",", ";", "; ", "\"", "=", "&", "%", ".", "\\", "x"][..])
            .prop_map(str::to_owned),
        2 => prop::sample::select(&["session=", "test=", "access_token=", "%61ccess_token=", "api.key[]=", "other="][..])
            .prop_map(str::to_owned),
        1 => "[!-~]{0,12}",
    ];
    prop::collection::vec(part, 0..6).prop_map(move |parts| parts.concat().replace(not, ""))
}

prop_compose! {
    fn request()(
        method in prop::sample::select(&["GET", "POST", "M-SEARCH"][..]),
        path in prop::sample::select(&["/", "/a/b", "*", "http://origin.test/x"][..]),
        query in prop::option::of(text(&[' ', '\t', '"', '#', '\\', '<', '>', '^', '`', '{', '|', '}'])),
        fields in prop::collection::vec((
            prop::sample::select(&["Authorization", "X-API-Key", "x_api_key", "Cookie", "cookie", "Accept", "X-Session"][..]),
            text(&[]),
        ), 0..6),
        // No line of it reads like a header field: those the kernel tier blocks wherever they stand.
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) -> Vec<u8> {
        let target = query.map_or(path.to_owned(), |query| format!("{path}?{query}"));
        let lines: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: origin.test\r\n{}Content-Length: {}\r\n\r\n",
            lines.concat(),
            body.len()
        );
        head.into_bytes().into_iter().chain(body).collect()
    }
}

proptest! {
    #![proptest_config(many_cases())]

    #[test]
    fn on_well_formed_requests(request in request()) {
        let judge = Judge::new();
        let parts = by_parts(&judge, &request);
        prop_assume!(parts.is_some());
        prop_assert_eq!(
            by_stream(&judge, &request), parts.unwrap(), "{}", String::from_utf8_lossy(&request)
        );
    }
}
