//! Header blocks that repeat: not scanned again, until the list changes.

use sha2::{Digest as _, Sha256};
use tokenblock::{
    denylist::{Action, Fingerprint, Listed, Sha256Digest, ShortTokenId, TokenDigest},
    kernel::object::Variant,
};
use tokenblock_ebpf::{digest::Domain, verdict::Counter};
use tokenblock_tests::{
    bpf::{KEY, Programs, Setup, UNSPEC, frame::Frame},
    gate,
};

const REQUESTS: &str = "ingress_ethernet";
const ANSWERS: &str = "egress_ethernet";
const TOKEN: &str = "a-token-that-is-listed-later_0123456789";

fn listed(action: Action) -> Listed {
    Listed {
        token: ShortTokenId([7; 6]),
        action,
        fingerprint: Fingerprint::of(&KEY, Domain::Exact, TOKEN.as_bytes()),
    }
}

/// A connection whose server takes each request at once.
struct Connection {
    programs: Programs,
    next: u32,
}

impl Connection {
    fn of(mut programs: Programs) -> Self {
        let next = Frame::SEQUENCE;
        let syn = Frame::v4("").answer(next).syn().ethernet().unwrap();
        programs.repeat(ANSWERS, &syn, 1).unwrap();
        Self { programs, next }
    }

    /// Whether a request with the token passes.
    fn passes(&mut self) -> bool {
        self.sends(&format!(
            "GET /{} HTTP/1.1\r\nHost: api.example.org\r\nAccept: */*\r\nAuthorization: Bearer {TOKEN}\r\n\r\n",
            self.next
        ))
    }

    /// Whether a request passes whose id is this, and no other one has.
    fn passes_with(&mut self, line: &str, id: &str) -> bool {
        self.sends(&format!(
            "{line}Host: api.example.org\r\nAccept: */*\r\nAuthorization: Bearer a-token-that-is-clean\r\n\
             X-Request-Id: {id}\r\nConnection: keep-alive\r\n\r\n"
        ))
    }

    /// Whether this request passes.
    fn sends(&mut self, request: &str) -> bool {
        let frame = Frame::v4(request).at(self.next).ethernet().unwrap();
        self.next = self
            .next
            .wrapping_add(u32::try_from(request.len()).unwrap());
        let (action, _) = self.programs.repeat(REQUESTS, &frame, 1).unwrap();
        let ack = Frame::v4("").answer(self.next).ethernet().unwrap();
        self.programs.repeat(ANSWERS, &ack, 1).unwrap();
        action == UNSPEC
    }

    fn count(&self, counter: Counter) -> u64 {
        let totals = self.programs.totals().unwrap();
        totals.get(counter.name()).copied().unwrap_or(0)
    }

    /// The block is known from here on.
    fn learn(&mut self) {
        let before = self.count(Counter::Repeated);
        for _ in 0..3 {
            assert!(self.passes());
        }
        assert!(self.count(Counter::Repeated) > before);
    }
}

fn each_variant(test: &str) -> Vec<Connection> {
    if !gate::programs(test) {
        return Vec::new();
    }
    let load = |variant| {
        let setup = Setup {
            variant,
            ..Setup::default()
        };
        Connection::of(Programs::load(&setup).unwrap())
    };
    [Variant::Keyed, Variant::Sha256].map(load).into()
}

#[test]
fn a_block_that_repeats_is_scanned_twice() {
    for mut connection in each_variant("a_block_that_repeats_is_scanned_twice") {
        for _ in 0..10 {
            assert!(connection.passes());
        }
        assert_eq!(connection.count(Counter::Repeated), 8);
        // One for each request that was scanned, in one case by a filter that lets nothing through.
        assert!(connection.count(Counter::Candidates) <= 2 * 2);
        assert_eq!(connection.count(Counter::Clean), 10);
    }
}

/// The value that is another one each time is left out of what is known, in front of whatever line, and what it holds besides is
/// found.
#[test]
fn a_request_is_known_whatever_its_id_is() {
    const USUAL: &str = "GET /items HTTP/1.1\r\n";
    for mut connection in each_variant("a_request_is_known_whatever_its_id_is") {
        let line = format!("\r\nAuthorization: Bearer {TOKEN}\r\nX: ");
        let len = line.len();
        for id in 0..10 {
            assert!(connection.passes_with(USUAL, &format!("{id:0len$}")));
        }
        let before = connection.count(Counter::Repeated);
        for id in 10..20 {
            let path = format!("GET /{id} HTTP/1.1\r\n");
            assert!(connection.passes_with(USUAL, &format!("{id:0len$}")));
            assert!(connection.passes_with(&path, &format!("{id:0len$x}")));
        }
        assert_eq!(connection.count(Counter::Repeated), before + 20);
        let digest = TokenDigest::of(&KEY, Domain::Exact, TOKEN.as_bytes());
        let keyed = (connection.programs)
            .list(&[(digest, listed(Action::Block))])
            .is_ok();
        for id in 20..30 {
            assert!(connection.passes_with(USUAL, &format!("{id:0len$}")));
        }
        assert_eq!(connection.passes_with(USUAL, &line), !keyed);
    }
}

/// An addition to the table, one that makes it and the filter grow, and one beside it.
#[test]
fn an_addition_is_found_in_the_very_next_request() {
    if !gate::programs("an_addition_is_found_in_the_very_next_request") {
        return;
    }
    let others = |n: usize| -> Vec<_> {
        let names = (0..n).map(|n| format!("another-token-{n}"));
        names
            .map(|name| {
                let digest = TokenDigest::of(&KEY, Domain::Exact, name.as_bytes());
                (digest, listed(Action::Block))
            })
            .collect()
    };
    for n in [0, 50_000] {
        let programs = Programs::load(&Setup::default()).unwrap();
        let mut connection = Connection::of(programs);
        connection.learn();
        // What has nothing to do with the block is a change all the same, and the block is learnt again.
        connection.programs.list(&others(1)).unwrap();
        connection.learn();
        let mut entries = others(n);
        let digest = TokenDigest::of(&KEY, Domain::Exact, TOKEN.as_bytes());
        entries.push((digest, listed(Action::Block)));
        connection.programs.list(&entries).unwrap();
        assert!(!connection.passes(), "{n}");
        assert_eq!(connection.count(Counter::Blocked), 1);
    }
}

#[test]
fn an_addition_by_sha_256_is_found_in_the_very_next_request() {
    if !gate::programs("an_addition_by_sha_256_is_found_in_the_very_next_request") {
        return;
    }
    let setup = Setup {
        variant: Variant::Sha256,
        ..Setup::default()
    };
    let mut programs = Programs::load(&setup).unwrap();
    let mut map = programs.take_hashed().unwrap();
    let mut connection = Connection::of(programs);
    connection.learn();
    let digest = Sha256Digest::new(Sha256::digest(TOKEN).into(), Domain::Exact);
    map.change(&[(digest, listed(Action::Block))], &[]).unwrap();
    assert!(!connection.passes());
}

/// Where segments are read more than once nothing is known: here in a connection whose beginning was not seen.
#[test]
fn nothing_is_known_where_messages_may_begin_anywhere() {
    for mut connection in each_variant("nothing_is_known_where_messages_may_begin_anywhere") {
        connection.programs.forget_flows().unwrap();
        for _ in 0..10 {
            assert!(connection.passes());
        }
        assert_eq!(connection.count(Counter::Repeated), 0);
    }
}

/// What is only reported is reported each time.
#[test]
fn what_is_reported_is_never_known() {
    if !gate::programs("what_is_reported_is_never_known") {
        return;
    }
    for monitor in [false, true] {
        let setup = Setup {
            monitor,
            ..Setup::default()
        };
        let mut programs = Programs::load(&setup).unwrap();
        let digest = TokenDigest::of(&KEY, Domain::Exact, TOKEN.as_bytes());
        let action = if monitor {
            Action::Block
        } else {
            Action::Alert
        };
        programs.list(&[(digest, listed(action))]).unwrap();
        let mut connection = Connection::of(programs);
        for n in 1..=50 {
            assert!(connection.passes());
            assert_eq!(connection.count(Counter::Alerted), n);
        }
        assert_eq!(connection.count(Counter::Repeated), 0);
    }
}
