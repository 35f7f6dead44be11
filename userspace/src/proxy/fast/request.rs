//! The head of a request: whether it is plain, what is judged, and what the upstream gets of it.

use std::{mem::MaybeUninit, rc::Rc};

use httparse::{Header, Request, Status};

use super::buffers::Buffer;
use crate::proxy::{
    connection::Peer, hop, inspect::Verdict, refuse::Reason, target, upstream::Group,
};

/// Fields of a head that are read here; one that has more goes to hyper.
const FIELDS: usize = 64;

/// What the bytes of a client are.
pub(super) enum Reading {
    /// No whole head.
    Partial,
    /// For hyper.
    NotPlain,
    /// A request, and how many bytes it has.
    Plain(Plain, usize),
}

/// A plain request, judged.
pub(super) struct Plain {
    /// Whether its answer has no body, whatever its fields say.
    pub(super) is_head: bool,
    /// What is sent to an upstream, or why nothing is.
    pub(super) judged: Result<Forward, Reason>,
}

/// A clean request on its way to an upstream.
pub(in crate::proxy) struct Forward {
    /// As the upstream gets it.
    pub(in crate::proxy) head: Buffer,
    /// Who may serve it.
    pub(in crate::proxy) group: Rc<Group>,
    /// Whether its answer has no body, whatever its fields say.
    pub(in crate::proxy) is_head: bool,
    /// Whether it can be sent twice (RFC 9110 section 9.2.2).
    pub(in crate::proxy) is_repeatable: bool,
}

/// What of the fields the rewriting needs to know.
struct Fields<'b> {
    host: &'b [u8],
}

/// Reads a request, judges it, and writes what the upstream gets.
pub(super) fn read(peer: &Peer, input: &[u8]) -> Reading {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut request = Request::new(&mut []);
    let len = match request.parse_with_uninit_headers(input, &mut fields) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return Reading::Partial,
        Err(_) => return Reading::NotPlain,
    };
    let (Some(method), Some(target), Some(1)) = (request.method, request.path, request.version)
    else {
        return Reading::NotPlain;
    };
    let fields = &*request.headers;
    let limits = &peer.worker.settings.limits;
    if !peer.worker.settings.has_plain_upstreams() {
        return Reading::NotPlain;
    }
    let fits = len <= limits.header_bytes && fields.len() <= limits.header_fields;
    if !fits || method == "CONNECT" || !target::is_plain(target) {
        return Reading::NotPlain;
    }
    let Some(Fields { host }) = plain(fields) else {
        return Reading::NotPlain;
    };
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let is_head = method == "HEAD";
    let done = |judged| Reading::Plain(Plain { is_head, judged }, len);
    let judged = fields.iter().map(|field| (field.name, field.value));
    if peer.inspect_plain(query, judged) == Verdict::Block {
        return done(Err(Reason::ListedToken));
    }
    let Some(group) = peer.routes().find_for(peer.port(), host, path) else {
        return done(Err(Reason::NoUpstream));
    };
    let mut head = Buffer::empty(&peer.worker.buffers);
    let out = head.filling();
    write_line(out, method, target);
    write_fields(out, peer, fields, host);
    done(Ok(Forward {
        head,
        group: Rc::clone(group),
        is_head,
        is_repeatable: is_repeatable(method),
    }))
}

/// `None` where a field says more than plain requests do.
fn plain<'b>(fields: &[Header<'b>]) -> Option<Fields<'b>> {
    let mut host = None;
    for field in fields {
        match kind(field.name) {
            Kind::Host => {
                if host.is_some() || !target::is_host(field.value) {
                    return None;
                }
                host = Some(field.value);
            }
            Kind::Connection => {
                if !field.value.eq_ignore_ascii_case(b"keep-alive") {
                    return None;
                }
            }
            Kind::NotPlain => return None,
            Kind::Other => {}
        }
    }
    Some(Fields { host: host? })
}

/// Whether it can be sent twice (RFC 9110 section 9.2.2).
pub(in crate::proxy) fn is_repeatable(method: &str) -> bool {
    matches!(
        method,
        "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"
    )
}

/// What a field means to a plain request.
pub(in crate::proxy) enum Kind {
    Host,
    Connection,
    NotPlain,
    Other,
}

/// What a field of this name means to a plain request.
pub(in crate::proxy) fn kind(name: &str) -> Kind {
    // Most fields are told by their length.
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    match name.len() {
        2 if is("te") => Kind::NotPlain,
        4 if is("host") => Kind::Host,
        6 if is("expect") => Kind::NotPlain,
        7 if is("upgrade") || is("trailer") => Kind::NotPlain,
        10 if is("connection") => Kind::Connection,
        10 if is("keep-alive") => Kind::NotPlain,
        14 if is("content-length") || is("http2-settings") => Kind::NotPlain,
        16 if is("proxy-connection") => Kind::NotPlain,
        17 if is("transfer-encoding") => Kind::NotPlain,
        _ => Kind::Other,
    }
}

/// Writes the first line of a request.
pub(in crate::proxy) fn write_line(out: &mut Vec<u8>, method: &str, target: &str) {
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

fn write_fields(out: &mut Vec<u8>, peer: &Peer, fields: &[Header<'_>], host: &[u8]) {
    for field in fields {
        let is_own = matches!(kind(field.name), Kind::Connection)
            || peer.client.provenance.replaces(field.name);
        if !is_own {
            hop::write_field(out, field.name, field.value);
        }
    }
    let said = || fields.iter().map(|field| (field.name, field.value));
    peer.client.provenance.write(out, said, host, "1.1");
    out.extend_from_slice(b"\r\n");
}
