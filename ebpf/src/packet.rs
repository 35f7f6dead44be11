//! From a frame to the TCP payload.
