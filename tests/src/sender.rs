//! A model of an honest TCP sender before a path that loses and reorders, an inspector, and a receiver.

use std::collections::{BTreeMap, BTreeSet};

use tokenblock_ebpf::verdict::Counter;

use crate::{
    receiver::Receiver,
    trace::{Inspector, START, reaches, sequence},
};

/// Nanoseconds of a microsecond.
const MICROSECOND: u64 = 1000;
/// How long a frame is on its way, in microseconds.
const DELAY: u64 = 2000;
/// What a sender waits for an acknowledgment before it sends again.
const TIMEOUT: u64 = 230_000;
/// How long a receiver may hold an acknowledgment back.
const DELAYED: u64 = 40_000;
/// Segments on their way at once.
const FLIGHT: usize = 24;
/// Segments that were sent later and came, before one counts as lost.
const REORDERING: usize = 3;
/// Most events of a run.
const EVENTS: usize = 20_000;
/// Sequence number of the first byte.
const FIRST: u32 = 5;
/// How long what passed waits until the receiver's TCP has it.
const BACKLOG: u64 = 40;
/// Milliseconds on the sender's timestamp clock when it begins (RFC 7323 section 4).
const CLOCK: u32 = 1000;
/// Milliseconds by which a segment may be older than what the receiver has taken (`TCP_PAWS_WINDOW` of Linux).
const OLDER: u32 = 1;

/// What a path does to frames.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// Of a hundred frames so many are lost in front of the inspector, and of the acknowledgments behind it.
    pub lost: u64,
    /// Of a hundred segments so many are lost behind the inspector.
    pub lost_behind: u64,
    /// Of a hundred frames so many overtake those that are on their way.
    pub early: u64,
    /// Decides which; not 0.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Sent {
    /// What the application read.
    pub stream: Vec<u8>,
    /// Each segment that came to the inspector, and by which way it left.
    pub ways: Vec<(usize, usize, Counter)>,
    /// Segments that passed, and were too old for the receiver.
    pub refused: usize,
    /// Microseconds that it took.
    pub took: u64,
}

#[derive(Debug)]
enum Event {
    /// A segment comes to the inspector, with this timestamp.
    Segment(usize, u32),
    /// A segment comes to the receiver.
    Taken(usize, u32),
    /// The receiver's acknowledgment of all before, with those that it holds, comes to the sender.
    Ack(usize, Vec<usize>),
    /// Nothing was acknowledged since this many acknowledgments.
    Timeout(usize),
    /// The receiver holds an acknowledgment back no longer.
    Delayed(usize),
}

struct Model<'a> {
    path: Path,
    random: u64,
    now: u64,
    events: BTreeMap<(u64, usize), Event>,
    count: usize,
    segments: Vec<(usize, usize, &'a [u8])>,
    /// When each was sent last, by order; 0 where it was not or counts as lost.
    sent: Vec<usize>,
    sends: usize,
    held: BTreeSet<usize>,
    acknowledged: usize,
    acks: usize,
    unanswered: usize,
    /// What the receiver last acknowledged, and the timestamp that it echoes.
    answered: usize,
    echo: u32,
    refused: usize,
}

/// Sends messages of a connection, each when the one before is acknowledged, in segments of at most these sizes, over
/// and over.
pub fn send(
    inspector: &mut impl Inspector,
    messages: &[Vec<u8>],
    sizes: &[usize],
    path: Path,
) -> Sent {
    let mut segments = Vec::new();
    let mut sizes = sizes.iter().cycle();
    let (mut at, mut ends) = (0, Vec::new());
    for message in messages {
        let mut rest = message.as_slice();
        while !rest.is_empty() {
            let size = sizes.next().map_or(1448, |size| (*size).max(1));
            let (piece, behind) = rest.split_at(size.min(rest.len()));
            segments.push((at, at + piece.len(), piece));
            at += piece.len();
            rest = behind;
        }
        ends.push(at);
    }
    let mut model = Model {
        path,
        random: path.seed,
        now: 0,
        events: BTreeMap::new(),
        count: 0,
        sent: vec![0; segments.len()],
        segments,
        sends: 0,
        held: BTreeSet::new(),
        acknowledged: 0,
        acks: 0,
        unanswered: 0,
        answered: 0,
        echo: 0,
        refused: 0,
    };
    let mut receiver = Receiver::default();
    let mut ways = Vec::new();
    inspector.accept(FIRST);
    model.fill(&ends);
    for _ in 0..EVENTS {
        let Some(((now, _), event)) = model.events.pop_first() else {
            break;
        };
        model.now = now;
        match event {
            Event::Segment(n, stamp) => {
                let (start, end, bytes) = model.segments[n];
                let at = sequence(FIRST, start);
                let way = inspector.segment(at, bytes, stamp, START + now * MICROSECOND);
                ways.push((start, end, way));
                if reaches(way) {
                    if model.percent() >= path.lost_behind {
                        model.after(BACKLOG, Event::Taken(n, stamp));
                    }
                } else if !matches!(
                    way,
                    Counter::TooEarly
                        | Counter::Duplicate
                        | Counter::OutOfWindow
                        | Counter::OldTimestamp
                ) {
                    break;
                }
            }
            Event::Taken(n, stamp) => model.take(&mut receiver, inspector, n, stamp),
            Event::Delayed(unanswered) if unanswered == model.unanswered && unanswered != 0 => {
                model.answer(&receiver, inspector);
            }
            Event::Ack(next, held) => {
                model.hear(next, &held);
                model.fill(&ends);
            }
            Event::Timeout(acks) if acks == model.acks => {
                if model.acknowledged < at {
                    model.forget_sent();
                    model.fill(&ends);
                    model.arm();
                }
            }
            Event::Delayed(_) | Event::Timeout(_) => {}
        }
        if receiver.next() == at {
            break;
        }
    }
    Sent {
        stream: receiver.stream,
        ways,
        refused: model.refused,
        took: model.now,
    }
}

impl Model<'_> {
    fn percent(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % 100
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.count += 1;
        self.events.insert((self.now + delay, self.count), event);
    }

    fn arm(&mut self) {
        self.after(TIMEOUT, Event::Timeout(self.acks));
    }

    /// Puts a frame on its way, or loses it.
    fn carry(&mut self, event: Event) {
        if self.percent() >= self.path.lost {
            let early = self.percent() < self.path.early;
            self.after(if early { 1 } else { DELAY }, event);
        }
    }

    /// Sends what there is room for.
    fn fill(&mut self, ends: &[usize]) {
        let message = ends.iter().find(|end| **end > self.acknowledged);
        let end = message.copied().unwrap_or(0);
        let mut flight = 0;
        for n in self.first()..self.segments.len() {
            let (_, behind, _) = self.segments[n];
            if self.held.contains(&n) {
                continue;
            }
            if behind > end || flight >= FLIGHT {
                break;
            }
            flight += 1;
            if self.sent[n] == 0 {
                if self.sends == 0 {
                    self.arm();
                }
                self.sends += 1;
                self.sent[n] = self.sends;
                self.now += 3;
                self.carry(Event::Segment(n, self.clock()));
            }
        }
    }

    /// The sender's clock, in milliseconds.
    fn clock(&self) -> u32 {
        CLOCK.wrapping_add(u32::try_from(self.now / 1000).unwrap_or(u32::MAX))
    }

    /// The receiver takes a segment, or refuses it, as one that is older than what it has taken (RFC 7323 section 5.3).
    fn take(
        &mut self,
        receiver: &mut Receiver,
        inspector: &mut impl Inspector,
        n: usize,
        stamp: u32,
    ) {
        let (start, end, bytes) = self.segments[n];
        if stamp + OLDER < self.echo {
            self.refused += 1;
            self.answer(receiver, inspector);
            return;
        }
        if start <= self.answered && self.answered <= end {
            self.echo = self.echo.max(stamp);
        }
        let next = receiver.next();
        receiver.take(start, bytes);
        self.held.insert(n);
        self.unanswered += 1;
        let in_order = receiver.next() == next + bytes.len();
        if in_order && self.unanswered < 2 {
            self.after(DELAYED, Event::Delayed(self.unanswered));
        } else {
            self.answer(receiver, inspector);
        }
    }

    fn answer(&mut self, receiver: &Receiver, inspector: &mut impl Inspector) {
        self.unanswered = 0;
        self.answered = receiver.next();
        inspector.settle(sequence(FIRST, receiver.next()), self.echo);
        let first = self
            .segments
            .partition_point(|(_, end, _)| *end <= receiver.next());
        self.held = self.held.split_off(&first);
        let held = self.held.iter().copied().collect();
        self.carry(Event::Ack(receiver.next(), held));
    }

    /// The sender hears an acknowledgment.
    fn hear(&mut self, next: usize, held: &[usize]) {
        if next > self.acknowledged {
            self.acknowledged = next;
            self.acks += 1;
            self.arm();
        }
        let mut known: Vec<usize> = held.iter().map(|n| self.sent[*n]).collect();
        known.sort_unstable();
        let Some(latest) = known.len().checked_sub(REORDERING).map(|at| known[at]) else {
            return;
        };
        for n in self.first()..self.segments.len() {
            if self.sent[n] != 0 && self.sent[n] < latest && !held.contains(&n) {
                self.sent[n] = 0;
            }
        }
    }

    /// The first segment that the sender does not know to be taken.
    fn first(&self) -> usize {
        self.segments
            .partition_point(|(_, end, _)| *end <= self.acknowledged)
    }

    fn forget_sent(&mut self) {
        for n in self.first()..self.segments.len() {
            if !self.held.contains(&n) {
                self.sent[n] = 0;
            }
        }
    }
}
