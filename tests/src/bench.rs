//! What the benches share: figures, processes on cores of their own, load, the programs that ours is measured beside.

pub mod arguments;
pub mod cores;
pub mod haproxy;
pub mod nginx;
pub mod request;
pub mod wrk;

use std::{
    fs,
    io::{BufWriter, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result};

/// The last token of every list of [`write_tokens`] that is not empty.
pub const LISTED: &str = "listed-token-0123456789abcdefghijklmnopqr";

/// Prints one figure, as `cargo xtask bench` takes it.
#[expect(clippy::print_stdout, reason = "figures go to standard output")]
pub fn figure(name: &str, value: f64, unit: &str) {
    println!(r#"{{"name":"{name}","value":{value:.3},"unit":"{unit}"}}"#);
}

/// The middle one; no number where there is none.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What so many of a hundred stay below, all of which are put in order; no number where there is none.
pub fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let at = values.get(values.len() * percent / 100);
    at.copied().unwrap_or(f64::NAN)
}

/// Of the last minute: above the number of cores, the ratios say more than the figures.
#[must_use]
pub fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("?").to_owned()
}

/// The token of a list's line, counted from 1: 40 bytes.
#[must_use]
pub fn token(line: usize) -> String {
    format!("token-{line:034x}")
}

/// Writes a list of so many tokens; [`LISTED`] comes last.
///
/// # Errors
/// Where the file can't be written.
pub fn write_tokens(path: &Path, entries: usize) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = BufWriter::new(fs::File::create(path)?);
        for line in 1..entries {
            writeln!(file, "{}", token(line))?;
        }
        if entries > 0 {
            writeln!(file, "{LISTED}")?;
        }
        file.flush()
    };
    write().with_context(|| format!("writing {}", path.display()))
}
