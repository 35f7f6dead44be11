//! What a lookup costs in both tiers, at each size of the list.

use std::{hint::black_box, time::Instant};

use anyhow::Result;
use tokenblock::denylist::{
    Action, Denylist, Expires, Fingerprint, List, Listed, Record, ShortTokenId, TokenDigest,
};
use tokenblock::kernel::KernelMap;
use tokenblock_ebpf::digest::Domain;
use tokenblock_tests::bpf::{KEY, Programs, Setup, frame::Frame};

use crate::{MILLION, figure, tokens};

/// Lookups that are measured; each of another token.
const LOOKUPS: usize = 100_000;
const PACKETS: usize = 4000;

pub(crate) fn measure(large: bool) -> Result<()> {
    let mut sizes = vec![(10_000, "10k"), (100_000, "100k"), (MILLION, "1m")];
    if large {
        sizes.push((10 * MILLION, "10m"));
    }
    for (entries, size) in sizes {
        let records: Vec<_> = (0..entries).map(record).collect();
        kernel(&records, size)?;
        proxy(records, size)?;
    }
    Ok(())
}

fn record(n: usize) -> Record {
    let token = tokens::opaque(n);
    let listed = Listed {
        token: ShortTokenId([0; 6]),
        action: Action::Block,
        fingerprint: Fingerprint::of(&KEY, Domain::Exact, token.as_bytes()),
    };
    Record {
        digest: digest(&token),
        listed,
        expires: Expires::NEVER,
    }
}

fn digest(token: &str) -> TokenDigest {
    TokenDigest::of(&KEY, Domain::Exact, token.as_bytes())
}

/// Requests each with a token of its own, listed or not: the middle one.
fn kernel(records: &[Record], size: &str) -> Result<()> {
    let mut programs = Programs::load(&Setup {
        monitor: true,
        ..Setup::default()
    })?;
    let entries: Vec<_> = records.iter().map(|r| (r.digest, r.listed)).collect();
    programs.list(&entries)?;
    for (kind, first) in [("clean", records.len()), ("listed", 0)] {
        let step = if first == 0 {
            records.len() / PACKETS
        } else {
            1
        };
        let mut runs = Vec::with_capacity(PACKETS);
        for n in 0..PACKETS {
            let token = tokens::opaque(first + n * step.max(1));
            let request =
                format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n");
            let frame = Frame::v4(request).ethernet()?;
            programs.forget_flows()?;
            let (_, took) = programs.repeat("ingress_ethernet", &frame, 1)?;
            programs.events();
            runs.push(took.as_secs_f64() * 1e9);
        }
        runs.sort_unstable_by(f64::total_cmp);
        figure(
            &format!("kernel_request_{kind}_{size}_ns"),
            runs[PACKETS / 2],
            "ns",
        );
    }
    Ok(())
}

/// Lookups in a row, each of another digest: the mean.
fn proxy(records: Vec<Record>, size: &str) -> Result<()> {
    let entries = records.len();
    let mut denylist = Denylist::<KernelMap>::new(None);
    denylist.apply(&List::merge(records, std::time::SystemTime::now()))?;
    let reader = denylist.reader();
    for (kind, first) in [("clean", entries), ("listed", 0)] {
        let step = if first == 0 {
            (entries / LOOKUPS).max(1)
        } else {
            1
        };
        let digests: Vec<_> = (0..LOOKUPS)
            .map(|n| digest(&tokens::opaque(first + n * step)))
            .collect();
        let began = Instant::now();
        for digest in &digests {
            black_box(reader.get(black_box(digest)));
        }
        let each = began.elapsed().as_secs_f64() * 1e9 / LOOKUPS as f64;
        figure(&format!("proxy_lookup_{kind}_{size}_ns"), each, "ns");
    }
    Ok(())
}
