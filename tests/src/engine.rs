//! The flow engine on the host: the steps of the kernel program over plain maps.

use std::collections::HashMap;

use crate::bench::request::random;
use tokenblock_ebpf::{
    behind::Behind,
    digest::TokenDigest,
    filter::NoFilter,
    flow::{
        Conflict, Copied, Flow, FlowKey, Gap, GapKey, Left, Pieces, Place, Recalled, Rest, STEPS,
        Start,
    },
    packet::Address,
    response::{HEAD, Head, LAST_CHUNK, Said, is_last_chunk},
    rules::Rules,
    scan::{Scan, Source as _, Step},
    sums::SumKeys,
    verdict::{Counter, Policy},
};

/// What becomes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Handed to the receiver.
    Passed(Place),
    /// The same, unread: it is inside a body that the receiver reads as one.
    Trusted,
    /// The same, for it says what was passed in its place, which may be lost on its way.
    Copied,
    /// Dropped; the sender may send it again.
    Dropped(Place),
    /// It bears a listed token; the flow is blocked from now on.
    Blocked,
    /// It could not be judged; the flow is reset.
    Reset(Conflict),
    /// A header block says in two ways where its message ends; the flow is reset.
    Ambiguous,
    /// It is the first that was seen of its flow, or HTTP/2 begins in it, and that does not pass.
    Refused(Counter),
    /// The flow was blocked or reset before.
    Dead,
}

impl Fate {
    /// The way out of the programs that this is.
    #[must_use]
    pub fn counter(self) -> Counter {
        match self {
            Self::Passed(Place::Settled) => Counter::Settled,
            Self::Trusted => Counter::Trusted,
            Self::Copied => Counter::Copied,
            Self::Passed(_) => Counter::Clean,
            Self::Dropped(Place::TooEarly) => Counter::TooEarly,
            Self::Dropped(Place::OutOfWindow) => Counter::OutOfWindow,
            Self::Dropped(Place::Old) => Counter::OldTimestamp,
            Self::Dropped(_) => Counter::Duplicate,
            Self::Blocked => Counter::Blocked,
            Self::Reset(_) => Counter::GapConflict,
            Self::Ambiguous => Counter::AmbiguousFraming,
            Self::Refused(reason) => reason,
            Self::Dead => Counter::BlockedAgain,
        }
    }
}

/// One flow and its gaps.
pub struct Engine<'a> {
    rules: &'a Rules,
    listed: &'a dyn Fn(&TokenDigest) -> bool,
    flow: Flow,
    gaps: HashMap<GapKey, Gap>,
    states: HashMap<GapKey, Scan>,
    head: Head,
    trust_after: u32,
    ambiguous: Policy,
    mid_stream: Policy,
    http2: Policy,
    /// Keys of sums, unless nothing is remembered.
    keys: Option<SumKeys>,
    generation: u64,
    repeated: usize,
    dead: bool,
    /// Where it is judged on its way out.
    copies: Option<Copies>,
}

/// What was passed.
struct Copies {
    noted: HashMap<GapKey, Copied>,
    /// Into pieces of how many bytes the sender cuts it behind the engine; 0: into none.
    size: u32,
    keys: SumKeys,
}

/// Long behind all that is sent.
const LATER: u64 = 1 << 62;

const KEY: FlowKey = FlowKey {
    client: Address::UNSPECIFIED,
    server: Address::UNSPECIFIED,
    client_port: 1,
    server_port: 80,
    passes: 0,
};

impl<'a> Engine<'a> {
    /// An engine that knows nothing of the flow.
    pub fn new(rules: &'a Rules, listed: &'a dyn Fn(&TokenDigest) -> bool) -> Self {
        Self {
            rules,
            listed,
            flow: Flow::new(rules),
            gaps: HashMap::new(),
            states: HashMap::new(),
            head: Head::default(),
            trust_after: 0,
            ambiguous: Policy::Reset,
            mid_stream: Policy::Pass,
            http2: Policy::Pass,
            keys: Some(keys()),
            generation: 0,
            repeated: 0,
            dead: false,
            copies: None,
        }
    }

    /// The same of what is on its way out, and is cut behind the engine into pieces of `size` bytes (0: into none).
    #[must_use]
    pub fn sending(self, size: u32) -> Self {
        Self {
            copies: Some(Copies {
                noted: HashMap::new(),
                size,
                keys: keys(),
            }),
            ..self
        }
    }

    /// The same with these keys of sums; without, header blocks that repeat are read again.
    #[must_use]
    pub fn with_keys(self, keys: Option<SumKeys>) -> Self {
        Self { keys, ..self }
    }

    /// The list or the rules have changed.
    pub fn change(&mut self) {
        self.generation += 1;
    }

    /// Other rules are in force.
    pub fn change_rules(&mut self, rules: &'a Rules) {
        self.rules = rules;
        self.change();
    }

    /// How many header blocks were known again.
    #[must_use]
    pub fn repeated(&self) -> usize {
        self.repeated
    }

    /// The same with declared bodies trusted, after so many bytes that the receiver took without a word.
    #[must_use]
    pub fn trusting(self, after: u32) -> Self {
        Self {
            trust_after: after,
            ..self
        }
    }

    /// The same with this policy for [`Counter::AmbiguousFraming`].
    #[must_use]
    pub fn framed_in_two_ways(self, policy: Policy) -> Self {
        Self {
            ambiguous: policy,
            ..self
        }
    }

    /// The same with this policy for [`Counter::MidStream`].
    #[must_use]
    pub fn in_mid_stream(self, policy: Policy) -> Self {
        Self {
            mid_stream: policy,
            ..self
        }
    }

    /// The same with this policy for [`Counter::Http2`].
    #[must_use]
    pub fn before_http2(self, policy: Policy) -> Self {
        Self {
            http2: policy,
            ..self
        }
    }

    /// What is noted of gaps and states is evicted by that of other flows.
    pub fn forget_notes(&mut self) {
        self.gaps.clear();
        self.states.clear();
        if let Some(copies) = &mut self.copies {
            copies.noted.clear();
        }
    }

    /// The receiver accepted the connection.
    pub fn accept(&mut self, ack: u32) {
        self.accept_at(ack, LATER);
    }

    /// The same at `now`.
    pub fn accept_at(&mut self, ack: u32, now: u64) {
        self.flow.accept(ack, now);
        self.dead = false;
    }

    /// What is known of the flow, for what neither bytes nor acknowledgments say.
    pub fn flow(&mut self) -> &mut Flow {
        &mut self.flow
    }

    /// The receiver acknowledged all before `ack`.
    pub fn settle(&mut self, ack: u32) {
        self.flow.settle(ack);
    }

    /// The receiver says something of this length, at this sequence number of its own, and acknowledges all before
    /// `ack`.
    pub fn answer(&mut self, sequence: u32, len: u32, ack: u32) {
        self.flow.settle(ack);
        self.flow.answer(sequence, len);
    }

    /// The receiver sends these bytes, at this sequence number of its own, and acknowledges all before `ack`.
    pub fn respond(&mut self, sequence: u32, bytes: &[u8], ack: u32) {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.flow.settle(ack);
        if len != 0 {
            if self.flow.may_begin_response(sequence) {
                self.flow
                    .begin_response(sequence, said(&mut self.head, bytes));
            }
            if self.flow.responds_in_chunks() && ends_in_last_chunk(bytes) {
                self.flow.end_chunks();
            }
        }
        self.flow.answer(sequence, len);
    }

    /// Whether the receiver owes nothing to a sender who acknowledges this.
    #[must_use]
    pub fn owes_nothing(&self, acknowledgment: u32) -> bool {
        self.flow.owes_nothing(acknowledgment)
    }

    /// The same, with a timestamp that it echoes (RFC 7323 section 3); 0: none.
    pub fn settle_stamped(&mut self, ack: u32, echo: u32) {
        self.flow.settle(ack);
        self.flow.hear_echo(echo);
    }

    /// A SYN comes, and with it these bytes, the first of which has this sequence number (RFC 7413).
    pub fn segment_on_syn(&mut self, start: u32, bytes: &[u8], now: u64) -> Fate {
        let place = self.flow.place_on_syn(start);
        self.judge_at(place, start, bytes, now, None)
    }

    /// A segment comes.
    pub fn segment(&mut self, start: u32, bytes: &[u8], now: u64) -> Fate {
        self.segment_stamped(start, bytes, 0, now)
    }

    /// The same with a timestamp; 0: none.
    pub fn segment_stamped(&mut self, start: u32, bytes: &[u8], stamp: u32, now: u64) -> Fate {
        if self.dead {
            return Fate::Dead;
        }
        let fate = if self.pass_copy(start, bytes, now) {
            Fate::Copied
        } else {
            self.judge(start, bytes, stamp, now)
        };
        if matches!(fate, Fate::Passed(place) if place != Place::Settled) {
            self.note_copies(start, bytes);
        }
        self.dead = match fate {
            Fate::Blocked | Fate::Reset(_) | Fate::Ambiguous => true,
            Fate::Refused(Counter::MidStream) => self.mid_stream == Policy::Reset,
            Fate::Refused(_) => self.http2 == Policy::Reset,
            Fate::Passed(_) | Fate::Trusted | Fate::Copied | Fate::Dropped(_) | Fate::Dead => false,
        };
        fate
    }

    /// Passes these bytes again, where they are those that were passed in their place.
    fn pass_copy(&mut self, start: u32, bytes: &[u8], now: u64) -> bool {
        let Some(notes) = &self.copies else {
            return false;
        };
        self.flow.expect_copies();
        if !self.flow.may_be_copy(start) {
            return false;
        }
        let mut pieces = Pieces::new(start, end_of(start, bytes), 0);
        let mut rest = bytes;
        while !rest.is_empty() {
            let copied = notes.noted.get(&key(pieces.at(), self.flow.copies()));
            let len = copied.map_or(0, |copied| {
                copied.len(&self.flow, pieces.at(), pieces.left(), self.generation)
            });
            let (piece, behind) = rest.split_at(len as usize);
            let says = |copied: &&Copied| copied.says(&piece.sums(&notes.keys, 0, len));
            let Some(copied) = copied.filter(|_| len != 0).filter(says) else {
                return false;
            };
            pieces.compared(copied, len);
            rest = behind;
        }
        self.flow.pass_copy(&pieces, now);
        true
    }

    /// The segment was passed.
    fn note_copies(&mut self, start: u32, bytes: &[u8]) {
        let Some(notes) = &mut self.copies else {
            return;
        };
        let end = end_of(start, bytes);
        self.flow.begin_copies(start, end);
        let mut pieces = Pieces::new(start, end, notes.size);
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(pieces.next_len() as usize);
            let sums = piece.sums(&notes.keys, 0, pieces.next_len());
            let copied = self.flow.copied(&pieces, sums, self.generation);
            notes
                .noted
                .insert(key(pieces.at(), self.flow.copies()), copied);
            pieces.advance(pieces.next_len());
            rest = behind;
        }
    }

    fn judge(&mut self, start: u32, bytes: &[u8], stamp: u32, now: u64) -> Fate {
        let end = end_of(start, bytes);
        if self.flow.pass_trusted(start, end, self.trust_after, now) {
            return Fate::Trusted;
        }
        let gap = if self.flow.has_gaps() {
            let under = self.flow.noted_under(start, end);
            self.gaps.get(&key(under, self.flow.epoch)).copied()
        } else {
            None
        };
        if let Some(gap) = &gap
            && self.flow.wants_state(start, gap)
            && let Some(state) = self.states.get(&key(start, self.flow.epoch))
        {
            self.flow.take_state(start, state, gap);
        }
        let place = self.flow.place(start, end, stamp, now, gap.as_ref());
        self.judge_at(place, start, bytes, now, gap)
    }

    fn judge_at(
        &mut self,
        place: Place,
        start: u32,
        bytes: &[u8],
        now: u64,
        gap: Option<Gap>,
    ) -> Fate {
        let end = end_of(start, bytes);
        match place {
            Place::Settled => return Fate::Passed(place),

            Place::TooEarly | Place::Duplicate | Place::OutOfWindow | Place::Old => {
                return Fate::Dropped(place);
            }
            Place::First if self.mid_stream != Policy::Pass => {
                return Fate::Refused(Counter::MidStream);
            }
            Place::Next
            | Place::First
            | Place::Ahead
            | Place::Filler
            | Place::Recovery
            | Place::Repeat
            | Place::Inside => {}
        }
        let mut gap = gap.unwrap_or(Gap::NONE);
        let mut scan = Scan::new(self.rules);
        let may_recall = self.flow.may_recall(place, start);
        let recalled = match &self.keys {
            Some(keys) if may_recall => recall(
                &mut self.flow,
                &mut scan,
                bytes,
                keys,
                self.rules,
                self.generation,
            ),
            _ => Recalled::Nothing,
        };
        let line = match recalled {
            Recalled::Request | Recalled::RequestToSum => {
                self.repeated += 1;
                self.flow.pass_known(start, end, now);
                return Fate::Passed(place);
            }
            Recalled::Line(line) => line as usize,
            Recalled::Nothing | Recalled::Other => 0,
        };
        self.flow.open(place, start, end, &gap);
        for step in 0..STEPS {
            let Some(begun) = self.flow.start(step, start, &mut scan, self.rules) else {
                break;
            };
            let rest = if begun.behind {
                self.flow.seal_behind(&mut gap, self.rules);
                kept(&gap.behind)
            } else {
                bytes
                    .get(begun.offset as usize..)
                    .unwrap_or_default()
                    .to_vec()
            };
            let line = if step == 0 { line } else { 0 };
            match self.scan_after(&mut scan, &rest, begun, line) {
                // It comes again in its place, and is one hit then.
                Scanned::Hit if place.is_early() => return Fate::Dropped(Place::TooEarly),
                Scanned::Hit if place == Place::Repeat => return Fate::Dropped(Place::Duplicate),
                Scanned::Hit => return Fate::Blocked,
                Scanned::Over => continue,
                Scanned::End => {}
            }
            match self.flow.end(begun, &mut scan, self.rules) {
                Err(Conflict::Ambiguous) if place == Place::Repeat => {
                    return Fate::Dropped(Place::Duplicate);
                }
                Err(Conflict::Ambiguous) if place.is_early() || self.flow.is_guessed() => {
                    return Fate::Dropped(Place::TooEarly);
                }
                Err(conflict) => return Fate::Reset(conflict),
                Ok(()) => {}
            }
        }
        if self.flow.saw_http2() && self.http2 != Policy::Pass {
            return Fate::Refused(Counter::Http2);
        }
        if self.flow.is_ambiguous() && self.ambiguous != Policy::Pass {
            return Fate::Ambiguous;
        }
        self.pass(place, start, bytes, now, &mut gap)
    }

    /// A segment that was scanned is passed, or not; `gap` is what is noted of its place.
    fn pass(&mut self, place: Place, start: u32, bytes: &[u8], now: u64, gap: &mut Gap) -> Fate {
        let end = end_of(start, bytes);
        let mut rest = *gap;
        if place.shows_first() {
            gap.behind = Behind::NONE;
            let kept = gap.behind.keep(end.wrapping_sub(start)) as usize;
            let bytes = bytes.get(..kept).unwrap_or_default();
            // SAFETY: as many bytes are there at least.
            unsafe { std::slice::from_raw_parts_mut(gap.behind.as_mut_ptr(), kept) }
                .copy_from_slice(bytes);
            self.flow.digest_first(gap, self.rules);
        }
        if let Some(at) = self.flow.keeps_state_at() {
            let state = *self.flow.state();
            self.states.insert(key(at, self.flow.epoch), state);
        }
        let passed = self.flow.pass(place, start, end, now, gap);
        if place.shows_first() {
            self.flow.seal_behind(gap, self.rules);
        }
        match passed {
            Ok(note) => {
                if let Some(at) = note {
                    self.gaps.insert(key(at, self.flow.epoch), *gap);
                    if place == Place::Filler && gap.left == Left::Open {
                        let state = *self.flow.next_state();
                        self.states.insert(key(at, self.flow.epoch), state);
                    }
                    if self.flow.rest(end, &mut rest) {
                        self.gaps.insert(key(end, self.flow.epoch), rest);
                        if rest.left == Left::Open {
                            let state = *self.flow.next_state();
                            self.states.insert(key(end, self.flow.epoch), state);
                        }
                    }
                }
                if self.flow.remember(start, end, gap) {
                    self.gaps.insert(key(start, self.flow.epoch), *gap);
                }
                Fate::Passed(place)
            }
            Err(Conflict::Ambiguous) if place == Place::Repeat => Fate::Dropped(Place::Duplicate),
            Err(Conflict::Ambiguous) => Fate::Dropped(Place::TooEarly),
            Err(conflict) => Fate::Reset(conflict),
        }
    }

    /// The same for the `first` bytes, and the others unless they are known.
    fn scan_after(&mut self, scan: &mut Scan, bytes: &[u8], begun: Start, first: usize) -> Scanned {
        let end = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let mut shown = if first == 0 {
            bytes
        } else {
            bytes.get(..first).unwrap_or_default()
        };
        loop {
            match self.scan(scan, shown, begun) {
                Scanned::End => {}
                hit @ (Scanned::Hit | Scanned::Over) => return hit,
            }
            match self.flow.come_to_end(scan, end) {
                Rest::Until(end) => shown = bytes.get(..end as usize).unwrap_or_default(),
                Rest::Known => {
                    self.repeated += 1;
                    return Scanned::End;
                }
                Rest::None => return Scanned::End,
            }
        }
    }

    fn scan(&self, scan: &mut Scan, bytes: &[u8], begun: Start) -> Scanned {
        loop {
            match scan.step(self.rules, bytes, &NoFilter) {
                Step::Lookup(digest) if (self.listed)(&digest) => return Scanned::Hit,
                Step::More | Step::Lookup(_) => {}
                Step::End => return Scanned::End,
            }
            if begun.is_over(scan) {
                return Scanned::Over;
            }
        }
    }
}

/// As the programs look at the end of a segment.
fn ends_in_last_chunk(bytes: &[u8]) -> bool {
    let mut end = [0; 8];
    let from = bytes.iter().rev().take(LAST_CHUNK as usize);
    for (to, from) in end.iter_mut().take(LAST_CHUNK as usize).rev().zip(from) {
        *to = *from;
    }
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    is_last_chunk(u64::from_le_bytes(end), len)
}

/// What the first bytes of a receiver's segment say, read into `head`: as many as it asks for are read first.
pub fn said(head: &mut Head, bytes: &[u8]) -> Said {
    if !head.has_key() {
        head.set_key(1 << 32);
    }
    let first = head.asks_for();
    let said = said_within(head, bytes, first);
    if said == Said::Unknown && (first as usize) < bytes.len().min(HEAD as usize) {
        return said_within(head, bytes, HEAD);
    }
    said
}

/// The same where so many bytes are read at most.
pub fn said_within(head: &mut Head, bytes: &[u8], most: u32) -> Said {
    let bytes = bytes.get(..most as usize).unwrap_or(bytes);
    for (to, from) in head.bytes.iter_mut().zip(bytes) {
        *to = *from;
    }
    u32::try_from(bytes.len()).map_or(Said::Unknown, |len| Said::by(head, len))
}

/// What is known of a segment before it is scanned, as the programs ask for it.
fn recall(
    flow: &mut Flow,
    scan: &mut Scan,
    bytes: &[u8],
    keys: &SumKeys,
    rules: &Rules,
    generation: u64,
) -> Recalled {
    let sums = |flow: &Flow| {
        let all = bytes.sums(keys, 0, bytes.end());
        let part = bytes.part_sums(keys, 0, flow.left_out())?;
        Some(all.without(&part))
    };
    if flow.may_know_all(bytes.end(), generation) {
        let sums = sums(flow);
        if flow.knows_all(sums.as_ref()) {
            return Recalled::Request;
        }
    }
    let mut recalled = flow.recall(scan, bytes, keys, rules, generation);
    if recalled == Recalled::Other {
        recalled = flow.learn(bytes, keys, rules, generation);
    }
    if recalled == Recalled::RequestToSum
        && let Some(sums) = sums(flow)
    {
        flow.note_all(&sums);
    }
    recalled
}

/// Keys of sums, the same in every run.
fn keys() -> SumKeys {
    let random = random("keys of sums", SumKeys::BYTES);
    SumKeys::new(random.as_array().unwrap_or(&[0; SumKeys::BYTES]))
}

/// The sequence number behind these bytes, which begin at `start`.
fn end_of(start: u32, bytes: &[u8]) -> u32 {
    start.wrapping_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX))
}

/// Under what something is noted.
const fn key(at: u32, epoch: u32) -> GapKey {
    GapKey {
        flow: KEY,
        at,
        epoch,
    }
}

/// What is kept, in the open.
fn kept(behind: &Behind) -> Vec<u8> {
    let mut bytes: Vec<u8> = behind
        .words()
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    bytes.truncate(behind.len() as usize);
    bytes
}

enum Scanned {
    Hit,
    Over,
    End,
}
