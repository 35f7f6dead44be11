//! What the reader sees, and whether it is what was promised.

use anyhow::{Result, bail};
use tokenblock_tests::{fixtures::Token, origin, product::End};

use crate::request::{Answer, Request, Site, Transport};

/// A request over each transport, and what it got.
#[derive(Debug)]
pub(crate) struct Row {
    request: Request,
    number: usize,
    answers: [Sent; 2],
}

#[derive(Debug)]
struct Sent {
    path: String,
    answer: Answer,
}

impl Row {
    /// Sends the request.
    ///
    /// # Errors
    /// Where it can't be sent.
    pub(crate) fn of(number: usize, request: Request, site: &Site<'_>) -> Result<Self> {
        let send = |transport, name| -> Result<Sent> {
            let path = format!("/{number}/{name}");
            let answer = request.send(transport, &path, site)?;
            Ok(Sent { path, answer })
        };
        let answers = [
            send(Transport::Cleartext, "cleartext")?,
            send(Transport::Tls, "tls")?,
        ];
        Ok(Self {
            request,
            number,
            answers,
        })
    }

    /// Prints it as a row of the table, the first under its head.
    pub(crate) fn print(&self) {
        if self.number == 0 {
            println!(
                "{:<34} {:<22} over TLS",
                "the client sends", "over cleartext"
            );
        }
        let [cleartext, tls] = &self.answers;
        let verdict = if self.is_as_promised() {
            ""
        } else {
            "  NOT AS PROMISED"
        };
        let name = self.request.name;
        println!(
            "{name:<34} {:<22} {}{verdict}",
            cleartext.answer, tls.answer
        );
    }

    fn is_as_promised(&self) -> bool {
        self.answers.iter().all(|sent| {
            if self.request.compromised {
                sent.answer.is_block()
            } else {
                sent.answer.passed()
            }
        })
    }

    /// Paths that the application should have seen.
    fn promised_paths(&self) -> impl Iterator<Item = &str> {
        self.answers
            .iter()
            .filter(|_sent| !self.request.compromised)
            .map(|sent| sent.path.as_str())
    }
}

/// Prints what the application saw and what the product logged.
pub(crate) fn print_end(seen: &[origin::Request], log: &[String]) {
    println!("\nthe application saw: {}", paths(seen).join(" "));
    println!("\ntokenblock's log, without the counters:");
    for line in log.iter().filter(|line| !line.contains(" counters=")) {
        println!("    {line}");
    }
}

/// Whether everything is as promised.
///
/// # Errors
/// Says what is not.
pub(crate) fn check(rows: &[Row], seen: &[origin::Request], end: &End) -> Result<()> {
    if let Some(row) = rows.iter().find(|row| !row.is_as_promised()) {
        bail!("not as promised: {}", row.request.name);
    }
    let promised: Vec<_> = rows.iter().flat_map(Row::promised_paths).collect();
    let seen = paths(seen);
    if promised != seen {
        bail!("the application should have seen {promised:?} alone, and saw {seen:?}");
    }
    if end.code() != Some(0) {
        bail!("tokenblock ended with {:?}", end.code());
    }
    if end.log.contains(&Token::Wallarm.canonical().1) {
        bail!("the log holds the token");
    }
    Ok(())
}

/// Sorted, for the origin remembers them by connection.
fn paths(requests: &[origin::Request]) -> Vec<&str> {
    let targets = requests
        .iter()
        .filter_map(|request| request.line.split(' ').nth(1));
    let mut paths: Vec<_> = targets
        .map(|target| target.split('?').next().unwrap_or(target))
        .collect();
    paths.sort_unstable();
    paths
}
