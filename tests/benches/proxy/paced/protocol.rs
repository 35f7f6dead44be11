//! What is said on a connection: HTTP/1.1 or HTTP/2, no more of it than a load takes.

use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use tokenblock_tests::certificate::Certificate;

use crate::load::Load;

/// As many bytes as h2load takes, on a stream and on all.
const WINDOW: u32 = (1 << 30) - 1;
/// Where a connection's window begins (RFC 9113 section 6.9.2).
const FIRST_WINDOW: u32 = 65_535;

/// Types of frames (RFC 9113 section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// Flags of frames.
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// `:status: 200`, indexed (RFC 7541 appendix A).
const STATUS_200: u8 = 0x88;

/// One end of a connection.
pub(super) enum Protocol {
    Http1 {
        request: Vec<u8>,
        refused: bool,
        due: Option<Instant>,
        input: Vec<u8>,
    },
    Http2(Http2),
}

impl Protocol {
    /// As a load asks.
    pub(super) fn new(load: &Load) -> Self {
        let authorization = load.authorization();
        if load.http2 {
            let value = authorization
                .split_once(": ")
                .map_or("", |(_, value)| value);
            return Self::Http2(Http2::new(value, load.listed));
        }
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {}\r\n{authorization}\r\n\r\n",
            Certificate::HOST
        );
        Self::Http1 {
            request: request.into(),
            refused: load.listed,
            due: None,
            input: Vec::new(),
        }
    }

    pub(super) fn alpn(&self) -> &'static [u8] {
        match self {
            Self::Http1 { .. } => b"http/1.1",
            Self::Http2(_) => b"h2",
        }
    }

    /// What comes before the first request.
    pub(super) fn begin(&mut self) -> Vec<u8> {
        let Self::Http2(_) = self else {
            return Vec::new();
        };
        let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        // SETTINGS_INITIAL_WINDOW_SIZE.
        let setting = [&4_u16.to_be_bytes()[..], &WINDOW.to_be_bytes()].concat();
        frame(&mut out, SETTINGS, 0, 0, &setting);
        frame(
            &mut out,
            WINDOW_UPDATE,
            0,
            0,
            &(WINDOW - FIRST_WINDOW).to_be_bytes(),
        );
        out
    }

    /// The next request, that was due then.
    pub(super) fn request(&mut self, at: Instant) -> &[u8] {
        match self {
            Self::Http1 { request, due, .. } => {
                *due = Some(at);
                request
            }
            Self::Http2(http2) => http2.request(at),
        }
    }

    /// What came and was not taken yet.
    pub(super) fn input(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Http1 { input, .. } => input,
            Self::Http2(http2) => &mut http2.input,
        }
    }

    /// Takes whole answers, and gives when they were due; and what has to be said to that.
    pub(super) fn take(&mut self, done: &mut Vec<Instant>) -> Result<Vec<u8>> {
        match self {
            Self::Http1 {
                refused,
                due,
                input,
                ..
            } => {
                if let Some((len, status)) = response(input)? {
                    ensure!(
                        status == if *refused { 403 } else { 200 },
                        "status {status}"
                    );
                    input.drain(..len);
                    done.push(due.take().context("an answer to nothing")?);
                }
                Ok(Vec::new())
            }
            Self::Http2(http2) => http2.take(done),
        }
    }
}

/// Length and status of a response that is there to its end.
fn response(input: &[u8]) -> Result<Option<(usize, u16)>> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut parsed = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head) = parsed.parse(input)? else {
        return Ok(None);
    };
    let length = parsed
        .headers
        .iter()
        .find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let length: usize =
        str::from_utf8(length.context("an answer without a length")?.value)?.parse()?;
    let status = parsed.code.context("no status")?;
    Ok((input.len() >= head + length).then_some((head + length, status)))
}

/// A connection of HTTP/2.
pub(super) struct Http2 {
    /// The fields of the first request; the table holds what is long from then on.
    first: Vec<u8>,
    refused: bool,
    next: u32,
    open: Vec<(u32, Instant)>,
    output: Vec<u8>,
    input: Vec<u8>,
}

impl Http2 {
    fn new(authorization: &str, refused: bool) -> Self {
        // GET, https, /; authority and authorization into the table (RFC 7541 section 6.2.1).
        let mut first = vec![0x82, 0x87, 0x84];
        for (name, value) in [(0x41, Certificate::HOST), (0x57, authorization)] {
            // Both are shorter than a length of one byte can say.
            first.extend([name, u8::try_from(value.len()).unwrap_or(0)]);
            first.extend(value.bytes());
        }
        Self {
            first,
            refused,
            next: 1,
            open: Vec::new(),
            output: Vec::new(),
            input: Vec::new(),
        }
    }

    fn request(&mut self, at: Instant) -> &[u8] {
        let block = if self.next == 1 {
            &self.first[..]
        } else {
            &[0x82, 0x87, 0x84, 0xbf, 0xbe]
        };
        self.output.clear();
        frame(
            &mut self.output,
            HEADERS,
            END_STREAM | END_HEADERS,
            self.next,
            block,
        );
        self.open.push((self.next, at));
        self.next += 2;
        &self.output
    }

    fn take(&mut self, done: &mut Vec<Instant>) -> Result<Vec<u8>> {
        let mut owed = Vec::new();
        let mut at = 0;
        while let Some((head, rest)) = self.input[at..].split_first_chunk::<9>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let Some(payload) = rest.get(..length) else {
                break;
            };
            at += head.len() + length;
            match kind {
                HEADERS => {
                    // A table that changes its size says so in front.
                    let status = payload.iter().find(|byte| *byte >> 5 != 1);
                    let refused = status != Some(&STATUS_200);
                    ensure!(
                        refused == self.refused,
                        "an answer with the status {status:02x?}"
                    );
                }
                SETTINGS if flags & ACK == 0 => frame(&mut owed, SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => frame(&mut owed, PING, ACK, 0, payload),
                RST_STREAM | GOAWAY => bail!("a frame of the type {kind}: {payload:02x?}"),
                _ => {}
            }
            if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
                let place = self.open.iter().position(|(id, _)| *id == stream);
                done.push(
                    self.open
                        .swap_remove(place.context("an answer to nothing")?)
                        .1,
                );
            }
        }
        self.input.drain(..at);
        Ok(owed)
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes();
    out.extend(&length[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
}
