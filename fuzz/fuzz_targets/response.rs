#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tokenblock_tests::fuzz::response(bytes));
