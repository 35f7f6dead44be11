//! No map holds a token, or a part of one, once its packet is judged.

use tokenblock::kernel::load::CLASSIFIERS;
use tokenblock_tests::{
    bpf::{KEY, Programs, dump, frame::Frame},
    fixtures::{TOKENS, Token, listed},
};

use crate::{each_variant, fixtures_listed, for_each_program};

/// A digest in progress holds up to seven bytes as they stand.
const PART: usize = 8;

fn clean_secret() -> String {
    "clean-Secret_".repeat(62).chars().take(800).collect()
}

/// The token in every kind of place, early and late, complete and cut.
fn requests(token: &str) -> [String; 4] {
    [
        format!("GET /?access_token={token} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("X-API-Key: {token}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"),
        // Cut before its end: the candidate is never complete.
        format!("GET / HTTP/1.1\r\nCookie: session={token}"),
    ]
}

#[test]
fn no_map_holds_a_token() {
    for programs in &mut each_variant("no_map_holds_a_token") {
        holds_no_token(programs);
    }
}

fn holds_no_token(programs: &mut Programs) {
    let mut maps: Vec<u32> = CLASSIFIERS
        .iter()
        .flat_map(|program| programs.maps(program).unwrap())
        .collect();
    maps.sort_unstable();
    maps.dedup();
    let mut tokens: Vec<String> = TOKENS.iter().map(|token| token.text()).collect();
    tokens.push(clean_secret());
    for token in &tokens {
        for (at, request) in requests(token).into_iter().enumerate() {
            for (program, frame) in for_each_program(&Frame::v4(request.clone())) {
                programs.run(program, &frame).unwrap();
                let contents: Vec<u8> = maps
                    .iter()
                    .flat_map(|id| dump::contents(*id).unwrap())
                    .collect();
                let part = token
                    .as_bytes()
                    .windows(PART)
                    .find(|part| memchr::memmem::find(&contents, part).is_some());
                let part = part.map(String::from_utf8_lossy);
                assert_eq!(
                    part,
                    None,
                    "{program}, {:?}, request {at}, {} bytes of token",
                    programs.variant(),
                    token.len()
                );
            }
        }
    }
}

/// The dump shows what the maps do hold.
#[test]
fn the_dump_shows_the_entries() {
    let Some(mut programs) = fixtures_listed("the_dump_shows_the_entries") else {
        return;
    };
    let maps = programs.maps("ingress_ethernet").unwrap();
    let contents: Vec<u8> = maps
        .iter()
        .flat_map(|id| dump::contents(*id).unwrap())
        .collect();
    let (digest, entry) = listed(&KEY)[0];
    assert_eq!(TOKENS[0], Token::Opaque);
    assert!(memchr::memmem::find(&contents, &digest.0).is_some());
    assert!(memchr::memmem::find(&contents, &entry.token.0).is_some());
}
