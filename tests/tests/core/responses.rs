//! Conversations of any kind: no 403 stands inside of a response.

use proptest::prelude::*;
use tokenblock_tests::fuzz;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn no_403_stands_inside_of_a_response(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz::response(&bytes);
    }
}
