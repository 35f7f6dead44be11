//! What both ends say of their connection besides bytes: what it settles, and what passes behind its end.

use std::time::Duration;

use tokenblock_ebpf::flow::{Flow, Place};
use tokenblock_tests::{
    engine::{Engine, Fate},
    fixtures::Token,
    trace::{Listing, START, sequence},
};

/// The first byte's sequence number; they wrap within the first request.
const FIRST: u32 = u32::MAX - 20;
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
const NEXT: Fate = Fate::Passed(Place::Next);
const OUT: Fate = Fate::Dropped(Place::OutOfWindow);

fn with(run: impl Fn(&mut Engine<'_>)) {
    let listing = Listing::new().unwrap();
    let listed = |digest: &_| listing.has(digest);
    run(&mut Engine::new(&listing.rules, &listed));
}

/// A line that bears a listed token, in two pieces.
fn cut_line() -> (String, String) {
    let line = format!("Authorization: Bearer {}\r\n\r\n", Token::Opaque.text());
    let (one, two) = line.split_at(5);
    (one.into(), two.into())
}

/// A word of either end.
#[derive(Clone, Copy, Debug)]
enum Word {
    /// Of the server, by RST or by FIN.
    Resets,
    Finishes,
    /// RST of the client's, so far from what the server has taken.
    Leaves(i32),
    /// RST of the programs', likewise.
    Ends(i32),
}
use Word::{Ends, Finishes, Leaves, Resets};

fn say(flow: &mut Flow, word: Word, settled: u32) {
    match word {
        Resets => flow.end_by_server(true),
        Finishes => flow.end_by_server(false),
        Leaves(by) => flow.end_by_client(settled.wrapping_add_signed(by)),
        Ends(by) => flow.end_by_program(settled.wrapping_add_signed(by)),
    }
}

#[test]
fn nothing_passes_behind_an_end_that_is_believed() {
    let len = i32::try_from(REQUEST.len()).unwrap();
    // What is said behind two requests, the first of which is settled, and what becomes of a segment at the tip.
    for (words, fate) in [
        (&[][..], NEXT),
        (&[Resets], OUT),
        // What comes behind a FIN may be the answer to a close that came too early, or another connection.
        (&[Finishes], NEXT),
        (&[Finishes, Resets], OUT),
        (&[Resets, Finishes], OUT),
        (&[Finishes, Finishes], NEXT),
        // An RST in its place (RFC 5961 section 3.2): where the server may stand.
        (&[Leaves(0)], OUT),
        (&[Leaves(1)], OUT),
        (&[Leaves(len)], OUT),
        (&[Leaves(len + 1)], NEXT),
        (&[Leaves(-1)], NEXT),
        (&[Finishes, Leaves(0)], OUT),
        (&[Leaves(0), Finishes], OUT),
        // The server believes that of the programs where it stands alone.
        (&[Ends(0)], OUT),
        (&[Ends(1)], NEXT),
        (&[Ends(-1)], NEXT),
    ] {
        with(|engine| {
            engine.accept(FIRST);
            let mut at = FIRST;
            for _ in 0..2 {
                assert_eq!(engine.segment(at, REQUEST.as_bytes(), START), NEXT);
                at = sequence(at, REQUEST.len());
            }
            let settled = sequence(FIRST, REQUEST.len());
            engine.settle(settled);
            for word in words {
                say(engine.flow(), *word, settled);
            }
            let segment = engine.segment(at, REQUEST.as_bytes(), START);
            assert_eq!(segment, fate, "{words:?}");
            // A new connection begins where it may.
            engine.accept(7);
            assert_eq!(engine.segment(7, REQUEST.as_bytes(), START), NEXT);
        });
    }
}

/// Behind the server's FIN only what begins at the tip, and may be read as the start of a line.
#[test]
fn what_comes_behind_a_fin_may_be_of_another_connection() {
    for (last, by, fate) in [
        ("", 0, NEXT),
        ("", 1, OUT),
        ("", -1, OUT),
        // Within a line, of which nothing more matters.
        ("X: y", 0, NEXT),
        ("Author", 0, OUT),
        ("GET /a", 0, OUT),
    ] {
        with(|engine| {
            engine.accept(FIRST);
            let bytes = format!("{REQUEST}{last}");
            assert_eq!(engine.segment(FIRST, bytes.as_bytes(), START), NEXT);
            engine.settle(sequence(FIRST, REQUEST.len()));
            engine.flow().end_by_server(false);
            let at = sequence(FIRST, bytes.len()).wrapping_add_signed(by);
            let segment = engine.segment(at, REQUEST.as_bytes(), START);
            assert_eq!(segment, fate, "{last:?}, {by}");
        });
    }
    // Of which nothing was seen but this.
    with(|engine| {
        engine.flow().end_by_server(false);
        assert_eq!(engine.segment(0, REQUEST.as_bytes(), START), OUT);
    });
}

/// Of what is not known nothing is believed: sequence numbers of 0 are none.
#[test]
fn no_end_is_believed_where_nothing_is_known() {
    let first = Fate::Passed(Place::First);
    for settled in [false, true] {
        with(|engine| {
            if settled {
                engine.settle(FIRST);
            }
            for word in [Leaves(0), Leaves(5), Leaves(21)] {
                say(engine.flow(), word, FIRST);
            }
            assert_eq!(engine.segment(FIRST, REQUEST.as_bytes(), START), first);
        });
    }
    with(|engine| {
        for at in [0, FIRST, sequence(FIRST, REQUEST.len())] {
            engine.flow().end_by_program(at);
        }
        assert_eq!(engine.segment(FIRST, REQUEST.as_bytes(), START), first);
        let tip = sequence(FIRST, REQUEST.len());
        // The server has not said where it stands.
        engine.flow().end_by_client(tip);
        assert_eq!(engine.segment(tip, REQUEST.as_bytes(), START), NEXT);
    });
}

/// An acknowledgment settles data where it says more than the ones before; the SYN-ACK settles none.
#[test]
fn acknowledgments_settle_what_is_before_them() {
    with(|engine| {
        let at = |offset| sequence(FIRST, offset);
        // Nothing is known of the connection: all is new.
        engine.settle(at(0));
        assert!(engine.flow().is_acknowledged());
        engine.accept(at(0));
        assert!(!engine.flow().is_acknowledged());
        // What stands before it is of another connection.
        assert_eq!(engine.segment(at(0).wrapping_sub(5), b"GET /", START), OUT);
        engine.settle(at(0));
        assert!(!engine.flow().is_acknowledged());
        assert_eq!(engine.segment(at(0), REQUEST.as_bytes(), START), NEXT);
        let end = REQUEST.len();
        engine.settle(at(end));
        engine.settle(at(3));
        assert!(engine.flow().is_acknowledged());
        let again = engine.segment(at(3), &REQUEST.as_bytes()[3..], START);
        assert_eq!(again, Fate::Passed(Place::Settled));
    });
}

/// Data on a SYN (RFC 7413) is the beginning of a connection, if the server takes it.
#[test]
fn data_on_a_syn_counts_where_the_server_takes_it() {
    let (one, two) = cut_line();
    let begin = format!("GET / HTTP/1.1\r\n{one}");
    let (begin, two) = (begin.as_bytes(), two.as_bytes());
    let tip = sequence(FIRST, begin.len());
    for taken in [true, false] {
        with(|engine| {
            assert_eq!(engine.segment_on_syn(FIRST, begin, START), NEXT);
            // As long as it is remembered no other comes with data.
            assert_eq!(engine.segment_on_syn(FIRST, begin, START), OUT);
            engine.accept(if taken { tip } else { FIRST });
            if !taken {
                assert_eq!(engine.segment(FIRST, begin, START), NEXT);
            }
            assert_eq!(engine.segment(tip, two, START), Fate::Blocked);
        });
    }
    // The server says the same again until it hears the client.
    with(|engine| {
        assert_eq!(engine.segment_on_syn(FIRST, begin, START), NEXT);
        engine.accept(tip);
        engine.accept(tip);
        assert_eq!(engine.segment(tip, two, START), Fate::Blocked);
    });
    // What was taken so is no more than what was taken otherwise to a connection that follows, of another place or behind what the
    // server has acknowledged.
    with(|engine| {
        assert_eq!(engine.segment_on_syn(FIRST, begin, START), NEXT);
        engine.accept(tip);
        engine.accept(tip.wrapping_add(1));
        let next = tip.wrapping_add(1);
        assert_eq!(engine.segment(next, two, START), NEXT);
    });
    with(|engine| {
        assert_eq!(engine.segment_on_syn(FIRST, begin, START), NEXT);
        engine.accept(tip);
        let next = tip.wrapping_add(3);
        assert_eq!(engine.segment(tip, b"abc", START), NEXT);
        engine.settle(next);
        engine.accept(next);
        assert_eq!(engine.segment(next, two, START), NEXT);
    });
    // It may also be late, and cross what the server takes.
    with(|engine| {
        engine.accept_at(FIRST, START);
        assert_eq!(engine.segment(FIRST, begin, START), NEXT);
        engine.accept_at(FIRST, START + 1_000_000);
        engine.settle(tip);
        assert_eq!(engine.segment(tip, two, START), Fate::Blocked);
    });
    // Nobody sends more before the server has answered, but where its answer takes another way.
    with(|engine| {
        assert_eq!(engine.segment_on_syn(FIRST, begin, START), NEXT);
        let early = Fate::Dropped(Place::TooEarly);
        assert_eq!(engine.segment(tip, two, START), early);
        assert_eq!(engine.segment(tip, two, START + 230_000_000), Fate::Blocked);
    });
    with(|engine| {
        engine.accept(FIRST);
        assert_eq!(engine.segment(FIRST, begin, START), NEXT);
        engine.accept(tip);
        assert_eq!(engine.segment(tip, two, START), NEXT);
    });
    // Nor is it remembered where a segment or the server told of a connection.
    with(|engine| {
        engine.settle(FIRST);
        assert_eq!(engine.segment_on_syn(FIRST, begin, START), OUT);
    });
    with(|engine| {
        let first = Fate::Passed(Place::First);
        assert_eq!(engine.segment(FIRST, REQUEST.as_bytes(), START), first);
        assert_eq!(engine.segment_on_syn(FIRST, begin, START), OUT);
    });
    // It may bear a token itself.
    with(|engine| {
        let line = [begin, two].concat();
        assert_eq!(engine.segment_on_syn(FIRST, &line, START), Fate::Blocked);
    });
}

/// A new connection has nothing of the one before: no clock, no quiet, no message, no debt.
#[test]
fn a_new_connection_owes_to_no_older_one() {
    let (one, two) = cut_line();
    let text = "and so it goes on, line by line\n".repeat(600);
    let early = Fate::Dropped(Place::TooEarly);
    for older in [
        REQUEST.to_owned(),
        format!("{REQUEST}{text}"),
        format!("POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n{text}"),
        format!("POST / HTTP/1.1\r\nContent-Length: 5\r\n{one}"),
    ] {
        for first in [7, sequence(FIRST, older.len())] {
            with(|engine| {
                engine.accept(FIRST);
                let at = sequence(FIRST, older.len());
                engine.segment_stamped(FIRST, older.as_bytes(), 50_000, START);
                engine.settle_stamped(at, 50_000);
                engine.answer(500, 10, at);
                engine.accept(first);
                assert!(engine.owes_nothing(1));
                let request = "GET / HTTP/1.1\r\nHost: h\r\n";
                // It comes late, and begins in the middle of nothing.
                let ahead = sequence(first, request.len() + 200);
                assert_eq!(engine.segment_stamped(ahead, b"text\n", 7, START), early);
                let begun = engine.segment_stamped(first, two.as_bytes(), 7, START);
                assert_eq!(begun, NEXT, "{older:.60}");
            });
        }
    }
}

/// What the server owes: all of a response to each request that came whole.
#[test]
fn a_server_owes_what_it_was_asked_for() {
    const SERVER: u32 = u32::MAX - 10;
    let head = "HTTP/1.1 200 OK\r\n";
    let long = format!("{head}Content-Length: 5\r\n\r\n");
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    let untold = format!("{head}X: y\r\n\r\n");
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
    // Each is asked for or said (`<`), and whether the server owes nothing then.
    for (talk, free) in [
        (&[][..], true),
        (&["GET / HTTP/1.1\r\n"], true),
        (&[REQUEST], false),
        (&[REQUEST, "<"], false),
        (&[REQUEST, &format!("<{long}hello")], true),
        (&[REQUEST, &format!("<{long}hel")], false),
        (&[REQUEST, &format!("<{long}hel"), "<"], false),
        (&[REQUEST, &format!("<{long}hel"), "<lo"], true),
        (&[REQUEST, &format!("<{long}hel"), "<lo!"], false),
        (&[REQUEST, &format!("<{long}hello"), REQUEST], false),
        (&[REQUEST, REQUEST, &format!("<{long}hello")], true),
        (&[REQUEST, &format!("<{chunked}")], false),
        (&[REQUEST, &format!("<{chunked}0\r\n\r\n")], true),
        (&[REQUEST, &format!("<{chunked}"), "<0\r\n\r\n"], true),
        (&[REQUEST, &format!("<{chunked}"), "<more"], false),
        (&[REQUEST, &format!("<{untold}")], false),
        (&[REQUEST, &format!("<{untold}"), "<0\r\n\r\n"], false),
        (&[REQUEST, &format!("<{interim}")], false),
        (
            &[
                REQUEST,
                &format!("<{interim}"),
                &format!("<{interim}"),
                &format!("<{long}hello"),
            ],
            true,
        ),
        (&[REQUEST, "<H", "<TTP/1.1 204 No Content\r\n\r\n"], false),
        // To HEAD it says a length, and sends no body; the next response tells.
        (
            &[
                REQUEST,
                &format!("<{long}"),
                REQUEST,
                &format!("<{long}hello"),
            ],
            true,
        ),
        // It says something unasked.
        (&[&format!("<{long}hello")], true),
        (&[&format!("<{long}hel")], false),
    ] {
        with(|engine| {
            engine.accept(FIRST);
            let (mut at, mut sent) = (FIRST, SERVER);
            for part in talk {
                if let Some(said) = part.strip_prefix('<') {
                    engine.respond(sent, said.as_bytes(), at);
                    // What is sent again says nothing new, and what comes late nothing at all.
                    sent = sequence(sent, said.len());
                } else {
                    assert_eq!(engine.segment(at, part.as_bytes(), START), NEXT);
                    at = sequence(at, part.len());
                }
            }
            assert_eq!(engine.owes_nothing(sent), free, "{talk:?}");
            let spoke = talk
                .iter()
                .any(|part| part.starts_with('<') && part.len() > 1);
            if free && spoke {
                // It has sent more than who asks knows of.
                assert!(!engine.owes_nothing(sent.wrapping_sub(1)), "{talk:?}");
            }
        });
    }
}

/// A second copy of what the server sent begins no response, and ends none.
#[test]
fn what_a_server_sends_again_says_nothing_new() {
    with(|engine| {
        engine.accept(FIRST);
        engine.segment(FIRST, REQUEST.as_bytes(), START);
        let at = sequence(FIRST, REQUEST.len());
        let first = "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n";
        engine.respond(7, first.as_bytes(), at);
        let sent = 7 + u32::try_from(first.len()).unwrap();
        assert!(!engine.owes_nothing(sent));
        engine.respond(7, b"HTTP/1.1 204 No Content\r\n\r\n", at);
        engine.respond(5000, b"HTTP/1.1 204 No Content\r\n\r\n", at);
        assert!(!engine.owes_nothing(sent) && !engine.owes_nothing(5027));
    });
}

/// When a flow may be forgotten, by what is known of it.
#[test]
fn what_may_come_back_is_not_forgotten() {
    type Known = fn(&mut Engine<'_>);
    const SECOND: Duration = Duration::from_secs(1);
    let minutes = |count: u32| SECOND * 60 * count;
    let settled: Known = |engine| {
        engine.accept(FIRST);
        engine.segment(FIRST, REQUEST.as_bytes(), START);
        engine.settle(sequence(FIRST, REQUEST.len()));
    };
    let within: Known = |engine| {
        engine.accept(FIRST);
        engine.segment(FIRST, b"GET / HTTP/1.1\r\nAuthor", START);
        engine.settle(sequence(FIRST, 22));
    };
    let unsettled: Known = |engine| {
        engine.accept(FIRST);
        engine.segment(FIRST, REQUEST.as_bytes(), START);
        engine.settle(sequence(FIRST, 3));
        engine.settle(sequence(FIRST, 5));
    };
    let accepted: Known = |engine| {
        engine.accept(FIRST);
        engine.segment(FIRST, REQUEST.as_bytes(), START);
    };
    let unheard: Known = |engine| {
        engine.segment(FIRST, REQUEST.as_bytes(), START);
    };
    let never = Duration::MAX;
    let (idle, dead, forsaken) = (SECOND * 30, minutes(3), minutes(60));
    for (what, known, words, alone, crowded) in [
        ("settled", settled, &[][..], never, idle),
        ("settled", settled, &[Finishes], SECOND, SECOND),
        ("settled", settled, &[Resets], SECOND, SECOND),
        // The server may not have heard the client.
        ("settled", settled, &[Leaves(0)], never, idle),
        ("within", within, &[], never, forsaken),
        ("within", within, &[Finishes], dead, dead),
        ("within", within, &[Resets], dead, dead),
        ("within", within, &[Leaves(0)], never, forsaken),
        ("within", within, &[Resets, Leaves(0)], dead, dead),
        ("unsettled", unsettled, &[], never, forsaken),
        ("unsettled", unsettled, &[Finishes], dead, dead),
        ("accepted", accepted, &[], dead, dead),
        ("accepted", accepted, &[Resets], dead, dead),
        ("unheard", unheard, &[], dead, dead),
        ("unheard", unheard, &[Finishes], dead, dead),
        ("unheard", unheard, &[Resets], SECOND, SECOND),
    ] {
        with(|engine| {
            known(engine);
            let at = match what {
                "settled" => REQUEST.len(),
                "within" => 22,
                "unsettled" => 5,
                _ => 0,
            };
            for word in words {
                say(engine.flow(), *word, sequence(FIRST, at));
            }
            for (crowded, after) in [(false, alone), (true, crowded)] {
                let mut may_go = |quiet| engine.flow().may_go(quiet, crowded);
                assert!(!may_go(after), "{what}, {words:?}, {crowded}");
                let later = after.saturating_add(SECOND / 100);
                assert_eq!(
                    may_go(later),
                    after != never,
                    "{what}, {words:?}, {crowded}"
                );
            }
        });
    }
}
