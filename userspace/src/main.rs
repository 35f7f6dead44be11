//! The `tokenblock` binary.

fn main() {}
