//! What passed the flow engine and is missing at the receiver all the same: it is sent again, and nothing else comes in its
//! place.

use tokenblock_ebpf::{flow::Place, verdict::Counter};
use tokenblock_tests::{
    bodies::{Body, Framing},
    engine::{Engine, Fate},
    fixtures::Token,
    trace::{Listing, START, copies_from_open_states, sequence},
};

pub(crate) const FIRST: u32 = 7;

/// A connection on which a declared body of lines has begun.
pub(crate) struct Upload<'a> {
    pub(crate) engine: Engine<'a>,
    pub(crate) now: u64,
    /// Behind what was sent.
    pub(crate) end: usize,
}

impl<'a> Upload<'a> {
    fn whole(
        listing: &'a Listing,
        listed: &'a dyn Fn(&tokenblock_ebpf::digest::TokenDigest) -> bool,
    ) -> Self {
        let mut engine = Engine::new(&listing.rules, listed);
        engine.accept(FIRST);
        let request = Framing::Declared.request(&Body::Text.bytes(60_000));
        let mut upload = Self {
            engine,
            now: START,
            end: 0,
        };
        for piece in request[..20_000].chunks(1000) {
            let at = upload.end;
            assert!(matches!(upload.send(at, piece), Fate::Passed(Place::Next)));
            upload.engine.settle(sequence(FIRST, upload.end));
        }
        upload
    }

    /// The same with a first gap.
    pub(crate) fn begin(
        listing: &'a Listing,
        listed: &'a dyn Fn(&tokenblock_ebpf::digest::TokenDigest) -> bool,
    ) -> Self {
        let mut upload = Self::whole(listing, listed);
        // Lost, for good.
        upload.end += 500;
        upload
    }

    pub(crate) fn send(&mut self, at: usize, bytes: impl AsRef<[u8]>) -> Fate {
        let bytes = bytes.as_ref();
        self.now += 1_000_000;
        self.end = self.end.max(at + bytes.len());
        self.engine.segment(sequence(FIRST, at), bytes, self.now)
    }
}

/// Each of the pieces is sent twice, the second time as it was or otherwise.
fn twice(first: &[&str], second: &[&str]) -> Vec<Fate> {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let mut upload = Upload::begin(&listing, &listed);
    let mut at = Vec::new();
    for piece in first {
        at.push(upload.end);
        let fate = upload.send(upload.end, piece);
        assert!(matches!(fate, Fate::Passed(_)), "{piece:?}: {fate:?}");
    }
    at.iter()
        .zip(second)
        .map(|(at, piece)| upload.send(*at, piece))
        .collect()
}

#[test]
fn a_second_copy_passes() {
    // The first is ahead of the gap; the others end in a line, in a name, in a query and in a value.
    let pieces = [
        "some text of a line\n",
        "and of two\nAuth",
        "or: me\nsee /?",
        "access_token=abcdef",
        "gh and so on\n",
    ];
    let fates = twice(&pieces, &pieces);
    assert_eq!(fates, [Fate::Passed(Place::Repeat); 5]);
}

#[test]
fn another_that_says_the_same_passes() {
    let first = ["some text of a line\n", "and of two\nAuth", "or: me\n"];
    let second = ["some text of a line\n", "and of 2 !\nAuth", "or: it\n"];
    assert_eq!(twice(&first, &second), [Fate::Passed(Place::Repeat); 3]);
}

#[test]
fn another_that_says_something_else_is_dropped() {
    const DROPPED: Fate = Fate::Dropped(Place::Duplicate);
    let token = Token::Opaque.text();
    let name = "Authorization: Bearer ";
    let line = "and so it went on, and on, and\n";
    for second in [
        // It ends in another state, or at another place.
        "and so it went on, and on, and ",
        "and so it went on, and on, \nAut",
        "and so it went on, and on, and\nx",
        "and so it went on, and on,",
    ] {
        assert_eq!(twice(&[line], &[second]), [DROPPED], "{second:?}");
        let fates = twice(&["and on\n", line], &["and on\n", second]);
        assert_eq!(fates, [Fate::Passed(Place::Repeat), DROPPED], "{second:?}");
    }
    // What fills the gap may be read on in the first bytes of what is behind it.
    let other = "and so he went on, and on, and\n";
    assert_eq!(twice(&[line], &[other]), [DROPPED]);
    // It bears the token itself.
    let filler = "x".repeat(name.len() + token.len());
    let evil = format!("{name}{token}");
    assert_eq!(
        twice(
            &["and on\n", &format!("{filler}\n")],
            &["and on\n", &format!("{evil}\n")]
        )[1],
        DROPPED
    );
}

/// What fills a gap is read from one state, which is that of the copy that the receiver may have.
#[test]
fn a_gap_is_filled_once() {
    let token = Token::Opaque.text();
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let mut upload = Upload::begin(&listing, &listed);
    let late = format!("Authorization: Bearer {token}\r\n");
    let at = upload.end;
    assert_eq!(
        upload.send(at, "of a line that ends\n"),
        Fate::Passed(Place::Ahead)
    );
    let gap = upload.end;
    let piece = "a line that ends  \r\n";
    let behind = gap + piece.len() + late.len();
    assert_eq!(
        upload.send(behind, "more of it\n"),
        Fate::Passed(Place::Ahead)
    );
    assert_eq!(upload.send(gap, piece), Fate::Passed(Place::Filler));
    assert_eq!(
        upload.send(gap, "a line that ends not"),
        Fate::Dropped(Place::Duplicate)
    );
    assert_eq!(upload.send(gap, "another"), Fate::Dropped(Place::Duplicate));
    assert_eq!(upload.send(gap + piece.len(), late), Fate::Blocked);
}

/// What fills a gap ends in a name, and what stood behind it was never taken: who goes on there goes on in that name.
#[test]
fn a_recovery_goes_on_in_what_filled_a_gap() {
    let token = Token::Opaque.text();
    for whole in [true, false] {
        let listing = Listing::new().unwrap();
        let listed = |digest: &_| listing.has(digest);
        let mut upload = Upload::begin(&listing, &listed);
        let gap = upload.end - 500;
        let filler = "x y\nAuth";
        let right = gap + filler.len();
        // Closed by what fills it, or by what lies in its middle and what fills the rest.
        let behind = if whole { right } else { right + 100 };
        assert_eq!(upload.send(behind, "or: abc\n"), Fate::Passed(Place::Ahead));
        if !whole {
            assert_eq!(upload.send(right, "or: abc\n"), Fate::Passed(Place::Inside));
        }
        assert_eq!(upload.send(gap, filler), Fate::Passed(Place::Filler));
        upload.engine.settle(sequence(FIRST, right));
        upload.now += 240_000_000;
        let evil = format!("orization: Bearer {token}\r\n\r\n");
        assert_eq!(upload.send(right, evil), Fate::Blocked);
    }
}

/// Open states are kept by their places, so that gaps behind several of them are filled in any order.
#[test]
fn gaps_behind_open_states_are_filled_in_any_order() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let mut upload = Upload::begin(&listing, &listed);
    let line = "uthor of it\nand more\nA";
    let first = upload.end;
    assert_eq!(upload.send(first, "text\nA"), Fate::Passed(Place::Ahead));
    let start = upload.end;
    for n in (1..9).step_by(2) {
        assert_eq!(
            upload.send(start + n * line.len(), line),
            Fate::Passed(Place::Ahead),
            "{n}"
        );
    }
    for n in [6, 2, 4, 0] {
        assert_eq!(
            upload.send(start + n * line.len(), line),
            Fate::Passed(Place::Filler),
            "{n}"
        );
    }
}

/// Each piece of a declared body, in order; the states that are left where they end.
fn in_order(upload: &mut Upload<'_>, pieces: &[&str]) -> Vec<usize> {
    let mut at = Vec::new();
    for piece in pieces {
        at.push(upload.end);
        let fate = upload.send(upload.end, piece);
        assert_eq!(fate, Fate::Passed(Place::Next), "{piece:?}");
    }
    at
}

/// Of more open states than are held, the receiver may turn out to stand between two, where nothing was open: that it
/// stands so is remembered.
#[test]
fn a_recovery_among_states_that_were_given_up_comes_through() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let mut upload = Upload::whole(&listing, &listed);
    let pieces = [
        "a line\nAuth",
        "or: me\nAuth",
        "or: it\nAuth",
        "or: he\nand words that go on",
        " and on\nAuth",
        "or: we\nand so on\n",
    ];
    let at = in_order(&mut upload, &pieces);
    upload.engine.settle(sequence(FIRST, at[4]));
    upload.now += 300_000_000;
    assert_eq!(upload.send(at[4], pieces[4]), Fate::Passed(Place::Recovery));
    assert_eq!(upload.send(at[5], pieces[5]), Fate::Passed(Place::Next));
}

/// White space that a line begins with is no state that has to be kept: what fills a gap may end in it.
#[test]
fn a_gap_is_filled_to_within_the_indentation_of_a_line() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let mut upload = Upload::whole(&listing, &listed);
    let gap = upload.end;
    let filler = "a line\n    ";
    // Longer than what is kept of what stands behind a gap.
    let behind = format!("{}and text\n", " ".repeat(300));
    assert_eq!(
        upload.send(gap + filler.len(), behind),
        Fate::Passed(Place::Ahead)
    );
    assert_eq!(upload.send(gap, filler), Fate::Passed(Place::Filler));
}

/// Copies of what was passed from open states, where all was settled before.
#[test]
fn second_copies_from_open_states_pass() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let fates = copies_from_open_states(&mut Engine::new(&listing.rules, &listed));
    assert_eq!(&fates[fates.len() - 2..], [Counter::Clean; 2], "{fates:?}");
}

/// What the receiver would refuse is dropped; a decoy's timestamp counts until the receiver says otherwise.
#[test]
fn what_is_too_old_is_dropped() {
    const OLD: Fate = Fate::Dropped(Place::Old);
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let mut engine = Engine::new(&listing.rules, &listed);
    engine.accept(FIRST);
    let request = Framing::Declared.request(&Body::Line.bytes(2000));
    let mut at = 0;
    let mut now = START;
    let mut send = |engine: &mut Engine<'_>, at: usize, stamp: u32| {
        now += 1_000_000;
        engine.segment_stamped(sequence(FIRST, at), &request[at..at + 100], stamp, now)
    };
    // Nothing is known of what the receiver has taken.
    assert_eq!(send(&mut engine, at, 90), Fate::Passed(Place::Next));
    at += 100;
    engine.settle_stamped(sequence(FIRST, at), 90);
    assert_eq!(send(&mut engine, at, 88), OLD);
    assert_eq!(send(&mut engine, at, 89), Fate::Passed(Place::Next));
    at += 100;
    engine.settle_stamped(sequence(FIRST, at), 90);
    // It will take this one first, though it has not said so.
    assert_eq!(send(&mut engine, at, 95), Fate::Passed(Place::Next));
    assert_eq!(send(&mut engine, at + 100, 93), OLD);
    assert_eq!(send(&mut engine, at + 100, 94), Fate::Passed(Place::Next));
    at += 200;
    engine.settle_stamped(sequence(FIRST, at), 95);
    // A decoy, which it ignores: it goes on where it stood.
    assert_eq!(send(&mut engine, at, 1 << 30), Fate::Passed(Place::Next));
    assert_eq!(send(&mut engine, at + 100, 96), OLD);
    now += 230_000_000;
    let send = |engine: &mut Engine<'_>, at: usize, stamp: u32| {
        engine.segment_stamped(sequence(FIRST, at), &request[at..at + 100], stamp, now)
    };
    assert_eq!(send(&mut engine, at, 97), Fate::Passed(Place::Repeat));
    // Without timestamps nothing is too old, nor where the receiver knows none.
    engine.settle_stamped(sequence(FIRST, at + 100), 97);
    assert_eq!(send(&mut engine, at + 100, 0), Fate::Passed(Place::Next));
}
