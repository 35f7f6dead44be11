//! The fixtures get their verdicts from the real programs, however they are wrapped.

use etherparse::IpNumber;
use tokenblock_ebpf::{event::Event, verdict::Counter};
use tokenblock_tests::{
    bpf::{
        Fate, KEY, Programs,
        frame::{CUSTOMER_TAG, Frame, PROVIDER_TAG},
    },
    fixtures::{Expected, Fixture, TOKENS, Token, all, listed},
};

use crate::{compromised, each_variant, fixtures_listed, for_each_program, in_one_frame};

/// The index of the loopback interface, which test runs pretend to.
const LOOPBACK: u32 = 1;

fn short_id(token: Token) -> [u8; 6] {
    let index = TOKENS.iter().position(|known| *known == token).unwrap();
    listed(&KEY)[index].1.token.0
}

/// An event for every blocked request, and none for any other.
fn check_events(context: &str, frame: &Frame, expected: Expected, events: &[Event]) {
    let Expected::Block { location, token } = expected else {
        assert_eq!(events, [], "{context}");
        return;
    };
    let [event] = events else {
        assert_eq!(events.len(), 1, "{context}");
        return;
    };
    let (source, destination) = frame.addresses();
    assert_eq!(event.source.octets(), source.octets(), "{context}");
    assert_eq!(
        event.destination.octets(),
        destination.octets(),
        "{context}"
    );
    assert_eq!(event.source_port, Frame::CLIENT_PORT, "{context}");
    assert_eq!(event.destination_port, Frame::SERVER_PORT, "{context}");
    assert_eq!(event.sequence, Frame::SEQUENCE, "{context}");
    assert_eq!(event.interface, LOOPBACK, "{context}");
    assert_eq!(usize::from(event.location), location, "{context}");
    assert_eq!(event.token, short_id(token), "{context}");
    assert_eq!(event.blocked, 1, "{context}");
}

fn fixtures_by(test: &str, wrap: impl Fn(Vec<u8>) -> Frame) {
    for programs in &mut each_variant(test) {
        fixtures_in(programs, &wrap);
    }
}

fn fixtures_in(programs: &mut Programs, wrap: impl Fn(Vec<u8>) -> Frame) {
    for (fixture, bytes) in all().iter().filter_map(|f| Some((f, in_one_frame(f)?))) {
        let frame = wrap(bytes);
        for (program, bytes) in for_each_program(&frame) {
            let context = format!("{} in {program}, {:?}", fixture.name, programs.variant());
            let (fate, counts) = programs.counted(program, &bytes).unwrap();
            let (want, counter) = if fixture.is_blocked() {
                (Fate::Dropped, Counter::Blocked)
            } else {
                (Fate::Passed, Counter::Clean)
            };
            assert_eq!(fate, want, "{context}: {counts:?}");
            assert_eq!(
                counts.get(counter.name()),
                Some(&1),
                "{context}: {counts:?}"
            );
            check_events(&context, &frame, fixture.expected, &programs.events());
        }
    }
}

#[test]
fn over_ipv4() {
    fixtures_by("over_ipv4", Frame::v4);
}

#[test]
fn over_ipv6() {
    fixtures_by("over_ipv6", Frame::v6);
}

#[test]
fn most_fixtures_fit_in_one_frame() {
    let too_long = all().iter().filter(|f| in_one_frame(f).is_none()).count();
    assert!(too_long < all().len() / 10, "{too_long} of {}", all().len());
}

fn wrappings(payload: &[u8]) -> Vec<(String, Frame)> {
    let mut wrapped = Vec::new();
    for (version, plain) in [("IPv4", Frame::v4(payload)), ("IPv6", Frame::v6(payload))] {
        for tags in [
            &[CUSTOMER_TAG][..],
            &[PROVIDER_TAG],
            &[0x9100],
            &[PROVIDER_TAG, CUSTOMER_TAG],
            &[PROVIDER_TAG, PROVIDER_TAG, CUSTOMER_TAG],
            &[CUSTOMER_TAG; 4],
        ] {
            wrapped.push((
                format!("{version} with tags {tags:x?}"),
                plain.clone().tagged(tags),
            ));
        }
        for words in 1..=10 {
            let frame = plain.clone().tcp_options(words).unwrap();
            wrapped.push((
                format!("{version} with {words} words of TCP options"),
                frame,
            ));
        }
    }
    for words in 1..=10 {
        let frame = Frame::v4(payload).ip_options(words);
        wrapped.push((format!("{words} words of IPv4 options"), frame.clone()));
        let frame = frame
            .tagged(&[PROVIDER_TAG, CUSTOMER_TAG])
            .tcp_options(10)
            .unwrap();
        wrapped.push((
            format!("{words} words of IPv4 options, and all else"),
            frame,
        ));
    }
    for kind in [0, 43, 60, 135, 139, 140].map(IpNumber) {
        let frame = Frame::v6(payload).extensions(&[kind]);
        wrapped.push((format!("extension header {}", kind.0), frame));
    }
    for count in 1..=6 {
        let frame = Frame::v6(payload).extensions(&vec![IpNumber::IPV6_DESTINATION_OPTIONS; count]);
        wrapped.push((format!("{count} extension headers"), frame));
    }
    wrapped
}

#[test]
fn however_it_is_wrapped() {
    for programs in &mut each_variant("however_it_is_wrapped") {
        wrapped_in(programs);
    }
}

fn wrapped_in(programs: &mut Programs) {
    let location = 0;
    let dropped = Expected::Block {
        location,
        token: Token::Opaque,
    };
    let clean = b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer another-token\r\n\r\n";
    for (payload, fate, expected) in [
        (&compromised()[..], Fate::Dropped, dropped),
        (clean, Fate::Passed, Expected::Pass),
    ] {
        for (wrapping, frame) in wrappings(payload) {
            for (program, bytes) in for_each_program(&frame) {
                let context = format!("{wrapping} in {program}");
                assert_eq!(programs.run(program, &bytes).unwrap(), fate, "{context}");
                check_events(&context, &frame, expected, &programs.events());
            }
        }
    }
}

/// What stands in the place of an IP header's first bytes may be a tag that reads like them.
#[test]
fn a_tag_that_reads_like_an_ip_header() {
    const TAG_AT: usize = 14;
    let Some(mut programs) = fixtures_listed("a_tag_that_reads_like_an_ip_header") else {
        return;
    };
    for frame in [Frame::v4(compromised()), Frame::v6(compromised())] {
        for first in [0x45, 0x60] {
            let mut bytes = frame.clone().tagged(&[CUSTOMER_TAG; 2]).ethernet().unwrap();
            bytes[TAG_AT] = first;
            let fate = programs.run("ingress_ethernet", &bytes).unwrap();
            assert_eq!(fate, Fate::Dropped, "{first:#x}");
        }
    }
}

/// Without link headers the longest chain of extension headers still stands in the bytes that are read.
#[test]
fn eight_extension_headers_without_a_link_header() {
    let Some(mut programs) = fixtures_listed("eight_extension_headers_without_a_link_header")
    else {
        return;
    };
    let frame = Frame::v6(compromised()).extensions(&[IpNumber::IPV6_DESTINATION_OPTIONS; 8]);
    let fate = programs.run("ingress_ip", &frame.ip().unwrap()).unwrap();
    assert_eq!(fate, Fate::Dropped);
}

#[test]
fn every_listed_token_has_a_fixture() {
    let seen: Vec<Expected> = all().iter().map(|f: &Fixture| f.expected).collect();
    for token in TOKENS {
        assert!(
            seen.iter()
                .any(|e| matches!(e, Expected::Block { token: t, .. } if t == token)),
            "{token:?}"
        );
    }
}
