//! The proxy tier between real clients and real servers, over real sockets.
#![expect(
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_in_result,
    clippy::unwrap_used,
    reason = "a test that panics has failed"
)]

mod checks;
mod inspection;
mod interim;
mod lane;
mod lifecycle;
mod limits;
mod messages;
mod plain;
mod preamble;

mod routes;
mod smuggling;
mod streams;
mod support;
mod tls;
mod upstream;
