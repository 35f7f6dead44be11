//! What was transferred in turns, and the figures of it.

use tokenblock_tests::bench::{figure, median, percentile};

/// What each host is called in figures: the one without the program that counts, the one with it, another without,
/// which says by how much two hosts differ that are the same, and one whose client has the program on the way out.
pub(crate) const HOSTS: [&str; 4] = ["none", "tokenblock", "none_again", "egress"];
/// Which host the others are compared with.
const NONE: usize = 0;

/// Bytes per second of each host in a round; none where the connection was reset.
pub(crate) type Round = [Option<f64>; HOSTS.len()];

/// Prints what a host had of the first one's throughput, and gives it: by the medians of both.
pub(crate) fn ratio(name: &str, rounds: &[Round], host: usize) -> f64 {
    let [none, other] = [NONE, host].map(|host| median(rates(rounds, host)));
    let ratio = other / none;
    figure(name, ratio, "x");
    ratio
}

/// Prints throughput, ratios, their quartiles over the rounds, and how many connections were reset; gives the lowest ratio of
/// the hosts with the program.
pub(crate) fn print(name: &str, rounds: &[Round]) -> f64 {
    let mut ours = f64::MAX;
    for (host, called) in HOSTS.iter().enumerate() {
        let rate = median(rates(rounds, host));
        figure(&format!("{name}_mbytes_per_s_{called}"), rate / 1e6, "MB/s");
        figure(
            &format!("{name}_resets_{called}"),
            resets(rounds, host),
            "connections",
        );
        if host == NONE {
            continue;
        }
        let name = format!("{name}_ratio_{called}");
        let ratio = ratio(&name, rounds, host);
        if matches!(*called, "tokenblock" | "egress") {
            ours = ours.min(ratio);
        }
        let mut pairs = pairs(rounds, host);
        for (quartile, percent) in [("lower", 25), ("upper", 75)] {
            figure(
                &format!("{name}_{quartile}_quartile"),
                percentile(&mut pairs, percent),
                "x",
            );
        }
    }
    ours
}

fn rates(rounds: &[Round], host: usize) -> Vec<f64> {
    rounds.iter().filter_map(|round| round[host]).collect()
}

/// The ratio in each round in which neither connection was reset.
fn pairs(rounds: &[Round], host: usize) -> Vec<f64> {
    let pair = |round: &Round| Some(round[host]? / round[NONE]?);
    rounds.iter().filter_map(pair).collect()
}

#[expect(clippy::cast_precision_loss, reason = "some hundred at most")]
fn resets(rounds: &[Round], host: usize) -> f64 {
    let reset = |round: &&Round| round[host].is_none();
    rounds.iter().filter(reset).count() as f64
}
