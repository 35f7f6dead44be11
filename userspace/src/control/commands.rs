//! `tokenblock deny` and `tokenblock status`.

use std::io::{self, BufWriter, IsTerminal as _, Read as _, Write};

use anyhow::Context as _;
use http::Method;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{
    api::{
        ActionName, AddRequest, AddedAnswer, CheckRequest, CheckedAnswer, Entries, EntryAnswer,
        HashedName, Listed, Named, NewEntry, OutcomeName, RemoveRequest, RemovedAnswer, SeenAnswer,
        StatusAnswer,
    },
    args::{
        AddArgs, CheckArgs, DenyCommand, ExportArgs, ListArgs, RemoveArgs, SocketArgs, StatusArgs,
        TokenArgs,
    },
    client::Client,
    import::{import, send, show},
    prompt::ask,
    server::Server,
};
use crate::exit::{Exit, Failure};

/// Tokens in one request; more are added as a list.
const BATCH: usize = 10_000;
/// Most bytes that are read from standard input.
const LONGEST: u64 = 1 << 30;

/// Changes or shows the denylist of a running tokenblock.
///
/// # Errors
/// Where it doesn't answer, or refuses.
pub fn deny(command: DenyCommand) -> Result<Exit, Failure> {
    match command {
        DenyCommand::Add(args) => add(&args),
        DenyCommand::Import(args) => import(&args),
        DenyCommand::Remove(args) => remove(&args),
        DenyCommand::List(args) => list(&args),
        DenyCommand::Check(args) => check(&args),
        DenyCommand::Export(args) => export(&args),
    }
}

/// Says how a running tokenblock is: [`Exit::Ok`] only where all that is configured is enforced.
///
/// # Errors
/// Where it doesn't answer.
pub fn status(args: &StatusArgs) -> Result<Exit, Failure> {
    let status: StatusAnswer = client(&args.call.at)?.get("/v1/status")?;
    let mut out = Out::new(args.call.json);
    if args.call.json {
        out.json(&status)?;
    } else {
        out.text(|to| show_status(to, &status))?;
    }
    out.end()?;
    Ok(if status.in_force { Exit::Ok } else { Exit::No })
}

pub(super) fn client(at: &SocketArgs) -> Result<Client, Failure> {
    let server = Server::new(at)?;
    Client::new(server).map_err(|error| Failure::new(Exit::Os, error))
}

fn add(args: &AddArgs) -> Result<Exit, Failure> {
    let client = client(&args.call.at)?;
    let given = Given::take(&args.tokens)?;
    if let Some(list) = bulk(&given, args) {
        let path = format!(
            "/v1/import?strict=true&force={}&dry_run={}",
            args.force, args.dry_run
        );
        return show(&send(&client, &path, list)?, args.call.json);
    }
    let tokens: Vec<_> = given.tokens().collect();
    if tokens.len() > BATCH && !args.dry_run {
        // What is wrong with any of them is told before one is added.
        for tokens in tokens.chunks(BATCH) {
            add_some(&client, args, tokens, true)?;
        }
    }
    let mut out = Out::new(args.call.json);
    for tokens in tokens.chunks(BATCH) {
        let answer = add_some(&client, args, tokens, args.dry_run)?;
        for added in &answer.entries {
            out.line(added, |to| {
                let outcome = match added.outcome {
                    OutcomeName::Added => "added",
                    OutcomeName::Updated => "updated",
                    OutcomeName::Unchanged => "unchanged",
                };
                let would = if args.dry_run { "would be " } else { "" };
                writeln!(to, "{would}{outcome} {}", added.entry.short)
            })?;
        }
    }
    out.end()
}

fn add_some(
    client: &Client,
    args: &AddArgs,
    tokens: &[&str],
    dry_run: bool,
) -> Result<Entries<AddedAnswer>, Failure> {
    let entry = |token: &&str| NewEntry {
        token: Zeroizing::new((*token).to_owned()),
        kind: args.kind,
        action: args.action,
        expires: args.expires.clone(),
        reason: args.reason.clone(),
        source: args.source.clone(),
    };
    let request = AddRequest {
        entries: tokens.iter().map(entry).collect(),
        force: args.force,
        dry_run,
    };
    Ok(client.send(Method::POST, "/v1/entries", &request)?)
}

fn remove(args: &RemoveArgs) -> Result<Exit, Failure> {
    let client = client(&args.call.at)?;
    let mut named: Vec<Named> = args.id.iter().cloned().map(Named::Id).collect();
    if named.is_empty() {
        let given = Given::take(&args.tokens)?;
        let tokens = given.tokens().map(|token| Zeroizing::new(token.to_owned()));
        named.extend(tokens.map(Named::Token));
    }
    let mut out = Out::new(args.call.json);
    let mut released = true;
    while !named.is_empty() {
        let entries = named.drain(..named.len().min(BATCH)).collect();
        let request = RemoveRequest { entries };
        let answer: Entries<RemovedAnswer> =
            client.send(Method::DELETE, "/v1/entries", &request)?;
        for removed in &answer.entries {
            released &= !removed.in_files;
            out.line(removed, |to| {
                let short = removed.id.get(..12).unwrap_or_default();
                let what = if removed.removed {
                    "removed"
                } else {
                    "was not added"
                };
                let still = if removed.in_files {
                    ", but a denylist file lists it: it stays in force"
                } else {
                    ""
                };
                writeln!(to, "{short} {what}{still}")
            })?;
        }
    }
    out.end()?;
    Ok(if released { Exit::Ok } else { Exit::No })
}

fn check(args: &CheckArgs) -> Result<Exit, Failure> {
    let client = client(&args.call.at)?;
    let mut out = Out::new(args.call.json);
    let mut listed = true;
    let given = Given::take(&args.tokens)?;
    for tokens in given.tokens().collect::<Vec<_>>().chunks(BATCH) {
        let tokens = tokens.iter();
        let request = CheckRequest {
            tokens: tokens
                .map(|token| Zeroizing::new((*token).to_owned()))
                .collect(),
        };
        let answer: Entries<CheckedAnswer> = client.ask(Method::POST, "/v1/check", &request)?;
        for checked in &answer.entries {
            listed &= checked.listed;
            out.line(checked, |to| show_checked(to, checked))?;
        }
    }
    out.end()?;
    Ok(if listed { Exit::Ok } else { Exit::No })
}

fn list(args: &ListArgs) -> Result<Exit, Failure> {
    let mut out = Out::new(args.call.json);
    each_entry(&args.call.at, args.added, |entry| {
        out.line(entry, |to| {
            let action = entry.action.name();
            write!(to, "{}  {action:5} ", entry.short)?;
            if let Some(added) = &entry.added {
                write!(to, " added={added}")?;
            }
            let expires = entry.expires.as_deref().unwrap_or("never");
            write!(to, " expires={expires}")?;
            if let Some(jwt) = &entry.jwt {
                write!(to, " jwt={jwt}")?;
            }
            if entry.hash.is_some() {
                write!(to, " hash")?;
            }
            attributes(to, entry)?;
            if let Some(file) = &entry.file {
                write!(to, " file={}:{}", file.path, file.line)?;
            }
            show_seen(to, entry.seen.as_ref())?;
            writeln!(to)
        })
    })?;
    out.end()
}

fn export(args: &ExportArgs) -> Result<Exit, Failure> {
    let mut out = Out::new(false);
    each_entry(&args.at, args.added, |entry| {
        out.text(|to| {
            if let Some(jwt) = &entry.jwt {
                // Its values are not known here.
                return writeln!(to, "# {} names claims of JWTs ({jwt})", entry.short);
            }
            write!(to, "sha256:{} action={}", entry.id, entry.action.name())?;
            if let Some(expires) = &entry.expires {
                write!(to, " expires={expires}")?;
            }
            attributes(to, entry)?;
            writeln!(to)
        })
    })?;
    out.end()
}

/// All entries, or those that were added. What files can't be read is told, and the rest is shown.
fn each_entry(
    at: &SocketArgs,
    added: bool,
    mut show: impl FnMut(&EntryAnswer) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let path = format!("/v1/export?files={}", !added);
    client(at)?.lines(&path, |line| {
        let listed: Listed = serde_json::from_slice(line).map_err(unreadable)?;
        match listed {
            Listed::Entry(entry) => show(&entry),
            Listed::Error { error } => {
                // Nobody may be there to read it.
                let _told = writeln!(io::stderr(), "warning: {error}");
                Ok(())
            }
        }
    })
}

fn unreadable(error: serde_json::Error) -> Failure {
    Failure::new(Exit::TempFail, error)
}

/// The tokens that are meant.
enum Given {
    /// One, as an argument or typed.
    One(Zeroizing<String>),
    /// The lines of standard input, but for blank ones and comments.
    Lines(Zeroizing<String>),
}

impl Given {
    fn take(args: &TokenArgs) -> Result<Self, Failure> {
        let input = io::stdin();
        let given = match args.token.as_deref().map(String::as_str) {
            Some("-") => Self::Lines(all_input()?),
            Some(token) => {
                // Nobody may be there to read it.
                let _warned = writeln!(
                    io::stderr(),
                    "warning: other users of this host can see a token that is an argument, and shells keep it; \
                     better leave it out and type it when asked, or give it on standard input"
                );
                Self::One(Zeroizing::new(token.to_owned()))
            }
            None if input.is_terminal() => {
                let typed = ask("Token: ").context("can't read from the terminal");
                Self::One(typed.map_err(|error| Failure::new(Exit::NoInput, error))?)
            }
            None => Self::Lines(all_input()?),
        };
        if given.tokens().next().is_none() {
            let none = anyhow::anyhow!("no token on standard input");
            return Err(Failure::new(Exit::Usage, none));
        }
        Ok(given)
    }

    fn tokens(&self) -> impl Iterator<Item = &str> {
        let (one, lines) = match self {
            Self::One(token) => (Some(token.as_str()), ""),
            Self::Lines(text) => (None, text.as_str()),
        };
        one.into_iter().chain(lines.lines().filter_map(token_of))
    }
}

/// What a line of standard input holds, if anything.
fn token_of(line: &str) -> Option<&str> {
    let token = line.trim_ascii();
    (!token.is_empty() && !token.starts_with('#')).then_some(token)
}

fn all_input() -> Result<Zeroizing<String>, Failure> {
    let failed = |error| Failure::new(Exit::NoInput, error);
    let mut text = Zeroizing::new(String::new());
    let read = io::stdin()
        .lock()
        .take(LONGEST + 1)
        .read_to_string(&mut text);
    read.context("can't read standard input").map_err(failed)?;
    if text.len() as u64 > LONGEST {
        let long =
            anyhow::anyhow!("standard input is longer than {LONGEST} bytes; give it in parts");
        return Err(failed(long));
    }
    Ok(text)
}

/// Very many tokens as the lines of a denylist, which are added in one piece: nothing else is quick with a million.
/// `None` where they are few, or a line of a denylist would say something else than what is given.
fn bulk(given: &Given, args: &AddArgs) -> Option<Zeroizing<Vec<u8>>> {
    let Given::Lines(text) = given else {
        return None;
    };
    let (mut count, mut bytes) = (0, 0);
    for token in given.tokens() {
        if token.contains([' ', '\t']) {
            return None;
        }
        count += 1;
        bytes += token.len();
    }
    let attributes = attributes_of(args)?;
    if count <= BATCH {
        return None;
    }
    // Never grown: that would leave a copy behind.
    let lines = text.lines().count();
    let mut list = Zeroizing::new(Vec::with_capacity(bytes + lines + count * attributes.len()));
    for line in text.lines() {
        if let Some(token) = token_of(line) {
            list.extend_from_slice(token.as_bytes());
            list.extend_from_slice(attributes.as_bytes());
        }
        list.push(b'\n');
    }
    Some(list)
}

/// As they follow a token; `None` where one can't stand there.
fn attributes_of(args: &AddArgs) -> Option<String> {
    let mut text = format!(" action={}", args.action.name());
    if let Some(kind) = args.kind {
        text.extend([" kind=", kind.name()]);
    }
    for (name, value) in [
        ("expires", &args.expires),
        ("reason", &args.reason),
        ("source", &args.source),
    ] {
        let Some(value) = value else { continue };
        if value.is_empty() || value.contains(|c: char| c.is_control() || c == '"') {
            return None;
        }
        text.extend([" ", name, "=\"", value, "\""]);
    }
    Some(text)
}

/// Standard output, for people or for programs.
pub(super) struct Out {
    to: BufWriter<io::Stdout>,
    json: bool,
}

impl Out {
    pub(super) fn new(json: bool) -> Self {
        let to = BufWriter::new(io::stdout());
        Self { to, json }
    }

    pub(super) fn line(
        &mut self,
        answer: &impl Serialize,
        text: impl FnOnce(&mut BufWriter<io::Stdout>) -> io::Result<()>,
    ) -> Result<(), Failure> {
        if self.json {
            self.json(answer)
        } else {
            self.text(text)
        }
    }

    fn json(&mut self, answer: &impl Serialize) -> Result<(), Failure> {
        let line = serde_json::to_string(answer).map_err(|e| Failure::new(Exit::Internal, e))?;
        self.text(|to| writeln!(to, "{line}"))
    }

    fn text(
        &mut self,
        text: impl FnOnce(&mut BufWriter<io::Stdout>) -> io::Result<()>,
    ) -> Result<(), Failure> {
        text(&mut self.to).map_err(|error| Failure::new(Exit::Os, error))
    }

    pub(super) fn end(mut self) -> Result<Exit, Failure> {
        let flushed = self.to.flush();
        flushed.map_err(|error| Failure::new(Exit::Os, error))?;
        Ok(Exit::Ok)
    }
}

/// As a denylist file has them.
fn attributes(to: &mut impl Write, entry: &EntryAnswer) -> io::Result<()> {
    if let Some(kind) = entry.hash.and_then(HashedName::kind) {
        write!(to, " kind={}", kind.name())?;
    }
    for (name, text) in [("reason", &entry.reason), ("source", &entry.source)] {
        if let Some(text) = text {
            write!(to, " {name}=\"{text}\"")?;
        }
    }
    Ok(())
}

fn show_checked(to: &mut impl Write, checked: &CheckedAnswer) -> io::Result<()> {
    let short = &checked.short;
    if !checked.listed {
        return writeln!(to, "{short} not listed");
    }
    let expires = checked.expires.as_deref().unwrap_or("never");
    let action = checked.action.map_or("-", ActionName::name);
    write!(to, "{short} listed, action={action} expires={expires}")?;
    if let Some(addition) = &checked.addition {
        let added = addition.added.as_deref().unwrap_or("-");
        write!(to, ", added={added}")?;
        attributes(to, addition)?;
    }
    for entry in &checked.files {
        if let Some(file) = &entry.file {
            write!(to, ", by {}:{}", file.path, file.line)?;
        }
        attributes(to, entry)?;
    }
    if checked.in_files && checked.files.is_empty() {
        write!(to, ", by a denylist file")?;
    }
    show_seen(to, checked.seen.as_ref())?;
    writeln!(to)
}

fn show_seen(to: &mut impl Write, seen: Option<&SeenAnswer>) -> io::Result<()> {
    let Some(seen) = seen else { return Ok(()) };
    let time = |time: &Option<String>| time.clone().unwrap_or_else(|| "-".to_owned());
    let (hits, first, last) = (seen.hits, time(&seen.first), time(&seen.last));
    write!(to, " hits={hits} first={first} last={last}")?;
    let from: Vec<_> = seen
        .sources
        .iter()
        .map(|from| from.address.to_string())
        .collect();
    write!(to, " from={}", from.join(","))
}

fn show_status(to: &mut impl Write, status: &StatusAnswer) -> io::Result<()> {
    let not = if status.in_force { "" } else { "NOT " };
    let (version, uptime) = (&status.version, status.uptime_seconds);
    writeln!(to, "{not}in force; tokenblock {version}, up {uptime} s")?;
    if let Some(kernel) = &status.tiers.kernel {
        let interfaces = kernel.interfaces.join(",");
        writeln!(
            to,
            "kernel tier: interfaces {interfaces}; ports {}",
            kernel.ports
        )?;
        if let Some(folder) = &kernel.pin_dir {
            writeln!(to, "the programs outlive the process: {folder}")?;
        }
    }
    if let Some(proxy) = &status.tiers.proxy {
        writeln!(to, "proxy tier: {}", proxy.address)?;
    }
    let entries = &status.entries;
    writeln!(
        to,
        "entries: {} in force, {} added",
        entries.in_force, entries.added
    )?;
    if entries.proxy_only > 0 {
        writeln!(
            to,
            "entries that the proxy tier alone enforces: {}",
            entries.proxy_only
        )?;
    }
    for file in &entries.files {
        match file.entries {
            Some(entries) => writeln!(to, "file {}: {entries} entries", file.path)?,
            None => writeln!(to, "file {}: refused", file.path)?,
        }
    }
    for (what, error) in [
        ("last reload", &status.last_reload.error),
        ("last change", &status.store_error),
    ] {
        if let Some(error) = error {
            writeln!(to, "{what}: {error}")?;
        }
    }
    Ok(())
}
