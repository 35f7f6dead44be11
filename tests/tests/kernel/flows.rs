//! What the programs know of a flow from one segment to the next.

use tokenblock_ebpf::verdict::Counter;
use tokenblock_tests::bpf::{Programs, frame::Frame, name};

use crate::fixtures_listed;

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// The program's verdict on what passes.
const PASS: u32 = u32::MAX;
/// Offset of the TCP header behind Ethernet and IPv4.
const TCP_AT: usize = 14 + 20;

/// A segment of the client's at this sequence number.
fn request(sequence: u32) -> Vec<u8> {
    let mut frame = Frame::v4(REQUEST).ethernet().unwrap();
    frame[TCP_AT + 4..TCP_AT + 8].copy_from_slice(&sequence.to_be_bytes());
    frame
}

/// The server's SYN and ACK, by which the client's first byte has this sequence number.
fn accepted(first: u32) -> Vec<u8> {
    let mut frame = Frame::v4("").ethernet().unwrap();
    let (sources, destinations) = (
        [26..30, TCP_AT..TCP_AT + 2],
        [30..34, TCP_AT + 2..TCP_AT + 4],
    );
    for (source, destination) in sources.into_iter().zip(destinations) {
        let kept = frame[source.clone()].to_vec();
        frame.copy_within(destination.clone(), source.start);
        frame[destination].copy_from_slice(&kept);
    }
    frame[TCP_AT + 8..TCP_AT + 12].copy_from_slice(&first.to_be_bytes());
    // SYN and ACK.
    frame[TCP_AT + 13] = 0x12;
    frame
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
            .get(name(Counter::MidStream))
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
