//! What the settings were given, to tell what a later reading of them changes, and when a change counts.

use std::{collections::BTreeMap, ffi::OsString};

use clap::{ArgMatches, Args as _, Command};

use super::proxy::ProxyArgs;

/// The values of each setting, by flag, before they are checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given(BTreeMap<String, Vec<OsString>>);

/// When a change of a setting counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// When the settings are read again, for both tiers.
    AtReload,
    /// The same; it is of the proxy tier alone.
    AtReloadOfProxy,
    /// At the next start.
    AtStart,
}

/// Of the proxy tier: what its threads and sockets are made with.
const AT_START: [&str; 6] = [
    "proxy-listen",
    "proxy-takeover",
    "workers",
    "intercept",
    "intercept-fail",
    "intercept-pin",
];
/// What both tiers have to agree on.
const OF_BOTH_TIERS: [&str; 7] = [
    "monitor",
    "header",
    "cookie",
    "query",
    "min-token-length",
    "apifw-denylist-tokens-header-name",
    "apifw-denylist-tokens-cookie-name",
];

impl Change {
    /// When a change of the setting with this flag counts.
    #[must_use]
    pub fn of(flag: &str) -> Self {
        if OF_BOTH_TIERS.contains(&flag) {
            return Self::AtReload;
        }
        let proxy = ProxyArgs::augment_args(Command::new(""));
        let is_proxys = proxy
            .get_arguments()
            .any(|arg| arg.get_long() == Some(flag));
        if is_proxys && !AT_START.contains(&flag) {
            Self::AtReloadOfProxy
        } else {
            Self::AtStart
        }
    }
}

impl Given {
    /// What `matches` of `command` hold.
    pub(super) fn of(command: &Command, matches: &ArgMatches) -> Self {
        let raw = |id| -> Vec<OsString> {
            let values = matches.try_get_raw(id).ok().flatten();
            values.into_iter().flatten().map(OsString::from).collect()
        };
        let flags = command.get_arguments().filter_map(|arg| {
            let flag = arg.get_long()?;
            Some((flag.to_owned(), raw(arg.get_id().as_str())))
        });
        Self(flags.collect())
    }

    /// The flags of the settings whose values differ.
    #[must_use]
    pub fn changes(&self, later: &Self) -> Vec<String> {
        let changed = self
            .0
            .iter()
            .filter(|(flag, values)| later.0.get(*flag) != Some(values));
        changed.map(|(flag, _)| flag.clone()).collect()
    }

    /// Takes the values that `later` has of these flags.
    pub fn take(&mut self, later: &Self, flags: &[String]) {
        for flag in flags {
            if let Some(values) = later.0.get(flag) {
                self.0.insert(flag.clone(), values.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command, RunArgs, command};

    fn given(flags: &[&str]) -> Given {
        let line = ["x", "run"].into_iter().chain(flags.iter().copied());
        let Command::Run(args) = Cli::read(line).unwrap().command else {
            panic!("another command");
        };
        let RunArgs { given, .. } = *args;
        given
    }

    #[test]
    fn what_differs_is_told_by_flag() {
        let mut before = given(&["--workers=2", "--header=a,b"]);
        let later = given(&["--workers=3", "--header=a,b", "--limit-streams=5"]);
        assert_eq!(before.changes(&later), ["limit-streams", "workers"]);
        before.take(&later, &["workers".to_owned()]);
        assert_eq!(before.changes(&later), ["limit-streams"]);
        assert_eq!(before.changes(&before.clone()), [""; 0]);
    }

    #[test]
    fn each_setting_has_its_time() {
        let command = command();
        let run = command.find_subcommand("run").unwrap();
        let flags: Vec<&str> = run
            .get_arguments()
            .filter_map(clap::Arg::get_long)
            .collect();
        for flag in AT_START.iter().chain(&OF_BOTH_TIERS) {
            assert!(flags.contains(flag), "{flag}");
        }
        for (flag, change) in [
            ("route", Change::AtReloadOfProxy),
            ("timeout-idle", Change::AtReloadOfProxy),
            ("tls-cert", Change::AtReloadOfProxy),
            ("workers", Change::AtStart),
            ("interface", Change::AtStart),
            ("header", Change::AtReload),
            ("min-token-length", Change::AtReload),
        ] {
            assert_eq!(Change::of(flag), change, "{flag}");
        }
    }
}
