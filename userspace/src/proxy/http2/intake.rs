//! Frames of a client on their way to the library: `frame -> block -> fields -> judged | handed on`.
//!
//! For a request the library makes a stream and a map of fields, and takes them apart again, which costs more than all else of
//! a refusal, and a sixth of a clean one. So heads are read here, and those of plain requests never get to the library. All
//! others do, each with a head that is about no other one, for the library has not seen them all.

use std::{borrow::Cow, collections::VecDeque, rc::Rc};

use tokio::io::ReadBuf;

use super::{
    credit::Credit,
    frame::{self, Head},
    hpack::{self, Decoder, Fields, Malformed},
    lane::{Lane, Stream},
};
use crate::proxy::fast::{Buffer, Buffers};

/// Bytes of a client's first words (RFC 9113 section 3.4).
const PREFACE: usize = 24;
/// The library's table of fields, as long as a client says nothing of it (section 6.5.2).
const TABLE: u32 = 4096;
/// What it says that with, and what it takes on a new stream.
const HEADER_TABLE_SIZE: u16 = 1;
const INITIAL_WINDOW_SIZE: u16 = 4;
/// Judged requests on their way that are remembered; those beyond are judged once more.
const REMEMBERED: usize = 1024;
/// A block of which the library makes an error of the connection.
const NONSENSE: u8 = 0x80;
/// A field that everybody knows (`accept-encoding: gzip, deflate`), and its bytes as limits count them.
const KNOWN_FIELD: (u8, usize) = (0x90, 60);
/// One that later ones can be about, the first of these, and the bytes of each.
const NEW_FIELD: &[u8] = b"\x40\x01x\x7f\xb9\x16";
const NEW_VALUE: usize = 3000;
const SAME_FIELD: (u8, usize) = (0xbe, NEW_VALUE + 33);

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Read more from the client.
    Read,
    /// Give the library what is for it, and take the next step.
    Next,
    /// Judge the request without a body whose [`Intake::fields`] were read, and tell what came of it.
    Judge(Head),
}

/// What the client has set.
#[derive(Clone, Copy)]
struct Terms {
    /// What it takes on a new stream.
    window: u32,
    /// Whether it takes heads that are about no others.
    any_head: bool,
}

/// The way in of one connection.
pub(super) struct Intake {
    /// What came, and how many bytes of it are done with.
    input: Buffer,
    done: usize,
    /// How many of the next bytes pass as they are.
    passing: usize,
    /// Frames that were made here, and how many bytes of them the library has.
    made: Buffer,
    given: usize,
    /// Whether the library ends the connection for what came.
    is_broken: bool,
    decoder: Decoder,
    fields: Fields,
    /// Bytes that the fields of a head may have.
    most: usize,
    credit: Credit,
    terms: Terms,
    /// The newest stream, and the newest of those that the library knows.
    newest: u32,
    known: u32,
    /// Streams on their way to the library whose requests were judged.
    judged: VecDeque<u32>,
    /// Streams that are none of the library's.
    pub(super) lane: Lane,
    own: u32,
}

impl Intake {
    /// A connection whose heads may have fields of `most` bytes.
    pub(super) fn new(most: usize, buffers: &Buffers) -> Self {
        Self {
            input: Buffer::empty(buffers),
            done: 0,
            passing: PREFACE,
            made: Buffer::empty(buffers),
            given: 0,
            is_broken: false,
            decoder: Decoder::new(),
            fields: Fields::default(),
            most,
            credit: Credit::new(),
            terms: Terms::FIRST,
            newest: 0,
            known: 0,
            judged: VecDeque::new(),
            lane: Lane::default(),
            own: 0,
        }
    }

    /// What was read of the head at hand.
    pub(super) fn fields(&self) -> &Fields {
        &self.fields
    }

    /// Whether a response with a body of so many bytes can be sent on a new stream at once.
    pub(super) fn may_answer(&self, body: usize) -> bool {
        let fits = u32::try_from(body).is_ok_and(|body| body <= self.terms.window);
        self.terms.any_head && fits && body <= frame::MOST && self.credit.has(body)
    }

    /// Whether a stream may be answered without the library, however long its answer is.
    pub(super) fn may_begin(&self) -> bool {
        self.terms.any_head && self.credit.is_ample()
    }

    /// The request on this stream is answered without the library.
    pub(super) fn begin(&mut self, stream: u32) -> Rc<Stream> {
        self.fields.clear();
        self.own = stream;
        self.lane.open(stream, self.terms.window)
    }

    /// What is left of what the client takes on all streams.
    pub(super) fn credit(&self) -> usize {
        self.credit.left()
    }

    /// So many bytes of bodies were sent without the library.
    pub(super) fn spend(&mut self, bytes: usize) {
        self.credit.spend(bytes);
    }

    /// The newest stream that was answered, or is, without the library.
    pub(super) fn newest_own(&self) -> u32 {
        self.own
    }

    /// The library has sent so many bytes of bodies.
    pub(super) fn on_sent(&mut self, bytes: usize) {
        self.credit.on_sent(bytes);
    }

    /// Whether there is something new for the library, although the client has said nothing more; true once.
    pub(super) fn is_due(&mut self) -> bool {
        self.passing == 0 && self.credit.becomes_due()
    }

    /// Whether the request on this stream was judged on its way; to be asked of each, in their order.
    pub(super) fn was_judged(&mut self, stream: u32) -> bool {
        while let Some(judged) = self.judged.front().copied() {
            if judged > stream {
                return false;
            }
            self.judged.pop_front();
            if judged == stream {
                return true;
            }
        }
        false
    }

    /// What the client says is to be added here.
    pub(super) fn input(&mut self) -> &mut Buffer {
        let done = std::mem::take(&mut self.done);
        if done > 0 {
            self.input.consume(done);
        }
        &mut self.input
    }

    /// The client says nothing more: what is there passes, whatever it is. False where that is nothing.
    pub(super) fn on_end(&mut self) -> bool {
        self.pass_all();
        self.done < self.input.len()
    }

    /// Gives the library what is for it.
    pub(super) fn give(&mut self, library: &mut ReadBuf<'_>) {
        if !self.made.is_empty() {
            let made = self.made.get(self.given..).unwrap_or_default();
            let taken = made.len().min(library.remaining());
            library.put_slice(made.get(..taken).unwrap_or_default());
            self.given += taken;
            if self.given < self.made.len() {
                return;
            }
            self.given = 0;
            self.made.clear();
            self.made.settle();
        }
        let came = self.input.get(self.done..).unwrap_or_default();
        let len = self.passing.min(came.len()).min(library.remaining());
        library.put_slice(came.get(..len).unwrap_or_default());
        self.passing -= len;
        self.finish(len);
    }

    /// Looks at the next frame, once the library has been given all that is for it.
    pub(super) fn step(&mut self) -> Step {
        if self.passing > 0 {
            return Step::Read;
        }
        if let Some(more) = self.credit.lend() {
            return self.make(Head::of(frame::WINDOW_UPDATE, 0), &more.to_be_bytes());
        }
        let came = self.input.get(self.done..).unwrap_or_default();
        let Some((bytes, rest)) = came.split_first_chunk() else {
            return Step::Read;
        };
        let head = Head::parse(*bytes);
        let payload = rest.get(..head.len);
        match (head.kind, payload) {
            // The library takes no such frame.
            _ if head.len > frame::MOST => self.pass_all(),
            (frame::HEADERS | frame::SETTINGS | frame::WINDOW_UPDATE | frame::RST_STREAM, None) => {
                Step::Read
            }
            (frame::HEADERS, _) => self.head(head),
            (frame::SETTINGS, Some(payload)) => {
                let before = i64::from(self.terms.window);
                self.terms = self.terms.with(head, payload);
                self.lane.add(i64::from(self.terms.window) - before);
                self.pass(head)
            }
            (frame::WINDOW_UPDATE | frame::RST_STREAM, Some(payload))
                if let Some(stream) = self.lane.find(head.stream) =>
            {
                match (head.kind, payload.try_into().map(u32::from_be_bytes)) {
                    (frame::WINDOW_UPDATE, Ok(more)) => stream.add(more & (u32::MAX >> 1)),
                    _ => stream.reset(),
                }
                self.finish(frame::HEAD + head.len);
                Step::Next
            }
            (frame::WINDOW_UPDATE | frame::RST_STREAM, _) if self.was_refused(head.stream) => {
                self.finish(frame::HEAD + head.len);
                Step::Next
            }
            (frame::WINDOW_UPDATE, Some(payload)) if head.stream == 0 => {
                match payload.try_into().map(u32::from_be_bytes) {
                    Ok(more) if more & (u32::MAX >> 1) != 0 => self.window(head, more),
                    _ => self.pass(head),
                }
            }
            _ => self.pass(head),
        }
    }

    /// The request on this stream was refused, with so many bytes of a body.
    pub(super) fn refused(&mut self, stream: u32, body: usize) {
        self.own = stream;
        self.credit.spend(body);
        self.fields.clear();
    }

    /// The library gets the head, or one of which it makes the same.
    pub(super) fn hand_on(&mut self, head: Head, was_judged: bool) -> Step {
        self.known = self.known.max(head.stream);
        if was_judged {
            if self.judged.len() >= REMEMBERED {
                self.judged.pop_front();
            }
            self.judged.push_back(head.stream);
        }
        let mut block = Vec::new();
        let excess = self.fields.excess();
        if excess > 0 {
            let pseudo = |field: &hpack::Field<'_>| field.name.starts_with(b":");
            for field in self.fields.iter().filter(pseudo) {
                hpack::write(field, &mut block);
            }
            let mut repeated = KNOWN_FIELD;
            if self.most > SAME_FIELD.1 {
                block.extend_from_slice(NEW_FIELD);
                block.resize(block.len() + NEW_VALUE, b'x');
                repeated = SAME_FIELD;
            }
            let (field, size) = repeated;
            block.resize(block.len() + excess * self.most / size + 1, field);
        } else {
            for field in self.fields.iter() {
                hpack::write(field, &mut block);
            }
        }
        self.fields.clear();
        self.make_head(head, &block);
        if excess > 1 {
            return self.pass_all();
        }
        Step::Next
    }

    /// Whether the library knows nothing of this stream, since what it bore was refused here.
    fn was_refused(&self, stream: u32) -> bool {
        self.known < stream && stream <= self.newest
    }

    /// So many bytes of the input are done with.
    fn finish(&mut self, len: usize) {
        self.done += len;
        if self.done >= self.input.len() {
            self.done = 0;
            self.input.clear();
            self.input.settle();
        }
    }

    fn pass(&mut self, head: Head) -> Step {
        self.passing = frame::HEAD + head.len;
        Step::Next
    }

    fn pass_all(&mut self) -> Step {
        self.is_broken = true;
        self.passing = usize::MAX;
        Step::Next
    }

    /// Makes a frame for the library, with as many bytes as there are.
    fn make(&mut self, head: Head, payload: &[u8]) -> Step {
        let out = self.made.filling();
        let len = payload.len();
        Head { len, ..head }.write(out);
        out.extend_from_slice(payload);
        Step::Next
    }

    fn make_head(&mut self, head: Head, block: &[u8]) -> Step {
        let last = head.has(frame::END_STREAM);
        frame::write_head(head.stream, block, last, self.made.filling());
        Step::Next
    }

    /// The client takes more bytes on all streams.
    fn window(&mut self, head: Head, more: u32) -> Step {
        self.finish(frame::HEAD + head.len);
        self.lane.on_room();
        if self.credit.add(more & (u32::MAX >> 1)).is_none() {
            // The library makes an error of so many.
            for _ in 0..2 {
                let too_many = u32::MAX >> 1;
                self.make(Head::of(frame::WINDOW_UPDATE, 0), &too_many.to_be_bytes());
            }
        }
        Step::Next
    }

    fn head(&mut self, head: Head) -> Step {
        let read = match self.extent(head) {
            Ok(Some(len)) => self.read(head, len),
            Ok(None) => return Step::Read,
            Err(Malformed) => Err(Malformed),
        };
        read.unwrap_or_else(|Malformed| {
            // The library, which has not seen all heads, might make something of it.
            self.finish(self.input.len());
            self.make_head(head, &[NONSENSE]);
            self.pass_all()
        })
    }

    /// Bytes of the frames of a head; `None` while there are more to come.
    fn extent(&self, head: Head) -> Result<Option<usize>, Malformed> {
        let came = self.input.get(self.done..).unwrap_or_default();
        let (mut last, mut len) = (head, frame::HEAD + head.len);
        while !last.has(frame::END_HEADERS) {
            let rest = came.get(len..).unwrap_or_default();
            let Some(bytes) = rest.first_chunk() else {
                let too_long = len > self.most + frame::MOST;
                return if too_long { Err(Malformed) } else { Ok(None) };
            };
            last = Head::parse(*bytes);
            let continues = last.kind == frame::CONTINUATION && last.stream == head.stream;
            if !continues || last.len > frame::MOST {
                return Err(Malformed);
            }
            len += frame::HEAD + last.len;
        }
        Ok((came.len() >= len).then_some(len))
    }

    fn read(&mut self, head: Head, len: usize) -> Result<Step, Malformed> {
        let Head { stream, .. } = head;
        let frames = self.input.get(self.done..).and_then(|came| came.get(..len));
        let block = block(frames.unwrap_or_default())?;
        self.decoder.read(&block, &mut self.fields, self.most)?;
        drop(block);
        self.finish(len);
        if self.was_refused(stream) {
            // Nothing more may come on it.
            return Err(Malformed);
        }
        let is_new = stream > self.newest && stream % 2 == 1;
        self.newest = self.newest.max(stream);
        if is_new && head.has(frame::END_STREAM) && !self.fields.is_cut() {
            return Ok(Step::Judge(head));
        }
        Ok(self.hand_on(head, false))
    }
}

/// The block in the frames of a head.
fn block(frames: &[u8]) -> Result<Cow<'_, [u8]>, Malformed> {
    let (bytes, rest) = frames.split_first_chunk().ok_or(Malformed)?;
    let head = Head::parse(*bytes);
    let (payload, mut rest) = rest.split_at_checked(head.len).ok_or(Malformed)?;
    let mut block = Cow::Borrowed(fragment(head, payload)?);
    while let Some((bytes, after)) = rest.split_first_chunk() {
        let len = Head::parse(*bytes).len;
        let (payload, after) = after.split_at_checked(len).ok_or(Malformed)?;
        block.to_mut().extend_from_slice(payload);
        rest = after;
    }
    Ok(block)
}

/// What of the payload of HEADERS is of the block (RFC 9113 section 6.2).
fn fragment(head: Head, payload: &[u8]) -> Result<&[u8], Malformed> {
    let (mut fragment, mut padding) = (payload, 0);
    if head.has(frame::PADDED) {
        let (len, rest) = fragment.split_first().ok_or(Malformed)?;
        (fragment, padding) = (rest, usize::from(*len));
    }
    if head.has(frame::HAS_PRIORITY) {
        let (_, rest) = fragment.split_first_chunk::<5>().ok_or(Malformed)?;
        fragment = rest;
    }
    let len = fragment.len().checked_sub(padding).ok_or(Malformed)?;
    fragment.get(..len).ok_or(Malformed)
}

impl Terms {
    /// Those of a client that has said nothing yet (section 6.5.2).
    const FIRST: Self = Self {
        window: 65_535,
        any_head: true,
    };

    /// The same with what is set in a frame (section 6.5.1).
    fn with(mut self, head: Head, payload: &[u8]) -> Self {
        let payload = if head.has(frame::ACK) { &[] } else { payload };
        for [a, b, value @ ..] in payload.as_chunks::<6>().0 {
            let value = u32::from_be_bytes(*value);
            match u16::from_be_bytes([*a, *b]) {
                // Its next head has to say that it knows (RFC 7541 section 4.2): that is for the library.
                HEADER_TABLE_SIZE if value < TABLE => self.any_head = false,
                INITIAL_WINDOW_SIZE => self.window = value,
                _ => {}
            }
        }
        self
    }
}

#[cfg(test)]
mod tests;
