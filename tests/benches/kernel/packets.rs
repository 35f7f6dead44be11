//! The packets that are measured.

use std::{fmt::Write as _, net::Ipv4Addr};

use anyhow::{Context as _, Result};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use tokenblock_tests::{
    bench::request::{self, TOKEN, opaque, random},
    bpf::frame::Frame,
};

const KIB: usize = 1024;

/// Bytes of headers in each frame here: Ethernet, IPv4, TCP with timestamps.
const HEADERS: usize = 14 + 20 + 32;
/// Both timestamps of each frame: their order is what counts, and all are sent at once.
const STAMP: u32 = 1;
/// Offset of the source address in them.
const SOURCE_AT: usize = 14 + 12;
/// Offset of the destination address in them.
const DESTINATION_AT: usize = SOURCE_AT + 4;
/// Offset of the sequence number in them.
const SEQUENCE_AT: usize = 14 + 20 + 4;

/// The frame with this sequence number; checksums, which the programs leave to the host, stay as they were.
pub(crate) fn at(frame: &[u8], sequence: u32) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[SEQUENCE_AT..SEQUENCE_AT + 4].copy_from_slice(&sequence.to_be_bytes());
    frame
}

/// The sequence number behind a frame that begins at `start`.
pub(crate) fn end(frame: &[u8], start: u32) -> Result<u32> {
    Ok(start.wrapping_add(u32::try_from(frame.len() - HEADERS)?))
}

/// The payload of a frame that is none of [`other_port`]'s.
pub(crate) fn payload(frame: &[u8]) -> &[u8] {
    frame.get(HEADERS..).unwrap_or_default()
}

/// The frame behind another one of its connection.
pub(crate) fn behind(frame: &[u8], before: &[u8]) -> Result<Vec<u8>> {
    Ok(at(frame, end(before, Frame::SEQUENCE)?))
}

/// The server's SYN, by which a connection begins.
pub(crate) fn accepted() -> Result<Vec<u8>> {
    let syn = Frame::v4("").at(Frame::ACKNOWLEDGES.wrapping_sub(1));
    let syn = syn.answer(Frame::SEQUENCE).syn();
    syn.stamped(STAMP, STAMP).ethernet()
}

/// The frame as another client sends it.
pub(crate) fn from_client(frame: &[u8], client: u32) -> Vec<u8> {
    with_address(frame, SOURCE_AT, client)
}

/// The server's frame as it is sent to another client.
pub(crate) fn to_client(frame: &[u8], client: u32) -> Vec<u8> {
    with_address(frame, DESTINATION_AT, client)
}

fn with_address(frame: &[u8], at: usize, client: u32) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let address = Ipv4Addr::new(10, 0, 0, 0).to_bits() + client;
    frame[at..at + 4].copy_from_slice(&address.to_be_bytes());
    frame
}

/// A JWT of 800 bytes: a header, a payload of claims, a signature of 256 bytes.
pub(crate) fn jwt(label: &str) -> String {
    const SIGNATURE: usize = 342;
    let header = BASE64_URL_SAFE_NO_PAD.encode(br#"{"alg":"RS256","typ":"JWT"}"#);
    let payload = opaque(&format!("{label} payload"));
    let signature = opaque(&format!("{label} signature"));
    let payload_len = TOKEN - header.len() - 2 - SIGNATURE;
    let cut = |text: &str, len| text.chars().take(len).collect::<String>();
    format!(
        "{header}.{}.{}",
        cut(&payload, payload_len),
        cut(&signature, SIGNATURE)
    )
}

/// A request of 1.1 kB: eight header lines, one of them with the token.
pub(crate) fn request(token: &str) -> Result<Vec<u8>> {
    let headers = request::headers(token).join("\r\n");
    frame(format!(
        "GET {} HTTP/1.1\r\n{headers}\r\n\r\n",
        request::TARGET
    ))
}

/// Requests as [`request`] has them, each of which has a number of its own among its header lines: what a flow remembers of
/// one is of no use for the next.
pub(crate) fn numbered(token: &str, requests: usize) -> Result<Vec<Vec<u8>>> {
    let headers = request::headers(token).join("\r\n");
    let (before, behind) = headers
        .split_once(request::ID)
        .context("no number to replace")?;
    let len = request::ID.len();
    let number = |n| {
        let target = request::TARGET;
        frame(format!(
            "GET {target} HTTP/1.1\r\n{before}{n:0len$}{behind}\r\n\r\n"
        ))
    };
    (0..requests).map(number).collect()
}

/// A request without credentials.
pub(crate) fn small_request() -> Result<Vec<u8>> {
    frame("GET / HTTP/1.1\r\nHost: api.example.org\r\nAccept: */*\r\n\r\n")
}

/// The head of a request with a body of 1 GiB.
pub(crate) fn body_head() -> Result<Vec<u8>> {
    frame("POST /items HTTP/1.1\r\nHost: api.example.org\r\nContent-Length: 1073741824\r\n\r\n")
}

/// A segment of so many KiB out of the middle of a JSON body.
pub(crate) fn json_body(kib: usize) -> Result<Vec<u8>> {
    let mut text = String::new();
    let mut id = 100_000;
    while text.len() < kib * KIB {
        write!(
            text,
            r#"{{"id":{id},"name":"item {id}","tags":["a","b"],"price":12.50,"in_stock":true}},"#
        )?;
        id += 7;
    }
    frame(&text.as_bytes()[..kib * KIB])
}

/// A segment of so many KiB of a text body with lines of 80 bytes.
pub(crate) fn text_body(kib: usize) -> Result<Vec<u8>> {
    let line = "The quick brown fox jumps over the lazy dog, and the dog wonders what that was.\n";
    frame(&line.repeat(13 * kib).as_bytes()[..kib * KIB])
}

/// A segment of so many KiB of an incompressible body.
pub(crate) fn random_body(kib: usize) -> Result<Vec<u8>> {
    frame(random("body", kib * KIB))
}

/// An acknowledgment without payload.
pub(crate) fn acknowledgment() -> Result<Vec<u8>> {
    frame("")
}

/// The usual request to a port that is not protected.
pub(crate) fn other_port() -> Result<Vec<u8>> {
    let token = opaque("other port");
    Frame::v4(format!(
        "GET / HTTP/1.1\r\nAuthorization: Bearer {token}\r\n\r\n"
    ))
    .to_port(9)
    .ethernet()
}

fn frame(payload: impl Into<Vec<u8>>) -> Result<Vec<u8>> {
    Frame::v4(payload).stamped(STAMP, STAMP).ethernet()
}
