//! Whole-host tests: harness and fixtures.
