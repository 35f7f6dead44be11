//! A table of flows that somebody fills, and what is forgotten when.

use tokenblock_ebpf::verdict::{Counter, OnHit};
use tokenblock_tests::{
    bpf::{Programs, Setup, UNSPEC, frame::Frame},
    fixtures::OPAQUE,
    gate,
};

/// What many senders send.
const MILLION: u32 = 1_000_000;
/// Flows that are kept, and how many of them may be newcomers.
const FLOWS: u32 = 65_536;
const NEWCOMERS: u32 = FLOWS / 2;
/// The client's first byte.
const FIRST: u32 = 1000;
/// What the server sends first, and what its clients acknowledge then: all frames say the same.
const SERVER: u32 = Frame::SEQUENCE;
const HEARD: u32 = SERVER.wrapping_add(1);
/// As long as [`OPAQUE`], and not listed.
const CLEAN: &str = "3f786850e387550fdab836ed7e6dc881de23001c";
/// Offsets in an Ethernet frame of IPv4: the addresses, the ports.
const SOURCE_AT: usize = 26;
const DESTINATION_AT: usize = 30;
const SOURCE_PORT_AT: usize = 34;
const DESTINATION_PORT_AT: usize = 36;
/// More than is waited with what is over, with what is idle, and with what is over and stands inside a candidate.
const OVER_FOR: u64 = 1_100_000_000;
const IDLE: u64 = 31_000_000_000;
const DEAD: u64 = 181_000_000_000;
/// More than any server waits.
const FORSAKEN: u64 = 3_601_000_000_000;

/// One of many connections to the server.
#[derive(Clone, Copy)]
struct Peer(u32);

impl Peer {
    fn of_client(self, frame: &Frame) -> Vec<u8> {
        self.patched(frame, SOURCE_AT, SOURCE_PORT_AT)
    }

    fn of_server(self, frame: &Frame) -> Vec<u8> {
        self.patched(frame, DESTINATION_AT, DESTINATION_PORT_AT)
    }

    fn patched(self, frame: &Frame, address_at: usize, port_at: usize) -> Vec<u8> {
        let mut bytes = frame.ethernet().unwrap();
        let [a, b, c, d] = self.0.to_be_bytes();
        bytes[address_at..address_at + 4].copy_from_slice(&[100 + a, b, c, d]);
        bytes[port_at..port_at + 2].copy_from_slice(&[0x80 | c, d]);
        bytes
    }

    /// Data from this offset of the stream on.
    fn sends(self, programs: &mut Programs, offset: usize, payload: &str, heard: u32) -> u32 {
        let at = FIRST + u32::try_from(offset).unwrap();
        let frame = Frame::v4(payload).at(at).acknowledges(heard);
        run(programs, "ingress_ethernet", &self.of_client(&frame))
    }

    fn hears(self, programs: &mut Programs, frame: &Frame) {
        let bytes = self.of_server(frame);
        assert_eq!(run(programs, "egress_ethernet", &bytes), UNSPEC);
    }

    /// The server's SYN.
    fn accepted(self, programs: &mut Programs) {
        self.hears(programs, &Frame::v4("").at(SERVER).answer(FIRST).syn());
    }

    /// The server acknowledges all before this offset.
    fn acknowledged(self, programs: &mut Programs, offset: usize) {
        let ack = FIRST + u32::try_from(offset).unwrap();
        self.hears(programs, &Frame::v4("").at(HEARD).answer(ack));
    }

    /// A request in two segments, cut inside of the token; the server takes the first. Whether both passed.
    fn asks(self, programs: &mut Programs, token: &str) -> bool {
        self.accepted(programs);
        let (one, two) = cut(token);
        let first = self.sends(programs, 0, &one, HEARD);
        self.acknowledged(programs, one.len());
        let second = self.sends(programs, one.len(), &two, HEARD);
        self.acknowledged(programs, one.len() + two.len());
        first == UNSPEC && second == UNSPEC
    }
}

fn run(programs: &mut Programs, program: &'static str, bytes: &[u8]) -> u32 {
    programs.repeat(program, bytes, 1).unwrap().0
}

/// A request that is cut inside of its token.
fn cut(token: &str) -> (String, String) {
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n");
    let (one, two) = request.split_at(request.len() - 20);
    (one.to_owned(), two.to_owned())
}

fn programs(test: &str, on_hit: OnHit) -> Option<Programs> {
    gate::programs(test).then(|| {
        Programs::with_fixtures(&Setup {
            flows: FLOWS,
            newcomers: Some(NEWCOMERS),
            on_hit,
            ..Setup::default()
        })
        .unwrap()
    })
}

/// A million senders who are not where they say: with SYNs that the server answers, then with the first part of a request,
/// cut inside of a token.
#[test]
fn a_million_half_open_connections_harm_nobody() {
    let Some(mut programs) = programs("a_million_half_open_connections_harm_nobody", OnHit::Drop)
    else {
        return;
    };
    let [old, busy] = [MILLION, MILLION + 1].map(Peer);
    let (one, two) = cut(OPAQUE);
    let clean = cut(CLEAN);
    // Connections from before: one stands inside of a listed token, one asks now and then.
    old.accepted(&mut programs);
    assert_eq!(old.sends(&mut programs, 0, &one, HEARD), UNSPEC);
    old.acknowledged(&mut programs, one.len());
    assert!(busy.asks(&mut programs, CLEAN));
    let request = clean.0.len() + clean.1.len();
    let mut asked = 1;
    for sender in 0..MILLION {
        let peer = Peer(sender);
        peer.accepted(&mut programs);
        peer.sends(&mut programs, 0, &one, HEARD.wrapping_add(1 << 30));
        if !sender.is_multiple_of(MILLION / 10) {
            continue;
        }
        let at = asked * request;
        for (offset, part) in [(at, &clean.0), (at + clean.0.len(), &clean.1)] {
            assert_eq!(busy.sends(&mut programs, offset, part, HEARD), UNSPEC);
            busy.acknowledged(&mut programs, offset + part.len());
        }
        asked += 1;
        // New ones that have heard the server are followed.
        let new = MILLION + 2 + 2 * sender;
        assert!(Peer(new).asks(&mut programs, CLEAN), "{sender}");
        assert!(!Peer(new + 1).asks(&mut programs, OPAQUE), "{sender}");
    }
    let blocked = programs.totals().unwrap()[Counter::Blocked.name()];
    assert_eq!(blocked, 10);
    assert_ne!(old.sends(&mut programs, one.len(), &two, HEARD), UNSPEC);
    let totals = programs.totals().unwrap();
    assert_eq!(totals[Counter::Blocked.name()], blocked + 1, "{totals:?}");
    // Each newcomer beyond their share is counted, and nothing was evicted.
    let full = u64::from(MILLION - NEWCOMERS);
    assert_eq!(totals[Counter::FlowTableFull.name()], full, "{totals:?}");
    assert_eq!(programs.count_flows().unwrap(), NEWCOMERS as usize + 22);
    // A newcomer's request that is not cut is judged and passes.
    let whole = clean.0 + &clean.1;
    let last = Peer(2 * MILLION + MILLION);
    last.accepted(&mut programs);
    let unheard = HEARD.wrapping_add(1 << 30);
    assert_eq!(last.sends(&mut programs, 0, &whole, unheard), UNSPEC);
    // Nobody's flows are forgotten, and their places are free again.
    programs.age_flows(DEAD).unwrap();
    let swept = programs.sweep(true).unwrap();
    assert_eq!((swept.newcomers, swept.forgotten), (0, NEWCOMERS.into()));
    assert_eq!(Peer(0).sends(&mut programs, 0, &one, 7), UNSPEC);
}

/// Where there is no room for its flow, the end of a request may be in front of its beginning, which comes once there is room:
/// what begins inside a token must not wait for it at the server.
#[test]
fn the_second_half_of_a_token_does_not_pass_alone() {
    let test = "the_second_half_of_a_token_does_not_pass_alone";
    let Some(mut programs) = programs(test, OnHit::Drop) else {
        return;
    };
    let (one, two) = cut(OPAQUE);
    fill(&mut programs);
    let late = Peer(MILLION);
    let [first, second] = [(0, &one), (one.len(), &two)]
        .map(|(offset, part)| late.sends(&mut programs, offset, part, 7) == UNSPEC);
    // There is room again for what is sent a second time.
    programs.age_flows(DEAD).unwrap();
    programs.sweep(true).unwrap();
    let again = late.sends(&mut programs, 0, &one, 7) == UNSPEC;
    assert_eq!([first, second && again], [false, false]);
}

/// Takes all places that newcomers have.
fn fill(programs: &mut Programs) {
    let (one, _) = cut(OPAQUE);
    for sender in 0..=NEWCOMERS {
        Peer(sender).sends(programs, 0, &one, 7);
    }
}

/// What overlaps a segment that was judged alone is read from its middle on by the server, which was not looked at.
#[test]
fn what_overlaps_a_segment_that_was_judged_alone_does_not_pass() {
    let test = "what_overlaps_a_segment_that_was_judged_alone_does_not_pass";
    let Some(mut programs) = programs(test, OnHit::Drop) else {
        return;
    };
    fill(&mut programs);
    let sender = Peer(MILLION);
    sender.accepted(&mut programs);
    let begun = "GET / HTTP/1.1\r\nHost: a\r\n";
    // Servers take acknowledgments that are older, and what says no more has not heard their SYN.
    let mut send = |from, text: &str| sender.sends(&mut programs, from, text, HEARD - 1) == UNSPEC;
    assert!(send(0, begun));
    let line = format!("Authorization: Bearer {OPAQUE}\r\n\r\n");
    for from in 0..begun.len() - "GET /".len() {
        let hidden = format!(
            "GET /{}{line}",
            "a".repeat(begun.len() - from - "GET /".len())
        );
        assert!(!send(from, &hidden), "{from}");
    }
    // It may have been another in its place, and nothing is kept by which that could be told.
    assert!(!send(0, begun));
    // A next request.
    let next = "GET / HTTP/1.1\r\n\r\n";
    let end = begun.len() + next.len();
    assert!(send(begun.len(), next) && !send(end + 1, next) && send(end, next));
    assert!(!send(end + next.len(), &line));
}

/// What was passed for itself may have said where its message ends.
#[test]
fn a_connection_that_is_followed_later_is_read_for_what_begins_anywhere() {
    let test = "a_connection_that_is_followed_later_is_read_for_what_begins_anywhere";
    let Some(mut programs) = programs(test, OnHit::Drop) else {
        return;
    };
    fill(&mut programs);
    let sender = Peer(MILLION);
    sender.accepted(&mut programs);
    let head = "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(sender.sends(&mut programs, 0, head, HEARD - 1), UNSPEC);
    programs.age_flows(DEAD).unwrap();
    programs.sweep(true).unwrap();
    let hidden = format!("x:aaaGET /?access_token={OPAQUE} HTTP/1.1\r\n\r\n");
    assert_ne!(
        sender.sends(&mut programs, head.len(), &hidden, HEARD),
        UNSPEC
    );
    assert_eq!(programs.totals().unwrap()[Counter::Blocked.name()], 1);
}

/// What is forgotten after half a minute, and after three.
#[test]
fn what_is_over_or_nobodys_is_forgotten_and_what_stands_inside_a_candidate_is_not() {
    let Some(mut programs) = programs(
        "what_is_over_or_nobodys_is_forgotten_and_what_stands_inside_a_candidate_is_not",
        OnHit::Reset,
    ) else {
        return;
    };
    let (one, two) = cut(OPAQUE);
    let end = |programs: &mut Programs, peer: Peer, flags: fn(Frame) -> Frame| {
        let ack = FIRST + u32::try_from(one.len()).unwrap();
        peer.hears(programs, &flags(Frame::v4("").at(HEARD).answer(ack)));
    };
    let [
        open,
        settled,
        reset,
        left,
        finished,
        accepted,
        refused,
        stranger,
    ] = [0, 1, 2, 3, 4, 5, 6, 7].map(Peer);
    let blocked = Peer(10);
    assert!(settled.asks(&mut programs, CLEAN));
    for peer in [open, reset, left, finished, accepted, refused] {
        peer.accepted(&mut programs);
        assert_eq!(peer.sends(&mut programs, 0, &one, HEARD), UNSPEC);
    }
    assert_eq!(stranger.sends(&mut programs, 0, &one, HEARD), UNSPEC);
    for peer in [open, reset, left, finished] {
        peer.acknowledged(&mut programs, one.len());
    }
    end(&mut programs, reset, Frame::reset);
    end(&mut programs, finished, Frame::finish);
    // A decoy's answer: it tells nothing of the connection.
    end(&mut programs, refused, |frame| frame.reset().no_ack());
    let at = FIRST + u32::try_from(one.len()).unwrap();
    let gone = left.of_client(&Frame::v4("").at(at).acknowledges(HEARD).reset());
    run(&mut programs, "ingress_ethernet", &gone);

    // A bare decoy, of which the server says that there is no such connection; a connection that is over.
    let [nobody, done] = [8, 9].map(Peer);
    assert_eq!(nobody.sends(&mut programs, 0, &one, HEARD), UNSPEC);
    end(&mut programs, nobody, |frame| frame.reset().no_ack());
    assert!(done.asks(&mut programs, CLEAN));
    let whole = FIRST + u32::try_from(one.len() + two.len()).unwrap();
    done.hears(
        &mut programs,
        &Frame::v4("").at(HEARD).answer(whole).finish(),
    );

    programs.age_flows(0).unwrap();
    // What the programs end themselves.
    blocked.asks(&mut programs, OPAQUE);
    assert_eq!(programs.events().len(), 1);

    assert_eq!(programs.sweep(true).unwrap().flows, 11);
    programs.age_flows(OVER_FOR).unwrap();
    let swept = programs.sweep(true).unwrap();
    assert_eq!((swept.flows, swept.newcomers), (9, 1));
    programs.age_flows(DEAD).unwrap();
    let swept = programs.sweep(true).unwrap();
    // What is settled, open, and left by a client whose RST the server may not have heard.
    assert_eq!((swept.flows, swept.newcomers), (3, 0));
    programs.age_flows(1000 * DEAD).unwrap();
    assert_eq!(programs.sweep(true).unwrap().flows, 3);
    open.sends(&mut programs, one.len(), &two, HEARD);
    assert_eq!(programs.events().len(), 1);
    assert_ne!(left.sends(&mut programs, one.len(), &two, HEARD), UNSPEC);
    // But for its interface.
    assert_eq!(programs.sweep(false).unwrap().flows, 0);
}

/// A client may send an RST that its server drops, for its checksum say: the connection is not forgotten for that, and what
/// overlaps what the server has is read from there.
#[test]
fn who_says_that_he_is_gone_is_not_forgotten() {
    let test = "who_says_that_he_is_gone_is_not_forgotten";
    let Some(mut programs) = programs(test, OnHit::Drop) else {
        return;
    };
    let begun = "GET / HTTP/1.1\r\nHost: a\r\n";
    let end = FIRST + u32::try_from(begun.len()).unwrap();
    let [left, finished] = [0, 1].map(Peer);
    for peer in [left, finished] {
        peer.accepted(&mut programs);
        assert_eq!(peer.sends(&mut programs, 0, begun, HEARD), UNSPEC);
        peer.acknowledged(&mut programs, begun.len());
        let gone = Frame::v4("").at(end).acknowledges(HEARD).reset();
        run(&mut programs, "ingress_ethernet", &peer.of_client(&gone));
    }
    // It says so as well, and goes whatever came first.
    finished.hears(&mut programs, &Frame::v4("").at(HEARD).answer(end).finish());
    programs.age_flows(OVER_FOR).unwrap();
    assert_eq!(programs.sweep(true).unwrap().flows, 1);
    programs.age_flows(FORSAKEN).unwrap();
    assert_eq!(programs.sweep(true).unwrap().flows, 1);
    let hidden = format!("aaaaaaaaAuthorization: Bearer {OPAQUE}\r\n\r\n");
    assert_ne!(
        left.sends(&mut programs, begun.len() - 8, &hidden, HEARD),
        UNSPEC
    );
}

/// Where connections are more than half of what fits, those that are quiet make room.
#[test]
fn quiet_connections_make_room_where_there_are_many() {
    const FEW: u32 = 64;
    if !gate::programs("quiet_connections_make_room_where_there_are_many") {
        return;
    }
    let mut programs = Programs::with_fixtures(&Setup {
        flows: FEW,
        newcomers: Some(FEW / 2),
        ..Setup::default()
    })
    .unwrap();
    for peer in 0..FEW / 2 {
        assert!(Peer(peer).asks(&mut programs, CLEAN));
    }
    programs.age_flows(IDLE).unwrap();
    for _ in 0..2 {
        assert_eq!(programs.sweep(true).unwrap().flows, FEW / 2);
    }
    assert!(Peer(FEW).asks(&mut programs, CLEAN));
    let held = Peer(FEW + 1);
    held.accepted(&mut programs);
    let (one, two) = cut(OPAQUE);
    assert_eq!(held.sends(&mut programs, 0, &one, HEARD), UNSPEC);
    held.acknowledged(&mut programs, one.len());
    programs.age_flows(IDLE).unwrap();
    assert_eq!(programs.sweep(true).unwrap().flows, FEW / 2 + 2);
    assert_eq!(programs.sweep(true).unwrap().flows, 1);
    assert_ne!(held.sends(&mut programs, one.len(), &two, HEARD), UNSPEC);
    // Those that stand inside a candidate have an hour.
    for peer in 0..=FEW / 2 {
        let peer = Peer(FEW + 2 + peer);
        peer.accepted(&mut programs);
        assert_eq!(peer.sends(&mut programs, 0, &one, HEARD), UNSPEC);
        peer.acknowledged(&mut programs, one.len());
    }
    programs.age_flows(FORSAKEN / 2).unwrap();
    for _ in 0..2 {
        assert_eq!(programs.sweep(true).unwrap().flows, FEW / 2 + 2);
    }
    programs.age_flows(FORSAKEN).unwrap();
    assert_eq!(programs.sweep(true).unwrap().flows, 0);
}

/// A large table is looked at in parts, between which other work is done; each flow is seen once.
#[test]
fn a_sweep_goes_on_where_it_left_off() {
    const FLOWS: u32 = 5000;
    let Some(mut programs) = programs("a_sweep_goes_on_where_it_left_off", OnHit::Drop) else {
        return;
    };
    let (one, _) = cut(CLEAN);
    for sender in 0..FLOWS {
        let sent = Peer(sender).sends(&mut programs, 0, &one, HEARD.wrapping_add(1 << 30));
        assert_eq!(sent, UNSPEC);
    }
    for (ago, left) in [(0, FLOWS), (DEAD, 0)] {
        programs.age_flows(ago).unwrap();
        let mut parts = 1;
        let swept = loop {
            match programs.sweep_some().unwrap() {
                Some(swept) => break swept,
                None => parts += 1,
            }
        };
        assert!(parts > 4, "{parts}");
        assert_eq!((swept.flows, swept.newcomers), (left, left));
        assert_eq!(programs.count_flows().unwrap(), left as usize);
        assert_eq!(swept.forgotten, u64::from(FLOWS - left));
    }
}
