//! Conversations of any kind: no 403 stands inside of a response.

use proptest::prelude::*;
use tokenblock_ebpf::response::{HEAD, Head};
use tokenblock_tests::{
    engine::{said, said_within},
    fuzz,
};

/// A response, often the same as another: of so long a head, with so long a body, framed in one of four ways, one letter of it
/// as it is given.
fn response(pad: usize, len: usize, way: usize, letter: char) -> Vec<u8> {
    let pad = "p".repeat(pad * 90);
    let framed = match way {
        0 => format!("Content-Length: {len}"),
        1 => "Transfer-Encoding: chunked".to_owned(),
        2 => format!("Content-Lengte: {len}"),
        _ => format!("Content-Length: {}", len % 7),
    };
    let body = "b".repeat(len);
    format!("HTTP/1.1 200 OK\r\nA: {letter}{pad}\r\n{framed}\r\n\r\n{body}").into_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn no_403_stands_inside_of_a_response(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz::response(&bytes);
    }

    /// Whatever was read before it, and however much of it is there.
    #[test]
    fn a_head_that_is_known_says_what_it_says(
        acts in prop::collection::vec((0..8_usize, 0..2_usize, 0..4_usize, 0..40_usize, 0..3_usize), 1..60)
    ) {
        let mut head = Head::default();
        for (pad, len, way, other, cut) in acts {
            let letter = if other == 0 { 'y' } else { 'x' };
            let mut bytes = response(pad * pad, 7 * len, way, letter);
            bytes.truncate(bytes.len() - cut);
            let expected = said_within(&mut Head::default(), &bytes, HEAD);
            prop_assert_eq!(said(&mut head, &bytes), expected);
        }
    }
}
