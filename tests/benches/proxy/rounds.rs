//! All proxies with a list of one size, loaded in turns.

use anyhow::Result;
use tokenblock_tests::bench::{figure, median, write_tokens};

use crate::{
    Bench, Extent,
    load::{LOADS, Load, Outcome},
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
            self.load(load)?;
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

    fn load(&self, load: &Load) -> Result<()> {
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
        self.compare(load, &outcomes);
        Ok(())
    }

    /// The last contender (ours) against the best other of each round; what the machine did meanwhile hit both.
    fn compare(&self, load: &Load, outcomes: &[Vec<Outcome>]) {
        let Some((ours, peers)) = outcomes.split_last().filter(|(_, peers)| !peers.is_empty())
        else {
            return;
        };
        let ratio = |of: fn(&Outcome) -> f64, best: fn(f64, f64) -> f64| {
            let ratios = ours.iter().enumerate().filter_map(|(round, own)| {
                let peers = peers.iter().filter_map(|peer| peer.get(round)).map(of);
                Some(of(own) / peers.reduce(best)?)
            });
            median(ratios.collect())
        };
        let rate = ratio(|o| o.requests_per_second, f64::max);
        let p99 = ratio(|o| o.p99, f64::min);
        let what = format!("{}_{}", load.name, self.size);
        figure(&format!("ratio_{what}_rps"), rate, "x");
        figure(&format!("ratio_{what}_p99"), p99, "x");
    }
}

fn memory_without(bench: &Bench, kind: crate::proxies::Kind) -> Result<u64> {
    let none = bench.folder.path().join("none.txt");
    write_tokens(&none, 0)?;
    let mut contender = Contender::start(bench, kind, &none)?;
    contender.wait(bench, false)?;
    contender.process.memory()
}
