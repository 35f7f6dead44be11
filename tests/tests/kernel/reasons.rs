//! What is not judged passes, and is counted under its reason.

use std::collections::BTreeMap;

use etherparse::IpNumber;
use tokenblock_ebpf::verdict::Counter;
use tokenblock_tests::bpf::{
    Fate, Programs,
    frame::{CUSTOMER_TAG, ETHERNET_HEADER, Frame, PROVIDER_TAG},
    name,
};

use crate::{compromised, fixtures_listed};

/// Every packet here bears a listed token where a careless parser would find it.
fn check(programs: &mut Programs, what: &str, program: &'static str, bytes: &[u8], why: Counter) {
    let (fate, counts) = programs.counted(program, bytes).unwrap();
    assert_eq!(fate, Fate::Passed, "{what}: {counts:?}");
    assert_eq!(counts, BTreeMap::from([(name(why), 1)]), "{what}");
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

#[test]
fn fragments() {
    let Some(mut programs) = fixtures_listed("fragments") else {
        return;
    };
    let behind = v6().extensions(&[
        IpNumber::IPV6_DESTINATION_OPTIONS,
        IpNumber::IPV6_FRAGMENTATION_HEADER,
    ]);
    let cases = [
        ("first", patched(&v4(), &[(6, 0x20)])),
        ("later", patched(&v4(), &[(6, 0x20), (7, 1)])),
        ("last", patched(&v4(), &[(6, 0), (7, 1)])),
        (
            "IPv6",
            patched(
                &v6().extensions(&[IpNumber::IPV6_FRAGMENTATION_HEADER]),
                &[],
            ),
        ),
        ("IPv6 behind an option", patched(&behind, &[])),
    ];
    for (what, bytes) in cases {
        check(
            &mut programs,
            what,
            "ingress_ethernet",
            &bytes,
            Counter::Fragment,
        );
    }
    // Forbidding fragments is no fragment.
    let forbids = patched(&v4(), &[(6, 0x40)]);
    assert_eq!(
        programs.run("ingress_ethernet", &forbids).unwrap(),
        Fate::Dropped
    );
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
            (name(Counter::Clean), 1),
            (name(Counter::MidStream), 1),
            (name(Counter::ScannedBytes), 16),
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
