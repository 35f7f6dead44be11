//! `tokenblock deny import`: files -> lines of a denylist -> the running tokenblock.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    path::Path,
};

use anyhow::Context as _;
use zeroize::Zeroizing;

use super::{
    api::ImportAnswer,
    args::DenyImportArgs,
    client::Client,
    commands::{Out, client},
};
use crate::{
    exit::{Exit, Failure},
    import::{Plan, list, read},
    progress,
    sources::expanded,
};

/// Fewer bytes than any token of a report; the running tokenblock has the setting.
const ANY_LENGTH: u64 = 1;

/// Adds what the files hold, all or nothing.
pub(super) fn import(args: &DenyImportArgs) -> Result<Exit, Failure> {
    let client = client(&args.call.at)?;
    let mut text = Zeroizing::new(Vec::new());
    let mut findings = Vec::new();
    for path in &args.files {
        if args.list || is_list(path) {
            append(path, &mut text)?;
        } else {
            findings.extend(read(path, args.format)?);
        }
    }
    let plan = Plan::of(findings, ANY_LENGTH, args.force);
    text.extend_from_slice(list(&plan, false).as_bytes());
    let path = format!("/v1/import?force={}&dry_run={}", args.force, args.dry_run);
    let mut answer = send(&client, &path, text)?;
    for (why, count) in plan.refused() {
        *answer.refused.entry(why.to_string()).or_default() += count as u64;
    }
    show(&answer, args.call.json)
}

/// Sends the lines of a denylist, and shows how far that is.
pub(super) fn send(
    client: &Client,
    path: &str,
    text: Zeroizing<Vec<u8>>,
) -> Result<ImportAnswer, Failure> {
    let bar = progress::of_bytes(text.len() as u64);
    let of_client = bar.clone();
    let sent = move |bytes| {
        of_client.inc(bytes as u64);
        if Some(of_client.position()) == of_client.length() {
            of_client.set_message("sent; waiting");
        }
    };
    let answer = client.send_text(path, text, sent);
    bar.finish_and_clear();
    Ok(answer?)
}

pub(super) fn show(answer: &ImportAnswer, json: bool) -> Result<Exit, Failure> {
    let mut out = Out::new(json);
    out.line(answer, |to| writeln!(to, "{}", summary(answer)))?;
    out.end()
}

/// Whether the file is called as lists in a folder of lists are.
fn is_list(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".list") || name.ends_with(".list.gz")
}

/// Appends the lines of a denylist file.
fn append(path: &Path, text: &mut Zeroizing<Vec<u8>>) -> Result<(), Failure> {
    let result = if path == Path::new("-") {
        io::stdin().lock().read_to_end(text)
    } else {
        File::open(path).and_then(|file| {
            let size = file.metadata()?.len();
            // So that it isn't moved as it grows.
            text.reserve(usize::try_from(size).unwrap_or(0) + 1);
            expanded(file, size)?.read_to_end(text)
        })
    };
    let result = result.with_context(|| format!("{}: can't be read", path.display()));
    result.map_err(|error| Failure::new(Exit::NoInput, error))?;
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    Ok(())
}

fn summary(answer: &ImportAnswer) -> String {
    let would = if answer.dry_run { "would be " } else { "" };
    let ImportAnswer {
        added,
        updated,
        unchanged,
        ..
    } = answer;
    let counts = format!("{added} {would}added, {updated} {would}updated, {unchanged} unchanged");
    let refused = answer.refused.iter();
    let refused: Vec<_> = refused
        .map(|(why, count)| format!("{count} {why}"))
        .collect();
    let refused = if refused.is_empty() {
        String::new()
    } else {
        format!("; left out: {}", refused.join(", "))
    };
    let lines = answer.lines.iter();
    let lines = lines.map(|noted| format!("\nline {}: {}", noted.line, noted.why));
    format!("{counts}{refused}{}", lines.collect::<String>())
}
