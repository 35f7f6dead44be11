//! Pieces of a stream in order, and again: as they were, shorter, otherwise, after the time by which the receiver would have
//! acknowledged them. What is placed by what passed before, and by where the receiver stands, is hardly met by what is sent
//! from anywhere.

use proptest::{prelude::*, sample::Index};
use tokenblock_ebpf::verdict::Counter;
use tokenblock_tests::{
    engine::Engine,
    trace::{Act, Listing, Streams, play},
};

use crate::{flow::cases, repeats::FIRST};

/// Milliseconds after which what is not acknowledged was lost.
const LONG: u64 = 240;
/// Bytes in which cuts lie.
const CUT: usize = 360;

/// How a piece is sent: of which of the streams, and whether the receiver ignores it.
type How = (usize, bool);

#[derive(Clone, Debug)]
enum Event {
    /// So many pieces behind those that were sent last; whether they count as sent.
    Next(usize, How, bool),
    /// What was sent so many segments ago, or its beginning; what is left of it then counts as sent last.
    Again(usize, Option<Index>, How),
    /// So many pieces from this one on.
    Send(Index, usize, How),
    /// The next pieces are those from this one on.
    From(Index),
    /// So many bytes from where the receiver stands, perhaps after a long time.
    Continue(usize, How, bool),
    Ack,
    Wait,
}

fn event() -> impl Strategy<Value = Event> {
    let variant = prop_oneof![6 => Just(0_usize), 2 => Just(1), 1 => Just(2)];
    let how = || (variant.clone(), prop::bool::weighted(0.25));
    let cut = prop::option::weighted(0.4, any::<Index>());
    prop_oneof![
        8 => (1..3_usize, how(), prop::bool::weighted(0.85)).prop_map(|(n, how, on)| Event::Next(n, how, on)),
        4 => (0..5_usize, cut, how()).prop_map(|(back, cut, how)| Event::Again(back, cut, how)),
        2 => (any::<Index>(), 1..3_usize, how()).prop_map(|(at, n, how)| Event::Send(at, n, how)),
        1 => any::<Index>().prop_map(Event::From),
        2 => (1..60_usize, how(), any::<bool>()).prop_map(|(len, how, late)| Event::Continue(len, how, late)),
        2 => Just(Event::Ack),
        1 => Just(Event::Wait),
    ]
}

/// What is sent of a stream: where it is cut, what comes first from ahead of all that, the events, and how the rest comes.
#[derive(Clone, Debug)]
struct Sent {
    cuts: Vec<usize>,
    /// So many bytes in front of them are not sent with the rest of what is in front.
    shift: usize,
    ahead: Option<(usize, bool)>,
    events: Vec<Event>,
    /// The rest in order, each piece when the one before is acknowledged: at once, or after a long time.
    rest: Option<bool>,
}

fn sent() -> impl Strategy<Value = Sent> {
    (
        prop::collection::vec(0..CUT, 2..16),
        0..60_usize,
        prop::option::of((0..80_usize, any::<bool>())),
        prop::collection::vec(event(), 4..54),
        prop::option::weighted(0.7, any::<bool>()),
    )
        .prop_map(|(cuts, shift, ahead, events, rest)| Sent {
            cuts,
            shift,
            ahead,
            events,
            rest,
        })
}

const fn send(from: usize, to: usize, (variant, decoy): How) -> Act {
    Act::Send {
        from,
        len: to - from,
        variant,
        decoy,
    }
}

impl Sent {
    /// The acts, of which those that are cut begin at `from` of a stream of `len` bytes.
    fn acts(&self, from: usize, len: usize) -> Vec<Act> {
        let from = from.saturating_sub(self.shift);
        let mut acts = vec![send(0, from, (0, false)), Act::Ack];
        let mut at: Vec<usize> = self.cuts.iter().map(|cut| (from + cut).min(len)).collect();
        at.push(from);
        at.sort_unstable();
        at.dedup();
        let last = at.len() - 1;
        if let Some((distance, decoy)) = self.ahead {
            let ahead = (at[last] + distance).min(len);
            acts.push(send(ahead, (ahead + 60).min(len), (0, decoy)));
        }
        let (mut next, mut past) = (0, vec![(from, at[last.min(1)])]);
        for event in &self.events {
            let (start, end, how) = match event {
                Event::Next(count, how, counts) => {
                    let (start, end) = (next, (next + count).min(last));
                    next = if *counts { end } else { start };
                    (at[start], at[end], *how)
                }
                Event::Again(back, cut, how) => {
                    let (start, end) = past[past.len() - 1 - back % past.len()];
                    let len = cut.map_or(end - start, |cut| cut.index(end - start + 1));
                    if len < end - start {
                        past.push((start + len, end));
                    }
                    acts.push(send(start, start + len, *how));
                    continue;
                }
                Event::Send(piece, count, how) => {
                    let start = piece.index(last + 1);
                    (at[start], at[(start + count).min(last)], *how)
                }
                Event::From(piece) => {
                    next = piece.index(last + 1);
                    continue;
                }
                Event::Continue(len, (variant, decoy), late) => {
                    if *late {
                        acts.push(Act::Wait { milliseconds: LONG });
                    }
                    acts.push(Act::Continue {
                        len: *len,
                        variant: *variant,
                        decoy: *decoy,
                    });
                    continue;
                }
                Event::Ack => {
                    acts.push(Act::Ack);
                    continue;
                }
                Event::Wait => {
                    acts.push(Act::Wait { milliseconds: LONG });
                    continue;
                }
            };
            acts.push(send(start, end, how));
            past.push((start, end));
        }
        let rest = self.rest.map(|late| {
            let told = if late {
                Act::Wait { milliseconds: LONG }
            } else {
                Act::Ack
            };
            let more = Act::Continue {
                len: 48,
                variant: 0,
                decoy: false,
            };
            [told, more]
        });
        acts.extend(rest.iter().cycle().take(14).flatten().cloned());
        acts
    }

    /// By which ways the segments leave, and whether a listed token is delivered.
    fn play(&self, streams: &Streams, from: usize, after: u32) -> (Vec<Counter>, bool) {
        self.play_by(streams, from, |engine| engine.trusting(after))
    }

    /// The same where they are judged on their way out.
    fn play_out(&self, streams: &Streams, from: usize) -> (Vec<Counter>, bool) {
        self.play_by(streams, from, |engine| engine.sending(7))
    }

    fn play_by(
        &self,
        streams: &Streams,
        from: usize,
        set: impl for<'a> Fn(Engine<'a>) -> Engine<'a>,
    ) -> (Vec<Counter>, bool) {
        let listing = Listing::new().unwrap();
        let listed = |digest: &_| listing.has(digest);
        let mut engine = set(Engine::new(&listing.rules, &listed));
        let acts = self.acts(from, streams.variants[0].len());
        let played = play(&mut engine, streams, &acts, FIRST);
        let delivered = streams.bring_token(&listing, &played.stream);
        (played.ways, delivered)
    }
}

/// Where the last `len` bytes of a stream begin.
fn behind(streams: &Streams, len: usize) -> usize {
    streams.variants[0].len() - len
}

proptest! {
    #![proptest_config(cases(1_000))]

    /// Whatever the receiver delivers bears no listed token.
    #[test]
    fn no_listed_token_is_delivered_again(sent in sent(), body in 0..120_usize) {
        for streams in [Streams::by_lines(0), Streams::by_framing(body), Streams::adrift(body)] {
            prop_assert!(!sent.play(&streams, 0, 0).1);
            prop_assert!(!sent.play_out(&streams, 0).1);
        }
    }

    /// The same inside of bodies that are long enough for data ahead of a gap to be passed.
    #[test]
    fn no_listed_token_is_delivered_again_in_a_body(sent in sent()) {
        for streams in [Streams::in_body(), Streams::in_chunk()] {
            prop_assert!(!sent.play(&streams, streams.lines_at(), 0).1);
            prop_assert!(!sent.play_out(&streams, streams.lines_at()).1);
        }
    }
}

proptest! {
    #![proptest_config(cases(300))]

    /// The same where such bodies end.
    #[test]
    fn no_listed_token_is_delivered_again_behind_a_body(sent in sent(), body in 20_000..20_120_usize) {
        for streams in [Streams::by_lines(body), Streams::by_framing(body), Streams::adrift(body)] {
            prop_assert!(!sent.play(&streams, behind(&streams, 400), 0).1);
        }
    }
}
