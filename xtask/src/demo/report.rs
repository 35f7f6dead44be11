//! What the reader sees, and whether it is what was promised.

use anyhow::{Result, bail};

use super::{
    lab::Lab,
    product::Files,
    request::{Answer, LEAKED_TOKEN, Request, Transport},
};

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
    pub(crate) async fn of(
        number: usize,
        request: Request,
        lab: &Lab,
        files: &Files,
    ) -> Result<Self> {
        let send = async |transport, name| -> Result<Sent> {
            let path = format!("/{number}/{name}");
            let answer = request.send(transport, &path, lab, files).await?;
            Ok(Sent { path, answer })
        };
        let answers = [
            send(Transport::Cleartext, "cleartext").await?,
            send(Transport::Tls, "tls").await?,
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
                sent.answer == Answer::Passed
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
pub(crate) fn print_end(seen: &[String], log: &[String]) {
    println!("\nthe application saw: {}", seen.join(" "));
    println!("\ntokenblock's log:");
    for line in log {
        println!("    {line}");
    }
}

/// Whether everything is as promised.
///
/// # Errors
/// Says what is not.
pub(crate) fn check(rows: &[Row], seen: &[String], log: &[String]) -> Result<()> {
    if let Some(row) = rows.iter().find(|row| !row.is_as_promised()) {
        bail!("not as promised: {}", row.request.name);
    }
    let promised: Vec<_> = rows.iter().flat_map(Row::promised_paths).collect();
    if promised != seen {
        bail!("the application should have seen {promised:?} alone, and saw {seen:?}");
    }
    // The signed part: what identifies the token, whatever its spelling.
    let signed = LEAKED_TOKEN
        .rsplit_once('.')
        .map_or(LEAKED_TOKEN, |(signed, _)| signed);
    if log.iter().any(|line| line.contains(signed)) {
        bail!("the log holds the token");
    }
    Ok(())
}
