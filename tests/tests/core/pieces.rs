//! Streams that are cut at a few places, most of them where something begins, and whose pieces are sent over and over: so
//! what is lost comes again up to where another piece ended, and open states are kept, given up and taken up again.

use proptest::{prelude::*, sample::Index};
use tokenblock_tests::trace::{Act, Streams};

use crate::flow::{cases, check};

/// What a cut is near to.
const MARKS: [&[u8]; 9] = [
    b"\n",
    b"GET /b",
    b"GET /b",
    b"access_token",
    b"Author",
    b"ization",
    b"Cookie",
    b"\x01",
    b"no field",
];

/// A place in a stream.
#[derive(Clone, Debug)]
enum Cut {
    /// So many bytes from one of a kind of marks.
    Near(&'static [u8], Index, isize),
    /// Anywhere.
    At(Index),
}

fn cut() -> impl Strategy<Value = Cut> {
    prop_oneof![
        6 => (prop::sample::select(&MARKS[..]), any::<Index>(), prop_oneof![2 => Just(0), 1 => -2..7_isize])
            .prop_map(|(mark, at, by)| Cut::Near(mark, at, by)),
        1 => any::<Index>().prop_map(Cut::At),
    ]
}

/// What happens to the pieces between the cuts.
#[derive(Clone, Debug)]
enum Event {
    /// So many pieces are sent in one segment, from this one on or behind those that were sent last.
    Send {
        at: Option<Index>,
        count: usize,
        variant: usize,
        decoy: bool,
    },
    Ack,
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let variant = prop_oneof![6 => Just(0_usize), 2 => Just(1), 1 => Just(2)];
    let at = prop::option::weighted(0.3, any::<Index>());
    let count = prop_oneof![4 => Just(1_usize), 1 => 2..4_usize];
    let decoy = prop::bool::weighted(0.3);
    prop_oneof![
        8 => (at, count, variant, decoy)
            .prop_map(|(at, count, variant, decoy)| Event::Send { at, count, variant, decoy }),
        3 => Just(Event::Ack),
        2 => prop::sample::select(&[0_u64, 210, 250][..]).prop_map(Event::Wait),
    ]
}

/// Where the stream is cut, from `from` on.
fn cuts(stream: &[u8], from: usize, cuts: &[Cut]) -> Vec<usize> {
    let mut at: Vec<usize> = cuts
        .iter()
        .map(|cut| match cut {
            Cut::At(at) => from + at.index(stream.len() - from),
            Cut::Near(mark, at, by) => {
                let marks: Vec<usize> = (from..stream.len())
                    .filter(|at| stream[*at..].starts_with(mark))
                    .collect();
                if marks.is_empty() {
                    return from + at.index(stream.len() - from);
                }
                at.get(&marks).saturating_add_signed(*by)
            }
        })
        .filter(|at| (from..stream.len()).contains(at))
        .collect();
    at.extend([from, stream.len()]);
    at.sort_unstable();
    at.dedup();
    at
}

/// All up to `from`, then the events; then what is still missing, twice: in order, and where the receiver stands.
fn acts(at: &[usize], events: &[Event]) -> Vec<Act> {
    let send = |from: usize, count: usize, variant, decoy| Act::Send {
        from: at[from],
        len: at[(from + count).min(at.len() - 1)] - at[from],
        variant,
        decoy,
    };
    let first = Act::Continue {
        len: at[0],
        variant: 0,
        decoy: false,
    };
    let mut acts = vec![first, Act::Ack];
    let pieces = at.len() - 1;
    let mut next = 0;
    for event in events {
        match event {
            Event::Send {
                at,
                count,
                variant,
                decoy,
            } => {
                let from = at.as_ref().map_or(next, |at| at.index(pieces.div_ceil(2)));
                acts.push(send(from, *count, *variant, *decoy));
                next = (from + count) % pieces;
            }
            Event::Ack => acts.push(Act::Ack),
            Event::Wait(milliseconds) => acts.push(Act::Wait {
                milliseconds: *milliseconds,
            }),
        }
    }
    for milliseconds in [0, 250] {
        for piece in 0..pieces {
            acts.extend([
                Act::Ack,
                Act::Wait { milliseconds },
                send(piece, 1, 0, false),
            ]);
        }
    }
    acts
}

proptest! {
    #![proptest_config(cases(6_000))]

    /// Whatever the receiver delivers bears no listed token.
    #[test]
    fn no_listed_token_is_delivered_in_pieces(
        cut in prop::collection::vec(cut(), 3..12),
        events in prop::collection::vec(event(), 2..18),
        kind in 0..12_usize,
        body in 0..66_usize,
    ) {
        let streams = match kind {
            0..4 => Streams::by_framing(body),
            4 => Streams::adrift(body),
            5 => Streams::by_lines(0),
            6 => Streams::in_body(),
            7 => Streams::in_chunk(),
            8 | 9 => Streams::overtaken(body),
            _ => Streams::in_odd_head(kind == 10),
        };
        let from = if matches!(kind, 6 | 7) { streams.lines_at() - 30 } else { 0 };
        let at = cuts(&streams.variants[0], from, &cut);
        check(&streams, &acts(&at, &events), u32::MAX - 100)?;
    }
}
