//! `tokenblock import`: reports -> findings -> plan -> lines of a list.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Read, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use super::{Detected, Finding, Format, Plan, ReportError, detect, findings};
use crate::sources::{write_hash, write_token};

/// Largest report in bytes.
const MAX_REPORT: u64 = 1 << 30;

/// The settings of `tokenblock import`, as given.
#[derive(Args, Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "one a flag")]
pub struct ImportArgs {
    /// Reports; `-` for standard input
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// What the reports are [default: what they look like]
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub format: Option<Format>,

    /// Say what would be added, without the tokens, and write no list
    #[arg(long)]
    pub dry_run: bool,

    /// Write the list to this file, readable by its owner alone, in place of standard output
    #[arg(short, long, value_name = "FILE", conflicts_with = "dry_run")]
    pub output: Option<PathBuf>,

    /// Write the tokens to standard output even if it is a terminal
    #[arg(long)]
    pub show: bool,

    /// Write SHA-256 hashes in place of the tokens, so that the list can be handed on
    #[arg(long, conflicts_with = "dry_run")]
    pub hashed: bool,

    /// Take placeholders and values of little entropy too
    #[arg(long)]
    pub force: bool,

    /// Refuse values that are shorter than this many bytes
    #[arg(long, value_name = "N", default_value_t = 8)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub min_token_length: u64,
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A report can't be read.
    #[error("{}: can't be read: {error}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A report is larger than any.
    #[error("{}: larger than a report can be ({MAX_REPORT} bytes)", .0.display())]
    TooLarge(PathBuf),
    /// A report is malformed.
    #[error("{}: {error}", path.display())]
    Report {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        error: ReportError,
    },
    /// Tokens would be shown.
    #[error(
        "standard output is a terminal, and the list holds tokens; give --output FILE, --hashed, --dry-run or --show"
    )]
    Terminal,
    /// The list can't be written.
    #[error("{to}: can't be written: {error}")]
    Write {
        /// Where to.
        to: String,
        /// Why.
        error: io::Error,
    },
}

/// Imports all of the reports, or none.
///
/// # Errors
/// [`ImportError`]
pub fn run(args: &ImportArgs) -> Result<(), ImportError> {
    let shows = args.output.is_none() && !args.dry_run && !args.hashed && !args.show;
    if shows && io::stdout().is_terminal() {
        return Err(ImportError::Terminal);
    }
    let mut found = Vec::new();
    for path in &args.files {
        found.extend(read(path, args.format)?);
    }
    let plan = Plan::of(found, args.min_token_length, args.force);
    if args.dry_run {
        to_stdout(&dry_run(&plan))?;
    } else {
        let list = list(&plan, args.hashed);
        match &args.output {
            Some(path) => to_file(path, &list)?,
            None => to_stdout(&list)?,
        }
    }
    // Standard error may be closed; the list is written all the same.
    let _told = writeln!(io::stderr(), "{}", summary(&plan, args.dry_run));
    Ok(())
}

/// The findings of one report.
///
/// # Errors
/// Where it can't be read, or is malformed.
pub(crate) fn read(path: &Path, format: Option<Format>) -> Result<Vec<Finding>, ImportError> {
    let contents = contents(path)?;
    let report = contents.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&contents);
    let malformed = |error| ImportError::Report {
        path: path.to_owned(),
        error,
    };
    let detected = match format {
        Some(format) => Detected::Report(format),
        None => detect(report).map_err(malformed)?,
    };
    let Detected::Report(format) = detected else {
        return Ok(Vec::new());
    };
    let mut found = findings(format, report).map_err(malformed)?;
    // What these give is in the file itself; the others report on other files.
    if matches!(format, Format::Env | Format::Har | Format::Postman) {
        for finding in &mut found {
            finding.place = format!("{}: {}", path.display(), finding.place);
        }
    }
    Ok(found)
}

/// Into a buffer that is wiped, and never moved while it fills.
fn contents(path: &Path) -> Result<Zeroizing<Vec<u8>>, ImportError> {
    let failed = |error| ImportError::Read {
        path: path.to_owned(),
        error,
    };
    let (input, size): (Box<dyn Read>, u64) = if path == Path::new("-") {
        (Box::new(io::stdin()), 0)
    } else {
        let file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        (Box::new(file), size)
    };
    let room = usize::try_from(size.min(MAX_REPORT) + 1).unwrap_or(0);
    let mut contents = Zeroizing::new(Vec::with_capacity(room));
    let read = input.take(MAX_REPORT + 1).read_to_end(&mut contents);
    if read.map_err(failed)? as u64 > MAX_REPORT {
        return Err(ImportError::TooLarge(path.to_owned()));
    }
    Ok(contents)
}

/// The lines of a denylist file.
pub(crate) fn list(plan: &Plan, hashed: bool) -> Zeroizing<String> {
    let mut list = Zeroizing::new(String::new());
    for addition in &plan.additions {
        let (reason, source) = (addition.reason(), addition.tools.join(","));
        let (reason, source) = (reason.as_deref(), Some(source.as_str()));
        if hashed {
            write_hash(&mut list, &addition.identity, reason, source);
        } else {
            write_token(&mut list, &addition.secret, reason, source);
        }
    }
    list
}

fn dry_run(plan: &Plan) -> String {
    let additions = plan
        .additions
        .iter()
        .map(|addition| format!("{addition}\n"));
    let refusals = plan.refusals.iter().map(|refusal| format!("{refusal}\n"));
    additions.chain(refusals).collect()
}

fn to_stdout(text: &str) -> Result<(), ImportError> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| ImportError::Write {
            to: "standard output".to_owned(),
            error,
        })
}

/// Whole or not at all, with mode 0600 from the first byte on.
fn to_file(path: &Path, text: &str) -> Result<(), ImportError> {
    let failed = |error| ImportError::Write {
        to: path.display().to_string(),
        error,
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    let mut file = NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

fn summary(plan: &Plan, dry_run: bool) -> String {
    let (added, duplicates) = (plan.additions.len(), plan.duplicates);
    let verb = if dry_run { "would be added" } else { "added" };
    let refused: Vec<_> = plan
        .refused()
        .into_iter()
        .map(|(why, count)| format!("{count} {why}"))
        .collect();
    let refused = if refused.is_empty() {
        String::new()
    } else {
        format!(", {} refused ({})", plan.refusals.len(), refused.join(", "))
    };
    format!("{added} {verb}, {duplicates} found more than once{refused}")
}
