//! All hosts, loaded in turns, and compared with the one that has nothing in front.

use std::path::Path;

use anyhow::Result;
use tokenblock_tests::bench::{figure, median, wrk};

use crate::{
    Bench, Extent,
    contenders::{Contender, Kind},
    load::{self, Outcome},
    transfer::{self, Way},
};

/// What each has to reach of what the host does with nothing in front.
const LIMITS: &[(&str, f64)] = &[
    ("ratio_tokenblock", 0.95),
    ("ratio_varied_tokenblock", 0.95),
    ("upload_ratio", 0.90),
    ("download_ratio", 0.95),
];

/// The hosts, running.
pub(crate) struct Rounds<'a> {
    bench: &'a Bench,
    extent: &'a Extent,
    contenders: Vec<Contender>,
}

impl<'a> Rounds<'a> {
    /// Starts every host; says which one can't be had here, and leaves it out.
    pub(crate) fn start(bench: &'a Bench, extent: &'a Extent) -> Result<Self> {
        let mut contenders = Vec::new();
        for kind in &extent.kinds {
            match (kind, Contender::start(bench, *kind)) {
                (_, Ok(contender)) => contenders.push(contender),
                (Kind::None | Kind::Ours, Err(error)) => return Err(error.context(kind.name())),
                (_, Err(error)) => eprintln!("{} is left out: {error:#}", kind.name()),
            }
        }
        Ok(Self {
            bench,
            extent,
            contenders,
        })
    }

    /// Gives requests per second and CPU, of clients that repeat their header lines and of those that don't.
    pub(crate) fn requests(&self) -> Result<()> {
        let script = self.bench.folder.path().join("varied.lua");
        wrk::write_script(&script)?;
        self.load("", None)?;
        self.load("varied_", Some(&script))
    }

    fn load(&self, which: &str, script: Option<&Path>) -> Result<()> {
        let outcomes = self.turns(self.extent.rounds, |contender| {
            load::run(contender, self.extent.load, script)
        })?;
        let of = |field: fn(&Outcome) -> f64| -> Vec<Vec<f64>> {
            let each = outcomes.iter();
            each.map(|outcomes| outcomes.iter().map(field).collect())
                .collect()
        };
        let rates = of(|outcome| outcome.requests_per_second);
        let names = self
            .contenders
            .iter()
            .map(|contender| contender.kind.name());
        for ((name, rates), cpu) in names.zip(&rates).zip(of(|outcome| outcome.cpu_per_request)) {
            figure(
                &format!("{which}requests_per_s_{name}"),
                median(rates.clone()),
                "1/s",
            );
            let what = format!("cpu_us_per_{which}request_{name}");
            figure(&what, median(cpu), "us");
        }
        self.compare(&rates, |kind| format!("ratio_{which}{}", kind.name()));
        Ok(())
    }

    /// Gives what becomes of long bodies.
    pub(crate) fn transfers(&self) -> Result<()> {
        let body = self.bench.folder.path().join("body");
        transfer::write_body(&body)?;
        for way in Way::ALL {
            let rates = self.turns(self.extent.transfers, |contender| way.run(contender, &body))?;
            let name = way.name();
            for (contender, rates) in self.contenders.iter().zip(&rates) {
                let what = format!("{name}_gbytes_per_s_{}", contender.kind.name());
                figure(&what, median(rates.clone()) / 1e9, "GB/s");
            }
            self.compare(&rates, |kind| {
                if kind == Kind::Ours {
                    format!("{name}_ratio")
                } else {
                    format!("{name}_ratio_{}", kind.name())
                }
            });
        }
        Ok(())
    }

    /// Sees that each has done its work.
    pub(crate) fn check(&self) -> Result<()> {
        self.contenders.iter().try_for_each(Contender::check)
    }

    /// Every host once a round, each round beginning with another one; what came of it, host by host.
    fn turns<T>(
        &self,
        rounds: usize,
        run: impl Fn(&Contender) -> Result<T>,
    ) -> Result<Vec<Vec<T>>> {
        let mut outcomes: Vec<Vec<T>> = self.contenders.iter().map(|_| Vec::new()).collect();
        for round in 0..rounds {
            let mut turn: Vec<_> = self.contenders.iter().zip(&mut outcomes).collect();
            let first = round % turn.len().max(1);
            turn.rotate_left(first);
            for (contender, outcomes) in turn {
                outcomes.push(run(contender)?);
            }
        }
        Ok(outcomes)
    }

    /// Each against the first of the same round; what the machine did meanwhile hit both.
    fn compare(&self, rates: &[Vec<f64>], name: impl Fn(Kind) -> String) {
        let Some((none, others)) = rates.split_first() else {
            return;
        };
        for (contender, rates) in self.contenders.iter().skip(1).zip(others) {
            let ratio = median(
                rates
                    .iter()
                    .zip(none)
                    .map(|(own, none)| own / none)
                    .collect(),
            );
            let name = name(contender.kind);
            let limit = LIMITS.iter().find(|(limited, _)| *limited == name);
            if let Some((_, limit)) = limit.filter(|(_, limit)| ratio < *limit) {
                eprintln!("{name} is {ratio:.3}: BELOW {limit}");
            }
            figure(&name, ratio, "x");
        }
    }
}
