//! Receivers whose acknowledgments are late: what was taken for lost has come through.

use tokenblock_tests::{
    engine::{Engine, Fate},
    fixtures::Token,
    trace::{Listing, START, sequence},
};

const FIRST: u32 = 7;
/// More than a delayed acknowledgment takes.
const LATE: u64 = 230_000_000;

/// Control characters end no query of a path, and so none that comes again where something was lost.
#[test]
fn a_query_that_comes_again_goes_on_behind_control_characters() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let query = format!("?x=\x01&access_token={} ", Token::Opaque.text());
    for front in ["POST /a", "POST /a?b", "POST /", "GET /?c=d&"] {
        let mut engine = Engine::new(&listing.rules, &listed);
        engine.accept(FIRST);
        let at = sequence(FIRST, front.len());
        engine.segment(FIRST, front.as_bytes(), START);
        engine.settle(at);
        // The receiver ignores this one.
        engine.segment(at, b"?", START);
        let fate = engine.segment(at, query.as_bytes(), START + LATE);
        assert_eq!(fate, Fate::Blocked, "{front}");
    }
}

/// A recovery reads on behind all that was passed, and is lost in its turn; then the receiver acknowledges what it had all along:
/// it stands inside a candidate, whose state is known.
#[test]
fn a_state_is_kept_though_what_comes_again_goes_beyond_it() {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    let token = Token::Opaque.text();
    let text = format!("GET / HTTP/1.1\r\nAuthorization: Bearer {token}\r\n\r\n");
    let mut recovered = 0;
    for settled in 10..40 {
        for held in settled + 1..70 {
            let mut engine = Engine::new(&listing.rules, &listed);
            engine.accept(FIRST);
            let mut now = START;
            let mut send = |engine: &mut Engine<'_>, from, to| {
                now += LATE;
                let bytes = &text.as_bytes()[from..to];
                let fate = engine.segment(sequence(FIRST, from), bytes, now);
                matches!(fate, Fate::Passed(_))
            };
            assert!(send(&mut engine, 0, settled));
            engine.settle(sequence(FIRST, settled));
            assert!(send(&mut engine, settled, held));
            let again = send(&mut engine, settled, held + 1);
            engine.settle(sequence(FIRST, held));
            let rest = send(&mut engine, held, text.len());
            assert!(!rest, "{settled}, {held}, {again}");
            recovered += usize::from(again);
        }
    }
    assert!(recovered > 0);
}
