//! One request out of a byte stream, with the tolerance of lax servers.

/// A complete request as the application sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The request line without its line end.
    pub line: String,
    /// Header lines without their line ends.
    pub fields: Vec<Vec<u8>>,
    /// The body, chunked coding removed.
    pub body: Vec<u8>,
}

impl Request {
    /// The values of the header fields called `name`, in order.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter_map(move |field| {
            let colon = field.iter().position(|byte| *byte == b':')?;
            let (field_name, value) = field.split_at(colon);
            field_name
                .eq_ignore_ascii_case(name.as_bytes())
                .then(|| value.get(1..).unwrap_or(&[]).trim_ascii())
        })
    }
}

/// The first request of `bytes` and its length, if all of it is there.
#[must_use]
pub fn take(bytes: &[u8]) -> Option<(Request, usize)> {
    let (lines, head) = head(bytes)?;
    let (line, fields) = lines.split_first()?;
    let mut request = Request {
        line: String::from_utf8_lossy(line).into_owned(),
        fields: fields.to_vec(),
        body: Vec::new(),
    };
    let rest = bytes.get(head..)?;
    let chunked = request
        .values("transfer-encoding")
        .any(|v| v.eq_ignore_ascii_case(b"chunked"));
    let length = if chunked {
        chunks(rest, &mut request.body)?
    } else {
        let declared = request.values("content-length").next();
        let length = declared
            .and_then(|v| str::from_utf8(v).ok()?.parse().ok())
            .unwrap_or(0);
        request.body = rest.get(..length)?.to_vec();
        length
    };
    Some((request, head + length))
}

/// The lines before the first empty one, and the length of all; lines end at LF, with or without CRs.
fn head(bytes: &[u8]) -> Option<(Vec<Vec<u8>>, usize)> {
    let mut lines = Vec::new();
    let mut length = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let mut text = line.strip_suffix(b"\n")?;
        length += line.len();
        while let Some(shorter) = text.strip_suffix(b"\r") {
            text = shorter;
        }
        match (text.is_empty(), lines.is_empty()) {
            (true, true) => {}
            (true, false) => return Some((lines, length)),
            (false, _) => lines.push(text.to_vec()),
        }
    }
    None
}

/// Reads chunks (RFC 9112 section 7.1) into `body`; their length, the empty trailer included.
fn chunks(bytes: &[u8], body: &mut Vec<u8>) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..)?;
        let Ok(httparse::Status::Complete((line, size))) = httparse::parse_chunk_size(rest) else {
            return None;
        };
        let size = usize::try_from(size).ok()?;
        let data = rest.get(line..line + size)?;
        body.extend_from_slice(data);
        at += line + size + 2;
        if size == 0 {
            return (at <= bytes.len()).then_some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_requests_apart() {
        let two = b"POST /a HTTP/1.1\r\nX: y\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\n\n";
        let (first, length) = take(two).unwrap();
        assert_eq!(
            (first.line.as_str(), first.body.as_slice()),
            ("POST /a HTTP/1.1", &b"abc"[..])
        );
        assert_eq!(first.values("x").collect::<Vec<_>>(), [b"y"]);
        let (second, rest) = take(&two[length..]).unwrap();
        assert_eq!(
            (second.line.as_str(), length + rest),
            ("GET /b HTTP/1.1", two.len())
        );
        assert_eq!(take(&two[..length - 1]), None);
    }

    #[test]
    fn joins_chunks() {
        let bytes = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n";
        let (request, length) = take(bytes).unwrap();
        assert_eq!(
            (request.body.as_slice(), length),
            (&b"abcde"[..], bytes.len())
        );
        assert_eq!(take(&bytes[..bytes.len() - 1]), None);
    }
}
