//! The arguments of a bench.

use std::env;

use anyhow::{Context as _, Result, bail};

/// What a bench was started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    flags: Vec<String>,
    only: Option<String>,
}

impl Arguments {
    /// The arguments of this process; `flags` are known, `--only NAME` wants a value. `None` where `cargo test
    /// --benches` or a listing tool started it, which measure nothing.
    ///
    /// # Errors
    /// Where an argument is not known.
    pub fn read(flags: &[&str]) -> Result<Option<Self>> {
        Self::parse(env::args().skip(1), flags)
    }

    fn parse(given: impl Iterator<Item = String>, flags: &[&str]) -> Result<Option<Self>> {
        let mut given = given;
        let mut arguments = Self::default();
        while let Some(argument) = given.next() {
            match argument.as_str() {
                // `cargo bench` adds it.
                "--bench" => {}
                "--test" | "--list" => return Ok(None),
                "--only" if flags.contains(&"--only") => {
                    arguments.only = Some(given.next().context("--only wants a name")?);
                }
                flag if flags.contains(&flag) => arguments.flags.push(argument),
                other => bail!("unknown argument `{other}`; known: {}", flags.join(", ")),
            }
        }
        Ok(Some(arguments))
    }

    /// Whether this flag was given.
    #[must_use]
    pub fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|given| given == flag)
    }

    /// How much is measured: what takes less than two minutes, or, with `--full`, as much as there is.
    pub fn extent<T>(&self, quick: impl FnOnce() -> T, full: impl FnOnce() -> T) -> T {
        if self.has("--full") { full() } else { quick() }
    }

    /// Whether what has this name is to be measured: all, unless `--only` names another.
    #[must_use]
    pub fn takes(&self, name: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(given: &[&str]) -> Result<Option<Arguments>> {
        let given = given.iter().map(ToString::to_string);
        Arguments::parse(given, &["--full", "--only"])
    }

    #[test]
    fn what_is_known_is_taken_and_what_is_not_is_named() {
        let arguments = parse(&["--bench", "--full", "--only", "nginx"]).unwrap();
        let arguments = arguments.unwrap();
        assert!(arguments.has("--full") && !arguments.has("--small"));
        assert!(arguments.takes("nginx") && !arguments.takes("haproxy"));
        assert!(parse(&[]).unwrap().unwrap().takes("haproxy"));
        assert_eq!(parse(&["--list"]).unwrap(), None);
        assert!(parse(&["--only"]).is_err());
        let error = parse(&["--fill"]).unwrap_err().to_string();
        assert_eq!(error, "unknown argument `--fill`; known: --full, --only");
    }
}
