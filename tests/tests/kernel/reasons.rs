//! What is not judged meets the policy of its reason, and is counted under it.

use std::collections::BTreeMap;

use etherparse::IpNumber;
use tokenblock::kernel::object::Variant;
use tokenblock_ebpf::verdict::{Counter, Policies, Policy};
use tokenblock_tests::{
    bpf::{
        Fate, Programs, Setup,
        frame::{CUSTOMER_TAG, ETHERNET_HEADER, Frame, PROVIDER_TAG},
    },
    gate,
};

use crate::{compromised, fixtures_listed};

/// Every packet here bears a listed token where a careless parser would find it.
fn check(programs: &mut Programs, what: &str, program: &'static str, bytes: &[u8], why: Counter) {
    let (fate, counts) = programs.counted(program, bytes).unwrap();
    let wanted = match Policies::default().of(why) {
        Policy::Pass => Fate::Passed,
        Policy::Drop | Policy::Reset => Fate::Dropped,
    };
    assert_eq!(fate, wanted, "{what}: {counts:?}");
    assert_eq!(counts, BTreeMap::from([(why.name(), 1)]), "{what}");
}

fn v4() -> Frame {
    Frame::v4(compromised())
}

fn v6() -> Frame {
    Frame::v6(compromised())
}

/// The Ethernet frame, with the bytes at these offsets from its IP header put in place.
fn patched(frame: &Frame, patches: &[(usize, u8)]) -> Vec<u8> {
    let mut bytes = frame.ethernet().unwrap();
    for (at, byte) in patches {
        bytes[frame.ip_at() + at] = *byte;
    }
    bytes
}

#[test]
fn the_unpatched_frames_are_dropped() {
    let Some(mut programs) = fixtures_listed("the_unpatched_frames_are_dropped") else {
        return;
    };
    for frame in [v4(), v6()] {
        let fate = programs
            .run("ingress_ethernet", &patched(&frame, &[]))
            .unwrap();
        assert_eq!(fate, Fate::Dropped);
    }
}

#[test]
fn what_is_no_segment_of_a_protected_port() {
    use Counter::{Encapsulated, NoPayload, NotIp, NotTcp, OtherPort};
    let Some(mut programs) = fixtures_listed("what_is_no_segment_of_a_protected_port") else {
        return;
    };
    let mut arp = v4().ethernet().unwrap();
    arp[ETHERNET_HEADER - 1] = 6;
    let mut cases = vec![
        ("another port", patched(&v4().to_port(8081), &[]), OtherPort),
        (
            "another port, IPv6",
            patched(&v6().to_port(80), &[]),
            OtherPort,
        ),
        ("an ACK", patched(&Frame::v4([]), &[]), NoPayload),
        ("an ACK, IPv6", patched(&Frame::v6([]), &[]), NoPayload),
        ("UDP", patched(&v4(), &[(9, 17)]), NotTcp),
        ("UDP, IPv6", patched(&v6(), &[(6, 17)]), NotTcp),
        ("ARP", arp, NotIp),
        ("IP version 5", patched(&v4(), &[(0, 0x55)]), NotIp),
    ];
    for inner in [4, 41, 47, 94, 97, 98, 137] {
        cases.push(("encapsulated", patched(&v4(), &[(9, inner)]), Encapsulated));
        cases.push((
            "encapsulated, IPv6",
            patched(&v6(), &[(6, inner)]),
            Encapsulated,
        ));
    }
    for (what, bytes, why) in cases {
        check(&mut programs, what, "ingress_ethernet", &bytes, why);
        check(&mut programs, what, "egress_ethernet", &bytes, why);
    }
    let ip = &patched(&v4(), &[(0, 0x55)])[ETHERNET_HEADER..];
    check(
        &mut programs,
        "IP version 5 without Ethernet",
        "ingress_ip",
        ip,
        NotIp,
    );
}

/// Of the offset in an IPv6 fragment header, from the IP header on, where no other header is between.
const OFFSET: usize = 40 + 2;

#[test]
fn fragments() {
    let Some(mut programs) = fixtures_listed("fragments") else {
        return;
    };
    let at = |offset, low| [(offset, 0), (offset + 1, low)];
    let v6 = || v6().extensions(&[IpNumber::IPV6_FRAGMENTATION_HEADER]);
    let behind = Frame::v6(compromised()).extensions(&[
        IpNumber::IPV6_DESTINATION_OPTIONS,
        IpNumber::IPV6_FRAGMENTATION_HEADER,
    ]);
    let elsewhere = |frame: Frame| frame.to_port(8081);
    let first = Counter::Fragment;
    let later = Counter::LaterFragment;
    let cases = [
        ("first", patched(&v4(), &[(6, 0x20)]), first),
        ("later", patched(&v4(), &[(6, 0x20), (7, 1)]), later),
        ("last", patched(&v4(), &[(6, 0), (7, 1)]), later),
        ("first, IPv6", patched(&v6(), &at(OFFSET, 1)), first),
        ("later, IPv6", patched(&v6(), &at(OFFSET, 9)), later),
        ("last, IPv6", patched(&v6(), &at(OFFSET, 8)), later),
        (
            "first, IPv6, behind an option",
            patched(&behind, &at(OFFSET + 8, 1)),
            first,
        ),
        (
            "first, of another port",
            patched(&elsewhere(v4()), &[(6, 0x20)]),
            Counter::OtherPort,
        ),
        (
            "first, of another port, IPv6",
            patched(&elsewhere(v6()), &at(OFFSET, 1)),
            Counter::OtherPort,
        ),
    ];
    for (what, bytes, why) in cases {
        check(&mut programs, what, "ingress_ethernet", &bytes, why);
    }
    // Eight bytes of TCP, as short as a fragment can be, hold the ports.
    let short = patched(&v4(), &[(6, 0x20), (2, 0), (3, 28)]);
    check(
        &mut programs,
        "eight bytes",
        "ingress_ip",
        &short[ETHERNET_HEADER..][..28],
        first,
    );
    // A datagram that is called a fragment and is whole (RFC 6946) is judged.
    for (frame, offset) in [(v6(), OFFSET), (behind, OFFSET + 8)] {
        let whole = patched(&frame, &at(offset, 0));
        let (fate, counts) = programs.counted("ingress_ethernet", &whole).unwrap();
        assert_eq!(fate, Fate::Dropped);
        assert_eq!(counts.get(Counter::Blocked.name()), Some(&1), "{counts:?}");
    }
    // Forbidding fragments is no fragment.
    let forbids = patched(&v4(), &[(6, 0x40)]);
    assert_eq!(
        programs.run("ingress_ethernet", &forbids).unwrap(),
        Fate::Dropped
    );
}

/// The frame with these options in its IPv4 header.
fn with_ip_options(frame: &Frame, options: &[u8]) -> Vec<u8> {
    let mut bytes = frame.ethernet().unwrap();
    let at = frame.ip_at();
    bytes[at] += u8::try_from(options.len() / 4).unwrap();
    bytes[at + 3] += u8::try_from(options.len()).unwrap();
    bytes.splice(at + 20..at + 20, options.iter().copied());
    bytes
}

/// Of the addresses that are left in an IPv6 routing header, as [`OFFSET`].
const LEFT: usize = 40 + 3;

#[test]
fn source_routes() {
    let Some(mut programs) = fixtures_listed("source_routes") else {
        return;
    };
    let v6 = || v6().extensions(&[IpNumber::IPV6_ROUTE_HEADER]);
    let behind = Frame::v6(compromised()).extensions(&[
        IpNumber::IPV6_DESTINATION_OPTIONS,
        IpNumber::IPV6_ROUTE_HEADER,
    ]);
    let elsewhere = |frame: Frame| frame.to_port(8081);
    let routed = |options: &[u8]| with_ip_options(&v4(), options);
    let (why, other) = (Counter::SourceRouted, Counter::OtherPort);
    let cases = [
        ("loose", routed(&[1, 131, 7, 4, 10, 0, 0, 1]), why),
        ("strict", routed(&[137, 7, 4, 10, 0, 0, 1, 0]), why),
        (
            "behind an option and the most that do nothing",
            routed(
                &[
                    vec![148, 4, 0, 0],
                    vec![1; 29],
                    vec![131, 7, 4, 10, 0, 0, 1],
                ]
                .concat(),
            ),
            why,
        ),
        (
            "with one of two addresses left",
            routed(&[1, 131, 11, 8, 10, 0, 0, 1, 10, 0, 0, 2]),
            why,
        ),
        ("IPv6", patched(&v6(), &[(LEFT, 1)]), why),
        (
            "IPv6, behind an option",
            patched(&behind, &[(LEFT + 8, 2)]),
            why,
        ),
        (
            "of another port",
            with_ip_options(&elsewhere(v4()), &[1, 131, 7, 4, 10, 0, 0, 1]),
            other,
        ),
        (
            "of another port, IPv6",
            patched(&elsewhere(v6()), &[(LEFT, 1)]),
            other,
        ),
    ];
    for (what, bytes, why) in cases {
        check(&mut programs, what, "ingress_ethernet", &bytes, why);
    }
    // At its end it is judged as any other, and so is what only looks like a route.
    let judged = [
        ("no more addresses", routed(&[1, 131, 7, 8, 10, 0, 0, 1])),
        ("no more addresses, IPv6", patched(&v6(), &[(LEFT, 0)])),
        (
            "behind the end of the options",
            routed(&[0, 131, 7, 4, 10, 0, 0, 1]),
        ),
        (
            "inside another option",
            routed(&[7, 8, 131, 7, 4, 10, 0, 1]),
        ),
        ("another header's fourth byte", {
            let frame = Frame::v6(compromised()).extensions(&[IpNumber::IPV6_DESTINATION_OPTIONS]);
            patched(&frame, &[(LEFT, 1)])
        }),
    ];
    for (what, bytes) in judged {
        let (fate, counts) = programs.counted("ingress_ethernet", &bytes).unwrap();
        assert_eq!(fate, Fate::Dropped, "{what}");
        let blocked = counts.get(Counter::Blocked.name());
        assert_eq!(blocked, Some(&1), "{what}: {counts:?}");
        programs.forget_flows().unwrap();
    }
}

#[test]
fn routed_tunnels() {
    let Some(mut programs) = fixtures_listed("routed_tunnels") else {
        return;
    };
    let routed = v6().extensions(&[IpNumber::IPV6_ROUTE_HEADER]);
    let behind = Frame::v6(compromised()).extensions(&[
        IpNumber::IPV6_ROUTE_HEADER,
        IpNumber::IPV6_DESTINATION_OPTIONS,
    ]);
    let option = Frame::v6(compromised()).extensions(&[IpNumber::IPV6_DESTINATION_OPTIONS]);
    let (why, tunnel) = (Counter::RoutedTunnel, Counter::Encapsulated);
    // Of the next header in the first extension header, and in the second.
    let (first, second) = (40, 48);
    for inner in [4, 41] {
        let cases = [
            ("at its end", patched(&routed, &[(first, inner)]), why),
            (
                "with one left",
                patched(&routed, &[(first, inner), (LEFT, 1)]),
                why,
            ),
            (
                "with an option behind",
                patched(&behind, &[(second, inner)]),
                why,
            ),
            (
                "no routing header",
                patched(&option, &[(first, inner)]),
                tunnel,
            ),
        ];
        for (what, bytes, why) in cases {
            check(&mut programs, what, "ingress_ethernet", &bytes, why);
        }
    }
}

#[test]
fn headers_too_long() {
    let Some(mut programs) = fixtures_listed("headers_too_long") else {
        return;
    };
    let tags = [
        PROVIDER_TAG,
        CUSTOMER_TAG,
        CUSTOMER_TAG,
        CUSTOMER_TAG,
        CUSTOMER_TAG,
    ];
    let long = |count| v6().extensions(&vec![IpNumber::IPV6_DESTINATION_OPTIONS; count]);
    let cases = [
        (
            "five tags",
            "ingress_ethernet",
            patched(&v4().tagged(&tags), &[]),
        ),
        (
            "five tags, IPv6",
            "egress_ethernet",
            patched(&v6().tagged(&tags), &[]),
        ),
        (
            "nine extension headers",
            "ingress_ip",
            long(9).ip().unwrap(),
        ),
        (
            "TCP behind what is read",
            "ingress_ethernet",
            patched(&long(8), &[]),
        ),
    ];
    for (what, program, bytes) in cases {
        check(
            &mut programs,
            what,
            program,
            &bytes,
            Counter::HeadersTooLong,
        );
    }
}

#[test]
fn malformed() {
    let Some(mut programs) = fixtures_listed("malformed") else {
        return;
    };
    let cases = [
        ("IPv4 header of 16 bytes", patched(&v4(), &[(0, 0x44)])),
        (
            "IPv4 total length within its header",
            patched(&v4(), &[(2, 0), (3, 19)]),
        ),
        (
            "IPv4 total length within the TCP header",
            patched(&v4(), &[(2, 0), (3, 39)]),
        ),
        (
            "IPv6 payload length within the TCP header",
            patched(&v6(), &[(4, 0), (5, 19)]),
        ),
        ("TCP header of 16 bytes", patched(&v4(), &[(20 + 12, 0x40)])),
        (
            "TCP header of 16 bytes, IPv6",
            patched(&v6(), &[(40 + 12, 0x40)]),
        ),
        (
            "TCP header longer than the packet",
            patched(&Frame::v4(b"short"), &[(20 + 12, 0xf0)]),
        ),
        (
            "a tag and nothing more",
            patched(&v4().tagged(&[CUSTOMER_TAG]), &[])[..18].to_vec(),
        ),
    ];
    for (what, bytes) in cases {
        check(
            &mut programs,
            what,
            "ingress_ethernet",
            &bytes,
            Counter::Malformed,
        );
    }
    // Test runs take no cut IP packet behind an Ethernet header.
    for (what, frame, len) in [
        ("half an IPv4 header", v4(), 15),
        ("half an IPv6 header", v6(), 20),
        ("half a TCP header", v4(), 30),
        ("half a TCP header, IPv6", v6(), 50),
    ] {
        let bytes = &frame.ip().unwrap()[..len];
        check(&mut programs, what, "ingress_ip", bytes, Counter::Malformed);
    }
}

#[test]
fn padding_is_no_payload() {
    let Some(mut programs) = fixtures_listed("padding_is_no_payload") else {
        return;
    };
    for make in [
        |payload: &[u8]| Frame::v4(payload),
        |payload: &[u8]| Frame::v6(payload),
    ] {
        let mut padded = make(b"").ethernet().unwrap();
        padded.extend(compromised());
        check(
            &mut programs,
            "padded ACK",
            "ingress_ethernet",
            &padded,
            Counter::NoPayload,
        );
        let mut padded = make(b"GET / HTTP/1.1\r\n").ethernet().unwrap();
        padded.extend(compromised());
        let (fate, counts) = programs.counted("ingress_ethernet", &padded).unwrap();
        assert_eq!(fate, Fate::Passed);
        let want = [
            (Counter::Clean.name(), 1),
            (Counter::MidStream.name(), 1),
            (Counter::ScannedBytes.name(), 16),
        ];
        assert_eq!(counts, BTreeMap::from(want));
    }
}

/// Super-packets above 64 KiB (BIG TCP) carry a length of 0.
#[test]
fn a_length_of_zero_is_the_whole_frame() {
    let Some(mut programs) = fixtures_listed("a_length_of_zero_is_the_whole_frame") else {
        return;
    };
    for bytes in [
        patched(&v4(), &[(2, 0), (3, 0)]),
        patched(&v6(), &[(4, 0), (5, 0)]),
    ] {
        assert_eq!(
            programs.run("ingress_ethernet", &bytes).unwrap(),
            Fate::Dropped
        );
    }
}

#[test]
fn a_reason_has_the_policy_that_it_was_given() {
    const REASON: &str = "a_reason_has_the_policy_that_it_was_given";
    if !gate::programs(REASON) {
        return;
    }
    let cases = [
        (Counter::Fragment, patched(&v4(), &[(6, 0x20)])),
        (Counter::LaterFragment, patched(&v4(), &[(7, 1)])),
        (
            Counter::SourceRouted,
            with_ip_options(&v4(), &[1, 131, 7, 4, 10, 0, 0, 1]),
        ),
        (
            Counter::RoutedTunnel,
            patched(
                &v6().extensions(&[IpNumber::IPV6_ROUTE_HEADER]),
                &[(40, 41)],
            ),
        ),
        (Counter::Malformed, patched(&v4(), &[(0, 0x44)])),
        (Counter::Encapsulated, patched(&v4(), &[(9, 4)])),
        (
            Counter::HeadersTooLong,
            patched(
                &v6().extensions(&[IpNumber::IPV6_DESTINATION_OPTIONS; 8]),
                &[],
            ),
        ),
        (
            Counter::MidStream,
            Frame::v4(b"GET / HTTP/1.1\r\n").ethernet().unwrap(),
        ),
        (
            Counter::Http2,
            Frame::v4(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                .ethernet()
                .unwrap(),
        ),
    ];
    for policy in [Policy::Pass, Policy::Drop] {
        let mut policies = Policies::default();
        for (reason, _) in &cases {
            policies.set(*reason, policy);
        }
        // What begins in mid-stream is HTTP/2 too.
        policies.set(Counter::MidStream, Policy::Pass);
        for (reason, bytes) in &cases {
            policies.set(*reason, policy);
            let mut programs = Programs::with_fixtures(&Setup {
                policies,
                ..Setup::default()
            })
            .unwrap();
            let (fate, counts) = programs.counted("ingress_ethernet", bytes).unwrap();
            let wanted = match policy {
                Policy::Pass => Fate::Passed,
                Policy::Drop | Policy::Reset => Fate::Dropped,
            };
            assert_eq!(fate, wanted, "{reason:?} {policy:?}: {counts:?}");
            assert_eq!(
                counts.get(reason.name()),
                Some(&1),
                "{reason:?}: {counts:?}"
            );
            policies.set(Counter::MidStream, Policy::Pass);
        }
    }
}

/// Wherever the first line of HTTP/2 is cut, and behind a request that asked for it.
#[test]
fn http2_is_seen() {
    let Some(mut programs) = fixtures_listed("http2_is_seen") else {
        return;
    };
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let upgrade = b"GET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n";
    for before in [&b""[..], upgrade] {
        for cut in 1..preface.len() {
            let stream = [before, preface].concat();
            let (first, second) = stream.split_at(before.len() + cut);
            let seen = http2(&mut programs, &[first, second]);
            assert_eq!(seen, 1, "cut {cut} behind {} bytes", before.len());
        }
    }
    assert_eq!(
        http2(&mut programs, &[b"PRI: x\r\nPRIX *\r\nP", b"R", b"IX"]),
        0
    );
}

/// How often HTTP/2 is seen in a connection of these segments.
fn http2(programs: &mut Programs, segments: &[&[u8]]) -> u64 {
    passed(programs, Counter::Http2, segments)
}

/// How often this is counted in a connection of these segments, all of which pass.
fn passed(programs: &mut Programs, reason: Counter, segments: &[&[u8]]) -> u64 {
    let count = |programs: &Programs| programs.totals().unwrap()[reason.name()];
    let before = count(programs);
    programs.forget_flows().unwrap();
    let mut next = Frame::SEQUENCE;
    for segment in segments {
        let frame = Frame::v4(*segment).at(next).ethernet().unwrap();
        let (action, _) = programs.repeat("ingress_ethernet", &frame, 1).unwrap();
        assert_eq!(action, u32::MAX, "{segment:?}");
        next = next.wrapping_add(u32::try_from(segment.len()).unwrap());
    }
    count(programs) - before
}

/// Both ways to say where a message ends, in either order, and two lengths; wherever they are cut.
#[test]
fn ambiguous_framing_is_seen() {
    if !gate::programs("ambiguous_framing_is_seen") {
        return;
    }
    let mut policies = Policies::default();
    assert_eq!(policies.of(Counter::AmbiguousFraming), Policy::Reset);
    policies.set(Counter::AmbiguousFraming, Policy::Pass);
    for variant in [Variant::Keyed, Variant::Sha256] {
        let mut programs = Programs::with_fixtures(&Setup {
            policies,
            variant,
            ..Setup::default()
        })
        .unwrap();
        for (lines, times) in [
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 1),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 1),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", 1),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", 0),
            ("Transfer-Encoding: chunked\r\n", 0),
        ] {
            let request = format!("POST / HTTP/1.1\r\n{lines}\r\n");
            for cut in 1..request.len() {
                let (first, second) = request.as_bytes().split_at(cut);
                let segments = [first, second];
                let seen = passed(&mut programs, Counter::AmbiguousFraming, &segments);
                assert_eq!(seen, times, "{variant:?}, {lines:?} cut at {cut}");
            }
        }
    }
}
