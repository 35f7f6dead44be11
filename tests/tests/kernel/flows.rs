//! What the programs know of a flow from one segment to the next.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use tokenblock_ebpf::{
    flow::PlaceKeys,
    verdict::{Counter, PortSet},
};
use tokenblock_tests::{
    bpf::{Programs, Setup, frame::Frame},
    fixtures::{OPAQUE, Token},
    gate,
};

use crate::{each_variant, fixtures_listed};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// The program's verdict on what passes.
const PASS: u32 = u32::MAX;

/// A request of the client's at this sequence number.
fn request(sequence: u32) -> Vec<u8> {
    segment(sequence, REQUEST)
}

/// A segment of the client's at this sequence number.
fn segment(sequence: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let frame = Frame::v4(payload.as_ref()).at(sequence);
    frame.ethernet().unwrap()
}

/// The server's SYN and ACK, by which the client's first byte has this sequence number.
fn accepted(first: u32) -> Vec<u8> {
    Frame::v4("").answer(first).syn().ethernet().unwrap()
}

/// The server's acknowledgment of all before this sequence number.
fn acknowledged(end: u32) -> Vec<u8> {
    Frame::v4("").answer(end).ethernet().unwrap()
}

fn judged(programs: &mut Programs, frame: &[u8]) -> u32 {
    programs.repeat("ingress_ethernet", frame, 1).unwrap().0
}

#[test]
fn a_connection_goes_on_after_its_flow_was_swept() {
    let Some(mut programs) = fixtures_listed("a_connection_goes_on_after_its_flow_was_swept")
    else {
        return;
    };
    let first = 1000;
    let len = u32::try_from(REQUEST.len()).unwrap();
    programs.forget_flows().unwrap();
    programs
        .repeat("egress_ethernet", &accepted(first), 1)
        .unwrap();
    let late = |programs: &Programs| {
        let totals = programs.totals().unwrap();
        totals
            .get(Counter::MidStream.name())
            .copied()
            .unwrap_or_default()
    };
    assert_eq!(judged(&mut programs, &request(first)), PASS);
    assert_eq!(late(&programs), 0, "the handshake was seen");
    assert_eq!(judged(&mut programs, &request(first + len)), PASS);
    programs.sweep_flows().unwrap();
    assert_eq!(judged(&mut programs, &request(first + 2 * len)), PASS);
    assert_eq!(late(&programs), 1);
    assert_eq!(judged(&mut programs, &request(first + 3 * len)), PASS);
}

/// Where every port is protected, both ways: what the server takes is heard although its packets are judged too.
#[test]
fn answers_are_heard_where_every_packet_is_a_request() {
    if !gate::programs("answers_are_heard_where_every_packet_is_a_request") {
        return;
    }
    let setup = Setup {
        ports: PortSet::ALL,
        ..Setup::default()
    };
    let mut programs = Programs::with_fixtures(&setup).unwrap();
    let first = 1000;
    let len = u32::try_from(REQUEST.len()).unwrap();
    programs.forget_flows().unwrap();
    for (program, frame) in [
        ("egress_ethernet", accepted(first)),
        ("ingress_ethernet", request(first)),
        ("egress_ethernet", acknowledged(first + len)),
        ("ingress_ethernet", request(first)),
    ] {
        assert_eq!(programs.repeat(program, &frame, 1).unwrap().0, PASS);
    }
    let totals = programs.totals().unwrap();
    assert_eq!(totals[Counter::Settled.name()], 1, "{totals:?}");
}

/// An RST that the server would not believe (RFC 5961 section 3.2) ends nothing; one in its place does.
#[test]
fn only_an_rst_in_its_place_ends_a_connection() {
    let Some(mut programs) = fixtures_listed("only_an_rst_in_its_place_ends_a_connection") else {
        return;
    };
    let first = 1000;
    let len = u32::try_from(REQUEST.len()).unwrap();
    programs.forget_flows().unwrap();
    let hear = |programs: &mut Programs, frame: Vec<u8>| {
        programs.repeat("egress_ethernet", &frame, 1).unwrap();
    };
    hear(&mut programs, accepted(first));
    assert_eq!(judged(&mut programs, &request(first)), PASS);
    hear(&mut programs, acknowledged(first + len));
    let reset = |at| Frame::v4("").at(at).reset().ethernet().unwrap();
    let mut next = first + len;
    for elsewhere in [first, next - 1, next + 5000, 7] {
        judged(&mut programs, &reset(elsewhere));
        assert_eq!(judged(&mut programs, &request(next)), PASS, "{elsewhere}");
        next += len;
        hear(&mut programs, acknowledged(next));
    }
    let end = next;
    judged(&mut programs, &reset(end));
    assert_ne!(judged(&mut programs, &request(end)), PASS);
}

/// With its first byte percent-encoded.
fn escaped(text: &str) -> String {
    let (first, rest) = text.split_at(1);
    format!("%{:02x}{rest}", first.as_bytes()[0])
}

/// Wherever it is cut, in whatever block of its digest.
#[test]
fn a_token_in_two_segments_is_found() {
    const FIRST: u32 = 1000;
    for programs in &mut each_variant("a_token_in_two_segments_is_found") {
        for token in [Token::Opaque, Token::Long, Token::Jwt] {
            let basic = BASE64_STANDARD.encode(format!("user:{}", token.text()));
            for line in [
                format!("Authorization: Bearer {}", token.text()),
                format!("Authorization: Basic {basic}"),
                format!("Cookie: session={}", escaped(&token.text())),
            ] {
                let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n");
                for cut in (1..request.len()).step_by(7) {
                    let (one, two) = request.as_bytes().split_at(cut);
                    programs.forget_flows().unwrap();
                    programs
                        .repeat("egress_ethernet", &accepted(FIRST), 1)
                        .unwrap();
                    let first = judged(programs, &segment(FIRST, one));
                    let next = FIRST + u32::try_from(one.len()).unwrap();
                    let second = judged(programs, &segment(next, two));
                    let blocked = programs.events().len() == 1;
                    assert!(
                        blocked && (first != PASS || second != PASS),
                        "{:?}, {token:?} cut at {cut} of {line}",
                        programs.variant()
                    );
                }
            }
        }
    }
}

/// Segments of one flow on several CPUs wait for each other: of ten that came without a pause, as no packets do, seven
/// were dropped before they did.
#[test]
fn segments_of_one_flow_wait_for_each_other() {
    const TIMES: u32 = 50_000;
    const CPUS: u32 = 4;
    const FIRST: u32 = 1000;
    let Some(mut programs) = fixtures_listed("segments_of_one_flow_wait_for_each_other") else {
        return;
    };
    programs.forget_flows().unwrap();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
    let accepted = accepted(FIRST);
    programs.repeat("egress_ethernet", &accepted, 1).unwrap();
    assert_eq!(judged(&mut programs, &segment(FIRST, head)), PASS);
    // Ahead of a gap and within a line, which may be a target: read each time, and never passed.
    let ahead = FIRST + 2000;
    let frames: Vec<_> = (0..CPUS)
        .map(|cpu| segment(ahead + cpu, [b'x'; 1400]))
        .collect();
    programs.race("ingress_ethernet", &frames, TIMES).unwrap();
    let totals = programs.totals().unwrap();
    let [busy, early] = [Counter::FlowBusy, Counter::TooEarly].map(|way| totals[way.name()]);
    assert_eq!(busy + early, u64::from(CPUS * TIMES), "{totals:?}");
    assert!(busy < early / 2, "{totals:?}");
}

/// Offsets in an Ethernet frame of IPv6: the addresses.
const SOURCE_AT: usize = 22;
const DESTINATION_AT: usize = 38;

/// The frame with another address there.
fn with_another(address_at: usize, frame: &Frame) -> Vec<u8> {
    let mut other = frame.ethernet().unwrap();
    other[address_at + 15] ^= 1;
    other
}

/// What follows data on a SYN may be a decoy that passes the hook before the server's answer does, which acknowledges that data
/// alone: the state behind it is none of the start of a line.
#[test]
fn what_comes_before_the_answer_to_data_on_a_syn_takes_no_state_away() {
    let test = "what_comes_before_the_answer_to_data_on_a_syn_takes_no_state_away";
    let Some(mut programs) = fixtures_listed(test) else {
        return;
    };
    let (begun, rest) = OPAQUE.split_at(OPAQUE.len() / 2);
    let begun = format!("GET / HTTP/1.1\r\nAuthorization: Bearer {begun}");
    let syn = Frame::v4(begun.as_str()).at(1000).syn().no_ack();
    let behind = 1001 + u32::try_from(begun.len()).unwrap();
    let (syn, decoy) = (syn.ethernet().unwrap(), segment(behind, "x"));
    let rest = segment(behind, format!("{rest}\r\n\r\n"));
    let hears = |programs: &mut Programs| {
        let answer = programs.repeat("egress_ethernet", &accepted(behind), 1);
        assert_eq!(answer.unwrap().0, PASS);
    };
    let blocked = |programs: &Programs| programs.totals().unwrap()[Counter::Blocked.name()];
    // In front of the answer; behind it, where that comes again, as it does until the client is heard.
    for (early, late, again) in [
        (true, false, false),
        (false, false, true),
        (false, true, true),
    ] {
        programs.forget_flows().unwrap();
        let before = blocked(&programs);
        assert_eq!(judged(&mut programs, &syn), PASS);
        if early {
            judged(&mut programs, &decoy);
        }
        hears(&mut programs);
        if late {
            judged(&mut programs, &decoy);
        }
        if again {
            hears(&mut programs);
        }
        assert_ne!(judged(&mut programs, &rest), PASS, "{early}, {late}");
        // Behind a decoy it is a second copy, until it is known that the first was lost.
        assert_eq!(blocked(&programs) - before, u64::from(!late));
    }
}

/// Who shares a flow's place in the table is not judged in it.
#[test]
fn one_place_is_one_flow() {
    if !gate::programs("one_place_is_one_flow") {
        return;
    }
    let setup = Setup {
        newcomers: Some(64),
        // All flows have one place.
        place_keys: PlaceKeys::default(),
        ..Setup::default()
    };
    let mut programs = Programs::with_fixtures(&setup).unwrap();
    let (begun, rest) = OPAQUE.split_at(OPAQUE.len() / 2);
    let begun = format!("GET / HTTP/1.1\r\nAuthorization: Bearer {begun}");
    let rest = format!("{rest}\r\n\r\n");
    let next = Frame::SEQUENCE.wrapping_add(u32::try_from(begun.len()).unwrap());
    let first = Frame::v6(begun.as_str()).ethernet().unwrap();
    let second = Frame::v6(rest.as_str()).at(next);
    let stranger = with_another(SOURCE_AT, &second);
    let second = second.ethernet().unwrap();
    let strange = with_another(SOURCE_AT, &Frame::v6(begun.as_str()));
    let accepted = Frame::v6("").answer(Frame::SEQUENCE).syn();
    let accepted = with_another(DESTINATION_AT, &accepted);
    let blocked = |programs: &Programs| programs.totals().unwrap()[Counter::Blocked.name()];
    assert_eq!(judged(&mut programs, &first), PASS);
    // It stands for itself: the rest of something, but not of that.
    assert_ne!(judged(&mut programs, &stranger), PASS);
    assert_eq!(blocked(&programs), 0);
    let whole = with_another(SOURCE_AT, &Frame::v6(REQUEST));
    programs.repeat("egress_ethernet", &accepted, 1).unwrap();
    assert_eq!(judged(&mut programs, &whole), PASS);
    // There is no room for what would have to be kept of it.
    assert_ne!(judged(&mut programs, &strange), PASS);
    assert_eq!(programs.totals().unwrap()[Counter::FlowTableFull.name()], 2);
    assert_eq!(programs.count_flows().unwrap(), 1);
    assert_ne!(judged(&mut programs, &second), PASS);
    assert_eq!(blocked(&programs), 1);
}

/// On their way out second copies pass that say the same, however long they are; others are dropped.
#[test]
fn a_second_copy_on_its_way_out_passes() {
    let test = "a_second_copy_on_its_way_out_passes";
    for mut programs in each_variant(test) {
        let body = 2900;
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {body}\r\n\r\n");
        let sent = [head.as_bytes(), &vec![b'b'; body]].concat();
        let first = 1000;
        let next = first + u32::try_from(sent.len()).unwrap();
        programs.forget_flows().unwrap();
        let before = programs.totals().unwrap();
        let mut judge = |program, frame: Vec<u8>| programs.repeat(program, &frame, 1).unwrap().0;
        assert_eq!(judge("ingress_ethernet", accepted(first)), PASS);
        for _ in 0..3 {
            assert_eq!(judge("egress_ethernet", segment(first, &sent)), PASS);
        }
        assert_eq!(judge("egress_ethernet", request(next)), PASS);
        for at in [0, 2047, 2048, sent.len() - 1] {
            let mut other = sent.clone();
            other[at] ^= 1;
            assert_ne!(
                judge("egress_ethernet", segment(first, &other)),
                PASS,
                "{at}"
            );
        }
        // Where both follow each other they may come in one.
        let both = [&sent[..], REQUEST.as_bytes()].concat();
        assert_eq!(judge("egress_ethernet", segment(first, &both)), PASS);
        let totals = programs.totals().unwrap();
        let counted = |counter: Counter| {
            let name = counter.name();
            totals[name] - before[name]
        };
        assert_eq!(counted(Counter::Copied), 3, "{totals:?}");
        assert_eq!(counted(Counter::Duplicate), 4, "{totals:?}");
        assert_eq!(counted(Counter::Clean), 2, "{totals:?}");
    }
}
