//! Which interfaces are meant: names, or globs.

use glob::Pattern;

use super::error::KernelError;

/// Names and globs, as given with `--interface`.
#[derive(Clone, Debug)]
pub struct Patterns(Vec<Pattern>);

impl Patterns {
    /// Reads names and globs (`eth0`, `veth*`, `eth[0-3]`).
    ///
    /// # Errors
    /// [`KernelError::BadGlob`] where one is malformed.
    pub fn parse(given: &[String]) -> Result<Self, KernelError> {
        given
            .iter()
            .map(|text| {
                Pattern::new(text).map_err(|error| KernelError::BadGlob {
                    glob: text.clone(),
                    what: error.msg,
                })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether the interface of this name is meant.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(name))
    }

    /// The plain names (no globs) that are not among `names`: an interface that was named must be there.
    #[must_use]
    pub fn missing(&self, names: &[&str]) -> Option<&str> {
        self.0
            .iter()
            .map(Pattern::as_str)
            .find(|text| *text == Pattern::escape(text) && !names.contains(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_globs() {
        let given = ["eth0".to_owned(), "veth*".to_owned()];
        let patterns = Patterns::parse(&given).unwrap();
        assert!(patterns.matches("eth0") && patterns.matches("veth1a"));
        assert!(!patterns.matches("eth01"));
        assert_eq!(patterns.missing(&["lo", "eth0"]), None);
        assert_eq!(patterns.missing(&["lo"]), Some("eth0"));
        assert!(Patterns::parse(&["a[".to_owned()]).is_err());
    }
}
