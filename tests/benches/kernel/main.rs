//! What one packet costs in the kernel tier, by `BPF_PROG_TEST_RUN`, at 0, a thousand and a million entries.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the figures go to standard output, a line each, the rest to standard error"
)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a clamped number of repetitions, counts of bytes"
)]

mod bulk;
mod measure;
mod packets;

use std::{fs, time::Instant};

use anyhow::{Result, bail};
use bulk::Link;
use measure::{Measured, accept, connection, in_body, in_order, one, warm, without_clock};
use tokenblock::{
    denylist::{Action, Fingerprint, Listed, ShortTokenId, TokenDigest},
    kernel::object::{Variant, programs},
};
use tokenblock_ebpf::digest::Domain;
use tokenblock_tests::{
    bench::{arguments::Arguments, load_average, request},
    bpf::{KEY, Programs, Setup},
};

/// Sizes of the denylist, and how they are called.
const SIZES: [(usize, &str); 3] = [(0, "0"), (1000, "1k"), (1_000_000, "1m")];
/// Segments of a connection that are measured.
const SEGMENTS: usize = 4000;
/// Connections that are followed besides.
const FLOWS: u32 = 100_000;
/// Times that they are swept.
const SWEEPS: usize = 15;

/// What bodies hold, and how they are called: so many KiB of one.
type Body = fn(usize) -> Result<Vec<u8>>;
const BODIES: [(&str, Body); 3] = [
    ("", packets::json_body),
    ("text_", packets::text_body),
    ("random_", packets::random_body),
];

/// What a figure has to stay below, in nanoseconds.
const LIMITS: &[(&str, f64)] = &[
    ("request_1m_ns", 600.0),
    ("request_jwt_1m_ns", 600.0),
    ("request_100k_flows_ns", 600.0),
    ("body_kib_ns", 200.0),
    ("body_text_kib_ns", 200.0),
    ("body_random_kib_ns", 200.0),
    ("bulk_kib_ns", 200.0),
    ("bulk_text_kib_ns", 200.0),
    ("bulk_random_kib_ns", 200.0),
    ("other_port_ns", 60.0),
];

fn main() -> Result<()> {
    if Arguments::read(&[])?.is_none() {
        return Ok(());
    }
    if programs(Variant::Keyed).is_err() {
        bail!("built without the kernel programs: start it by `cargo xtask bench kernel`");
    }
    print_machine();
    eprintln!(
        "{:<28} {:>9} {:>9} {:>9} {:>9}",
        "ns", "best", "median", "worst", "limit"
    );
    for (entries, size) in SIZES {
        let mut programs = filled(entries)?;
        requests(&mut programs, size)?;
        if entries == SIZES[SIZES.len() - 1].0 {
            others(&mut programs)?;
            among_flows(&mut programs)?;
            bulk(&mut programs)?;
        }
    }
    hashed()?;
    eprintln!("load average afterwards: {}", load_average());
    Ok(())
}

/// What the second set of programs takes, which is attached while entries are known by their SHA-256 alone.
fn hashed() -> Result<()> {
    let mut programs = Programs::with_fixtures(&Setup {
        variant: Variant::Sha256,
        ..Setup::default()
    })?;
    for (kind, token) in [
        ("", request::opaque as fn(&str) -> String),
        ("jwt_", packets::jwt),
    ] {
        let usual = packets::numbered(&token("usual"), SEGMENTS)?;
        figure(
            &format!("sha256_request_{kind}ns"),
            in_order(&mut programs, &usual)?,
        );
        let repeated = vec![packets::request(&token("usual"))?; SEGMENTS];
        figure(
            &format!("sha256_request_repeated_{kind}ns"),
            in_order(&mut programs, &repeated)?,
        );
    }
    let body = vec![packets::json_body(1)?; SEGMENTS];
    figure("sha256_body_kib_ns", in_body(&mut programs, &body)?);
    let small = vec![packets::small_request()?; SEGMENTS];
    figure("sha256_small_request_ns", in_order(&mut programs, &small)?);
    let port = packets::other_port()?;
    figure("sha256_other_port_ns", warm(&mut programs, &port)?);
    Ok(())
}

/// The programs with a denylist of tokens that nobody sends.
fn filled(entries: usize) -> Result<Programs> {
    let mut programs = Programs::load(&Setup {
        flows: 2 * FLOWS,
        newcomers: Some(u32::MAX),
        ..Setup::default()
    })?;
    let made_up: Vec<_> = (0..entries).map(|i| entry(&format!("token-{i}"))).collect();
    programs.list(&made_up)?;
    Ok(programs)
}

fn entry(token: &str) -> (TokenDigest, Listed) {
    let listed = Listed {
        token: ShortTokenId([0; 6]),
        action: Action::Block,
        fingerprint: Fingerprint::of(&KEY, Domain::Exact, token.as_bytes()),
    };
    (
        TokenDigest::of(&KEY, Domain::Exact, token.as_bytes()),
        listed,
    )
}

/// What depends on the size of the denylist.
fn requests(programs: &mut Programs, size: &str) -> Result<()> {
    for (kind, token) in [
        ("", request::opaque as fn(&str) -> String),
        ("jwt_", packets::jwt),
    ] {
        let usual = packets::numbered(&token("usual"), SEGMENTS)?;
        figure(
            &format!("request_{kind}{size}_ns"),
            in_order(programs, &usual)?,
        );
        let repeated = vec![packets::request(&token("usual"))?; SEGMENTS];
        figure(
            &format!("request_repeated_{kind}{size}_ns"),
            in_order(programs, &repeated)?,
        );
        let each_its_own: Result<Vec<_>> = (0..SEGMENTS)
            .map(|i| packets::request(&token(&format!("cold {i}"))))
            .collect();
        let cold = in_order(programs, &each_its_own?)?;
        let cold = Measured {
            best: cold.median,
            ..cold
        };
        figure(&format!("request_cold_{kind}{size}_ns"), cold);
    }
    Ok(())
}

/// Requests while many connections are followed: of one of them, and of one after the other.
fn among_flows(programs: &mut Programs) -> Result<()> {
    programs.forget_flows()?;
    let first = packets::small_request()?;
    let syn = packets::accepted()?;
    for client in 0..FLOWS {
        accept(programs, &packets::to_client(&syn, client))?;
        one(programs, &packets::from_client(&first, client))?;
    }
    let usual = packets::request(&request::opaque("usual"))?;
    let numbered = packets::numbered(&request::opaque("usual"), SEGMENTS)?;
    figure("request_100k_flows_ns", connection(programs, &numbered)?);
    let mut runs = Vec::with_capacity(SEGMENTS);
    // Far apart, so that none is in the caches because of the one before it.
    for client in (0..FLOWS).step_by(FLOWS as usize / SEGMENTS) {
        let next = packets::behind(&usual, &first)?;
        runs.push(one(programs, &packets::from_client(&next, client))?);
    }
    let each = without_clock(programs, runs)?;
    let each = Measured {
        best: each.median,
        ..each
    };
    figure("request_cold_flows_ns", each);
    // What looking through the table for those that may go takes of one.
    let mut sweeps = Vec::with_capacity(SWEEPS);
    for _ in 0..SWEEPS {
        let began = Instant::now();
        let swept = programs.sweep(true)?;
        sweeps.push(began.elapsed().as_secs_f64() * 1e9 / f64::from(swept.flows));
    }
    figure("sweep_flow_ns", Measured::of(sweeps));
    Ok(())
}

/// What doesn't.
fn others(programs: &mut Programs) -> Result<()> {
    for (kind, body) in BODIES {
        let short = in_body(programs, &vec![body(1)?; SEGMENTS])?;
        let long = in_body(programs, &vec![body(3)?; SEGMENTS])?;
        // What a KiB more of body costs; what a segment costs whatever it holds is in the other figure.
        let rate = |long: f64, short: f64| (long - short) / 2.0;
        let each_kib = Measured {
            best: rate(long.best, short.best),
            median: rate(long.median, short.median),
            worst: f64::NAN,
        };
        figure(&format!("body_{kind}each_further_kib_ns"), each_kib);
        figure(&format!("body_{kind}kib_ns"), short);
    }
    let small = vec![packets::small_request()?; SEGMENTS];
    figure("small_request_ns", in_order(programs, &small)?);
    for (name, frame) in [
        ("other_port_ns", packets::other_port()?),
        ("no_payload_ns", packets::acknowledgment()?),
    ] {
        figure(name, warm(programs, &frame)?);
    }
    Ok(())
}

/// Bodies in segments of up to 64 KiB.
fn bulk(programs: &mut Programs) -> Result<()> {
    let link = Link::new(programs)?;
    for (kind, body) in BODIES {
        let each_kib = link.each_kib(programs, packets::payload(&body(32)?))?;
        figure(&format!("bulk_{kind}kib_ns"), each_kib);
    }
    Ok(())
}

fn figure(name: &str, measured: Measured) {
    let Measured {
        best,
        median,
        worst,
    } = measured;
    let limit = LIMITS.iter().find(|(known, _)| *known == name);
    let limit = limit.map_or(String::new(), |(_, limit)| {
        format!("{limit:>9.0}{}", if best > *limit { "  ABOVE" } else { "" })
    });
    eprintln!("{name:<28} {best:>9.1} {median:>9.1} {worst:>9.1} {limit}");
    println!(r#"{{"name":"{name}","value":{best:.1},"unit":"ns"}}"#);
}

fn print_machine() {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let processor = read("/proc/cpuinfo");
    let model = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown", |(_, model)| model.trim());
    eprintln!(
        "processor: {model}; kernel: {}; load average: {}",
        read("/proc/sys/kernel/osrelease").trim(),
        load_average()
    );
}
