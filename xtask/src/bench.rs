//! `cargo xtask bench`: measures, prints a table, writes the figures down.
//!
//! A bench is a bench target of the tests package without a harness: `tests/benches/NAME.rs` and
//! `[[bench]] name = "NAME" harness = false`. It prints each figure on a line of its own on standard
//! output, `{"name": "...", "value": 1.5, "unit": "ns"}`, and whatever else it has to say on standard error.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use cargo_metadata::TargetKind;
use serde::{Deserialize, Serialize};

use crate::{
    build::{BINARY_VARIABLE, Built, OBJECT_VARIABLE, Profile},
    exec,
    packages::{self, CURL, H2LOAD, HAPROXY, IP, IPTABLES, NGINX, Tool, WRK},
    targets, workspace,
};

/// Arguments of the task.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which bench.
    name: String,
    /// Write the figures to this file, as a JSON array of `{"name", "value", "unit"}`.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Arguments of the bench.
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// One figure, as a bench prints it and as the file holds it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct Figure {
    name: String,
    value: f64,
    unit: String,
}

/// Runs the bench, as root.
///
/// # Errors
/// Where there is no such bench, it fails, or prints what is no figure.
pub(crate) fn task(args: &Args) -> Result<()> {
    let known = targets::names(&TargetKind::Bench)?;
    if !known.contains(&args.name) {
        bail!("no bench `{}`; known: {}", args.name, known.join(", "));
    }
    packages::ensure(tools(&args.name))?;
    let built = Built::new(Profile::Release)?;
    let mut cargo = Command::new(workspace::cargo());
    cargo
        .current_dir(workspace::root())
        .args(["bench", "--package", targets::PACKAGE, "--bench"])
        .arg(&args.name)
        .env(OBJECT_VARIABLE, &built.object)
        .env(BINARY_VARIABLE, &built.binary)
        .stderr(Stdio::inherit())
        .arg("--")
        .args(&args.arguments);
    let printed = exec::output(exec::run_built_as_root(&mut cargo))?;
    let figures = parse(&printed)?;
    print_table(&figures);
    if let Some(file) = &args.json {
        fs::write(file, serde_json::to_string_pretty(&figures)? + "\n")
            .with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}

/// What a bench starts.
fn tools(name: &str) -> &'static [Tool] {
    match name {
        "denylist" => &[IP, HAPROXY, NGINX],
        "loss" => &[IP],
        "host" => &[IP, CURL, HAPROXY, IPTABLES, NGINX, WRK],
        "proxy" => &[IP, CURL, HAPROXY, NGINX, WRK, H2LOAD],
        _ => &[],
    }
}

fn parse(printed: &str) -> Result<Vec<Figure>> {
    printed
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            serde_json::from_str(line).with_context(|| format!("the bench printed `{line}`"))
        })
        .collect()
}

fn print_table(figures: &[Figure]) {
    let width = figures.iter().map(|figure| figure.name.len()).max();
    for Figure { name, value, unit } in figures {
        println!(
            "{name:<width$}  {value:>14.3} {unit}",
            width = width.unwrap_or(0)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_figures_alone() {
        let figures = parse("{\"name\":\"a_ns\",\"value\":1.5,\"unit\":\"ns\"}\n\n").unwrap();
        assert_eq!(
            figures,
            [Figure {
                name: "a_ns".to_owned(),
                value: 1.5,
                unit: "ns".to_owned()
            }]
        );
        let error = parse("warming up\n").unwrap_err();
        assert!(format!("{error:#}").contains("warming up"));
    }
}
