//! What a blocked frame becomes: the answers, as they leave a device that completes no checksum.

use etherparse::{IpNumber, NetHeaders, PacketHeaders, TcpHeader, TransportHeader};
use tokenblock_ebpf::{reply::FORBIDDEN, verdict::OnHit};
use tokenblock_tests::{
    bpf::{
        Fate, Programs, REDIRECT, Setup, UNSPEC,
        frame::{CUSTOMER_TAG, Frame, PROVIDER_TAG},
    },
    gate,
    netns::Netns,
};

use crate::{compromised, for_each_program};

/// Bytes of both link addresses.
const ADDRESSES: usize = 12;

/// The TCP header and the payload of an IP packet, after a look at its checksums.
fn read(packet: &[u8], context: &str) -> (TcpHeader, Vec<u8>) {
    let headers = PacketHeaders::from_ip_slice(packet).unwrap();
    let payload = headers.payload.slice().to_vec();
    let Some(TransportHeader::Tcp(tcp)) = headers.transport else {
        unreachable!("{context}: no TCP");
    };
    let sum = match headers.net.unwrap() {
        NetHeaders::Ipv4(ip, _) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum(), "{context}");
            tcp.calc_checksum_ipv4(&ip, &payload)
        }
        NetHeaders::Ipv6(ip, _) => tcp.calc_checksum_ipv6(&ip, &payload),
        NetHeaders::Arp(_) => unreachable!("{context}: ARP"),
    };
    assert_eq!(tcp.checksum, sum.unwrap(), "{context}");
    (tcp, payload)
}

fn check(programs: &mut Programs, frame: &Frame, name: &str) {
    for (program, bytes) in for_each_program(frame) {
        let context = format!("{name} in {program}");
        let ip_at = if program.ends_with("_ip") {
            0
        } else {
            frame.ip_at()
        };
        programs.forget_flows().unwrap();

        // The answer to the client leaves as a clone; the frame itself goes on to the server.
        let (action, reset) = programs.rewrite(program, &bytes).unwrap();
        assert_eq!(action, UNSPEC, "{context}");
        assert_eq!(reset[..ip_at], bytes[..ip_at], "{context}: link header");
        let (tcp, payload) = read(&reset[ip_at..], &context);
        assert!(tcp.rst && payload.is_empty(), "{context}: {tcp:?}");
        assert_eq!(tcp.sequence_number, Frame::SEQUENCE, "{context}");
        assert_eq!(
            (tcp.source_port, tcp.destination_port),
            (Frame::CLIENT_PORT, Frame::SERVER_PORT),
            "{context}"
        );

        // Sent again, it becomes the answer itself.
        let (action, answer) = programs.rewrite(program, &bytes).unwrap();
        assert_eq!(action, REDIRECT, "{context}");
        if ip_at != 0 {
            let swapped = [&bytes[6..ADDRESSES], &bytes[..6]].concat();
            assert_eq!(answer[..ADDRESSES], swapped, "{context}: link addresses");
            assert_eq!(
                answer[ADDRESSES..ip_at],
                bytes[ADDRESSES..ip_at],
                "{context}"
            );
        }
        let (tcp, payload) = read(&answer[ip_at..], &context);
        assert_eq!(payload, FORBIDDEN, "{context}");
        assert!(tcp.ack && tcp.fin && !tcp.rst, "{context}: {tcp:?}");
        let length = u32::try_from(compromised().len()).unwrap();
        assert_eq!(
            tcp.acknowledgment_number,
            Frame::SEQUENCE.wrapping_add(length),
            "{context}"
        );
        assert_eq!(
            (tcp.source_port, tcp.destination_port),
            (Frame::SERVER_PORT, Frame::CLIENT_PORT),
            "{context}"
        );
    }
}

/// Runs a test with programs that answer so; their clones leave through a loopback interface of their own.
fn with_programs(name: &str, on_hit: OnHit, run: impl FnOnce(&mut Programs) + Send) {
    if !gate::programs(name) || !gate::namespaces(name) {
        return;
    }
    let setup = Setup {
        on_hit,
        ..Setup::default()
    };
    let netns = Netns::new().unwrap();
    netns
        .enter(|| run(&mut Programs::with_fixtures(&setup).unwrap()))
        .unwrap();
}

#[test]
fn answers_are_complete_however_the_request_was_wrapped() {
    let name = "answers_are_complete_however_the_request_was_wrapped";
    with_programs(name, OnHit::Forbid, |programs| {
        let frames = [
            ("IPv4", Frame::v4(compromised())),
            ("IPv6", Frame::v6(compromised())),
            ("a tag", Frame::v4(compromised()).tagged(&[CUSTOMER_TAG])),
            (
                "two tags",
                Frame::v6(compromised()).tagged(&[PROVIDER_TAG, CUSTOMER_TAG]),
            ),
            ("IP options", Frame::v4(compromised()).ip_options(3)),
            (
                "extension headers",
                Frame::v6(compromised()).extensions(&[
                    IpNumber::IPV6_HEADER_HOP_BY_HOP,
                    IpNumber::IPV6_DESTINATION_OPTIONS,
                ]),
            ),
            (
                "TCP options",
                Frame::v4(compromised()).tcp_options(4).unwrap(),
            ),
        ];
        for (name, frame) in frames {
            check(programs, &frame, name);
        }
    });
}

/// The server's end has heard nothing yet of a connection whose SYN bears a token.
#[test]
fn a_blocked_syn_becomes_no_reset_for_the_server() {
    let name = "a_blocked_syn_becomes_no_reset_for_the_server";
    with_programs(name, OnHit::Reset, |programs| {
        let plain = Frame::v4(compromised());
        let syn = Frame::v4(compromised()).syn().no_ack();
        for (frame, fate) in [(plain, Fate::Passed), (syn, Fate::Dropped)] {
            for (program, bytes) in for_each_program(&frame) {
                programs.forget_flows().unwrap();
                assert_eq!(programs.run(program, &bytes).unwrap(), fate, "{program}");
            }
        }
    });
}
