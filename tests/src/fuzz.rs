//! What the fuzz targets do with any bytes, and what the tests do with the bytes that were kept (`fuzz/corpus`).
//! Each panics where something is wrong.
#![expect(clippy::expect_used, reason = "a fuzz target fails by panicking")]

mod response;

use std::sync::LazyLock;

use arbitrary::Unstructured;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
pub use response::response;
use tokenblock_ebpf::{
    filter::NoFilter,
    packet::{Head, Link, Segment, parse, parse_usual},
    verdict::Policy,
};

use crate::{
    bpf::KEY,
    engine::Engine,
    fixtures::{LOCATIONS, MIN_TOKEN_LENGTH},
    reference::{self, Config},
    scanned::{rules, scanned},
    trace::{Act, Listing, Streams, TRUST_AFTER, TRUSTED_BODY, play, trusted_body},
};

/// A target: bytes in, a panic where something is wrong.
pub type Target = fn(&[u8]);

/// The targets by name; each has a folder in `fuzz/corpus`.
pub const TARGETS: [(&str, Target); 4] = [
    ("packet", packet),
    ("scanner", scanner),
    ("flow", flow),
    ("response", response),
];

static LISTING: LazyLock<Listing> =
    LazyLock::new(|| Listing::new().expect("rules of the fixtures"));

/// Where the parser finds a segment it stands inside the frame, and where another parser finds a plain one, ours finds
/// the same; what is read of usual headers where they lie is what it reads.
///
/// # Panics
/// Where that is not so.
pub fn packet(bytes: &[u8]) {
    let Ok(len) = u32::try_from(bytes.len()) else {
        return;
    };
    for link in [Link::Ethernet, Link::Ip] {
        let mut segment = Segment::default();
        let parsed = parse(&Head::of(bytes), len, link, &mut segment);
        if parsed.is_ok() {
            let end = segment.payload_at.checked_add(segment.payload_len);
            assert!(end.is_some_and(|end| end <= len), "{segment:?} of {len}");
            assert!(segment.ip_at < segment.tcp_at && segment.tcp_at < segment.payload_at);
        }
        let mut usual = Segment::default();
        if link == Link::Ethernet && parse_usual(&Head::of(bytes), len, &mut usual) {
            assert_eq!((parsed, usual), (Ok(()), segment));
        }
        let theirs = match link {
            Link::Ethernet => SlicedPacket::from_ethernet(bytes),
            Link::Ip => SlicedPacket::from_ip(bytes),
        };
        if let (Ok(()), Some((ports, sequence, payload))) =
            (parsed, theirs.ok().and_then(plain_tcp))
        {
            let at = segment.payload_at as usize;
            let ours = bytes.get(at..at + segment.payload_len as usize);
            assert_eq!((segment.source_port, segment.destination_port), ports);
            assert_eq!((segment.sequence, ours), (sequence, Some(payload)));
        }
    }
}

/// Ports, sequence number and payload of a segment that is wrapped in nothing unusual.
fn plain_tcp(packet: SlicedPacket<'_>) -> Option<((u16, u16), u32, &[u8])> {
    // A length of 0 has a meaning of its own for each parser.
    match packet.net? {
        NetSlice::Ipv4(ip) if ip.header().total_len() != 0 => {}
        NetSlice::Ipv6(ip) if ip.header().payload_length() != 0 => {}
        NetSlice::Ipv4(_) | NetSlice::Ipv6(_) | NetSlice::Arp(_) => return None,
    }
    let TransportSlice::Tcp(tcp) = packet.transport? else {
        return None;
    };
    let ports = (tcp.source_port(), tcp.destination_port());
    Some((ports, tcp.sequence_number(), tcp.payload()))
}

/// The scanner looks up what the reference does, in whatever pieces the stream comes. The first bytes are the sizes.
///
/// # Panics
/// Where that is not so.
pub fn scanner(bytes: &[u8]) {
    static CONFIG: LazyLock<Config> = LazyLock::new(|| Config {
        key: KEY.0,
        min_len: usize::try_from(MIN_TOKEN_LENGTH).expect("a short length"),
        locations: LOCATIONS
            .iter()
            .map(|(kind, name)| (*kind, (*name).to_owned()))
            .collect(),
    });
    let (sizes, stream) = bytes.split_at(bytes.len().min(3));
    let sizes: Vec<usize> = sizes.iter().map(|size| usize::from(*size) + 1).collect();
    let rules = rules(&CONFIG).expect("rules of the fixtures");
    let want: Vec<_> = reference::stream(&CONFIG, stream)
        .iter()
        .map(|candidate| (candidate.location, candidate.digest(&CONFIG)))
        .collect();
    for sizes in [&[usize::MAX][..], &sizes] {
        if !sizes.is_empty() {
            assert_eq!(scanned(&rules, stream, sizes, &NoFilter), want, "{sizes:?}");
        }
    }
}

/// Whatever the receiver delivers bears no listed token.
pub fn flow(bytes: &[u8]) {
    // Bytes that are used up give zeros, and no error.
    try_flow(&mut Unstructured::new(bytes)).unwrap_or_default();
}

/// Bits of the byte that says which streams are sent.
const FRAMED: u8 = 1;
const TRUSTING: u8 = 2;
/// Bit that says that what is framed in two ways passes.
const LENIENT: u8 = 4;
const ADRIFT: u8 = 8;
/// Bit that says that it looks like no head, wherever it is cut.
const ODD: u8 = 16;
/// Most acts of a case.
const ACTS: usize = 200;

fn try_flow(bytes: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let (first, long, kind): (u32, bool, u8) =
        (bytes.arbitrary()?, bytes.arbitrary()?, bytes.arbitrary()?);
    let trusting = long && kind & TRUSTING != 0;
    let body = match (long, trusting) {
        (_, true) => TRUSTED_BODY,
        (true, false) => 20_000,
        (false, _) if kind & (FRAMED | ADRIFT) != 0 => 40,
        (false, _) => 0,
    };
    let streams = if kind & ODD != 0 && !long {
        if kind & FRAMED == 0 {
            Streams::in_odd_head(kind & ADRIFT != 0)
        } else {
            Streams::overtaken(body)
        }
    } else if kind & ADRIFT != 0 {
        Streams::adrift(body)
    } else if kind & FRAMED == 0 {
        Streams::by_lines(body)
    } else {
        Streams::by_framing(body)
    };
    let acts = if trusting {
        let from = bytes.int_in_range(0..=899)?;
        let begin = acts(bytes, ACTS / 4)?;
        trusted_body(&streams, begin, acts(bytes, ACTS)?, from)
    } else if long {
        acts_behind(bytes, body)?
    } else {
        acts(bytes, ACTS)?
    };
    let listed = |digest: &_| LISTING.has(digest);
    let after = if trusting { TRUST_AFTER } else { 0 };
    let mut engine = Engine::new(&LISTING.rules, &listed).trusting(after);
    // Headers are read wherever a message ends; queries are not, with that policy.
    if kind & (LENIENT | FRAMED) == LENIENT {
        engine = engine.framed_in_two_ways(Policy::Pass);
    }
    let played = play(&mut engine, &streams, &acts, first);
    assert!(
        !streams.bring_token(&LISTING, &played.stream),
        "{acts:?} from {first}: {:?}",
        String::from_utf8_lossy(&played.stream)
    );
    Ok(())
}

fn acts(bytes: &mut Unstructured<'_>, most: usize) -> arbitrary::Result<Vec<Act>> {
    let mut acts = Vec::new();
    while !bytes.is_empty() && acts.len() < most {
        acts.push(bytes.arbitrary()?);
    }
    Ok(acts)
}

/// Acts about what is behind a body, after all before was sent.
fn acts_behind(bytes: &mut Unstructured<'_>, body: usize) -> arbitrary::Result<Vec<Act>> {
    // Up to where the second request begins, so that what comes is about it.
    let len = bytes.int_in_range(0..=body + 500)?;
    let all = Act::Continue {
        len,
        variant: 0,
        decoy: false,
    };
    let mut acts = acts(bytes, ACTS)?;
    for act in &mut acts {
        if let Act::Send { from, .. } = act {
            *from += body;
        }
    }
    Ok([all, Act::Ack].into_iter().chain(acts).collect())
}
