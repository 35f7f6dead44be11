//! Options of Multipath TCP, wherever they stand.

use tokenblock_ebpf::verdict::Counter;
use tokenblock_tests::bpf::frame::Frame;

use crate::fixtures_listed;

/// What passes.
const PASS: u32 = u32::MAX;

/// Options, and the places of the kinds among them that are no more what they were.
const CASES: [(&[u8], &[usize]); 13] = [
    (&[30, 4, 0, 1], &[0]),
    (&[1, 30, 3, 9], &[1]),
    (&[2, 4, 5, 180, 4, 2, 1, 30, 4, 1, 1, 1], &[7]),
    (&[1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 9, 30, 4, 0, 1], &[12]),
    (&[8, 10, 0, 0, 0, 9, 0, 0, 0, 9, 30, 6, 0, 1, 1, 1], &[10]),
    (&[30, 3, 9, 30, 3, 9, 1, 1], &[0, 3]),
    (
        &[
            30, 40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ],
        &[0],
    ),
    // Forty of one byte at most.
    (
        &[
            1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
            1, 1, 1, 1, 1, 1, 1, 1, 30, 3, 1,
        ],
        &[37],
    ),
    // Within another option, behind the end of all, of no length or of too much: receivers see none.
    (&[5, 10, 30, 4, 0, 0, 30, 4, 0, 0, 1, 1], &[]),
    (&[0, 30, 3, 1], &[]),
    (&[30, 1, 30, 2], &[]),
    (&[30, 5, 1, 1], &[]),
    (&[2, 4, 5, 30], &[]),
];

#[test]
fn each_is_one_of_no_meaning() {
    let Some(mut programs) = fixtures_listed("each_is_one_of_no_meaning") else {
        return;
    };
    let mut hidden = 0;
    for (options, places) in CASES {
        let mut others = options.to_vec();
        for place in places {
            others[*place] = 253;
        }
        let request = "GET / HTTP/1.1\r\n\r\n";
        for frame in [
            Frame::v4("").syn(),
            Frame::v6("").syn(),
            Frame::v4(request),
            Frame::v6(request),
        ] {
            let made = |options| frame.clone().options(options).unwrap().ethernet().unwrap();
            programs.forget_flows().unwrap();
            let rewritten = programs
                .rewrite("ingress_ethernet", &made(options))
                .unwrap();
            assert_eq!(rewritten, (PASS, made(&others)), "{options:?}");
            hidden += u64::from(!places.is_empty());
        }
    }
    let totals = programs.totals().unwrap();
    assert_eq!(totals[Counter::Multipath.name()], hidden);
}
