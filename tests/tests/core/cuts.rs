//! Every fixture gets its verdict wherever its bytes are cut.

use proptest::prelude::*;
use tokenblock_ebpf::{
    digest::{InstallationKey, TokenDigest},
    inspect,
    location::LocationKind,
    rules::Rules,
    scan::Scan,
};
use tokenblock_tests::fixtures::{
    Expected, Fixture, LOCATIONS, MIN_TOKEN_LENGTH, Token, all, digests,
};

const KEY: InstallationKey = InstallationKey(*b"fixtures-and-key");

/// The rules and the denylist of the fixtures.
pub(crate) struct Judge {
    pub(crate) rules: Rules,
    listed: Vec<(TokenDigest, Token)>,
}

impl Judge {
    pub(crate) fn new() -> Self {
        let locations: Vec<(LocationKind, &[u8])> = LOCATIONS
            .iter()
            .map(|(kind, name)| (*kind, name.as_bytes()))
            .collect();
        Self {
            rules: Rules::new(&KEY, MIN_TOKEN_LENGTH, &locations).unwrap(),
            listed: digests(&KEY),
        }
    }

    pub(crate) fn is_listed(&self, digest: &TokenDigest) -> bool {
        self.listed.iter().any(|(listed, _)| listed == digest)
    }

    pub(crate) fn verdict(&self, hit: Option<inspect::Hit>) -> Expected {
        hit.map_or(Expected::Pass, |hit| Expected::Block {
            location: usize::from(hit.location),
            token: self
                .listed
                .iter()
                .find(|(listed, _)| *listed == hit.digest)
                .unwrap()
                .1,
        })
    }

    /// The verdict on a stream that comes in these pieces.
    fn pieces<'a>(&self, pieces: impl IntoIterator<Item = &'a [u8]>) -> Expected {
        let mut scan = Scan::new(&self.rules);
        let hit = pieces.into_iter().find_map(|piece| {
            inspect::stream(&mut scan, &self.rules, piece, &mut |_, d| self.is_listed(d))
        });
        self.verdict(hit)
    }
}

fn bytes(fixture: &Fixture) -> Vec<u8> {
    fixture.bytes("origin.test")
}

#[test]
fn names_are_unique() {
    let mut names: Vec<_> = all().iter().map(|fixture| fixture.name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn whole() {
    let judge = Judge::new();
    for fixture in all() {
        let bytes = bytes(&fixture);
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]);
        assert_eq!(
            judge.pieces([&bytes[..]]),
            fixture.expected,
            "{}:\n{text}",
            fixture.name
        );
    }
}

#[test]
fn cut_at_every_byte() {
    let judge = Judge::new();
    for fixture in all() {
        let bytes = bytes(&fixture);
        // What lies far behind the last candidate is no news.
        for cut in 0..bytes.len().min(4096) {
            let (front, back) = bytes.split_at(cut);
            let verdict = judge.pieces([front, &back[..back.len().min(16 * 1024)]]);
            assert_eq!(verdict, fixture.expected, "{} cut at {cut}", fixture.name);
        }
    }
}

#[test]
fn in_pieces_of_one_size() {
    let judge = Judge::new();
    for fixture in all() {
        let bytes = bytes(&fixture);
        for size in [1, 2, 3, 5, 7, 8, 9, 63, 64, 65] {
            let verdict = judge.pieces(bytes.chunks(size));
            assert_eq!(
                verdict, fixture.expected,
                "{} in pieces of {size}",
                fixture.name
            );
        }
    }
}

/// The scanner reads by lines, so the requests in front are those that end with one.
#[test]
fn behind_other_requests() {
    let judge = Judge::new();
    let passing: Vec<u8> = all()
        .iter()
        .filter(|fixture| !fixture.is_blocked())
        .map(bytes)
        .filter(|bytes| bytes.ends_with(b"\n"))
        .flatten()
        .collect();
    for fixture in all().into_iter().filter(Fixture::is_blocked) {
        let bytes = bytes(&fixture);
        let verdict = judge.pieces([&passing[..], &bytes]);
        assert_eq!(
            verdict, fixture.expected,
            "{} in a kept-alive connection",
            fixture.name
        );
    }
}

proptest! {
    #[test]
    fn cut_anywhere(which: prop::sample::Index, sizes in prop::collection::vec(1usize..200, 1..50)) {
        let (judge, all) = (Judge::new(), all());
        let fixture = which.get(&all);
        let bytes = bytes(fixture);
        let mut rest = &bytes[..];
        let pieces: Vec<&[u8]> = sizes
            .iter()
            .cycle()
            .map_while(|size| {
                let (piece, behind) = rest.split_at(rest.len().min(*size));
                rest = behind;
                (!piece.is_empty()).then_some(piece)
            })
            .collect();
        prop_assert_eq!(judge.pieces(pieces), fixture.expected, "{} cut {:?}", fixture.name, sizes);
    }
}

/// In a body, where most lines are taken at once, a parameter in what some server takes for a target is found wherever it is cut.
#[test]
fn parameters_in_a_body_cut_at_every_byte() {
    let judge = Judge::new();
    let head = "POST / HTTP/1.1\r\nContent-Length: 2000\r\n\r\na word of text\n";
    let (listed, name) = (Token::Opaque.text(), "access_token");
    for (line, blocked) in [
        (format!("is b?{name}={listed}"), true),
        (format!("is  ?{name}={listed}"), true),
        (format!("is b?c&{name}={listed} d"), true),
        (format!("is b??{name}={listed}"), true),
        (format!("is b?access%5Ftoken={listed}"), true),
        (format!("is {}?{name}={listed}", "b".repeat(40)), true),
        (format!("is b?{}&{name}={listed}", "c".repeat(40)), true),
        (format!("is\u{e9}b?{name}={listed}"), true),
        (format!("is\u{e9}b c?{name}={listed}"), true),
        (format!("is /b c?{name}={listed}"), true),
        (format!("is b?{name} ={listed}"), false),
        (format!("is b?{name}%3D{listed}"), false),
        (format!("is b?c {name}={listed}"), false),
    ] {
        let text = format!("{head}{line}\na word\n");
        for cut in head.len()..text.len() {
            let (front, back) = text.as_bytes().split_at(cut);
            let verdict = judge.pieces([front, back]);
            assert_eq!(verdict != Expected::Pass, blocked, "{line:?} cut at {cut}");
        }
    }
}
