//! What XDP drops of a connection that was blocked, and what it leaves alone.

use tokenblock_ebpf::verdict::Counter;
use tokenblock_tests::bpf::{
    Fate,
    frame::{CUSTOMER_TAG, Frame, PROVIDER_TAG},
};

use crate::{compromised, fixtures_listed};

/// However frames are tagged, before the kernel takes the tags off.
#[test]
fn what_is_left_of_a_blocked_connection_is_dropped() {
    let Some(mut programs) = fixtures_listed("what_is_left_of_a_blocked_connection_is_dropped")
    else {
        return;
    };
    for make in [
        |payload: &[u8]| Frame::v4(payload),
        |payload: &[u8]| Frame::v6(payload),
    ] {
        for tags in [&[][..], &[CUSTOMER_TAG], &[PROVIDER_TAG, CUSTOMER_TAG]] {
            let frame = |payload: &[u8]| make(payload).tagged(tags);
            let request = frame(&compromised()).ethernet().unwrap();
            programs.forget_flows().unwrap();
            assert!(programs.passes_xdp(&request).unwrap(), "{tags:?}");
            let fate = programs.run("ingress_ethernet", &request).unwrap();
            assert_eq!(fate, Fate::Dropped, "{tags:?}");
            let before = programs.totals().unwrap();
            assert!(!programs.passes_xdp(&request).unwrap(), "{tags:?}");
            let later = frame(b"more").at(Frame::SEQUENCE.wrapping_add(500));
            let later = later.ethernet().unwrap();
            assert!(!programs.passes_xdp(&later).unwrap(), "{tags:?}");
            for other in [
                frame(b"more").to_port(Frame::SERVER_PORT + 1),
                // Bare acknowledgments, an end, and a new beginning are for the host.
                frame(b""),
                frame(b"").reset(),
                frame(b"").syn().no_ack(),
                frame(b"more").answer(7),
            ] {
                let bytes = other.ethernet().unwrap();
                assert!(programs.passes_xdp(&bytes).unwrap(), "{tags:?} {other:?}");
            }
            // Apart from the hits.
            let after = programs.totals().unwrap();
            let more = |counter: Counter| after[counter.name()] - before[counter.name()];
            assert_eq!(more(Counter::XdpBlocked), 2, "{tags:?}");
            assert_eq!(more(Counter::Blocked), 0, "{tags:?}");
            assert_eq!(more(Counter::BlockedAgain), 0, "{tags:?}");
        }
    }
}

/// Frames of any length, and what is no TCP.
#[test]
fn what_it_can_t_read_passes() {
    let Some(mut programs) = fixtures_listed("what_it_can_t_read_passes") else {
        return;
    };
    let request = Frame::v4(compromised()).ethernet().unwrap();
    programs.run("ingress_ethernet", &request).unwrap();
    // Test runs take no less than an Ethernet header.
    for len in 14..54 {
        assert!(programs.passes_xdp(&request[..len]).unwrap(), "{len}");
    }
    let mut udp = request.clone();
    udp[23] = 17;
    assert!(programs.passes_xdp(&udp).unwrap());
    assert!(!programs.passes_xdp(&request).unwrap());
}
