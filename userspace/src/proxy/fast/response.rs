//! The head of a response: how long its body is (RFC 9112 section 6.3), and what a client gets of it.

use std::{io::Write as _, mem::MaybeUninit};

use httparse::{Header, ParserConfig, Response, Status};

use super::{chunks::Chunks, framing::Framing};
use crate::proxy::{date, hop};

/// Fields that a response may have.
const FIELDS: usize = 128;

/// What an upstream has said so far.
pub(super) enum Reading<T> {
    /// No whole head.
    Partial,
    /// Something said in between (1xx), of so many bytes; the response is still to come.
    Interim(usize),
    /// No response that could be passed on.
    Malformed,
    /// A response.
    Whole(Head<T>),
}

/// A response's head, which was made the client's.
pub(in crate::proxy) struct Head<T> {
    /// As the client gets it.
    pub(in crate::proxy) made: T,
    /// How many bytes it had.
    pub(in crate::proxy) len: usize,
    pub(in crate::proxy) framing: Framing,
    /// Whether the upstream keeps the connection open behind it.
    pub(in crate::proxy) keeps: bool,
}

/// A response's head as it was read.
pub(in crate::proxy) struct Parsed<'a> {
    pub(in crate::proxy) status: u16,
    reason: &'a str,
    fields: &'a [Header<'a>],
    said: &'a Said,
    framing: &'a Framing,
}

/// What the fields say of the message and of the connection.
#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a thing of its own that a field says"
)]
struct Said {
    length: Option<u64>,
    chunked: bool,
    closes: bool,
    has_date: bool,
    /// Whether `Connection` names fields.
    names: bool,
}

/// Reads a response's head and makes the client's of it; where that can't be, it is malformed.
pub(super) fn read<T>(
    input: &[u8],
    is_head: bool,
    rewrite: impl FnOnce(&Parsed<'_>) -> Option<T>,
) -> Reading<T> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut response = Response::new(&mut []);
    let parser = ParserConfig::default();
    let read = parser.parse_response_with_uninit_headers(&mut response, input, &mut fields);
    let len = match read {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return Reading::Partial,
        Err(_) => return Reading::Malformed,
    };
    let (Some(status), Some(version)) = (response.code, response.version) else {
        return Reading::Malformed;
    };
    match status {
        // Nobody asked for another protocol.
        101 => return Reading::Malformed,
        100..=199 => return Reading::Interim(len),
        200..=999 => {}
        _ => return Reading::Malformed,
    }
    let Some(said) = read_fields(response.headers) else {
        return Reading::Malformed;
    };
    let empty = is_head || matches!(status, 204 | 304);
    let framing = match said {
        _ if empty => Framing::Length(0),
        Said { chunked: true, .. } => Framing::Chunked(Chunks::new()),
        Said {
            length: Some(length),
            ..
        } => Framing::Length(length),
        _ => Framing::UntilClose,
    };
    let made = rewrite(&Parsed {
        status,
        reason: response.reason.unwrap_or_default(),
        fields: response.headers,
        said: &said,
        framing: &framing,
    });
    let Some(made) = made else {
        return Reading::Malformed;
    };
    Reading::Whole(Head {
        made,
        len,
        // What says two lengths may have meant either: nothing more is read behind it.
        keeps: version == 1 && !said.closes && !(said.chunked && said.length.is_some()),
        framing,
    })
}

/// Makes the client's of what is said in between; `None` where that is for us alone: `100 Continue` was asked for by
/// nobody behind us, and what is malformed is left out.
pub(super) fn read_interim<T>(input: &[u8], make: impl FnOnce(&Parsed<'_>) -> T) -> Option<T> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut response = Response::new(&mut []);
    let parser = ParserConfig::default();
    let read = parser.parse_response_with_uninit_headers(&mut response, input, &mut fields);
    read.ok()?;
    let status = response.code.filter(|status| *status != 100)?;
    Some(make(&Parsed {
        status,
        reason: response.reason.unwrap_or_default(),
        said: &read_fields(response.headers)?,
        fields: response.headers,
        framing: &Framing::Length(0),
    }))
}

impl Parsed<'_> {
    /// Writes the first line, and all fields but those that end here and those of the length.
    fn begin(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"HTTP/1.1 ");
        write_number(out, u64::from(self.status));
        out.push(b' ');
        out.extend_from_slice(self.reason.as_bytes());
        out.extend_from_slice(b"\r\n");
        for field in self.passed_on() {
            hop::write_field(out, field.name, field.value);
        }
    }

    /// Writes what a client of HTTP/1.1 is told in between.
    pub(super) fn write_interim(&self, out: &mut Vec<u8>) {
        self.begin(out);
        out.extend_from_slice(b"\r\n");
    }

    /// Writes the head that a client of HTTP/1.1 gets; `ending` says that the connection ends behind it.
    pub(super) fn write(&self, ending: bool, out: &mut Vec<u8>) {
        self.begin(out);
        if let Some(length) = self.length() {
            out.extend_from_slice(b"content-length: ");
            write_number(out, length);
            out.extend_from_slice(b"\r\n");
        }
        if !matches!(self.framing, Framing::Length(_)) {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        if !self.has_date() {
            hop::write_field(out, "date", &date::now());
        }
        if ending {
            out.extend_from_slice(b"connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }

    /// All fields but those that end here and those of the length.
    pub(in crate::proxy) fn passed_on(&self) -> impl Iterator<Item = &Header<'_>> {
        self.fields.iter().filter(|field| {
            let named = self.said.names && hop::is_named(field.name, self.fields);
            !hop::ends_here(field.name)
                && !named
                && !field.name.eq_ignore_ascii_case("content-length")
        })
    }

    /// The length that the client is told.
    pub(in crate::proxy) fn length(&self) -> Option<u64> {
        let length = self.said.length;
        length.filter(|_| !self.said.chunked && self.status != 204)
    }

    /// Whether the upstream has said when it answered.
    pub(in crate::proxy) fn has_date(&self) -> bool {
        self.said.has_date
    }
}

/// `None` where they contradict each other, or say what isn't understood.
fn read_fields(fields: &[Header<'_>]) -> Option<Said> {
    let mut said = Said::default();
    for field in fields {
        let is = |known: &str| field.name.eq_ignore_ascii_case(known);
        match field.name.len() {
            4 if is("date") => said.has_date = true,
            10 if is("connection") => {
                for option in field.value.split(|byte| *byte == b',') {
                    let option = option.trim_ascii();
                    if option.eq_ignore_ascii_case(b"close") {
                        said.closes = true;
                    } else if !option.eq_ignore_ascii_case(b"keep-alive") {
                        said.names = true;
                    }
                }
            }
            14 if is("content-length") => {
                let length = length(field.value)?;
                if said.length.is_some_and(|other| other != length) {
                    return None;
                }
                said.length = Some(length);
            }
            17 if is("transfer-encoding") => {
                if said.chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return None;
                }
                said.chunked = true;
            }
            _ => {}
        }
    }
    Some(said)
}

/// Digits alone, or the same digits several times with commas between (RFC 9110 section 8.6).
fn length(value: &[u8]) -> Option<u64> {
    let mut lengths = value.split(|byte| *byte == b',').map(|one| {
        let digits = one.trim_ascii();
        let only_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        let text = std::str::from_utf8(digits).ok()?;
        only_digits.then(|| text.parse::<u64>().ok()).flatten()
    });
    let first = lengths.next()??;
    lengths.all(|other| other == Some(first)).then_some(first)
}

/// In decimal digits.
fn write_number(out: &mut Vec<u8>, number: u64) {
    // Writing to memory doesn't fail.
    let _written = write!(out, "{number}").is_ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(parsed: &Parsed<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        parsed.write(false, &mut out);
        out
    }

    fn head(input: &str) -> Option<(String, Framing, bool)> {
        match read(input.as_bytes(), false, |parsed| Some(written(parsed))) {
            Reading::Whole(head) => {
                assert_eq!(head.len, input.len());
                let text = String::from_utf8(head.made).unwrap();
                Some((text, head.framing, head.keeps))
            }
            Reading::Malformed => None,
            Reading::Partial | Reading::Interim(_) => panic!("{input:?}"),
        }
    }

    #[test]
    fn a_body_has_one_length() {
        let framing = |fields: &str| {
            let head = head(&format!("HTTP/1.1 200 OK\r\nDate: x\r\n{fields}\r\n"));
            head.map(|(text, framing, keeps)| (text, format!("{framing:?}"), keeps))
        };
        let ok = |fields: &str, wanted: &str, keeps: bool, sent: &str| {
            let (text, framing, kept) = framing(fields).unwrap();
            assert!(framing.starts_with(wanted), "{fields:?}: {framing}");
            assert_eq!(kept, keeps, "{fields:?}");
            assert_eq!(text, format!("HTTP/1.1 200 OK\r\nDate: x\r\n{sent}\r\n"));
        };
        ok(
            "Content-Length: 7\r\n",
            "Length(7)",
            true,
            "content-length: 7\r\n",
        );
        ok(
            "Content-Length: 7, 7\r\ncontent-length: 7\r\n",
            "Length(7)",
            true,
            "content-length: 7\r\n",
        );
        let chunked = "transfer-encoding: chunked\r\n";
        ok("Transfer-Encoding: Chunked\r\n", "Chunked", true, chunked);
        // Two ways to read it: chunks it is (RFC 9112 section 6.3), but nothing more from this connection.
        ok(
            "Content-Length: 7\r\nTransfer-Encoding: chunked\r\n",
            "Chunked",
            false,
            chunked,
        );
        ok("", "UntilClose", true, chunked);
        for fields in [
            "Content-Length: 7\r\nContent-Length: 8\r\n",
            "Content-Length: 7, 8\r\n",
            "Content-Length: +7\r\n",
            "Content-Length: 7 7\r\n",
            "Content-Length: \r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ] {
            assert!(framing(fields).is_none(), "{fields:?}");
        }
    }

    #[test]
    fn what_ends_here_is_not_passed_on() {
        let (text, _, keeps) = head(
            "HTTP/1.1 404 Nothing Here\r\nDate: x\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\n\
             Keep-Alive: timeout=5\r\nUpgrade: h2c\r\nContent-Length: 0\r\nServer: s\r\n\r\n",
        )
        .unwrap();
        assert!(!keeps);
        assert_eq!(
            text,
            "HTTP/1.1 404 Nothing Here\r\nDate: x\r\nServer: s\r\ncontent-length: 0\r\n\r\n"
        );
    }

    #[test]
    fn interim_responses_are_not_the_response() {
        let read = |input: &str| read(input.as_bytes(), false, |parsed| Some(written(parsed)));
        assert!(matches!(
            read("HTTP/1.1 103 Early\r\nLink: x\r\n\r\n"),
            Reading::Interim(31)
        ));
        assert!(matches!(
            read("HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n"),
            Reading::Malformed
        ));
        assert!(matches!(
            read("HTTP/1.1 200 OK\r\nA: b\r\n"),
            Reading::Partial
        ));
    }
}
