//! The proxies at one rate, in turns.

use anyhow::{Context as _, Result};
use tokenblock_tests::bench::{figure, median};

use super::{Pace, generator::Generator};
use crate::{
    Bench, Extent,
    load::Load,
    proxies::{Contender, FLOOR},
};

/// Of a hundred of the rate that the slowest proxy serves at most.
const PARTS: [u32; 3] = [25, 50, 75];

/// What one round gave, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Waited {
    /// What the proxy has taken, a request; in steps of a tick, so that only the mean of many rounds says something.
    cpu: f64,
    p50: f64,
    p99: f64,
}

/// Sends `load` at parts of `most`, in requests per second; gives the figures.
///
/// # Errors
/// Where one of them does not answer as is due.
pub(crate) fn measure(
    bench: &Bench,
    extent: &Extent,
    contenders: &[Contender],
    load: &Load,
    most: f64,
) -> Result<()> {
    let ports = contenders.iter().map(|contender| contender.kind.port());
    let mut generators = ports
        .chain([FLOOR])
        .map(|port| Generator::open(bench, load, port))
        .collect::<Result<Vec<_>>>()?;
    for percent in PARTS {
        let what = format!("{}_at_{percent}", load.name);
        let mut waits: Vec<Vec<Waited>> = vec![Vec::new(); contenders.len()];
        let (mut floor, mut late) = (Vec::new(), Vec::new());
        for round in 0..extent.paced_rounds {
            let pace = Pace {
                rate: most * f64::from(percent) / 100.0,
                lasting: extent.paced,
                seed: round,
            };
            for turn in order(round, generators.len()) {
                let generator = generators.get_mut(turn).context("no such turn")?;
                let Some((contender, waits)) = contenders.get(turn).zip(waits.get_mut(turn)) else {
                    floor.push(generator.run(&pace)?.p99());
                    continue;
                };
                let before = contender.process.cpu()?;
                let mut waited = generator.run(&pace)?;
                let spent = contender.process.cpu()?.saturating_sub(before);
                waits.push(Waited {
                    cpu: spent.as_secs_f64() * 1e6 / (pace.rate * pace.seconds()),
                    p50: waited.p50(),
                    p99: waited.p99(),
                });
                late.push(waited.late_p99());
            }
        }
        for (contender, waits) in contenders.iter().zip(&waits) {
            let name = contender.kind.name();
            eprintln!("{name}_{what}_p99_us, round by round: {}", rounds(waits));
            figure(
                &format!("{name}_{what}_cpu_us"),
                mean(waits, |w| w.cpu),
                "us",
            );
            figure(
                &format!("{name}_{what}_p50_us"),
                middle(waits, |w| w.p50),
                "us",
            );
            figure(
                &format!("{name}_{what}_p99_us"),
                middle(waits, |w| w.p99),
                "us",
            );
        }
        figure(&format!("floor_{what}_p99_us"), median(floor), "us");
        figure(&format!("generator_{what}_p99_us"), median(late), "us");
        for (name, of) in [
            ("p50", (|w| w.p50) as fn(&Waited) -> f64),
            ("p99", |w| w.p99),
        ] {
            if let Some(ratio) = ours_to_best(&waits, of) {
                figure(&format!("ratio_{what}_{name}"), ratio, "x");
            }
        }
    }
    Ok(())
}

/// Who comes when in a round: another first in each. What the machine does at times of its own (a kernel thread each half
/// second, say) would else meet the same one in every round.
fn order(round: u64, of: usize) -> impl Iterator<Item = usize> {
    let first = usize::try_from(round).unwrap_or(0);
    (0..of).map(move |turn| (first + turn) % of)
}

/// In order: the lower ones are those of rounds that nothing else disturbed.
fn rounds(waits: &[Waited]) -> String {
    let mut p99: Vec<f64> = waits.iter().map(|waited| waited.p99).collect();
    p99.sort_unstable_by(f64::total_cmp);
    let written: Vec<String> = p99.iter().map(|p99| format!("{p99:.0}")).collect();
    written.join(" ")
}

fn middle(waits: &[Waited], of: fn(&Waited) -> f64) -> f64 {
    median(waits.iter().map(of).collect())
}

fn mean(waits: &[Waited], of: fn(&Waited) -> f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "some rounds")]
    let count = waits.len() as f64;
    waits.iter().map(of).sum::<f64>() / count
}

/// The last contender (ours) against the other that waits least in the middle of the rounds. Not the one that waits least in
/// each: of two figures that vary the lesser one is less than either.
fn ours_to_best(waits: &[Vec<Waited>], of: fn(&Waited) -> f64) -> Option<f64> {
    let (ours, peers) = waits.split_last()?;
    let best = peers.iter().map(|peer| middle(peer, of)).reduce(f64::min)?;
    Some(middle(ours, of) / best)
}
