//! All proxies with a list of one size, loaded in turns.

use anyhow::Result;
use tokenblock_tests::bench::{figure, median, write_tokens};

use crate::{
    Bench, Extent,
    load::{LOADS, Load, Outcome},
    paced,
    proxies::Contender,
};

/// The proxies, running.
pub(crate) struct Rounds<'a> {
    bench: &'a Bench,
    extent: &'a Extent,
    contenders: Vec<Contender>,
    /// How figures call the list's size.
    size: &'static str,
    entries: usize,
}

impl<'a> Rounds<'a> {
    /// Starts every proxy with a list of so many entries; gives the figures of that.
    pub(crate) fn start(bench: &'a Bench, extent: &'a Extent, entries: usize) -> Result<Self> {
        let size = match entries {
            0 => "0",
            1000 => "1k",
            100_000 => "100k",
            _ => "1m",
        };
        let tokens = bench.folder.path().join("tokens.txt");
        write_tokens(&tokens, entries)?;
        let mut contenders = Vec::new();
        for kind in &extent.kinds {
            let name = kind.name();
            let empty = (entries > 0)
                .then(|| memory_without(bench, *kind))
                .transpose()?;
            let mut contender = Contender::start(bench, *kind, &tokens)?;
            let started = contender.wait(bench, entries > 0)?;
            figure(
                &format!("{name}_start_{size}_s"),
                started.as_secs_f64(),
                "s",
            );
            if let Some(empty) = empty {
                let taken = contender.process.memory()?.saturating_sub(empty);
                #[expect(clippy::cast_precision_loss, reason = "a few hundred megabytes")]
                let each = taken as f64 / entries as f64;
                if entries >= 100_000 {
                    figure(&format!("{name}_memory_per_token_{size}_bytes"), each, "B");
                }
            }
            contenders.push(contender);
        }
        Ok(Self {
            bench,
            extent,
            contenders,
            size,
            entries,
        })
    }

    /// Gives the figures of every load, and those of an addition while nothing else happens.
    pub(crate) fn run(mut self) -> Result<()> {
        for load in LOADS.iter().filter(|load| self.entries > 0 || !load.listed) {
            let slowest = self.load(load)?;
            if load.is_paced() && Some(&self.entries) == self.extent.sizes.last() {
                paced::measure(self.bench, self.extent, &self.contenders, load, slowest)?;
            }
        }
        for contender in &mut self.contenders {
            let took = contender.add(self.bench)?;
            let name = contender.kind.name();
            let size = self.size;
            figure(
                &format!("{name}_addition_{size}_ms"),
                took.as_secs_f64() * 1e3,
                "ms",
            );
        }
        Ok(())
    }

    /// As much as each takes; gives what the slowest took, in requests per second.
    fn load(&self, load: &Load) -> Result<f64> {
        let mut outcomes: Vec<Vec<Outcome>> = vec![Vec::new(); self.contenders.len()];
        for _ in 0..self.extent.rounds {
            for (contender, outcomes) in self.contenders.iter().zip(&mut outcomes) {
                let (process, port) = (&contender.process, contender.kind.port());
                outcomes.push(load.run(self.bench, process, port, self.extent.load)?);
            }
        }
        for (contender, outcomes) in self.contenders.iter().zip(&outcomes) {
            let what = format!("{}_{}_{}", contender.kind.name(), load.name, self.size);
            let middle = |of: fn(&Outcome) -> f64| median(outcomes.iter().map(of).collect());
            figure(
                &format!("{what}_rps"),
                middle(|o| o.requests_per_second),
                "1/s",
            );
            figure(
                &format!("{what}_cpu_us"),
                middle(|o| o.cpu_per_request),
                "us",
            );
            figure(&format!("{what}_p50_us"), middle(|o| o.p50), "us");
            figure(&format!("{what}_p99_us"), middle(|o| o.p99), "us");
        }
        let what = format!("{}_{}", load.name, self.size);
        if let Some(ratio) = ours_to_best(&outcomes, |o| o.requests_per_second, f64::max) {
            figure(&format!("ratio_{what}_rps"), ratio, "x");
        }
        if let Some(ratio) = ours_to_best(&outcomes, |o| o.p99, f64::min) {
            figure(&format!("ratio_{what}_p99"), ratio, "x");
        }
        let rates = outcomes
            .iter()
            .map(|of| median(of.iter().map(|o| o.requests_per_second).collect()));
        Ok(rates.fold(f64::INFINITY, f64::min))
    }
}

/// The last contender (ours) against the best other of each round: what the machine did meanwhile hit both. The middle
/// one of the rounds; none without others.
fn ours_to_best(
    rounds: &[Vec<Outcome>],
    of: fn(&Outcome) -> f64,
    best: fn(f64, f64) -> f64,
) -> Option<f64> {
    let (ours, peers) = rounds.split_last().filter(|(_, peers)| !peers.is_empty())?;
    let ratios = ours.iter().enumerate().filter_map(|(round, own)| {
        let peers = peers.iter().filter_map(|peer| peer.get(round)).map(of);
        Some(of(own) / peers.reduce(best)?)
    });
    Some(median(ratios.collect()))
}

fn memory_without(bench: &Bench, kind: crate::proxies::Kind) -> Result<u64> {
    let none = bench.folder.path().join("none.txt");
    write_tokens(&none, 0)?;
    let mut contender = Contender::start(bench, kind, &none)?;
    contender.wait(bench, false)?;
    contender.process.memory()
}
