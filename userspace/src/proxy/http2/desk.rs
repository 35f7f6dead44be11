//! Judges requests whose heads were read on their way to the library, and answers those that are refused.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use bytes::Bytes;
use http::response::Parts;

use super::{
    frame::{self, Head},
    hpack::{self, Fields},
    intake::Intake,
    lane::Asked,
    plain::{self, Line},
    reply,
};
use crate::proxy::{
    accept::Worker,
    connection::Peer,
    date::{self, Date},
    fast::{self, Kind},
    inspect::Verdict,
    refuse::{self, Reason},
    target,
};

/// The longest answer, all in all; one that is longer is sent by the library.
pub(super) const LONGEST: usize = 4096;

/// What is to be done with a request.
pub(super) enum Judged {
    /// Its answer can be written.
    Refused {
        /// Whether that has no body, for the request asks for a head alone.
        is_head: bool,
    },
    /// It is answered without the library.
    Clean(Rc<Peer>, Asked),
    /// It is clean, and goes to the library.
    CleanThere,
    /// It goes to the library, and is to be judged there: it is odd, or its answer can't be sent from here.
    NotHere,
}

/// What was sent in answer to a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused {
    /// Bytes of its body.
    pub(super) body: usize,
    /// Whether it was the last request that the connection may have.
    pub(super) is_last: bool,
}

/// Who judges the requests of one connection.
pub(super) struct Desk<'a> {
    newest: RefCell<Rc<Peer>>,
    /// True once no further request is to be taken.
    ending: &'a Cell<bool>,
    answer: RefCell<Option<Answer>>,
}

/// An answer as it is sent on every stream.
struct Answer {
    /// Of whom the settings are.
    worker: Rc<Worker>,
    date: Date,
    block: Vec<u8>,
    body: Bytes,
}

impl<'a> Desk<'a> {
    pub(super) fn new(peer: &Rc<Peer>, ending: &'a Cell<bool>) -> Self {
        Self {
            newest: RefCell::new(Rc::clone(peer)),
            ending,
            answer: RefCell::new(None),
        }
    }

    /// The client under the settings in force now.
    pub(super) fn peer(&self) -> Rc<Peer> {
        Peer::renew(&self.newest)
    }

    /// Judges a request whose fields `intake` has read.
    pub(super) fn judge(&self, intake: &Intake) -> Judged {
        if self.ending.get() {
            return Judged::NotHere;
        }
        let (peer, fields) = (self.peer(), intake.fields());
        let line = line(fields).filter(|_| within_limits(&peer, fields));
        let Some(line) = line.filter(|_| self.has_answer(&peer, intake)) else {
            return Judged::NotHere;
        };
        let said = || {
            let fields = fields.iter().filter(|field| !field.name.starts_with(b":"));
            fields.map(|field| {
                let name = str::from_utf8(field.name).unwrap_or_default();
                (name, field.value)
            })
        };
        let query = line.target.split_once('?').map(|(_, query)| query);
        let is_head = line.method == "HEAD";
        if peer.inspect_plain(query, said()) == Verdict::Block {
            return Judged::Refused { is_head };
        }
        if !(intake.may_begin() && peer.worker.settings.has_plain_upstreams()) {
            return Judged::CleanThere;
        }
        let judged = plain::ask(&peer, line, said);
        Judged::Clean(peer, Asked { judged, is_head })
    }

    /// A request is answered; true where it is the last that the connection may have.
    pub(super) fn on_request(&self, peer: &Peer) -> bool {
        let is_last = peer.on_request();
        if is_last {
            self.ending.set(true);
        }
        is_last
    }

    /// Writes the answer to the refused request of a stream.
    pub(super) fn refuse(&self, stream: u32, is_head: bool, out: &mut Vec<u8>) -> Refused {
        let peer = self.peer();
        let activity = &peer.client.activity;
        activity.on_request();
        let is_last = self.on_request(&peer);
        peer.worker.counters.refuse(Reason::ListedToken);
        let answer = self.answer.borrow();
        let body = answer.as_ref().map_or(0, |answer| {
            let body = if is_head { &[] } else { &*answer.body };
            answer.write(stream, body, out);
            body.len()
        });
        activity.on_answered();
        Refused { body, is_last }
    }

    /// Whether the answer is ready, and can be sent now.
    fn has_answer(&self, peer: &Peer, intake: &Intake) -> bool {
        let mut answer = self.answer.borrow_mut();
        let now = date::now();
        let is_old = |old: &Answer| old.date != now || !Rc::ptr_eq(&old.worker, &peer.worker);
        if answer.as_ref().is_none_or(is_old) {
            *answer = Some(Answer::new(&peer.worker, now));
        }
        let fits = |answer: &Answer| {
            let len = answer.block.len() + answer.body.len();
            len + 2 * frame::HEAD <= LONGEST && intake.may_answer(answer.body.len())
        };
        answer.as_ref().is_some_and(fits)
    }
}

impl Answer {
    fn new(worker: &Rc<Worker>, date: Date) -> Self {
        let refusal = &worker.settings.refusal;
        let response = refuse::response(Reason::ListedToken, refusal);
        let (head, body) = reply::own(response);
        let block = block(&head);
        Self {
            worker: Rc::clone(worker),
            date,
            block,
            body,
        }
    }

    fn write(&self, stream: u32, body: &[u8], out: &mut Vec<u8>) {
        frame::write_head(stream, &self.block, body.is_empty(), out);
        if !body.is_empty() {
            Head {
                len: body.len(),
                flags: frame::END_STREAM,
                ..Head::of(frame::DATA, stream)
            }
            .write(out);
            out.extend_from_slice(body);
        }
    }
}

/// The head of our own words.
pub(super) fn block(head: &Parts) -> Vec<u8> {
    let mut block = Vec::new();
    hpack::write_status(head.status.as_u16(), &mut block);
    for (name, value) in &head.headers {
        hpack::write_response(name.as_str(), value.as_bytes(), &mut block);
    }
    block
}

/// What a request asks for; `None` where the library may find an error in it (RFC 9113 section 8), or it asks for more than
/// a response.
fn line(fields: &Fields) -> Option<Line<'_>> {
    let (mut method, mut scheme, mut path, mut authority) = (None, None, None, None);
    let mut fields = fields.iter().peekable();
    while let Some(field) = fields.next_if(|field| field.name.starts_with(b":")) {
        let place = match field.name {
            b":method" => &mut method,
            b":scheme" => &mut scheme,
            b":path" => &mut path,
            b":authority" => &mut authority,
            _ => return None,
        };
        if place.replace(field.value).is_some() {
            return None;
        }
    }
    let is_plain = |field: hpack::Field<'_>| {
        let name = str::from_utf8(field.name).ok();
        is_name(field.name)
            && is_value(field.value)
            && name.is_some_and(|name| matches!(fast::kind(name), Kind::Other))
    };
    let text = |bytes| str::from_utf8(bytes).ok();
    let line = Line {
        method: text(method?)?,
        host: text(authority?)?,
        target: text(path?)?,
    };
    let Line {
        method,
        host,
        target,
    } = line;
    let is_plain = matches!(scheme?, b"http" | b"https")
        && !method.is_empty()
        && method.bytes().all(|byte| byte.is_ascii_uppercase())
        && method != "CONNECT"
        && target::is_plain(target)
        && !host.is_empty()
        && target::is_host(host.as_bytes())
        && !host.contains('@')
        && fields.all(is_plain);
    is_plain.then_some(line)
}

/// Whether it is a name in lower case, of letters, digits and what else names have.
fn is_name(name: &[u8]) -> bool {
    let is_plain = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    !name.is_empty() && name.iter().all(is_plain)
}

fn is_value(value: &[u8]) -> bool {
    let is_plain = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
    value.iter().all(is_plain)
}

fn within_limits(peer: &Peer, fields: &Fields) -> bool {
    let limits = &peer.worker.settings.limits;
    fields.len() <= limits.header_fields && fields.size() <= limits.header_bytes
}
