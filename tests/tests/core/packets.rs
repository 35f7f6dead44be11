//! Frames of any kind, whole and broken: what is read of them is what stands there, in whichever way it is read.

use proptest::prelude::*;
use tokenblock_ebpf::packet::{Head, Segment, parse_usual};
use tokenblock_tests::{bpf::frame::Frame, fuzz};

fn frames() -> impl Strategy<Value = Frame> {
    let version = prop::sample::select(vec![Frame::v4, Frame::v6]);
    (
        version,
        0..100_usize,
        0..=10_usize,
        0..=2_usize,
        any::<(bool, bool, u32)>(),
    )
        .prop_map(|(version, payload, tcp, ip, (stamped, answers, stamp))| {
            let mut frame = version(vec![b'x'; payload]).tcp_options(tcp).unwrap();
            if stamped {
                frame = frame.stamped(stamp, !stamp);
            }
            if answers {
                frame = frame.answer(stamp);
            }
            // Most have none.
            frame.ip_options(ip / 2)
        })
}

/// Whether all of it is usual that is read where it lies.
fn is_usual(frame: &Frame) -> bool {
    let bytes = frame.ethernet().unwrap();
    let len = u32::try_from(bytes.len()).unwrap();
    parse_usual(&Head::of(&bytes), len, &mut Segment::default())
}

#[test]
fn usual_ones_are_read_where_they_lie() {
    for frame in [Frame::v4("x"), Frame::v6("x")] {
        assert!(is_usual(&frame));
        assert!(is_usual(&frame.clone().stamped(1, 2)));
        assert!(is_usual(&frame.clone().answer(3).syn()));
        assert!(!is_usual(&frame.tagged(&[0x8100])));
    }
    assert!(!is_usual(&Frame::v4("x").ip_options(1)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn they_are_read_as_what_they_are(
        frame in frames(),
        kept in 0..240_usize,
        changes in prop::collection::vec((0..90_usize, any::<u8>()), 0..4),
    ) {
        let mut bytes = frame.ethernet().unwrap();
        fuzz::packet(&bytes);
        for (at, byte) in changes {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        bytes.truncate(kept);
        fuzz::packet(&bytes);
    }
}
